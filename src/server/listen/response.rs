//! Response bodies that record how many of their bytes are unwritten, and for how long.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};

use super::activity::{Activity, PROGRESS};

/// Tracks the bytes of a response until they are written.
///
/// A body that is complete is polled here, so that its bytes count even if the connection never
/// polls it. The response is replaced by a 503 if the request is a read, the body was made for this
/// response alone, and the budget of unsent bytes is exhausted. The response to a write is never
/// replaced, since the write was applied and its sender would repeat it.
pub(super) fn track(
    response: Response,
    is_read: bool,
    activity: Arc<Activity>,
    cx: &mut Context<'_>,
) -> Response<TrackedBody> {
    let is_refusable = is_read && response.status() == StatusCode::OK;
    let (parts, mut inner) = response.into_parts();
    if inner.is_end_stream() {
        return Response::from_parts(parts, TrackedBody::Whole(None));
    }
    let is_timed = activity.is_http2() || inner.size_hint().lower() > PROGRESS;
    if inner.size_hint().exact().is_some()
        && let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut inner).poll_frame(cx)
    {
        match frame.into_data() {
            Ok(bytes) if is_refusable && bytes.is_unique() && !activity.unsent().has_room_for(bytes.len()) => {
                return activity.unsent().refusal().map(|_| TrackedBody::Whole(None));
            }
            Ok(bytes) if inner.is_end_stream() => {
                let held = HeldChunk::new(bytes, activity, is_timed);
                return Response::from_parts(parts, TrackedBody::Whole(Some(held)));
            }
            Ok(bytes) => {
                let first = HeldChunk::new(bytes, activity.clone(), is_timed);
                let streamed = Streamed { first: Some(first), inner, sent: 0, is_timed, activity };
                return Response::from_parts(parts, TrackedBody::Streamed(streamed));
            }
            // A body with a known length that has trailers and no data.
            Err(_) => return Response::from_parts(parts, TrackedBody::Whole(None)),
        }
    }
    let streamed = Streamed { first: None, inner, sent: 0, is_timed, activity };
    Response::from_parts(parts, TrackedBody::Streamed(streamed))
}

/// Response body whose bytes are counted until they are written.
pub(super) enum TrackedBody {
    /// One chunk, or none.
    Whole(Option<HeldChunk>),
    Streamed(Streamed),
}

/// Body of several chunks.
pub(super) struct Streamed {
    first: Option<HeldChunk>,
    inner: Body,
    sent: u64,
    is_timed: bool,
    activity: Arc<Activity>,
}

impl http_body::Body for TrackedBody {
    type Data = HeldChunk;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<HeldChunk>, axum::Error>>> {
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
        let bytes = |held: &Option<HeldChunk>| held.as_ref().map_or(0, |held| held.remaining() as u64);
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
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<HeldChunk>, axum::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(frame.map(|frame| {
            frame.map_data(|bytes| {
                self.sent += bytes.len() as u64;
                self.is_timed |= self.sent > PROGRESS;
                HeldChunk::new(bytes, self.activity.clone(), self.is_timed)
            })
        })))
    }
}

/// Chunk that the connection has not written yet. The connection advances over the bytes that it
/// has written, and drops the chunk at the end.
pub(super) struct HeldChunk {
    bytes: Bytes,
    activity: Arc<Activity>,
    is_timed: bool,
    /// Number of bytes that no cache and no other response shares.
    unshared: usize,
}

impl HeldChunk {
    fn new(bytes: Bytes, activity: Arc<Activity>, is_timed: bool) -> Self {
        if is_timed {
            activity.hold();
        } else {
            activity.set_short_held(true);
        }
        let unshared = if bytes.is_unique() { bytes.len() } else { 0 };
        if unshared > 0 {
            activity.unsent().add(unshared);
        }
        Self { bytes, activity, is_timed, unshared }
    }

    fn note_sent(&self, bytes: usize) {
        if self.is_timed {
            self.activity.note_sent(bytes);
        }
    }
}

impl Buf for HeldChunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.note_sent(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.note_sent(len);
        self.bytes.copy_to_bytes(len)
    }
}

impl Drop for HeldChunk {
    fn drop(&mut self) {
        if self.unshared > 0 {
            self.activity.unsent().remove(self.unshared);
        }
        if self.is_timed {
            self.activity.release();
        } else {
            self.activity.set_short_held(false);
        }
    }
}
