use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::request::Parts;
use http::{Request, Uri};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::address::Address;
use crate::balance::CallerFault;
use crate::sync::Mutex;

/// A request that can be sent more than once.
///
/// All attempts share the caller's body. An attempt takes it when its connection polls the first
/// frame, and returns it when the end was read or the attempt is dropped. Frames that were read
/// are buffered up to a limit, so that the next attempt starts from the first byte. An attempt
/// that never polled its body leaves it untouched.
pub(super) struct ReplayRequest<B> {
    pub(super) parts: Parts,
    shared: Option<Shared<B>>,
}

/// Bytes charged for each buffered frame but the first, in addition to its data.
const FRAME_OVERHEAD: usize = 64;

/// Number of yields to other tasks while waiting for a body to be returned.
const RETURN_YIELDS: usize = 16;
/// Time to wait for the body after the yields.
const RETURN_TIMEOUT: Duration = Duration::from_millis(5);

type Shared<B> = Arc<Mutex<Option<Buffered<B>>>>;

/// The caller's body, with the frames that were read from it.
struct Buffered<B> {
    body: Pin<Box<B>>,
    frames: Vec<Frame<Bytes>>,
    /// Number of bytes that may still be buffered.
    capacity: usize,
    /// `true` while every frame that was read is buffered.
    is_complete: bool,
    has_ended: bool,
}

impl<B: Body> ReplayRequest<B> {
    /// Makes a request that buffers at most `limit` bytes of its body.
    #[inline]
    pub(super) fn new(request: Request<B>, limit: usize) -> Self {
        let (parts, body) = request.into_parts();
        let buffered =
            |body| Buffered { body, frames: Vec::new(), capacity: limit, is_complete: true, has_ended: false };
        let shared = (!body.is_end_stream()).then(|| Arc::new(Mutex::new(Some(buffered(Box::pin(body))))));
        Self { parts, shared }
    }

    /// Returns the request of the next attempt, for an instance at this address.
    pub(super) fn for_address(&self, address: &Address) -> Request<AttemptBody<B>> {
        self.with_uri(address.uri_of(self.parts.uri.path_and_query()))
    }

    /// Returns the request of the next attempt with the path alone, for the instance's own
    /// connections.
    #[inline]
    pub(super) fn for_connection(&self) -> Request<AttemptBody<B>> {
        self.with_uri(self.parts.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from))
    }

    #[inline]
    fn with_uri(&self, uri: Uri) -> Request<AttemptBody<B>> {
        let Parts { method, version, headers, extensions, .. } = &self.parts;
        let mut request = Request::new(self.body());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = *version;
        // A clone of an empty map is a new one as well, and takes longer.
        if !headers.is_empty() {
            *request.headers_mut() = headers.clone();
        }
        *request.extensions_mut() = extensions.clone();
        request
    }

    /// Returns the request as the caller wrote it, for a single attempt.
    pub(super) fn into_request(self) -> Request<AttemptBody<B>> {
        let body = self.body();
        Request::from_parts(self.parts, body)
    }

    fn body(&self) -> AttemptBody<B> {
        AttemptBody(self.shared.as_ref().map(|shared| {
            let hint = shared.lock().as_ref().map(|buffered| buffered.size_hint(0)).unwrap_or_default();
            Box::new(Reader { shared: shared.clone(), buffered: None, at: 0, hint })
        }))
    }

    /// Waits briefly until the body is returned. Returns `true` if the request can be sent again.
    ///
    /// A connection may drop an attempt's body after it returned the error.
    pub(super) async fn wait_until_repeatable(&self) -> bool {
        for _ in 0..RETURN_YIELDS {
            if self.can_repeat() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(RETURN_TIMEOUT).await;
        self.can_repeat()
    }

    /// Returns `true` if the body is available from its first byte.
    pub(super) fn can_repeat(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.lock().is_some())
    }
}

impl<B: Body> Buffered<B> {
    /// Size of the body after the first `at` buffered frames.
    fn size_hint(&self, at: usize) -> SizeHint {
        let kept: u64 = self.frames.iter().skip(at).filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = if self.has_ended { SizeHint::with_exact(0) } else { self.body.size_hint() };
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(rest.lower().saturating_add(kept));
        hint
    }

    fn is_at_end(&self, at: usize) -> bool {
        self.has_ended && at >= self.frames.len()
    }

    fn record(&mut self, frame: &Frame<Bytes>) {
        let size = frame.data_ref().map_or(0, Bytes::len) + if self.frames.is_empty() { 0 } else { FRAME_OVERHEAD };
        if !self.is_complete {
            return;
        }
        if size > self.capacity {
            self.discard();
        } else {
            self.capacity -= size;
            self.frames.push(copy(frame));
        }
    }

    /// Drops the buffered frames. The body cannot be sent again.
    fn discard(&mut self) {
        self.is_complete = false;
        self.frames = Vec::new();
    }
}

fn copy(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (None, Some(trailers)) => Frame::trailers(trailers.clone()),
        (None, None) => Frame::data(Bytes::new()),
    }
}

/// Request body of one attempt, sent through the service below an
/// [`EurekaLayer`](super::EurekaLayer).
///
/// The caller's body is taken when this one is polled for the first time. An attempt that fails
/// before that leaves the body to the next attempt.
// `None` once the end was read. Boxed to keep requests without a body small.
pub struct AttemptBody<B>(Option<Box<Reader<B>>>);

struct Reader<B> {
    shared: Shared<B>,
    buffered: Option<Buffered<B>>,
    /// Number of frames that this attempt has sent.
    at: usize,
    /// Size of the body before it was taken.
    hint: SizeHint,
}

/// Returns the body for the next attempt, unless frames are missing.
impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        if let Some(buffered) = self.buffered.take()
            && buffered.is_complete
        {
            *self.shared.lock() = Some(buffered);
        }
    }
}

impl<B: Body> Buffered<B>
where
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(kept) = self.frames.get(at) {
            return Poll::Ready(Some(Ok(copy(kept))));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => {
                let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                self.record(&frame);
                self.has_ended = self.body.is_end_stream();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.discard();
                Some(Err(CallerFault(error.into()).into()))
            }
            None => {
                self.has_ended = true;
                None
            }
        })
    }
}

impl<B> Body for AttemptBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(reader) = &mut self.0 else { return Poll::Ready(None) };
        if reader.buffered.is_none() {
            reader.buffered = reader.shared.lock().take();
        }
        let Some(buffered) = &mut reader.buffered else {
            return Poll::Ready(Some(Err(CallerFault("the body is in use by another attempt".into()).into())));
        };
        let frame = ready!(buffered.poll(reader.at, cx));
        reader.at += 1;
        if frame.is_none() || buffered.is_at_end(reader.at) {
            // Returned now, since the connection may keep this body until after the response.
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_deref() {
            None => SizeHint::with_exact(0),
            Some(Reader { buffered: Some(buffered), at, .. }) => buffered.size_hint(*at),
            Some(reader) => reader.hint,
        }
    }
}

impl<B> fmt::Debug for AttemptBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.0.as_ref().is_some_and(|reader| reader.buffered.is_some());
        f.debug_struct("AttemptBody").field("taken", &taken).field("ended", &self.0.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    fn post(limit: usize) -> ReplayRequest<Full<Bytes>> {
        ReplayRequest::new(Request::post("http://orders/").body(Full::new(Bytes::from("hello"))).unwrap(), limit)
    }

    fn chunks(limit: usize) -> ReplayRequest<impl Body<Data = Bytes, Error = std::convert::Infallible>> {
        let frames = ["one", "two", "three"].map(|text| Ok(Frame::data(Bytes::from(text))));
        ReplayRequest::new(Request::new(StreamBody::new(tokio_stream::iter(frames))), limit)
    }

    #[tokio::test]
    async fn attempt_that_never_polled_the_body_leaves_it_to_the_next() {
        let request = post(0);
        drop(request.body());
        assert!(request.can_repeat());
        let second = request.body();
        assert_eq!(second.size_hint().exact(), Some(5));
        assert!(!second.is_end_stream());
        assert_eq!(second.collect().await.unwrap().to_bytes(), "hello");
        assert!(!request.can_repeat());
        assert!(request.body().collect().await.is_err(), "a body is never truncated silently");
    }

    #[tokio::test]
    async fn body_up_to_the_limit_can_be_sent_again() {
        let request = post(5);
        for _ in 0..3 {
            assert_eq!(request.body().collect().await.unwrap().to_bytes(), "hello");
            assert!(request.can_repeat());
        }
        let request = post(4);
        assert_eq!(request.body().collect().await.unwrap().to_bytes(), "hello");
        assert!(!request.can_repeat());
    }

    #[tokio::test]
    async fn body_after_an_interrupted_attempt_starts_from_the_first_byte() {
        let request = chunks(100);
        let mut first = request.body();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(!request.can_repeat(), "the first attempt still has the body");
        drop(first);
        let mut second = request.body();
        for expected in ["one", "two"] {
            assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
        }
        drop(second);
        assert_eq!(request.body().collect().await.unwrap().to_bytes(), "onetwothree");
    }

    #[tokio::test]
    async fn body_above_the_limit_is_sent_complete_but_only_once() {
        let request = chunks(6);
        assert_eq!(request.body().collect().await.unwrap().to_bytes(), "onetwothree");
        assert!(!request.can_repeat());
    }

    #[tokio::test]
    async fn empty_body_can_be_sent_any_number_of_times() {
        let request = ReplayRequest::new(Request::get("http://orders").body(Full::<Bytes>::default()).unwrap(), 0);
        for _ in 0..2 {
            assert!(request.body().is_end_stream());
            assert!(request.can_repeat());
        }
    }
}
