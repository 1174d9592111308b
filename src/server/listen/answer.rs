//! Responses that note how long their bytes are held, and how many of them the peer took.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};

use super::activity::{Activity, PROGRESS};

/// Follows the bytes of a response until they are written.
///
/// A body that is there as a whole is taken at once, so that its bytes count although the
/// connection takes none of them. If the request only reads, the body was made for this response
/// alone, and the budget of unsent bytes is exhausted, a 503 is sent instead. The response to a
/// write is never replaced: the write was applied, and its sender would repeat it.
pub(super) fn followed(
    response: Response,
    reads: bool,
    activity: Arc<Activity>,
    cx: &mut Context<'_>,
) -> Response<Followed> {
    let is_refusable = reads && response.status() == StatusCode::OK;
    let (parts, mut inner) = response.into_parts();
    if inner.is_end_stream() {
        return Response::from_parts(parts, Followed::Whole(None));
    }
    let is_timed = activity.is_http2() || inner.size_hint().lower() > PROGRESS;
    if inner.size_hint().exact().is_some()
        && let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut inner).poll_frame(cx)
    {
        match frame.into_data() {
            Ok(bytes) if is_refusable && bytes.is_unique() && !activity.unsent().has_room_for(bytes.len()) => {
                return activity.unsent().refusal().map(|_| Followed::Whole(None));
            }
            Ok(bytes) if inner.is_end_stream() => {
                let held = Held::new(bytes, activity, is_timed);
                return Response::from_parts(parts, Followed::Whole(Some(held)));
            }
            Ok(bytes) => {
                let first = Held::new(bytes, activity.clone(), is_timed);
                let streamed = Streamed { first: Some(first), inner, sent: 0, is_timed, activity };
                return Response::from_parts(parts, Followed::Streamed(streamed));
            }
            // Trailers of a body that has a length and no data.
            Err(_) => return Response::from_parts(parts, Followed::Whole(None)),
        }
    }
    let streamed = Streamed { first: None, inner, sent: 0, is_timed, activity };
    Response::from_parts(parts, Followed::Streamed(streamed))
}

/// Body of a response.
pub(super) enum Followed {
    /// It is one piece, or empty.
    Whole(Option<Held>),
    Streamed(Streamed),
}

/// A body that comes in pieces.
pub(super) struct Streamed {
    first: Option<Held>,
    inner: Body,
    sent: u64,
    is_timed: bool,
    activity: Arc<Activity>,
}

impl http_body::Body for Followed {
    type Data = Held;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Held>, axum::Error>>> {
        match &mut *self {
            Self::Whole(held) => Poll::Ready(held.take().map(|held| Ok(Frame::data(held)))),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(held) => held.is_none(),
            Self::Streamed(Streamed { first, inner, .. }) => first.is_none() && inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = |held: &Option<Held>| held.as_ref().map_or(0, |held| held.remaining() as u64);
        match self {
            Self::Whole(held) => SizeHint::with_exact(bytes(held)),
            Self::Streamed(Streamed { first, inner, .. }) => {
                let (mut hint, first) = (inner.size_hint(), bytes(first));
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper + first);
                }
                hint.set_lower(hint.lower() + first);
                hint
            }
        }
    }
}

impl Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Held>, axum::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(frame.map(|frame| {
            frame.map_data(|bytes| {
                self.sent += bytes.len() as u64;
                self.is_timed |= self.sent > PROGRESS;
                Held::new(bytes, self.activity.clone(), self.is_timed)
            })
        })))
    }
}

/// Bytes that the connection has not written yet: it advances over those that it has, and drops them at the end.
pub(super) struct Held {
    bytes: Bytes,
    activity: Arc<Activity>,
    is_timed: bool,
    /// Number of bytes that no other response has, nor a cache.
    own: usize,
}

impl Held {
    fn new(bytes: Bytes, activity: Arc<Activity>, is_timed: bool) -> Self {
        if is_timed {
            activity.holds();
        } else {
            activity.holds_short(true);
        }
        let own = if bytes.is_unique() { bytes.len() } else { 0 };
        if own > 0 {
            activity.unsent().add(own);
        }
        Self { bytes, activity, is_timed, own }
    }

    fn took(&self, bytes: usize) {
        if self.is_timed {
            self.activity.took(bytes);
        }
    }
}

impl Buf for Held {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.took(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.took(len);
        self.bytes.copy_to_bytes(len)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.own > 0 {
            self.activity.unsent().remove(self.own);
        }
        if self.is_timed {
            self.activity.drops();
        } else {
            self.activity.holds_short(false);
        }
    }
}
