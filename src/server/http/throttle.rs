//! Rate limits of requests, if there are any.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use crate::server::audit;
use crate::server::http::state::ServerState;
use crate::server::limits::Exceeded;

/// `Retry-After` in seconds. Each bucket gets at least one token in a second.
const RETRY_SECS: HeaderValue = HeaderValue::from_static("1");

/// Returns the response to a request that exceeds a rate limit. Without rate limits it is one
/// check.
pub(super) fn refuse(server: &ServerState, request: &Request<Body>) -> Option<Response> {
    let limits = server.rate_limits()?;
    let network = audit::address(request.extensions()).map(|address| audit::network(address.ip()));
    let exceeded = limits.check(request.method(), request.uri().path(), request.headers(), network, server.now())?;
    server.refusals().throttled(exceeded, network);
    let (status, text) = match exceeded {
        Exceeded::Address => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests from this address (eureka.server.limits.requests-per-address)",
        ),
        Exceeded::Fetches => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many fetches (eureka.server.rate-limiter-registry-fetch-average-rate, \
             eureka.server.rate-limiter-full-fetch-average-rate)",
        ),
    };
    Some((status, [(RETRY_AFTER, RETRY_SECS)], text).into_response())
}

/// Middleware of a router with rate limits.
pub(super) async fn limit(State(server): State<ServerState>, request: Request, next: Next) -> Response {
    match refuse(&server, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}
