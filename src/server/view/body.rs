use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::Instant;

use crate::server::unsent::{Cached, Unsent};

/// Complete response body. It is built once and shared by all responses at its revision.
#[derive(Debug)]
pub(in crate::server) struct Body {
    /// Revision of the registry, the delta or the application that it shows.
    pub(in crate::server) revision: u64,
    /// Strong `ETag`: equal values mean equal bytes.
    pub(in crate::server) etag: HeaderValue,
    /// Digest of the instances that it shows, or of the whole registry in a delta. `None` if a
    /// client could not compute the same from the body.
    pub(in crate::server) digest: Option<HeaderValue>,
    pub(in crate::server) built: Instant,
    cached: Cached,
}

impl Body {
    pub(in crate::server) fn new(
        revision: u64,
        etag: HeaderValue,
        digest: Option<HeaderValue>,
        bytes: Bytes,
        unsent: &Arc<Unsent>,
    ) -> Self {
        Self { revision, etag, digest, built: Instant::now(), cached: unsent.cached(bytes) }
    }

    pub(in crate::server) fn bytes(&self) -> &Bytes {
        &self.cached.bytes
    }
}
