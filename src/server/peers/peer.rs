//! One peer: its queue, and the task that empties it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::queue::{Change, Limits, Outcome, Queue, Step, Target, Task};
use crate::clock::Clock;
use crate::config::ServiceUrl;
use crate::error::{Error, Kind};
use crate::model::{
    Applications, Instance, InstanceStatus, ReplicationAction, ReplicationItem, ReplicationList, ReplicationResponse,
    ReplicationResult,
};
use crate::server::audit::{self, Shown, Throttle};
use crate::server::registry::{Origin, Registry};
use crate::transport::Transport;

/// Instances in one request, in bytes, as long as there is more than one: well below the limits that servers and proxies have.
const PART_BYTES: usize = 1 << 20;
/// What stands around the lines of a batch.
const LIST_BEGIN: &[u8] = br#"{"replicationList":["#;
const LIST_END: &[u8] = b"]}";
/// Who was not reached for this long may have forgotten what it had to tell: Java does after 30 s.
const OUTAGE: Duration = Duration::from_secs(10);
/// Batches that the peer refuses are logged at most this often: they go on for as long as its URL
/// is wrong.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Overflows of the queue are told at most this often.
const OVERFLOW_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A registry server that is told of changes.
#[derive(Debug)]
pub(super) struct Peer {
    url: ServiceUrl,
    transport: Transport,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Woken whenever something came of the queue.
    settled: Notify,
    /// Told when it takes changes again after an outage.
    recovered: Notify,
    /// It turned out to be this node.
    is_me: AtomicBool,
    /// The peer responded to the last request.
    responds: AtomicBool,
    /// The peer responded to the last batch with an error.
    refuses: AtomicBool,
    /// Limits the lines about such batches.
    refusals: Throttle,
}

/// What the task of a peer works with.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Clock,
    /// Sent with each batch, so that a node recognises its own.
    pub(super) node_id: Arc<str>,
    pub(super) take_newer_copies: bool,
}

impl Peer {
    pub(super) fn new(url: ServiceUrl, transport: Transport, limits: Limits) -> Self {
        Self {
            url,
            transport,
            queue: Mutex::new(Queue::new(limits)),
            wake: Notify::new(),
            settled: Notify::new(),
            recovered: Notify::new(),
            is_me: AtomicBool::new(false),
            responds: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            refusals: Throttle::new(REFUSAL_LOG_INTERVAL),
        }
    }

    pub(super) fn url(&self) -> &ServiceUrl {
        &self.url
    }

    /// Fetches everything that the peer has.
    pub(super) async fn applications(&self) -> Result<Applications, Error> {
        self.noted(self.transport.applications().await)
    }

    /// Fetches the recent changes at the peer, if it has deltas.
    pub(super) async fn delta(&self) -> Result<Option<Applications>, Error> {
        self.noted(self.transport.delta().await)
    }

    /// Fetches one instance as the peer has it.
    pub(super) async fn instance(&self, app: &str, id: &str) -> Result<Option<Instance>, Error> {
        self.noted(self.transport.instance(app, id).await)
    }

    async fn replicate(&self, batch: Bytes, node_id: &str) -> Result<ReplicationResponse, Error> {
        let outcome = self.transport.replicate(batch, node_id).await;
        match &outcome {
            Ok(_) => self.refuses.store(false, Ordering::Relaxed),
            Err(error) if error.status().is_some() && !error.is_paused() => self.refuses.store(true, Ordering::Relaxed),
            // A peer that was not reached refused nothing.
            Err(_) => {}
        }
        self.noted(outcome)
    }

    /// Returns true if the peer responded to the last request and took the last batch that reached it.
    pub(super) fn is_available(&self) -> bool {
        self.responds.load(Ordering::Relaxed) && !self.refuses.load(Ordering::Relaxed)
    }

    /// Notes by the outcome of a request whether the peer responds. A node that is not open for
    /// traffic refuses lists with 403.
    fn noted<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        let responds = match &outcome {
            Ok(_) => true,
            // Nothing was sent, so nothing is known.
            Err(error) if error.is_paused() => return outcome,
            Err(error) => error.status() == Some(StatusCode::FORBIDDEN.as_u16()),
        };
        if self.responds.swap(responds, Ordering::Relaxed) != responds {
            tracing::debug!(peer = %self.url.as_str(), responds, "availability of a peer changed");
        }
        outcome
    }

    /// Takes a change in; it is sent when its turn comes.
    pub(super) fn tell(&self, change: Change) {
        if self.is_me.load(Ordering::Relaxed) {
            return;
        }
        // Bound to a name, the guard would live on while the task is woken.
        let wake = self.queue().push(change, Instant::now());
        if wake {
            self.wake.notify_one();
        }
    }

    /// Sends what waits, until it is told or the peer fails to take it.
    pub(super) async fn flush(&self) {
        if self.is_me.load(Ordering::Relaxed) {
            return;
        }
        let failures = {
            let mut queue = self.queue();
            queue.flush();
            queue.failures()
        };
        self.wake.notify_one();
        loop {
            let settled = self.settled.notified();
            {
                let queue = self.queue();
                if queue.is_empty() || queue.failures() > failures {
                    return;
                }
            }
            settled.await;
        }
    }

    /// Finds out whether it is this node, by a batch that says nothing.
    pub(super) async fn identify(&self, node_id: &str) {
        if let Err(error) = self.replicate(ReplicationList::default().to_json().into(), node_id).await
            && error.status() == Some(StatusCode::LOOP_DETECTED.as_u16())
        {
            self.is_me.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
    }

    pub(super) fn is_me(&self) -> bool {
        self.is_me.load(Ordering::Relaxed)
    }

    /// Completes when the peer takes changes again after an outage.
    pub(super) async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// Whether a change of this instance waits or is on its way.
    pub(super) fn is_being_told(&self, target: &Target) -> bool {
        self.queue().concerns(target)
    }

    /// How many changes were lost for want of room.
    pub(super) fn lost(&self) -> u64 {
        self.queue().counters().overflown
    }

    /// Whether there is nothing left to tell.
    pub(super) fn is_settled(&self) -> bool {
        self.is_me.load(Ordering::Relaxed) || self.queue().is_empty()
    }

    #[cfg(test)]
    pub(super) fn take_told(&self) -> Vec<(ReplicationAction, Option<InstanceStatus>)> {
        let mut queue = self.queue();
        let now = Instant::now();
        queue.flush();
        let Step::Send(batch) = queue.poll(now) else { return Vec::new() };
        let told = batch.iter().map(|task| (task.change.action, task.change.status)).collect();
        queue.done(batch, Outcome::Answered, now);
        told
    }

    /// Empties the queue for ever. Dropping the future drops the batches in flight.
    pub(super) async fn run(self: Arc<Self>, surroundings: Surroundings) {
        let mut batches = JoinSet::new();
        let mut told = OverflowLog::default();
        loop {
            let step = self.queue().poll(Instant::now());
            told.look(&self);
            let until = match step {
                Step::Send(batch) => {
                    batches.spawn(self.clone().send(batch, surroundings.clone()));
                    continue;
                }
                Step::Wait(until) => until,
            };
            self.settled.notify_waiters();
            tokio::select! {
                () = self.wake.notified() => {}
                () = wait_until(until) => {}
                Some(ended) = batches.join_next() => if let Err(error) = ended {
                    tracing::error!(peer = %self.url.as_str(), %error, "sending changes panicked, they are dropped");
                },
            }
            if self.is_me.load(Ordering::Relaxed) {
                tracing::info!(peer = %self.url.as_str(), "this peer is the node itself, it is left out from now on");
                return;
            }
        }
    }

    async fn send(self: Arc<Self>, batch: Vec<Task>, surroundings: Surroundings) {
        let mut sent = InFlight { peer: &self, batch, outcome: Outcome::Failed };
        let mut outcome = Outcome::Unsent;
        let lines =
            sent.batch.iter().filter_map(|task| item(&surroundings, &task.change).map(|i| (task.change.clone(), i)));
        for (changes, body) in in_parts(lines) {
            outcome = self.deliver(&changes, body, &surroundings).await;
            if outcome != Outcome::Answered {
                break;
            }
        }
        if outcome == Outcome::Answered {
            let (failures, outage) = {
                let queue = self.queue();
                (queue.failures(), queue.outage(Instant::now()))
            };
            if failures > 0 {
                tracing::info!(peer = %self.url.as_str(), failures, ?outage, "the peer takes changes again");
            }
            if outage >= OUTAGE {
                self.recovered.notify_one();
            }
        }
        sent.outcome = outcome;
    }

    async fn deliver(&self, changes: &[Change], body: Vec<u8>, surroundings: &Surroundings) -> Outcome {
        match self.replicate(body.into(), &surroundings.node_id).await {
            Ok(answer) if answer.0.len() == changes.len() => {
                for (change, result) in changes.iter().zip(answer.0) {
                    self.take_result(change, result, surroundings);
                }
                Outcome::Answered
            }
            Ok(answer) => {
                let (sent, answered) = (changes.len(), answer.0.len());
                tracing::warn!(peer = %self.url.as_str(), sent, answered, "a peer's answer does not fit the batch");
                Outcome::Answered
            }
            Err(error) if error.status() == Some(StatusCode::LOOP_DETECTED.as_u16()) => {
                self.is_me.store(true, Ordering::Relaxed);
                Outcome::Answered
            }
            Err(error) => self.fault(&error, changes.len()),
        }
    }

    fn fault(&self, error: &Error, changes: usize) -> Outcome {
        let outcome = outcome(error);
        let peer = self.url.as_str();
        if outcome == Outcome::Answered {
            if let Some(suppressed) = self.refusals.pass() {
                tracing::warn!(%peer, %error, changes, suppressed, "a peer refuses changes, they are dropped");
            }
        } else if self.queue().failures() == 0 {
            tracing::warn!(%peer, %error, "a peer does not take changes, they are kept for it");
        } else {
            tracing::debug!(%peer, %error, "a peer does not take changes");
        }
        outcome
    }

    /// What one line of the answer asks for. Nothing is said again; the next heartbeat repairs what differs.
    fn take_result(&self, change: &Change, result: ReplicationResult, surroundings: &Surroundings) {
        let Change { target, action, .. } = change;
        let (app, instance, status) = (Shown(&target.app), Shown(&target.id), result.status);
        let peer = self.url.as_str();
        match (action, status, result.entity) {
            (_, 200..=299, _) => {}
            // It has none, or an older one. Here the instance may have left meanwhile.
            (ReplicationAction::Heartbeat, 404, _) => {
                if surroundings.instance(target).is_some() {
                    let (target, action) = (target.clone(), ReplicationAction::Register);
                    self.tell(Change { target, action, status: None });
                }
            }
            (ReplicationAction::Heartbeat, _, Some(copy)) if surroundings.take_newer_copies => {
                tracing::debug!(%peer, %app, %instance, status, "a peer has newer data of an instance");
                surroundings.take_over(target, Instance::clone(&copy), peer);
            }
            (ReplicationAction::Cancel, 404, _) => {
                tracing::trace!(%peer, %app, %instance, "a peer did not have the instance")
            }
            _ => tracing::debug!(%peer, %app, %instance, status, action = action.as_str(), "a peer refuses a change"),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the queue its batch back, whatever becomes of the task that sends it.
struct InFlight<'a> {
    peer: &'a Peer,
    batch: Vec<Task>,
    outcome: Outcome,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // What made the task panic would do so again; what was merely interrupted is still to be told.
        let outcome = if std::thread::panicking() { Outcome::Unsent } else { self.outcome };
        self.peer.queue().done(std::mem::take(&mut self.batch), outcome, Instant::now());
    }
}

impl Surroundings {
    fn instance(&self, target: &Target) -> Option<Instance> {
        self.registry.instance(&target.app, &target.id, self.clock.now_ms())
    }

    /// Believes the peer's copy, if it is of this instance and the instance is still here.
    fn take_over(&self, target: &Target, copy: Instance, peer: &str) {
        let now = self.clock.now_ms();
        if copy.app() != &*target.app || copy.id() != &*target.id || self.instance(target).is_none() {
            return;
        }
        let status = copy.status;
        if copy.overridden_status != InstanceStatus::Unknown {
            self.registry.store_override(&target.app, &target.id, copy.overridden_status, now);
        }
        match self.registry.register(copy, Origin::Replica, now) {
            Ok(_) => audit::adopted(&target.app, &target.id, status, peer),
            Err(error) => {
                let (app, instance) = (Shown(&target.app), Shown(&target.id));
                tracing::warn!(%app, %instance, %peer, %error, "cannot take over a peer's copy");
            }
        }
    }
}

/// The line for a change, with the instance as it is now. `None` if there is nothing left to say: whoever took the instance away said it.
fn item(surroundings: &Surroundings, change: &Change) -> Option<ReplicationItem> {
    let Change { target, action, status } = change;
    let bare = ReplicationItem {
        app: Some(target.app.clone()),
        id: Some(target.id.clone()),
        last_dirty_timestamp: None,
        overridden_status: None,
        status: None,
        instance: None,
        action: Some(*action),
    };
    let Some(instance) = surroundings.instance(target) else {
        return (*action == ReplicationAction::Cancel).then_some(bare);
    };
    // Registered again since: told so, in whatever order the two came here.
    let action = &match action {
        ReplicationAction::Cancel => ReplicationAction::Register,
        action => *action,
    };
    let overridden = Some(instance.overridden_status).filter(|&status| status != InstanceStatus::Unknown);
    let heartbeat = *action == ReplicationAction::Heartbeat;
    Some(ReplicationItem {
        last_dirty_timestamp: instance.last_dirty_timestamp,
        overridden_status: overridden.filter(|_| heartbeat),
        status: status.or(Some(instance.status)),
        instance: (*action == ReplicationAction::Register).then_some(instance),
        action: Some(*action),
        ..bare
    })
}

/// Encodes a batch, divided where it would be longer than peers take.
fn in_parts(lines: impl Iterator<Item = (Change, ReplicationItem)>) -> Vec<(Vec<Change>, Vec<u8>)> {
    let mut parts: Vec<(Vec<Change>, Vec<u8>)> = Vec::new();
    for (change, item) in lines {
        let line = item.to_json();
        match parts.last_mut() {
            Some((changes, body)) if body.len() + line.len() <= PART_BYTES => {
                changes.push(change);
                body.push(b',');
                body.extend(line);
            }
            _ => parts.push((vec![change], [LIST_BEGIN, &line].concat())),
        }
    }
    parts.iter_mut().for_each(|(_, body)| body.extend(LIST_END));
    parts
}

fn outcome(error: &Error) -> Outcome {
    match error.kind() {
        // Also what a proxy in front of a peer says while that starts.
        Kind::Status(429 | 502 | 503 | 504) | Kind::Paused(_) | Kind::Timeout => Outcome::Congested,
        Kind::Status(_) | Kind::Config => Outcome::Answered,
        _ => Outcome::Failed,
    }
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Tells that changes were lost for want of room.
#[derive(Default)]
struct OverflowLog {
    told: u64,
    at: Option<Instant>,
}

impl OverflowLog {
    fn look(&mut self, peer: &Peer) {
        let counters = peer.queue().counters();
        let now = Instant::now();
        if counters.overflown == self.told || self.at.is_some_and(|at| now < at + OVERFLOW_LOG_INTERVAL) {
            return;
        }
        let dropped = counters.overflown - self.told;
        (self.told, self.at) = (counters.overflown, Some(now));
        tracing::warn!(peer = %peer.url.as_str(), dropped, "more changes wait for a peer than it has room for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_divided_where_it_gets_too_long() {
        let line = |id: &str, bytes: usize| {
            let target = Arc::new(Target { app: "ORDERS".into(), id: id.into() });
            let change = Change { target, action: ReplicationAction::Register, status: None };
            let instance = (bytes > 0).then(|| {
                Instance::builder("orders")
                    .ip_addr("10.0.0.1")
                    .port(1)
                    .metadata("long", "x".repeat(bytes))
                    .build()
                    .unwrap()
            });
            let item = ReplicationItem {
                app: None,
                id: None,
                last_dirty_timestamp: None,
                overridden_status: None,
                status: None,
                instance,
                action: None,
            };
            (change, item)
        };
        let third = PART_BYTES / 3;
        let lines = [("a", 0), ("b", third), ("c", third), ("d", third), ("e", 0), ("f", 2 * PART_BYTES), ("g", 0)];
        let parts = in_parts(lines.iter().map(|&(id, bytes)| line(id, bytes)));
        let ids: Vec<Vec<_>> =
            parts.iter().map(|(changes, _)| changes.iter().map(|c| &*c.target.id).collect()).collect();
        assert_eq!(ids, [vec!["a", "b", "c"], vec!["d", "e"], vec!["f"], vec!["g"]]);
        for (changes, body) in &parts {
            let sent = ReplicationList::from_json(body).unwrap();
            assert_eq!(sent.0.len(), changes.len());
            assert_eq!(sent.to_json(), *body, "as it is encoded at one go");
        }
        assert!(in_parts(std::iter::empty()).is_empty());
    }
}
