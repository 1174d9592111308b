use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, header};

use super::server_clock::ResponseDate;
use crate::model::{DecodeError, DecodedList};
use crate::retry_after::retry_after;
use crate::time::Moment;

/// Complete response with a decompressed body.
#[derive(Debug)]
pub(super) struct ServerResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, or the first bytes of a list.
    pub(super) body: Bytes,
    /// Result of decoding the list that the operation requested.
    pub(super) list: Option<Result<DecodedList, DecodeError>>,
    /// Bytes of the body as received, before decompression.
    pub(super) received: u64,
    /// Time at which the request was sent.
    pub(super) requested: Moment,
    /// Date by the server's clock. `None` if it is no measurement of that clock.
    pub(super) date: Option<ResponseDate>,
    pub(super) responder: Responder,
}

/// Server that responded behind a service URL, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Responder {
    /// Host and port after all redirects.
    pub(super) authority: Option<Authority>,
    /// Address of the connection. Only hyper provides it.
    pub(super) address: Option<SocketAddr>,
}

impl ServerResponse {
    /// Returns `true` if the body is HTML or XML.
    pub(super) fn is_markup(&self) -> bool {
        self.content_type().starts_with("text/html") || self.body.trim_ascii_start().starts_with(b"<")
    }

    pub(super) fn content_type(&self) -> &str {
        self.header(header::CONTENT_TYPE).unwrap_or_default()
    }

    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the pause that `Retry-After` asks for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }
}
