//! The other registry servers of the cluster: telling them what clients said here, and learning from them at the start.
//!
//! ```text
//!  Node: a change of client origin ──▶ Peers::tell ──▶ Queue of each peer ──▶ batches ──▶ POST peerreplication/batch
//!                                                         ▲ Register, after 404                │
//!  Registry ◀── the peer's copy, after 409 ───────────────┴────────────────────────────────────┘
//!  Registry ◀── copy: everything a peer has, at the start, while lists are answered with 403
//!  Registry ◀── follow: what a peer has newer, by its delta ──▶ Queue, where it is newer here
//! ```
//!
//! A request never waits for a peer: it puts an entry of some 200 bytes into a bounded queue. What travels is read from the registry when
//! a batch is made, so it is never older than the batch.
//!
//! | module | what it knows |
//! |---|---|
//! | `queue` | what waits, in which order, when it may go; no IO |
//! | `peer` | one peer: its queue, the batches, its responses, its clock |
//! | `batch` | the items of a batch as they are sent |
//! | `list` | which URLs are peers |
//! | `gate` | whether lists are served, and the reason |
//! | `copy` | the start: copying, and when lists are worth serving |
//! | `follow` | later: what a peer has differently, and whose state counts |
//! | `restart` | a task that a panic does not end |
//! | `own` | the node's own instance |
//! | `turns` | that changes of an instance are queued in their order |
//! | `settings` | what it can be told |

mod batch;
mod copy;
mod follow;
mod gate;
mod list;
mod own;
mod peer;
mod queue;
mod refused;
mod restart;
mod settings;
mod turns;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use self::follow::follow;
use self::gate::{Gate, Reason};
use self::list::Me;
use self::own::OwnLease;
use self::peer::{Peer, Surroundings};
use self::queue::{Change, Target};
pub(super) use self::restart::restarted;
pub(super) use self::settings::PeerSettings;
use self::settings::UNUSABLE_URL;
use self::turns::Turns;
use super::Error;
use super::node::Node;
use super::regions::Regions;
use crate::config::ServiceUrl;
use crate::model::{InstanceStatus, ReplicationAction};
use crate::time::{Backoff, Clock, jittered};
use crate::transport::{HttpStack, ServerClock, Transport};

/// The source of the list gets this long to answer.
const SOURCE_LIMIT: Duration = Duration::from_secs(30);
/// Between two questions to it while it has never answered.
const SOURCE_PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Shortest and longest pause before a peer whose URL led to this node is asked again. At a start the
/// other nodes behind a balancer may come later.
const IDENTIFY_PAUSE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(180)];
/// Time limit for asking all peers at the start.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(2);

/// The peers of this node, as the node sees them.
#[derive(Debug)]
pub(super) struct Peers {
    settings: PeerSettings,
    stack: HttpStack,
    /// The copies of other regions here.
    regions: Option<Arc<Regions>>,
    /// Drawn anew at each start, so that a node recognises its own batches.
    id: Arc<str>,
    own: Option<OwnLease>,
    own_hosts: [String; 2],
    /// Whether the source of the list has ever answered.
    listed: AtomicBool,
    /// The list is another.
    changed: Notify,
    gate: Gate,
    /// A peer that knows more was copied. Locked while the peers are being asked.
    is_copied: tokio::sync::Mutex<bool>,
    turns: Turns,
    list: ArcSwap<Vec<Arc<Peer>>>,
}

impl Peers {
    pub(super) fn new(settings: PeerSettings, regions: Option<Arc<Regions>>, clock: Clock) -> Result<Self, Error> {
        let own = settings.own.instance(clock.now_ms())?;
        let own_hosts = match &own {
            Some(own) => [own.host_name(), own.ip_addr()].map(|host| host.unwrap_or_default().to_owned()),
            None => [&settings.own.host_name, &settings.own.ip_addr].map(|host| host.clone().unwrap_or_default()),
        };
        #[cfg(feature = "dns")]
        let settings = {
            let mut settings = settings;
            settings.settle_source(&own_hosts[0]);
            settings
        };
        let mut peers = Self {
            stack: settings.stack(settings.connect_timeout, settings.read_timeout),
            regions,
            id: format!("{:032x}", fastrand::u128(..)).into(),
            own: own.filter(|_| settings.register_own).map(OwnLease::new),
            own_hosts,
            listed: AtomicBool::new(false),
            changed: Notify::new(),
            gate: Gate::new(Reason::Single, Duration::ZERO),
            is_copied: tokio::sync::Mutex::new(false),
            turns: Turns::new(),
            list: ArcSwap::default(),
            settings,
        };
        let urls = peers.others(peers.settings.zones.urls())?;
        peers.list.store(Arc::new(urls.into_iter().map(|url| peers.peer(url)).collect()));
        if peers.has_cluster() {
            let wait = peers.settings.wait_when_empty;
            let is_unneeded = wait.is_zero() || !peers.settings.copy;
            peers.gate = Gate::new(if is_unneeded { Reason::Unneeded } else { Reason::Asking }, wait);
        }
        Ok(peers)
    }

    /// The id of the node's own instance, if it registers itself.
    pub(super) fn own_id(&self) -> Option<Arc<str>> {
        self.own.as_ref().filter(|_| self.has_cluster()).map(|own| own.id().into())
    }

    /// Whether this is the id that the node sends with its batches.
    pub(super) fn is_me(&self, id: &[u8]) -> bool {
        id == self.id.as_bytes()
    }

    /// Whether every URL led back here. A list that could not be had yet says nothing of that.
    fn is_alone(&self) -> bool {
        let list = self.list.load();
        let known = self.settings.source.is_none() || self.listed.load(Ordering::Acquire);
        known && list.iter().all(|peer| peer.is_me())
    }

    /// The reason for which lists are served or refused.
    pub(super) fn gate_reason(&self) -> String {
        self.gate.describe()
    }

    pub(super) fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Number of leases in the registry that are this node's own.
    fn own_leases(&self) -> usize {
        usize::from(self.own.as_ref().is_some_and(OwnLease::is_present))
    }

    /// To be held while an instance is changed and the change is queued; heartbeats do without.
    pub(super) fn turn(&self, app: &str, id: &str) -> Option<MutexGuard<'_, ()>> {
        (!self.list.load().is_empty()).then(|| self.turns.take(app, id))
    }

    /// URLs of the peers, each with its availability: the peer responded to the last request and
    /// took the last batch.
    ///
    /// Java looks for an instance with the peer's host among its own application instead, which is
    /// wrong in both directions.
    pub(super) fn replicas(&self) -> Vec<(Arc<str>, bool)> {
        let list = self.list.load();
        let others = list.iter().filter(|peer| !peer.is_me());
        others.map(|peer| (peer.url().as_str().clone(), peer.is_available())).collect()
    }

    /// Queues a change for every peer.
    pub(super) fn tell(&self, action: ReplicationAction, app: &str, id: &str, status: Option<InstanceStatus>) {
        let peers = self.list.load();
        if peers.is_empty() {
            return;
        }
        let target = Arc::new(Target { app: app.into(), id: id.into() });
        for peer in peers.iter() {
            peer.tell(Change { target: target.clone(), action, status });
        }
    }

    /// Takes out what waits for the first peer.
    #[cfg(test)]
    pub(super) fn told(&self) -> Vec<(ReplicationAction, Option<InstanceStatus>)> {
        self.list.load()[0].take_told()
    }

    /// Starts what runs on its own. It ends when the tasks are dropped.
    pub(super) fn start(node: &Arc<Node>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if node.peers().has_cluster() {
            tasks.spawn(supervise(node.clone()));
            tasks.spawn(begin(node.clone()));
            // On its own, since nothing may keep it.
            tasks.spawn(copy::open_at_limit(node.clone()));
        }
        tasks
    }

    /// Takes the node out of the registry, its own and the peers'.
    pub(super) fn withdraw(&self, node: &Node) {
        if let Some(own) = &self.own
            && self.settings.unregister_own
        {
            own.leave(node);
        }
    }

    /// Hands over what is queued. False if not everything was taken in time.
    pub(super) async fn flush(&self, within: Duration) -> bool {
        let peers = self.list.load_full();
        let mut flushes = JoinSet::new();
        for peer in peers.iter() {
            let peer = peer.clone();
            flushes.spawn(async move { peer.flush().await });
        }
        timeout(within, async { while flushes.join_next().await.is_some() {} }).await.is_ok()
            && peers.iter().all(|peer| peer.is_handed_over())
    }

    /// Finds out which of the peers are this node under a name that it does not know.
    async fn identify(&self) {
        let mut asked = JoinSet::new();
        for peer in self.list.load().iter() {
            let (peer, id) = (peer.clone(), self.id.clone());
            asked.spawn(async move { peer.identify(&id).await });
        }
        while asked.join_next().await.is_some() {}
    }

    pub(super) fn has_cluster(&self) -> bool {
        !self.list.load().is_empty() || self.settings.source.is_some()
    }

    fn peer(&self, url: ServiceUrl) -> Arc<Peer> {
        let clock = Arc::new(ServerClock::default());
        let stack = self.stack.clone().with_server_clock(clock.clone());
        let transport = Transport::new(vec![url.clone()], stack).for_server().in_background();
        // A Java peer knows other regions if this node does.
        let transport = if self.regions.is_some() { transport.without_other_regions() } else { transport };
        Arc::new(Peer::new(url, transport, clock, self.settings.limits))
    }

    /// Leaves out the node itself.
    fn others(&self, mut urls: Vec<ServiceUrl>) -> Result<Vec<ServiceUrl>, Error> {
        let me = Me {
            url: self.settings.my_url.as_deref(),
            hosts: [&self.own_hosts[0], &self.own_hosts[1]],
            port: self.settings.own.port,
        };
        urls.retain(|url| !me.is(url));
        if let Some(url) = urls.iter().find(|url| url.is_secure()) {
            self.settings.can_tls().map_err(|why| Error::no_tls(url.as_str(), &why))?;
        }
        Ok(urls)
    }

    /// Goes over to these peers. Those that stay keep their queues, those that vanish lose them. An empty list changes nothing.
    fn update(&self, urls: Vec<ServiceUrl>) {
        if urls.is_empty() {
            tracing::warn!("the list of peers is empty, the last one stays in use");
            return;
        }
        let old = self.list.load();
        let peers: Vec<_> = urls
            .into_iter()
            .map(|url| {
                let known = old.iter().find(|peer| peer.url().as_str() == url.as_str());
                known.cloned().unwrap_or_else(|| {
                    tracing::info!(peer = %url.as_str(), "new peer");
                    self.peer(url)
                })
            })
            .collect();
        for gone in old.iter().filter(|old| !peers.iter().any(|peer| Arc::ptr_eq(peer, old))) {
            tracing::info!(peer = %gone.url().as_str(), "peer no longer listed");
        }
        self.list.store(Arc::new(peers));
    }

    /// Asks the source of peers, if there is one.
    async fn refresh(&self) {
        let Some(source) = &self.settings.source else { return };
        let urls = match timeout(SOURCE_LIMIT, source.urls()).await.unwrap_or_else(|late| Err(late.into())) {
            Ok(urls) => ServiceUrl::parse_list(&urls)
                .map_err(|error| Error::peers(UNUSABLE_URL, Arc::new(error)))
                .and_then(|urls| self.others(urls)),
            Err(error) => Err(Error::source(error)),
        };
        match urls {
            Ok(urls) => {
                self.update(urls);
                self.listed.store(true, Ordering::Release);
                self.changed.notify_one();
            }
            Err(error) => tracing::warn!(%error, "the list of peers cannot be had, the last one stays in use"),
        }
    }
}

/// Keeps one task per peer.
async fn supervise(node: Arc<Node>) {
    let peers = node.peers();
    let surroundings = Surroundings {
        registry: node.registry().clone(),
        clock: node.clock(),
        node_id: peers.id.clone(),
        take_newer_copies: peers.settings.take_newer_copies,
    };
    let mut workers = JoinSet::new();
    let mut running: Vec<(Arc<Peer>, AbortHandle)> = Vec::new();
    let interval = peers.settings.refresh_interval;
    let mut pauses = Backoff::new(SOURCE_PAUSE[0].min(interval), SOURCE_PAUSE[1].min(interval));
    loop {
        let list = peers.list.load_full();
        running.retain(|(peer, worker)| {
            let listed = list.iter().any(|listed| Arc::ptr_eq(listed, peer));
            if !listed {
                worker.abort();
            }
            listed
        });
        for peer in list.iter() {
            if !running.iter().any(|(known, _)| Arc::ptr_eq(known, peer)) {
                let worker = workers.spawn(keep(node.clone(), peer.clone(), surroundings.clone()));
                running.push((peer.clone(), worker));
            }
        }
        while workers.try_join_next().is_some() {}
        if peers.settings.source.is_none() {
            // The list never changes; this keeps the workers.
            while workers.join_next().await.is_some() {}
            return;
        }
        let listed = peers.listed.load(Ordering::Acquire);
        let wait = if listed { jittered(interval) } else { pauses.next() };
        tokio::select! {
            () = async {
                sleep(wait).await;
                peers.refresh().await;
            } => {}
            // The list was had at the start, or when a copy was tried.
            () = peers.changed.notified() => {}
        }
    }
}

/// Empties the queue of a peer, and follows it.
async fn keep(node: Arc<Node>, peer: Arc<Peer>, surroundings: Surroundings) {
    let telling = restarted("telling a peer", || tell(node.clone(), peer.clone(), surroundings.clone()));
    let following = async {
        if !node.peers().settings.comparison_interval.is_zero() {
            restarted("following a peer", || follow(node.clone(), peer.clone())).await;
        }
    };
    tokio::join!(telling, following);
}

/// Empties the queue of a peer, and asks again every few minutes while its URL leads to this node.
async fn tell(node: Arc<Node>, peer: Arc<Peer>, surroundings: Surroundings) {
    let url = peer.url().as_str();
    loop {
        peer.clone().run(surroundings.clone()).await;
        if node.peers().is_alone() {
            tracing::warn!(peer = %url, "no peer is left: every peer URL leads to this node, which replicates to nobody");
        } else {
            tracing::info!(peer = %url, "the URL of a peer leads to this node: it is left out, and asked again later");
        }
        let mut pauses = Backoff::new(IDENTIFY_PAUSE[0], IDENTIFY_PAUSE[1]);
        while peer.is_me() {
            sleep(pauses.next()).await;
            peer.identify(&surroundings.node_id).await;
        }
        tracing::info!(peer = %url, "the URL of a peer leads to another node again");
    }
}

/// Finds out who the peers are, copies what they know, opens, and keeps the node's own lease.
async fn begin(node: Arc<Node>) {
    let peers = node.peers();
    let starting = async {
        peers.refresh().await;
        // One that is too slow is found out by the first batch.
        let _ = timeout(IDENTIFY_LIMIT, peers.identify()).await;
        tokio::join!(copy::copy_peers(&node), restarted("the node's own lease", || keep_own(node.clone())));
    };
    copy::begin(&node, starting).await;
}

async fn keep_own(node: Arc<Node>) {
    let peers = node.peers();
    let Some(own) = &peers.own else { return };
    loop {
        // Without another node there is nobody to whom its own lease would say anything.
        if !peers.is_alone() {
            own.renew(&node);
        }
        sleep(jittered(own.interval())).await;
    }
}
