//! Which regions a request is about. `server-behaviour` 9.4, 10.5.

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

/// Who says so in this header is a registry server, Java or not.
const IDENTITY: (&str, &str) = ("DiscoveryIdentity-Name", "DefaultServer");
/// What a list depends on beside its address.
const VARIES: HeaderValue =
    HeaderValue::from_static("accept, accept-encoding, x-eureka-accept, discoveryidentity-name");

/// The regions that the asker is shown.
///
/// Where none are configured it is this one alone, and so it is for other registry servers: two regions that show each other what they
/// copied would keep each other's dead alive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope(Option<Others>);

#[derive(Clone, Copy, Debug)]
struct Others {
    /// Whether lists can be answered at all.
    looked_at: bool,
    /// The regions in lists; `None` if some were named and one could not be fetched yet.
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

    /// The list with these regions; `None` if it can't be given yet.
    pub(super) fn list(self, list: List<'_>) -> Option<List<'_>> {
        let Some(Others { looked_at, listed }) = self.0 else { return Some(list) };
        match (list, listed) {
            // A list that shows no region waits for none.
            _ if !looked_at && !listed.is_some_and(RegionSet::is_empty) => None,
            (List::All | List::Delta, None) => None,
            (List::All, Some(set)) if !set.is_empty() => Some(List::AllWith(set)),
            (List::Delta, Some(set)) if !set.is_empty() => Some(List::DeltaWith(set)),
            (list, _) => Some(list),
        }
    }

    /// An instance that is not registered here.
    pub(super) fn instance(self, server: &EurekaServer, app: &str, id: &str) -> Option<Instance> {
        let (_, instance) = self.0.and(server.regions())?.instance(app, id)?;
        Some(Instance::clone(&instance))
    }

    /// The same whatever its application.
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

/// What `Vary` names, if it is more than usual.
pub(super) fn varies(server: &EurekaServer) -> Option<HeaderValue> {
    server.regions().map(|_| VARIES)
}

/// To who would change an instance that has no lease here: 404, or 500 if it is in another region.
pub(super) fn absent(server: &EurekaServer, app: &str, id: &str) -> Response {
    match server.regions().and_then(|regions| regions.instance(app, id)) {
        Some((region, _)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the instance is registered in the region {region}"))
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
