//! What one peer is still to be told. No IO; every operation takes `now`. `server-behaviour` 8.7.
//!
//! ```text
//!  push ──▶ waiting, in order, at most one task per instance and action ──▶ poll: a batch ──▶ in flight
//!              ▲ front: failed batches, where nothing newer was pushed meanwhile ◀── done ───────┘
//! ```
//!
//! It differs from Java's dispatcher in what made that one lose changes or stop (13.3, items 15 and 16):
//!
//! * A task that is replaced keeps the time at which it was first pushed, so frequent heartbeats don't hold back the queue.
//! * A cancellation takes the place of everything else that was to be told of the instance.
//! * What belongs to one instance is told in order: of an instance in flight nothing more is sent.
//! * While the peer can't be reached, changes (not heartbeats) outlive their time, up to the outage limit; after that the peer may agree
//!   again without having been restarted.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{InstanceStatus, ReplicationAction};

/// Tasks in one batch at most; fixed in Java.
pub(super) const BATCH_SIZE: usize = 250;
/// How long a task waits for others at most; fixed in Java.
const BATCHING_DELAY: Duration = Duration::from_millis(500);
/// Pause after the peer said that it has too much to do; fixed in Java.
const CONGESTION_DELAY: Duration = Duration::from_secs(1);
/// Pause after a network failure; fixed in Java. Here it doubles up to the one for congestion.
const NETWORK_DELAY: Duration = Duration::from_millis(100);

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Waiting tasks; the oldest is dropped for one more.
    pub(super) capacity: usize,
    pub(super) batch: usize,
    /// Batches in flight.
    pub(super) workers: usize,
    /// How long a task is worth sending.
    pub(super) life: Duration,
    /// How long a change is worth sending to a peer that can't be reached.
    pub(super) outage: Duration,
}

/// An instance, shared by the queues of all peers.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::server) struct Target {
    pub(in crate::server) app: Arc<str>,
    pub(in crate::server) id: Arc<str>,
}

/// What a peer is to be told. What travels beside it is read from the registry when the batch is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Change {
    pub(in crate::server) target: Arc<Target>,
    pub(in crate::server) action: ReplicationAction,
    /// The status to set, or to leave behind.
    pub(in crate::server) status: Option<InstanceStatus>,
}

#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) change: Change,
    pushed: Instant,
    expires: Instant,
}

/// What to do now.
#[derive(Debug)]
pub(super) enum Step {
    /// Send these, and tell [`Queue::done`] what became of them.
    Send(Vec<Task>),
    /// Nothing before this time, or before something happens.
    Wait(Option<Instant>),
}

/// What became of a batch. `server-behaviour` 8.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The peer answered, or its refusal is final: these tasks are over.
    Done,
    /// The peer has too much to do, or did not answer in time: again, after a while.
    Congested,
    /// The peer was not reached, or what answered is not a registry: again.
    Failed,
    /// Nothing was sent, since nothing was left to say.
    Unsent,
}

/// What was not sent, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Replaced by something newer.
    pub(super) replaced: u64,
    /// Too old.
    pub(super) expired: u64,
    /// No room.
    pub(super) overflowed: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    /// In the order in which they are to be sent.
    waiting: BTreeMap<i64, Task>,
    /// Where the tasks of an instance stand in it, by action.
    places: HashMap<Arc<Target>, [Option<i64>; 5]>,
    in_flight: HashSet<Arc<Target>>,
    batches: usize,
    front: i64,
    back: i64,
    paused_until: Option<Instant>,
    /// Failures since the peer last answered.
    failures: u32,
    /// When the first of them was.
    failing_since: Option<Instant>,
    flushing: bool,
    /// The peer refused a change for good since [`flush`](Self::flush).
    refused_at_flush: bool,
    /// Whether the last look found only what has to wait for a batch in flight.
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
            batches: 0,
            front: 0,
            back: 0,
            paused_until: None,
            failures: 0,
            failing_since: None,
            flushing: false,
            refused_at_flush: false,
            stalled: false,
            counters: Counters::default(),
        }
    }

    /// Takes a change in. True if whoever polls has to look again earlier than it was told.
    pub(super) fn push(&mut self, change: Change, now: Instant) -> bool {
        let was_empty = self.waiting.is_empty();
        for &action in superseded_by(change.action) {
            if self.remove(&change.target, action).is_some() {
                self.counters.replaced += 1;
            }
        }
        let expires = now + self.limits.life;
        let place = self.places.get(&change.target).and_then(|places| places[change.action as usize]);
        if let Some(task) = place.and_then(|place| self.waiting.get_mut(&place)) {
            self.counters.replaced += 1;
            (task.change, task.expires) = (change, expires);
            return false;
        }
        let stalled = std::mem::take(&mut self.stalled);
        self.back += 1;
        let task = Task { change, pushed: now, expires };
        if !self.make_room(is_lasting(&task)) {
            self.counters.overflowed += 1;
            return false;
        }
        self.insert(self.back, task);
        was_empty || stalled || self.waiting.len() == self.limits.batch || self.waiting.len() == self.limits.capacity
    }

    /// What to do now.
    pub(super) fn poll(&mut self, now: Instant) -> Step {
        // A peer that fails is tried with one batch at a time.
        let workers = if self.failures > 0 { 1 } else { self.limits.workers };
        if self.batches >= workers {
            return Step::Wait(None);
        }
        while let Some((_, oldest)) = self.waiting.first_key_value()
            && self.is_expired(oldest, now)
        {
            self.pop();
            self.counters.expired += 1;
        }
        let Some((_, oldest)) = self.waiting.first_key_value() else { return Step::Wait(None) };
        let full = self.waiting.len() >= self.limits.batch.min(self.limits.capacity);
        let due = if full || self.flushing { now } else { oldest.pushed + BATCHING_DELAY };
        let due = self.paused_until.map_or(due, |until| due.max(until));
        if due > now {
            return Step::Wait(Some(due));
        }
        let batch = self.take(now);
        // Everything that waits is of instances in flight: what comes next may be of another.
        self.stalled = batch.is_empty();
        if batch.is_empty() {
            return Step::Wait(None);
        }
        self.batches += 1;
        self.in_flight.extend(batch.iter().map(|task| task.change.target.clone()));
        Step::Send(batch)
    }

    /// Takes back a batch.
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

    /// From now on nothing waits for company.
    pub(super) fn flush(&mut self) {
        self.flushing = true;
    }

    /// Notes that the peer refused a change for good.
    pub(super) fn note_refusal(&mut self) {
        self.refused_at_flush |= self.flushing;
    }

    /// Returns `true` if the peer took everything since [`flush`](Self::flush).
    pub(super) fn is_flushed(&self) -> bool {
        self.is_empty() && !self.refused_at_flush
    }

    /// Whether everything was told.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.batches == 0
    }

    /// How often in a row the peer was not reached.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// For how long the peer has not been reached.
    pub(super) fn outage(&self, now: Instant) -> Duration {
        self.failing_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether the peer is still to be told of a change of this instance.
    pub(super) fn has_pending(&self, target: &Target) -> bool {
        let waits = |places: &[Option<i64>; 5]| ALL.iter().any(|&a| a != Heartbeat && places[a as usize].is_some());
        self.in_flight.contains(target) || self.places.get(target).is_some_and(waits)
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
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
        self.counters.expired += expired.len() as u64;
        expired.into_iter().for_each(|place| drop(self.remove_at(place)));
        batch.into_iter().filter_map(|place| self.remove_at(place)).collect()
    }

    /// Makes room for one more. A heartbeat gives way first, as the next one says the same; while the peer fails, heartbeats take no more
    /// than half of the room, so that looking for one stays short. False if the newcomer is a heartbeat for which there is none.
    fn make_room(&mut self, lasting: bool) -> bool {
        let capacity = self.limits.capacity;
        if !lasting && self.failures > 0 && self.waiting.len() >= capacity.div_ceil(2) {
            return false;
        }
        while self.waiting.len() >= capacity {
            let heartbeat = self.waiting.iter().find(|(_, task)| !is_lasting(task)).map(|(&place, _)| place);
            if heartbeat.is_none() && !lasting {
                return false;
            }
            match heartbeat {
                Some(place) => drop(self.remove_at(place)),
                None => self.pop(),
            }
            self.counters.overflowed += 1;
        }
        true
    }

    fn fail(&mut self, batch: Vec<Task>, delay: Duration, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
        self.paused_until = Some(now + delay);
        for task in batch.into_iter().rev() {
            if self.is_expired(&task, now) {
                self.counters.expired += 1;
            } else if self.holds_newer(&task.change) {
                self.counters.replaced += 1;
            } else if !self.make_room(is_lasting(&task)) {
                self.counters.overflowed += 1;
            } else {
                self.front -= 1;
                self.insert(self.front, task);
            }
        }
    }

    /// The peer answers again. What it missed is worth telling as if it had happened now.
    fn recover(&mut self, now: Instant) {
        (self.paused_until, self.failing_since) = (None, None);
        for task in self.waiting.values_mut().filter(|task| is_lasting(task)) {
            task.expires = task.expires.max(now + self.limits.life);
        }
    }

    fn is_expired(&self, task: &Task, now: Instant) -> bool {
        let spared = self.failures > 0 && is_lasting(task) && now < task.pushed + self.limits.outage;
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

    fn pop(&mut self) {
        if let Some((&place, _)) = self.waiting.first_key_value() {
            self.remove_at(place);
        }
    }
}

use ReplicationAction::{Cancel, DeleteStatusOverride, Heartbeat, Register, StatusUpdate};

const ALL: [ReplicationAction; 5] = [Register, Heartbeat, Cancel, StatusUpdate, DeleteStatusOverride];

/// What need not be told any more, now that this is.
fn superseded_by(action: ReplicationAction) -> &'static [ReplicationAction] {
    match action {
        Cancel => &[Register, Heartbeat, StatusUpdate, DeleteStatusOverride],
        Register => &[Heartbeat],
        StatusUpdate => &[DeleteStatusOverride],
        Heartbeat | DeleteStatusOverride => &[],
    }
}

/// Whether nobody would say it again.
fn is_lasting(task: &Task) -> bool {
    task.change.action != Heartbeat
}
