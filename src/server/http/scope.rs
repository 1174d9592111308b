//! Regions that a response includes (docs/server.md, "Regions").
//!
//! Without the feature `peers` it is always the local region alone.

#[cfg(feature = "peers")]
mod remote;

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

#[cfg(feature = "peers")]
use self::remote::RemoteScope;
use crate::model::Instance;
use crate::server::http::state::ServerState;
use crate::server::response_cache::List;

/// Regions that a response includes besides the local one.
///
/// There are none unless remote regions are configured, and none for other registry servers: two
/// regions that served each other's copies would keep dead instances alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    #[cfg(feature = "peers")]
    remote: Option<RemoteScope>,
}

#[cfg_attr(not(feature = "peers"), allow(unused_variables, reason = "only remote regions need them"))]
impl Scope {
    /// Returns the scope of a request with these headers and this query.
    pub(super) fn of(server: &ServerState, headers: &HeaderMap, query: Option<&str>) -> Self {
        Self {
            #[cfg(feature = "peers")]
            remote: RemoteScope::of(server, headers, query),
        }
    }

    /// Returns the list with these regions, or `None` if it cannot be served yet.
    pub(super) fn list(self, list: List<'_>) -> Option<List<'_>> {
        #[cfg(feature = "peers")]
        if let Some(remote) = self.remote {
            return remote.list(list);
        }
        Some(list)
    }

    /// Looks up an instance of a remote region.
    pub(super) fn instance(self, server: &ServerState, app: &str, id: &str) -> Option<Instance> {
        #[cfg(feature = "peers")]
        return self.remote.and(server.regions())?.instance(app, id).map(|(_, instance)| Instance::clone(&instance));
        #[cfg(not(feature = "peers"))]
        None
    }

    /// Looks up an instance of a remote region by its id alone.
    pub(super) fn instance_by_id(self, server: &ServerState, id: &str) -> Option<Instance> {
        #[cfg(feature = "peers")]
        return self.remote.and(server.regions())?.instance_by_id(id).map(|instance| Instance::clone(&instance));
        #[cfg(not(feature = "peers"))]
        None
    }
}

impl FromRequestParts<ServerState> for Scope {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, server: &ServerState) -> Result<Self, Infallible> {
        Ok(Self::of(server, &parts.headers, parts.uri.query()))
    }
}

/// Returns the `Vary` header of lists, if it differs from the one without remote regions.
#[cfg_attr(not(feature = "peers"), allow(unused_variables, reason = "only remote regions need it"))]
pub(super) fn vary(server: &ServerState) -> Option<HeaderValue> {
    #[cfg(feature = "peers")]
    return server.regions().map(|_| remote::VARY_VALUE);
    #[cfg(not(feature = "peers"))]
    None
}

/// Response to a write for an instance without a lease here: 404, or 500 if a remote region has it.
#[cfg_attr(not(feature = "peers"), allow(unused_variables, reason = "only remote regions need them"))]
pub(super) fn absent(server: &ServerState, app: &str, id: &str) -> Response {
    #[cfg(feature = "peers")]
    if let Some((region, _)) = server.regions().and_then(|regions| regions.instance(app, id)) {
        let text = format!("the instance is registered in the region {region}");
        return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}
