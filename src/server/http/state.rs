//! State that the HTTP operations share.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Intake, Refusals};
use crate::server::limits::RateLimits;
use crate::server::node::Node;
#[cfg(feature = "peers")]
use crate::server::regions::RemoteRegions;
use crate::server::registry::Registry;
use crate::server::response_cache::ResponseCache;
use crate::server::unsent::Unsent;

/// Parts of the server that its HTTP operations use. It is cheap to clone.
#[derive(Clone)]
pub(in crate::server) struct ServerState(Arc<Parts>);

pub(in crate::server) struct Parts {
    pub(in crate::server) node: Arc<Node>,
    pub(in crate::server) responses: ResponseCache,
    pub(in crate::server) unsent: Arc<Unsent>,
    pub(in crate::server) intake: Intake,
    pub(in crate::server) registration_limit: usize,
    pub(in crate::server) batch_limit: usize,
    pub(in crate::server) deltas: bool,
    pub(in crate::server) refusals: Arc<Refusals>,
    pub(in crate::server) rate_limits: Option<Box<RateLimits>>,
    #[cfg(feature = "peers")]
    pub(in crate::server) regions: Option<Arc<RemoteRegions>>,
    /// Tasks of the server. They end when the last clone of the state is dropped.
    pub(in crate::server) _tasks: Box<dyn Any + Send + Sync>,
}

impl ServerState {
    pub(in crate::server) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Returns true if lists are served.
    pub(in crate::server) fn is_open(&self) -> bool {
        self.awaits_no_region() && self.node().is_open()
    }

    /// Returns the reason for which lists are served or refused.
    pub(super) fn gate_reason(&self) -> String {
        if self.node().is_open() && !self.awaits_no_region() {
            return "the registries of other regions are being fetched".to_owned();
        }
        self.node().gate_reason()
    }

    #[cfg(feature = "peers")]
    fn awaits_no_region(&self) -> bool {
        self.regions().is_none_or(|regions| regions.default_set().is_empty() || regions.are_attempted())
    }

    #[cfg(not(feature = "peers"))]
    #[allow(clippy::unused_self, reason = "there are no other regions without the feature `peers`")]
    fn awaits_no_region(&self) -> bool {
        true
    }

    #[cfg(feature = "peers")]
    pub(super) fn regions(&self) -> Option<&RemoteRegions> {
        self.0.regions.as_deref()
    }

    /// Returns the other region in which an instance is registered.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn region_of(&self, app: &str, id: &str) -> Option<String> {
        self.regions()?.instance(app, id).map(|(region, _)| region.to_owned())
    }

    #[cfg(not(feature = "peers"))]
    #[allow(clippy::unused_self, reason = "there are no other regions without the feature `peers`")]
    pub(in crate::server) fn region_of(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    pub(in crate::server) fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    pub(in crate::server) fn registry(&self) -> &Arc<Registry> {
        self.0.node.registry()
    }

    pub(super) fn responses(&self) -> &ResponseCache {
        &self.0.responses
    }

    pub(in crate::server) fn unsent(&self) -> &Arc<Unsent> {
        &self.0.unsent
    }

    pub(in crate::server) fn now(&self) -> i64 {
        self.0.node.now()
    }

    pub(super) fn uptime(&self) -> Duration {
        self.0.node.uptime()
    }

    /// Returns the rate limits, if there are any.
    pub(super) fn rate_limits(&self) -> Option<&RateLimits> {
        self.0.rate_limits.as_deref()
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    pub(super) fn intake(&self) -> &Intake {
        &self.0.intake
    }

    pub(super) fn registration_limit(&self) -> usize {
        self.0.registration_limit
    }

    pub(super) fn batch_limit(&self) -> usize {
        self.0.batch_limit
    }

    pub(super) fn has_deltas(&self) -> bool {
        self.0.deltas
    }
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState").field("instances", &self.registry().size()).finish_non_exhaustive()
    }
}
