//! State that the HTTP operations share.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

#[cfg(feature = "prometheus")]
use bytes::Bytes;

use super::info::Overrides;
use super::{Intake, Refusals};
use crate::model::{Instance, InstanceStatus};
use crate::server::access::AccessControl;
use crate::server::connections::ConnectionCounts;
use crate::server::limits::RateLimits;
use crate::server::metrics::Measured;
#[cfg(feature = "prometheus")]
use crate::server::metrics::{self, Families};
use crate::server::node::Node;
#[cfg(feature = "peers")]
use crate::server::regions::RemoteRegions;
use crate::server::registry::Registry;
use crate::server::response_cache::ResponseCache;
use crate::server::settings::About;
#[cfg(feature = "prometheus")]
use crate::server::shared::PerSecond;
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
    pub(in crate::server) connections: Arc<ConnectionCounts>,
    pub(in crate::server) measured: Measured,
    pub(in crate::server) overrides: Overrides,
    #[cfg(feature = "prometheus")]
    pub(in crate::server) scrapes: Scrapes,
    pub(in crate::server) about: About,
    /// Instance of this node. `None` if its port is not known.
    pub(in crate::server) own: Option<Instance>,
    /// Set once the server leaves its cluster.
    pub(in crate::server) leaving: AtomicBool,
    /// Access control, unless everybody may do everything.
    pub(in crate::server) access: Option<Arc<AccessControl>>,
    #[cfg(feature = "peers")]
    pub(in crate::server) regions: Option<Arc<RemoteRegions>>,
    /// Tasks of the server. They end when the last clone of the state is dropped.
    pub(in crate::server) _tasks: Box<dyn Any + Send + Sync>,
}

/// Metrics that all requests of a second share.
#[cfg(feature = "prometheus")]
#[derive(Debug, Default)]
pub(in crate::server) struct Scrapes {
    text: PerSecond<Bytes>,
    families: PerSecond<Arc<Families>>,
}

impl ServerState {
    pub(in crate::server) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Returns true if lists are served.
    pub(in crate::server) fn is_open(&self) -> bool {
        self.awaits_no_region() && self.node().is_open()
    }

    /// Returns true if load balancers should send requests: lists are served, and the server is not
    /// stopping.
    pub(in crate::server) fn is_ready(&self) -> bool {
        self.is_open() && !self.0.leaving.load(Relaxed)
    }

    /// Records that the server is stopping.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn set_leaving(&self) {
        self.0.leaving.store(true, Relaxed);
    }

    /// Returns the reason for which the server is ready or not.
    pub(super) fn readiness_reason(&self) -> String {
        if self.0.leaving.load(Relaxed) { "this node is stopping".to_owned() } else { self.gate_reason() }
    }

    /// Returns the reason for which lists are served or refused.
    pub(in crate::server) fn gate_reason(&self) -> String {
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

    pub(in crate::server) fn connections(&self) -> &Arc<ConnectionCounts> {
        &self.0.connections
    }

    pub(in crate::server) fn measured(&self) -> &Measured {
        &self.0.measured
    }

    pub(in crate::server) fn about(&self) -> &About {
        &self.0.about
    }

    /// Returns the record of this node: the registered one, or else the one that it would register.
    /// `None` if its port is not known.
    pub(in crate::server) fn own(&self) -> Option<Instance> {
        let own = self.0.own.as_ref()?;
        let registered = self.registry().instance(own.app(), own.id(), self.now());
        Some(registered.unwrap_or_else(|| Instance {
            status: if self.is_open() { InstanceStatus::Up } else { InstanceStatus::Starting },
            is_coordinating_discovery_server: true,
            ..own.clone()
        }))
    }

    /// Returns the URL and the availability of each peer.
    pub(in crate::server) fn replicas(&self) -> Vec<(Arc<str>, bool)> {
        #[cfg(feature = "peers")]
        return self.node().replication().replicas();
        #[cfg(not(feature = "peers"))]
        Vec::new()
    }

    /// Returns all metrics in the text format of Prometheus, or `None` if the requests before take
    /// too long.
    #[cfg(feature = "prometheus")]
    pub(super) async fn metrics_text(&self) -> Option<Bytes> {
        let render = |server: &Self| metrics::text(&server.metrics()).into();
        self.per_second(&self.0.scrapes.text, render).await
    }

    /// Returns all metrics except the latencies, or `None` if the requests before take too long.
    #[cfg(feature = "prometheus")]
    pub(super) async fn metric_families(&self) -> Option<Arc<Families>> {
        self.per_second(&self.0.scrapes.families, |server| Arc::new(server.metrics().families())).await
    }

    /// Reads metrics. With numbers by application, the requests of a second share them.
    #[cfg(feature = "prometheus")]
    async fn per_second<T: Clone + Send + 'static>(&self, shared: &PerSecond<T>, read: fn(&Self) -> T) -> Option<T> {
        if !self.0.about.metrics_by_application {
            return Some(read(self));
        }
        let server = self.clone();
        shared.get(move || read(&server)).await
    }

    /// Returns the parts of the server that the metrics are read from.
    #[cfg(feature = "prometheus")]
    fn metrics(&self) -> metrics::Parts<'_> {
        metrics::Parts {
            node: self.node(),
            responses: self.responses(),
            unsent: self.unsent(),
            connections: self.connections(),
            measured: self.measured(),
            is_open: self.is_open(),
            by_application: self.0.about.metrics_by_application,
        }
    }

    pub(in crate::server) fn unsent(&self) -> &Arc<Unsent> {
        &self.0.unsent
    }

    pub(in crate::server) fn now(&self) -> i64 {
        self.0.node.now()
    }

    pub(in crate::server) fn uptime(&self) -> Duration {
        self.0.node.uptime()
    }

    /// Returns the rate limits, if there are any.
    pub(super) fn rate_limits(&self) -> Option<&RateLimits> {
        self.0.rate_limits.as_deref()
    }

    pub(super) fn overrides(&self) -> &Overrides {
        &self.0.overrides
    }

    pub(super) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// Returns the access control, unless everybody may do everything.
    pub(in crate::server) fn access(&self) -> Option<&Arc<AccessControl>> {
        self.0.access.as_ref()
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
