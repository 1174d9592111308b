use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use crate::error::{Error, Kind};

/// A request that can be sent more than once as long as its body was not touched.
///
/// Nothing is copied or buffered: the body waits in a slot, and each attempt gets a body that takes it out when the connection
/// asks for the first byte. An attempt that never got that far leaves it there for the next one.
pub(super) struct Attempts<B> {
    parts: Parts,
    slot: Option<Slot<B>>,
}

type Slot<B> = Arc<Mutex<Option<Pin<Box<B>>>>>;

impl<B: Body> Attempts<B> {
    pub(super) fn new(request: Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let slot = (!body.is_end_stream()).then(|| Arc::new(Mutex::new(Some(Box::pin(body)))));
        Self { parts, slot }
    }

    /// The request for the instance at this address.
    pub(super) fn next(&self, authority: Authority) -> Request<AttemptBody<B>> {
        let path = self.parts.uri.path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(authority));
        uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        let mut parts = self.parts.clone();
        parts.uri = Uri::from_parts(uri).expect("scheme, authority and path are a URI");
        let body = match &self.slot {
            None => AttemptBody { slot: None, taken: None, hint: SizeHint::with_exact(0) },
            Some(slot) => {
                let hint = slot.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|body| body.size_hint());
                AttemptBody { slot: Some(slot.clone()), taken: None, hint: hint.unwrap_or_default() }
            }
        };
        Request::from_parts(parts, body)
    }

    /// Whether the failed request may go to another instance (design: RFC 9110, 9.2.2).
    ///
    /// Always, if it was never sent. If it may have been received, only where its method makes a repetition harmless, and never
    /// once its body is under way.
    pub(super) fn may_repeat(&self, error: &Error) -> Repeat {
        if !self.body_is_untouched() {
            return Repeat::No;
        }
        match error.kind() {
            Kind::Connect => Repeat::Free,
            Kind::Call if is_idempotent(&self.parts.method) => Repeat::WithinBudget,
            _ => Repeat::No,
        }
    }

    fn body_is_untouched(&self) -> bool {
        let untouched = |slot: &Slot<B>| slot.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.slot.as_ref().is_none_or(untouched)
    }
}

/// Whether a request may be repeated, and at whose expense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    No,
    Free,
    WithinBudget,
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

/// The body of one attempt. Holds the request's body from the moment the connection asks for it.
pub(super) struct AttemptBody<B> {
    slot: Option<Slot<B>>,
    taken: Option<Pin<Box<B>>>,
    hint: SizeHint,
}

impl<B> Body for AttemptBody<B>
where
    B: Body<Data: Buf, Error: Into<BoxError>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Some(slot) = self.slot.take() {
            self.taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let Some(body) = &mut self.taken else { return Poll::Ready(None) };
        let frame = ready!(body.as_mut().poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.taken {
            Some(body) => body.is_end_stream(),
            None => self.slot.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.taken.as_ref().map_or_else(|| self.hint, |body| body.size_hint())
    }
}

impl<B> fmt::Debug for AttemptBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptBody").field("taken", &self.taken.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn post() -> Attempts<Full<Bytes>> {
        Attempts::new(Request::post("http://orders/a?b=1").body(Full::new(Bytes::from("hello"))).unwrap())
    }

    fn connect() -> Error {
        Error::new(Kind::Connect, "call")
    }

    fn lost() -> Error {
        Error::new(Kind::Call, "call")
    }

    #[tokio::test]
    async fn an_attempt_that_never_asked_for_the_body_leaves_it_to_the_next() {
        let attempts = post();
        drop(attempts.next(Authority::from_static("10.0.0.1:80")));
        assert_eq!(attempts.may_repeat(&connect()), Repeat::Free);

        let second = attempts.next(Authority::from_static("10.0.0.2:81"));
        assert_eq!(second.uri(), "http://10.0.0.2:81/a?b=1");
        assert_eq!(second.body().size_hint().exact(), Some(5));
        assert_eq!(second.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(attempts.may_repeat(&connect()), Repeat::No);
    }

    #[test]
    fn what_may_have_been_received_is_repeated_only_if_idempotent() {
        assert_eq!(post().may_repeat(&lost()), Repeat::No);
        let get = Attempts::new(Request::get("http://orders/").body(Full::<Bytes>::default()).unwrap());
        assert_eq!(get.may_repeat(&lost()), Repeat::WithinBudget);
        assert_eq!(get.may_repeat(&Error::new(Kind::Timeout, "call")), Repeat::No);
    }

    #[test]
    fn an_empty_body_can_be_sent_any_number_of_times() {
        let get = Attempts::new(Request::get("http://orders").body(Full::<Bytes>::default()).unwrap());
        for _ in 0..2 {
            let request = get.next(Authority::from_static("h:1"));
            assert_eq!(request.uri(), "http://h:1/");
            assert!(request.body().is_end_stream());
        }
    }
}
