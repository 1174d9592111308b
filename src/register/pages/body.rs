use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::super::layer::InFlight;
use crate::body::GuardedBody;

/// Response body of a server below the [`RegistrationLayer`](super::super::RegistrationLayer): that
/// of the server itself, or that of a page of the layer.
///
/// The body of the server is passed on unchanged, with its trailers and its size.
#[pin_project]
pub struct RegistrationBody<B>(#[pin] Origin<B>);

#[pin_project(project = OriginProjection)]
enum Origin<B> {
    Server(#[pin] GuardedBody<B, InFlight>),
    /// Content of a page that is still to be sent.
    Page(Bytes),
}

impl<B> RegistrationBody<B> {
    pub(in crate::register) fn page(content: Bytes) -> Self {
        Self(Origin::Page(content))
    }
}

impl<B: Body> RegistrationBody<B> {
    pub(in crate::register) fn server(body: B, in_flight: InFlight) -> Self {
        Self(Origin::Server(GuardedBody::new(body, in_flight)))
    }
}

impl<B> Body for RegistrationBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().0.project() {
            OriginProjection::Server(body) => body.poll_frame(cx),
            OriginProjection::Page(content) if content.is_empty() => Poll::Ready(None),
            OriginProjection::Page(content) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(content).into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Origin::Server(body) => body.is_end_stream(),
            Origin::Page(content) => content.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Origin::Server(body) => body.size_hint(),
            Origin::Page(content) => SizeHint::with_exact(content.len() as u64),
        }
    }
}

/// Creates an empty body.
impl<B> Default for RegistrationBody<B> {
    fn default() -> Self {
        Self::page(Bytes::new())
    }
}

impl<B: fmt::Debug> fmt::Debug for RegistrationBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Server(body) => f.debug_tuple("RegistrationBody").field(body).finish(),
            Origin::Page(content) => f.debug_tuple("RegistrationBody").field(content).finish(),
        }
    }
}
