//! State of the peer of one HTTP/2 connection, read along from the frames that it sends.
//!
//! hyper reports neither that the peer's first SETTINGS have come, nor its stream limit, nor a GOAWAY before the next request fails.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::sync::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Time for which a limit of requests that was learned is kept. The instance may have another one by then.
const REQUESTS_KEPT: Duration = Duration::from_secs(300);
/// Number of connections in a row that have to end with the same number of requests before it is taken for a limit.
const REPEATS: u32 = 3;

/// Peer of one connection: its stream limit, and the streams that are open there.
#[derive(Debug)]
pub(super) struct Peer {
    /// Zero before the first SETTINGS and once the connection takes no more streams.
    limit: AtomicUsize,
    open: AtomicUsize,
    /// Streams that were ever taken, and may be taken.
    taken: AtomicUsize,
    most: usize,
    has_ended: AtomicBool,
    /// The first frame was not SETTINGS.
    is_foreign: AtomicBool,
    settled: Notify,
    vacancies: Arc<Vacancies>,
}

/// Wakes calls that wait for a stream at one instance, and knows how many requests the instance takes on a connection.
#[derive(Debug, Default)]
pub(super) struct Vacancies {
    waiting: AtomicUsize,
    changed: Notify,
    requests: Mutex<Requests>,
}

/// Number of requests that an instance takes on one connection, such as nginx's `keepalive_requests`.
///
/// More requests would not be processed and come again on the next connection, where the same happens: some would never be
/// processed. The number is known once three connections in a row ended with it and with requests beyond it.
#[derive(Debug, Default)]
struct Requests {
    latest: usize,
    /// Number of connections in a row that ended with the latest number.
    repeats: u32,
    known: Option<(usize, Instant)>,
}

/// One open stream. Dropped at the end of the response's body.
#[derive(Debug)]
pub(super) struct Permit(Arc<Peer>);

impl Peer {
    pub(super) fn new(vacancies: Arc<Vacancies>) -> Self {
        Self {
            limit: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            most: vacancies.most_requests(),
            has_ended: AtomicBool::new(false),
            is_foreign: AtomicBool::new(false),
            settled: Notify::new(),
            vacancies,
        }
    }

    /// Waits for the first SETTINGS. For one task.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// Takes a stream, unless all are in use. Routes must not run at the same time, permits may be dropped at any time.
    #[inline]
    pub(super) fn enter(self: &Arc<Self>) -> Option<Permit> {
        // SETTINGS may store a limit again while the connection is ended.
        if self.has_ended() || self.open.load(Ordering::SeqCst) >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        self.open.fetch_add(1, Ordering::SeqCst);
        if self.taken.fetch_add(1, Ordering::Relaxed) + 1 == self.most {
            self.end();
        }
        Some(Permit(self.clone()))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::SeqCst) == 0
    }

    /// Returns `true` once the connection takes no more streams.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Returns `true` if the peer sent something that is not HTTP/2.
    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign.load(Ordering::Relaxed)
    }

    /// Closes the connection to further streams.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.limit.store(0, Ordering::Relaxed);
        self.vacancies.wake();
    }

    /// Learns from the last stream that the peer processed. Requests have every second number.
    fn went_away(&self, last: u32) {
        let processed = usize::try_from(last.div_ceil(2)).unwrap_or(usize::MAX);
        if (1..self.taken.load(Ordering::Relaxed)).contains(&processed) {
            self.vacancies.learn(processed);
        }
    }

    fn settle(&self, limit: Option<usize>) {
        if let Some(limit) = limit
            && !self.has_ended()
        {
            self.limit.store(limit, Ordering::Relaxed);
        }
        self.settled.notify_one();
        self.vacancies.wake();
    }
}

impl Permit {
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.0
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        if self.0.vacancies.has_waiters() {
            self.0.vacancies.wake();
        }
    }
}

impl Vacancies {
    /// Counts a caller as waiting.
    pub(super) fn join(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends what [`join`](Self::join) began.
    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    #[inline]
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Completes when a stream may have become free.
    pub(super) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Number of requests for a new connection.
    fn most_requests(&self) -> usize {
        let requests = self.requests.lock();
        requests.known.filter(|(_, since)| since.elapsed() < REQUESTS_KEPT).map_or(usize::MAX, |(most, _)| most)
    }

    fn learn(&self, processed: usize) {
        let mut requests = self.requests.lock();
        let is_same = std::mem::replace(&mut requests.latest, processed) == processed;
        requests.repeats = if is_same { requests.repeats + 1 } else { 1 };
        if requests.repeats >= REPEATS {
            requests.known = Some((processed, Instant::now()));
        }
    }

    /// Wakes the caller whose turn it is.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }
}

/// A connection whose incoming frames are read along.
#[derive(Debug)]
pub(super) struct Watched<T> {
    stream: T,
    frames: Frames,
    peer: Arc<Peer>,
    /// The peer takes no more bytes.
    is_unwritable: bool,
}

impl<T> Watched<T> {
    pub(super) fn new(stream: T, peer: Arc<Peer>) -> Self {
        Self { stream, frames: Frames::default(), peer, is_unwritable: false }
    }
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    /// Writes, and discards the bytes once the peer has closed the connection.
    ///
    /// A server that ends its connection may close the socket while requests are on their way to it, and the next write fails.
    /// Its GOAWAY, which tells the requests that it did not process, is still to be read then, and h2 reads no more after an
    /// error. Reading ends by itself, since the connection is closed.
    fn write(
        &mut self,
        len: usize,
        write: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.is_unwritable {
            return Poll::Ready(Ok(len));
        }
        match ready!(write(Pin::new(&mut self.stream))) {
            Err(error) if self.closes(&error) => Poll::Ready(Ok(len)),
            written => Poll::Ready(written),
        }
    }

    fn finish(&mut self, finish: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if self.is_unwritable {
            return Poll::Ready(Ok(()));
        }
        match ready!(finish(Pin::new(&mut self.stream))) {
            Err(error) if self.closes(&error) => Poll::Ready(Ok(())),
            finished => Poll::Ready(finished),
        }
    }

    /// Returns `true` if the peer has closed the connection, and takes note of it.
    fn closes(&mut self, error: &io::Error) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        self.is_unwritable = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset);
        if self.is_unwritable {
            self.peer.end();
        }
        self.is_unwritable
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

/// Position within the peer's frames.
#[derive(Debug, Default)]
struct Frames {
    /// The head or the setting that has come in part.
    part: [u8; HEAD],
    len: usize,
    /// Bytes that are left of the frame's payload.
    payload: usize,
    is_settings: bool,
    is_goaway: bool,
    /// Stream limit of these SETTINGS.
    limit: Option<usize>,
    /// The first SETTINGS have begun.
    has_begun: bool,
    is_foreign: bool,
}

fn payload_len(a: u8, b: u8, c: u8) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

impl Frames {
    #[inline]
    fn read(&mut self, mut bytes: &[u8], peer: &Peer) {
        while !bytes.is_empty() && !self.is_foreign {
            if self.payload > 0 && !self.is_settings && !self.is_goaway {
                let skipped = bytes.len().min(self.payload);
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            // Nearly all frames: a head that came whole, of a frame whose payload tells nothing.
            if let (0, 0, true, Some((&[a, b, c, kind, ..], rest))) =
                (self.len, self.payload, self.has_begun, bytes.split_first_chunk::<HEAD>())
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
                    peer.went_away(u32::from_be_bytes([a, b, c, d]) & !(1 << 31));
                } else {
                    self.setting(wanted);
                    self.end_of_settings(peer);
                }
            } else if self.len == HEAD {
                self.head(peer);
            }
        }
    }

    fn head(&mut self, peer: &Peer) {
        let [a, b, c, kind, flags, ..] = self.part;
        self.len = 0;
        if !self.has_begun && kind != SETTINGS {
            self.is_foreign = true;
            return peer.is_foreign.store(true, Ordering::Relaxed);
        }
        self.payload = payload_len(a, b, c);
        self.is_settings = kind == SETTINGS && flags & ACK == 0;
        if self.is_settings {
            // Without a limit there is none, unless one was set before.
            self.limit = (!self.has_begun).then_some(usize::MAX);
            self.has_begun = true;
            self.end_of_settings(peer);
        } else if kind == GOAWAY {
            self.is_goaway = self.payload > 0;
            peer.end();
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

    fn end_of_settings(&mut self, peer: &Peer) {
        if self.payload == 0 {
            self.is_settings = false;
            peer.settle(self.limit.take());
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if let Some(read) = buffer.filled().get(before..) {
            this.frames.read(read, &this.peer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(bytes.len(), |stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut().write(len, |stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().finish(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().finish(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
    }

    fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
        let entries = entries.iter().map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        frame(SETTINGS, 0, &entries.collect::<Vec<_>>().concat())
    }

    /// The peer after these bytes, read in pieces of this size.
    fn after(bytes: &[u8], piece: usize) -> Peer {
        let (peer, mut frames) = (Peer::new(Arc::default()), Frames::default());
        bytes.chunks(piece).for_each(|piece| frames.read(piece, &peer));
        peer
    }

    fn limit(peer: &Peer) -> usize {
        peer.limit.load(Ordering::Relaxed)
    }

    #[test]
    fn stream_limit_is_that_of_the_latest_settings_however_they_are_cut() {
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
                let peer = after(&bytes, piece);
                assert_eq!((limit(&peer), peer.is_foreign()), (expected, false), "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_goaway_ends_the_connection_for_good() {
        let bytes = [settings(&[(3, 7)]), frame(GOAWAY, 0, &[0; 12]), settings(&[(3, 9)])].concat();
        for piece in [1, 1000] {
            let peer = Arc::new(after(&bytes, piece));
            assert!(peer.has_ended() && peer.enter().is_none());
        }
    }

    #[test]
    fn settings_read_while_a_connection_is_ended_open_it_to_no_stream() {
        let peer = Arc::new(after(&settings(&[(3, 7)]), 1000));
        peer.end();
        // As the task that reads the frames does if it looked before the end.
        peer.limit.store(7, Ordering::Relaxed);
        assert!(peer.enter().is_none());
    }

    #[test]
    fn a_response_of_http1_is_no_settings() {
        for piece in [1, 1000] {
            let peer = after(b"HTTP/1.1 400 Bad Request\r\n\r\n", piece);
            assert!(peer.is_foreign() && limit(&peer) == 0);
        }
    }

    #[test]
    fn as_many_streams_are_taken_as_the_limit_allows() {
        let peer = Arc::new(after(&settings(&[(3, 2)]), 1000));
        let (first, _second) = (peer.enter().unwrap(), peer.enter().unwrap());
        assert!(peer.enter().is_none());
        drop(first);
        assert!(peer.enter().is_some() && !peer.is_idle());
    }

    /// Number of streams that a connection gives out of so many, before it ends with a GOAWAY that names the last stream.
    fn taken(vacancies: &Arc<Vacancies>, wanted: usize, last: u32) -> usize {
        let (peer, mut frames) = (Arc::new(Peer::new(vacancies.clone())), Frames::default());
        frames.read(&settings(&[(3, 100)]), &peer);
        let permits: Vec<_> = (0..wanted).map_while(|_| peer.enter()).collect();
        let bytes = frame(GOAWAY, 0, &[&last.to_be_bytes()[..], &[0; 4], b"why"].concat());
        bytes.chunks(1).for_each(|piece| frames.read(piece, &peer));
        permits.len()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_connection_are_limited_after_three_processed_the_same_number() {
        let vacancies = Arc::default();
        assert_eq!([19, 19, 19].map(|last| taken(&vacancies, 32, last)), [32; 3]);
        assert_eq!([19, 21].map(|last| taken(&vacancies, 32, last)), [10, 10]);
        tokio::time::advance(REQUESTS_KEPT).await;
        assert_eq!([19, 19].map(|last| taken(&vacancies, 32, last)), [32, 10], "tried again after a while");
    }

    /// Takes no bytes, and has some to be read.
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
    async fn write_to_a_closed_connection_leaves_the_goaway_to_be_read() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let peer = Arc::new(after(&settings(&[(3, 2)]), 1000));
        let mut watched = Watched::new(Closed(b"last words"), peer.clone());
        watched.write_all(b"request").await.unwrap();
        watched.flush().await.unwrap();
        assert!(peer.has_ended() && peer.enter().is_none());
        let mut read = Vec::new();
        watched.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");
        watched.shutdown().await.unwrap();
    }

    #[test]
    fn requests_of_a_connection_are_not_limited_by_other_ends() {
        for (what, ends) in [
            ("different numbers", [19, 21, 23]),
            ("no request was left", [63, 63, 63]),
            ("none was processed", [0, 0, 0]),
            ("more may come", [i32::MAX as u32; 3]),
        ] {
            let vacancies = Arc::default();
            assert_eq!(ends.map(|last| taken(&vacancies, 32, last)), [32; 3], "{what}");
        }
    }
}
