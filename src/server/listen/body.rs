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

/// A request's body that must arrive within a time, which begins when its reader first waits. Notes
/// when the reader waits and when bytes arrive.
pub(super) struct TimedBody<B = Incoming> {
    inner: B,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    activity: Arc<Activity>,
    /// Set while the reader waits.
    is_awaited: bool,
}

impl<B> TimedBody<B> {
    pub(super) fn new(inner: B, timeout: Duration, activity: Arc<Activity>) -> Self {
        Self { inner, timeout, timer: None, activity, is_awaited: false }
    }

    fn is_awaited(&mut self, is_awaited: bool) {
        if std::mem::replace(&mut self.is_awaited, is_awaited) != is_awaited {
            self.activity.receives(is_awaited);
        }
    }
}

impl<B> Drop for TimedBody<B> {
    fn drop(&mut self) {
        self.is_awaited(false);
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for TimedBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.is_awaited(false);
            self.activity.transferred();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.is_awaited(true);
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        self.is_awaited(false);
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
    use super::super::activity::Handling;
    use super::*;
    use crate::server::unsent::Unsent;

    const SECOND: Duration = Duration::from_secs(1);

    /// A body whose pieces the test sends.
    struct Pieces(mpsc::Receiver<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn body_moves_its_connection_with_each_piece_and_stalls_it_without() {
        let activity = Arc::new(Activity::start(&Limits::default(), Arc::new(Unsent::new(0))));
        activity.speaks(http::Version::HTTP_2);
        let _handling = Handling::new(activity.clone());
        let stalled = || activity.stalled_since().map(|since| since.elapsed());
        let (pieces, body) = mpsc::channel(1);
        let mut body = TimedBody::new(Pieces(body), 3 * SECOND, activity.clone());
        for _ in 0..2 {
            {
                let mut frame = std::pin::pin!(body.frame());
                let is_pending = std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx).is_pending()));
                assert!(is_pending.await);
                advance(SECOND).await;
                assert_eq!(stalled(), Some(SECOND));
                pieces.send(Bytes::from_static(b"x")).await.unwrap();
                frame.await.unwrap().unwrap();
            }
            advance(SECOND).await;
            assert_eq!(stalled(), None, "the handler has the piece");
        }
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(stalled(), None, "the handler has the error");
    }
}
