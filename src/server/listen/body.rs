//! Request bodies with a time limit.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::activity::Activity;

/// Request body that fails unless it arrives within a time, which begins when the handler first
/// waits for it. Records in the [`Activity`] when a handler waits and when bytes arrive.
pub(super) struct TimedBody<B = Incoming> {
    inner: B,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    activity: Arc<Activity>,
    /// True while a handler waits for bytes.
    is_awaited: bool,
}

impl<B> TimedBody<B> {
    pub(super) fn new(inner: B, timeout: Duration, activity: Arc<Activity>) -> Self {
        Self { inner, timeout, timer: None, activity, is_awaited: false }
    }

    fn set_awaited(&mut self, is_awaited: bool) {
        if std::mem::replace(&mut self.is_awaited, is_awaited) != is_awaited {
            self.activity.set_receiving(is_awaited);
        }
    }
}

impl<B> Drop for TimedBody<B> {
    fn drop(&mut self) {
        self.set_awaited(false);
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for TimedBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.set_awaited(false);
            self.activity.note_transfer();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.set_awaited(true);
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        self.set_awaited(false);
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the body took too long").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;
    use tokio::time::advance;

    use super::super::Limits;
    use super::super::activity::InFlight;
    use super::*;
    use crate::server::unsent::Unsent;

    const SECOND: Duration = Duration::from_secs(1);

    /// Body whose chunks come from the test.
    struct Chunks(mpsc::Receiver<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn body_without_bytes_stalls_its_connection_until_the_next_chunk() {
        let activity = Arc::new(Activity::start(&Limits::default(), Arc::new(Unsent::new(0))));
        activity.note_version(http::Version::HTTP_2);
        let _in_flight = InFlight::new(activity.clone());
        let stalled = || activity.stalled_since().map(|since| since.elapsed());
        let (chunks, body) = mpsc::channel(1);
        let mut body = TimedBody::new(Chunks(body), 3 * SECOND, activity.clone());
        for _ in 0..2 {
            {
                let mut frame = std::pin::pin!(body.frame());
                let is_pending = std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx).is_pending()));
                assert!(is_pending.await);
                advance(SECOND).await;
                assert_eq!(stalled(), Some(SECOND));
                chunks.send(Bytes::from_static(b"x")).await.unwrap();
                frame.await.unwrap().unwrap();
            }
            advance(SECOND).await;
            assert_eq!(stalled(), None, "the handler has the chunk");
        }
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(stalled(), None, "the handler has the error");
    }
}
