//! Streams of the HTTP/2 connections to one instance: limits, permits, and the queue for a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::sync::Mutex;

/// Time for which a learned request limit is used. The instance may have another limit by then.
pub(super) const REQUEST_LIMIT_TTL: Duration = Duration::from_secs(300);
/// Number of consecutive connections that must end with the same number of processed requests
/// before that number is used as the limit.
const REPEATS: u32 = 3;

/// State of one connection: its stream limit and its open streams.
#[derive(Debug)]
pub(super) struct ConnectionState {
    /// Zero before the first SETTINGS, and once the connection accepts no more streams.
    limit: AtomicUsize,
    open: AtomicUsize,
    /// Number of streams opened so far.
    opened: AtomicUsize,
    /// Maximum number of streams over the life of the connection.
    max_requests: usize,
    has_ended: AtomicBool,
    /// The first frame was not SETTINGS.
    is_foreign: AtomicBool,
    has_settings: Notify,
    queue: Arc<StreamQueue>,
}

/// Wakes calls that wait for a stream at one instance, and learns the instance's request limit.
#[derive(Debug, Default)]
pub(super) struct StreamQueue {
    waiters: AtomicUsize,
    changed: Notify,
    request_limit: Mutex<RequestLimit>,
}

/// Number of requests that an instance processes on one connection, such as nginx's
/// `keepalive_requests`.
///
/// Requests beyond the limit are not processed. They are sent again on the next connection, where
/// the same happens, so that some would never be processed. The limit counts as known after three
/// consecutive connections ended with the same number while further requests were pending.
#[derive(Debug, Default)]
struct RequestLimit {
    latest: usize,
    /// Number of consecutive connections that ended with the latest number.
    repeats: u32,
    known: Option<(usize, Instant)>,
}

/// Permit for one open stream. Dropped at the end of the response body.
#[derive(Debug)]
pub(in crate::client::connection) struct StreamPermit(Arc<ConnectionState>);

impl ConnectionState {
    pub(super) fn new(queue: Arc<StreamQueue>) -> Self {
        Self {
            limit: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            max_requests: queue.request_limit(),
            has_ended: AtomicBool::new(false),
            is_foreign: AtomicBool::new(false),
            has_settings: Notify::new(),
            queue,
        }
    }

    /// Waits for the first SETTINGS. Only one task may wait.
    pub(super) async fn wait_for_settings(&self) {
        self.has_settings.notified().await;
    }

    /// Opens a stream, or returns `None` if all are in use.
    ///
    /// Callers must hold the pool's lock. Permits may be dropped at any time.
    #[inline]
    pub(super) fn open_stream(self: &Arc<Self>) -> Option<StreamPermit> {
        // The end is checked as well, since late SETTINGS may store a limit after it.
        if self.has_ended() || self.open.load(Ordering::SeqCst) >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        if self.opened.fetch_add(1, Ordering::Relaxed) + 1 == self.max_requests {
            self.end();
        }
        Some(StreamPermit(self.clone()))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::SeqCst) == 0
    }

    /// Returns `true` once the connection accepts no more streams.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Returns `true` if the server sent something other than HTTP/2.
    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign.load(Ordering::Relaxed)
    }

    pub(super) fn set_foreign(&self) {
        self.is_foreign.store(true, Ordering::Relaxed);
    }

    /// Closes the connection to further streams.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.limit.store(0, Ordering::Relaxed);
        self.queue.wake();
    }

    /// Records the last stream that the server processed, as its GOAWAY names it.
    pub(super) fn record_last_stream(&self, last: u32) {
        // Requests have odd stream identifiers.
        let processed = usize::try_from(last.div_ceil(2)).unwrap_or(usize::MAX);
        if (1..self.opened.load(Ordering::Relaxed)).contains(&processed) {
            self.queue.record_processed(processed);
        }
    }

    /// Applies SETTINGS, which may change the stream limit.
    pub(super) fn apply_settings(&self, limit: Option<usize>) {
        if let Some(limit) = limit
            && !self.has_ended()
        {
            self.limit.store(limit, Ordering::Relaxed);
        }
        self.has_settings.notify_one();
        self.queue.wake();
    }
}

impl StreamPermit {
    pub(super) fn connection(&self) -> &Arc<ConnectionState> {
        &self.0
    }
}

impl Drop for StreamPermit {
    #[inline]
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        if self.0.queue.has_waiters() {
            self.0.queue.wake();
        }
    }
}

impl StreamQueue {
    /// Registers a waiter, until the returned value is dropped.
    pub(super) fn join(&self) -> Waiter<'_> {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        Waiter(self)
    }

    #[inline]
    pub(super) fn has_waiters(&self) -> bool {
        self.waiters.load(Ordering::SeqCst) > 0
    }

    /// Completes when a stream may have become free.
    pub(super) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Wakes the first waiter.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Returns the maximum number of requests for a new connection.
    fn request_limit(&self) -> usize {
        let limit = self.request_limit.lock();
        limit.known.filter(|(_, since)| since.elapsed() < REQUEST_LIMIT_TTL).map_or(usize::MAX, |(limit, _)| limit)
    }

    fn record_processed(&self, processed: usize) {
        let mut limit = self.request_limit.lock();
        let is_same = std::mem::replace(&mut limit.latest, processed) == processed;
        limit.repeats = if is_same { limit.repeats + 1 } else { 1 };
        if limit.repeats >= REPEATS {
            limit.known = Some((processed, Instant::now()));
        }
    }
}

/// A call that waits for a stream.
pub(super) struct Waiter<'a>(&'a StreamQueue);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
impl ConnectionState {
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Stores a limit as the task that reads frames does if it checked for the end before the end.
    pub(super) fn race_settings(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }
}
