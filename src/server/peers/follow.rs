//! Following a peer: what it has differently is settled, whoever missed it. Java knows nothing of the kind, `server-behaviour` 13.2.
//!
//! ```text
//!  every 30 s: the peer's delta ──▶ what differs from here ──▶ 2 s later: each as the peer has it now ──▶ the newer state counts
//!              or everything, after a gap                                                                  │            │
//!                                                               Registry::adopt ◀── theirs ────────────────┘            │
//!                                                               the peer's queue ◀── ours: override, registration ──────┘
//! ```
//!
//! A Spring node forgets in 30 s what it could not tell, and a node of any kind may be heard without being able to speak. So this node looks
//! for itself, as a client would. Both what is here and what is there may be on its way already: hence the pause, and the look at the single
//! instance, which no cache of Java's stands before.
//!
//! # The rule
//!
//! * The greater `lastDirtyTimestamp` counts; of equal ones the greater `lastUpdatedTimestamp`, which is when a registry took the state in; of
//!   equal ones a fixed order of what they say. What is taken over keeps its time, so any two nodes choose the same state.
//! * A cancellation is a state like others, as of its time. Here it is remembered for longer than changes are kept for a peer, there it is read
//!   from the delta. That a lease ran out is no such state: it means that this node heard nothing.
//! * What only the peer has is taken in while its lease there runs, which it keeps: nodes that evict must not bring it back to life from each
//!   other. Lists show a lease as of the last change, so only the single instance tells. What only this node has is left to its heartbeats: each is answered with 404
//!   and then brings the registration.
//!
//! Nothing that is learnt here is told to others, who look for themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::peer::Peer;
use super::queue::{Change, Target};
use super::refused::RefusedCopies;
use crate::error::Error;
use crate::model::{ActionType, Applications, Instance, InstanceStatus, LeaseInfo, ReplicationAction};
use crate::server::audit;
use crate::server::node::Node;
use crate::server::outcome::Refused;
use crate::server::registry::{Version, agree, replaces};
use crate::time::{Moment, jittered};

/// What is on its way gets this long to arrive: batches wait for half a second.
const SETTLE: Duration = Duration::from_secs(2);
/// A look that is this old may have missed what a delta no longer tells; Java's tell it for three minutes.
const GAP: Duration = Duration::from_secs(120);
/// Everything is fetched because of a hash at most this often to begin with, and at most this seldom if that finds nothing.
const HASH_PAUSE: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(3600)];
/// Instances that are looked at one by one after one list.
const SUSPECTS: usize = 10_000;
/// Such looks at a time.
const LOOKS: usize = 8;
/// Instances of a list between two pauses, in which others get their turn.
const CHUNK: usize = 100;

/// Follows a peer for ever. While its URL leads to this node there is nothing to look at.
pub(super) async fn follow(node: Arc<Node>, peer: Arc<Peer>) {
    let interval = node.peers().settings.comparison_interval;
    let mut follower = Follower {
        node,
        peer,
        past: Past::default(),
        looked: None,
        told: HashMap::new(),
        refused: RefusedCopies::default(),
        is_full: false,
    };
    loop {
        let wait = if follower.past.failed { interval / 3 } else { interval };
        tokio::select! {
            () = sleep(jittered(wait)) => {}
            // What was queued meanwhile goes first.
            () = follower.peer.recovered() => sleep(jittered(SETTLE)).await,
        }
        if follower.node.is_open() && !follower.peer.is_me() {
            let looked = follower.look().await;
            if let Err(error) = &looked {
                tracing::debug!(peer = %follower.peer.url().as_str(), %error, "a peer does not show what it has");
            }
            follower.past.failed = looked.is_err();
        }
    }
}

struct Follower {
    node: Arc<Node>,
    peer: Arc<Peer>,
    past: Past,
    /// Begin of the last look that did not fail, by the wall clock, too.
    looked: Option<Moment>,
    /// What the peer was told and showed otherwise all the same. It is not told twice.
    told: HashMap<Arc<Target>, Version>,
    /// Copies that the registry of this node refused.
    refused: RefusedCopies,
    /// The registry has no room, so instances that only the peer has are left out.
    is_full: bool,
}

/// What the looks so far say about the next one.
#[derive(Debug, Default)]
struct Past {
    last: Option<Instant>,
    failed: bool,
    /// How often in a row the apps hash was another.
    mismatches: u32,
    everything_at: Option<Instant>,
    pause: Duration,
    /// Changes that the queue lost by then.
    lost: u64,
    /// Not all that differed could be looked at.
    left_over: bool,
}

impl Past {
    fn wants_everything(&self, lost: u64, now: Instant) -> bool {
        let hash_says_so = self.mismatches > 1 && self.everything_at.is_none_or(|at| now >= at + self.pause);
        self.left_over || lost != self.lost || self.last.is_none_or(|last| now > last + GAP) || hash_says_so
    }

    /// Keeps in mind a look that began at this time.
    fn looked(&mut self, everything: bool, same_hash: bool, lost: u64, at: Instant) {
        if same_hash {
            self.mismatches = 0;
            self.pause = HASH_PAUSE[0];
        } else {
            self.mismatches += 1;
        }
        if everything {
            self.everything_at = Some(at);
            self.pause = if same_hash { HASH_PAUSE[0] } else { (self.pause * 2).clamp(HASH_PAUSE[0], HASH_PAUSE[1]) };
        }
        (self.last, self.lost) = (Some(at), lost);
    }
}

/// An instance that the list of a peer has differently.
#[derive(Clone)]
struct Suspect {
    target: Arc<Target>,
    /// The state in which the peer says that it was cancelled.
    ending: Option<Version>,
    /// Nothing is known of it here.
    is_new: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    None,
    Adopted,
    Refused(Refused),
    Told,
    /// The peer is being told of it anyway.
    Later,
}

/// What became of the suspects of one look.
#[derive(Default)]
struct Tally {
    adopted: usize,
    told: usize,
    later: usize,
    /// Those about which the peer gave no answer.
    unread: usize,
    /// Copies that the registry refused, and the first reason.
    refused: usize,
    reason: Option<Refused>,
}

impl Follower {
    async fn look(&mut self) -> Result<(), Error> {
        let (began, lost) = (Instant::now(), self.peer.lost());
        // The monotonic clock stands still while the machine is suspended, and the peer's delta goes on.
        let was_away = self.looked.is_some_and(|looked| looked.elapsed() > GAP);
        let everything = was_away || self.past.wants_everything(lost, began);
        let moment = Moment::now();
        self.note_room();
        let mut listed = Vec::new();
        if everything {
            listed = self.suspects(&self.peer.applications().await?).await;
        }
        let mut suspects = Vec::new();
        // Only this shows what was cancelled.
        let delta = self.peer.delta().await?;
        let hash = delta.as_ref().map(|delta| delta.hash.clone());
        match delta {
            Some(delta) => suspects = self.suspects(&delta).await,
            // It tells no deltas: in a while it is time for everything.
            None if !everything => return Ok(()),
            None => {}
        }
        let ours = self.node.registry().full().counts.to_string();
        let same_hash = hash.is_none_or(|theirs| theirs.as_deref() == Some(&*ours));
        suspects.extend(listed);
        // For what is known here there is always room.
        suspects.sort_by_key(|suspect| suspect.is_new);
        let rest = suspects.split_off(suspects.len().min(SUSPECTS));
        let mut tally = Tally::default();
        if !suspects.is_empty() {
            sleep(jittered(SETTLE)).await;
        }
        let gone = self.settle_all(&suspects, &mut tally).await;
        // What has no room cannot be done later either.
        tally.later += rest.iter().filter(|suspect| !self.is_left_out(suspect)).count();
        self.log_refused(&tally);
        let Tally { adopted, told, later, unread, .. } = tally;
        let seen: HashSet<&Target> = suspects.iter().map(|suspect| &*suspect.target).collect();
        self.told.retain(|target, _| seen.contains(&**target));
        // One that can never be read must not make every look one at everything.
        self.past.left_over = everything && (later > 0 || unread > 0 && !self.past.left_over);
        self.past.looked(everything, same_hash, lost, began);
        self.looked = Some(moment);
        if adopted + told > 0 {
            let peer = self.peer.url().as_str();
            tracing::info!(%peer, adopted, told, everything, "what a peer had differently is settled");
        }
        gone
    }

    /// Goes on after a look that failed, and gives up where all of some did because nobody is there.
    async fn settle_all(&mut self, suspects: &[Suspect], tally: &mut Tally) -> Result<(), Error> {
        for some in suspects.chunks(LOOKS) {
            let some: Vec<_> = some.iter().filter(|suspect| !self.is_left_out(suspect)).cloned().collect();
            let (mut unread, mut last) = (0, None);
            for (suspect, theirs) in self.fetch(&some).await {
                match theirs.map(|theirs| self.settle(&suspect, theirs)) {
                    Ok(Deed::None) => {}
                    Ok(Deed::Adopted) => tally.adopted += 1,
                    Ok(Deed::Refused(refused)) => {
                        tally.refused += 1;
                        tally.reason.get_or_insert(refused);
                    }
                    Ok(Deed::Told) => tally.told += 1,
                    Ok(Deed::Later) => tally.later += 1,
                    Err(error) if error.is_unavailable() => (unread, last) = (unread + 1, Some(error)),
                    // Asked again it would say the same.
                    Err(error) => tracing::debug!(%error, "a peer does not show an instance"),
                }
            }
            tally.unread += unread;
            if let Some(error) = last.filter(|_| unread == some.len()) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tries again what was refused for want of room once there is room.
    fn note_room(&mut self) {
        self.refused.prune();
        if self.is_full && self.node.registry().has_room() {
            self.is_full = false;
            self.refused.forget_for_room();
        }
    }

    fn is_left_out(&self, suspect: &Suspect) -> bool {
        suspect.is_new && (self.is_full || self.refused.is_full())
    }

    fn log_refused(&self, tally: &Tally) {
        match tally.reason {
            Some(reason) => self.peer.log_refused_copies(tally.refused, reason),
            None if self.refused.len() == 0 && !self.is_full => self.peer.log_copies_taken(),
            None => {}
        }
    }

    async fn suspects(&self, list: &Applications) -> Vec<Suspect> {
        let own = self.node.peers().own_id();
        let mut suspects = Vec::new();
        for (seen, theirs) in list.applications.iter().flat_map(|application| &application.instances).enumerate() {
            if seen % CHUNK == CHUNK - 1 {
                tokio::task::yield_now().await;
            }
            let is_ending = theirs.action == Some(ActionType::Deleted);
            let ending = is_ending.then(|| Version::of(theirs).earlier_by(self.peer.ahead_ms(&self.node)));
            if own.as_deref() != Some(theirs.id())
                && let Some(is_new) = self.is_suspect(theirs, ending)
            {
                let target = Arc::new(Target { app: theirs.app.clone(), id: theirs.id().into() });
                let suspect = Suspect { target, ending, is_new };
                if !self.is_left_out(&suspect) && !self.refused.holds(&suspect.target, Version::of(theirs)) {
                    suspects.push(suspect);
                }
            }
        }
        suspects
    }

    /// Returns `None` if there is nothing to settle, else whether nothing is known of the instance here.
    fn is_suspect(&self, theirs: &Instance, ending: Option<Version>) -> Option<bool> {
        let (registry, now) = (self.node.registry(), self.node.now());
        let ours = registry.instance(theirs.app(), theirs.id(), now);
        let is_new = ours.is_none() && registry.tombstone(theirs.app(), theirs.id()).is_none();
        let is_suspect = match (ours, ending) {
            (Some(ours), None) => !agree(&ours, theirs),
            (Some(ours), Some(ending)) => ended_alive(theirs) && ending >= Version::of(&ours),
            // Whether its lease runs is not for a list to say.
            (None, ending) => ending.is_none(),
        };
        is_suspect.then_some(is_new)
    }

    /// What the peer has of these now.
    async fn fetch(&self, suspects: &[Suspect]) -> Vec<(Suspect, Result<Option<Instance>, Error>)> {
        let mut looks = JoinSet::new();
        for suspect in suspects.iter().cloned() {
            let peer = self.peer.clone();
            looks.spawn(async move {
                let theirs = peer.instance(&suspect.target.app, &suspect.target.id).await;
                (suspect, theirs)
            });
        }
        let mut seen = Vec::with_capacity(suspects.len());
        while let Some(look) = looks.join_next().await {
            // A look does not panic, and nobody else ends it.
            seen.extend(look.ok());
        }
        seen
    }

    /// Makes the newer of the two states count, here or there.
    fn settle(&mut self, Suspect { target, ending, .. }: &Suspect, theirs: Option<Instance>) -> Deed {
        let (registry, now) = (self.node.registry(), self.node.now());
        let theirs = theirs.filter(|theirs| theirs.app() == &*target.app && theirs.id() == &*target.id);
        let sent = theirs.as_ref().map(Version::of);
        let theirs = theirs.map(|theirs| self.peer.in_our_time(theirs, &self.node));
        // Java shows another region's where it has none itself, which its list may tell late.
        let theirs = theirs.filter(|theirs| !self.node.peers().regions.as_ref().is_some_and(|all| all.have(theirs)));
        if self.peer.is_being_told(target) {
            return Deed::Later;
        }
        let adopted = |yes| if yes { Deed::Adopted } else { Deed::None };
        let deed = match (registry.instance(&target.app, &target.id, now), theirs) {
            (Some(ours), Some(theirs)) if agree(&ours, &theirs) => Deed::None,
            (Some(ours), Some(theirs)) if !replaces(&theirs, &ours) => self.tell(target, &ours, &theirs),
            (None, Some(theirs)) => match registry.tombstone(&target.app, &target.id) {
                Some(ended) if ended >= Version::of(&theirs) => {
                    self.tell_once(target, ended, [(ReplicationAction::Cancel, None)])
                }
                _ if is_alive(&theirs, self.node.published_now()) => self.adopt(theirs),
                _ => Deed::None,
            },
            (Some(_), Some(theirs)) => self.adopt(theirs),
            (Some(ours), None) => {
                let ended = ending.is_some_and(|ending| registry.adopt_tombstone(&target.app, &target.id, ending, now));
                if ended {
                    audit::ended(&target.app, &target.id, ours.status, self.peer.url().as_str());
                }
                adopted(ended)
            }
            (None, None) => Deed::None,
        };
        if let (Deed::Refused(refused), Some(sent)) = (deed, sent) {
            self.refused.insert(target.clone(), sent, refused.is_full());
            self.is_full |= refused.is_full() && !self.node.registry().has_room();
        }
        deed
    }

    fn adopt(&self, theirs: Instance) -> Deed {
        let (app, id, status) = (theirs.app.clone(), theirs.id().to_owned(), theirs.status);
        let (peer, now) = (self.peer.url().as_str(), self.node.now());
        let ahead = self.node.published_now().saturating_sub(now);
        let since = theirs.lease.map_or(now, |lease| now.min(lease.last_renewal_timestamp.saturating_sub(ahead)));
        match self.node.registry().adopt(theirs, since, now) {
            Ok(true) => {
                audit::adopted(&app, &id, status, peer);
                Deed::Adopted
            }
            Ok(false) => Deed::None,
            Err(refused) => Deed::Refused(refused),
        }
    }

    /// The override goes first: a registry that has one puts it over every registration.
    fn tell(&mut self, target: &Arc<Target>, ours: &Instance, theirs: &Instance) -> Deed {
        let put = match (ours.overridden_status, theirs.overridden_status) {
            (InstanceStatus::Unknown, InstanceStatus::Unknown) => None,
            (InstanceStatus::Unknown, _) => Some((ReplicationAction::DeleteStatusOverride, Some(ours.status))),
            (status, _) => Some((ReplicationAction::StatusUpdate, Some(status))),
        };
        let changes = put.into_iter().chain([(ReplicationAction::Register, None)]);
        self.tell_once(target, Version::of(ours), changes)
    }

    fn tell_once(
        &mut self,
        target: &Arc<Target>,
        version: Version,
        changes: impl IntoIterator<Item = (ReplicationAction, Option<InstanceStatus>)>,
    ) -> Deed {
        if self.told.insert(target.clone(), version) == Some(version) {
            return Deed::None;
        }
        for (action, status) in changes {
            self.peer.tell(Change { target: target.clone(), action, status });
        }
        Deed::Told
    }
}

/// Whether its lease runs, as the registry sees it that shows it.
fn is_alive(instance: &Instance, now: i64) -> bool {
    lease_end(instance).is_none_or(|end| now <= end)
}

/// Whether it ended while its lease ran: somebody cancelled it.
fn ended_alive(instance: &Instance) -> bool {
    instance.last_updated_timestamp.is_some_and(|at| is_alive(instance, at))
}

fn lease_end(instance: &Instance) -> Option<i64> {
    let lease = instance.lease?;
    let seconds = if lease.duration_secs > 0 { lease.duration_secs } else { LeaseInfo::DEFAULT_DURATION_SECS };
    Some(lease.last_renewal_timestamp.saturating_add(i64::from(seconds) * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_hash_that_stays_different_is_looked_into_ever_more_seldom() {
        let start = Instant::now();
        let mut past = Past::default();
        assert!(past.wants_everything(0, start), "the first look");
        let mut looks = Vec::new();
        for second in (0..3 * 3600).step_by(30) {
            let now = start + second * SECOND;
            let everything = past.wants_everything(0, now);
            if everything {
                looks.push(second / 60);
            }
            past.looked(everything, false, 0, now);
        }
        assert_eq!(looks, [0, 5, 15, 35, 75, 135]);
        past.looked(false, true, 0, start + 3 * 3600 * SECOND);
        assert_eq!(past.pause, HASH_PAUSE[0]);
    }

    #[test]
    fn a_gap_or_a_loss_calls_for_everything() {
        let start = Instant::now();
        let mut past = Past::default();
        past.looked(true, true, 0, start);
        assert!(!past.wants_everything(0, start + GAP));
        assert!(past.wants_everything(0, start + GAP + SECOND));
        assert!(past.wants_everything(1, start + SECOND), "the queue overflowed");
        past.left_over = true;
        assert!(past.wants_everything(0, start + SECOND));
    }
}
