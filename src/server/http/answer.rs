use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::server::bodies::Encoding;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What the asker takes, read from `Accept` and `Accept-Encoding`; refuses with 406 who doesn't take JSON.
///
/// Java servers answer XML to `*/*` and to no `Accept`. This one has JSON only so far, and says 406 to those who take nothing but XML.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted(pub(super) Encoding);

impl<S: Sync> FromRequestParts<S> for Accepted {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        if !takes_json(&parts.headers) {
            let text = "this registry answers application/json only; XML is not supported yet";
            return Err((StatusCode::NOT_ACCEPTABLE, text).into_response());
        }
        Ok(Self(if takes_gzip(&parts.headers) { Encoding::Gzip } else { Encoding::Identity }))
    }
}

fn takes_json(headers: &HeaderMap) -> bool {
    let mut accepts = values(headers, ACCEPT).filter(|value| !value.trim().is_empty()).peekable();
    accepts.peek().is_none()
        // Java looks for the bare word.
        || accepts.any(|value| value.contains("json") || value.contains("*/*") || value.contains("application/*"))
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    values(headers, ACCEPT_ENCODING).flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = parameters.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

/// 200 with a body that was made in this encoding.
pub(super) fn json(body: Bytes, encoding: Encoding) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if encoding == Encoding::Gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// 200 or 404 without a body. Java clients try to read whatever body a heartbeat brings, and fail on it.
pub(super) fn found(found: bool) -> Response {
    if found { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn json_is_taken_unless_excluded() {
        assert!(takes_json(&HeaderMap::new()));
        for (accept, takes) in [
            ("application/json", true),
            ("  application/json", true),
            ("application/vnd.x+json", true),
            ("*/*", true),
            ("text/html, */*;q=0.1", true),
            ("application/*", true),
            ("", true),
            ("application/xml", false),
            ("text/html", false),
            ("text/html,application/xhtml+xml", false),
        ] {
            assert_eq!(takes_json(&headers(ACCEPT, accept)), takes, "{accept}");
        }
    }

    #[test]
    fn gzip_is_used_where_it_is_taken() {
        assert!(!takes_gzip(&HeaderMap::new()));
        for (accept, takes) in [
            ("gzip", true),
            ("gzip, x-gzip, deflate", true),
            ("deflate,GZIP;q=0.5", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
        ] {
            assert_eq!(takes_gzip(&headers(ACCEPT_ENCODING, accept)), takes, "{accept}");
        }
    }
}
