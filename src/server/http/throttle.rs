//! Rate limits of requests, if there are any.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use super::guard;
use crate::server::audit;
use crate::server::http::state::ServerState;
use crate::server::limits::Exceeded;

/// `Retry-After` in seconds. Each bucket gets at least one token in a second.
const RETRY_SECS: HeaderValue = HeaderValue::from_static("1");

/// Returns the response to a request of a sender that exceeds the rate of its address. Public paths
/// are exempt, since orchestrators restart a server that refuses them.
pub(super) fn refuse_sender(server: &ServerState, request: &Request<Body>) -> Option<Response> {
    let limits = server.rate_limits()?;
    let network = audit::address(request.extensions()).map(|address| audit::network(address.ip()));
    if guard::is_public(request.uri().path()) || limits.admits_sender(network, server.now()) {
        return None;
    }
    let text = "too many requests from this address (eureka.server.limits.requests-per-address)";
    Some(refusal(server, Exceeded::Address, network, StatusCode::TOO_MANY_REQUESTS, text))
}

/// Returns the response to a fetch that exceeds a rate of the whole server. The caller may fetch.
pub(super) fn refuse_fetch(server: &ServerState, request: &Request<Body>) -> Option<Response> {
    let limits = server.rate_limits()?;
    if limits.admits_fetch(request.method(), request.uri().path(), request.headers(), server.now()) {
        return None;
    }
    let text = "too many fetches (eureka.server.rate-limiter-registry-fetch-average-rate, \
                eureka.server.rate-limiter-full-fetch-average-rate)";
    Some(refusal(server, Exceeded::Fetches, None, StatusCode::SERVICE_UNAVAILABLE, text))
}

fn refusal(
    server: &ServerState,
    exceeded: Exceeded,
    network: Option<IpAddr>,
    status: StatusCode,
    text: &'static str,
) -> Response {
    server.refusals().throttled(exceeded, network);
    (status, [(RETRY_AFTER, RETRY_SECS)], text).into_response()
}

/// Middleware of a router with a limit on each address.
pub(super) async fn limit_senders(State(server): State<ServerState>, request: Request, next: Next) -> Response {
    match refuse_sender(&server, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}
