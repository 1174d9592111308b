//! Start of a node: it copies the registries of its peers, and opens for traffic once its lists can
//! be trusted. `docs/quirks.md`, S22.
//!
//! ```text
//!  a peer has more ───────────────────────────────▶ copied ────────────────────────────────▶ open
//!  no peer responds, or none has more ──▶ heartbeats for two renewal intervals ──▶ final try ──▶ open
//!  nothing registers ─────────────────────▶ maximum time to wait, `wait_when_empty` ───────▶ open
//! ```
//!
//! A peer that refuses its list with 403 is not open itself, so it is as new as this node. So is a
//! Java peer whose instances all registered recently: a Spring server serves lists from its first
//! request on. In each case the node opens when its time to wait is over.
//!
//! Unlike Java, the node fetches everything from its peers itself. Java reads the copy of its
//! embedded client, which by default holds only instances that are UP.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::state::Cluster;
use super::{CHUNK, owners};
use crate::error::Error;
use crate::model::{Applications, Instance, app_name};
use crate::server::gate::Reason;
use crate::server::node::Node;
use crate::server::replication::Peer;
use crate::time::jittered;

/// Maximum number of peers that are copied at the same time.
const CONCURRENT_COPIES: usize = 8;
/// Time limit for the other peers once one was copied. A long list over a slow link may take so
/// long.
const OTHER_COPIES_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for the copies of all peers together. A peer whose list takes longer is copied by
/// reconciliation. Without the limit, a peer that sends its list byte by byte would hold the others
/// off for eight read timeouts.
const COPIES_LIMIT: Duration = Duration::from_secs(30);
/// Time limit of the final try, right before a node opens without a copy.
const FINAL_TRY_LIMIT: Duration = Duration::from_secs(8);
/// Maximum pause before a peer is asked again that is not open for traffic itself.
const CLOSED_PAUSE: Duration = Duration::from_secs(5);
/// Minimum of this pause, since the number of such tries has no limit.
const MIN_CLOSED_PAUSE: Duration = Duration::from_secs(1);
/// Lists that a peer refuses in succession until that is a warning: about a minute while this node
/// is closed.
const CLOSED_TRIES: u32 = 12;
/// Pause between two counts of the instances.
const COUNT_PAUSE: Duration = Duration::from_secs(1);
/// Renewal intervals after which a node knows every instance that sends heartbeats to it.
const SETTLING_INTERVALS: u32 = 2;

/// Result of the copy of one or all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    /// This number of instances, without registry servers, was copied from a peer that is older
    /// than this node.
    Copied(usize),
    /// The peer responds and has no more than this node.
    NothingNew,
    /// The peer is not open for traffic itself.
    Closed,
    Unreachable,
}

/// Opens the node when its time to wait is over.
pub(super) async fn open_at_limit(node: Arc<Node>) {
    sleep_until(node.gate().limit()).await;
    node.gate().open(Reason::Late);
}

/// Opens the node once it has collected heartbeats for long enough. Runs `starting` at the same
/// time.
pub(super) async fn open_when_settled(cluster: &Arc<Cluster>, starting: impl Future<Output = ()>) {
    let gate = cluster.node.gate();
    let settling = async {
        settled(cluster).await;
        if gate.is_open() {
            return;
        }
        if cluster.settings.sync_up_attempts > 0 {
            // A peer may have become reachable since the last try.
            let _ = timeout(FINAL_TRY_LIMIT, sync_up(cluster)).await;
        }
        gate.open(Reason::Collected { reached: gate.has_reached_peers() });
    };
    tokio::join!(starting, settling);
}

/// Copies the registries of the peers. After a copy the node opens at once.
pub(super) async fn copy_peers(cluster: &Arc<Cluster>) {
    let (settings, gate, replication) = (&cluster.settings, cluster.node.gate(), cluster.replication());
    if replication.is_alone() {
        gate.open(Reason::Alone);
        return;
    }
    let mut attempts = if settings.sync_up { settings.sync_up_attempts } else { 0 };
    while attempts > 0 {
        let pause = match sync_up(cluster).await {
            Copy::Copied(_) => return,
            // It opens soon, and then all nodes that start together can open.
            Copy::Closed if !gate.is_open() => settings.sync_up_pause.clamp(MIN_CLOSED_PAUSE, CLOSED_PAUSE),
            Copy::Closed | Copy::NothingNew | Copy::Unreachable => {
                attempts -= 1;
                settings.sync_up_pause
            }
        };
        sleep(jittered(pause)).await;
        if replication.has_source() && replication.peers().is_empty() {
            replication.refresh().await;
        }
    }
}

/// Waits until every instance that sends heartbeats to this node has done so, or until the node is
/// open. A node at which nothing registers has collected nothing.
async fn settled(cluster: &Cluster) {
    let (node, gate, interval) = (&cluster.node, cluster.node.gate(), cluster.renewal_interval);
    let mut first = None;
    while !gate.is_open() {
        let now = Instant::now();
        if node.registry().size() > cluster.own_leases() {
            first.get_or_insert(now);
        }
        let is_collected = gate.started().elapsed() >= interval.saturating_mul(SETTLING_INTERVALS);
        if is_collected && first.is_some_and(|first| now.saturating_duration_since(first) >= interval) {
            return;
        }
        if is_collected && first.is_none() {
            gate.note_empty();
        }
        sleep(COUNT_PAUSE).await;
    }
}

/// Copies each peer once. Opens the node if one of them has more than this node. Returns the best
/// result.
async fn sync_up(cluster: &Arc<Cluster>) -> Copy {
    let mut is_synced = cluster.is_synced.lock().await;
    if *is_synced {
        return Copy::Copied(0);
    }
    let (gate, list) = (cluster.node.gate(), cluster.replication().peers());
    let mut waiting = list.iter().filter(|peer| !peer.is_own()).cloned();
    let mut copies = JoinSet::new();
    let mut best: Option<(Arc<str>, usize)> = None;
    let mut deadline = Instant::now() + COPIES_LIMIT;
    let (mut reached, mut closed) = (false, false);
    loop {
        while copies.len() < CONCURRENT_COPIES
            && let Some(peer) = waiting.next()
        {
            let cluster = cluster.clone();
            copies.spawn(async move { (peer.url().as_str().clone(), copy(&cluster, &peer).await) });
        }
        let next = tokio::select! {
            biased;
            next = copies.join_next() => next,
            () = sleep_until(deadline) => {
                if best.is_none() {
                    tracing::warn!(limit = ?COPIES_LIMIT, "copying the registries of the peers takes too long, trying again");
                }
                None
            }
        };
        match next {
            None => break,
            Some(Ok((url, copy))) => {
                reached |= copy != Copy::Unreachable;
                closed |= copy == Copy::Closed;
                if let Copy::Copied(instances) = copy
                    && best.as_ref().is_none_or(|&(_, most)| instances > most)
                {
                    best = Some((url, instances));
                    deadline = deadline.min(Instant::now() + OTHER_COPIES_LIMIT);
                }
            }
            Some(Err(error)) => tracing::error!(%error, "copying the registry of a peer panicked"),
        }
    }
    *is_synced = best.is_some();
    match best {
        Some((peer, instances)) => {
            gate.open(Reason::Copied { peer, instances });
            return Copy::Copied(instances);
        }
        None if list.is_empty() => gate.stay_closed(Reason::Unlisted),
        None if reached => gate.stay_closed(Reason::Peers),
        None => gate.stay_closed(Reason::Unreachable),
    }
    match (reached, closed) {
        (_, true) => Copy::Closed,
        (true, _) => Copy::NothingNew,
        (false, _) => Copy::Unreachable,
    }
}

/// Copies the registry of one peer.
async fn copy(cluster: &Cluster, peer: &Peer) -> Copy {
    let (node, url) = (&cluster.node, peer.url().as_str());
    let began = Instant::now();
    let fetched = match peer.registry().await {
        Ok(fetched) => fetched,
        Err(error) if is_closed(&error) => {
            if peer.note_closed() == CLOSED_TRIES {
                tracing::warn!(peer = %url, %error, "peer still refuses its registry: it is not open for traffic, or the user in its URL may not read");
            } else {
                tracing::debug!(peer = %url, "peer is not open for traffic either");
            }
            return Copy::Closed;
        }
        Err(error) => {
            tracing::info!(peer = %url, %error, "cannot copy the registry of a peer");
            return Copy::Unreachable;
        }
    };
    peer.note_open();
    // An identity of this node may change a lease as soon as it is copied.
    let owned = owners::fetch(node, peer).await;
    // A tower-eureka server serves lists only once they can be trusted.
    let is_new = fetched.digest.is_none() && is_new(cluster, peer, &fetched.list);
    let servers_app = app_name(&cluster.own.app);
    let (mut copied, mut servers, mut refused, mut reason) = (0, 0, 0, None);
    for (seen, instance) in fetched.list.applications.iter().flat_map(|application| &application.instances).enumerate()
    {
        if seen % CHUNK == CHUNK - 1 {
            tokio::task::yield_now().await;
        }
        // Clients may have registered or cancelled here in the meantime. Lists show leases as of
        // their last change, so leases begin again.
        let now = node.now();
        let is_server = instance.app() == &*servers_app;
        let instance = peer.clock().in_local_time(Instance::clone(instance), node.wall_ahead_ms());
        let owner = owned.of(instance.app(), instance.id());
        match node.registry().adopt_owned(instance, owner, now, now) {
            // Registry servers register at each other: their number does not show what a peer
            // knows.
            Ok(_) if is_server => servers += 1,
            Ok(_) => copied += 1,
            Err(error) => {
                refused += 1;
                reason.get_or_insert(error);
            }
        }
    }
    owners::learn(node, &owned).await;
    if let Some(reason) = reason {
        peer.log_refused_copies(refused, reason);
    }
    if copied + servers > 0 {
        tracing::info!(peer = %url, copied, servers, is_new, elapsed = ?began.elapsed(), "copied the registry of a peer");
    }
    if copied == 0 || is_new { Copy::NothingNew } else { Copy::Copied(copied) }
}

/// Returns true if the peer responded that it is not open for traffic.
fn is_closed(error: &Error) -> bool {
    error.status() == Some(StatusCode::FORBIDDEN.as_u16()) && !error.is_paused()
}

/// Returns true if every instance of this list registered within the time in which a node collects
/// heartbeats: then the server started no earlier.
fn is_new(cluster: &Cluster, peer: &Peer, list: &Applications) -> bool {
    let settling = cluster.renewal_interval.saturating_mul(SETTLING_INTERVALS);
    let Ok(settling_ms) = i64::try_from(settling.as_millis()) else { return false };
    let instances = || list.applications.iter().flat_map(|application| &application.instances);
    let node = &cluster.node;
    let now = node.published_now().saturating_add(peer.clock().ahead_ms(node.wall_ahead_ms()));
    // The clock of the peer is no earlier than the latest time in its list.
    let now = instances().filter_map(|instance| instance.last_updated_timestamp).fold(now, i64::max);
    let began = now.saturating_sub(settling_ms);
    instances().all(|instance| instance.lease.is_some_and(|lease| lease.registration_timestamp > began))
}
