//! A body that holds something until it ends.
//!
//! A call is over when the last byte of its answer has arrived, not when the head has. [`GuardedBody`] wraps the answer's
//! body and keeps a guard as long as the body can still yield a frame; the guard's `Drop` is the end of the call. The
//! balancer counts pending calls with it, the registration layer the requests in flight.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

/// What a [`GuardedBody`] holds: dropped when the body ends, and told of what happens at the end.
pub trait BodyGuard {
    /// The body ended with these trailers. The guard is dropped right after.
    fn on_trailers(&mut self, trailers: &HeaderMap) {
        let _ = trailers;
    }

    /// The body ended without trailers. The guard is dropped right after.
    fn on_end(&mut self) {}

    /// The body broke off with an error. The guard is dropped right after.
    fn on_error(&mut self) {}
}

/// A body that drops its guard the moment it ends: at the end of the stream, after trailers or an error, or when it is dropped.
///
/// Frames, errors and size hint are those of the wrapped body.
#[pin_project]
pub struct GuardedBody<B, G> {
    #[pin]
    inner: B,
    guard: Option<G>,
}

impl<B: Body, G: BodyGuard> GuardedBody<B, G> {
    /// Holds `guard` until `inner` ends; not at all when it has ended already.
    pub fn new(inner: B, guard: G) -> Self {
        let guard = (!inner.is_end_stream()).then_some(guard);
        Self { inner, guard }
    }
}

impl<B, G> GuardedBody<B, G> {
    /// Holds nothing.
    pub(crate) fn unwatched(inner: B) -> Self {
        Self { inner, guard: None }
    }

    /// What it holds, until the body ends.
    pub fn guard(&self) -> Option<&G> {
        self.guard.as_ref()
    }
}

impl<B: Body, G: BodyGuard> Body for GuardedBody<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if let Some(guard) = this.guard {
            let ended = match &frame {
                Some(Ok(frame)) => match frame.trailers_ref() {
                    Some(trailers) => {
                        guard.on_trailers(trailers);
                        true
                    }
                    // The reader may stop here, because the end is known: do not wait for its next poll.
                    None if this.inner.is_end_stream() => {
                        guard.on_end();
                        true
                    }
                    None => false,
                },
                Some(Err(_)) => {
                    guard.on_error();
                    true
                }
                None => {
                    guard.on_end();
                    true
                }
            };
            if ended {
                *this.guard = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An empty body that holds nothing, as generated gRPC clients with an interceptor need it.
impl<B: Default, G> Default for GuardedBody<B, G> {
    fn default() -> Self {
        Self { inner: B::default(), guard: None }
    }
}

impl<B: fmt::Debug, G> fmt::Debug for GuardedBody<B, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedBody").field("inner", &self.inner).field("ended", &self.guard.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty, Full};

    use super::*;

    impl BodyGuard for Arc<()> {}

    #[test]
    fn is_as_long_as_the_wrapped_body_and_lets_go_with_its_last_byte() {
        let guard = Arc::new(());
        let mut body = GuardedBody::new(Full::<Bytes>::from("abc"), guard.clone());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(Arc::strong_count(&guard), 2);
        let Poll::Ready(Some(Ok(frame))) =
            Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
        else {
            panic!("a full body is ready");
        };
        assert_eq!(frame.into_data().unwrap(), "abc");
        assert!(body.is_end_stream());
        assert_eq!(Arc::strong_count(&guard), 1);
    }

    #[test]
    fn holds_nothing_for_an_empty_body() {
        let guard = Arc::new(());
        let _body = GuardedBody::new(Empty::<Bytes>::new(), guard.clone());
        assert_eq!(Arc::strong_count(&guard), 1);
        assert!(GuardedBody::<Empty<Bytes>, Arc<()>>::default().is_end_stream());
    }

    #[test]
    fn lets_go_when_dropped() {
        let guard = Arc::new(());
        let body = GuardedBody::new(Full::<Bytes>::from("abc").boxed(), guard.clone());
        drop(body);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
