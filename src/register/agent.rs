use std::net::IpAddr;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::address::{AddressState, Routes};
use super::events::RegistrarEvent;
use super::lifecycle::Lifecycle;
use super::limiter::Limiter;
use super::state::RegistrarState;
use super::vitals::StatusRules;
use crate::error::{Error, Kind};
use crate::metrics::ProviderMetrics;
use crate::model::{GRPC_PORT_KEY, Instance, InstanceStatus, LeaseInfo, MANAGEMENT_PORT_KEY};
use crate::panics::catch_panic;
use crate::sync::Mutex;
use crate::time::{Backoff, Moment, wall_clock_ms};
use crate::transport::Transport;

mod look;
mod outcome;
mod overrides;
mod own_override;
mod sync;
#[cfg(test)]
mod tests;

use overrides::{Due, Overrides};
use own_override::OwnOverride;

/// Longest time between two looks at the wall clock, which shows a suspension of the machine.
const TICK: Duration = Duration::from_secs(5);

/// Task that sends all writes of one instance, one after the other, so that no write overtakes
/// another.
///
/// It keeps the record that the registry shall have. A change marks the record as changed, and is
/// sent together with all other changes since as soon as the [`Limiter`] permits.
pub(super) struct Agent {
    transport: Transport,
    /// Transport of heartbeats, which respects the pauses that servers ask for.
    background: Transport,
    /// Record that the registry shall have.
    instance: Instance,
    /// Copy of the record that was registered last, for the handles.
    published: Arc<Mutex<Instance>>,
    lifecycle: Arc<Lifecycle>,
    rules: StatusRules,
    vitals: watch::Receiver<()>,
    overrides: Overrides,
    own_override: OwnOverride,
    commands: mpsc::Receiver<Command>,
    /// Commands of a shutdown, which interrupt other operations.
    shutdown: mpsc::Receiver<ShutdownCommand>,
    /// Callers that wait until their changes are registered.
    waiting: Vec<Waiter>,
    limiter: Limiter,
    /// Time at which a change is sent, if there is one.
    change_at: Option<Instant>,
    /// True while the registry has the latest record, as far as the agent knows.
    registered: bool,
    /// True while the registry has some record of the instance, as far as the agent knows.
    known: bool,
    /// Status and timestamp of the record that was registered last, for heartbeats.
    sent: (InstanceStatus, i64),
    /// True once a registration was sent, so that the registry may have a lease to cancel.
    attempted: bool,
    /// True once the cancellation has begun. Heartbeats and registrations are no longer sent.
    cancelling: bool,
    routes: Routes,
    address: AddressState,
    /// True until the record in the registry was compared with the own one.
    unverified: bool,
    /// True when the record in the registry is read next.
    look_due: bool,
    looked: Option<Instant>,
    /// Registration time of the lease, by the clock of the server with this URL.
    lease_of: Option<(Arc<str>, i64)>,
    warned_of_other: Option<Instant>,
    /// True while the registry keeps a record that is newer than the clock by more than a year.
    warned_of_clock: bool,
    /// True once a registry has accepted a registration.
    succeeded: bool,
    failing_since: Option<Instant>,
    warned: Option<Instant>,
    backoff: Backoff,
    next: Instant,
    /// Delays of changes and overrides that failed although the registry has the instance.
    retry: Backoff,
    /// True while a change fails. Heartbeats go on meanwhile.
    change_failing: bool,
    warned_of_change: Option<Instant>,
    /// Last time at which the clocks were compared.
    clocks: Moment,
    /// Server that accepted the last write.
    server: Option<Arc<str>>,
    /// True once another task follows this one, and the state belongs to it.
    superseded: Arc<AtomicBool>,
    metrics: ProviderMetrics,
}

/// Caller that waits until its change is registered.
struct Waiter {
    operation: &'static str,
    done: Done,
}

/// Parts from which a task is started.
pub(super) struct AgentParts {
    pub(super) transport: Transport,
    pub(super) published: Arc<Mutex<Instance>>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) routes: Routes,
    pub(super) rules: StatusRules,
    pub(super) update_interval: Duration,
    /// Time limit of the DELETE when all handles were dropped. `None` if nothing is deleted.
    pub(super) cancel_timeout: Option<Duration>,
}

/// Command that is executed in order.
pub(super) struct Command {
    pub(super) action: Action,
    pub(super) done: Done,
}

#[derive(Debug)]
pub(super) enum Action {
    /// Register, if the registry does not have the instance.
    Register,
    /// Set the own status. OUT_OF_SERVICE is set as an override.
    SetStatus(InstanceStatus),
    /// Set an override, or remove it and register again.
    Override(Option<InstanceStatus>),
    Change(Change),
}

impl Action {
    /// Returns the operation as errors name it.
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::SetStatus(_) => "set status of",
            Self::Override(Some(_)) => "override status of",
            Self::Override(None) => "remove status of",
            Self::Change(_) => "change",
        }
    }
}

/// Metadata by which callers find the ports of the instance. It is registered automatically, so
/// replacing the user's metadata does not remove it.
const PORT_KEYS: [&str; 2] = [GRPC_PORT_KEY, MANAGEMENT_PORT_KEY];

/// Change of the record.
#[derive(Debug)]
pub(super) enum Change {
    AddMetadata(Vec<(Arc<str>, Arc<str>)>),
    RemoveMetadata(Vec<Arc<str>>),
    ReplaceMetadata(Vec<(Arc<str>, Arc<str>)>),
    Address(IpAddr),
    Lease(LeaseInfo),
}

/// Commands of a shutdown, each with its time limit.
pub(super) enum ShutdownCommand {
    /// Register as DOWN.
    Down { within: Duration, done: Done },
    /// Delete the registration and end the task. If no server accepts that, the task remains for
    /// another attempt, but sends nothing else.
    Deregister { within: Duration, done: Done },
    /// End the task without a DELETE.
    Leave { done: Done },
}

pub(super) type Done = oneshot::Sender<Result<(), Error>>;

/// Channels to the task of an agent.
#[derive(Clone, Debug)]
pub(super) struct AgentHandle {
    pub(super) normal: mpsc::Sender<Command>,
    pub(super) shutdown: mpsc::Sender<ShutdownCommand>,
}

/// Task of an agent, with the channels to it.
#[derive(Debug)]
pub(super) struct AgentTask {
    pub(super) handle: AgentHandle,
    pub(super) running: RunningTask,
    /// Limit of the DELETE at the end; `None` if the lease is left to expire.
    pub(super) cancel_timeout: Option<Duration>,
}

/// Task of an agent, without the channels: it ends by itself once they are closed.
#[derive(Debug)]
pub(super) struct RunningTask {
    task: JoinHandle<()>,
    superseded: Arc<AtomicBool>,
}

impl RunningTask {
    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Takes the state of the registration from the task, since another task follows it.
    pub(super) fn supersede(&self) {
        self.superseded.store(true, Ordering::SeqCst);
    }
}

/// Shutdown command that interrupts an operation; `None` once all handles were dropped.
type Interruption = Option<ShutdownCommand>;

/// Result of an operation, unless a shutdown command interrupted it.
type Outcome = Result<Result<(), Error>, Interruption>;

impl Change {
    /// Changes the record. Returns `false` if it stays the same.
    pub(super) fn apply(&self, instance: &mut Instance) -> bool {
        let before = instance.clone();
        match self {
            Self::AddMetadata(entries) => {
                for (key, value) in entries {
                    instance.metadata.insert(key.clone(), value.clone());
                }
            }
            Self::RemoveMetadata(keys) => {
                let left = before.metadata.iter().filter(|(key, _)| !keys.iter().any(|removed| **removed == **key));
                instance.metadata = left.collect();
            }
            Self::ReplaceMetadata(entries) => {
                instance.metadata = before.metadata.iter().filter(|(key, _)| PORT_KEYS.contains(key)).collect();
                for (key, value) in entries {
                    instance.metadata.insert(key.clone(), value.clone());
                }
            }
            Self::Address(ip) => {
                *instance = instance.with_fixed_address(&ip.to_string()).with_id_of(instance);
            }
            Self::Lease(lease) => instance.lease = Some(*lease),
        }
        *instance != before
    }
}

impl Agent {
    /// Spawns the task, which begins once the `previous` one has ended.
    ///
    /// It registers at once, and repeats that with back-off until it succeeds. When all handles
    /// were dropped, it deletes the registration.
    pub(super) fn spawn(parts: AgentParts, previous: Option<RunningTask>) -> AgentTask {
        let (normal, commands) = mpsc::channel(4);
        let (shutdown_sender, shutdown) = mpsc::channel(4);
        let (health, info) = parts.lifecycle.pages.paths();
        let instance = parts.published.lock().with_pages(health.as_deref(), info.as_deref());
        let interval = renewal_interval(&instance);
        let superseded = Arc::new(AtomicBool::new(false));
        let cancel_timeout = parts.cancel_timeout;
        let mut agent = Self {
            background: parts.transport.in_background(),
            transport: parts.transport,
            metrics: ProviderMetrics::new(instance.app(), instance.id()),
            sent: (instance.status, 0),
            // An instance with a timestamp was accepted before, at this address.
            address: match instance.last_dirty_timestamp {
                Some(_) => AddressState::Confirmed,
                None => AddressState::New,
            },
            instance,
            published: parts.published,
            vitals: parts.lifecycle.vitals.subscribe(),
            lifecycle: parts.lifecycle,
            rules: parts.rules,
            overrides: Overrides::default(),
            own_override: OwnOverride::default(),
            routes: parts.routes,
            commands,
            shutdown,
            waiting: Vec::new(),
            limiter: Limiter::new(parts.update_interval),
            change_at: None,
            registered: false,
            known: false,
            attempted: false,
            cancelling: false,
            unverified: true,
            look_due: false,
            looked: None,
            lease_of: None,
            warned_of_other: None,
            warned_of_clock: false,
            succeeded: false,
            failing_since: None,
            warned: None,
            retry: backoff_of(interval),
            change_failing: false,
            warned_of_change: None,
            backoff: backoff_of(interval),
            next: Instant::now(),
            clocks: Moment::now(),
            server: None,
            superseded: superseded.clone(),
        };
        agent.update_status();
        agent.mark_changed();
        agent.instance.last_updated_timestamp = agent.instance.last_dirty_timestamp;
        let task = tokio::spawn(async move {
            if let Some(previous) = previous {
                // Even after a panic it sends nothing more.
                let _ = previous.task.await;
            }
            agent.next = Instant::now();
            // A panic of the user's HTTP service must not end the heartbeats.
            while catch_panic(agent.run(cancel_timeout)).await.is_err() {
                let (app, instance) = (agent.instance.app(), agent.instance.id());
                tracing::error!(app, instance, "registration panicked, restarting");
                agent.waiting.clear();
                agent.registered = false;
                agent.lifecycle.state.change(RegistrarState::failing);
                agent.next = Instant::now() + agent.backoff.next();
            }
        });
        AgentTask {
            handle: AgentHandle { normal, shutdown: shutdown_sender },
            running: RunningTask { task, superseded },
            cancel_timeout,
        }
    }

    async fn run(&mut self, cancel_timeout: Option<Duration>) {
        let mut interruption = None;
        loop {
            let command = match interruption.take() {
                Some(command) => command,
                None => match self.step().await {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(command) => command,
                },
            };
            let downs = matches!(command, Some(ShutdownCommand::Down { .. }));
            for Waiter { operation, done } in std::mem::take(&mut self.waiting) {
                let is_draining = downs || self.lifecycle.is_draining();
                let error = if is_draining { draining } else { deregistered };
                let _ = done.send(Err(error(operation, &self.instance)));
            }
            match command {
                Some(ShutdownCommand::Down { within, done }) => match self.down(within, done).await {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(command) => interruption = Some(command),
                },
                Some(ShutdownCommand::Deregister { within, done }) => {
                    let result = self.cancel(within).await;
                    let cancelled = result.is_ok();
                    let _ = done.send(result);
                    if cancelled {
                        return;
                    }
                }
                Some(ShutdownCommand::Leave { done }) => {
                    self.leave();
                    let _ = done.send(Ok(()));
                    return;
                }
                // All handles were dropped.
                None => {
                    match cancel_timeout {
                        Some(within) => drop(self.cancel(within).await),
                        None => self.leave(),
                    }
                    return;
                }
            }
        }
    }

    /// Waits for the next command, change or heartbeat, and executes it.
    async fn step(&mut self) -> ControlFlow<Interruption> {
        // A heartbeat that is due goes before the look.
        let looks = self.look_due && self.known && !self.is_closing() && Instant::now() < self.next;
        let (beats, beat_at) = (!self.cancelling, self.next.min(Instant::now() + TICK));
        let outcome = tokio::select! {
            biased;
            is_due = self.attend() => match is_due {
                Ok(true) => self.send_change().await,
                Ok(false) => Ok(()),
                Err(command) => Err(command),
            },
            () = std::future::ready(()), if looks => self.look().await,
            () = sleep_until(beat_at), if beats => self.tick().await,
        };
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(command) => ControlFlow::Break(command),
        }
    }

    /// Waits for the next command or change of the health, and executes it. Returns `true` once the
    /// changes may be sent.
    ///
    /// It sends nothing, so requests that may be repeated wait for it at the same time, and end if
    /// it returns `true`.
    async fn attend(&mut self) -> Result<bool, Interruption> {
        let closing = self.is_closing();
        tokio::select! {
            biased;
            command = self.shutdown.recv() => return Err(command),
            command = self.commands.recv() => match command {
                Some(command) => self.execute(command),
                // Both channels close together.
                None => return Err(None),
            },
            // The sender is never closed, since the agent has it as well.
            _ = self.vitals.changed(), if !closing => {
                self.update_status();
                self.request_change();
            }
            // It may have replaced the DOWN.
            () = self.own_override.stray_ended(), if closing && !self.cancelling => {
                self.mark_changed();
                self.next = Instant::now();
            }
            () = until(self.change_at), if self.change_at.is_some() && !closing => return Ok(self.may_send_change()),
        }
        Ok(false)
    }

    /// Completes the work and attends meanwhile. Returns `None` once the changes are due.
    async fn attend_during<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Interruption> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                is_due = self.attend() => if is_due? {
                    return Ok(None);
                },
                output = &mut work => return Ok(Some(output)),
            }
        }
    }

    /// Returns `true` once the status stays DOWN.
    fn is_closing(&self) -> bool {
        self.cancelling || self.lifecycle.is_draining()
    }

    /// Executes a command, which sends nothing by itself.
    fn execute(&mut self, Command { action, done }: Command) {
        // The handle checks this as well, but the shutdown may have begun since.
        let operation = action.operation();
        if self.is_closing() {
            let error = if self.lifecycle.is_draining() { draining } else { deregistered };
            let _ = done.send(Err(error(operation, &self.instance)));
            return;
        }
        match action {
            Action::Register if !self.registered => self.next = Instant::now(),
            Action::Register => {}
            Action::SetStatus(status) => {
                if status == InstanceStatus::OutOfService {
                    self.overrides.force();
                }
                self.rules.manual = Some(status);
                self.update_status();
            }
            Action::Override(status) => self.overrides.set_explicit(status),
            Action::Change(change) => {
                // A later registration of another task has it as well.
                change.apply(&mut self.published.lock());
                if change.apply(&mut self.instance) {
                    self.mark_changed();
                    if matches!(change, Change::Lease(_)) {
                        let backoff = backoff_of(renewal_interval(&self.instance));
                        (self.backoff, self.retry) = (backoff, backoff);
                    }
                }
            }
        }
        if self.is_in_sync() {
            let _ = done.send(Ok(()));
            return;
        }
        self.waiting.push(Waiter { operation, done });
        self.request_change();
    }

    /// Sets the own status and the own override that follow from the vitals and the rules.
    fn update_status(&mut self) {
        if self.is_closing() {
            return;
        }
        let wanted = self.lifecycle.vitals.wanted(&self.rules);
        self.overrides.set_out_of_service(wanted.out_of_service);
        if wanted.status != self.instance.status {
            self.instance.status = wanted.status;
            self.mark_changed();
        }
    }

    /// Returns the override that the registry lacks. None is sent once the status stays DOWN, since
    /// it would replace the DOWN.
    fn due_override(&self) -> Option<Due> {
        self.overrides.due(self.instance.status).filter(|_| !self.is_closing())
    }

    fn is_in_sync(&self) -> bool {
        self.registered && self.due_override().is_none()
    }

    /// Sends the changes as soon as the limiter and the back-off permit. Another status does not
    /// wait for the back-off. Before the registry has the instance, they are part of the
    /// registration.
    fn request_change(&mut self) {
        if self.known && !self.is_closing() && !self.is_in_sync() {
            // The limiter is asked again, and sets its time again.
            let later = self.change_at.filter(|_| self.instance.status == self.sent.0);
            self.change_at = Some(later.unwrap_or_else(Instant::now));
        }
    }

    /// Returns `true` if the changes are sent now. Otherwise they interrupt no heartbeat.
    fn may_send_change(&mut self) -> bool {
        if self.is_in_sync() {
            self.change_at = None;
            self.change_succeeded();
            self.inform(Ok(()));
            return false;
        }
        if self.failing_since.is_some() && self.waiting.is_empty() {
            // The next heartbeat that succeeds sends them.
            self.change_at = None;
            return false;
        }
        let permitted = self.limiter.check(Instant::now());
        if let Err(at) = permitted {
            self.change_at = Some(at);
        }
        permitted.is_ok()
    }

    /// Sends the changes since the last registration.
    async fn send_change(&mut self) -> Result<(), Interruption> {
        self.limiter.take();
        self.sync_and_record().await
    }

    /// Sends a heartbeat, or the changes that the registry does not have, when it is time.
    async fn tick(&mut self) -> Result<(), Interruption> {
        let now = Instant::now();
        let skipped = std::mem::replace(&mut self.clocks, Moment::now()).skipped();
        self.publish_metrics();
        if skipped > renewal_interval(&self.instance) / 2 {
            // The connections are dead and the lease may be lost, perhaps in another network.
            let (app, instance) = (self.instance.app(), self.instance.id());
            tracing::info!(app, instance, ?skipped, "machine was suspended or its clock set, sending heartbeat");
            self.doubt_address();
            // The record may be older now than the clock.
            self.looked = None;
        } else if now < self.next {
            return Ok(());
        }
        // A change that waits or fails does not stop the heartbeats. The DOWN goes first.
        let renews = self.registered || self.known && !self.is_closing();
        if !renews {
            return self.sync_and_record().await;
        }
        self.renew_and_record().await?;
        // The network may come up later than the machine resumes, or be another after an outage.
        let is_settled = self.failing_since.is_none() && self.is_in_sync() && !self.is_closing();
        if is_settled && self.address != AddressState::Confirmed {
            self.relocate().await?;
        }
        Ok(())
    }

    /// Sets a newer timestamp, even within a millisecond or after the clock was set back.
    fn mark_changed(&mut self) {
        let last = self.instance.last_dirty_timestamp.unwrap_or_default();
        self.instance.last_dirty_timestamp = Some(wall_clock_ms().max(last.saturating_add(1)));
        self.registered = false;
    }

    fn send_event(&self, event: RegistrarEvent) {
        self.lifecycle.events.send(event);
    }
}

/// Completes the work, unless a shutdown command interrupts it.
async fn unless_shut_down<T>(
    shutdown: &mut mpsc::Receiver<ShutdownCommand>,
    work: impl Future<Output = T>,
) -> Result<T, Interruption> {
    tokio::select! {
        biased;
        command = shutdown.recv() => Err(command),
        output = work => Ok(output),
    }
}

/// Creates the error of an operation on an instance that is draining.
pub(super) fn draining(operation: &'static str, instance: &Instance) -> Error {
    Error::new(Kind::Closed, operation)
        .app(instance.app.clone())
        .instance(instance.id())
        .cause("the instance is draining and stays DOWN until it is deregistered")
        .advice("see state(); call deregister() and then register() to use it again")
}

/// Creates the error of an operation that no server confirmed in time.
pub(super) fn timed_out(operation: &'static str, instance: &Instance, within: Duration) -> Error {
    Error::new(Kind::Timeout, operation)
        .app(instance.app.clone())
        .instance(instance.id())
        .cause(format!("not confirmed within {within:?}"))
        .advice("the lease expires if the registry stays unreachable")
}

/// Creates the error of an operation on an instance that was deregistered meanwhile.
fn deregistered(operation: &'static str, instance: &Instance) -> Error {
    Error::new(Kind::Closed, operation)
        .app(instance.app.clone())
        .instance(instance.id())
        .cause("the instance was deregistered meanwhile")
        .advice("call register() to use it again")
}

async fn until(at: Option<Instant>) {
    sleep_until(at.unwrap_or_else(Instant::now)).await;
}

/// Returns the delays after failures, of which none is longer than an interval.
fn backoff_of(interval: Duration) -> Backoff {
    Backoff::new(Duration::from_secs(1).min(interval), interval)
}

fn renewal_interval(instance: &Instance) -> Duration {
    let seconds = instance.lease.unwrap_or_default().renewal_interval_secs;
    // A record from elsewhere may have any value.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64).max(1))
}
