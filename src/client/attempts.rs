use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::Request;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::address::Address;
use crate::balance::CallerFault;
use crate::sync::Mutex;

/// A request that can be sent more than once.
///
/// Its body waits in a slot, and each attempt gets a body that takes it out when the connection asks for the first byte. An attempt
/// that never got that far leaves it there for the next one. What an attempt reads of it is kept, up to a limit, and the body goes
/// back into the slot when its end was read or the attempt is dropped, so that the next one can begin anew.
pub(super) struct Attempts<B> {
    pub(super) parts: Parts,
    slot: Option<Slot<B>>,
}

/// What a kept frame costs beside its bytes, for each but the first.
const FRAME: usize = 64;

/// Time for which a body is waited for: so many turns of other tasks, then this long.
const YIELDS: usize = 16;
const MOMENT: Duration = Duration::from_millis(5);

type Slot<B> = Arc<Mutex<Option<Source<B>>>>;

/// A request's body with what was read of it.
struct Source<B> {
    body: Pin<Box<B>>,
    read: Vec<Frame<Bytes>>,
    /// How many more bytes may be kept.
    room: usize,
    /// Whether all that was read is kept.
    whole: bool,
    ended: bool,
}

impl<B: Body> Attempts<B> {
    /// Keeps at most so many bytes of the body.
    pub(super) fn new(request: Request<B>, kept_bytes: usize) -> Self {
        let (parts, body) = request.into_parts();
        let source = |body| Source { body, read: Vec::new(), room: kept_bytes, whole: true, ended: false };
        let slot = (!body.is_end_stream()).then(|| Arc::new(Mutex::new(Some(source(Box::pin(body))))));
        Self { parts, slot }
    }

    /// The next attempt, at an instance.
    pub(super) fn request(&self, address: &Address) -> Request<AttemptBody<B>> {
        let Parts { method, uri, version, headers, extensions, .. } = &self.parts;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method.clone();
        parts.uri = address.uri_of(uri.path_and_query());
        parts.version = *version;
        parts.headers = headers.clone();
        parts.extensions = extensions.clone();
        Request::from_parts(parts, self.body())
    }

    /// The only attempt that there will be, as it was written.
    pub(super) fn into_request(self) -> Request<AttemptBody<B>> {
        let body = self.body();
        Request::from_parts(self.parts, body)
    }

    fn body(&self) -> AttemptBody<B> {
        AttemptBody(self.slot.as_ref().map(|slot| {
            let hint = slot.lock().as_ref().map(|source| source.size_hint(0)).unwrap_or_default();
            Box::new(Taker { slot: slot.clone(), source: None, at: 0, hint })
        }))
    }

    /// Waits a moment for the body to be there again, as a connection may drop an attempt's body after it returned the error.
    pub(super) async fn given_back(&self) -> bool {
        for _ in 0..YIELDS {
            if self.can_repeat() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(MOMENT).await;
        self.can_repeat()
    }

    /// Whether the body is there to be sent from its beginning.
    pub(super) fn can_repeat(&self) -> bool {
        self.slot.as_ref().is_none_or(|slot| slot.lock().is_some())
    }
}

impl<B: Body> Source<B> {
    /// The size of what is left after so many kept frames.
    fn size_hint(&self, at: usize) -> SizeHint {
        let kept: u64 = self.read.iter().skip(at).filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
        let rest = if self.ended { SizeHint::with_exact(0) } else { self.body.size_hint() };
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint.set_lower(rest.lower().saturating_add(kept));
        hint
    }

    fn is_at_end(&self, at: usize) -> bool {
        self.ended && at >= self.read.len()
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let size = frame.data_ref().map_or(0, Bytes::len) + if self.read.is_empty() { 0 } else { FRAME };
        if !self.whole {
            return;
        }
        if size > self.room {
            self.lose();
        } else {
            self.room -= size;
            self.read.push(copy(frame));
        }
    }

    /// From here on it cannot be sent again.
    fn lose(&mut self) {
        self.whole = false;
        self.read = Vec::new();
    }
}

fn copy(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (None, Some(trailers)) => Frame::trailers(trailers.clone()),
        (None, None) => Frame::data(Bytes::new()),
    }
}

/// The body of one attempt to send a request: what a service below the [`EurekaLayer`](super::EurekaLayer) gets.
///
/// It takes the request's body when it is first polled. Until then nothing of that is lost if the attempt fails.
///
/// `None` once it has ended. Boxed, so that a request without a body, which is moved about as others are, is small.
pub struct AttemptBody<B>(Option<Box<Taker<B>>>);

struct Taker<B> {
    slot: Slot<B>,
    source: Option<Source<B>>,
    /// How many of the kept frames it has sent.
    at: usize,
    /// As long as it has no source.
    hint: SizeHint,
}

/// Leaves the body to the next attempt, if that can begin anew.
impl<B> Drop for Taker<B> {
    fn drop(&mut self) {
        if let Some(source) = self.source.take()
            && source.whole
        {
            *self.slot.lock() = Some(source);
        }
    }
}

impl<B: Body> Source<B>
where
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(kept) = self.read.get(at) {
            return Poll::Ready(Some(Ok(copy(kept))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.body.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => {
                let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                self.keep(&frame);
                self.ended = self.body.is_end_stream();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.lose();
                Some(Err(CallerFault(error.into()).into()))
            }
            None => {
                self.ended = true;
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
        let Some(taker) = &mut self.0 else { return Poll::Ready(None) };
        if taker.source.is_none() {
            taker.source = taker.slot.lock().take();
        }
        let Some(source) = &mut taker.source else {
            return Poll::Ready(Some(Err(CallerFault("another attempt has it".into()).into())));
        };
        let frame = ready!(source.poll(taker.at, cx));
        taker.at += 1;
        if frame.is_none() || source.is_at_end(taker.at) {
            // Given back now, not when this is dropped: the connection may keep it until after the answer.
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
            Some(Taker { source: Some(source), at, .. }) => source.size_hint(*at),
            Some(taker) => taker.hint,
        }
    }
}

impl<B> fmt::Debug for AttemptBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.0.as_ref().is_some_and(|taker| taker.source.is_some());
        f.debug_struct("AttemptBody").field("taken", &taken).field("ended", &self.0.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    fn post(kept_bytes: usize) -> Attempts<Full<Bytes>> {
        Attempts::new(Request::post("http://orders/").body(Full::new(Bytes::from("hello"))).unwrap(), kept_bytes)
    }

    fn chunks(kept_bytes: usize) -> Attempts<impl Body<Data = Bytes, Error = std::convert::Infallible>> {
        let frames = ["one", "two", "three"].map(|text| Ok(Frame::data(Bytes::from(text))));
        Attempts::new(Request::new(StreamBody::new(tokio_stream::iter(frames))), kept_bytes)
    }

    #[tokio::test]
    async fn an_attempt_that_never_asked_for_the_body_leaves_it_to_the_next() {
        let attempts = post(0);
        drop(attempts.body());
        assert!(attempts.can_repeat());
        let second = attempts.body();
        assert_eq!(second.size_hint().exact(), Some(5));
        assert!(!second.is_end_stream());
        assert_eq!(second.collect().await.unwrap().to_bytes(), "hello");
        assert!(!attempts.can_repeat());
        assert!(attempts.body().collect().await.is_err(), "never a shorter body in silence");
    }

    #[tokio::test]
    async fn what_was_sent_is_sent_again_up_to_the_limit() {
        let attempts = post(5);
        for _ in 0..3 {
            assert_eq!(attempts.body().collect().await.unwrap().to_bytes(), "hello");
            assert!(attempts.can_repeat());
        }
        let attempts = post(4);
        assert_eq!(attempts.body().collect().await.unwrap().to_bytes(), "hello");
        assert!(!attempts.can_repeat());
    }

    #[tokio::test]
    async fn an_attempt_that_stopped_half_way_is_begun_anew() {
        let attempts = chunks(100);
        let mut first = attempts.body();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        assert!(!attempts.can_repeat(), "the first still has it");
        drop(first);
        let mut second = attempts.body();
        for expected in ["one", "two"] {
            assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
        }
        drop(second);
        assert_eq!(attempts.body().collect().await.unwrap().to_bytes(), "onetwothree");
    }

    #[tokio::test]
    async fn a_body_that_outgrows_the_limit_is_sent_whole_but_once() {
        let attempts = chunks(6);
        assert_eq!(attempts.body().collect().await.unwrap().to_bytes(), "onetwothree");
        assert!(!attempts.can_repeat());
    }

    #[tokio::test]
    async fn an_empty_body_can_be_sent_any_number_of_times() {
        let attempts = Attempts::new(Request::get("http://orders").body(Full::<Bytes>::default()).unwrap(), 0);
        for _ in 0..2 {
            assert!(attempts.body().is_end_stream());
            assert!(attempts.can_repeat());
        }
    }
}
