use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

#[cfg(feature = "tls")]
use super::ServerTls;
use super::access::{Access, AccessControl, Started};
#[cfg(feature = "peers")]
use super::cluster::Cluster;
use super::events::Events;
#[cfg(feature = "peers")]
use super::gate::Gate;
use super::http::{Intake, ServerState};
use super::listen::Acceptor;
use super::listen::Limits as ConnectionLimits;
use super::metrics::Measured;
use super::node::Node;
#[cfg(all(feature = "access", feature = "peers"))]
use super::outbound::Outbound;
#[cfg(feature = "peers")]
use super::regions::RemoteRegions;
use super::registry::{Registry, Settings};
#[cfg(feature = "peers")]
use super::replication::Replication;
use super::response_cache::ResponseCache;
#[cfg(feature = "tls")]
use super::settings::SslKeys;
#[cfg(feature = "peers")]
use super::settings::{self, Peers, Regions};
use super::settings::{About, Eviction, Limits, RateLimits};
use super::timers::Timers;
use super::unsent::Unsent;
use super::{Error, EurekaServer, http, limits, memory};
use crate::config::InvalidSetting;
use crate::time::Clock;

/// Access control with its tasks and its description, both absent if everybody may do everything.
type StartedAccess = (Option<Arc<AccessControl>>, JoinSet<()>, Option<Arc<str>>);

/// Builder of a registry server. Settings that Spring Cloud has default to its values, except
/// [`read_only_cache`](Self::read_only_cache), the timeouts of peers and the limits.
///
/// Settings of one subject are set together. `peers`, `node` and `regions` (feature `peers`), `tls`
/// (feature `tls`), [`eviction`](Self::eviction), [`limits`](Self::limits),
/// [`rate_limits`](Self::rate_limits) and [`access`](Self::access) replace all settings of their
/// subject, including those that [`property`](Self::property) or [`from_env`](Self::from_env) set
/// before. A property that is set later changes a single setting. So properties are set last where
/// both are used.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::{Eviction, Limits};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_eureka::server::Error> {
/// let registry = EurekaServer::builder()
///     .eviction(Eviction::new().interval(Duration::from_secs(5)))
///     .limits(Limits::new().instances(1_000))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct EurekaServerBuilder {
    pub(crate) eviction: Eviction,
    pub(crate) limits: Limits,
    rate_limits: RateLimits,
    delta_retention: Duration,
    deltas: bool,
    read_only_cache: bool,
    read_only_cache_interval: Duration,
    pub(crate) about: About,
    /// Limits of the connections of the server's own listener.
    pub(crate) connections: ConnectionLimits,
    /// TLS of the server's own listener. The one that was set last is in force.
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    ssl: SslKeys,
    access: Option<Access>,
    #[cfg(feature = "peers")]
    port: Option<u16>,
    #[cfg(feature = "peers")]
    pub(crate) peers: Peers,
    #[cfg(feature = "peers")]
    pub(crate) node: settings::Node,
    #[cfg(feature = "peers")]
    pub(crate) regions: Regions,
}

impl EurekaServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            eviction: Eviction::new(),
            limits: Limits::new(),
            rate_limits: RateLimits::new(),
            delta_retention: Duration::from_secs(180),
            deltas: true,
            read_only_cache: false,
            read_only_cache_interval: Duration::from_secs(30),
            about: About::default(),
            connections: ConnectionLimits::default(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            ssl: SslKeys::default(),
            access: None,
            #[cfg(feature = "peers")]
            port: None,
            #[cfg(feature = "peers")]
            peers: Peers::new(),
            #[cfg(feature = "peers")]
            node: settings::Node::new(),
            #[cfg(feature = "peers")]
            regions: Regions::new(),
        }
    }

    /// Sets the eviction of expired leases, and self-preservation.
    ///
    /// Replaces all earlier settings of this subject, including those of properties and the
    /// environment.
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    /// Sets the maximum sizes of requests, instances and the registry.
    ///
    /// Replaces all earlier settings of this subject, including those of properties and the
    /// environment.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the maximum rates of requests. Defaults to no limit.
    ///
    /// Replaces all earlier settings of this subject, including those of properties and the
    /// environment.
    pub fn rate_limits(mut self, rate_limits: RateLimits) -> Self {
        self.rate_limits = rate_limits;
        self
    }

    /// Sets the TLS of [`EurekaServer::listener`]. Has no effect on a router that is served in
    /// another way. Defaults to plain HTTP.
    ///
    /// Spring `server.ssl.*`. Replaces all settings of this subject.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        (self.tls, self.ssl) = (Some(tls), SslKeys::default());
        self
    }

    /// Sets who may do what. Defaults to no access control: everybody may do everything, as at a
    /// stock Spring server.
    ///
    /// Replaces all earlier settings of this subject, including those of properties and the
    /// environment.
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Sets the other registry servers of the cluster.
    ///
    /// Replaces all earlier settings of this subject, including those of properties and the
    /// environment. An invalid earlier setting is still an error of [`build`](Self::build).
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn peers(mut self, peers: Peers) -> Self {
        self.peers = peers.replacing(self.peers);
        self
    }

    /// Sets the registration of this server in its own registry.
    ///
    /// Replaces all earlier settings of this subject, including those of properties and the
    /// environment.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn node(mut self, node: settings::Node) -> Self {
        self.node = node;
        self
    }

    /// Sets the port at which this server responds, such as the port of its listener. It is part of
    /// the [registration](settings::Node) of this server, and of the comparison of its own URL with
    /// those of its peers. Without a port the server does not register itself.
    ///
    /// Spring `server.port`.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the other regions that lists show.
    ///
    /// Replaces all earlier settings of this subject, including those of properties and the
    /// environment.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn regions(mut self, regions: Regions) -> Self {
        self.regions = regions;
        self
    }

    /// Enables deltas. Defaults to true. Otherwise `GET apps/delta` gets 403, after which Java
    /// clients fetch everything in the same cycle. Other clients may take it for a failure.
    ///
    /// Spring `eureka.server.disable-delta`, Netflix `eureka.disableDelta`, which have the opposite
    /// meaning.
    pub fn delta(mut self, delta: bool) -> Self {
        self.deltas = delta;
        self
    }

    /// Sets the time for which the delta contains a change. Defaults to 180 seconds.
    ///
    /// A client that fetches less often misses changes, finds a different apps hash, and fetches
    /// everything. Spring `eureka.server.retention-time-in-m-s-in-delta-queue`, Netflix
    /// `eureka.retentionTimeInMSInDeltaQueue`.
    pub fn delta_retention(mut self, retention: Duration) -> Self {
        self.delta_retention = retention;
        self
    }

    /// Keeps lists unchanged for [some time](Self::read_only_cache_interval), as a Java server
    /// does, instead of showing each change at once. Defaults to false, unlike Java.
    ///
    /// Lists are built once per change, and only if they are requested. The cache bounds the cost
    /// of many changes. It does not apply to an instance that is requested by its id.
    ///
    /// Spring `eureka.server.use-read-only-response-cache`, Netflix
    /// `eureka.shouldUseReadOnlyResponseCache`.
    pub fn read_only_cache(mut self, enabled: bool) -> Self {
        self.read_only_cache = enabled;
        self
    }

    /// Sets the maximum age of a list in the [read-only cache](Self::read_only_cache). Defaults to
    /// 30 seconds.
    ///
    /// Spring `eureka.server.response-cache-update-interval-ms`, Netflix
    /// `eureka.responseCacheUpdateIntervalMs`.
    pub fn read_only_cache_interval(mut self, interval: Duration) -> Self {
        self.read_only_cache_interval = interval;
        self
    }

    /// Enables metrics: the latency of requests is measured, and `/metrics` has all metrics of the
    /// server, see [`RegistryService::with_probes`](super::RegistryService::with_probes). Defaults
    /// to true.
    ///
    /// A heartbeat costs two clock readings and an entry in a histogram more.
    ///
    /// Spring `management.prometheus.metrics.export.enabled`.
    #[cfg(feature = "prometheus")]
    #[cfg_attr(docsrs, doc(cfg(feature = "prometheus")))]
    pub fn metrics(mut self, enabled: bool) -> Self {
        self.about.metrics = enabled;
        self
    }

    /// Adds the number of instances by application and status to the metrics, under the name of
    /// Spring: `eureka_server_instances`. Defaults to false.
    ///
    /// The first 1,000 applications by name have series of their own, all others one together.
    ///
    /// Spring `eureka.server.metrics.enabled`.
    #[cfg(feature = "prometheus")]
    #[cfg_attr(docsrs, doc(cfg(feature = "prometheus")))]
    pub fn metrics_by_application(mut self, enabled: bool) -> Self {
        self.about.metrics_by_application = enabled;
        self
    }

    /// Sets the name of the environment, which `GET status` shows. Defaults to `test`, as in Java.
    ///
    /// Spring and Netflix `eureka.environment`.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.about.environment = name.into();
        self
    }

    /// Sets the name of the data center, which the page for operators shows. Defaults to `default`,
    /// as in Java.
    ///
    /// Spring and Netflix `eureka.datacenter`.
    pub fn data_center(mut self, name: impl Into<String>) -> Self {
        self.about.data_center = name.into();
        self
    }

    /// Changes the path of the page, for a property.
    pub(super) fn page_with(mut self, change: impl FnOnce(Option<String>) -> Option<String>) -> Self {
        self.about.page = change(self.about.page.take());
        self
    }

    /// Changes the settings of eviction, for a property.
    pub(crate) fn eviction_with(mut self, change: impl FnOnce(Eviction) -> Eviction) -> Self {
        self.eviction = change(self.eviction);
        self
    }

    #[cfg(feature = "tls")]
    pub(in crate::server) fn ssl_with(mut self, change: impl FnOnce(&mut SslKeys)) -> Self {
        self.tls = None;
        change(&mut self.ssl);
        self
    }

    pub(crate) fn limits_with(mut self, change: impl FnOnce(Limits) -> Limits) -> Self {
        self.limits = change(self.limits);
        self
    }

    pub(crate) fn rate_limits_with(mut self, change: impl FnOnce(RateLimits) -> RateLimits) -> Self {
        self.rate_limits = change(self.rate_limits);
        self
    }

    /// Changes the access control, for a property. Properties that restrict nobody do not enable
    /// it.
    pub(super) fn access_with(
        mut self,
        change: impl FnOnce(Access) -> Result<Access, InvalidSetting>,
    ) -> Result<Self, InvalidSetting> {
        self.access = Some(change(self.access.unwrap_or_default())?);
        Ok(self)
    }

    #[cfg(feature = "peers")]
    pub(crate) fn peers_with(mut self, change: impl FnOnce(Peers) -> Peers) -> Self {
        self.peers = change(self.peers);
        self
    }

    #[cfg(feature = "peers")]
    pub(crate) fn node_with(mut self, change: impl FnOnce(settings::Node) -> settings::Node) -> Self {
        self.node = change(self.node);
        self
    }

    #[cfg(feature = "peers")]
    pub(crate) fn regions_with(mut self, change: impl FnOnce(Regions) -> Regions) -> Self {
        self.regions = change(self.regions);
        self
    }

    /// Creates an empty registry and starts its timers.
    ///
    /// # Errors
    /// Fails if a setting is unusable, or outside of a tokio runtime, which the timers need.
    ///
    /// # Panics
    /// Panics if the tokio runtime was built without its timer.
    pub fn build(self) -> Result<EurekaServer, Error> {
        self.check_settings()?;
        let tls = self.acceptor()?;
        Handle::try_current().map_err(Error::no_runtime)?;
        let clock = Clock::start();
        let (settings, events) = (self.registry_settings(), Arc::<Events>::default());
        #[cfg(feature = "peers")]
        let Parts { peers, settings, regions, replication, gate, own, registered } =
            self.parts(settings, tls.is_some(), clock, events.clone())?;
        let (access, access_tasks, access_summary) = self.start_access(
            #[cfg(all(feature = "access", feature = "peers"))]
            &peers.outbound,
        )?;
        let registry = Arc::new(Registry::with_events(settings.clone(), events));
        let refusals = Arc::<http::Refusals>::default();
        let timers = Timers::start(&registry, refusals.clone(), &settings, clock);
        let node = Arc::new(Node::new(
            registry,
            clock,
            #[cfg(feature = "peers")]
            replication,
            #[cfg(feature = "peers")]
            gate,
        ));
        let unsent = Arc::new(Unsent::new(self.limits.response_bytes));
        let cache_interval = self.read_only_cache.then_some(self.read_only_cache_interval);
        let responses = ResponseCache::new(cache_interval, clock, unsent.clone());
        #[cfg(feature = "prometheus")]
        let responses = if self.about.metrics { responses.counting() } else { responses };
        #[cfg(feature = "peers")]
        let responses = match &regions {
            Some(regions) => responses.with_regions(regions.clone()),
            None => responses,
        };
        #[cfg(feature = "peers")]
        let cluster = Cluster::new(
            node.clone(),
            peers,
            self.node,
            self.eviction.expected_renewal_interval,
            regions.clone(),
            registered,
        );
        #[cfg(feature = "peers")]
        let tasks = {
            let start =
                |regions: &Arc<RemoteRegions>| regions.start(node.registry(), clock, settings.delta_retention_ms());
            (timers, cluster.start(), regions.as_ref().map(start), access_tasks)
        };
        #[cfg(not(feature = "peers"))]
        let tasks = (timers, access_tasks);
        let state = ServerState::new(http::Parts {
            node,
            responses,
            unsent,
            intake: Intake::new(self.limits.request_bytes_in_flight, self.limits.gzip_requests)
                .with_timeout(self.connections.body_timeout),
            registration_limit: self.limits.registration_bytes,
            batch_limit: self.limits.batch_bytes,
            deltas: self.deltas,
            refusals,
            rate_limits: limits::RateLimits::new(&self.rate_limits),
            connections: Arc::default(),
            measured: Measured::new(&self.about),
            overrides: Default::default(),
            #[cfg(feature = "prometheus")]
            scrapes: Default::default(),
            about: self.about,
            #[cfg(feature = "peers")]
            own,
            #[cfg(not(feature = "peers"))]
            own: None,
            leaving: AtomicBool::new(false),
            access,
            #[cfg(feature = "peers")]
            regions,
            _tasks: Box::new(tasks),
        });
        Ok(EurekaServer {
            state,
            connections: self.connections,
            tls,
            access_summary,
            #[cfg(feature = "peers")]
            cluster,
        })
    }

    /// Verifies the settings as [`build`](Self::build) does, files of certificates included.
    /// Starts nothing and sends nothing.
    ///
    /// # Errors
    /// Fails if a setting is unusable.
    pub fn check(&self) -> Result<(), Error> {
        self.check_settings()?;
        #[cfg_attr(not(feature = "peers"), allow(unused_variables, reason = "used with peers"))]
        let is_tls = self.acceptor()?.is_some();
        if let Some(access) = &self.access {
            access.check().map_err(Error::access)?;
        }
        #[cfg(feature = "peers")]
        self.parts(self.registry_settings(), is_tls, Clock::start(), Arc::default())?;
        Ok(())
    }

    /// Starts the access control, if callers are restricted. Returns it with its tasks and its
    /// description.
    fn start_access(
        &self,
        #[cfg(all(feature = "access", feature = "peers"))] outbound: &Outbound,
    ) -> Result<StartedAccess, Error> {
        let Some(access) = self.access.as_ref().filter(|access| access.is_enabled()) else {
            return Ok((None, JoinSet::new(), None));
        };
        let started = access.start(
            #[cfg(all(feature = "access", feature = "peers"))]
            outbound,
        );
        let Started { control, tasks, summary } = started.map_err(Error::access)?;
        Ok((Some(control), tasks, Some(summary.into())))
    }

    fn check_settings(&self) -> Result<(), Error> {
        self.eviction.check()?;
        self.limits.check(Intake::longest_body(self.limits.request_bytes_in_flight))?;
        if self.read_only_cache_interval < Duration::from_millis(1) {
            return Err(Error::setting_of(
                "read_only_cache_interval",
                "eureka.server.response-cache-update-interval-ms",
                "must be at least a millisecond",
            ));
        }
        self.rate_limits.check()?;
        self.connections.check()?;
        #[cfg(feature = "peers")]
        self.peers.check()?;
        Ok(())
    }

    /// Reads the files of the listener's TLS.
    #[cfg(feature = "tls")]
    fn acceptor(&self) -> Result<Option<Acceptor>, Error> {
        let files = match &self.tls {
            Some(tls) => Some(tls.clone().into_files()),
            None => self.ssl.files().map_err(Error::tls)?,
        };
        files.map(|files| Acceptor::new(files).map_err(Error::tls)).transpose()
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the feature `tls` has settings and errors")]
    fn acceptor(&self) -> Result<Option<Acceptor>, Error> {
        Ok(None)
    }

    fn registry_settings(&self) -> Settings {
        let (eviction, limits) = (&self.eviction, &self.limits);
        Settings {
            lease_doubling: eviction.lease_doubling,
            eviction_interval: eviction.interval,
            self_preservation: eviction.self_preservation,
            preservation_by_application: eviction.preservation_by_application,
            renewal_percent_threshold: eviction.renewal_percent_threshold,
            expected_renewal_interval: eviction.expected_renewal_interval,
            delta_retention: self.delta_retention,
            metadata_limit: limits.metadata_bytes,
            application_limit: limits.instances_per_application,
            applications_limit: limits.applications,
            identity_limits: [limits.instances_per_identity, limits.applications_per_identity],
            tracks_owners: self.access.as_ref().is_some_and(Access::is_enabled),
            name_limit: limits.name_bytes,
            instance_size_limit: limits.instance_bytes,
            registry_limit: limits.instances,
            registry_size_limit: limits.registry_bytes.unwrap_or_else(default_registry_size),
            lease_limit_secs: limits.lease_secs,
            ..Settings::default()
        }
    }

    /// Creates the parts of a node with peers.
    #[cfg(feature = "peers")]
    fn parts(&self, settings: Settings, is_https: bool, clock: Clock, events: Arc<Events>) -> Result<Parts, Error> {
        let peers = self.peers.with_stores()?;
        let regions = RemoteRegions::new(&self.regions, &peers.outbound, &settings)?;
        let own = self.port.map(|port| self.node.instance(port, is_https, clock.now_ms())).transpose()?;
        let hosts = self.node.hosts(own.as_ref());
        let replication = Replication::new(&peers, hosts, self.port, regions.is_some(), events)?;
        let has_cluster = replication.has_cluster();
        let registered = own.clone().filter(|_| self.node.register && has_cluster);
        let gate = if has_cluster { Gate::starting(peers.wait_when_empty, peers.sync_up) } else { Gate::single() };
        let settings = Settings {
            own_id: registered.as_ref().map(|own| own.id().into()),
            compare_versions: peers.take_newer_copies,
            tombstone_retention: if has_cluster { peers.tombstone_retention() } else { Duration::ZERO },
            ..settings
        };
        Ok(Parts { peers, settings, regions, replication, gate, own, registered })
    }
}

/// Parts of a node with peers.
#[cfg(feature = "peers")]
struct Parts {
    /// Settings of the peers with their TLS stores, whose files were read.
    peers: Peers,
    settings: Settings,
    regions: Option<Arc<RemoteRegions>>,
    replication: Replication,
    gate: Gate,
    /// Instance of this node.
    own: Option<crate::model::Instance>,
    /// The same if it is registered.
    registered: Option<crate::model::Instance>,
}

/// Share of the memory that the registry may take by default, without the lists that are made of
/// it.
const REGISTRY_SHARE: usize = 20;
const MIN_REGISTRY_SIZE: usize = 16 * 1024 * 1024;

fn default_registry_size() -> usize {
    let Some((memory, source)) = memory::limit() else { return Settings::default().registry_size_limit };
    let bytes = (memory / REGISTRY_SHARE).max(MIN_REGISTRY_SIZE);
    tracing::debug!(bytes, memory, source, "size of the registry is limited by the memory");
    bytes
}
