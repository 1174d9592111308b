//! Replication: changes that clients made here are sent to all peers.
//!
//! ```text
//!  Node: a change of client origin ──▶ Replication::replicate ──▶ queue of each peer
//!                                                                  │         ▲ register, after 404
//!                                                                  ▼         │
//!                                                POST peerreplication/batch ─┴▶ response per change
//!                                                                            │ newer copy, after 409
//!  Registry ◀────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A request never waits for a peer: it puts an entry of about 200 bytes into a bounded queue. The
//! instance itself is read from the registry when the batch is built, so it is never older than the
//! batch.
//!
//! This module is below the node. `cluster`, above the node, drives it.
//!
//! | module | content |
//! |---|---|
//! | `queue` | changes that wait for one peer, their order and their times; no IO |
//! | `peer` | one peer: its queue, its batches, its responses, its clock |
//! | `loopback` | detection of a peer URL that leads to this node |
//! | `availability`, `stats` | log lines about peers that were lost and found; counters of batches |
//! | `batch` | items of a batch, as they are sent |
//! | `refused` | copies that a registry refused |
//! | `own_url` | recognition of this node's own URL by its text |
//! | `locks` | order of the changes of an instance |

mod availability;
mod batch;
mod local_node;
mod locks;
mod loopback;
mod own_url;
mod peer;
mod queue;
mod refused;
mod stats;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(in crate::server) use self::local_node::LocalNode;
use self::locks::StripedLocks;
use self::own_url::OwnUrl;
use self::peer::OUTAGE;
pub(in crate::server) use self::peer::Peer;
#[cfg(feature = "page")]
pub(in crate::server) use self::peer::PeerOverview;
use self::queue::{BATCH_SIZE, Limits};
pub(in crate::server) use self::queue::{Change, Doubt, LostChanges, Target};
pub(in crate::server) use self::refused::RefusedCopies;
#[cfg(feature = "prometheus")]
pub(in crate::server) use self::stats::PeerState;
use super::Error;
use super::events::Events;
use super::settings::{Peers, UNUSABLE_URL};
use crate::config::{ServerSource, ServiceUrl};
use crate::model::{InstanceStatus, ReplicationAction};
use crate::transport::{HttpStack, ServerClock, Transport};

/// Time limit of one call of the source of the list of peers.
const SOURCE_LIMIT: Duration = Duration::from_secs(30);

/// Replication to the peers of this node.
#[derive(Debug)]
pub(in crate::server) struct Replication {
    stack: HttpStack,
    limits: Limits,
    /// Set if this node shows other regions. Then requests to peers exclude them, since a Java peer
    /// may show them, too.
    excludes_other_regions: bool,
    check_tls: Result<(), String>,
    /// Sent with each batch. It is random, so that a node recognises its own batches.
    node_id: Arc<str>,
    my_url: Option<String>,
    own_hosts: [String; 2],
    own_port: Option<u16>,
    source: Option<ServerSource>,
    /// Set once the source has returned a list.
    is_listed: AtomicBool,
    list_changed: Notify,
    locks: StripedLocks,
    list: ArcSwap<Vec<Arc<Peer>>>,
    events: Arc<Events>,
}

impl Replication {
    /// Creates the replication of a node with these host names and this port.
    ///
    /// # Errors
    /// Fails if a peer has an `https` URL and TLS cannot be used.
    pub(in crate::server) fn new(
        settings: &Peers,
        own_hosts: [String; 2],
        own_port: Option<u16>,
        excludes_other_regions: bool,
        events: Arc<Events>,
    ) -> Result<Self, Error> {
        let (urls, source) = (settings.zones.urls(), settings.list_source(&own_hosts[0]));
        // Reads the CAs of the system, which takes milliseconds.
        let may_need_tls = source.is_some() || urls.iter().any(ServiceUrl::is_secure);
        let replication = Self {
            stack: settings.outbound.stack(settings.connect_timeout, settings.read_timeout),
            limits: Limits {
                capacity: settings.queue_capacity,
                batch: BATCH_SIZE,
                workers: settings.batches_in_flight,
                life: settings.replication_time,
                outage: settings.outage_limit,
                doubt: (!settings.reconcile_interval.is_zero()).then_some(OUTAGE),
            },
            excludes_other_regions,
            check_tls: if may_need_tls { settings.outbound.check_tls() } else { Ok(()) },
            node_id: format!("{:032x}", fastrand::u128(..)).into(),
            my_url: settings.my_url.clone(),
            source,
            own_hosts,
            own_port,
            is_listed: AtomicBool::new(false),
            list_changed: Notify::new(),
            locks: StripedLocks::new(),
            list: ArcSwap::default(),
            events,
        };
        let urls = replication.without_own(urls)?;
        replication.list.store(Arc::new(urls.into_iter().map(|url| replication.peer(url)).collect()));
        Ok(replication)
    }

    /// Returns true if this is the id that the node sends with its batches.
    pub(in crate::server) fn is_own_id(&self, id: &[u8]) -> bool {
        id == self.node_id.as_bytes()
    }

    pub(in crate::server) fn node_id(&self) -> &Arc<str> {
        &self.node_id
    }

    /// Returns true if the settings name peers, or a source of them.
    pub(in crate::server) fn has_cluster(&self) -> bool {
        self.has_source() || !self.list.load().is_empty()
    }

    /// Returns true if the list of peers may change.
    pub(in crate::server) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// Returns true once the source has returned a list.
    pub(in crate::server) fn is_listed(&self) -> bool {
        self.is_listed.load(Ordering::Acquire)
    }

    /// Returns true unless the list of peers is still awaited from its source.
    pub(in crate::server) fn is_known(&self) -> bool {
        !self.has_source() || self.is_listed()
    }

    /// Returns true if each peer URL leads to this node. Before the source has returned a list,
    /// that is unknown.
    pub(in crate::server) fn is_alone(&self) -> bool {
        self.is_known() && self.list.load().iter().all(|peer| peer.is_own())
    }

    /// Returns the peers as they are now.
    pub(in crate::server) fn peers(&self) -> Arc<Vec<Arc<Peer>>> {
        self.list.load_full()
    }

    /// Returns the URL of each peer, and whether the peer is available: it responded to the last
    /// request and took the last batch.
    ///
    /// Java looks for an instance with the peer's host in its own application instead, which is
    /// wrong in both directions.
    pub(in crate::server) fn replicas(&self) -> Vec<(Arc<str>, bool)> {
        let list = self.list.load();
        let others = list.iter().filter(|peer| !peer.is_own());
        others.map(|peer| (peer.url().as_str().clone(), peer.is_available())).collect()
    }

    /// Returns the state of each peer, in the order of the settings.
    #[cfg(feature = "page")]
    pub(in crate::server) fn overviews(&self) -> Vec<PeerOverview> {
        self.list.load().iter().map(|peer| peer.overview()).collect()
    }

    /// Locks an instance until its change is queued. Heartbeats need no lock.
    pub(in crate::server) fn lock(&self, app: &str, id: &str) -> Option<MutexGuard<'_, ()>> {
        (!self.list.load().is_empty()).then(|| self.locks.lock(app, id))
    }

    /// Queues a change for every peer.
    pub(in crate::server) fn replicate(
        &self,
        action: ReplicationAction,
        app: &str,
        id: &str,
        status: Option<InstanceStatus>,
    ) {
        self.enqueue(app, id, |target| Change::new(target, action, status));
    }

    /// Queues a change of metadata for every peer, as a registration.
    pub(in crate::server) fn replicate_metadata(&self, app: &str, id: &str) {
        self.enqueue(app, id, Change::metadata);
    }

    fn enqueue(&self, app: &str, id: &str, change: impl Fn(Arc<Target>) -> Change) {
        let peers = self.list.load();
        if peers.is_empty() {
            return;
        }
        let target = Arc::new(Target { app: app.into(), id: id.into() });
        for peer in peers.iter() {
            peer.enqueue(change(target.clone()));
        }
    }

    /// Removes the queued changes of the first peer.
    #[cfg(test)]
    pub(in crate::server) fn drain_first_queue(&self) -> Vec<(ReplicationAction, Option<InstanceStatus>)> {
        self.list.load()[0].drain_queue()
    }

    /// Sends all queued changes. Returns false if a peer did not take all of them in time.
    pub(in crate::server) async fn flush(&self, limit: Duration) -> bool {
        let peers = self.list.load_full();
        let mut flushes = JoinSet::new();
        for peer in peers.iter() {
            let peer = peer.clone();
            flushes.spawn(async move { peer.flush().await });
        }
        timeout(limit, async { while flushes.join_next().await.is_some() {} }).await.is_ok()
            && peers.iter().all(|peer| peer.is_flushed())
    }

    /// Finds the peer URLs that lead to this node although its settings do not say so.
    pub(in crate::server) async fn identify(&self) {
        let mut requests = JoinSet::new();
        for peer in self.list.load().iter() {
            let (peer, id) = (peer.clone(), self.node_id.clone());
            requests.spawn(async move { peer.identify(&id).await });
        }
        while requests.join_next().await.is_some() {}
    }

    /// Asks the source for the list of peers. Without a source it does nothing.
    pub(in crate::server) async fn refresh(&self) {
        let Some(source) = &self.source else { return };
        let urls = match timeout(SOURCE_LIMIT, source.urls()).await.unwrap_or_else(|late| Err(late.into())) {
            Ok(urls) => ServiceUrl::parse_list(&urls)
                .map_err(|error| Error::peers(UNUSABLE_URL, Arc::new(error)))
                .and_then(|urls| self.without_own(urls)),
            Err(error) => Err(Error::source(error)),
        };
        match urls {
            Ok(urls) => {
                self.update(urls);
                self.is_listed.store(true, Ordering::Release);
                self.list_changed.notify_one();
            }
            Err(error) => tracing::warn!(%error, "cannot get the list of peers, keeping the last one"),
        }
    }

    /// Waits until the source has returned a list.
    pub(in crate::server) async fn list_changed(&self) {
        self.list_changed.notified().await;
    }

    /// Replaces the list. Peers in both lists keep their queues. An empty list is ignored.
    fn update(&self, urls: Vec<ServiceUrl>) {
        if urls.is_empty() {
            tracing::warn!("list of peers is empty, keeping the last one");
            return;
        }
        let old = self.list.load();
        let peers: Vec<_> = urls
            .into_iter()
            .map(|url| {
                let known = old.iter().find(|peer| peer.url().as_str() == url.as_str());
                known.cloned().unwrap_or_else(|| {
                    tracing::info!(peer = %url.as_str(), "peer added");
                    self.peer(url)
                })
            })
            .collect();
        for gone in old.iter().filter(|old| !peers.iter().any(|peer| Arc::ptr_eq(peer, old))) {
            tracing::info!(peer = %gone.url().as_str(), "peer removed");
        }
        self.list.store(Arc::new(peers));
    }

    fn peer(&self, url: ServiceUrl) -> Arc<Peer> {
        let clock = Arc::new(ServerClock::default());
        let stack = self.stack.clone().with_server_clock(clock.clone());
        let transport = Transport::new(vec![url.clone()], stack).for_server().in_background();
        let transport = if self.excludes_other_regions { transport.without_other_regions() } else { transport };
        Arc::new(Peer::new(url, transport, clock, self.limits, self.events.clone()))
    }

    /// Removes the URLs of this node.
    fn without_own(&self, mut urls: Vec<ServiceUrl>) -> Result<Vec<ServiceUrl>, Error> {
        let own = OwnUrl {
            url: self.my_url.as_deref(),
            hosts: [&self.own_hosts[0], &self.own_hosts[1]],
            port: self.own_port,
        };
        urls.retain(|url| !own.matches(url));
        if let Some(url) = urls.iter().find(|url| url.is_secure()) {
            self.check_tls.as_ref().map_err(|reason| Error::no_tls(url.as_str(), reason))?;
        }
        Ok(urls)
    }
}
