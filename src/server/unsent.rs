use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use tokio::sync::{Notify, watch};

use super::audit::{Lasting, Ongoing};

/// Responses of at most this size are small: they may fill the budget twice.
const SMALL: usize = 16 * 1024;

/// Seconds after which a client may repeat a request whose response exceeded the budget.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// Budget of response bytes that are in memory only because a client has not received them yet.
///
/// A list counts once for all its responses, from the moment at which no cache holds it any more. A
/// body that was built for one response counts from the start. Cached lists do not count, since
/// their number is bounded already.
///
/// Only a listener that closes slow clients frees these bytes. Without one, as under `axum::serve`,
/// the budget causes warnings but no refusals, since a few clients that never read would exhaust it
/// permanently.
#[derive(Debug)]
pub(crate) struct Unsent {
    limit: usize,
    bytes: AtomicUsize,
    /// Bytes of the lists that caches hold.
    cached: AtomicUsize,
    /// Set if a body exceeded the budget since the last call of [`is_short`](Unsent::is_short).
    exceeded_since: AtomicBool,
    exhausted: Notify,
    /// Number of listeners that close slow clients.
    closers: AtomicUsize,
    /// Set when the server stops: responses without an end have to end.
    stopping: watch::Sender<bool>,
    exceeded: Ongoing,
    refused: Ongoing,
}

impl Unsent {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
            exceeded_since: AtomicBool::new(false),
            exhausted: Notify::new(),
            closers: AtomicUsize::new(0),
            stopping: watch::Sender::new(false),
            exceeded: Ongoing::default(),
            refused: Ongoing::default(),
        }
    }

    /// Creates a budget that is enforced, as while a listener serves.
    #[cfg(test)]
    pub(super) fn bounded(limit: usize) -> Self {
        Self { closers: AtomicUsize::new(1), ..Self::new(limit) }
    }

    /// Counts a listener that closes slow clients until the returned guard is dropped, when the
    /// listener stops.
    pub(super) fn closing(self: &Arc<Self>) -> Closing {
        if self.closers.fetch_add(1, Relaxed) == 0 {
            self.stopping.send_replace(false);
        }
        Closing(self.clone())
    }

    /// Returns a receiver of the moment at which responses without an end have to end.
    #[cfg(feature = "page")]
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Ends responses without an end, so that they do not delay a shutdown.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns true if this number of bytes fits into the budget, or if no listener closes slow
    /// clients. Otherwise [`exhausted`](Self::exhausted) completes.
    ///
    /// A body counts for at most half of the budget here, so that larger bodies are still sent.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let limit = if bytes <= SMALL { self.limit.saturating_mul(2) } else { self.limit };
        let bytes_before = self.bytes();
        if bytes_before.saturating_add(bytes.min(self.limit / 2)) <= limit {
            // A response of any size fits now.
            if bytes_before <= self.limit / 2 {
                self.log_end();
            }
            return true;
        }
        if self.is_bounded() {
            self.exceeded_since.store(true, Relaxed);
            self.exhausted.notify_one();
            return false;
        }
        if let Some(Lasting { count, elapsed }) = self.exceeded.occurred() {
            let (bytes, limit) = (bytes_before, self.limit);
            tracing::warn!(
                bytes,
                limit,
                count,
                ?elapsed,
                "slow clients hold more response bytes than Limits::response_bytes allows, and no Listener closes them: see EurekaServer::listener"
            );
        }
        true
    }

    fn log_end(&self) {
        let (bytes, limit) = (self.bytes(), self.limit);
        if let Some(Lasting { count, elapsed }) = self.exceeded.ended() {
            tracing::info!(bytes, limit, count, ?elapsed, "slow clients hold less than Limits::response_bytes again");
        }
        if let Some(Lasting { count, elapsed }) = self.refused.ended() {
            tracing::info!(bytes, limit, count, ?elapsed, "responses no longer refused with 503");
        }
    }

    fn is_bounded(&self) -> bool {
        self.closers.load(Relaxed) > 0
    }

    /// Returns the 503 in place of a response that exceeds the budget, and logs it.
    pub(super) fn refusal(&self) -> Response {
        if let Some(Lasting { count, elapsed }) = self.refused.occurred() {
            let (bytes, limit) = (self.bytes(), self.limit);
            tracing::warn!(
                bytes,
                limit,
                count,
                ?elapsed,
                "responses refused with 503: slow clients hold too many others"
            );
        }
        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECONDS)]).into_response()
    }

    /// Completes when the budget was exhausted since the last call.
    pub(super) async fn exhausted(&self) {
        self.exhausted.notified().await;
    }

    /// Returns true if at most a quarter of the budget is left, and the budget is enforced.
    pub(super) fn is_exhausted(&self) -> bool {
        self.bytes() > self.limit / 4 * 3 && self.is_bounded()
    }

    /// Returns true if the budget is exhausted, or was exceeded since the last call.
    pub(super) fn is_short(&self) -> bool {
        self.exceeded_since.swap(false, Relaxed) || self.is_exhausted()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Returns the bytes of the lists that caches hold.
    #[cfg(feature = "prometheus")]
    pub(super) fn cached_bytes(&self) -> usize {
        self.cached.load(Relaxed)
    }

    /// Returns the number of responses that were refused since the start.
    #[cfg(feature = "prometheus")]
    pub(super) fn refused_total(&self) -> u64 {
        self.refused.total()
    }

    pub(super) fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.limit {
            self.exhausted.notify_one();
        }
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Returns a list for a cache. Its bytes count from the moment at which the cache drops it
    /// until the last response was sent.
    pub(super) fn cached(self: &Arc<Self>, bytes: Bytes) -> Cached {
        self.cached.fetch_add(bytes.len(), Relaxed);
        let counted = Arc::new(Counted { bytes, unsent: self.clone(), is_added: AtomicBool::new(false) });
        let readers = Arc::downgrade(&counted);
        Cached { bytes: Bytes::from_owner(Owner(counted)), unsent: self.clone(), readers }
    }
}

/// A listener that closes slow clients.
#[derive(Debug)]
pub(super) struct Closing(Arc<Unsent>);

impl Drop for Closing {
    fn drop(&mut self) {
        if self.0.closers.fetch_sub(1, Relaxed) == 1 {
            self.0.stop();
        }
    }
}

/// Cached list. Responses clone its [`bytes`](Self::bytes).
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) bytes: Bytes,
    unsent: Arc<Unsent>,
    readers: Weak<Counted>,
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.unsent.cached.fetch_sub(self.bytes.len(), Relaxed);
        drop(std::mem::take(&mut self.bytes));
        // Without a reader the bytes are freed by now. They must not count even for a moment.
        if let Some(counted) = self.readers.upgrade() {
            counted.unsent.add(counted.bytes.len());
            counted.is_added.store(true, Relaxed);
        }
    }
}

#[derive(Debug)]
struct Counted {
    bytes: Bytes,
    unsent: Arc<Unsent>,
    /// Set once the bytes count.
    is_added: AtomicBool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if *self.is_added.get_mut() {
            self.unsent.remove(self.bytes.len());
        }
    }
}

/// Shared owner of the bytes of a list.
struct Owner(Arc<Counted>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_response_fits_when_a_large_one_exceeds_the_budget() {
        let unsent = Unsent::bounded(1_000_000);
        assert!(unsent.has_room_for(usize::MAX), "nothing is unsent");
        unsent.add(900_000);
        assert!(unsent.has_room_for(100_000) && !unsent.has_room_for(100_001));
        unsent.add(1_000_000);
        assert!(unsent.has_room_for(1_000) && !unsent.has_room_for(SMALL + 1));
        unsent.add(100_000);
        assert!(!unsent.has_room_for(1));
    }

    #[test]
    fn empty_budget_accepts_the_next_body() {
        assert!(Unsent::new(0).has_room_for(1_000_000));
        let unsent = Unsent::new(usize::MAX);
        unsent.add(usize::MAX / 2);
        assert!(unsent.has_room_for(usize::MAX));
    }

    #[tokio::test]
    async fn list_without_a_reader_never_counts() {
        let unsent = Arc::new(Unsent::new(1_000));
        drop(unsent.cached(vec![0; 5_000].into()));
        assert_eq!(unsent.bytes(), 0);
        tokio::select! {
            biased;
            () = unsent.exhausted() => panic!("no connection has to be closed"),
            () = std::future::ready(()) => {}
        }
        let cached = unsent.cached(vec![0; 5_000].into());
        let reader = cached.bytes.clone();
        drop(cached);
        assert_eq!(unsent.bytes(), 5_000);
        unsent.exhausted().await;
        drop(reader);
        assert_eq!(unsent.bytes(), 0);
    }

    #[test]
    fn budget_without_a_listener_refuses_nothing() {
        let unsent = Arc::new(Unsent::new(1_000_000));
        unsent.add(10_000_000);
        assert!(unsent.has_room_for(1_000_000) && !unsent.is_exhausted());
        let listener = unsent.closing();
        assert!(!unsent.has_room_for(1_000_000) && unsent.is_exhausted());
        drop(listener);
        assert!(unsent.has_room_for(1_000_000));
    }

    #[test]
    fn exceeded_budget_is_short_once() {
        let unsent = Unsent::bounded(1_000_000);
        unsent.add(600_000);
        assert!(!unsent.is_short());
        assert!(!unsent.has_room_for(500_000));
        assert!(unsent.is_short() && !unsent.is_short());
        unsent.add(200_000);
        assert!(unsent.is_short() && unsent.is_short());
    }
}
