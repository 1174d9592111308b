//! Responses, and the content negotiation that selects their format.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::if_none_match;
use crate::model::{Digest, Instance};
use crate::server::http::state::ServerState;
use crate::server::response_cache::List;
use crate::server::view::{self, BudgetExhausted, Encoding, Form, Variant};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
#[cfg(feature = "xml")]
const XML: HeaderValue = HeaderValue::from_static("application/xml");
/// Request headers that select a representation of a list.
const VARY_VALUE: HeaderValue = HeaderValue::from_static("accept, accept-encoding, x-eureka-accept");

/// Format of a response, selected by `Accept`: JSON if the header contains `json`, else XML, as on
/// a Java server. The response to other values is 406.
///
/// Without the feature `xml` JSON is the only format, and the default without an `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    #[cfg(feature = "xml")]
    Xml,
}

/// Variant of a list that a request asks for, and the `If-None-Match` headers of the request.
#[derive(Debug)]
pub(super) struct ListRequest {
    variant: Variant,
    if_none_match: Vec<HeaderValue>,
}

/// Rejection with 406: the request accepts no available format.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotAcceptable;

/// Extractor that rejects with 406 unless the request accepts JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcceptsJson;

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = NotAcceptable;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotAcceptable> {
        Self::of(&parts.headers).ok_or(NotAcceptable)
    }
}

impl<S: Sync> FromRequestParts<S> for ListRequest {
    type Rejection = NotAcceptable;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotAcceptable> {
        Self::of(&parts.headers).ok_or(NotAcceptable)
    }
}

impl<S: Sync> FromRequestParts<S> for AcceptsJson {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let is_json = |value: &str| value.contains("json") || is_any(value);
        if accept_values(&parts.headers).any(is_json) || accept_values(&parts.headers).next().is_none() {
            Ok(Self)
        } else {
            Err((StatusCode::NOT_ACCEPTABLE, "the response to a batch is application/json only").into_response())
        }
    }
}

impl Format {
    /// Returns the format that these headers select, or `None` if it is not available.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        // Nearly all clients send this value, which needs no search.
        let is_plain = headers.get(ACCEPT).is_some_and(|value| *value == JSON);
        if is_plain || accept_values(headers).any(|value| value.contains("json")) {
            return Some(Self::Json);
        }
        let accepts_any = accept_values(headers).next().is_none() || accept_values(headers).any(is_any);
        #[cfg(feature = "xml")]
        {
            let is_xml = |value: &str| value.contains("application/xml") || value.contains("text/xml");
            (accepts_any || accept_values(headers).any(is_xml)).then_some(Self::Xml)
        }
        #[cfg(not(feature = "xml"))]
        accepts_any.then_some(Self::Json)
    }

    pub(super) fn content_type(self) -> HeaderValue {
        match self {
            Self::Json => JSON,
            #[cfg(feature = "xml")]
            Self::Xml => XML,
        }
    }

    /// Returns a 200 with the document of one instance.
    pub(super) fn instance(self, instance: &Instance) -> Response {
        let document = match self {
            Self::Json => instance.to_json(),
            #[cfg(feature = "xml")]
            Self::Xml => instance.to_xml(),
        };
        self.text(document.into())
    }

    /// Returns a 200 with a text in this format.
    pub(super) fn text(self, text: Bytes) -> Response {
        let mut response = Response::new(Body::from(text));
        response.headers_mut().insert(CONTENT_TYPE, self.content_type());
        response
    }
}

impl ListRequest {
    /// Returns the variant that these headers select, or `None` if it is not available.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let format = Format::of(headers)?;
        let compact =
            headers.get("x-eureka-accept").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"compact"));
        let form = match (format, compact) {
            (Format::Json, false) => Form::Json,
            (Format::Json, true) => Form::CompactJson,
            #[cfg(feature = "xml")]
            (Format::Xml, false) => Form::Xml,
            #[cfg(feature = "xml")]
            (Format::Xml, true) => Form::CompactXml,
        };
        let encoding = if accepts_gzip(headers) { Encoding::Gzip } else { Encoding::Identity };
        let if_none_match = headers.get_all(IF_NONE_MATCH).into_iter().cloned().collect();
        Some(Self { variant: Variant { form, encoding }, if_none_match })
    }

    pub(super) fn variant(&self) -> Variant {
        self.variant
    }

    /// Returns a 200 with the list, 304 if the client has its current state, 404 if there is no
    /// such list, or 503 while slow clients hold too many lists.
    pub(super) async fn respond(&self, server: &ServerState, list: &List<'_>) -> Response {
        match server.responses().get(server.registry(), list, self.variant).await {
            Ok(Some(body)) => self.respond_with(&body),
            Ok(None) => StatusCode::NOT_FOUND.into_response(),
            Err(BudgetExhausted) => server.unsent().refusal(),
        }
    }

    /// Returns a 200 with this body, or 304.
    pub(super) fn respond_with(&self, body: &view::Body) -> Response {
        let view::Body { etag: tag, digest, .. } = body;
        if if_none_match::matches(&self.if_none_match, tag) {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            response.headers_mut().insert(VARY, VARY_VALUE);
            response.headers_mut().insert(ETAG, tag.clone());
            return response;
        }
        let mut response = Response::new(Body::from(body.bytes().clone()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type());
        headers.insert(VARY, VARY_VALUE);
        headers.insert(ETAG, tag.clone());
        if let Some(digest) = digest {
            headers.insert(Digest::HEADER, digest.clone());
        }
        if self.variant.encoding == Encoding::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    fn content_type(&self) -> HeaderValue {
        match self.variant.form {
            Form::Json | Form::CompactJson => JSON,
            #[cfg(feature = "xml")]
            Form::Xml | Form::CompactXml => XML,
        }
    }
}

/// Returns a 200 with JSON.
pub(super) fn json(body: Bytes) -> Response {
    Format::Json.text(body)
}

/// Returns a 200 or 404 without a body. Java clients parse any body in the response to a heartbeat,
/// and fail.
pub(super) fn found(found: bool) -> Response {
    if found { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response()
}

impl IntoResponse for NotAcceptable {
    fn into_response(self) -> Response {
        let text = if cfg!(feature = "xml") {
            "the response is application/json or application/xml"
        } else {
            "the response is application/json only; XML was not compiled in"
        };
        (StatusCode::NOT_ACCEPTABLE, text).into_response()
    }
}

fn accept_values(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    values(headers, ACCEPT).filter(|value| !value.trim().is_empty())
}

fn is_any(value: &str) -> bool {
    value.contains("*/*") || value.contains("application/*")
}

pub(in crate::server) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let is_plain = headers.get(ACCEPT_ENCODING).is_some_and(|value| value == "gzip");
    is_plain
        || values(headers, ACCEPT_ENCODING).flat_map(|value| value.split(',')).any(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let refused = parameters.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
            name.trim().eq_ignore_ascii_case("gzip") && !refused
        })
}

fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn format_is_json_if_accept_contains_json() {
        let (json, none) = (Some(Format::Json), None);
        #[cfg(feature = "xml")]
        let (xml, other) = (Some(Format::Xml), Some(Format::Xml));
        #[cfg(not(feature = "xml"))]
        let (xml, other) = (None, Some(Format::Json));
        assert_eq!(Format::of(&HeaderMap::new()), other);
        for (accept, expected) in [
            ("application/json", json),
            ("  application/json", json),
            ("application/vnd.x+json", json),
            ("application/xml, application/json;q=0.1", json),
            ("*/*", other),
            ("text/html, */*;q=0.1", other),
            ("application/*", other),
            ("", other),
            ("application/xml", xml),
            ("text/xml;q=0.5", xml),
            ("text/html", none),
            ("text/html,application/xhtml+xml", none),
        ] {
            assert_eq!(Format::of(&headers(ACCEPT, accept)), expected, "{accept}");
        }
    }

    #[test]
    fn gzip_is_used_if_it_is_accepted() {
        assert!(!accepts_gzip(&HeaderMap::new()));
        for (accept, expected) in [
            ("gzip", true),
            ("gzip, x-gzip, deflate", true),
            ("deflate,GZIP;q=0.5", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
        ] {
            assert_eq!(accepts_gzip(&headers(ACCEPT_ENCODING, accept)), expected, "{accept}");
        }
    }
}
