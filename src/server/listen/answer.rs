//! Answers, the long ones of which say for how long they are held and what of them was taken.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};

use super::activity::{Activity, PROGRESS};

/// Follows what becomes of an answer, if it is long.
pub(super) fn followed(response: Response, activity: &Arc<Activity>) -> Response<Followed> {
    let is_long = response.body().size_hint().lower() > PROGRESS;
    response.map(|inner| Followed { inner, activity: is_long.then(|| activity.clone()) })
}

/// A body, with whom to tell if it is long.
pub(super) struct Followed {
    inner: Body,
    activity: Option<Arc<Activity>>,
}

impl http_body::Body for Followed {
    type Data = Held;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Held>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(|bytes| Held::new(bytes, self.activity.clone())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Bytes that the connection has not written yet: it advances over those that it has, and drops them at the end.
pub(super) struct Held {
    bytes: Bytes,
    activity: Option<Arc<Activity>>,
}

impl Held {
    fn new(bytes: Bytes, activity: Option<Arc<Activity>>) -> Self {
        if let Some(activity) = &activity {
            activity.holds();
        }
        Self { bytes, activity }
    }

    fn took(&self, bytes: usize) {
        if let Some(activity) = &self.activity {
            activity.took(bytes);
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
        if let Some(activity) = &self.activity {
            activity.drops();
        }
    }
}
