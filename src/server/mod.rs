//! The registry server: stock Java clients and servers cannot tell it from their own.
//!
//! It runs inside any axum application, or alone as `tower-eureka serve`.
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
//! # How it differs from the Java server
//!
//! * XML needs the feature `xml`. Without it, JSON is also for `*/*` and for no `Accept`, where Java answers XML; who takes nothing but
//!   XML gets 406, and who sends it 415.
//! * Lists have an `ETag`: who sends it back as `If-None-Match` gets 304 and no body while nothing has changed.
//! * An answer is never older than the last change: the cache that lags 30 s behind is off unless
//!   [`read_only_cache`](EurekaServerBuilder::read_only_cache) switches it on.
//! * In lists, `lastRenewalTimestamp` is that of the instance's last change; a single instance shows the present one.
//! * A status that a heartbeat corrects is published at once, and an override belongs to one application.
//! * Self-preservation counts the instances of this registry, not a phantom beside them: from seven instances on, one
//!   that died can be evicted. Smaller registries need [`preservation_by_application(true)`](EurekaServerBuilder::preservation_by_application)
//!   or [`self_preservation(false)`](EurekaServerBuilder::self_preservation).
//!
//! # A cluster
//!
//! With the feature `peers`, servers named by [`EurekaServerBuilder::peer_url`] are kept in step, Java servers and ours alike: each tells
//! all others what its clients said, and one that starts copies what is there. All may have the same list of URLs. What a peer has
//! differently, be it after a partition, is settled by the newer state; the rule is [below](#how-nodes-agree-again).
//!
//! # Other regions
//!
//! Clusters of other [regions](EurekaServerBuilder::remote_region) can be shown beside this one: their instances are copied every 30 s and
//! stay theirs. Clients see all of them unless they name some, in the parameter `regions`, or the
//! [fallback](EurekaServerBuilder::remote_region_fallback) is off.
//!
//! # Log
//!
//! * Registrations, cancellations, status overrides, metadata and evictions are info lines under the target `tower_eureka::server::audit`, with
//!   the application, the instance, its status and the sender. Requests that change nothing and the items of a peer's batch are debug lines, and so are
//!   all changes beyond 100 a second, of which one info line has the number.
//! * Leases that expire are summed per run: the first ten have lines of their own, and one line has the number of all.
//! * A refused write is a warning with the sender's address, the path, the status and the cause. So is a registration that is older
//!   than the record in the registry. Each of them is logged at once, then at most once a minute with the number of those between,
//!   and once when it has not been seen for a minute; there are at most 20 such lines a minute. A batch has one line.
//! * A fault that lasts is logged when it begins, once a minute while it lasts, and when it ends.
//! * Values from requests, peers and the DNS are escaped and cut after 100 characters.
//! * Self-preservation is logged when it begins and when it ends, and `GET status` shows it with the counts behind it.
//!
//! The address of a sender is known where [`Listener`] serves, or `axum::serve` with
//! `into_make_service_with_connect_info::<SocketAddr>`.
//!
//! # What is where
//!
//! `registry` is the core without IO, `view` has its encoded forms, `response_cache` the bodies of lists, `http` answers requests, `peers` (feature `peers`) keeps other servers in step
//! and `regions` copies those of other regions; `node` is where requests change something, and this module runs the timers.
//!
#![doc = include_str!("../../docs/quirks.md")]

mod audit;
mod builder;
mod error;
mod http;
mod listen;
mod memory;
mod node;
mod outcome;
#[cfg(feature = "peers")]
mod peers;
#[cfg(feature = "peers")]
mod regions;
mod registry;
mod response_cache;
#[cfg(test)]
mod tests;
mod timers;
mod unsent;
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::EurekaServerBuilder;
pub use self::error::Error;
pub use self::http::{RegistryService, ResponseFuture};
pub use self::listen::Listener;

use tokio::net::TcpListener;

pub(crate) use self::listen::Limits;
use self::node::Node;
use self::registry::Registry;
use self::response_cache::ResponseCache;
use self::timers::Timers;
use self::unsent::Unsent;
use self::view::Snapshot;
use crate::model::{Application, Applications, Instance, app_name};

/// A Eureka registry inside this process. Cheap to clone: all clones and routers share one registry.
///
/// Its timers run as tokio tasks and end when the last clone and the last router are dropped.
#[derive(Clone)]
pub struct EurekaServer(Arc<Inner>);

struct Inner {
    node: Arc<Node>,
    responses: ResponseCache,
    unsent: Arc<Unsent>,
    intake: http::Intake,
    registration_limit: usize,
    batch_limit: usize,
    deltas: bool,
    limits: Limits,
    refusals: Arc<http::Refusals>,
    _timers: Timers,
    #[cfg(feature = "peers")]
    _peers: tokio::task::JoinSet<()>,
    #[cfg(feature = "peers")]
    regions: Option<Arc<regions::Regions>>,
    #[cfg(feature = "peers")]
    _copies: Option<tokio::task::JoinSet<()>>,
}

impl EurekaServer {
    /// Starts with the settings of a stock Spring Cloud server.
    pub fn builder() -> EurekaServerBuilder {
        EurekaServerBuilder::new()
    }

    /// The registry's HTTP face, to be mounted under any path.
    ///
    /// Clients are told the path at which it is mounted: `http://host:port/eureka/` for `Router::new().nest("/eureka", ...)`. Below
    /// that, `apps` and `v2/apps` are the same.
    pub fn router(&self) -> axum::Router {
        http::router(self.clone(), "")
    }

    /// The same as a plain service, for a server that serves nothing else: with the router below `mount`, such as `/eureka`, and a
    /// shorter way to a heartbeat's handler.
    ///
    /// # Panics
    /// When `mount` is neither empty nor begins with a slash.
    pub fn service(&self, mount: &str) -> RegistryService {
        RegistryService::new(self.clone(), mount.trim_end_matches('/'))
    }

    /// A [`Listener`] with the limits that the properties `eureka.server.limits.*` gave, see
    /// [`property`](EurekaServerBuilder::property), and the defaults of the others. Its setters change them.
    pub fn listener(&self, listener: TcpListener) -> Listener {
        Listener::with_limits(listener, self.0.limits, self.0.unsent.clone())
    }

    /// Maximum size of the registry in bytes: the [one that was set](EurekaServerBuilder::registry_size_limit), else the one that was
    /// derived from the memory at the start.
    pub fn registry_size_limit(&self) -> usize {
        self.registry().size_limit()
    }

    /// Everything that is registered here, as `GET apps` answers it where no other regions are shown.
    pub fn applications(&self) -> Applications {
        applications(&self.registry().full())
    }

    /// One instance that is registered here, with its lease as it stands now. The application's name may have any case.
    pub fn instance(&self, app: &str, id: &str) -> Option<Instance> {
        self.registry().instance(&app_name(app), id, self.now())
    }

    /// Returns true if lists are served. A node with peers refuses them with 403 until it has copied a
    /// peer that knows more, or has collected heartbeats for [long
    /// enough](EurekaServerBuilder::wait_when_empty). So does one with [other
    /// regions](EurekaServerBuilder::remote_region), which lists show, until it has asked each.
    pub fn is_open(&self) -> bool {
        self.awaits_no_region() && self.node().is_open()
    }

    /// The reason for which lists are served or refused, in words.
    fn gate_reason(&self) -> String {
        if self.node().is_open() && !self.awaits_no_region() {
            return "the registries of other regions are being fetched".to_owned();
        }
        self.node().gate_reason()
    }

    #[cfg(feature = "peers")]
    fn awaits_no_region(&self) -> bool {
        self.regions().is_none_or(|regions| regions.default_set().is_empty() || regions.are_looked_at())
    }

    #[cfg(not(feature = "peers"))]
    #[allow(clippy::unused_self, reason = "there are no other regions without the feature `peers`")]
    fn awaits_no_region(&self) -> bool {
        true
    }

    /// Stops taking part: takes this node out of the registry, and hands over to the peers what is queued for them.
    ///
    /// To be called when a signal to stop came, and once more after the last request. False if a peer did not take everything within this
    /// time; one that can't be reached is tried once.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest queued; it goes on being sent as long as the server exists.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub async fn leave(&self, within: Duration) -> bool {
        let peers = self.node().peers();
        peers.withdraw(self.node());
        peers.flush(within).await
    }

    #[cfg(feature = "peers")]
    fn regions(&self) -> Option<&regions::Regions> {
        self.0.regions.as_deref()
    }

    fn node(&self) -> &Arc<Node> {
        &self.0.node
    }

    fn registry(&self) -> &Arc<Registry> {
        self.0.node.registry()
    }

    fn responses(&self) -> &ResponseCache {
        &self.0.responses
    }

    fn unsent(&self) -> &Unsent {
        &self.0.unsent
    }

    fn now(&self) -> i64 {
        self.0.node.now()
    }

    fn uptime(&self) -> Duration {
        self.0.node.uptime()
    }

    fn refusals(&self) -> &http::Refusals {
        &self.0.refusals
    }

    fn intake(&self) -> &http::Intake {
        &self.0.intake
    }

    fn registration_limit(&self) -> usize {
        self.0.registration_limit
    }

    fn batch_limit(&self) -> usize {
        self.0.batch_limit
    }

    fn has_deltas(&self) -> bool {
        self.0.deltas
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
