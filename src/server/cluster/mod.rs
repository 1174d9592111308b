//! Tasks of a node that has peers: start-up, reconciliation and the node's own lease.
//!
//! ```text
//!  start: list of peers ──▶ identify ──▶ sync up: copy what the peers have ──▶ open for traffic
//!                                   └──▶ own lease: register, renew
//!  per peer: send the queue (replication) │ reconcile: compare with the peer, every 30 s
//! ```
//!
//! | module | content |
//! |---|---|
//! | `sync_up` | start of a node: copies of the peers' registries, and the time at which lists are served |
//! | `reconcile` | comparison with a peer; of two states of an instance the newer one is kept |
//! | `owners` | owners of the leases that a peer has |
//! | `own_lease` | registration of this node in its own registry |

mod own_lease;
mod owners;
mod reconcile;
mod state;
mod sync_up;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use self::reconcile::reconcile;
pub(in crate::server) use self::state::Cluster;
use super::replication::{LocalNode, Peer};
use super::supervise::supervise;
use crate::time::{Backoff, jittered};

/// Number of leases between two yields to other tasks.
const CHUNK: usize = 100;
/// Minimum and maximum pause between two calls of the source of the list of peers, as long as it
/// has never returned one.
const SOURCE_PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Minimum and maximum pause before a peer URL that led to this node is checked again. At a start
/// the other nodes behind a load balancer may come later.
const IDENTIFY_PAUSE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(180)];
/// Time limit for the check of all peer URLs at the start.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(2);

impl Cluster {
    /// Starts the tasks. They end when the returned set is dropped.
    pub(in crate::server) fn start(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        if self.replication().has_cluster() {
            tasks.spawn(self.clone().run_peers());
            tasks.spawn(self.clone().begin());
            // In a task of its own, so that nothing can delay it.
            tasks.spawn(sync_up::open_at_limit(self.node.clone()));
        }
        tasks
    }

    /// Runs one task per peer, and refreshes the list of peers.
    async fn run_peers(self: Arc<Self>) {
        let replication = self.replication();
        let local = LocalNode {
            registry: self.node.registry().clone(),
            clock: self.node.clock(),
            node_id: replication.node_id().clone(),
            take_newer_copies: self.settings.take_newer_copies,
        };
        let mut workers = JoinSet::new();
        let mut running: Vec<(Arc<Peer>, AbortHandle)> = Vec::new();
        let interval = self.settings.refresh_interval;
        let mut pauses = Backoff::new(SOURCE_PAUSE[0].min(interval), SOURCE_PAUSE[1].min(interval));
        loop {
            let list = replication.peers();
            running.retain(|(peer, worker)| {
                let is_listed = list.iter().any(|listed| Arc::ptr_eq(listed, peer));
                if !is_listed {
                    worker.abort();
                }
                is_listed
            });
            for peer in list.iter() {
                if !running.iter().any(|(known, _)| Arc::ptr_eq(known, peer)) {
                    let worker = workers.spawn(self.clone().run_peer(peer.clone(), local.clone()));
                    running.push((peer.clone(), worker));
                }
            }
            while workers.try_join_next().is_some() {}
            if !replication.has_source() {
                // The list never changes. Dropping the set would abort the workers.
                while workers.join_next().await.is_some() {}
                return;
            }
            let wait = if replication.is_listed() { jittered(interval) } else { pauses.next() };
            tokio::select! {
                () = async {
                    sleep(wait).await;
                    replication.refresh().await;
                } => {}
                // Another task refreshed the list: at the start, or before it copied the peers.
                () = replication.list_changed() => {}
            }
        }
    }

    /// Sends the queue of a peer, and reconciles with the peer.
    async fn run_peer(self: Arc<Self>, peer: Arc<Peer>, local: LocalNode) {
        let replicating = supervise("replication", || self.clone().replicate(peer.clone(), local.clone()));
        let reconciling = async {
            if !self.settings.reconcile_interval.is_zero() {
                supervise("reconciliation", || reconcile(self.clone(), peer.clone())).await;
            }
        };
        tokio::join!(replicating, reconciling);
    }

    /// Sends the queue of a peer. While the URL of the peer leads to this node, checks it every few
    /// minutes.
    async fn replicate(self: Arc<Self>, peer: Arc<Peer>, local: LocalNode) {
        let url = peer.url().as_str();
        loop {
            peer.clone().run(local.clone()).await;
            if self.replication().is_alone() {
                tracing::warn!(
                    peer = %url,
                    "no peer is left: every peer URL leads to this node, nothing is replicated; lists lack the \
                     instances of other nodes behind a load balancer until it leads to one of them, so name each \
                     node by a URL of its own"
                );
            } else {
                tracing::info!(peer = %url, "peer URL leads to this node: it is skipped, and checked again later");
            }
            let mut pauses = Backoff::new(IDENTIFY_PAUSE[0], IDENTIFY_PAUSE[1]);
            while peer.is_own() {
                sleep(pauses.next()).await;
                peer.identify(&local.node_id).await;
            }
            tracing::info!(peer = %url, "peer URL leads to another node again");
        }
    }

    /// Finds the peers, copies their registries, opens the node, and keeps its own lease.
    async fn begin(self: Arc<Self>) {
        let starting = async {
            self.replication().refresh().await;
            // A peer that responds later is identified by the first batch.
            let _ = timeout(IDENTIFY_LIMIT, self.replication().identify()).await;
            tokio::join!(sync_up::copy_peers(&self), supervise("own lease", || self.clone().keep_own_lease()));
        };
        sync_up::open_when_settled(&self, starting).await;
    }

    async fn keep_own_lease(self: Arc<Self>) {
        let Some(own) = &self.own_lease else { return };
        loop {
            // Without another node nobody needs the lease.
            if !self.replication().is_alone() {
                own.renew(&self.node);
            }
            sleep(jittered(own.interval())).await;
        }
    }
}
