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

/// No head is being read.
const NONE: u64 = u64::MAX;
/// How an HTTP/2 connection begins; no HTTP/1 method does.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// Written by the streams and handlers of a connection, read by its watch. Times are milliseconds since it began.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    handling: AtomicUsize,
    moved_at: AtomicU64,
    head_began_at: AtomicU64,
    http2: AtomicBool,
}

impl Activity {
    pub(super) fn start(head_timeout: Duration, idle_timeout: Duration) -> Self {
        Self {
            began: Instant::now(),
            head_timeout,
            idle_timeout,
            handling: AtomicUsize::new(0),
            moved_at: AtomicU64::new(0),
            head_began_at: AtomicU64::new(NONE),
            http2: AtomicBool::new(false),
        }
    }

    /// When the connection has been quiet for too long, if nothing happens until then. Never in the past while a handler works.
    pub(super) fn deadline(&self) -> Instant {
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
        if written.as_ref().is_ok_and(|&bytes| bytes > 0) {
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
