//! Reads the frames that an HTTP/2 server sends, next to hyper.
//!
//! hyper reports neither the first SETTINGS, nor the stream limit in them, nor a GOAWAY before the
//! next request fails.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::streams::ConnectionState;
use crate::client::connection::read_after_close::ReadAfterClose;

/// Connection whose incoming frames update a [`ConnectionState`].
#[derive(Debug)]
pub(super) struct WatchedStream<T> {
    stream: ReadAfterClose<T>,
    frames: FrameReader,
    state: Arc<ConnectionState>,
}

impl<T> WatchedStream<T> {
    pub(super) fn new(stream: T, state: Arc<ConnectionState>) -> Self {
        // HTTP/2 has no upgrades of a whole connection.
        Self { stream: ReadAfterClose::new(stream, Arc::default()), frames: FrameReader::default(), state }
    }
}

impl<T: AsyncWrite + Unpin> WatchedStream<T> {
    /// Polls a write, and ends the connection once the server has closed it.
    fn poll<R>(&mut self, write: impl FnOnce(Pin<&mut ReadAfterClose<T>>) -> Poll<R>) -> Poll<R> {
        let written = write(Pin::new(&mut self.stream));
        if self.stream.is_closed() && !self.state.has_ended() {
            self.state.end();
        }
        written
    }
}

/// Length of a frame's head (RFC 9113, 4.1).
const HEAD: usize = 9;
/// Length of a setting, and of the identifier in it (RFC 9113, 6.5.1).
const SETTING: usize = 6;
const IDENTIFIER: usize = 2;
/// Length of the stream identifier with which a GOAWAY begins (RFC 9113, 6.8).
const LAST_STREAM: usize = 4;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// Incremental parser of the server's frames.
#[derive(Debug, Default)]
struct FrameReader {
    /// Bytes received of an incomplete frame head or setting.
    part: [u8; HEAD],
    len: usize,
    /// Number of payload bytes of the current frame still to be read.
    payload: usize,
    is_settings: bool,
    is_goaway: bool,
    /// Stream limit in the current SETTINGS.
    limit: Option<usize>,
    /// The first SETTINGS frame has started.
    has_started: bool,
    is_foreign: bool,
}

fn payload_len(a: u8, b: u8, c: u8) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

impl FrameReader {
    #[inline]
    fn read(&mut self, mut bytes: &[u8], state: &ConnectionState) {
        while !bytes.is_empty() && !self.is_foreign {
            if self.payload > 0 && !self.is_settings && !self.is_goaway {
                let skipped = bytes.len().min(self.payload);
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            // Fast path for nearly all frames: a complete head of a frame whose payload is skipped.
            if let (0, 0, true, Some((&[a, b, c, kind, ..], rest))) =
                (self.len, self.payload, self.has_started, bytes.split_first_chunk::<HEAD>())
                && kind != SETTINGS
                && kind != GOAWAY
            {
                self.payload = payload_len(a, b, c);
                self.is_settings = false;
                bytes = rest;
                continue;
            }
            let wanted = match self.payload {
                0 => HEAD,
                left if self.is_goaway => LAST_STREAM.min(self.len + left),
                left => SETTING.min(self.len + left),
            };
            let taken = bytes.len().min(wanted - self.len);
            let (now, rest) = bytes.split_at(taken);
            self.part[self.len..self.len + taken].copy_from_slice(now);
            self.len += taken;
            bytes = rest;
            if self.payload > 0 {
                self.payload -= taken;
                if self.len < wanted {
                    continue;
                }
                if std::mem::take(&mut self.is_goaway) {
                    self.len = 0;
                    let [a, b, c, d, ..] = self.part;
                    state.record_last_stream(u32::from_be_bytes([a, b, c, d]) & !(1 << 31));
                } else {
                    self.setting(wanted);
                    self.end_of_settings(state);
                }
            } else if self.len == HEAD {
                self.head(state);
            }
        }
    }

    fn head(&mut self, state: &ConnectionState) {
        let [a, b, c, kind, flags, ..] = self.part;
        self.len = 0;
        if !self.has_started && kind != SETTINGS {
            self.is_foreign = true;
            return state.set_foreign();
        }
        self.payload = payload_len(a, b, c);
        self.is_settings = kind == SETTINGS && flags & ACK == 0;
        if self.is_settings {
            // The first SETTINGS without a limit mean no limit, later ones keep the limit.
            self.limit = (!self.has_started).then_some(usize::MAX);
            self.has_started = true;
            self.end_of_settings(state);
        } else if kind == GOAWAY {
            self.is_goaway = self.payload > 0;
            state.end();
        }
    }

    fn setting(&mut self, len: usize) {
        self.len = 0;
        let setting = &self.part[..len];
        if let Some((identifier, value)) = setting.split_first_chunk::<IDENTIFIER>()
            && u16::from_be_bytes(*identifier) == MAX_CONCURRENT_STREAMS
            && let Ok(value) = value.try_into()
        {
            self.limit = Some(usize::try_from(u32::from_be_bytes(value)).unwrap_or(usize::MAX));
        }
    }

    fn end_of_settings(&mut self, state: &ConnectionState) {
        if self.payload == 0 {
            self.is_settings = false;
            state.apply_settings(self.limit.take());
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WatchedStream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if let Some(read) = buffer.filled().get(before..) {
            this.frames.read(read, &this.state);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WatchedStream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::super::streams::{REQUEST_LIMIT_TTL, StreamQueue};
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
    }

    fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frame(SETTINGS, 0, &entries.collect::<Vec<_>>().concat())
    }

    /// State of a connection after these bytes, read in pieces of this size.
    fn after(bytes: &[u8], piece: usize) -> ConnectionState {
        let (state, mut frames) = (ConnectionState::new(Arc::default()), FrameReader::default());
        bytes.chunks(piece).for_each(|piece| frames.read(piece, &state));
        state
    }

    #[test]
    fn stream_limit_of_fragmented_settings_is_the_latest() {
        let data = frame(0, 0, &[SETTINGS; 40]);
        let (first, ack, ping) =
            (settings(&[(4, 65_535), (3, 7), (5, 16_384)]), frame(SETTINGS, ACK, &[]), frame(6, 0, &[7; 8]));
        let cases = [
            (first.clone(), 7),
            (settings(&[]), usize::MAX),
            (settings(&[(4, 65_535)]), usize::MAX),
            ([&first[..], &ack, &data, &ping].concat(), 7),
            ([&first[..], &data, &settings(&[(3, 2)]), &data].concat(), 2),
            ([&first[..], &settings(&[(1, 0)])].concat(), 7),
            (settings(&[(3, 0)]), 0),
            (first[..HEAD + 8].to_vec(), 0),
        ];
        for (bytes, expected) in cases {
            for piece in [1, 2, 5, 9, 1000] {
                let state = after(&bytes, piece);
                assert_eq!((state.limit(), state.is_foreign()), (expected, false), "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn goaway_followed_by_settings_ends_the_connection() {
        let bytes = [settings(&[(3, 7)]), frame(GOAWAY, 0, &[0; 12]), settings(&[(3, 9)])].concat();
        for piece in [1, 1000] {
            let state = Arc::new(after(&bytes, piece));
            assert!(state.has_ended() && state.open_stream().is_none());
        }
    }

    #[test]
    fn settings_that_race_with_the_end_open_no_stream() {
        let state = Arc::new(after(&settings(&[(3, 7)]), 1000));
        state.end();
        state.race_settings(7);
        assert!(state.open_stream().is_none());
    }

    #[test]
    fn http1_response_is_foreign() {
        for piece in [1, 1000] {
            let state = after(b"HTTP/1.1 400 Bad Request\r\n\r\n", piece);
            assert!(state.is_foreign() && state.limit() == 0);
        }
    }

    #[test]
    fn streams_beyond_the_limit_are_refused() {
        let state = Arc::new(after(&settings(&[(3, 2)]), 1000));
        let (first, _second) = (state.open_stream().unwrap(), state.open_stream().unwrap());
        assert!(state.open_stream().is_none());
        drop(first);
        assert!(state.open_stream().is_some() && !state.is_idle());
    }

    /// Number of streams, at most `wanted`, that a connection opens before it ends with a GOAWAY
    /// whose last stream is `last`.
    fn opened(queue: &Arc<StreamQueue>, wanted: usize, last: u32) -> usize {
        let (state, mut frames) = (Arc::new(ConnectionState::new(queue.clone())), FrameReader::default());
        frames.read(&settings(&[(3, 100)]), &state);
        let permits: Vec<_> = (0..wanted).map_while(|_| state.open_stream()).collect();
        let bytes = frame(GOAWAY, 0, &[&last.to_be_bytes()[..], &[0; 4], b"why"].concat());
        bytes.chunks(1).for_each(|piece| frames.read(piece, &state));
        permits.len()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_limited_after_three_connections_with_the_same_count() {
        let queue = Arc::default();
        assert_eq!([19, 19, 19].map(|last| opened(&queue, 32, last)), [32; 3]);
        assert_eq!([19, 21].map(|last| opened(&queue, 32, last)), [10, 10]);
        tokio::time::advance(REQUEST_LIMIT_TTL).await;
        assert_eq!([19, 19].map(|last| opened(&queue, 32, last)), [32, 10], "the limit expires");
    }

    /// Stream whose writes fail, with bytes left to be read.
    struct Closed(&'static [u8]);

    impl AsyncRead for Closed {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buffer.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
    }

    #[tokio::test]
    async fn write_to_a_closed_connection_leaves_the_goaway_readable() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let state = Arc::new(after(&settings(&[(3, 2)]), 1000));
        let mut watched = WatchedStream::new(Closed(b"last words"), state.clone());
        watched.write_all(b"request").await.unwrap();
        watched.flush().await.unwrap();
        assert!(state.has_ended() && state.open_stream().is_none());
        let mut read = Vec::new();
        watched.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");
        watched.shutdown().await.unwrap();
    }

    #[test]
    fn requests_are_not_limited_after_inconclusive_ends() {
        for (what, ends) in [
            ("different numbers", [19, 21, 23]),
            ("no request was pending", [63, 63, 63]),
            ("none was processed", [0, 0, 0]),
            ("graceful shutdown that accepts more", [i32::MAX as u32; 3]),
        ] {
            let queue = Arc::default();
            assert_eq!(ends.map(|last| opened(&queue, 32, last)), [32; 3], "{what}");
        }
    }
}
