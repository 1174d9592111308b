//! Progress of a connection: when it was last in use, and when it has been idle or slow for too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Limits;
use crate::server::unsent::Unsent;
use crate::time::LONGEST_WAIT;

/// No head is being read.
const NONE: u64 = u64::MAX;
/// How an HTTP/2 connection begins; no HTTP/1 method does.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// Bytes of its responses that a peer must take in each period of the response timeout. An HTTP/1
/// response that is no longer than this is not timed.
pub(super) const PROGRESS: u64 = 64 * 1024;

/// Written by the streams and handlers of a connection, read by its watch. Times are microseconds since it began.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    response_timeout: Duration,
    unsent: Arc<Unsent>,
    handling: AtomicUsize,
    /// Number of handlers that wait for bytes of a request's body.
    receiving: AtomicUsize,
    /// Time of the last byte of a body that a handler got, or of a response that the peer took, or
    /// when the last wait for such bytes began. Of HTTP/1, `moved_at` may be later.
    transferred_at: AtomicU64,
    /// Time of the last byte of HTTP/1. Of HTTP/2, where a peer can move bytes for ever without a
    /// request, the time when a request or a response last ended.
    moved_at: AtomicU64,
    /// Number of timed pieces of responses that are not written yet.
    held: AtomicUsize,
    held_since: AtomicU64,
    /// Set while a short response of HTTP/1 is not written yet.
    holds_short: AtomicBool,
    /// Bytes of timed responses that were written: in all, when the last period began, and when
    /// `held_since` was set.
    taken: AtomicU64,
    taken_in_period: AtomicU64,
    taken_before: AtomicU64,
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
            handling: AtomicUsize::new(0),
            receiving: AtomicUsize::new(0),
            transferred_at: AtomicU64::new(0),
            moved_at: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            held_since: AtomicU64::new(0),
            holds_short: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            taken_in_period: AtomicU64::new(0),
            taken_before: AtomicU64::new(0),
            progress_since: AtomicU64::new(0),
            head_began_at: AtomicU64::new(NONE),
            http2: AtomicBool::new(false),
        }
    }

    /// When the connection has been quiet for too long, or too slow, if nothing happens until then.
    pub(super) fn deadline(&self) -> Instant {
        let quiet = self.quiet_deadline();
        match self.held.load(Relaxed) {
            0 => quiet,
            _ => quiet.min(self.at(self.progress_since.load(Relaxed)) + self.response_timeout),
        }
    }

    /// Never in the past while a handler works.
    fn quiet_deadline(&self) -> Instant {
        if self.handling.load(Relaxed) > 0 {
            return Instant::now() + self.idle_timeout;
        }
        let idle = self.moved() + self.idle_timeout;
        match self.head_began_at.load(Relaxed) {
            NONE => idle,
            began => idle.min(self.at(began) + self.head_timeout),
        }
    }

    /// Returns true if a request is being handled or a response being written.
    pub(super) fn is_busy(&self) -> bool {
        self.handling.load(Relaxed) > 0 || self.held.load(Relaxed) > 0 || self.holds_short.load(Relaxed)
    }

    /// Returns the time since which the requests of the connection wait for nothing but its peer,
    /// which sends no byte of their bodies and takes none of their responses. `None` without
    /// requests, and while a handler works.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let works = self.handling.load(Relaxed) > self.receiving.load(Relaxed);
        let moved_at = self.moved_at.load(Relaxed).max(self.transferred_at.load(Relaxed));
        (self.is_busy() && !works).then(|| self.at(moved_at))
    }

    /// Returns true if bytes of responses have been waiting for this time, and the peer took
    /// fewer of them than a byte a microsecond.
    pub(super) fn is_slow(&self, patience: Duration) -> bool {
        let patience = patience.as_micros().try_into().unwrap_or(u64::MAX);
        let now = self.now();
        if self.held.load(Relaxed) > 0 {
            let waited = now.saturating_sub(self.held_since.load(Relaxed));
            let taken = self.taken.load(Relaxed).saturating_sub(self.taken_before.load(Relaxed));
            return waited >= patience && taken < waited;
        }
        self.holds_short.load(Relaxed) && now.saturating_sub(self.moved_at.load(Relaxed)) >= patience
    }

    /// Time at which the connection was last in use.
    pub(super) fn moved(&self) -> Instant {
        self.at(self.moved_at.load(Relaxed))
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Notes the version of a request.
    pub(super) fn speaks(&self, version: http::Version) {
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
        self.began.elapsed().as_micros().try_into().unwrap_or(NONE - 1)
    }

    /// Notes bytes of a request's body.
    pub(super) fn transferred(&self) {
        self.transferred_at.store(self.now(), Relaxed);
    }

    /// A handler begins to wait for bytes of a body, or ends it.
    pub(super) fn receives(&self, waits: bool) {
        self.transferred();
        if waits {
            self.receiving.fetch_add(1, Relaxed);
        } else {
            self.receiving.fetch_sub(1, Relaxed);
        }
    }

    fn wrote(&self) {
        if !self.is_http2() {
            self.moved_at.store(self.now(), Relaxed);
        }
    }

    /// So many bytes of a timed response were written. Other bytes do not count: a peer can have
    /// as many responses to its pings as it likes.
    pub(super) fn took(&self, bytes: usize) {
        let taken = self.taken.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        if taken - self.taken_in_period.load(Relaxed) >= PROGRESS {
            self.progress_from(self.now(), taken);
        } else if self.is_http2() {
            self.transferred();
        }
    }

    fn progress_from(&self, now: u64, taken: u64) {
        self.taken_in_period.store(taken, Relaxed);
        self.progress_since.store(now, Relaxed);
        if self.is_http2() {
            self.moved_at.store(now, Relaxed);
        }
    }

    /// A piece of a timed response is to be written.
    pub(super) fn holds(&self) {
        if self.held.fetch_add(1, Relaxed) == 0 {
            let (now, taken) = (self.now(), self.taken.load(Relaxed));
            self.held_since.store(now, Relaxed);
            self.taken_before.store(taken, Relaxed);
            self.transferred_at.store(now, Relaxed);
            self.progress_from(now, taken);
        }
    }

    /// It is written, or nobody is left to take it.
    pub(super) fn drops(&self) {
        if self.held.fetch_sub(1, Relaxed) == 1 && self.is_http2() {
            self.moved_at.store(self.now(), Relaxed);
        }
    }

    /// A short response of HTTP/1 is to be written, or is written.
    pub(super) fn holds_short(&self, holds: bool) {
        if holds {
            self.transferred();
        }
        self.holds_short.store(holds, Relaxed);
    }

    fn read(&self, bytes: &[u8]) {
        if self.is_http2() {
            return;
        }
        let now = self.now();
        if self.moved_at.swap(now, Relaxed) == 0 && bytes.starts_with(HTTP2_PREFACE) {
            self.http2.store(true, Relaxed);
        }
        if self.handling.load(Relaxed) == 0 && self.head_began_at.load(Relaxed) == NONE && !self.is_http2() {
            self.head_began_at.store(now, Relaxed);
        }
    }
}

/// A request that a handler works for.
pub(super) struct Handling(Option<Arc<Activity>>);

impl Handling {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        activity.handling.fetch_add(1, Relaxed);
        activity.head_began_at.store(NONE, Relaxed);
        Self(Some(activity))
    }

    /// Ends it, once.
    pub(super) fn finish(&mut self) {
        let Some(activity) = self.0.take() else { return };
        // First the time, so that the connection does not look idle since the request before.
        if activity.is_http2() {
            activity.moved_at.store(activity.now(), Relaxed);
        }
        activity.handling.fetch_sub(1, Relaxed);
    }

    /// Activity of the connection, until the end.
    pub(super) fn activity(&self) -> Option<&Arc<Activity>> {
        self.0.as_ref()
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A stream that notes when bytes move.
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn noted(&self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(1..) = written {
            self.activity.wrote();
        }
        Poll::Ready(written)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.read(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
    async fn slow_reader_must_take_64_kib_in_each_period() {
        let limits = Limits { response_timeout: 10 * SECOND, idle_timeout: 90 * SECOND, ..Limits::default() };
        let activity = start(&limits);
        advance(SECOND).await;
        activity.holds();
        assert_eq!(left(&activity), 10 * SECOND);
        for _ in 0..9 {
            advance(SECOND).await;
            activity.took(1024);
            activity.wrote();
        }
        assert_eq!(left(&activity), SECOND, "each byte moves the connection, but it is too slow");
        activity.took(PROGRESS as usize);
        assert_eq!(left(&activity), 10 * SECOND);
        // However long it takes in all.
        for _ in 0..100 {
            advance(9 * SECOND).await;
            activity.took(PROGRESS as usize);
            activity.wrote();
            assert_eq!(left(&activity), 10 * SECOND);
        }
        activity.holds();
        activity.drops();
        assert_eq!(left(&activity), 10 * SECOND, "one is not written yet");
        activity.drops();
        assert_eq!(left(&activity), 90 * SECOND);
        advance(50 * SECOND).await;
        activity.holds();
        assert_eq!(left(&activity), 10 * SECOND, "the next one begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn handler_at_work_does_not_excuse_a_slow_reader() {
        let activity = start(&Limits { response_timeout: 10 * SECOND, ..Limits::default() });
        let handling = Handling::new(activity.clone());
        advance(1_000 * SECOND).await;
        assert_eq!(left(&activity), 90 * SECOND);
        activity.holds();
        assert_eq!(left(&activity), 10 * SECOND);
        drop(handling);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_connection_without_requests_is_idle_whatever_bytes_it_moves() {
        let activity = start(&Limits { idle_timeout: 90 * SECOND, ..Limits::default() });
        activity.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..80 {
            advance(SECOND).await;
            activity.read(b"a ping");
            activity.wrote();
        }
        assert_eq!(left(&activity), 10 * SECOND);
        drop(Handling::new(activity.clone()));
        assert_eq!(left(&activity), 90 * SECOND, "a request was handled");
        advance(80 * SECOND).await;
        activity.holds();
        activity.took(1024);
        activity.drops();
        assert_eq!(left(&activity), 90 * SECOND, "a response was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn http2_is_recognized_by_a_request_when_the_preface_came_in_pieces() {
        let activity = start(&Limits { head_timeout: 10 * SECOND, ..Limits::default() });
        activity.read(b"P");
        assert_eq!(left(&activity), 10 * SECOND);
        activity.speaks(Version::HTTP_2);
        drop(Handling::new(activity.clone()));
        activity.read(b"a ping");
        assert_eq!(left(&activity), 90 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn peer_is_slow_below_a_megabyte_a_second() {
        let activity = start(&Limits::default());
        activity.holds();
        advance(2 * SECOND).await;
        assert!(!activity.is_slow(3 * SECOND) && activity.is_slow(2 * SECOND));
        activity.took(2 << 20);
        assert!(!activity.is_slow(2 * SECOND));
        activity.drops();
        activity.holds();
        advance(2 * SECOND).await;
        assert!(activity.is_slow(2 * SECOND), "the next response counts by itself");
        activity.drops();
        assert!(!activity.is_slow(2 * SECOND));
        activity.holds_short(true);
        activity.wrote();
        advance(2 * SECOND).await;
        assert!(activity.is_slow(2 * SECOND) && activity.is_busy());
    }

    #[tokio::test(start_paused = true)]
    async fn request_is_stalled_only_while_it_waits_for_the_peer() {
        for preface in [&b"PUT "[..], HTTP2_PREFACE] {
            let activity = start(&Limits::default());
            let stalled = || activity.stalled_since().map(|since| since.elapsed());
            activity.read(preface);
            assert_eq!(stalled(), None, "there is no request");
            let handling = Handling::new(activity.clone());
            advance(5 * SECOND).await;
            assert_eq!(stalled(), None, "the handler works");
            activity.receives(true);
            assert_eq!(stalled(), Some(Duration::ZERO));
            for _ in 0..5 {
                advance(SECOND).await;
                assert_eq!(stalled(), Some(SECOND));
                activity.transferred();
                assert_eq!(stalled(), Some(Duration::ZERO), "the body goes on");
            }
            activity.receives(false);
            advance(5 * SECOND).await;
            assert_eq!(stalled(), None, "the handler works on the body");
            activity.holds();
            drop(handling);
            assert_eq!(stalled(), Some(Duration::ZERO));
            advance(SECOND).await;
            assert_eq!(stalled(), Some(SECOND));
            activity.took(1);
            activity.wrote();
            assert_eq!(stalled(), Some(Duration::ZERO), "the response goes on");
            activity.drops();
            advance(SECOND).await;
            assert_eq!(stalled(), None, "it is taken");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn times_beyond_the_clock_are_as_long_as_it_can_count() {
        let forever = Duration::MAX;
        let limits =
            Limits { response_timeout: forever, idle_timeout: forever, head_timeout: forever, ..Limits::default() };
        let activity = start(&limits);
        activity.holds();
        activity.read(b"GET");
        assert_eq!(left(&activity), LONGEST_WAIT);
    }
}
