//! Activity of a connection: when it was last in use, and when it will have been idle or slow for
//! too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;
use crate::server::unsent::Unsent;
use crate::time::LONGEST_WAIT;

/// Time that stands for no head.
const NO_HEAD: u64 = u64::MAX;
/// First bytes of an HTTP/2 connection. No HTTP/1 method begins with them.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// Number of response bytes that a peer must read in each period of the response timeout. An HTTP/1
/// response that is not longer than this is not timed.
pub(super) const PROGRESS: u64 = 64 * 1024;

/// Counters and times of one connection. Its stream, bodies and handlers write them, its watchdog
/// and the connection table read them. Times are microseconds since the connection began.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    response_timeout: Duration,
    unsent: Arc<Unsent>,
    /// Number of requests in flight.
    in_flight: AtomicUsize,
    /// Number of handlers that wait for bytes of a request's body.
    receiving: AtomicUsize,
    /// Time of the last body byte that a handler received or response byte that the peer read, or
    /// the start of the last wait for such bytes. On HTTP/1, `active_at` may be later.
    transferred_at: AtomicU64,
    /// On HTTP/1, the time of the last byte. On HTTP/2, where a peer can send bytes for ever
    /// without a request, the time when a request or a response last ended.
    active_at: AtomicU64,
    /// Number of timed chunks of responses that are not written yet.
    held: AtomicUsize,
    held_since: AtomicU64,
    /// True while a short HTTP/1 response is not written yet.
    short_held: AtomicBool,
    /// Number of bytes of timed responses that were written: in total, until the start of the last
    /// period, and until `held_since`.
    written: AtomicU64,
    written_before_period: AtomicU64,
    written_before_held: AtomicU64,
    progress_since: AtomicU64,
    head_began_at: AtomicU64,
    http2: AtomicBool,
}

impl Activity {
    pub(super) fn start(limits: &Limits, unsent: Arc<Unsent>) -> Self {
        Self {
            began: Instant::now(),
            head_timeout: limits.head_timeout.min(LONGEST_WAIT),
            idle_timeout: limits.idle_timeout.min(LONGEST_WAIT),
            response_timeout: limits.response_timeout.min(LONGEST_WAIT),
            unsent,
            in_flight: AtomicUsize::new(0),
            receiving: AtomicUsize::new(0),
            transferred_at: AtomicU64::new(0),
            active_at: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            held_since: AtomicU64::new(0),
            short_held: AtomicBool::new(false),
            written: AtomicU64::new(0),
            written_before_period: AtomicU64::new(0),
            written_before_held: AtomicU64::new(0),
            progress_since: AtomicU64::new(0),
            head_began_at: AtomicU64::new(NO_HEAD),
            http2: AtomicBool::new(false),
        }
    }

    /// Returns the time at which the connection will have been idle or slow for too long, if
    /// nothing happens before.
    pub(super) fn deadline(&self) -> Instant {
        let idle = self.idle_deadline();
        match self.held.load(Relaxed) {
            0 => idle,
            _ => idle.min(self.at(self.progress_since.load(Relaxed)) + self.response_timeout),
        }
    }

    /// Returns the end of the idle or head timeout. It is never in the past while a handler is
    /// running.
    fn idle_deadline(&self) -> Instant {
        if self.in_flight.load(Relaxed) > 0 {
            return Instant::now() + self.idle_timeout;
        }
        let idle = self.last_active() + self.idle_timeout;
        match self.head_began_at.load(Relaxed) {
            NO_HEAD => idle,
            began => idle.min(self.at(began) + self.head_timeout),
        }
    }

    /// Returns true if a request is being handled or a response being written.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 || self.held.load(Relaxed) > 0 || self.short_held.load(Relaxed)
    }

    /// Returns the time since which all requests of the connection have waited for the peer,
    /// without a byte of their bodies or responses. `None` without requests, and while a handler is
    /// running.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let works = self.in_flight.load(Relaxed) > self.receiving.load(Relaxed);
        let active_at = self.active_at.load(Relaxed).max(self.transferred_at.load(Relaxed));
        (self.is_busy() && !works).then(|| self.at(active_at))
    }

    /// Returns true if response bytes have been unwritten for at least this time, and the peer read
    /// less than 1 MB a second of them.
    pub(super) fn is_slow(&self, min_time: Duration) -> bool {
        let min_time = min_time.as_micros().try_into().unwrap_or(u64::MAX);
        let now = self.now();
        if self.held.load(Relaxed) > 0 {
            let waited = now.saturating_sub(self.held_since.load(Relaxed));
            let written = self.written.load(Relaxed).saturating_sub(self.written_before_held.load(Relaxed));
            return waited >= min_time && written < waited;
        }
        self.short_held.load(Relaxed) && now.saturating_sub(self.active_at.load(Relaxed)) >= min_time
    }

    /// Returns the time at which the connection was last in use.
    pub(super) fn last_active(&self) -> Instant {
        self.at(self.active_at.load(Relaxed))
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Records the HTTP version of a request.
    pub(super) fn note_version(&self, version: http::Version) {
        if version == http::Version::HTTP_2 && !self.is_http2() {
            self.http2.store(true, Relaxed);
        }
    }

    pub(super) fn unsent(&self) -> &Arc<Unsent> {
        &self.unsent
    }

    fn at(&self, us: u64) -> Instant {
        self.began + Duration::from_micros(us)
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros().try_into().unwrap_or(NO_HEAD - 1)
    }

    /// Records that bytes of a request's body arrived.
    pub(super) fn note_transfer(&self) {
        self.transferred_at.store(self.now(), Relaxed);
    }

    /// Records that a handler begins or ends a wait for bytes of a body.
    pub(super) fn set_receiving(&self, waits: bool) {
        self.note_transfer();
        if waits {
            self.receiving.fetch_add(1, Relaxed);
        } else {
            self.receiving.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn note_write(&self) {
        if !self.is_http2() {
            self.active_at.store(self.now(), Relaxed);
        }
    }

    /// Records that bytes of a timed response were written. Other bytes do not count as progress,
    /// since a peer can cause any number of them with pings.
    pub(super) fn note_sent(&self, bytes: usize) {
        let written = self.written.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        if written - self.written_before_period.load(Relaxed) >= PROGRESS {
            self.progress_from(self.now(), written);
        } else if self.is_http2() {
            self.note_transfer();
        }
    }

    fn progress_from(&self, now: u64, written: u64) {
        self.written_before_period.store(written, Relaxed);
        self.progress_since.store(now, Relaxed);
        if self.is_http2() {
            self.active_at.store(now, Relaxed);
        }
    }

    /// Records a chunk of a timed response that is not written yet.
    pub(super) fn hold(&self) {
        if self.held.fetch_add(1, Relaxed) == 0 {
            let (now, written) = (self.now(), self.written.load(Relaxed));
            self.held_since.store(now, Relaxed);
            self.written_before_held.store(written, Relaxed);
            self.transferred_at.store(now, Relaxed);
            self.progress_from(now, written);
        }
    }

    /// Records that such a chunk was written or dropped.
    pub(super) fn release(&self) {
        if self.held.fetch_sub(1, Relaxed) == 1 && self.is_http2() {
            self.active_at.store(self.now(), Relaxed);
        }
    }

    /// Records that a short HTTP/1 response waits to be written, or no longer does.
    pub(super) fn set_short_held(&self, holds: bool) {
        if holds {
            self.note_transfer();
        }
        self.short_held.store(holds, Relaxed);
    }

    pub(super) fn note_read(&self, bytes: &[u8]) {
        if self.is_http2() {
            return;
        }
        let now = self.now();
        if self.active_at.swap(now, Relaxed) == 0 && bytes.starts_with(HTTP2_PREFACE) {
            self.http2.store(true, Relaxed);
        }
        if self.in_flight.load(Relaxed) == 0 && self.head_began_at.load(Relaxed) == NO_HEAD && !self.is_http2() {
            self.head_began_at.store(now, Relaxed);
        }
    }
}

/// Guard of a request in flight.
pub(super) struct InFlight(Option<Arc<Activity>>);

impl InFlight {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        activity.in_flight.fetch_add(1, Relaxed);
        activity.head_began_at.store(NO_HEAD, Relaxed);
        Self(Some(activity))
    }

    /// Ends the request. Further calls do nothing.
    pub(super) fn finish(&mut self) {
        let Some(activity) = self.0.take() else { return };
        // The time is set first, so that the connection does not look idle since the previous
        // request.
        if activity.is_http2() {
            activity.active_at.store(activity.now(), Relaxed);
        }
        activity.in_flight.fetch_sub(1, Relaxed);
    }

    /// Returns the activity of the connection until the request ends.
    pub(super) fn activity(&self) -> Option<&Arc<Activity>> {
        self.0.as_ref()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use http::Version;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start(limits: &Limits) -> Arc<Activity> {
        Arc::new(Activity::start(limits, Arc::new(Unsent::new(0))))
    }

    fn left(activity: &Activity) -> Duration {
        activity.deadline() - Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_must_read_64_kib_in_each_period() {
        let limits = Limits { response_timeout: 10 * SECOND, idle_timeout: 90 * SECOND, ..Limits::default() };
        let activity = start(&limits);
        advance(SECOND).await;
        activity.hold();
        assert_eq!(left(&activity), 10 * SECOND);
        for _ in 0..9 {
            advance(SECOND).await;
            activity.note_sent(1024);
            activity.note_write();
        }
        assert_eq!(left(&activity), SECOND, "9 KiB are less than the required progress");
        activity.note_sent(PROGRESS as usize);
        assert_eq!(left(&activity), 10 * SECOND);
        // The total time does not matter.
        for _ in 0..100 {
            advance(9 * SECOND).await;
            activity.note_sent(PROGRESS as usize);
            activity.note_write();
            assert_eq!(left(&activity), 10 * SECOND);
        }
        activity.hold();
        activity.release();
        assert_eq!(left(&activity), 10 * SECOND, "one chunk is not written yet");
        activity.release();
        assert_eq!(left(&activity), 90 * SECOND);
        advance(50 * SECOND).await;
        activity.hold();
        assert_eq!(left(&activity), 10 * SECOND, "the next one begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_is_timed_while_a_handler_is_running() {
        let activity = start(&Limits { response_timeout: 10 * SECOND, ..Limits::default() });
        let in_flight = InFlight::new(activity.clone());
        advance(1_000 * SECOND).await;
        assert_eq!(left(&activity), 90 * SECOND);
        activity.hold();
        assert_eq!(left(&activity), 10 * SECOND);
        drop(in_flight);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_connection_without_requests_is_idle_while_bytes_move() {
        let activity = start(&Limits { idle_timeout: 90 * SECOND, ..Limits::default() });
        activity.note_read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..80 {
            advance(SECOND).await;
            activity.note_read(b"a ping");
            activity.note_write();
        }
        assert_eq!(left(&activity), 10 * SECOND);
        drop(InFlight::new(activity.clone()));
        assert_eq!(left(&activity), 90 * SECOND, "a request was handled");
        advance(80 * SECOND).await;
        activity.hold();
        activity.note_sent(1024);
        activity.release();
        assert_eq!(left(&activity), 90 * SECOND, "a response was read");
    }

    #[tokio::test(start_paused = true)]
    async fn http2_with_a_preface_in_pieces_is_recognized_by_its_first_request() {
        let activity = start(&Limits { head_timeout: 10 * SECOND, ..Limits::default() });
        activity.note_read(b"P");
        assert_eq!(left(&activity), 10 * SECOND);
        activity.note_version(Version::HTTP_2);
        drop(InFlight::new(activity.clone()));
        activity.note_read(b"a ping");
        assert_eq!(left(&activity), 90 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn peer_below_a_megabyte_a_second_is_slow() {
        let activity = start(&Limits::default());
        activity.hold();
        advance(2 * SECOND).await;
        assert!(!activity.is_slow(3 * SECOND) && activity.is_slow(2 * SECOND));
        activity.note_sent(2 << 20);
        assert!(!activity.is_slow(2 * SECOND));
        activity.release();
        activity.hold();
        advance(2 * SECOND).await;
        assert!(activity.is_slow(2 * SECOND), "the next response counts by itself");
        activity.release();
        assert!(!activity.is_slow(2 * SECOND));
        activity.set_short_held(true);
        activity.note_write();
        advance(2 * SECOND).await;
        assert!(activity.is_slow(2 * SECOND) && activity.is_busy());
    }

    #[tokio::test(start_paused = true)]
    async fn request_that_waits_for_the_peer_is_stalled() {
        for preface in [&b"PUT "[..], HTTP2_PREFACE] {
            let activity = start(&Limits::default());
            let stalled = || activity.stalled_since().map(|since| since.elapsed());
            activity.note_read(preface);
            assert_eq!(stalled(), None, "there is no request");
            let in_flight = InFlight::new(activity.clone());
            advance(5 * SECOND).await;
            assert_eq!(stalled(), None, "the handler is running");
            activity.set_receiving(true);
            assert_eq!(stalled(), Some(Duration::ZERO));
            for _ in 0..5 {
                advance(SECOND).await;
                assert_eq!(stalled(), Some(SECOND));
                activity.note_transfer();
                assert_eq!(stalled(), Some(Duration::ZERO), "the body goes on");
            }
            activity.set_receiving(false);
            advance(5 * SECOND).await;
            assert_eq!(stalled(), None, "the handler has the body");
            activity.hold();
            drop(in_flight);
            assert_eq!(stalled(), Some(Duration::ZERO));
            advance(SECOND).await;
            assert_eq!(stalled(), Some(SECOND));
            activity.note_sent(1);
            activity.note_write();
            assert_eq!(stalled(), Some(Duration::ZERO), "the response goes on");
            activity.release();
            advance(SECOND).await;
            assert_eq!(stalled(), None, "the response is written");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_beyond_the_clock_is_clamped_to_the_longest_wait() {
        let forever = Duration::MAX;
        let limits =
            Limits { response_timeout: forever, idle_timeout: forever, head_timeout: forever, ..Limits::default() };
        let activity = start(&limits);
        activity.hold();
        activity.note_read(b"GET");
        assert_eq!(left(&activity), LONGEST_WAIT);
    }
}
