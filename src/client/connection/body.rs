use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};
use tower::BoxError;

use super::http2::StreamPermit;
use crate::client::presence::Presence;
use crate::error::{self, Error};

/// Response body of an instance.
///
/// Implements `Default` as an empty body, as generated gRPC clients with an interceptor require.
#[derive(Default)]
pub struct InstanceBody(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Incoming(Incoming),
    /// Body on an HTTP/2 stream, which is free again at the end of the body.
    Stream(Incoming, Option<StreamPermit>),
    Timed(Box<Timed>),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

/// Body that fails if it makes no progress while it is read.
struct Timed {
    body: InstanceBody,
    limit: Duration,
    /// Runs since the first poll without a frame.
    timer: Option<Pin<Box<Sleep>>>,
    /// Instance that sends the body.
    presence: Arc<Presence>,
}

impl InstanceBody {
    /// Fails once no frame arrived for this time while the body was read.
    pub(super) fn with_timeout(self, limit: Duration, presence: &Arc<Presence>) -> Self {
        if self.is_end_stream() {
            return self;
        }
        Self(Kind::Timed(Box::new(Timed { body: self, limit, timer: None, presence: presence.clone() })))
    }

    pub(super) fn on_stream(body: Incoming, permit: StreamPermit) -> Self {
        let permit = (!body.is_end_stream()).then_some(permit);
        Self(Kind::Stream(body, permit))
    }

    /// Wraps any other body.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Kind::Boxed(body.map_err(Into::into).boxed_unsync()))
    }
}

impl Timed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame);
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        ready!(timer.as_mut().poll(cx));
        // Closes the connection or resets the stream.
        self.body = InstanceBody::default();
        let error = self.presence.name_in(Error::new(error::Kind::Timeout, "read the response of"));
        let cause = format!("its body made no progress within {:?}", self.limit);
        Poll::Ready(Some(Err(error.cause(cause).into())))
    }
}

impl From<Incoming> for InstanceBody {
    fn from(body: Incoming) -> Self {
        Self(Kind::Incoming(body))
    }
}

impl Body for InstanceBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(Into::into))),
            Kind::Stream(body, permit) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) || body.is_end_stream() {
                    *permit = None;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Timed(body) => body.poll_frame(cx),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Incoming(body) | Kind::Stream(body, _) => body.is_end_stream(),
            Kind::Timed(timed) => timed.body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Incoming(body) | Kind::Stream(body, _) => body.size_hint(),
            Kind::Timed(timed) => timed.body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for InstanceBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceBody").field("size", &self.size_hint()).finish()
    }
}
