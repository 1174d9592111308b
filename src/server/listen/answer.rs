//! Long answers, each of which says for how long it is held.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::activity::{Activity, PROGRESS};

/// Follows what becomes of an answer, if it is long.
pub(super) fn followed(response: Response, activity: &Arc<Activity>) -> Response {
    if response.body().size_hint().lower() <= PROGRESS {
        return response;
    }
    response.map(|inner| Body::new(Followed { inner, activity: activity.clone() }))
}

struct Followed {
    inner: Body,
    activity: Arc<Activity>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        frame.map_ok(|frame| frame.map_data(|bytes| Bytes::from_owner(Held::new(bytes, &self.activity))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Bytes that the connection has not written yet: it drops them when it has.
struct Held {
    bytes: Bytes,
    activity: Arc<Activity>,
}

impl Held {
    fn new(bytes: Bytes, activity: &Arc<Activity>) -> Self {
        activity.holds();
        Self { bytes, activity: activity.clone() }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.activity.drops();
    }
}
