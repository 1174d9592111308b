//! Responses to requests that no operation handles.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};

use super::intake;
use super::state::ServerState;

/// Responds with 404 to a request outside of the registry.
pub(super) async fn not_here(server: ServerState, mount: Arc<str>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    intake::ignore(server.intake(), &parts, body).await;
    let hint = format!("the registry is below {mount}/, is this the path of the client's URL?");
    server.refusals().misdirected(&parts, StatusCode::NOT_FOUND, &hint);
    StatusCode::NOT_FOUND.into_response()
}

/// Responds with 405 to a method that a resource does not have.
pub(super) async fn not_allowed(State(server): State<ServerState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    intake::ignore(server.intake(), &parts, body).await;
    if parts.method != Method::GET && parts.method != Method::OPTIONS {
        server.refusals().misdirected(&parts, StatusCode::METHOD_NOT_ALLOWED, "the resource does not have this method");
    }
    StatusCode::METHOD_NOT_ALLOWED.into_response()
}
