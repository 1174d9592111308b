//! Reads the rest of a response after the server closed the connection.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::consume_budget;

/// Connection whose writes are discarded once the server has closed it.
///
/// A server may respond before it has read the whole request, as to an upload that it refuses, or
/// end its connection while requests are on their way. It closes the socket then, so that the next
/// write fails. Its response or GOAWAY is still unread at that time, and hyper and h2 stop reading
/// after a write error. Reading ends by itself, since the connection is closed.
#[derive(Debug)]
pub(super) struct ReadAfterClose<T> {
    stream: T,
    is_closed: bool,
    /// Set when the connection switches to another protocol, whose writes fail as usual.
    is_upgraded: Arc<AtomicBool>,
}

impl<T> ReadAfterClose<T> {
    pub(super) fn new(stream: T, is_upgraded: Arc<AtomicBool>) -> Self {
        Self { stream, is_closed: false, is_upgraded }
    }

    /// Returns `true` once the server accepts no more bytes.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

impl<T: AsyncWrite + Unpin> ReadAfterClose<T> {
    /// Polls a write. Returns `instead` once the server has closed the connection.
    #[inline]
    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        instead: R,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if self.is_closed && !self.is_upgraded.load(Ordering::Relaxed) {
            // Pending now and then, since hyper reads only when a write is pending or complete. An
            // endless body would never be.
            ready!(pin!(consume_budget()).poll(cx));
            return Poll::Ready(Ok(instead));
        }
        match ready!(write(Pin::new(&mut self.stream), cx)) {
            Err(error) if self.is_closed_by(&error) => Poll::Ready(Ok(instead)),
            written => Poll::Ready(written),
        }
    }

    /// Returns `true` if this error means that the server closed the connection, and records it.
    fn is_closed_by(&mut self, error: &io::Error) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        self.is_closed = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset);
        self.is_closed && !self.is_upgraded.load(Ordering::Relaxed)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAfterClose<T> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAfterClose<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll(cx, bytes.len(), |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut().poll(cx, len, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(cx, (), |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(cx, (), |stream, cx| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn response_of_a_closed_connection_is_read_and_writes_after_an_upgrade_fail() {
        let (client, mut server) = duplex(64);
        let is_upgraded = Arc::<AtomicBool>::default();
        let mut client = ReadAfterClose::new(client, is_upgraded.clone());
        server.write_all(b"413").await.unwrap();
        drop(server);
        client.write_all(&[b'x'; 1000]).await.unwrap();
        assert!(client.is_closed());
        client.flush().await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"413");
        is_upgraded.store(true, Ordering::Relaxed);
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
