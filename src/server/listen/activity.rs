//! When a connection last did something, and when that is too long ago.

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
use crate::clock::LONGEST_WAIT;

/// No head is being read.
const NONE: u64 = u64::MAX;
/// How an HTTP/2 connection begins; no HTTP/1 method does.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// What is to be taken of a long answer in each of its times. Answers that are no longer are not timed.
pub(super) const PROGRESS: u64 = 64 * 1024;

/// Written by the streams and handlers of a connection, read by its watch. Times are milliseconds since it began.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    answer_timeout: Duration,
    handling: AtomicUsize,
    moved_at: AtomicU64,
    /// Pieces of long answers that are not written yet, and how much of such was since when.
    held: AtomicUsize,
    progress: AtomicU64,
    progress_since: AtomicU64,
    head_began_at: AtomicU64,
    http2: AtomicBool,
}

impl Activity {
    pub(super) fn start(limits: &Limits) -> Self {
        Self {
            began: Instant::now(),
            head_timeout: limits.head_timeout.min(LONGEST_WAIT),
            idle_timeout: limits.idle_timeout.min(LONGEST_WAIT),
            answer_timeout: limits.answer_timeout.min(LONGEST_WAIT),
            handling: AtomicUsize::new(0),
            moved_at: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
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
            _ => quiet.min(self.at(self.progress_since.load(Relaxed)) + self.answer_timeout),
        }
    }

    /// Never in the past while a handler works.
    fn quiet_deadline(&self) -> Instant {
        if self.handling.load(Relaxed) > 0 {
            return Instant::now() + self.idle_timeout;
        }
        let idle = self.at(self.moved_at.load(Relaxed)) + self.idle_timeout;
        match self.head_began_at.load(Relaxed) {
            NONE => idle,
            began => idle.min(self.at(began) + self.head_timeout),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis().try_into().unwrap_or(NONE - 1)
    }

    fn wrote(&self) {
        self.moved_at.store(self.now(), Relaxed);
    }

    /// So much of a long answer was written. What else is written does not count: whoever pings can have as much of that as he likes.
    pub(super) fn took(&self, bytes: usize) {
        if self.progress.fetch_add(bytes as u64, Relaxed) + bytes as u64 >= PROGRESS {
            self.progress_from(self.now());
        }
    }

    fn progress_from(&self, now: u64) {
        self.progress.store(0, Relaxed);
        self.progress_since.store(now, Relaxed);
    }

    /// A piece of a long answer is to be written.
    pub(super) fn holds(&self) {
        if self.held.fetch_add(1, Relaxed) == 0 {
            self.progress_from(self.now());
        }
    }

    /// It is written, or nobody is left to take it.
    pub(super) fn drops(&self) {
        self.held.fetch_sub(1, Relaxed);
    }

    fn read(&self, bytes: &[u8]) {
        let now = self.now();
        if self.moved_at.swap(now, Relaxed) == 0 && bytes.starts_with(HTTP2_PREFACE) {
            self.http2.store(true, Relaxed);
        }
        if self.handling.load(Relaxed) == 0 && self.head_began_at.load(Relaxed) == NONE && !self.http2.load(Relaxed) {
            self.head_began_at.store(now, Relaxed);
        }
    }
}

/// A request that a handler works for.
pub(super) struct Handling(Arc<Activity>);

impl Handling {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        activity.handling.fetch_add(1, Relaxed);
        activity.head_began_at.store(NONE, Relaxed);
        Self(activity)
    }

    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.handling.fetch_sub(1, Relaxed);
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
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn left(activity: &Activity) -> Duration {
        activity.deadline() - Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_has_to_get_on() {
        let limits = Limits { answer_timeout: 10 * SECOND, idle_timeout: 90 * SECOND, ..Limits::default() };
        let activity = Activity::start(&limits);
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
    async fn a_handler_at_work_does_not_excuse_a_slow_reader() {
        let activity = Arc::new(Activity::start(&Limits { answer_timeout: 10 * SECOND, ..Limits::default() }));
        let handling = Handling::new(activity.clone());
        advance(1_000 * SECOND).await;
        assert_eq!(left(&activity), 90 * SECOND);
        activity.holds();
        assert_eq!(left(&activity), 10 * SECOND);
        drop(handling);
    }

    #[tokio::test(start_paused = true)]
    async fn times_beyond_the_clock_are_as_long_as_it_can_tell() {
        let forever = Duration::MAX;
        let limits =
            Limits { answer_timeout: forever, idle_timeout: forever, head_timeout: forever, ..Limits::default() };
        let activity = Activity::start(&limits);
        activity.holds();
        activity.read(b"GET");
        assert_eq!(left(&activity), LONGEST_WAIT);
    }
}
