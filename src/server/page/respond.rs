//! Responses of the page: headers, errors, compression, files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::LazyLock;

use askama::Template;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::server::http::{accepts_gzip, etag_matches};

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Headers of every response of the page. The browser loads and runs nothing but the files of the
/// page.
const SECURITY: [(HeaderName, &str); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // With `no-referrer`, browsers would send the forms with the origin `null`.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// A page with a title and one message.
#[derive(Debug, Template)]
#[template(path = "message.html")]
struct Message<'a> {
    root: &'a str,
    title: &'a str,
    text: &'a str,
}

/// Document in both encodings.
#[derive(Clone, Debug)]
pub(super) struct Document {
    plain: Bytes,
    gzip: Bytes,
}

impl Document {
    /// Compresses a document.
    pub(super) fn new(html: String) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(html.len() / 8), Compression::fast());
        encoder.write_all(html.as_bytes()).expect("write to Vec is infallible");
        let gzip = encoder.finish().expect("write to Vec is infallible");
        Self { plain: html.into(), gzip: gzip.into() }
    }

    pub(super) fn respond(&self, headers: &HeaderMap) -> Response {
        let is_gzip = accepts_gzip(headers);
        let body = if is_gzip { &self.gzip } else { &self.plain };
        let mut response = page(StatusCode::OK, body.clone());
        if is_gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
        response
    }
}

/// Returns a page that is not stored.
pub(super) fn page(status: StatusCode, html: impl Into<Bytes>) -> Response {
    let mut response = secured(Response::new(Body::from(html.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HTML);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// Returns a page with one message, for a request that cannot be served.
pub(super) fn message(status: StatusCode, root: &str, title: &str, text: &str) -> Response {
    rendered(status, &Message { root, title, text })
}

/// Returns the 503 for a request beyond what the page serves at the same time.
pub(super) fn busy(root: &str) -> Response {
    let text = "Too many requests for the page at the same time. The registry itself is not affected. Try again soon.";
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, root, "The page is busy", text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// Returns the 503 for a stream of a server that is stopping.
pub(super) fn stopping(root: &str) -> Response {
    let text = "This server is stopping.";
    let mut response = message(StatusCode::SERVICE_UNAVAILABLE, root, "The server is stopping", text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
    response
}

/// Returns a rendered template.
pub(super) fn rendered(status: StatusCode, template: &impl Template) -> Response {
    page(status, render(template))
}

/// Renders a template.
pub(super) fn render(template: &impl Template) -> String {
    template.render().expect("write to String is infallible")
}

/// Returns a redirect after an action, or to another path of the page.
pub(super) fn redirect(location: &str) -> Response {
    let mut response = secured(StatusCode::SEE_OTHER.into_response());
    let location = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("./"));
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Adds the headers that every response of the page has.
pub(super) fn secured(mut response: Response) -> Response {
    for (name, value) in SECURITY {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// File of the page.
struct File {
    text: &'static str,
    content_type: HeaderValue,
    etag: HeaderValue,
}

static STYLE: LazyLock<File> = LazyLock::new(|| File::new(include_str!("assets/style.css"), "text/css; charset=utf-8"));
static SCRIPT: LazyLock<File> =
    LazyLock::new(|| File::new(include_str!("assets/script.js"), "text/javascript; charset=utf-8"));

pub(super) async fn style(headers: HeaderMap) -> Response {
    STYLE.respond(&headers)
}

pub(super) async fn script(headers: HeaderMap) -> Response {
    SCRIPT.respond(&headers)
}

impl File {
    fn new(text: &'static str, content_type: &'static str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        Self {
            text,
            content_type: HeaderValue::from_static(content_type),
            etag: HeaderValue::from_str(&etag).expect("a tag is hexadecimal"),
        }
    }

    /// Responds with the file, or with 304 if the browser has it. It is checked for each page, so
    /// that a new version of the server takes effect at once.
    fn respond(&self, headers: &HeaderMap) -> Response {
        let is_known = etag_matches(headers.get_all(IF_NONE_MATCH), &self.etag);
        let mut response = secured(if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Response::new(Body::from(Bytes::from_static(self.text.as_bytes())))
        });
        response.headers_mut().insert(CONTENT_TYPE, self.content_type.clone());
        response.headers_mut().insert(ETAG, self.etag.clone());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}
