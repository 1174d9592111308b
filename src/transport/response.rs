use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, header};

use super::server_clock::ResponseDate;
use crate::model::{DecodeError, DecodedList};
use crate::time::{Moment, wall_clock_ms};

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

    /// Returns the pause that `Retry-After` asks for, in seconds or as a date. A date is compared
    /// with the server's own clock if the response has a `Date`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.header(header::RETRY_AFTER)?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let now = self.header(header::DATE).and_then(date_ms).unwrap_or_else(wall_clock_ms);
        Some(Duration::from_millis(date_ms(text)?.saturating_sub(now).try_into().unwrap_or(0)))
    }
}

/// Parses an HTTP date into milliseconds since the epoch.
pub(super) fn date_ms(text: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}
