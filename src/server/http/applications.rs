//! Lists: the registry, its delta, an application, a VIP address (docs/protocol.md, "Queries").

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::VARY;
use http::{HeaderMap, StatusCode};

use super::date::dated;
use super::path::{App, Vip};
use super::response::{ListRequest, NotAcceptable};
use super::scope::{self, Scope};
use crate::server::http::state::ServerState;
use crate::server::response_cache::List;
use crate::server::view::By;

/// Variant that a request asks for. A rejection is returned only if the list is served at all,
/// since a 403 comes first.
type Requested = Result<ListRequest, NotAcceptable>;

pub(super) async fn all(State(server): State<ServerState>, scope: Scope, requested: Requested) -> Response {
    list(&server, List::All, scope, requested).await
}

pub(super) async fn delta(State(server): State<ServerState>, scope: Scope, requested: Requested) -> Response {
    list(&server, List::Delta, scope, requested).await
}

pub(super) async fn one(
    State(server): State<ServerState>,
    scope: Scope,
    requested: Requested,
    App(app): App,
) -> Response {
    list(&server, List::Application((&*app).into()), scope, requested).await
}

pub(super) async fn by_vip(
    State(server): State<ServerState>,
    scope: Scope,
    requested: Requested,
    Vip(vip): Vip,
) -> Response {
    list(&server, List::Selection(By::Vip, (&*vip).into()), scope, requested).await
}

pub(super) async fn by_secure_vip(
    State(server): State<ServerState>,
    scope: Scope,
    requested: Requested,
    Vip(vip): Vip,
) -> Response {
    list(&server, List::Selection(By::SecureVip, (&*vip).into()), scope, requested).await
}

pub(super) async fn list(server: &ServerState, list: List<'_>, scope: Scope, requested: Requested) -> Response {
    let Some(list) = is_served(server, &list).then(|| scope.list(list)).flatten() else {
        if !server.is_open() {
            server.refusals().closed();
        }
        return StatusCode::FORBIDDEN.into_response();
    };
    server.refusals().opened();
    let mut response = match requested {
        Ok(request) => dated(server, request.respond(server, &list).await),
        Err(refusal) => return refusal.into_response(),
    };
    if let Some(vary) = scope::vary(server) {
        response.headers_mut().insert(VARY, vary);
    }
    response
}

/// Returns the response without waiting, if the list is cached in the requested variant.
pub(super) fn ready_response(server: &ServerState, list: &List<'_>, headers: &HeaderMap) -> Option<Response> {
    let request = ListRequest::of(headers).filter(|_| is_served(server, list))?;
    let body = server.responses().cached(server.registry(), list, request.variant())?;
    Some(dated(server, request.respond_with(&body)))
}

/// Returns true if the list is served. The response is a 403 until the node is open for traffic,
/// and to deltas if they are disabled: Java clients then try the next server, or fetch the full
/// registry (docs/server.md, "Opening for traffic").
///
/// It applies neither to writes nor to queries of one instance: a node collects registrations and
/// heartbeats before it opens.
fn is_served(server: &ServerState, list: &List<'_>) -> bool {
    server.node().is_open() && (*list != List::Delta || server.has_deltas())
}
