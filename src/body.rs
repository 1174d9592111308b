//! A response body that keeps a guard until it ends.
//!
//! A call ends with the last byte of its response, not with the head. [`GuardedBody`] wraps the
//! response body and drops its guard as soon as the body can yield no further frame, so the guard's
//! `Drop` marks the end of the call. The balancer counts pending calls with it, and the
//! registration layer counts requests in flight.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

/// Guard that a [`GuardedBody`] drops when the body ends.
///
/// At most one of the methods is called, right before the guard is dropped. None is called for a
/// body that is dropped before its end.
pub trait BodyGuard {
    /// Called when the body ends with trailers.
    fn on_trailers(&mut self, trailers: &HeaderMap) {
        let _ = trailers;
    }

    /// Called when the body ends without trailers.
    fn on_end(&mut self) {}

    /// Called when the body fails.
    fn on_error(&mut self) {}
}

/// Body that drops its guard the moment it ends: at the end of the stream, after trailers or an
/// error, or when the body itself is dropped.
///
/// Frames, errors and the size hint are those of the wrapped body.
#[pin_project]
pub struct GuardedBody<B, G> {
    #[pin]
    inner: B,
    guard: Option<G>,
}

impl<B: Body, G: BodyGuard> GuardedBody<B, G> {
    /// Wraps `inner` and keeps `guard` until it ends. If `inner` has already ended, `guard` is
    /// dropped at once.
    pub fn new(inner: B, guard: G) -> Self {
        let guard = (!inner.is_end_stream()).then_some(guard);
        Self { inner, guard }
    }
}

impl<B, G> GuardedBody<B, G> {
    /// Wraps `inner` and keeps `guard` until the body is polled to its end or dropped, even if
    /// `inner` has already ended.
    pub(crate) fn kept(inner: B, guard: G) -> Self {
        Self { inner, guard: Some(guard) }
    }

    /// Wraps `inner` without a guard.
    pub(crate) fn unguarded(inner: B) -> Self {
        Self { inner, guard: None }
    }

    /// Returns the guard; `None` once the body has ended.
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
                    // The reader knows that this is the end and may not poll again.
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

/// Creates a body without a guard. Generated gRPC clients need this if they have an interceptor.
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
    fn full_body_keeps_its_size_and_drops_the_guard_with_its_last_byte() {
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
    fn empty_body_drops_the_guard_at_once() {
        let guard = Arc::new(());
        let _body = GuardedBody::new(Empty::<Bytes>::new(), guard.clone());
        assert_eq!(Arc::strong_count(&guard), 1);
        assert!(GuardedBody::<Empty<Bytes>, Arc<()>>::default().is_end_stream());
    }

    #[test]
    fn dropped_body_drops_the_guard() {
        let guard = Arc::new(());
        let body = GuardedBody::new(Full::<Bytes>::from("abc").boxed(), guard.clone());
        drop(body);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
