use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::BoxError;

pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Header with the digest of a list.
const DIGEST: HeaderName = HeaderName::from_static("eureka-digest");
const HASH: &str = "\"apps__hashcode\":\"";
/// Page of a captive portal or of a proxy.
const PAGE: &str = "<html><body>Please log in</body></html>";

/// Fault of a [`TestRegistry`](super::TestRegistry). Set by
/// [`TestRegistry::fault`](super::TestRegistry::fault).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The registry works.
    #[default]
    None,
    /// Refuses connections.
    Down,
    /// Never responds.
    Hang,
    /// Responds with this HTTP status, without a body.
    Status(u16),
    /// Has no instances in responses to fetches, as after a restart. Other requests succeed.
    Empty,
    /// Responds with a page of HTML and the status 200, as a captive portal does.
    Garbage,
    /// Cuts bodies off after their first half.
    Half,
    /// Sends lists whose apps hash is wrong, without a digest.
    WrongHash,
    /// Responds after this time.
    Delay(Duration),
}

/// Error of a connection to a port at which nothing listens.
pub(super) fn refused() -> BoxError {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}

/// Returns a response without a body.
pub(super) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Returns a page that is no response of a registry.
pub(super) fn page() -> Response<Body> {
    let mut response = Response::new(whole(PAGE.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
    response
}

/// Cuts the body of a response off.
pub(super) fn half(response: Response<Bytes>) -> Response<Body> {
    response.map(|body| {
        if body.is_empty() {
            return whole(body);
        }
        let frames = [
            Ok(Frame::data(body.slice(..body.len() / 2))),
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed within the body").into()),
        ];
        StreamBody::new(tokio_stream::iter(frames)).boxed_unsync()
    })
}

/// Changes the apps hash of a list. Other responses are unchanged.
pub(super) fn wrong_hash(mut response: Response<Bytes>) -> Response<Body> {
    response.headers_mut().remove(DIGEST);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|body| {
        let changed = std::str::from_utf8(&body).ok().and_then(|text| {
            let (before, rest) = text.split_once(HASH)?;
            let (_, after) = rest.split_once('"')?;
            Some(format!("{before}{HASH}UP_123456_\"{after}").into())
        });
        whole(changed.unwrap_or(body))
    })
}

fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}
