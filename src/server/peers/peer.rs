//! One peer: its queue, and the task that empties it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::batch::{in_parts, item};
use super::queue::{Change, Limits, Outcome, Queue, Step, Target, Task};
use super::refused::RefusedCopies;
use crate::config::ServiceUrl;
use crate::error::{Error, Kind};
use crate::model::{
    Applications, Instance, InstanceStatus, ReplicationAction, ReplicationList, ReplicationResponse, ReplicationResult,
};
use crate::server::audit::{self, Lasting, Ongoing, Quoted, Throttle};
use crate::server::node::Node;
use crate::server::outcome::{Origin, Refused};
use crate::server::registry::{Registry, Version};
use crate::sync::{Mutex, MutexGuard};
use crate::time::{Clock, random_part};
use crate::transport::{Fetched, Replicated, ServerClock, Transport};

/// Who was not reached for this long may have forgotten what it had to tell: Java does after 30 s.
const OUTAGE: Duration = Duration::from_secs(10);
/// Minimum time between two lines about batches that the peer refuses, which go on for as long as its
/// URL is wrong, and between two about changes that were dropped.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Sends of one batch that lead back to this node before its URL is taken for this node's own: behind
/// a balancer another connection leads to another node.
const OWN_TRIES: usize = 8;
/// Maximum pause between two of them.
const OWN_PAUSE: Duration = Duration::from_millis(10);
/// Batches in a row that led back before it is taken for its own where it led to another node before.
const OWN_BATCHES: u32 = 4;
/// Difference between the clocks of two machines from which on it is a fault.
const SKEW_MS: i64 = 5_000;
/// Difference below which the fault is over.
const SKEW_OVER_MS: i64 = 4_000;

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
    /// Its URL leads to this node.
    is_me: AtomicBool,
    /// Batches in a row that led to this node.
    own_batches: AtomicU32,
    /// Its URL led to this node at least once, and at least once to another.
    led_here: AtomicBool,
    led_elsewhere: AtomicBool,
    /// The log says so.
    is_balanced: AtomicBool,
    /// Clock of the peer.
    clock: Arc<ServerClock>,
    /// That clock is far from this machine's.
    is_skewed: AtomicBool,
    skew: Ongoing,
    /// The peer responded to the last request.
    responds: AtomicBool,
    /// The peer responded to the last batch with an error.
    refuses: AtomicBool,
    /// Limits the lines about such batches.
    refusals: Throttle,
    /// Batches that failed and are kept for the peer.
    failures: Ongoing,
    /// Registrations that the peer refused.
    refused: Mutex<RefusedCopies>,
    registrations_refused: Ongoing,
    /// Copies of the peer that this node refused.
    copies_refused: Ongoing,
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
    pub(super) fn new(url: ServiceUrl, transport: Transport, clock: Arc<ServerClock>, limits: Limits) -> Self {
        Self {
            url,
            transport,
            queue: Mutex::new(Queue::new(limits)),
            wake: Notify::new(),
            settled: Notify::new(),
            recovered: Notify::new(),
            is_me: AtomicBool::new(false),
            own_batches: AtomicU32::new(0),
            led_here: AtomicBool::new(false),
            led_elsewhere: AtomicBool::new(false),
            is_balanced: AtomicBool::new(false),
            clock,
            is_skewed: AtomicBool::new(false),
            skew: Ongoing::default(),
            responds: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            refusals: Throttle::new(LOG_INTERVAL),
            failures: Ongoing::default(),
            refused: Mutex::default(),
            registrations_refused: Ongoing::default(),
            copies_refused: Ongoing::default(),
        }
    }

    pub(super) fn url(&self) -> &ServiceUrl {
        &self.url
    }

    /// Fetches everything that the peer has.
    pub(super) async fn applications(&self) -> Result<Applications, Error> {
        self.noted(self.transport.applications().await)
    }

    /// The same with the evidence of the kind of server that it is.
    pub(super) async fn registry(&self) -> Result<Fetched, Error> {
        self.noted(self.transport.registry().await)
    }

    /// Fetches the recent changes at the peer, if it has deltas.
    pub(super) async fn delta(&self) -> Result<Option<Applications>, Error> {
        self.noted(self.transport.delta().await)
    }

    /// Fetches one instance as the peer has it.
    pub(super) async fn instance(&self, app: &str, id: &str) -> Result<Option<Instance>, Error> {
        self.noted(self.transport.instance(app, id).await)
    }

    /// Sends a batch. Returns `None` if each connection led back to this node.
    async fn replicate(&self, batch: Bytes, node_id: &str) -> Result<Option<ReplicationResponse>, Error> {
        let mut outcome = Ok(None);
        for _ in 0..OWN_TRIES {
            outcome = match self.transport.replicate(batch.clone(), node_id).await {
                // The node has closed the connection.
                Ok(Replicated::Own) => {
                    self.led_here.store(true, Ordering::Relaxed);
                    // Two nodes in step would each get its own turn of a balancer every time.
                    sleep(random_part(OWN_PAUSE)).await;
                    continue;
                }
                Ok(Replicated::Applied(response)) => Ok(Some(response)),
                Ok(Replicated::Loop) => Err(self.loop_detected()),
                Err(error) => Err(error),
            };
            break;
        }
        match &outcome {
            Ok(Some(_)) => {
                self.refuses.store(false, Ordering::Relaxed);
                self.note_other();
            }
            Err(error) if error.status().is_some() && !error.is_paused() => self.refuses.store(true, Ordering::Relaxed),
            // A peer that was not reached refused nothing.
            Ok(None) | Err(_) => {}
        }
        self.noted(outcome)
    }

    /// Notes that the URL led to another node.
    fn note_other(&self) {
        self.own_batches.store(0, Ordering::Relaxed);
        self.led_elsewhere.store(true, Ordering::Relaxed);
        if self.led_here.load(Ordering::Relaxed) && !self.is_balanced.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                peer = %self.url.as_str(),
                "the URL of a peer leads to this node at times, and to others at times: of several others behind it \
                 only one receives a change; name each node by a URL of its own"
            );
        }
    }

    /// Notes that a batch led to this node. Returns true if that is no accident.
    fn note_own(&self) -> bool {
        let batches = self.own_batches.fetch_add(1, Ordering::Relaxed) + 1;
        let is_me = batches >= if self.led_elsewhere.load(Ordering::Relaxed) { OWN_BATCHES } else { 1 };
        if is_me {
            self.is_me.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
        is_me
    }

    fn loop_detected(&self) -> Error {
        let error = Error::new(Kind::Status(StatusCode::LOOP_DETECTED.as_u16()), "send changes");
        error.server(self.url.as_str().clone()).cause("the response is 508, but not from this node itself")
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
        self.watch_clock();
        outcome
    }

    /// Logs when the clock of the peer departs from this machine's, and when it is right again.
    fn watch_clock(&self) {
        let Some(ahead_ms) = self.clock.ahead_ms() else { return };
        let was_skewed = self.is_skewed.load(Ordering::Relaxed);
        let is_skewed = ahead_ms.abs() > if was_skewed { SKEW_OVER_MS } else { SKEW_MS };
        if is_skewed == was_skewed || self.is_skewed.swap(is_skewed, Ordering::Relaxed) == is_skewed {
            return;
        }
        let (peer, ahead_secs) = (self.url.as_str(), ahead_ms / 1000);
        // Nodes behind one URL may have different clocks, and respond in turn.
        if is_skewed {
            if let Some(Lasting { elapsed, .. }) = self.skew.occurred() {
                tracing::warn!(%peer, ahead_secs, ?elapsed, "the clock of a peer differs from this machine's: its times are converted");
            }
        } else if let Some(Lasting { elapsed, .. }) = self.skew.ended() {
            tracing::info!(%peer, ahead_secs, ?elapsed, "the clock of a peer agrees with this machine's again");
        }
    }

    /// Milliseconds by which the times of the peer are ahead of those that this node publishes, if
    /// the difference is more than the measurement's.
    pub(super) fn ahead_ms(&self, node: &Node) -> i64 {
        let is_skewed = self.is_skewed.load(Ordering::Relaxed);
        let ahead = self.clock.ahead_ms().filter(|_| is_skewed);
        ahead.map_or(0, |ahead| ahead.saturating_add(node.wall_ahead_ms()))
    }

    /// Converts the times of an instance of the peer's to those of this node, so that the states of
    /// nodes whose clocks differ have an order.
    pub(super) fn in_our_time(&self, mut theirs: Instance, node: &Node) -> Instance {
        let ahead = self.ahead_ms(node);
        if ahead != 0 {
            theirs.last_updated_timestamp = theirs.last_updated_timestamp.map(|at| at.saturating_sub(ahead));
            if let Some(lease) = &mut theirs.lease {
                for at in [
                    &mut lease.registration_timestamp,
                    &mut lease.last_renewal_timestamp,
                    &mut lease.eviction_timestamp,
                    &mut lease.service_up_timestamp,
                ] {
                    // Zero stands for never.
                    *at = if *at > 0 { at.saturating_sub(ahead) } else { *at };
                }
            }
        }
        theirs
    }

    /// Logs that this node refused copies of the peer.
    pub(super) fn log_refused_copies(&self, refused: usize, error: Refused) {
        if let Some(Lasting { elapsed, .. }) = self.copies_refused.occurred() {
            let peer = self.url.as_str();
            tracing::warn!(%peer, refused, %error, ?elapsed, "cannot take over copies of a peer: each is left until it changes");
        }
    }

    /// Logs that no copy of the peer is refused any more.
    pub(super) fn log_copies_taken(&self) {
        if let Some(Lasting { elapsed, .. }) = self.copies_refused.ended() {
            tracing::info!(peer = %self.url.as_str(), ?elapsed, "copies of a peer are taken over again");
        }
    }

    /// Notes that the peer refused a registration for its size, or for want of room: each heartbeat
    /// would send it again.
    fn note_refused(&self, target: &Arc<Target>, status: u16, surroundings: &Surroundings) {
        let Some(ours) = surroundings.instance(target) else { return };
        let refused = {
            let mut refused = self.refused();
            refused.insert(target.clone(), Version::of(&ours), false);
            refused.len()
        };
        if let Some(Lasting { elapsed, .. }) = self.registrations_refused.occurred() {
            let (app, instance) = (Quoted(&target.app), Quoted(&target.id));
            tracing::warn!(
                peer = %self.url.as_str(), %app, %instance, status, refused, ?elapsed,
                "a peer refuses registrations: each is replicated again once it changes, or after an hour"
            );
        }
    }

    fn note_taken(&self, target: &Target) {
        let is_over = {
            let mut refused = self.refused();
            refused.remove(target);
            refused.prune();
            refused.len() == 0
        };
        if is_over && let Some(Lasting { count, elapsed }) = self.registrations_refused.ended() {
            tracing::info!(peer = %self.url.as_str(), count, ?elapsed, "a peer takes registrations again");
        }
    }

    fn refused(&self) -> MutexGuard<'_, RefusedCopies> {
        self.refused.lock()
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

    /// Finds out by an empty batch if its URL leads to this node.
    pub(super) async fn identify(&self, node_id: &str) {
        match self.replicate(ReplicationList::default().to_json().into(), node_id).await {
            Ok(None) => drop(self.note_own()),
            Ok(Some(_)) => self.is_me.store(false, Ordering::Relaxed),
            Err(_) => {}
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

    /// Returns `true` if the peer took everything since [`flush`](Self::flush).
    pub(super) fn is_handed_over(&self) -> bool {
        self.is_me.load(Ordering::Relaxed) || self.queue().is_handed_over()
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

    /// Empties the queue for as long as the URL leads to another node. Dropping the future drops the batches in flight.
    pub(super) async fn run(self: Arc<Self>, surroundings: Surroundings) {
        let mut batches = JoinSet::new();
        let (overflows, mut logged) = (Throttle::new(LOG_INTERVAL), 0);
        loop {
            let step = self.queue().poll(Instant::now());
            let overflown = self.lost();
            if overflown > logged && overflows.pass().is_some() {
                let dropped = overflown - std::mem::replace(&mut logged, overflown);
                tracing::warn!(peer = %self.url.as_str(), dropped, "more changes wait for a peer than it has room for");
            }
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
            if failures > 0
                && let Some(Lasting { count, .. }) = self.failures.ended()
            {
                tracing::info!(peer = %self.url.as_str(), count, ?outage, "the peer takes changes again");
            }
            if outage >= OUTAGE {
                self.recovered.notify_one();
            }
        }
        sent.outcome = outcome;
    }

    async fn deliver(&self, changes: &[Change], body: Vec<u8>, surroundings: &Surroundings) -> Outcome {
        match self.replicate(body.into(), &surroundings.node_id).await {
            Ok(None) if self.note_own() => Outcome::Answered,
            Ok(None) => Outcome::Failed,
            Ok(Some(answer)) if answer.0.len() == changes.len() => {
                for (change, result) in changes.iter().zip(answer.0) {
                    self.take_result(change, result, surroundings);
                }
                Outcome::Answered
            }
            Ok(Some(answer)) => {
                let (sent, answered) = (changes.len(), answer.0.len());
                tracing::warn!(peer = %self.url.as_str(), sent, answered, "a peer's answer does not fit the batch");
                self.queue().note_refusal();
                Outcome::Answered
            }
            Err(error) => self.fault(&error, changes.len()),
        }
    }

    fn fault(&self, error: &Error, changes: usize) -> Outcome {
        let outcome = outcome(error);
        let peer = self.url.as_str();
        if outcome == Outcome::Answered {
            self.queue().note_refusal();
            if let Some(suppressed) = self.refusals.pass() {
                tracing::warn!(%peer, %error, changes, suppressed, "a peer refuses changes, they are dropped");
            }
        } else if let Some(Lasting { count, elapsed }) = self.failures.occurred() {
            tracing::warn!(%peer, %error, count, ?elapsed, "a peer does not take changes, they are kept for it");
        } else {
            tracing::debug!(%peer, %error, "a peer does not take changes");
        }
        outcome
    }

    /// What one line of the answer asks for. Nothing is said again; the next heartbeat repairs what differs.
    fn take_result(&self, change: &Change, result: ReplicationResult, surroundings: &Surroundings) {
        let Change { target, action, .. } = change;
        let (app, instance, status) = (Quoted(&target.app), Quoted(&target.id), result.status);
        let peer = self.url.as_str();
        match (action, status, result.entity) {
            (ReplicationAction::Register, 200..=299, _) => self.note_taken(target),
            (_, 200..=299, _) => {}
            (ReplicationAction::Register, 400 | 413 | 507, _) => self.note_refused(target, status, surroundings),
            // It has none, or an older one. Here the instance may have left meanwhile.
            (ReplicationAction::Heartbeat, 404, _) => {
                if surroundings.instance(target).is_some_and(|ours| !self.refused().holds(target, Version::of(&ours))) {
                    let (target, action) = (target.clone(), ReplicationAction::Register);
                    self.tell(Change { target, action, status: None });
                }
            }
            (ReplicationAction::Heartbeat, _, Some(copy)) if surroundings.take_newer_copies => {
                tracing::debug!(%peer, %app, %instance, status, "a peer has newer data of an instance");
                if let Err(refused) = surroundings.take_over(target, Instance::clone(&copy), peer) {
                    self.log_refused_copies(1, refused);
                }
            }
            (ReplicationAction::Cancel, 404, _) => {
                tracing::trace!(%peer, %app, %instance, "a peer did not have the instance")
            }
            _ => {
                if *action == ReplicationAction::Register {
                    self.queue().note_refusal();
                }
                tracing::debug!(%peer, %app, %instance, status, action = action.as_str(), "a peer refuses a change");
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
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
    pub(super) fn instance(&self, target: &Target) -> Option<Instance> {
        self.registry.instance(&target.app, &target.id, self.clock.now_ms())
    }

    /// Believes the peer's copy, if it is of this instance, the instance is still here, and the copy says
    /// anything new.
    fn take_over(&self, target: &Target, copy: Instance, peer: &str) -> Result<(), Refused> {
        let now = self.clock.now_ms();
        if copy.app() != &*target.app || copy.id() != &*target.id || !self.registry.is_changed_by(&copy, now) {
            return Ok(());
        }
        let status = copy.status;
        if copy.overridden_status != InstanceStatus::Unknown {
            self.registry.store_override(&target.app, &target.id, copy.overridden_status, now);
        }
        self.registry.register(copy, Origin::Replica, now)?;
        audit::adopted(&target.app, &target.id, status, peer);
        Ok(())
    }
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
