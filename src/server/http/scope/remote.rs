//! Remote regions that a response includes.

use http::{HeaderMap, HeaderValue};

use crate::server::http::query;
use crate::server::http::state::ServerState;
use crate::server::response_cache::List;
use crate::server::view::RegionSet;

/// Header and value by which registry servers identify themselves, Java or not.
const IDENTITY: (&str, &str) = ("DiscoveryIdentity-Name", "DefaultServer");
/// Request headers that select a representation of a list, if remote regions are configured.
pub(super) const VARY_VALUE: HeaderValue =
    HeaderValue::from_static("accept, accept-encoding, x-eureka-accept, discoveryidentity-name");

/// Remote regions of a scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemoteScope {
    /// True once each region was fetched or the attempt failed, so that lists can be served.
    is_ready: bool,
    /// Regions in lists. `None` if the request names regions and not all were fetched yet.
    listed: Option<RegionSet>,
}

impl RemoteScope {
    /// Returns `None` without remote regions, and for a request of another registry server.
    pub(super) fn of(server: &ServerState, headers: &HeaderMap, query: Option<&str>) -> Option<Self> {
        let is_server = || headers.get(IDENTITY.0).is_some_and(|value| value == IDENTITY.1);
        let regions = server.regions().filter(|_| !is_server())?;
        let listed = match query::first(query, "regions").filter(|names| !names.is_empty()) {
            Some(names) => regions.are_fetched().then(|| regions.named(&names)),
            None => Some(regions.default_set()),
        };
        Some(Self { is_ready: regions.are_attempted(), listed })
    }

    /// Returns the list with these regions, or `None` if it cannot be served yet.
    pub(super) fn list(self, list: List<'_>) -> Option<List<'_>> {
        let Self { is_ready, listed } = self;
        match (list, listed) {
            // A list without remote regions does not wait for them.
            _ if !is_ready && !listed.is_some_and(RegionSet::is_empty) => None,
            (List::All | List::Delta, None) => None,
            (List::All, Some(set)) if !set.is_empty() => Some(List::AllWith(set)),
            (List::Delta, Some(set)) if !set.is_empty() => Some(List::DeltaWith(set)),
            (list, _) => Some(list),
        }
    }
}
