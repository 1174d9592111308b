//! Operations of the protocol: their requests, and the classification of response statuses.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::body::ListBody;
use super::errors::Subject;
use super::server_order::Access;
use crate::config::ServiceUrl;

/// Request body of all operations. An HTTP service that replaces the client's own receives it.
pub type RequestBody = Full<Bytes>;

/// Characters that are encoded in a path segment. The colon is not, as in Java clients.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b';')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// Characters that are encoded in the value of a query parameter.
const QUERY: &AsciiSet = &SEGMENT.add(b'&').add(b'+').add(b'=').add(b'\'');

/// Header with the id of the registry server that sends a batch. A server that receives its own
/// batch responds with 508 and this header.
pub(super) const NODE_ID: HeaderName = HeaderName::from_static("discoveryidentity-id");

/// Classification of a response status for one operation.
pub(super) enum Verdict {
    /// The response completes the operation.
    Final,
    /// The request itself is rejected. Every server would reject it.
    Rejected,
    /// The server, or a proxy in front of it, failed. Another server may complete the operation.
    NextServer,
}

/// One operation: the parts of its request and the statuses that it accepts.
pub(super) struct Operation<'a> {
    pub(super) operation: &'static str,
    pub(super) app: Option<&'a str>,
    pub(super) instance: Option<&'a str>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    pub(super) accepts_404: bool,
    /// The statuses of a server that does not offer the resource complete the operation.
    pub(super) accepts_not_offered: bool,
    /// Every status completes the operation.
    pub(super) accepts_all: bool,
    /// Id of the registry server that sends a batch.
    pub(super) peer: Option<&'a str>,
    /// Value of `DiscoveryIdentity-Name`, by which Java distinguishes clients from servers.
    pub(super) identity: &'static str,
    /// `ETag` of the list that the caller has.
    pub(super) known: Option<HeaderValue>,
    /// Additional header.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    /// The list of applications, if the response has one.
    pub(super) list: Option<ListBody>,
}

impl<'a> Operation<'a> {
    pub(super) fn new(operation: &'static str, method: Method) -> Self {
        let (path, body) = (String::new(), Bytes::new());
        Self {
            operation,
            app: None,
            instance: None,
            method,
            path,
            body,
            accepts_404: false,
            accepts_not_offered: false,
            accepts_all: false,
            peer: None,
            identity: "DefaultClient",
            known: None,
            header: None,
            list: None,
        }
    }

    pub(super) fn instance(operation: &'static str, method: Method, app: &'a str, id: &'a str) -> Self {
        let path = format!("apps/{}/{}", segment(&crate::model::app_name(app)), segment(id));
        Self { app: Some(app), instance: Some(id), path, ..Self::new(operation, method) }
    }

    /// Requests a list of applications. The instances of the list that are known are not decoded
    /// again.
    pub(super) fn list(self, list: impl Into<ListBody>) -> Self {
        Self { list: Some(list.into()), ..self }
    }

    pub(super) fn path(self, path: String) -> Self {
        Self { path, ..self }
    }

    pub(super) fn suffix(mut self, suffix: &str) -> Self {
        self.path.push_str(suffix);
        self
    }

    pub(super) fn body(self, json: Vec<u8>) -> Self {
        Self { body: json.into(), ..self }
    }

    pub(super) fn accept_not_found(self) -> Self {
        Self { accepts_404: true, ..self }
    }

    /// Accepts the statuses of a server that does not offer the resource. Spring responds to a
    /// delta with 403 if deltas are disabled.
    pub(super) fn accept_not_offered(self) -> Self {
        Self { accepts_not_offered: true, ..self }
    }

    pub(super) fn subject(&self) -> Subject<'a> {
        Subject { operation: self.operation, app: self.app, instance: self.instance }
    }

    pub(super) fn access(&self) -> Access {
        if self.method == Method::GET { Access::Read } else { Access::Write }
    }

    pub(super) fn request(&self, server: &ServiceUrl) -> Result<Request<RequestBody>, http::Error> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(format!("{}{}", server.as_str(), self.path))
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "gzip")
            .header(header::USER_AGENT, concat!("tower-eureka/", env!("CARGO_PKG_VERSION")))
            // Java clients and servers send it. It exempts from the server's rate limit on fetches.
            .header("DiscoveryIdentity-Name", self.identity);
        if let Some(sender) = self.peer {
            request = request.header("DiscoveryIdentity-Version", "1.0").header(NODE_ID, sender);
        }
        if let Some(authorization) = server.authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(known) = &self.known {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        if let Some((name, value)) = &self.header {
            request = request.header(name, value);
        }
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(RequestBody::new(self.body.clone()))
    }

    /// Classifies a response status.
    ///
    /// A read that failed is sent to the next server. So is a write, unless the status is about the
    /// request: its syntax, size or type, or an instance that is not registered. All other statuses
    /// (401, 403, 405, 407, 410, 421, redirects, 404 for a registration) are about the server or a
    /// proxy in front of it.
    pub(super) fn classify(&self, status: StatusCode) -> Verdict {
        match status.as_u16() {
            200..=299 => Verdict::Final,
            _ if self.accepts_all => Verdict::Final,
            304 if self.known.is_some() => Verdict::Final,
            404 if self.accepts_404 => Verdict::Final,
            403 | 404 | 405 | 410 | 501 if self.accepts_not_offered => Verdict::Final,
            // The caller compares the id in the response with its own.
            508 if self.peer.is_some() => Verdict::Final,
            _ if self.method == Method::GET => Verdict::NextServer,
            400 | 409 | 412 | 413 | 414 | 415 | 422 | 428 => Verdict::Rejected,
            404 if self.method != Method::POST => Verdict::Rejected,
            _ => Verdict::NextServer,
        }
    }
}

/// Returns `true` for the statuses by which a server limits the requests of clients. Beside 429 and
/// 503, some proxies and hosts use statuses of their own.
pub(crate) fn is_overload(status: u16) -> bool {
    matches!(status, 420 | 429 | 503 | 509 | 529)
}

pub(super) fn segment(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, SEGMENT)
}

pub(super) fn query(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, QUERY)
}
