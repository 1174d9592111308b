use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tower::BoxError;

use super::http2::StreamPermit;

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
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl InstanceBody {
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
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Incoming(body) | Kind::Stream(body, _) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Incoming(body) | Kind::Stream(body, _) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for InstanceBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceBody").field("size", &self.size_hint()).finish()
    }
}
