//! Log of refused requests. Without it operators would not see them, and clients show the status at
//! best.

use std::error::Error;
use std::fmt::{self, Display};
use std::iter;
use std::net::IpAddr;

use axum::response::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, StatusCode};

use super::source;
use crate::server::audit::{self, Caller, Lasting, Ongoing, Quoted, Repeats};
use crate::server::limits::Exceeded;
use crate::untrusted::Excerpt;

/// Logs refused requests, at most once a minute for each host, resource and cause. Logs refused
/// lists at most once a minute in total.
#[derive(Debug, Default)]
pub(in crate::server) struct Refusals {
    writes: Repeats,
    misdirected: Repeats,
    throttled: Repeats,
    closed: Ongoing,
}

impl Refusals {
    /// Logs the refusal of a write and returns the response.
    pub(super) fn response(&self, request: &Parts, response: Response, reason: &dyn Display) -> Response {
        let status = response.status().as_u16();
        let (host, method, path) = (host(request), Quoted(request.method.as_str()), Quoted(request.uri.path()));
        let fault = format_args!("{method} {path} of {host} refused with {status}: {}", Excerpt(reason));
        let Some(suppressed) = self.writes.pass(fault) else { return response };
        let (origin, reason) = (caller(request), reason.to_string());
        let error = Quoted(&reason);
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            let header =
                |name: HeaderName| request.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
            let [media_type, encoding] = [CONTENT_TYPE, CONTENT_ENCODING].map(|name| header(name).unwrap_or_default());
            let (media_type, encoding) = (Quoted(&media_type), Quoted(&encoding));
            tracing::warn!(%method, %path, %origin, status, %error, %media_type, %encoding, suppressed, "request refused");
        } else {
            tracing::warn!(%method, %path, %origin, status, %error, suppressed, "request refused");
        }
        response
    }

    /// Logs a request that exceeds a rate limit.
    pub(super) fn throttled(&self, exceeded: Exceeded, network: Option<IpAddr>) {
        match (exceeded, network) {
            (Exceeded::Address, Some(network)) => {
                if let Some(suppressed) = self.throttled.pass(format_args!("too many requests of {network}")) {
                    tracing::warn!(address = %network, suppressed, "too many requests from an address, refused with 429 (eureka.server.limits.requests-per-address)");
                }
            }
            _ => {
                if let Some(suppressed) = self.throttled.pass("too many fetches") {
                    tracing::warn!(suppressed, "too many fetches, refused with 503 (eureka.server.rate-limiter-*)");
                }
            }
        }
    }

    /// Logs the number of items of a batch that were dropped, with the reason of one of them.
    pub(super) fn items(&self, request: &Parts, invalid: usize, reason: &str) {
        let host = host(request);
        if let Some(suppressed) = self.writes.pass(format_args!("items in batches of {host} dropped")) {
            let (origin, error) = (caller(request), Quoted(reason));
            tracing::warn!(%origin, invalid, %error, suppressed, "items of a replication batch dropped");
        }
    }

    /// Logs a list that was refused because this node is not open for traffic yet.
    pub(super) fn closed(&self) {
        if let Some(Lasting { count, elapsed }) = self.closed.occurred() {
            tracing::info!(count, ?elapsed, "lists refused with 403: this node is not open for traffic yet");
        }
    }

    /// Logs the end of refused lists, if there were any.
    pub(super) fn opened(&self) {
        if let Some(Lasting { count, elapsed }) = self.closed.ended() {
            tracing::info!(count, ?elapsed, "lists no longer refused with 403");
        }
    }

    /// Logs the faults that have ended. To be called periodically.
    pub(in crate::server) fn flush(&self) {
        self.writes.flush();
        self.misdirected.flush();
        self.throttled.flush();
    }

    pub(super) fn misdirected(&self, request: &Parts, status: StatusCode, hint: &str) {
        let status = status.as_u16();
        let (origin, method, path) = (caller(request), Quoted(request.method.as_str()), Quoted(request.uri.path()));
        // Scanners and browsers request any path. The warning is for clients of a registry whose
        // URL is wrong.
        let concerns_eureka = ["apps", "peerreplication", "vips", "svips", "instances"];
        let mut segments = request.uri.path().split('/');
        if !segments.any(|segment| concerns_eureka.contains(&segment)) {
            tracing::debug!(%method, %path, %origin, status, "request refused: no such resource");
        } else if let Some(suppressed) =
            self.misdirected.pass(format_args!("{method} {path} of {} refused with {status}", host(request)))
        {
            tracing::warn!(%method, %path, %origin, status, suppressed, "request refused: {hint}");
        }
    }
}

/// Formats an error and its sources.
pub(super) struct Chain<'a>(pub(super) &'a (dyn Error + 'static));

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut causes = iter::successors(self.0.source(), |&error| error.source());
        causes.try_for_each(|error| write!(f, ": {error}"))
    }
}

pub(super) fn caller(request: &Parts) -> Caller {
    Caller::of(source::origin(&request.headers), &request.extensions)
}

/// Returns the sender's host without the port, so that faults of one host count as one.
pub(super) fn host(request: &Parts) -> String {
    let address = audit::address(&request.extensions);
    address.map_or_else(|| "an unknown host".into(), |address| audit::canonical(address).ip().to_string())
}
