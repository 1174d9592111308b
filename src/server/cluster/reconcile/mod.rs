//! Reconciliation with a peer: of two different states of an instance the newer one is kept, here
//! and at the peer. Java has nothing of the kind.
//!
//! ```text
//!  every 30 s: fetch the delta ──▶ differences ──▶ 2 s later: fetch each instance ──▶ compare versions
//!              or everything, after a gap                                               │          │
//!                                                  Registry::adopt ◀── theirs is newer ─┘          │
//!                                   queue of the peer: override, registration ◀── ours is newer ───┘
//! ```
//!
//! A Spring node drops a change that it could not send for 30 seconds, and a node of any kind may
//! receive requests without being able to send them. Therefore this node compares, as a client
//! would. A difference may only be a change in flight, in either direction. Hence the pause, and
//! the fetch of the single instance, which bypasses the response cache of a Java server.
//!
//! # The rule
//!
//! * The greater `lastDirtyTimestamp` is newer. If they are equal, the greater
//!   `lastUpdatedTimestamp` is, which is the time at which a registry took the state. If these are
//!   equal, a fixed order of the contents decides. An adopted state keeps its time, so any two
//!   nodes choose the same state.
//! * A cancellation is a state with a time like others. This node remembers it as a tombstone, for
//!   longer than changes are kept for a peer; at the peer it is read from the delta. The end of a
//!   lease by eviction is no such state: it only means that this node received no heartbeat.
//!   After a longer outage, an instance whose cancellation the peer did not receive is cancelled
//!   there if its lease at the peer has ended, too.
//! * An instance that only the peer has is adopted while its lease at the peer runs, and keeps that
//!   lease. Otherwise nodes that evict an instance would adopt it from each other again. Lists show
//!   a lease as of its last change, so only the single instance shows it. An instance that only
//!   this node has is left to its heartbeats: the peer responds with 404, and then receives the
//!   registration.
//! * An instance in doubt is compared whatever the lists show: after an outage the queue of the
//!   peer leaves it to this comparison which of its states is newer. If the peer does not have it,
//!   it gets the registration.
//!
//! An adopted state is not replicated, since the other peers reconcile, too.

mod differences;
mod schedule;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::differences::{Difference, is_alive};
use self::schedule::{MAX_GAP, Schedule};
use crate::error::Error;
use crate::model::{ActionType, Applications, Instance, InstanceStatus, ReplicationAction};
use crate::server::audit;
use crate::server::cluster::state::Cluster;
use crate::server::cluster::{CHUNK, owners};
use crate::server::outcome::Refused;
use crate::server::owner::ListedOwners;
use crate::server::registry::{Version, agree, replaces};
use crate::server::replication::{Change, Doubt, Peer, RefusedCopies, Target};
use crate::time::{Moment, jittered};

/// Time in which a change in flight should arrive. Batches wait for half a second.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Maximum number of instances that are fetched one by one after one list.
const MAX_DIFFERENCES: usize = 10_000;
/// Maximum number of such fetches at the same time.
const CONCURRENT_FETCHES: usize = 8;
/// Comparisons that fail in succession, after which changes of instances in doubt are sent without
/// one.
const DOUBT_TRIES: u32 = 3;

/// Reconciles with a peer for ever. While this node is not open for traffic, only instances in
/// doubt are compared, and while the peer's URL leads to this node, nothing is.
pub(super) async fn reconcile(cluster: Arc<Cluster>, peer: Arc<Peer>) {
    let interval = cluster.settings.reconcile_interval;
    let mut reconciler = Reconciler {
        cluster,
        peer,
        schedule: Schedule::default(),
        last_success: None,
        sent: HashMap::new(),
        refused: RefusedCopies::default(),
        owners: ListedOwners::default(),
        is_full: false,
    };
    let mut failed = 0;
    loop {
        let wait = if reconciler.schedule.has_failed { interval / 3 } else { interval };
        tokio::select! {
            () = sleep(jittered(wait)) => {}
            // The changes that were queued during the outage go first.
            () = reconciler.peer.recovered() => {
                // What was sent may not have arrived.
                reconciler.sent.clear();
                sleep(jittered(SETTLE_TIME)).await;
            }
        }
        if !reconciler.peer.is_own() {
            let result = match reconciler.cluster.node.is_open() {
                true => reconciler.run().await,
                false => Ok(()),
            };
            // The lists of the peer, or of this node, may be unusable although instances are not.
            let result = reconciler.resolve_doubtful().await.and(result);
            if let Err(error) = &result {
                tracing::debug!(peer = %reconciler.peer.url().as_str(), %error, "cannot reconcile with a peer");
            }
            reconciler.schedule.has_failed = result.is_err();
            // While the peer takes batches but no comparison succeeds, changes wait no longer.
            let (peer, doubtful) = (&reconciler.peer, reconciler.peer.doubtful());
            let takes_batches = !peer.is_failing() && !peer.is_refusing();
            failed = if result.is_err() && takes_batches && !doubtful.is_empty() { failed + 1 } else { 0 };
            if failed >= DOUBT_TRIES {
                doubtful.iter().for_each(|target| peer.give_up(target));
            }
        }
    }
}

/// Reconciliation of this node with one peer.
struct Reconciler {
    cluster: Arc<Cluster>,
    peer: Arc<Peer>,
    schedule: Schedule,
    /// Begin of the last run that did not fail, by the monotonic and by the wall clock.
    last_success: Option<Moment>,
    /// States that were sent to the peer and have not changed what the peer shows. None is sent
    /// twice.
    sent: HashMap<Arc<Target>, Version>,
    /// Copies that the registry of this node refused.
    refused: RefusedCopies,
    /// Owners of the leases of the peer, as far as this run needs them.
    owners: ListedOwners,
    /// The registry is full, so instances that only the peer has are skipped.
    is_full: bool,
}

/// Result for one difference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolution {
    /// The states agree, or the difference has to remain.
    None,
    /// This node adopted the peer's state.
    Adopted,
    Refused(Refused),
    /// This node's state was queued for the peer.
    Sent,
    /// A change of the instance is queued for the peer or in flight, or the peer takes none now.
    Pending,
}

/// Results of one run.
#[derive(Default)]
struct Summary {
    adopted: usize,
    sent: usize,
    pending: usize,
    /// Instances that could not be fetched from the peer.
    unread: usize,
    /// Copies that the registry refused, and the first reason.
    refused: usize,
    reason: Option<Refused>,
}

impl Reconciler {
    /// Compares once.
    async fn run(&mut self) -> Result<(), Error> {
        let (began, lost) = (Instant::now(), self.peer.lost());
        // The monotonic clock stands still while the machine is suspended. The peer's delta does
        // not.
        let was_suspended = self.last_success.is_some_and(|last| last.elapsed() > MAX_GAP);
        let mut full = was_suspended || self.schedule.needs_full(lost, began);
        let doubtful = self.doubtful();
        if full && self.schedule.has_refused(lost) {
            // What was sent may be among the refused changes.
            self.sent.clear();
        }
        let moment = Moment::now();
        self.update_room();
        let mut listed = Vec::new();
        if full {
            listed = self.differences(&self.peer.applications().await?).await;
        }
        // The delta is fetched in any case: only the delta shows cancellations.
        let delta = self.peer.delta().await?;
        let hash = delta.as_ref().map(|delta| delta.hash.clone());
        let mut differences = match delta {
            Some(delta) => self.differences(&delta).await,
            None if full => Vec::new(),
            // The peer has no deltas. After a gap everything is fetched.
            None if doubtful.is_empty() => return Ok(()),
            None => {
                full = true;
                self.differences(&self.peer.applications().await?).await
            }
        };
        let ours = self.cluster.node.registry().full().counts.to_string();
        let same_hash = hash.is_none_or(|theirs| theirs.as_deref() == Some(&*ours));
        differences.extend(listed);
        let found: HashSet<_> = differences.iter().map(|difference| difference.target.clone()).collect();
        let doubtful = doubtful.into_iter().filter(|target| !found.contains(target));
        differences.extend(doubtful.map(Difference::possible));
        // Known instances first: a full registry has room for them.
        differences.sort_by_key(|difference| difference.is_new);
        let rest = differences.split_off(differences.len().min(MAX_DIFFERENCES));
        let mut summary = Summary::default();
        if !differences.is_empty() {
            sleep(jittered(SETTLE_TIME)).await;
        }
        let (node, lacks_owners) = (self.cluster.node.clone(), full && self.cluster.node.registry().lacks_owners());
        // A newer version may have another owner.
        if lacks_owners || !differences.is_empty() {
            self.owners = owners::fetch(&node, &self.peer).await;
        }
        let result = self.resolve_all(&differences, &mut summary).await;
        owners::learn(&node, &std::mem::take(&mut self.owners)).await;
        // Differences that are skipped for want of room are not left for the next run.
        summary.pending += rest.iter().filter(|difference| !self.is_skipped(difference)).count();
        self.log_refused(&summary);
        let Summary { adopted, sent, pending, unread, .. } = summary;
        let seen: HashSet<&Target> = differences.iter().map(|difference| &*difference.target).collect();
        self.sent.retain(|target, _| seen.contains(&**target));
        // An instance that can never be fetched must not make every run a full one.
        self.schedule.is_incomplete = full && (pending > 0 || unread > 0 && !self.schedule.is_incomplete);
        self.schedule.record(full, same_hash, lost, began);
        self.last_success = Some(moment);
        if adopted + sent > 0 {
            tracing::info!(peer = %self.peer.url().as_str(), adopted, sent, full, "reconciled with a peer");
        }
        result
    }

    /// Compares only the instances that are still in doubt.
    async fn resolve_doubtful(&mut self) -> Result<(), Error> {
        if self.peer.is_failing() {
            return Ok(());
        }
        let doubtful: Vec<_> = self.doubtful().into_iter().map(Difference::possible).collect();
        self.resolve_all(&doubtful, &mut Summary::default()).await
    }

    /// Returns the instances in doubt. While the peer refuses batches, only one of them is tried.
    fn doubtful(&self) -> Vec<Arc<Target>> {
        let mut doubtful = self.peer.doubtful();
        if self.peer.is_refusing() {
            doubtful.truncate(1);
        }
        doubtful
    }

    /// Resolves the differences. Continues after a fetch that failed, and returns its error if all
    /// fetches of a round failed because the peer is unavailable.
    async fn resolve_all(&mut self, differences: &[Difference], summary: &mut Summary) -> Result<(), Error> {
        for round in differences.chunks(CONCURRENT_FETCHES) {
            let round: Vec<_> = round.iter().filter(|difference| !self.is_skipped(difference)).cloned().collect();
            let (mut unread, mut last) = (Vec::new(), None);
            for (difference, theirs) in self.fetch(&round).await {
                match theirs.map(|theirs| self.resolve(&difference, theirs)) {
                    Ok(Resolution::None) => {}
                    Ok(Resolution::Adopted) => summary.adopted += 1,
                    Ok(Resolution::Refused(refused)) => {
                        summary.refused += 1;
                        summary.reason.get_or_insert(refused);
                    }
                    Ok(Resolution::Sent) => summary.sent += 1,
                    Ok(Resolution::Pending) => summary.pending += 1,
                    Err(error) if error.is_unavailable() => {
                        unread.push(difference.target);
                        last = Some(error);
                    }
                    // The next fetch would fail in the same way.
                    Err(error) => {
                        tracing::debug!(%error, "cannot fetch an instance from a peer");
                        self.peer.give_up(&difference.target);
                    }
                }
            }
            summary.unread += unread.len();
            if let Some(error) = last.filter(|_| unread.len() == round.len()) {
                return Err(error);
            }
            unread.iter().for_each(|target| self.peer.give_up(target));
        }
        Ok(())
    }

    /// Forgets the copies that had no room, once there is room.
    fn update_room(&mut self) {
        self.refused.prune();
        if self.is_full && self.cluster.node.registry().has_room() {
            self.is_full = false;
            self.refused.forget_for_room();
        }
    }

    fn is_skipped(&self, difference: &Difference) -> bool {
        difference.is_new && (self.is_full || self.refused.is_full())
    }

    fn log_refused(&self, summary: &Summary) {
        match summary.reason {
            Some(reason) => self.peer.log_refused_copies(summary.refused, reason),
            None if self.refused.len() == 0 && !self.is_full => self.peer.log_copies_taken(),
            None => {}
        }
    }

    /// Returns the instances of a list that differ from the registry of this node.
    async fn differences(&self, list: &Applications) -> Vec<Difference> {
        let (node, own) = (&self.cluster.node, self.cluster.own_id());
        let mut differences = Vec::new();
        for (seen, theirs) in list.applications.iter().flat_map(|application| &application.instances).enumerate() {
            if seen % CHUNK == CHUNK - 1 {
                tokio::task::yield_now().await;
            }
            let is_deleted = theirs.action == Some(ActionType::Deleted);
            let ahead_ms = self.peer.clock().ahead_ms(node.wall_ahead_ms());
            let tombstone = is_deleted.then(|| Version::of(theirs).earlier_by(ahead_ms));
            if own != Some(theirs.id())
                && let Some(difference) = Difference::of(theirs, tombstone, node)
                && !self.is_skipped(&difference)
                && !self.refused.holds(&difference.target, Version::of(theirs))
            {
                differences.push(difference);
            }
        }
        differences
    }

    /// Fetches the present state of these instances from the peer.
    async fn fetch(&self, differences: &[Difference]) -> Vec<(Difference, Result<Option<Instance>, Error>)> {
        let mut fetches = JoinSet::new();
        for difference in differences.iter().cloned() {
            let peer = self.peer.clone();
            fetches.spawn(async move {
                let theirs = peer.instance(&difference.target.app, &difference.target.id).await;
                (difference, theirs)
            });
        }
        let mut fetched = Vec::with_capacity(differences.len());
        while let Some(fetch) = fetches.join_next().await {
            // The task does not panic and is not aborted.
            fetched.extend(fetch.ok());
        }
        fetched
    }

    /// Keeps the newer of the two states, here and at the peer.
    fn resolve(&mut self, Difference { target, tombstone, .. }: &Difference, theirs: Option<Instance>) -> Resolution {
        let node = self.cluster.node.clone();
        let (registry, now) = (node.registry(), node.now());
        let theirs = theirs.filter(|theirs| theirs.app() == &*target.app && theirs.id() == &*target.id);
        let fetched = theirs.as_ref().map(Version::of);
        let theirs = theirs.map(|theirs| self.peer.clock().in_local_time(theirs, node.wall_ahead_ms()));
        // A Java peer shows the instance of another region if it has none itself.
        let theirs = theirs.filter(|theirs| !self.cluster.regions.as_ref().is_some_and(|all| all.have(theirs)));
        if self.peer.has_pending(target) {
            return Resolution::Pending;
        }
        // Before the state is read: a later change is queued. During an outage nothing can be sent.
        let is_failing = self.peer.is_failing();
        let doubt = if is_failing { None } else { self.peer.settle(target) };
        if doubt.is_some() {
            // What was sent did not arrive.
            self.sent.remove(target);
        }
        let resolution = match (registry.instance(&target.app, &target.id, now), theirs) {
            (Some(ours), Some(theirs)) if agree(&ours, &theirs) => Resolution::None,
            (Some(ours), Some(theirs)) if !replaces(&theirs, &ours) => match is_failing {
                true => Resolution::Pending,
                false => self.send(target, &ours, &theirs),
            },
            (None, Some(theirs)) => match registry.tombstone(&target.app, &target.id) {
                Some(ended) if ended >= Version::of(&theirs) && is_failing => Resolution::Pending,
                Some(ended) if ended >= Version::of(&theirs) => {
                    self.send_once(target, ended, [(ReplicationAction::Cancel, None)])
                }
                _ if is_alive(&theirs, node.published_now()) => self.adopt(theirs),
                // The outage was longer than tombstones are kept.
                None if doubt == Some(Doubt::Cancelled) => {
                    self.send_once(target, Version::of(&theirs), [(ReplicationAction::Cancel, None)])
                }
                _ => Resolution::None,
            },
            (Some(_), Some(theirs)) => self.adopt(theirs),
            (Some(ours), None) => {
                let ended = tombstone
                    .is_some_and(|tombstone| registry.adopt_tombstone(&target.app, &target.id, tombstone, now));
                if ended {
                    audit::ended(&target.app, &target.id, ours.status, self.peer.url().as_str());
                    Resolution::Adopted
                } else if doubt.is_some() && is_alive(&ours, node.published_now()) {
                    self.send_once(target, Version::of(&ours), [(ReplicationAction::Register, None)])
                } else {
                    Resolution::None
                }
            }
            (None, None) => Resolution::None,
        };
        if let (Resolution::Refused(refused), Some(fetched)) = (resolution, fetched) {
            self.refused.insert(target.clone(), fetched, refused.is_full());
            self.is_full |= refused.is_full() && !registry.has_room();
        }
        resolution
    }

    /// Adopts the peer's state, with its lease.
    fn adopt(&self, theirs: Instance) -> Resolution {
        let node = &self.cluster.node;
        let (app, id, status) = (theirs.app.clone(), theirs.id().to_owned(), theirs.status);
        let (peer, now) = (self.peer.url().as_str(), node.now());
        let ahead = node.published_now().saturating_sub(now);
        let since = theirs.lease.map_or(now, |lease| now.min(lease.last_renewal_timestamp.saturating_sub(ahead)));
        match node.registry().adopt_owned(theirs, self.owners.of(&app, &id), since, now) {
            Ok(true) => {
                audit::adopted(&app, &id, status, peer);
                Resolution::Adopted
            }
            Ok(false) => Resolution::None,
            Err(refused) => Resolution::Refused(refused),
        }
    }

    /// Queues this node's state for the peer. The override goes first, since a registry applies its
    /// override to every registration.
    fn send(&mut self, target: &Arc<Target>, ours: &Instance, theirs: &Instance) -> Resolution {
        let change = match (ours.overridden_status, theirs.overridden_status) {
            (InstanceStatus::Unknown, InstanceStatus::Unknown) => None,
            (InstanceStatus::Unknown, _) => Some((ReplicationAction::DeleteStatusOverride, Some(ours.status))),
            (status, _) => Some((ReplicationAction::StatusUpdate, Some(status))),
        };
        let changes = change.into_iter().chain([(ReplicationAction::Register, None)]);
        self.send_once(target, Version::of(ours), changes)
    }

    fn send_once(
        &mut self,
        target: &Arc<Target>,
        version: Version,
        changes: impl IntoIterator<Item = (ReplicationAction, Option<InstanceStatus>)>,
    ) -> Resolution {
        if self.sent.insert(target.clone(), version) == Some(version) {
            return Resolution::None;
        }
        for (action, status) in changes {
            self.peer.enqueue(Change::new(target.clone(), action, status));
        }
        Resolution::Sent
    }
}
