//! One peer: its queue, and the task that sends it.

mod clock;
#[cfg(feature = "page")]
mod overview;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::clock::PeerClock;
#[cfg(feature = "page")]
use self::overview::LastError;
#[cfg(feature = "page")]
pub(in crate::server) use self::overview::PeerOverview;
use super::availability::Availability;
use super::batch::{Part, in_parts, items};
use super::local_node::LocalNode;
use super::loopback::Loopback;
use super::queue::{Change, Doubt, Limits, LostChanges, Outcome, Queue, Step, Target, Task};
use super::refused::RefusedCopies;
#[cfg(feature = "prometheus")]
use super::stats::PeerState;
use super::stats::{BatchCounts, BatchEnd};
use crate::config::ServiceUrl;
use crate::error::{Error, Kind};
use crate::model::{
    Applications, Instance, ReplicationAction, ReplicationList, ReplicationResponse, ReplicationResult,
};
use crate::server::audit::{Lasting, Ongoing, Quoted, Throttle};
use crate::server::events::{Events, ServerEvent};
use crate::server::outcome::Refused;
use crate::server::owner::OWNERS;
use crate::server::registry::Version;
use crate::sync::{Mutex, MutexGuard};
use crate::time::random_part;
use crate::transport::{Fetched, Replicated, ServerClock, Transport};

/// Length of an outage after which a peer may have dropped changes for this node, and may have
/// received newer ones from others. A Java peer drops them after 30 seconds.
pub(super) const OUTAGE: Duration = Duration::from_secs(10);
/// Minimum time between two log lines about batches that the peer refuses, and between two about
/// dropped changes. Batches are refused for as long as the peer's URL is wrong.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Sends of one batch that come back before the URL counts as this node's own. Behind a load
/// balancer another connection leads to another node.
const OWN_TRIES: usize = 8;
/// Maximum pause between two of them.
const OWN_PAUSE: Duration = Duration::from_millis(10);

/// A registry server that receives the changes of this node.
#[derive(Debug)]
pub(in crate::server) struct Peer {
    url: ServiceUrl,
    transport: Transport,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Notified after each step of the task that sends the queue.
    settled: Notify,
    /// Notified when the peer takes changes again after it did not, and soon after it refused some.
    recovered: Notify,
    loopback: Loopback,
    clock: PeerClock,
    availability: Availability,
    batches: BatchCounts,
    #[cfg(feature = "page")]
    last_error: Mutex<Option<LastError>>,
    /// Limits the log lines about batches that the peer refuses.
    refusals: Throttle,
    /// Batches that failed and are kept for the peer.
    failures: Ongoing,
    /// Registrations that the peer refused.
    refused: Mutex<RefusedCopies>,
    registrations_refused: Ongoing,
    /// Copies of the peer that this node refused.
    copies_refused: Ongoing,
    /// Lists that the peer refused in succession because it is not open for traffic, or seems so.
    closed: AtomicU32,
    events: Arc<Events>,
}

impl Peer {
    pub(super) fn new(
        url: ServiceUrl,
        transport: Transport,
        clock: Arc<ServerClock>,
        limits: Limits,
        events: Arc<Events>,
    ) -> Self {
        Self {
            url,
            transport,
            queue: Mutex::new(Queue::new(limits)),
            wake: Notify::new(),
            settled: Notify::new(),
            recovered: Notify::new(),
            loopback: Loopback::default(),
            clock: PeerClock::new(clock),
            availability: Availability::default(),
            batches: BatchCounts::default(),
            #[cfg(feature = "page")]
            last_error: Mutex::default(),
            refusals: Throttle::new(LOG_INTERVAL),
            failures: Ongoing::default(),
            refused: Mutex::default(),
            registrations_refused: Ongoing::default(),
            copies_refused: Ongoing::default(),
            closed: AtomicU32::new(0),
            events,
        }
    }

    pub(in crate::server) fn url(&self) -> &ServiceUrl {
        &self.url
    }

    pub(in crate::server) fn clock(&self) -> &PeerClock {
        &self.clock
    }

    /// Fetches everything that the peer has.
    pub(in crate::server) async fn applications(&self) -> Result<Applications, Error> {
        self.record(self.transport.applications().await)
    }

    /// Fetches everything that the peer has, with what shows the kind of server that the peer is.
    pub(in crate::server) async fn registry(&self) -> Result<Fetched, Error> {
        self.record(self.transport.registry().await)
    }

    /// Fetches the recent changes at the peer, if it has deltas.
    pub(in crate::server) async fn delta(&self) -> Result<Option<Applications>, Error> {
        self.record(self.transport.delta().await)
    }

    /// Fetches one instance as the peer has it.
    pub(in crate::server) async fn instance(&self, app: &str, id: &str) -> Result<Option<Instance>, Error> {
        self.record(self.transport.instance(app, id).await)
    }

    /// Fetches the owners of its leases as JSON, if it has them.
    pub(in crate::server) async fn owners(&self) -> Result<Option<Bytes>, Error> {
        // The lists show whether the peer responds.
        self.transport.owners().await
    }

    /// Sends a batch. Returns `None` if it came back on each connection.
    async fn replicate(
        &self,
        batch: Bytes,
        owners: Option<HeaderValue>,
        node_id: &str,
    ) -> Result<Option<ReplicationResponse>, Error> {
        let mut outcome = Ok(None);
        for _ in 0..OWN_TRIES {
            outcome = match self
                .transport
                .replicate(batch.clone(), owners.clone().map(|owners| (OWNERS, owners)), node_id)
                .await
            {
                // The node has closed the connection.
                Ok(Replicated::Own) => {
                    self.loopback.note_returned();
                    // Two nodes that send in step would get the same turns of a load balancer.
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
                if self.availability.set_refuses(false) && !self.doubtful().is_empty() {
                    self.recovered.notify_one();
                }
                self.note_other();
            }
            // This node is no peer of its own.
            Ok(None) => {
                self.availability.set_responds(true);
                return outcome;
            }
            Err(error) if error.status().is_some() && !error.is_paused() => {
                self.availability.set_refuses(true);
            }
            // A peer that was not reached refused nothing.
            Err(_) => {}
        }
        self.record(outcome)
    }

    /// Records that the URL led to another node.
    fn note_other(&self) {
        if self.loopback.note_other() {
            tracing::warn!(
                peer = %self.url.as_str(),
                "peer URL leads to this node at times, and to others at times: of several others behind it only one \
                 receives a change; name each node by a URL of its own"
            );
        }
    }

    /// Records that a batch came back. Returns true if the URL counts as this node's own.
    fn note_own(&self) -> bool {
        let is_own = self.loopback.note_own_batch();
        if is_own {
            self.wake.notify_one();
        }
        is_own
    }

    fn loop_detected(&self) -> Error {
        let error = Error::new(Kind::Status(StatusCode::LOOP_DETECTED.as_u16()), "send changes");
        error.server(self.url.as_str().clone()).cause("the response is 508, but not from this node itself")
    }

    /// Returns true if the peer responded to the last request and took the last batch that reached
    /// it.
    pub(in crate::server) fn is_available(&self) -> bool {
        self.availability.is_available()
    }

    /// Records by the outcome of a request whether the peer responds. A 403 is a response, too: a
    /// node that is not open for traffic refuses lists with it.
    fn record<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        let responds = match &outcome {
            Ok(_) => true,
            // No request was sent.
            Err(error) if error.is_paused() => return outcome,
            Err(error) => {
                #[cfg(feature = "page")]
                self.note_error(error);
                error.status() == Some(StatusCode::FORBIDDEN.as_u16())
            }
        };
        self.availability.set_responds(responds);
        if let Some(is_available) = self.availability.changed(self.url.as_str(), outcome.as_ref().err()) {
            let peer = self.url.as_str();
            self.events.send(|| match is_available {
                true => ServerEvent::PeerUp { peer: peer.clone() },
                false => ServerEvent::PeerDown { peer: peer.clone() },
            });
        }
        self.clock.watch(self.url.as_str());
        outcome
    }

    /// Counts a list that the peer refused with 403. Returns the number of those in succession.
    pub(in crate::server) fn note_closed(&self) -> u32 {
        self.closed.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// Records that the peer sent a list.
    pub(in crate::server) fn note_open(&self) {
        self.closed.store(0, Relaxed);
    }

    /// Logs that this node refused copies of the peer.
    pub(in crate::server) fn log_refused_copies(&self, refused: usize, error: Refused) {
        if let Some(Lasting { elapsed, .. }) = self.copies_refused.occurred() {
            let peer = self.url.as_str();
            tracing::warn!(%peer, refused, %error, ?elapsed, "cannot adopt copies of a peer, skipping each until it changes");
        }
    }

    /// Logs that no copy of the peer is refused any more.
    pub(in crate::server) fn log_copies_taken(&self) {
        if let Some(Lasting { elapsed, .. }) = self.copies_refused.ended() {
            tracing::info!(peer = %self.url.as_str(), ?elapsed, "copies of a peer adopted again");
        }
    }

    /// Remembers that the peer refused a registration because of its size, or because its registry
    /// is full. Otherwise each heartbeat would send it again.
    fn note_refused(&self, target: &Arc<Target>, status: u16, local: &LocalNode) {
        let Some(ours) = local.instance(target) else { return };
        self.queue().note_refusal();
        let refused = {
            let mut refused = self.refused();
            refused.insert(target.clone(), Version::of(&ours), false);
            refused.len()
        };
        if let Some(Lasting { elapsed, .. }) = self.registrations_refused.occurred() {
            let (app, instance) = (Quoted(&target.app), Quoted(&target.id));
            tracing::warn!(
                peer = %self.url.as_str(), %app, %instance, status, refused, ?elapsed,
                "peer refuses registrations: each is sent again once it changes, or after an hour"
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
            tracing::info!(peer = %self.url.as_str(), count, ?elapsed, "peer takes registrations again");
        }
    }

    fn refused(&self) -> MutexGuard<'_, RefusedCopies> {
        self.refused.lock()
    }

    /// Queues a change.
    pub(in crate::server) fn enqueue(&self, change: Change) {
        if self.is_own() {
            return;
        }
        // The guard is a temporary, so that the queue is unlocked before the task is woken.
        let wake = self.queue().push(change, Instant::now());
        if wake {
            self.wake.notify_one();
        }
    }

    /// Sends the queue until it is empty, or until the peer does not respond to a batch. A peer
    /// that refuses batches for now may only be starting.
    pub(in crate::server) async fn flush(&self) {
        if self.is_own() {
            return;
        }
        self.queue().flush();
        self.wake.notify_one();
        loop {
            let settled = self.settled.notified();
            if self.queue().is_flush_over() {
                return;
            }
            settled.await;
        }
    }

    /// Sends an empty batch to find out if the URL leads to this node.
    pub(in crate::server) async fn identify(&self, node_id: &str) {
        match self.replicate(ReplicationList::default().to_json().into(), None, node_id).await {
            Ok(None) => drop(self.note_own()),
            Ok(Some(_)) => self.loopback.reset(),
            Err(_) => {}
        }
    }

    /// Returns true while the URL leads to this node.
    pub(in crate::server) fn is_own(&self) -> bool {
        self.loopback.is_own()
    }

    /// Waits until the peer takes changes again after an outage, or until a change that it refused
    /// may be sent again.
    pub(in crate::server) async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// Returns the instances whose states have to be compared before changes of them are sent.
    pub(in crate::server) fn doubtful(&self) -> Vec<Arc<Target>> {
        self.queue().doubtful()
    }

    /// Ends the doubt about an instance, whose state is compared now. Returns the doubt, if there
    /// was one.
    pub(in crate::server) fn settle(&self, target: &Target) -> Option<Doubt> {
        self.queue().settle(target)
    }

    /// Ends the doubt about an instance that cannot be compared. A full comparison follows.
    pub(in crate::server) fn give_up(&self, target: &Target) {
        self.queue().give_up(target);
    }

    /// Returns true if the peer responded to the last batch with an error.
    pub(in crate::server) fn is_refusing(&self) -> bool {
        self.availability.is_refusing()
    }

    /// Returns true if the last batch is kept for the peer.
    pub(in crate::server) fn is_failing(&self) -> bool {
        self.queue().failures() > 0
    }

    /// Returns true if a change of this instance is queued or in flight.
    pub(in crate::server) fn has_pending(&self, target: &Target) -> bool {
        self.queue().has_pending(target)
    }

    /// Returns the present state of the replication to the peer.
    #[cfg(feature = "prometheus")]
    pub(in crate::server) fn state(&self) -> PeerState {
        let queue = self.queue();
        PeerState {
            is_available: self.is_available(),
            backlog: queue.backlog(),
            lag: queue.lag(Instant::now()),
            batches: self.batches.all(),
            dropped: queue.counters().dropped(),
        }
    }

    /// Returns the numbers of changes that the peer does not receive.
    pub(in crate::server) fn lost(&self) -> LostChanges {
        self.queue().counters().lost()
    }

    /// Returns `true` if the peer took everything since [`flush`](Self::flush), and no longer
    /// refuses batches if it refused changes before.
    pub(in crate::server) fn is_flushed(&self) -> bool {
        let lacks_changes = self.is_refusing() && self.lost().refused > 0;
        self.is_own() || self.queue().is_flushed() && !lacks_changes
    }

    #[cfg(test)]
    pub(in crate::server) fn drain_queue(&self) -> Vec<(ReplicationAction, Option<crate::model::InstanceStatus>)> {
        let mut queue = self.queue();
        let now = Instant::now();
        queue.flush();
        let Step::Send(batch) = queue.poll(now) else { return Vec::new() };
        let changes = batch.iter().map(|task| (task.change.action, task.change.status)).collect();
        queue.done(batch, Outcome::Done, now);
        changes
    }

    /// Sends the queue for as long as the URL leads to another node.
    ///
    /// # Cancel safety
    /// Dropping the future puts the batches in flight back into the queue.
    pub(in crate::server) async fn run(self: Arc<Self>, local: LocalNode) {
        let mut batches = JoinSet::new();
        let (overflows, mut logged) = (Throttle::new(LOG_INTERVAL), 0);
        loop {
            let step = self.queue().poll(Instant::now());
            let overflowed = self.queue().counters().overflowed;
            if overflowed > logged && overflows.pass().is_some() {
                let dropped = overflowed - std::mem::replace(&mut logged, overflowed);
                tracing::warn!(peer = %self.url.as_str(), dropped, "queue of a peer is full, changes dropped");
            }
            let until = match step {
                Step::Send(batch) => {
                    batches.spawn(self.clone().send_batch(batch, local.clone()));
                    continue;
                }
                Step::Wait(until) => until,
            };
            self.settled.notify_waiters();
            tokio::select! {
                () = self.wake.notified() => {}
                () = wait_until(until) => {}
                Some(ended) = batches.join_next() => if let Err(error) = ended {
                    tracing::error!(peer = %self.url.as_str(), %error, "sending changes panicked, changes dropped");
                },
            }
            if self.is_own() {
                return;
            }
        }
    }

    async fn send_batch(self: Arc<Self>, batch: Vec<Task>, local: LocalNode) {
        let mut sent = InFlight { peer: &self, batch, outcome: Outcome::Failed };
        let mut outcome = Outcome::Unsent;
        let lines = |Task { change, .. }: &Task| {
            let owner = local.owner(&change.target);
            items(&local, change).map(move |(change, item)| (change, item, owner.clone()))
        };
        let mut parts = in_parts(sent.batch.iter().flat_map(lines));
        if sent.batch.is_empty() {
            parts.push(Part::empty());
        }
        for part in parts {
            outcome = self.send_part(part, &local).await;
            if outcome != Outcome::Done {
                break;
            }
        }
        if outcome == Outcome::Done {
            let (failures, outage) = {
                let queue = self.queue();
                (queue.failures(), queue.outage(Instant::now()))
            };
            if failures > 0
                && let Some(Lasting { count, .. }) = self.failures.ended()
            {
                tracing::info!(peer = %self.url.as_str(), count, ?outage, "peer takes changes again");
            }
            if outage >= OUTAGE {
                self.recovered.notify_one();
            }
        }
        sent.outcome = outcome;
    }

    async fn send_part(&self, Part { changes, body, owners }: Part, local: &LocalNode) -> Outcome {
        match self.replicate(body.into(), owners.header(), &local.node_id).await {
            Ok(None) if self.note_own() => Outcome::Done,
            Ok(None) => Outcome::Failed,
            Ok(Some(response)) if response.0.len() == changes.len() => {
                self.batches.add(BatchEnd::Applied);
                for (change, result) in changes.iter().zip(response.0) {
                    self.apply_result(change, result, local);
                }
                Outcome::Done
            }
            Ok(Some(response)) => {
                let (sent, received) = (changes.len(), response.0.len());
                tracing::warn!(peer = %self.url.as_str(), sent, received, "number of results differs from the batch");
                self.batches.add(BatchEnd::Refused);
                self.queue().note_refused_batch(&changes);
                Outcome::Done
            }
            Err(error) => self.note_failure(&error, &changes),
        }
    }

    /// Logs that a batch failed, and returns what to do with it.
    fn note_failure(&self, error: &Error, changes: &[Change]) -> Outcome {
        let outcome = outcome(error);
        self.batches.add(match outcome {
            Outcome::Done | Outcome::Unsent => BatchEnd::Refused,
            Outcome::Congested => BatchEnd::Congested,
            Outcome::Failed => BatchEnd::Failed,
        });
        let peer = self.url.as_str();
        if error.status().is_none() {
            self.queue().note_silence();
        }
        if outcome == Outcome::Done {
            self.queue().note_refused_batch(changes);
            if let Some(suppressed) = self.refusals.pass() {
                let changes = changes.len();
                tracing::warn!(%peer, %error, changes, suppressed, "peer refuses changes, changes dropped");
                self.recovered.notify_one();
            }
        } else if let Some(Lasting { count, elapsed }) = self.failures.occurred() {
            tracing::warn!(%peer, %error, count, ?elapsed, "cannot send changes to a peer, keeping them");
        } else {
            tracing::debug!(%peer, %error, "cannot send changes to a peer");
        }
        outcome
    }

    /// Applies the result of one change. A refused change is not sent again: the next heartbeat
    /// repairs what differs.
    fn apply_result(&self, change: &Change, result: ReplicationResult, local: &LocalNode) {
        let Change { target, action, .. } = change;
        let (app, instance, status) = (Quoted(&target.app), Quoted(&target.id), result.status);
        let peer = self.url.as_str();
        match (action, status, result.entity) {
            (ReplicationAction::Register, 200..=299, _) => self.note_taken(target),
            (_, 200..=299, _) => {}
            (ReplicationAction::Register, 400 | 413 | 507, _) => self.note_refused(target, status, local),
            // The peer has no such instance, or an older one. The instance may have left this node
            // since.
            (ReplicationAction::Heartbeat, 404, _) => {
                if local.instance(target).is_some_and(|ours| !self.refused().holds(target, Version::of(&ours))) {
                    self.enqueue(Change::new(target.clone(), ReplicationAction::Register, None));
                }
            }
            (ReplicationAction::Heartbeat, _, Some(copy)) if local.take_newer_copies => {
                tracing::debug!(%peer, %app, %instance, status, "peer has newer data of an instance");
                if let Err(refused) = local.adopt(target, Instance::clone(&copy), peer) {
                    self.log_refused_copies(1, refused);
                }
            }
            (ReplicationAction::Cancel, 404, _) => {
                tracing::trace!(%peer, %app, %instance, "peer did not have the instance")
            }
            _ => {
                let is_registration = *action == ReplicationAction::Register;
                let mut queue = self.queue();
                if is_registration {
                    queue.note_refusal();
                }
                if status >= 500 {
                    queue.doubt_refused(change);
                }
                drop(queue);
                let (action, is_fault) = (action.as_str(), is_registration || status >= 500);
                if is_fault && let Some(suppressed) = self.refusals.pass() {
                    tracing::warn!(%peer, %app, %instance, status, action, suppressed, "peer refuses a change");
                } else {
                    tracing::debug!(%peer, %app, %instance, status, action, "peer refuses a change");
                }
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

/// Returns a batch to the queue when the task that sends it ends, also by a panic.
struct InFlight<'a> {
    peer: &'a Peer,
    batch: Vec<Task>,
    outcome: Outcome,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // A batch that made the task panic would do so again.
        let outcome = if std::thread::panicking() { Outcome::Unsent } else { self.outcome };
        self.peer.queue().done(std::mem::take(&mut self.batch), outcome, Instant::now());
    }
}

/// Returns what to do with a batch that failed.
fn outcome(error: &Error) -> Outcome {
    match error.kind() {
        // A proxy in front of a starting peer responds with some of these, too.
        Kind::Status(429 | 502 | 503 | 504) | Kind::Paused(_) | Kind::Timeout => Outcome::Congested,
        Kind::Status(_) | Kind::Config => Outcome::Done,
        _ => Outcome::Failed,
    }
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
