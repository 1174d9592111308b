//! Registry server that is compatible with stock Java clients and servers.
//!
//! It runs inside any axum application, or as a process of its own, `tower-eureka serve`.
//!
//! ```no_run
//! use axum::Router;
//! use tokio::net::TcpListener;
//! use tower_eureka::EurekaServer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("127.0.0.1:8761").await?;
//! let registry = EurekaServer::builder().build()?;
//! axum::serve(listener, Router::new().nest("/eureka", registry.router())).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | task | item |
//! |---|---|
//! | build a registry | [`EurekaServer::builder`], [`EurekaServerBuilder`] |
//! | mount it in an axum application | [`EurekaServer::router`] |
//! | show it to operators | `EurekaServer::page`, `RegistryService::with_page` (feature `page`) |
//! | serve it alone, with limits for connections | [`EurekaServer::service`], [`Listener`] |
//! | serve HTTPS, ask clients for certificates | `ServerTls`, [`PeerCertificate`] (feature `tls`) |
//! | change eviction and self-preservation | [`Eviction`] |
//! | change the sizes of requests and of the registry | [`Limits`] |
//! | limit the rate of requests | [`RateLimits`] |
//! | connect it to other registries of its cluster | `Peers`, `Node` (feature `peers`), `Dns` (feature `dns`) |
//! | show other regions | `Regions` (feature `peers`) |
//! | stop without losing changes | `EurekaServer::leave` (feature `peers`) |
//! | read its content | [`EurekaServer::applications`], [`EurekaServer::instance`] |
//! | change it without a request | [`EurekaServer::register`], [`EurekaServer::renew`], [`EurekaServer::cancel`], [`EurekaServer::set_override`] |
//! | react to its changes | [`EurekaServer::events`] |
//! | authorize requests by a layer of your own | [`DescribeLayer`] |
//!
//! # Differences from the Java server
//!
//! * XML needs the feature `xml`. Without it, JSON is also the response to `*/*` and to requests
//!   without `Accept`, where Java responds with XML. A request that accepts only XML gets 406, and
//!   one with an XML body gets 415.
//! * Lists have an `ETag`. A request with the same tag in `If-None-Match` gets 304 without a body.
//! * Lists show every change at once. The cache of a Java server, which lags by 30 seconds, is off
//!   unless [`read_only_cache`](EurekaServerBuilder::read_only_cache) enables it.
//! * In lists, `lastRenewalTimestamp` is the time of the last change of the instance. A single
//!   instance shows the present value.
//! * A status that a heartbeat corrects is published at once. An override belongs to one
//!   application.
//! * Self-preservation counts the instances of this registry; Java adds a phantom instance. From
//!   seven instances on, one that died can be evicted. Smaller registries need
//!   [`Eviction::preservation_by_application`] or no [`Eviction::self_preservation`].
//!
//! # Clusters
//!
//! With the feature `peers`, servers replicate to each other, Java servers and tower-eureka servers
//! alike. Each sends the changes of its clients to all others, and a starting server copies the
//! registry of its peers. All servers may have the same list of URLs. If two servers have different
//! states of an instance, after a partition for example, both keep the newer one, by the rules
//! [below](#how-nodes-agree-again).
//!
//! # Other regions
//!
//! Lists can show clusters of other regions beside this one. Their instances are copied every 30
//! seconds and are not counted or evicted here. Clients see all regions, unless they name some in
//! the parameter `regions`, or the fallback is off.
//!
//! # Log
//!
//! * Registrations, cancellations, status overrides, metadata and evictions are info lines with the
//!   target `tower_eureka::server::audit`. They have the application, the instance, its status, the
//!   sender with its identity, and what differs before and after the change. Requests that change
//!   nothing and the items of a peer's batch are debug lines. So are, within a second, the changes
//!   of an identity or an address beyond 100, and those of all beyond 1,000, of which one info line
//!   shows the number. Changes of instances that another sender registered have 200 lines more. A
//!   file of users that is read again is such a line as well.
//! * Leases that expire are summed up per run: the first ten have a line each, and one line shows
//!   the number of all.
//! * A refused write is a warning with the sender's address, the path, the status and the cause. So
//!   is a registration that is older than the record in the registry. Each is logged at once, then
//!   at most once a minute with the number of repetitions, and once when it has not occurred for a
//!   minute. There are at most 20 such lines a minute. A batch has one line.
//! * A lasting fault is logged when it begins, once a minute while it lasts, and when it ends.
//! * Values from requests, peers and DNS are escaped and cut after 100 characters.
//! * The beginning and the end of self-preservation are logged. `GET status` shows its state and
//!   the counts behind it, and so do the health endpoints and the metrics.
//! * A peer that is lost or found has a line, at most two a minute.
//!
//! The address of a sender is known where [`Listener`] serves, or `axum::serve` with
//! `into_make_service_with_connect_info::<SocketAddr>`.
//!
#![doc = include_str!("../../docs/quirks.md")]

mod access;
mod audit;
mod builder;
#[cfg(all(feature = "access", any(feature = "tls", feature = "peers")))]
#[cfg(test)]
#[path = "../../tests/support/captured_log.rs"]
mod captured_log;
#[cfg(feature = "peers")]
mod cluster;
mod connections;
#[cfg(feature = "testing")]
mod direct;
mod embed;
mod error;
mod events;
#[cfg(feature = "peers")]
mod gate;
mod http;
mod limits;
mod listen;
mod memory;
mod metrics;
mod node;
#[cfg(feature = "peers")]
mod outbound;
mod outcome;
mod owner;
#[cfg(feature = "page")]
mod page;
mod places;
mod properties;
#[cfg(feature = "peers")]
mod regions;
mod registry;
#[cfg(feature = "peers")]
mod replication;
mod response_cache;
mod settings;
mod shared;
#[cfg(feature = "peers")]
mod supervise;
#[cfg(test)]
mod tests;
mod timers;
mod unsent;
mod view;

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "peers")]
use std::time::Duration;

#[cfg(feature = "access")]
#[cfg_attr(docsrs, doc(cfg(feature = "access")))]
pub use self::access::JwtKeys;
pub use self::access::{Access, Identity, PeerCertificate, Role};
pub use self::builder::EurekaServerBuilder;
pub use self::embed::ChangeError;
pub use self::error::Error;
pub use self::events::{ServerEvent, ServerEvents};
pub use self::http::{Describe, DescribeLayer, Operation, OperationKind, RegistryService, ResponseFuture};
pub use self::listen::Listener;
#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
pub use self::listen::{ClientAuth, ServerTls};
pub use self::properties::Property;
#[cfg(all(test, feature = "cli", feature = "tls"))]
pub(crate) use self::properties::property_keys;
#[cfg(feature = "client")]
pub(crate) use self::properties::property_names;
pub use self::settings::{Eviction, Limits, RateLimits};
#[cfg(feature = "peers")]
pub use self::settings::{Node, Peers, Regions};
#[cfg(all(feature = "peers", feature = "dns"))]
#[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
pub use crate::config::DnsServers as Dns;

use tokio::net::TcpListener;

use self::http::ServerState;
use self::registry::Registry;
use self::view::Snapshot;
use crate::model::{Application, Applications, Instance, app_name};

/// Eureka registry inside this process.
///
/// It is cheap to clone: all clones and routers share one registry. Its timers run as tokio tasks
/// and end when the last clone and the last router are dropped.
#[derive(Clone)]
pub struct EurekaServer {
    state: ServerState,
    connections: listen::Limits,
    tls: Option<listen::Acceptor>,
    /// Description of who may do what, unless everybody may do everything.
    access_summary: Option<Arc<str>>,
    #[cfg(feature = "peers")]
    cluster: Arc<cluster::Cluster>,
}

impl EurekaServer {
    /// Returns a builder with the settings of a stock Spring Cloud server.
    pub fn builder() -> EurekaServerBuilder {
        EurekaServerBuilder::new()
    }

    /// Returns the HTTP interface of the registry as a router.
    ///
    /// It can be mounted under any path. Clients use that path as their service URL:
    /// `http://host:port/eureka/` for `Router::new().nest("/eureka", ...)`. Below it, `apps` and
    /// `v2/apps` are the same.
    ///
    /// # Graceful shutdown
    /// `axum::serve(..).with_graceful_shutdown(..)` waits for requests in flight. None of the
    /// registry lasts longer than `eureka.server.limits.body-read-time-ms`, which defaults to 30
    /// seconds: a body that does not arrive in this time gets 408. Idle connections are closed
    /// immediately. axum itself has no limit for a request whose headers never end, nor for a
    /// client that does not read its response. A [`Listener`] has both, and a limit on the
    /// shutdown.
    pub fn router(&self) -> axum::Router {
        http::embedded_router(&self.state)
    }

    /// Returns the HTTP interface of the registry as a service, for a server that serves nothing
    /// else.
    ///
    /// It is the [router](Self::router) below the path `mount`, such as `/eureka`, but heartbeats
    /// and fetches are not matched against its routes.
    ///
    /// # Panics
    /// Panics if `mount` is neither empty nor begins with a slash.
    pub fn service(&self, mount: &str) -> RegistryService {
        RegistryService::new(self.state.clone(), mount.trim_end_matches('/'))
    }

    /// Returns the page for operators as a router, for an application that mounts it at a path of
    /// its own. The path ends in a slash, since the links of the page are relative:
    /// `Router::new().nest("/registry/", server.page())`.
    ///
    /// Where [`service`](Self::service) serves the registry alone,
    /// [`RegistryService::with_page`] adds the page to it.
    #[cfg(feature = "page")]
    #[cfg_attr(docsrs, doc(cfg(feature = "page")))]
    pub fn page(&self) -> axum::Router {
        page::router(&self.state)
    }

    /// Returns a [`Listener`] with the limits of the properties `eureka.server.limits.*` and the
    /// TLS of `server.ssl.*`, see [`property`](EurekaServerBuilder::property). Limits that no
    /// property set have their defaults. The setters of the listener change them.
    pub fn listener(&self, listener: TcpListener) -> Listener {
        self.announce_access(&listener);
        let (unsent, counts) = (self.state.unsent().clone(), self.state.connections().clone());
        Listener::with_limits(listener, self.tls.clone(), self.connections, unsent, counts)
    }

    /// Returns the endpoints for operators and their tools as a router, for a listener of their
    /// own: health, version, metrics, and with the feature `page` the page. They are those of
    /// [`RegistryService::with_probes`] and `RegistryService::with_page`. The text at `/` shows
    /// `mount`, the path of the registry on its own listener.
    pub fn management(&self, mount: &str) -> axum::Router {
        let router = http::management(self.state.clone(), mount);
        #[cfg(feature = "page")]
        let router = page::onto(&self.state, router);
        http::limit_senders(&self.state, router)
    }

    /// Returns true if [`listener`](Self::listener) serves HTTPS.
    pub fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads the certificates of the listener, the file of users and the file of keys again now,
    /// instead of within the next seconds. The previous ones stay in force if they are unusable,
    /// which is logged. The users and keys are read shortly after the return.
    ///
    /// # Cancel safety
    /// The files are read to the end, also if the future is dropped.
    pub async fn reload(&self) {
        if let Some(access) = self.state.access() {
            access.reload();
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let tls = tls.clone();
            crate::sync::offload(move || tls.refresh()).await;
        }
    }

    /// Returns the URLs of the peers, without those of this node and without credentials.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn peer_urls(&self) -> Vec<String> {
        let replicas = self.state.node().replication().replicas();
        replicas.into_iter().map(|(url, _)| url.to_string()).collect()
    }

    /// Returns true unless the list of peers is still awaited from its source, such as the DNS.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn are_peers_known(&self) -> bool {
        self.state.node().replication().is_known()
    }

    /// Logs who may do what, and warns if anybody in the network may change the registry.
    fn announce_access(&self, listener: &TcpListener) {
        let summary = self.access_summary.as_deref().unwrap_or("everybody may read,register,operate,peer");
        let Ok(address) = listener.local_addr() else { return };
        tracing::info!(%address, "access: {summary}");
        let is_open = self.state.access().is_none_or(|access| access.may_anonymous_write());
        if is_open && !address.ip().to_canonical().is_loopback() {
            tracing::warn!(
                %address,
                "everybody who reaches this address may change the registry: set spring.security.user.password or eureka.server.access.*"
            );
        }
    }

    /// Returns the maximum size of the registry in bytes: [`Limits::registry_bytes`], or the value
    /// that was derived from the memory at the start.
    pub fn registry_size_limit(&self) -> usize {
        self.registry().size_limit()
    }

    /// Returns all registered instances, as `GET apps` does without other regions.
    pub fn applications(&self) -> Applications {
        applications(&self.registry().full())
    }

    /// Returns a registered instance with its present lease. The name of the application may be in
    /// any case.
    pub fn instance(&self, app: &str, id: &str) -> Option<Instance> {
        self.registry().instance(&app_name(app), id, self.now())
    }

    /// Returns true if lists are served.
    ///
    /// A starting node with peers refuses them with 403 until it has copied a peer that has more
    /// instances, or has collected heartbeats for long enough, see `Peers::wait_when_empty`. A node
    /// that shows other regions refuses them until each region was asked once.
    pub fn is_open(&self) -> bool {
        self.state.is_open()
    }

    /// Leaves the cluster: cancels the registration of this node, and sends all queued changes to
    /// the peers. Returns false if a peer did not take everything within this time.
    ///
    /// It should be called when the process receives a signal to stop, and again after the last
    /// request. An unreachable peer is tried once.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest in the queue. It continues to be sent as long as the
    /// server exists.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub async fn leave(&self, within: Duration) -> bool {
        self.state.set_leaving();
        self.state.unsent().stop();
        self.cluster.withdraw();
        self.state.node().replication().flush(within).await
    }

    fn registry(&self) -> &Arc<Registry> {
        self.state.registry()
    }

    fn now(&self) -> i64 {
        self.state.now()
    }
}

impl fmt::Debug for EurekaServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaServer").field("instances", &self.registry().size()).finish_non_exhaustive()
    }
}

fn applications(snapshot: &Snapshot) -> Applications {
    let applications = snapshot.applications.iter().map(|view| {
        let instances = view.records.iter().map(|record| record.instance.clone()).collect();
        Arc::new(Application { name: view.name.clone(), instances })
    });
    Applications {
        version: Some(snapshot.version),
        hash: Some(snapshot.counts.to_string().into()),
        applications: applications.collect(),
    }
}
