//! Regions that a response includes (docs/server.md, "Regions").

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::query;
use crate::model::Instance;
use crate::server::EurekaServer;
use crate::server::response_cache::List;
use crate::server::view::RegionSet;

/// Header and value by which registry servers identify themselves, Java or not.
const IDENTITY: (&str, &str) = ("DiscoveryIdentity-Name", "DefaultServer");
/// Request headers that select a representation of a list.
const VARY_VALUE: HeaderValue =
    HeaderValue::from_static("accept, accept-encoding, x-eureka-accept, discoveryidentity-name");

/// Regions that a response includes besides the local one.
///
/// There are none unless remote regions are configured, and none for other registry servers: two
/// regions that served each other's copies would keep dead instances alive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope(Option<Others>);

#[derive(Clone, Copy, Debug)]
struct Others {
    /// True once each region was fetched or the attempt failed, so that lists can be served.
    looked_at: bool,
    /// Regions in lists. `None` if the request names regions and not all were fetched yet.
    listed: Option<RegionSet>,
}

impl Scope {
    pub(super) fn of(server: &EurekaServer, headers: &HeaderMap, query: Option<&str>) -> Self {
        let is_server = || headers.get(IDENTITY.0).is_some_and(|value| value == IDENTITY.1);
        let Some(regions) = server.regions().filter(|_| !is_server()) else { return Self(None) };
        let listed = match query::first(query, "regions").filter(|names| !names.is_empty()) {
            Some(names) => regions.are_fetched().then(|| regions.named(&names)),
            None => Some(regions.default_set()),
        };
        Self(Some(Others { looked_at: regions.are_looked_at(), listed }))
    }

    /// Returns the list with these regions, or `None` if it cannot be served yet.
    pub(super) fn list(self, list: List<'_>) -> Option<List<'_>> {
        let Some(Others { looked_at, listed }) = self.0 else { return Some(list) };
        match (list, listed) {
            // A list without remote regions does not wait for them.
            _ if !looked_at && !listed.is_some_and(RegionSet::is_empty) => None,
            (List::All | List::Delta, None) => None,
            (List::All, Some(set)) if !set.is_empty() => Some(List::AllWith(set)),
            (List::Delta, Some(set)) if !set.is_empty() => Some(List::DeltaWith(set)),
            (list, _) => Some(list),
        }
    }

    /// Looks up an instance of a remote region.
    pub(super) fn instance(self, server: &EurekaServer, app: &str, id: &str) -> Option<Instance> {
        let (_, instance) = self.0.and(server.regions())?.instance(app, id)?;
        Some(Instance::clone(&instance))
    }

    /// Looks up an instance of a remote region by its id alone.
    pub(super) fn instance_by_id(self, server: &EurekaServer, id: &str) -> Option<Instance> {
        let instance = self.0.and(server.regions())?.instance_by_id(id)?;
        Some(Instance::clone(&instance))
    }
}

impl FromRequestParts<EurekaServer> for Scope {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, server: &EurekaServer) -> Result<Self, Infallible> {
        Ok(Self::of(server, &parts.headers, parts.uri.query()))
    }
}

/// Returns the `Vary` header of lists, if it differs from the one without remote regions.
pub(super) fn varies(server: &EurekaServer) -> Option<HeaderValue> {
    server.regions().map(|_| VARY_VALUE)
}

/// Response to a write for an instance without a lease here: 404, or 500 if a remote region has it.
pub(super) fn absent(server: &EurekaServer, app: &str, id: &str) -> Response {
    match server.regions().and_then(|regions| regions.instance(app, id)) {
        Some((region, _)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the instance is registered in the region {region}"))
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
