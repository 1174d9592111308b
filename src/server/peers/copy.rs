//! Start of a node: it copies what its peers know, and opens for traffic once its lists are worth
//! believing. `docs/quirks.md`, S22.
//!
//! ```text
//!  a peer knows more ─────────────────────────────▶ copied ─────────────────────────────▶ open
//!  no peer responds, or none knows more ──▶ heartbeats for two renewal intervals ──▶ last look ──▶ open
//!  nobody registers ──────────────────────▶ the time to wait when a copy is empty ─────────▶ open
//! ```
//!
//! A peer that refuses its list with 403 is not open itself, so it is as new as this node. So is a
//! Java peer whose instances all registered lately: a Spring server serves lists from its first
//! request on. Whatever a peer does, the node opens when its time to wait is over.
//!
//! Unlike Java the node asks the peers itself, and for everything, where Java reads the copy of its
//! embedded client, which by default holds only what is UP.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::gate::Reason;
use super::peer::Peer;
use crate::error::Error;
use crate::model::{Applications, Instance, app_name};
use crate::server::node::Node;
use crate::time::jittered;

/// Registrations between two pauses, in which others get their turn.
const CHUNK: usize = 100;
/// Maximum number of peers that are asked at the same time.
const AT_ONCE: usize = 8;
/// Time for which the other peers are waited for once one was copied. A long list over a slow link
/// may take so long.
const STRAGGLERS: Duration = Duration::from_secs(5);
/// Time limit of the look at the peers right before a node opens without a copy.
const LAST_LOOK: Duration = Duration::from_secs(8);
/// Maximum pause before a peer is asked again that is not open for traffic itself.
const CLOSED_PAUSE: Duration = Duration::from_secs(5);
/// Minimum of this pause, since such a peer is asked without a limit.
const MIN_CLOSED_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two looks at the number of instances.
const COUNT_PAUSE: Duration = Duration::from_secs(1);
/// Renewal intervals after which a node knows every instance that sends heartbeats to it.
const SETTLING_INTERVALS: u32 = 2;

/// Result of asking one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// So many instances beside registry servers were copied, and its registry is older than this
    /// node's.
    More(usize),
    /// It responds and knows no more than this node.
    NoMore,
    /// It is not open for traffic itself.
    Closed,
    Unreachable,
}

/// Opens the node when its time to wait is over.
pub(super) async fn open_at_limit(node: Arc<Node>) {
    let gate = node.peers().gate();
    sleep_until(gate.limit()).await;
    gate.open(Reason::Late);
}

/// Opens the node once it has collected heartbeats for long enough, and runs `starting` meanwhile.
pub(super) async fn begin(node: &Arc<Node>, starting: impl Future<Output = ()>) {
    let (settings, gate) = (&node.peers().settings, node.peers().gate());
    let settling = async {
        settled(node).await;
        if gate.is_open() {
            return;
        }
        if settings.copy_attempts > 0 {
            // A peer may have become reachable since the last time.
            let _ = timeout(LAST_LOOK, look(node)).await;
        }
        gate.open(Reason::Collected { reached: gate.has_reached_peers() });
    };
    tokio::join!(starting, settling);
}

/// Copies what the peers know. With a copy the node opens at once.
pub(super) async fn copy_peers(node: &Arc<Node>) {
    let peers = node.peers();
    let settings = &peers.settings;
    if peers.is_alone() {
        peers.gate().open(Reason::Alone);
        return;
    }
    let mut attempts = if settings.copy { settings.copy_attempts } else { 0 };
    while attempts > 0 {
        let pause = match look(node).await {
            Found::More(_) => return,
            // It opens soon, and then all that start with it can.
            Found::Closed if !peers.is_open() => settings.copy_pause.clamp(MIN_CLOSED_PAUSE, CLOSED_PAUSE),
            Found::Closed | Found::NoMore | Found::Unreachable => {
                attempts -= 1;
                settings.copy_pause
            }
        };
        sleep(jittered(pause)).await;
        if settings.source.is_some() && peers.list.load().is_empty() {
            peers.refresh().await;
        }
    }
}

/// Completes when every instance that sends heartbeats to this node has done so, or when it is
/// open. A node at which nothing registers has collected nothing.
async fn settled(node: &Node) {
    let peers = node.peers();
    let (gate, interval) = (peers.gate(), peers.settings.renewal_interval);
    let mut first = None;
    while !gate.is_open() {
        let now = Instant::now();
        if node.registry().size() > peers.own_leases() {
            first.get_or_insert(now);
        }
        let collected = gate.started().elapsed() >= interval.saturating_mul(SETTLING_INTERVALS);
        if collected && first.is_some_and(|first| now.saturating_duration_since(first) >= interval) {
            return;
        }
        if collected && first.is_none() {
            gate.note_empty();
        }
        sleep(COUNT_PAUSE).await;
    }
}

/// Asks all peers once and copies what they know. Opens the node if one of them knows more than this
/// node. Returns the best of what was found.
async fn look(node: &Arc<Node>) -> Found {
    let mut is_copied = node.peers().is_copied.lock().await;
    if *is_copied {
        return Found::More(0);
    }
    let peers = node.peers();
    let list = peers.list.load_full();
    let mut waiting = list.iter().filter(|peer| !peer.is_me()).cloned();
    let mut asked = JoinSet::new();
    let (mut copied, mut ends): (Option<(Arc<str>, usize)>, _) = (None, None);
    let (mut reached, mut closed) = (false, false);
    loop {
        while asked.len() < AT_ONCE
            && let Some(peer) = waiting.next()
        {
            let node = node.clone();
            asked.spawn(async move { (peer.url().as_str().clone(), copy(&node, &peer).await) });
        }
        let next = tokio::select! {
            biased;
            next = asked.join_next() => next,
            () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => None,
        };
        match next {
            None => break,
            Some(Ok((url, found))) => {
                reached |= found != Found::Unreachable;
                closed |= found == Found::Closed;
                if let Found::More(instances) = found
                    && copied.as_ref().is_none_or(|&(_, most)| instances > most)
                {
                    copied = Some((url, instances));
                    ends.get_or_insert_with(|| Instant::now() + STRAGGLERS);
                }
            }
            Some(Err(error)) => tracing::error!(%error, "copying a peer's registry panicked"),
        }
    }
    *is_copied = copied.is_some();
    match copied {
        Some((peer, instances)) => {
            peers.gate().open(Reason::Copied { peer, instances });
            return Found::More(instances);
        }
        None if list.is_empty() => peers.gate().stay_closed(Reason::Unlisted),
        None if reached => peers.gate().stay_closed(Reason::Peers),
        None => peers.gate().stay_closed(Reason::Unreachable),
    }
    match (reached, closed) {
        (_, true) => Found::Closed,
        (true, _) => Found::NoMore,
        (false, _) => Found::Unreachable,
    }
}

/// Copies what one peer has.
async fn copy(node: &Arc<Node>, peer: &Peer) -> Found {
    let url = peer.url().as_str();
    let began = Instant::now();
    let fetched = match peer.registry().await {
        Ok(fetched) => fetched,
        Err(error) if is_closed(&error) => {
            tracing::debug!(peer = %url, "peer is not open for traffic either");
            return Found::Closed;
        }
        Err(error) => {
            tracing::info!(peer = %url, %error, "nothing to copy from this peer");
            return Found::Unreachable;
        }
    };
    // One of ours serves no list before it knows what there is.
    let is_new = fetched.digest.is_none() && is_new(node, peer, &fetched.list);
    let nodes = app_name(&node.peers().settings.own.app);
    let (mut copied, mut servers, mut refused, mut reason) = (0, 0, 0, None);
    for (seen, instance) in fetched.list.applications.iter().flat_map(|application| &application.instances).enumerate()
    {
        if seen % CHUNK == CHUNK - 1 {
            tokio::task::yield_now().await;
        }
        // Clients may have said something here meanwhile, also that they leave. A list shows leases
        // as of the last change: they begin anew.
        let now = node.now();
        let is_server = instance.app() == &*nodes;
        let instance = peer.in_our_time(Instance::clone(instance), node);
        match node.registry().adopt(instance, now, now) {
            // Registry servers register each other: they say nothing about what a peer knows.
            Ok(_) if is_server => servers += 1,
            Ok(_) => copied += 1,
            Err(error) => {
                refused += 1;
                reason.get_or_insert(error);
            }
        }
    }
    if let Some(reason) = reason {
        peer.log_refused_copies(refused, reason);
    }
    if copied + servers > 0 {
        tracing::info!(peer = %url, copied, servers, is_new, elapsed = ?began.elapsed(), "copied a peer's registry");
    }
    if copied == 0 || is_new { Found::NoMore } else { Found::More(copied) }
}

/// Returns true if the peer responded that it is not open for traffic.
fn is_closed(error: &Error) -> bool {
    error.status() == Some(StatusCode::FORBIDDEN.as_u16()) && !error.is_paused()
}

/// Returns true if every instance of this list registered within the time in which a node collects
/// heartbeats: the server started no earlier.
fn is_new(node: &Node, peer: &Peer, list: &Applications) -> bool {
    let settling = node.peers().settings.renewal_interval.saturating_mul(SETTLING_INTERVALS);
    let Ok(settling_ms) = i64::try_from(settling.as_millis()) else { return false };
    let instances = || list.applications.iter().flat_map(|application| &application.instances);
    let now = node.published_now().saturating_add(peer.ahead_ms(node));
    // The latest time in the list is no later than the clock of the peer.
    let now = instances().filter_map(|instance| instance.last_updated_timestamp).fold(now, i64::max);
    let began = now.saturating_sub(settling_ms);
    instances().all(|instance| instance.lease.is_some_and(|lease| lease.registration_timestamp > began))
}
