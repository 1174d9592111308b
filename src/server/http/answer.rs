//! What answers look like, and which one the asker takes.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::etag;
use crate::model::{Digest, Instance};
use crate::server::EurekaServer;
use crate::server::response_cache::List;
use crate::server::view::{self, BudgetExhausted, Encoding, Form, Variant};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
#[cfg(feature = "xml")]
const XML: HeaderValue = HeaderValue::from_static("application/xml");
/// What a list depends on beside its address.
const VARIES: HeaderValue = HeaderValue::from_static("accept, accept-encoding, x-eureka-accept");

/// What the asker takes, read from `Accept`: JSON if it holds the bare word `json`, else XML, as Java has it; 406 if neither.
///
/// Without the feature `xml` there is JSON only, also for those who don't say what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    #[cfg(feature = "xml")]
    Xml,
}

/// How the asker wants a list, and which state of it is known there.
#[derive(Debug)]
pub(super) struct Listing {
    variant: Variant,
    known: Vec<HeaderValue>,
}

/// 406: none of the formats that there are is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotAcceptable;

/// Refuses with 406 who doesn't take JSON, in which batches are answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted;

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = NotAcceptable;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotAcceptable> {
        Self::of(&parts.headers).ok_or(NotAcceptable)
    }
}

impl<S: Sync> FromRequestParts<S> for Listing {
    type Rejection = NotAcceptable;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotAcceptable> {
        Self::of(&parts.headers).ok_or(NotAcceptable)
    }
}

impl<S: Sync> FromRequestParts<S> for Accepted {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let takes = |value: &str| value.contains("json") || takes_anything(value);
        if accepts(&parts.headers).any(takes) || accepts(&parts.headers).next().is_none() {
            Ok(Self)
        } else {
            Err((StatusCode::NOT_ACCEPTABLE, "batches are answered in application/json only").into_response())
        }
    }
}

impl Format {
    /// What these headers ask for, if it can be had.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        // What nearly all send is told without a search.
        let plain = headers.get(ACCEPT).is_some_and(|value| *value == JSON);
        if plain || accepts(headers).any(|value| value.contains("json")) {
            return Some(Self::Json);
        }
        let anything = accepts(headers).next().is_none() || accepts(headers).any(takes_anything);
        #[cfg(feature = "xml")]
        {
            let takes_xml = |value: &str| value.contains("application/xml") || value.contains("text/xml");
            (anything || accepts(headers).any(takes_xml)).then_some(Self::Xml)
        }
        #[cfg(not(feature = "xml"))]
        anything.then_some(Self::Json)
    }

    pub(super) fn content_type(self) -> HeaderValue {
        match self {
            Self::Json => JSON,
            #[cfg(feature = "xml")]
            Self::Xml => XML,
        }
    }

    /// 200 with the document of one instance.
    pub(super) fn instance(self, instance: &Instance) -> Response {
        let document = match self {
            Self::Json => instance.to_json(),
            #[cfg(feature = "xml")]
            Self::Xml => instance.to_xml(),
        };
        self.text(document.into())
    }

    /// 200 with a text in this format.
    pub(super) fn text(self, text: Bytes) -> Response {
        let mut response = Response::new(Body::from(text));
        response.headers_mut().insert(CONTENT_TYPE, self.content_type());
        response
    }
}

impl Listing {
    /// How these headers ask for a list, if it can be had so.
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
        let encoding = if takes_gzip(headers) { Encoding::Gzip } else { Encoding::Identity };
        let known = headers.get_all(IF_NONE_MATCH).into_iter().cloned().collect();
        Some(Self { variant: Variant { form, encoding }, known })
    }

    pub(super) fn variant(&self) -> Variant {
        self.variant
    }

    /// Returns 200 with the list, 304 without one where this state of it is known already, 404, or
    /// 503 while slow clients hold too many lists.
    pub(super) async fn answer(&self, server: &EurekaServer, list: &List<'_>) -> Response {
        match server.responses().get(server.registry(), list, self.variant).await {
            Ok(Some(body)) => self.with(&body),
            Ok(None) => StatusCode::NOT_FOUND.into_response(),
            Err(BudgetExhausted) => server.unsent().refusal(),
        }
    }

    /// The same with a body that is there.
    pub(super) fn with(&self, body: &view::Body) -> Response {
        let view::Body { etag: tag, digest, .. } = body;
        if etag::matches(&self.known, tag) {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            response.headers_mut().insert(VARY, VARIES);
            response.headers_mut().insert(ETAG, tag.clone());
            return response;
        }
        let mut response = Response::new(Body::from(body.bytes().clone()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type());
        headers.insert(VARY, VARIES);
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

/// 200 with JSON.
pub(super) fn json(body: Bytes) -> Response {
    Format::Json.text(body)
}

/// 200 or 404 without a body. Java clients try to read whatever body a heartbeat brings, and fail on it.
pub(super) fn found(found: bool) -> Response {
    if found { StatusCode::OK } else { StatusCode::NOT_FOUND }.into_response()
}

impl IntoResponse for NotAcceptable {
    fn into_response(self) -> Response {
        let text = if cfg!(feature = "xml") {
            "this registry answers application/json and application/xml"
        } else {
            "this registry answers application/json only; XML was not compiled in"
        };
        (StatusCode::NOT_ACCEPTABLE, text).into_response()
    }
}

fn accepts(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    values(headers, ACCEPT).filter(|value| !value.trim().is_empty())
}

fn takes_anything(value: &str) -> bool {
    value.contains("*/*") || value.contains("application/*")
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let plain = headers.get(ACCEPT_ENCODING).is_some_and(|value| value == "gzip");
    plain
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
    fn json_is_for_those_who_name_it() {
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
