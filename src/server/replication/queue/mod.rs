//! Changes that wait for one peer. No IO; every operation takes `now`.
//!
//! ```text
//!  push ──▶ waiting, in order, at most one task per instance and action ──▶ poll: a batch ──▶ in flight
//!              ▲ front: failed batches, unless something newer was pushed ◀── done ─────────────┘
//! ```
//!
//! Java's dispatcher loses changes or stops in some cases (`docs/quirks.md`, S15 and S16).
//! Therefore:
//!
//! * A task that is replaced keeps the time at which it was first pushed, so frequent heartbeats do
//!   not delay the queue.
//! * A cancellation replaces all other tasks of the instance.
//! * The tasks of one instance are sent in order: while one of them is in flight, no other is sent.
//! * While the peer is unreachable, changes (not heartbeats) are kept beyond their time, up to the
//!   outage limit. So the peer can agree again without a restart.
//! * In a longer outage the peer may receive newer changes of the same instance from others. So
//!   cancellations, override changes and changes of metadata are not sent afterwards: their
//!   instances are in doubt, and reconciliation finds out which state is newer. Nor is the
//!   registration of such an instance sent, since it would give the peer's older override the time
//!   of its arrival.

#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{InstanceStatus, ReplicationAction};

/// Maximum number of tasks in one batch. Fixed in Java.
pub(super) const BATCH_SIZE: usize = 250;
/// Maximum time for which a task waits for others. Fixed in Java.
const BATCHING_DELAY: Duration = Duration::from_millis(500);
/// Pause after a response that the peer is overloaded. Fixed in Java.
const CONGESTION_DELAY: Duration = Duration::from_secs(1);
/// Pause after a network failure. Fixed in Java; here it doubles up to the pause for congestion.
const NETWORK_DELAY: Duration = Duration::from_millis(100);

/// Limits of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Maximum number of waiting tasks. One more drops the oldest.
    pub(super) capacity: usize,
    pub(super) batch: usize,
    /// Maximum number of batches in flight.
    pub(super) workers: usize,
    /// Maximum time for which a task waits.
    pub(super) life: Duration,
    /// Maximum time for which a change waits for an unreachable peer.
    pub(super) outage: Duration,
    /// Length of an outage after which instances are in doubt, or `None` if nothing reconciles.
    pub(super) doubt: Option<Duration>,
}

/// An instance, shared by the queues of all peers.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::server) struct Target {
    pub(in crate::server) app: Arc<str>,
    pub(in crate::server) id: Arc<str>,
}

/// A change to send to a peer. The instance is read from the registry when the batch is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Change {
    pub(in crate::server) target: Arc<Target>,
    pub(in crate::server) action: ReplicationAction,
    /// The status to set, or the one to keep after an override is deleted.
    pub(in crate::server) status: Option<InstanceStatus>,
    /// The registration has the version of the one before, since only metadata was merged.
    keeps_version: bool,
}

impl Change {
    pub(in crate::server) fn new(
        target: Arc<Target>,
        action: ReplicationAction,
        status: Option<InstanceStatus>,
    ) -> Self {
        Self { target, action, status, keeps_version: false }
    }

    /// Returns the change for merged metadata.
    pub(super) fn metadata(target: Arc<Target>) -> Self {
        Self { keeps_version: true, ..Self::new(target, Register, None) }
    }

    /// Returns true if the change is not repeated by the instance, as a heartbeat is.
    fn is_lasting(&self) -> bool {
        self.action != Heartbeat
    }

    /// Returns true if the change must not be sent after a newer one of its instance. A peer keeps
    /// the newer of two registrations by itself, but of two with equal versions the later one.
    fn is_ordered(&self) -> bool {
        self.keeps_version || matches!(self.action, Cancel | StatusUpdate | DeleteStatusOverride)
    }
}

/// Last change of an instance in doubt, as far as the peer did not receive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Doubt {
    Cancelled,
    Changed,
}

impl Doubt {
    fn after(change: &Change) -> Self {
        if change.action == Cancel { Self::Cancelled } else { Self::Changed }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) change: Change,
    pushed: Instant,
    expires: Instant,
}

/// Next step of the task that sends the queue.
#[derive(Debug)]
pub(super) enum Step {
    /// Send these tasks, and pass the outcome to [`Queue::done`].
    Send(Vec<Task>),
    /// Wait until this time, or until something is pushed or done.
    Wait(Option<Instant>),
}

/// Outcome of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The peer responded, or its refusal is final: the tasks are finished.
    Done,
    /// The peer is overloaded or did not respond in time: the tasks are sent again after a pause.
    Congested,
    /// The peer was not reached, or the response is not a registry's: the tasks are sent again.
    Failed,
    /// Nothing was sent, since no instance needed it any more.
    Unsent,
}

/// Numbers of tasks that were not sent, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Replaced by a newer task.
    pub(super) replaced: u64,
    /// Changes that waited too long.
    pub(super) expired: u64,
    /// Changes that were dropped from a full queue.
    pub(super) overflowed: u64,
    /// Heartbeats that waited too long or found no room. The next one replaces them.
    pub(super) heartbeats: u64,
    /// Changes in batches that the peer refused.
    refused: u64,
    /// Instances in doubt that could not be compared.
    given_up: u64,
}

/// Numbers of changes that a peer does not receive.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct LostChanges {
    /// Changes that were dropped from a full queue, or could not be compared.
    pub(in crate::server) dropped: u64,
    /// Changes in batches that the peer refused.
    pub(in crate::server) refused: u64,
}

impl Counters {
    /// Returns the numbers of changes that only a full comparison finds.
    pub(super) fn lost(self) -> LostChanges {
        LostChanges { dropped: self.overflowed + self.given_up, refused: self.refused }
    }

    /// Returns the numbers of tasks that no other replaced, with the names of the reasons.
    #[cfg(feature = "prometheus")]
    pub(super) fn dropped(self) -> [(&'static str, u64); 3] {
        [("expired", self.expired), ("overflow", self.overflowed), ("heartbeat", self.heartbeats)]
    }

    fn add_expired(&mut self, task: &Task) {
        *(if task.change.is_lasting() { &mut self.expired } else { &mut self.heartbeats }) += 1;
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    /// Tasks in the order in which they are sent.
    waiting: BTreeMap<i64, Task>,
    /// Positions of the tasks of an instance, by action.
    places: HashMap<Arc<Target>, [Option<i64>; 5]>,
    in_flight: HashSet<Arc<Target>>,
    /// Instances whose state at the peer has to be compared before a change of them is sent.
    doubtful: HashMap<Arc<Target>, Doubt>,
    batches: usize,
    front: i64,
    back: i64,
    paused_until: Option<Instant>,
    /// Failures since the last response of the peer.
    failures: u32,
    /// Time of the first of them.
    failing_since: Option<Instant>,
    flushing: bool,
    /// The peer refused a change for good since [`flush`](Self::flush).
    refused_at_flush: bool,
    /// The peer did not respond to a batch since [`flush`](Self::flush).
    silent_at_flush: bool,
    /// The last poll found only tasks that wait for a batch in flight.
    stalled: bool,
    counters: Counters,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            in_flight: HashSet::new(),
            doubtful: HashMap::new(),
            batches: 0,
            front: 0,
            back: 0,
            paused_until: None,
            failures: 0,
            failing_since: None,
            flushing: false,
            refused_at_flush: false,
            silent_at_flush: false,
            stalled: false,
            counters: Counters::default(),
        }
    }

    /// Adds a change. Returns true if the queue has to be polled again at once.
    pub(super) fn push(&mut self, change: Change, now: Instant) -> bool {
        if self.is_compared(&change) {
            self.counters.replaced += 1;
            self.doubtful.insert(change.target.clone(), Doubt::after(&change));
            return false;
        }
        let was_empty = self.waiting.is_empty();
        for &action in superseded_by(change.action) {
            if self.remove(&change.target, action).is_some() {
                self.counters.replaced += 1;
            }
        }
        let expires = now + self.limits.life;
        let places = self.places.get(&change.target).copied().unwrap_or_default();
        if let Some(place) = places[change.action as usize]
            && let Some(task) = self.waiting.get_mut(&place)
        {
            self.counters.replaced += 1;
            (task.change, task.expires) = (change, expires);
            // A registration must not overtake the changes that it follows.
            let is_last = LASTING.iter().all(|&action| places[action as usize] <= Some(place));
            if !is_last && let Some(task) = self.remove_at(place) {
                self.back += 1;
                self.insert(self.back, task);
            }
            return false;
        }
        let stalled = std::mem::take(&mut self.stalled);
        self.back += 1;
        let task = Task { change, pushed: now, expires };
        if !self.make_room(task.change.is_lasting()) {
            self.counters.heartbeats += 1;
            return false;
        }
        self.insert(self.back, task);
        was_empty || stalled || self.waiting.len() == self.limits.batch || self.waiting.len() == self.limits.capacity
    }

    /// Returns the next step.
    pub(super) fn poll(&mut self, now: Instant) -> Step {
        // A peer that fails is tried with one batch at a time.
        let workers = if self.failures > 0 { 1 } else { self.limits.workers };
        if self.batches >= workers {
            return Step::Wait(None);
        }
        while let Some((&place, oldest)) = self.waiting.first_key_value()
            && self.is_expired(oldest, now)
        {
            self.expire(place);
        }
        let full = self.waiting.len() >= self.limits.batch.min(self.limits.capacity);
        let due = match self.waiting.first_key_value() {
            Some((_, oldest)) if !full && !self.flushing => oldest.pushed + BATCHING_DELAY,
            None if !self.probes() => return Step::Wait(None),
            _ => now,
        };
        let due = self.paused_until.map_or(due, |until| due.max(until));
        if due > now {
            return Step::Wait(Some(due));
        }
        if self.failures > 0 && !self.flushing && self.limits.doubt.is_some_and(|doubt| self.outage(now) >= doubt) {
            self.doubt_ordered();
        }
        let batch = self.take(now);
        // All waiting tasks are of instances in flight. The next push may be of another instance.
        self.stalled = batch.is_empty() && !self.probes();
        if self.stalled {
            return Step::Wait(None);
        }
        self.batches += 1;
        self.in_flight.extend(batch.iter().map(|task| task.change.target.clone()));
        Step::Send(batch)
    }

    /// Records the outcome of a batch.
    pub(super) fn done(&mut self, batch: Vec<Task>, outcome: Outcome, now: Instant) {
        self.batches -= 1;
        for task in &batch {
            self.in_flight.remove(&task.change.target);
        }
        match outcome {
            Outcome::Unsent => {}
            Outcome::Done => {
                if std::mem::take(&mut self.failures) > 0 {
                    self.recover(now);
                }
            }
            Outcome::Congested => self.fail(batch, CONGESTION_DELAY, now),
            Outcome::Failed => {
                let delay = NETWORK_DELAY * 2u32.pow(self.failures.min(4));
                self.fail(batch, delay.min(CONGESTION_DELAY), now);
            }
        }
    }

    /// Sends every task at once from now on, without waiting for a full batch.
    pub(super) fn flush(&mut self) {
        self.flushing = true;
    }

    /// Notes that the peer refused a change for good.
    pub(super) fn note_refusal(&mut self) {
        self.refused_at_flush |= self.flushing;
    }

    /// Notes that the peer refused a whole batch for good.
    pub(super) fn note_refused_batch(&mut self, changes: &[Change]) {
        self.note_refusal();
        self.counters.refused += changes.iter().filter(|change| change.is_lasting()).count() as u64;
        changes.iter().for_each(|change| self.doubt_refused(change));
    }

    /// Notes that the peer refused a change. If the order matters, its instance is in doubt from
    /// now on.
    pub(super) fn doubt_refused(&mut self, change: &Change) {
        if change.is_ordered() && self.limits.doubt.is_some() {
            self.doubt(change.target.clone(), Doubt::after(change));
        }
    }

    /// Notes that the peer did not respond to a batch.
    pub(super) fn note_silence(&mut self) {
        self.silent_at_flush |= self.flushing;
    }

    /// Returns true if nothing is left to send, or if the peer does not take it soon: it has not
    /// responded to a batch since [`flush`](Self::flush), or refuses batches for now while only
    /// heartbeats wait.
    pub(super) fn is_flush_over(&self) -> bool {
        let has_changes = || self.batches > 0 || self.waiting.values().any(|task| task.change.is_lasting());
        self.is_empty() || self.silent_at_flush || self.failures > 0 && !has_changes()
    }

    /// Returns `true` if the peer took everything since [`flush`](Self::flush).
    pub(super) fn is_flushed(&self) -> bool {
        self.is_empty() && self.doubtful.is_empty() && !self.refused_at_flush
    }

    /// Returns the instances in doubt.
    pub(super) fn doubtful(&self) -> Vec<Arc<Target>> {
        self.doubtful.keys().cloned().collect()
    }

    /// Ends the doubt about an instance, whose state is compared now. Returns the doubt, if there
    /// was one.
    pub(super) fn settle(&mut self, target: &Target) -> Option<Doubt> {
        self.doubtful.remove(target)
    }

    /// Ends the doubt about an instance that cannot be compared. A full comparison follows.
    pub(super) fn give_up(&mut self, target: &Target) {
        self.counters.given_up += u64::from(self.doubtful.remove(target).is_some());
    }

    /// Returns true if nothing waits and nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.batches == 0
    }

    /// Returns the number of failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the time since the first of the failures.
    pub(super) fn outage(&self, now: Instant) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Returns true if a change of this instance waits or is in flight. Waiting heartbeats do not
    /// count.
    pub(super) fn has_pending(&self, target: &Target) -> bool {
        let waits = |places: &[Option<i64>; 5]| LASTING.iter().any(|&action| places[action as usize].is_some());
        self.in_flight.contains(target) || self.places.get(target).is_some_and(waits)
    }

    /// Returns the number of tasks that wait or are in flight, and of instances in doubt.
    #[cfg(any(feature = "page", feature = "prometheus"))]
    pub(super) fn backlog(&self) -> usize {
        self.waiting.len() + self.in_flight.len() + self.doubtful.len()
    }

    /// Returns the time since the oldest waiting task was pushed, or zero if none waits.
    #[cfg(any(feature = "page", feature = "prometheus"))]
    pub(super) fn lag(&self, now: Instant) -> Duration {
        let oldest = self.waiting.first_key_value();
        oldest.map_or(Duration::ZERO, |(_, task)| now.saturating_duration_since(task.pushed))
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns true if an empty batch is sent, which shows whether an outage is over.
    fn probes(&self) -> bool {
        self.failures > 0 && !self.doubtful.is_empty()
    }

    /// Returns true if the change is left to the comparison of its instance.
    fn is_compared(&self, change: &Change) -> bool {
        change.is_lasting() && self.doubtful.contains_key(&change.target)
    }

    /// Doubts the instances with waiting changes that newer ones of others may have overtaken.
    fn doubt_ordered(&mut self) {
        let ordered = self.waiting.values().filter(|task| task.change.is_ordered());
        let targets: Vec<_> = ordered.map(|task| task.change.target.clone()).collect();
        targets.into_iter().for_each(|target| self.doubt(target, Doubt::Changed));
    }

    /// Doubts an instance after a change that `doubt` describes. Later changes of it that wait are
    /// left to the comparison.
    fn doubt(&mut self, target: Arc<Target>, mut doubt: Doubt) {
        // A cancellation replaces all others, so only a registration can follow it.
        for action in [StatusUpdate, DeleteStatusOverride, Cancel, Register] {
            if let Some(task) = self.remove(&target, action) {
                self.counters.replaced += 1;
                doubt = Doubt::after(&task.change);
            }
        }
        let has_room = self.doubtful.len() < self.limits.capacity;
        match self.doubtful.entry(target) {
            Entry::Occupied(_) => {}
            Entry::Vacant(entry) if has_room => {
                entry.insert(doubt);
            }
            Entry::Vacant(_) => self.counters.overflowed += 1,
        }
    }

    fn take(&mut self, now: Instant) -> Vec<Task> {
        let (mut batch, mut expired) = (Vec::new(), Vec::new());
        for (&place, task) in &self.waiting {
            if batch.len() == self.limits.batch {
                break;
            }
            if self.is_expired(task, now) {
                expired.push(place);
            } else if !self.in_flight.contains(&task.change.target) {
                batch.push(place);
            }
        }
        expired.into_iter().for_each(|place| self.expire(place));
        batch.into_iter().filter_map(|place| self.remove_at(place)).collect()
    }

    /// Makes room for one more task. A heartbeat is dropped first, since the next one replaces it.
    /// While the peer fails, heartbeats take at most half of the queue, so that the search for one
    /// is short. Returns false if the new task is a heartbeat without room.
    fn make_room(&mut self, lasting: bool) -> bool {
        let capacity = self.limits.capacity;
        if !lasting && self.failures > 0 && self.waiting.len() >= capacity.div_ceil(2) {
            return false;
        }
        while self.waiting.len() >= capacity {
            let heartbeat = self.waiting.iter().find(|(_, task)| !task.change.is_lasting()).map(|(&place, _)| place);
            if heartbeat.is_none() && !lasting {
                return false;
            }
            match heartbeat {
                Some(place) => {
                    self.remove_at(place);
                    self.counters.heartbeats += 1;
                }
                None => {
                    self.pop();
                    self.counters.overflowed += 1;
                }
            }
        }
        true
    }

    fn fail(&mut self, batch: Vec<Task>, delay: Duration, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.paused_until = Some(now + delay);
        for task in batch.into_iter().rev() {
            if self.is_expired(&task, now) {
                self.counters.add_expired(&task);
            } else if self.holds_newer(&task.change) || self.is_compared(&task.change) {
                self.counters.replaced += 1;
            } else if !self.make_room(task.change.is_lasting()) {
                self.counters.heartbeats += 1;
            } else {
                self.front -= 1;
                self.insert(self.front, task);
            }
        }
    }

    /// Renews the time of the waiting changes when the peer responds again.
    fn recover(&mut self, now: Instant) {
        (self.paused_until, self.failing_since) = (None, None);
        for task in self.waiting.values_mut().filter(|task| task.change.is_lasting()) {
            task.expires = task.expires.max(now + self.limits.life);
        }
    }

    fn is_expired(&self, task: &Task, now: Instant) -> bool {
        let spared = self.failures > 0 && task.change.is_lasting() && now < task.pushed + self.limits.outage;
        now >= task.expires && !spared
    }

    fn holds_newer(&self, change: &Change) -> bool {
        let Some(places) = self.places.get(&change.target) else { return false };
        let newer =
            |action: &ReplicationAction| *action == change.action || superseded_by(*action).contains(&change.action);
        ALL.iter().any(|action| places[*action as usize].is_some() && newer(action))
    }

    fn insert(&mut self, place: i64, task: Task) {
        self.places.entry(task.change.target.clone()).or_default()[task.change.action as usize] = Some(place);
        self.waiting.insert(place, task);
    }

    fn remove(&mut self, target: &Target, action: ReplicationAction) -> Option<Task> {
        let place = self.places.get(target)?[action as usize]?;
        self.remove_at(place)
    }

    fn remove_at(&mut self, place: i64) -> Option<Task> {
        let task = self.waiting.remove(&place)?;
        if let Some(places) = self.places.get_mut(&task.change.target) {
            places[task.change.action as usize] = None;
            if places.iter().all(Option::is_none) {
                self.places.remove(&task.change.target);
            }
        }
        Some(task)
    }

    fn expire(&mut self, place: i64) {
        if let Some(task) = self.remove_at(place) {
            self.counters.add_expired(&task);
        }
    }

    fn pop(&mut self) {
        if let Some((&place, _)) = self.waiting.first_key_value() {
            self.remove_at(place);
        }
    }
}

use ReplicationAction::{Cancel, DeleteStatusOverride, Heartbeat, Register, StatusUpdate};

const ALL: [ReplicationAction; 5] = [Register, Heartbeat, Cancel, StatusUpdate, DeleteStatusOverride];
/// The actions that the instance does not repeat, as it does a heartbeat.
const LASTING: [ReplicationAction; 4] = [Register, Cancel, StatusUpdate, DeleteStatusOverride];

/// Returns the actions that an action makes superfluous.
fn superseded_by(action: ReplicationAction) -> &'static [ReplicationAction] {
    match action {
        Cancel => &[Register, Heartbeat, StatusUpdate, DeleteStatusOverride],
        Register => &[Heartbeat],
        StatusUpdate => &[DeleteStatusOverride],
        Heartbeat | DeleteStatusOverride => &[],
    }
}
