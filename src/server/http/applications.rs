//! The lists. `protocol` 2.5.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::VARY;
use http::{HeaderMap, StatusCode};

use super::answer::{Listing, NotAcceptable};
use super::path::{App, Vip};
use super::scope::{self, Scope};
use crate::server::EurekaServer;
use crate::server::response_cache::{By, List};

/// How the asker wants it, or the refusal of that, which comes second: a list that is not given is not given in any format.
type Wanted = Result<Listing, NotAcceptable>;

pub(super) async fn all(State(server): State<EurekaServer>, scope: Scope, wanted: Wanted) -> Response {
    list(&server, List::All, scope, wanted).await
}

pub(super) async fn delta(State(server): State<EurekaServer>, scope: Scope, wanted: Wanted) -> Response {
    list(&server, List::Delta, scope, wanted).await
}

pub(super) async fn one(State(server): State<EurekaServer>, scope: Scope, wanted: Wanted, App(app): App) -> Response {
    list(&server, List::Application((&*app).into()), scope, wanted).await
}

pub(super) async fn by_vip(
    State(server): State<EurekaServer>,
    scope: Scope,
    wanted: Wanted,
    Vip(vip): Vip,
) -> Response {
    list(&server, List::Selection(By::Vip, (&*vip).into()), scope, wanted).await
}

pub(super) async fn by_secure_vip(
    State(server): State<EurekaServer>,
    scope: Scope,
    wanted: Wanted,
    Vip(vip): Vip,
) -> Response {
    list(&server, List::Selection(By::SecureVip, (&*vip).into()), scope, wanted).await
}

pub(super) async fn list(server: &EurekaServer, list: List<'_>, scope: Scope, wanted: Wanted) -> Response {
    let Some(list) = is_given(server, &list).then(|| scope.list(list)).flatten() else {
        if !server.is_open() {
            server.refusals().closed();
        }
        return StatusCode::FORBIDDEN.into_response();
    };
    server.refusals().opened();
    let mut response = match wanted {
        Ok(listing) => listing.answer(server, &list).await,
        Err(refusal) => return refusal.into_response(),
    };
    if let Some(varies) = scope::varies(server) {
        response.headers_mut().insert(VARY, varies);
    }
    response
}

/// The same, if it is there and wanted as it is there.
pub(super) fn at_once(server: &EurekaServer, list: &List<'_>, headers: &HeaderMap) -> Option<Response> {
    let listing = Listing::of(headers).filter(|_| is_given(server, list))?;
    let body = server.responses().cached(server.registry(), list, listing.variant())?;
    Some(listing.with(&body))
}

/// Else it is a 403: with it Java clients go to the next server, which is what a node wants that knows nothing yet, or fetch everything
/// instead of a delta. `server-behaviour` 6, 9.4.
///
/// Registrations, heartbeats and single instances don't ask for this: a node that has nothing yet collects them.
fn is_given(server: &EurekaServer, list: &List<'_>) -> bool {
    server.node().is_open() && (*list != List::Delta || server.has_deltas())
}
