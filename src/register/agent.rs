use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::address::Routes;
use super::lifecycle::Lifecycle;
use super::state::RegistrarState;
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus, LeaseInfo};
use crate::panics::catch_panic;
use crate::time::{Backoff, add_capped, jittered, wall_clock_ms};
use crate::transport::{Renewal, Transport};

/// Maximum clock difference for which a newer record in the registry is replaced. A timestamp that
/// is further ahead is not a time.
const MAX_SKEW_MS: i64 = 366 * 24 * 3600 * 1000;

/// Time between two warnings about the same lasting failure.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// Task that sends all writes of one instance, one after the other, so that no write overtakes
/// another.
pub(super) struct Agent {
    transport: Transport,
    /// Transport of heartbeats, which respects the pauses that servers ask for.
    background: Transport,
    instance: Instance,
    lifecycle: Arc<Lifecycle>,
    commands: mpsc::Receiver<Command>,
    /// Command for which a request in the background was cancelled.
    postponed: Option<Command>,
    /// Commands of a shutdown, which interrupt other operations.
    shutdown: mpsc::Receiver<ShutdownCommand>,
    /// True while the registry has the latest data, as far as the agent knows.
    registered: bool,
    /// True once a registration was sent, so that the registry may have a lease to cancel.
    attempted: bool,
    /// True once the cancellation has begun. Heartbeats and registrations are no longer sent.
    cancelling: bool,
    routes: Routes,
    /// True once a registry has accepted the instance at its present address.
    address_confirmed: bool,
    /// True from the detection of another address until a registry has accepted it.
    address_changed: bool,
    /// True until the record in the registry was compared with the own one.
    unverified: bool,
    /// True once a registry has accepted a registration.
    succeeded: bool,
    failing_since: Option<Instant>,
    warned: Option<Instant>,
    backoff: Backoff,
    next: Instant,
}

/// Commands that are executed in order.
pub(super) enum Command {
    /// Register with this status and return the result.
    Register { status: InstanceStatus, done: Done },
    /// Set an override status, or remove it and register again.
    Override { status: Option<InstanceStatus>, done: Done },
}

/// Commands of a shutdown, each with its time limit.
pub(super) enum ShutdownCommand {
    /// Register as DOWN.
    Down { within: Duration, done: Done },
    /// Delete the registration and end the task. If no server accepts that, the task remains for
    /// another attempt, but sends nothing else.
    Deregister { within: Duration, done: Done },
}

type Done = oneshot::Sender<Result<(), Error>>;

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
    pub(super) task: JoinHandle<()>,
}

/// Shutdown command that interrupts an operation; `None` once all handles were dropped.
type Interruption = Option<ShutdownCommand>;

/// Reason why an operation was interrupted.
enum Interrupted {
    Shutdown(Interruption),
    /// An ordinary command, which is now in `postponed`.
    Command,
}

type Outcome = Result<Result<(), Error>, Interrupted>;

impl Agent {
    /// Spawns the task, which begins once the `previous` one has ended.
    ///
    /// It registers at once, and repeats that with back-off until it succeeds. When all handles
    /// were dropped, it deletes the registration within `cancel_timeout`.
    pub(super) fn spawn(
        transport: Transport,
        instance: Instance,
        lifecycle: Arc<Lifecycle>,
        routes: Routes,
        cancel_timeout: Duration,
        previous: Option<JoinHandle<()>>,
    ) -> AgentTask {
        let (normal, commands) = mpsc::channel(4);
        let (shutdown_sender, shutdown) = mpsc::channel(4);
        let interval = renewal_interval(&instance);
        let mut agent = Self {
            background: transport.in_background(),
            transport,
            instance,
            routes,
            address_confirmed: lifecycle.registered_instance().is_some(),
            address_changed: false,
            lifecycle,
            commands,
            postponed: None,
            shutdown,
            registered: false,
            attempted: false,
            cancelling: false,
            unverified: true,
            succeeded: false,
            failing_since: None,
            warned: None,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            next: Instant::now(),
        };
        agent.mark_changed();
        agent.instance.last_updated_timestamp = agent.instance.last_dirty_timestamp;
        let task = tokio::spawn(async move {
            if let Some(previous) = previous {
                // Even after a panic it sends nothing more.
                let _ = previous.await;
            }
            agent.next = Instant::now();
            // A panic of the user's HTTP service must not end the heartbeats.
            while catch_panic(agent.run(cancel_timeout)).await.is_err() {
                let (app, instance) = (agent.instance.app(), agent.instance.id());
                tracing::error!(app, instance, "registration panicked, restarting");
                agent.registered = false;
                agent.lifecycle.state.change(RegistrarState::failing);
                agent.next = Instant::now() + agent.backoff.next();
            }
        });
        AgentTask { handle: AgentHandle { normal, shutdown: shutdown_sender }, task }
    }

    async fn run(&mut self, cancel_timeout: Duration) {
        let mut interruption = None;
        loop {
            let command = match interruption.take() {
                Some(command) => command,
                None => match self.step().await {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(command) => command,
                },
            };
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
                // All handles were dropped.
                None => {
                    let _ = self.cancel(cancel_timeout).await;
                    return;
                }
            }
        }
    }

    /// Waits for the next command or the time of the next heartbeat, and executes it.
    async fn step(&mut self) -> ControlFlow<Interruption> {
        if let Some(command) = self.postponed.take() {
            return self.execute(command).await;
        }
        tokio::select! {
            biased;
            command = self.shutdown.recv() => ControlFlow::Break(command),
            command = self.commands.recv() => match command {
                Some(command) => self.execute(command).await,
                // Both channels close together.
                None => ControlFlow::Break(None),
            },
            () = std::future::ready(()), if self.registered && self.unverified && !self.cancelling => self.verify().await,
            () = sleep_until(self.next), if !self.cancelling => self.heartbeat().await,
        }
    }

    async fn execute(&mut self, command: Command) -> ControlFlow<Interruption> {
        let (status, overridden, done) = match command {
            Command::Register { status, done } => (Some(status), None, done),
            Command::Override { status, done } => (None, Some(status), done),
        };
        // The handle checks this as well, but the shutdown may have begun since.
        if self.cancelling || self.lifecycle.is_draining() {
            let _ = done.send(Err(draining("set status of", &self.instance)));
            return ControlFlow::Continue(());
        }
        if let Some(status) = status.filter(|status| self.instance.status != *status) {
            self.instance.status = status;
            self.mark_changed();
        }
        let outcome = match overridden {
            None => self.register(self.transport.clone()).await,
            Some(status) => self.override_status(status).await,
        };
        match outcome {
            Ok(result) => {
                if overridden.is_none() {
                    self.record(&result);
                }
                // The caller may have stopped waiting.
                let _ = done.send(result);
                ControlFlow::Continue(())
            }
            Err(interrupted) => {
                let _ = done.send(Err(draining("set status of", &self.instance)));
                interrupted.flow()
            }
        }
    }

    /// Sends a heartbeat, or a registration if the registry does not have the latest data.
    async fn heartbeat(&mut self) -> ControlFlow<Interruption> {
        let outcome = if self.registered { self.renew().await } else { self.register(self.background.clone()).await };
        match outcome {
            Ok(result) => {
                self.record(&result);
                ControlFlow::Continue(())
            }
            Err(interrupted) => interrupted.flow(),
        }
    }

    async fn renew(&mut self) -> Outcome {
        let (transport, instance) = (self.background.clone(), self.instance.clone());
        let dirty = instance.last_dirty_timestamp.unwrap_or_default();
        let renewal = tokio::select! {
            biased;
            command = self.shutdown.recv() => return Err(Interrupted::Shutdown(command)),
            // A heartbeat can be repeated, so every command goes first.
            Some(command) = self.commands.recv() => {
                self.postponed = Some(command);
                return Err(Interrupted::Command);
            }
            renewal = transport.heartbeat(instance.app(), instance.id(), instance.status, dirty) => renewal,
        };
        match renewal {
            Ok(Renewal::Renewed) => {
                self.on_success();
                Ok(Ok(()))
            }
            Ok(Renewal::Unknown) => {
                tracing::info!(app = instance.app(), instance = instance.id(), "lease lost, registering again");
                // A server that has a record with the same timestamp would keep its own one.
                self.mark_changed();
                self.register(transport).await
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Registers the instance, unless a shutdown command interrupts it.
    ///
    /// The interrupted registration may still arrive after a later one. The registry then drops it,
    /// since its timestamp is older.
    async fn register(&mut self, transport: Transport) -> Outcome {
        self.registered = false;
        let found = tokio::select! {
            biased;
            command = self.shutdown.recv() => return Err(Interrupted::Shutdown(command)),
            found = self.routes.resolve(&transport, &self.instance, self.address_confirmed) => found,
        };
        if let Some(instance) = found {
            (self.instance, self.address_changed) = (instance, true);
        }
        self.attempted = true;
        let instance = self.instance.clone();
        let result = tokio::select! {
            biased;
            command = self.shutdown.recv() => return Err(Interrupted::Shutdown(command)),
            result = transport.register(&instance) => result,
        };
        if result.is_ok() {
            self.on_registered();
        }
        Ok(result)
    }

    /// Sets the override status. `None` removes it and registers again, since the status of the
    /// instance is UNKNOWN then.
    async fn override_status(&mut self, status: Option<InstanceStatus>) -> Outcome {
        let (transport, instance) = (self.transport.clone(), self.instance.clone());
        let dirty = instance.last_dirty_timestamp.unwrap_or_default();
        let result = tokio::select! {
            biased;
            command = self.shutdown.recv() => return Err(Interrupted::Shutdown(command)),
            result = transport.override_status(instance.app(), instance.id(), status, dirty) => result,
        };
        if result.is_err() || status.is_some() {
            return Ok(result);
        }
        self.mark_changed();
        let result = self.register(transport).await?;
        self.record(&result);
        Ok(result)
    }

    /// Compares the record in the registry with the own one, once.
    ///
    /// A process whose clock was ahead may have left a newer record, which the registry keeps. The
    /// own timestamp is then raised above it, and the instance registers again.
    async fn verify(&mut self) -> ControlFlow<Interruption> {
        self.unverified = false;
        let (transport, own) = (self.background.clone(), self.instance.clone());
        let found = tokio::select! {
            biased;
            command = self.shutdown.recv() => return ControlFlow::Break(command),
            Some(command) = self.commands.recv() => {
                self.postponed = Some(command);
                return ControlFlow::Continue(());
            }
            found = timeout(renewal_interval(&own), transport.registered(own.app(), own.id())) => found,
        };
        let Ok(Ok(Some(found))) = found else { return ControlFlow::Continue(()) };
        let dirty = own.last_dirty_timestamp.unwrap_or_default();
        let Some(theirs) = found.last_dirty_timestamp.filter(|theirs| *theirs > dirty) else {
            return ControlFlow::Continue(());
        };
        let (app, instance, ahead) = (own.app(), own.id(), Duration::from_millis(theirs.abs_diff(dirty)));
        if theirs.saturating_sub(wall_clock_ms()) > MAX_SKEW_MS {
            tracing::warn!(
                app,
                instance,
                ?ahead,
                "registry has a record that is newer than this registration by more than a year; delete it there"
            );
            return ControlFlow::Continue(());
        }
        tracing::warn!(
            app,
            instance,
            ?ahead,
            "registry has a newer record of this instance, replacing it (was a clock ahead?)"
        );
        self.instance.last_dirty_timestamp = Some(theirs.saturating_add(1));
        self.registered = false;
        self.next = Instant::now();
        ControlFlow::Continue(())
    }

    /// Registers as DOWN.
    async fn down(&mut self, within: Duration, done: Done) -> ControlFlow<Interruption> {
        if self.cancelling {
            let _ = done.send(Err(draining("register", &self.instance)));
            return ControlFlow::Continue(());
        }
        if self.instance.status != InstanceStatus::Down {
            self.instance.status = InstanceStatus::Down;
            self.mark_changed();
        }
        // No look-up of the address here, since it would use up the time limit.
        (self.attempted, self.registered, self.unverified) = (true, false, false);
        let (transport, instance) = (self.transport.with_timeout(within), self.instance.clone());
        let result = tokio::select! {
            biased;
            command = self.shutdown.recv() => {
                let _ = done.send(Err(draining("register", &self.instance)));
                return ControlFlow::Break(command);
            }
            result = timeout(within, transport.register(&instance)) => result,
        };
        let result = result.unwrap_or_else(|_| Err(self.timed_out("register", within)));
        if result.is_ok() {
            self.on_registered();
        }
        self.schedule(&result);
        let _ = done.send(result);
        ControlFlow::Continue(())
    }

    /// Sends the DELETE until a server accepts it or the time limit is reached.
    async fn cancel(&mut self, within: Duration) -> Result<(), Error> {
        self.cancelling = true;
        if !self.attempted {
            self.lifecycle.state.set(RegistrarState::Deregistered);
            return Ok(());
        }
        let transport = self.transport.with_timeout(within);
        let deadline = add_capped(Instant::now(), within);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let cancelled = timeout_at(deadline, transport.cancel(self.instance.app(), self.instance.id())).await;
            let error = match cancelled {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => error,
                Err(_) => {
                    self.lifecycle.state.set(RegistrarState::Deregistered);
                    return Err(self.timed_out("deregister", within));
                }
            };
            let pause = backoff.next();
            if Instant::now() + pause >= deadline {
                self.lifecycle.state.set(RegistrarState::Deregistered);
                return Err(error);
            }
            sleep(pause).await;
        }
        self.attempted = false;
        self.lifecycle.state.set(RegistrarState::Deregistered);
        tracing::info!(app = self.instance.app(), instance = self.instance.id(), "deregistered");
        Ok(())
    }

    /// Sets a newer timestamp, even within a millisecond or after the clock was set back.
    fn mark_changed(&mut self) {
        let last = self.instance.last_dirty_timestamp.unwrap_or_default();
        self.instance.last_dirty_timestamp = Some(wall_clock_ms().max(last.saturating_add(1)));
        self.registered = false;
    }

    /// Sets the time of the next heartbeat. An overloaded registry gets no more heartbeats than a
    /// healthy one.
    fn schedule(&mut self, result: &Result<(), Error>) {
        let interval = jittered(renewal_interval(&self.instance));
        let wait = match result {
            Ok(()) => {
                self.backoff.reset();
                interval
            }
            Err(error) => {
                let overloaded = error.status() == Some(429) || error.status() == Some(503) && self.registered;
                let pause = self.backoff.next();
                if overloaded { pause.max(interval) } else { pause }
            }
        };
        self.next = Instant::now() + wait;
    }

    fn on_registered(&mut self) {
        self.registered = true;
        if !std::mem::replace(&mut self.address_confirmed, true) {
            self.routes.check_registered(&self.transport, &self.instance);
        }
        if std::mem::take(&mut self.address_changed) {
            self.lifecycle.set_registered_instance(&self.instance);
        }
        self.on_success();
        let (app, instance, status) = (self.instance.app(), self.instance.id(), self.instance.status);
        tracing::info!(app, instance, %status, "registered");
    }

    /// Records the result of a heartbeat or registration, and schedules the next one.
    fn record(&mut self, result: &Result<(), Error>) {
        if let Err(error) = result {
            self.on_failure(error);
        }
        self.schedule(result);
    }

    fn on_failure(&mut self, error: &Error) {
        self.lifecycle.state.change(RegistrarState::failing);
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if self.warned.is_some_and(|warned| warned.elapsed() < WARNING_INTERVAL) {
            return;
        }
        self.warned = Some(Instant::now());
        let (app, instance, elapsed) = (self.instance.app(), self.instance.id(), since.elapsed());
        if self.succeeded {
            tracing::warn!(app, instance, ?elapsed, %error, "heartbeat failed");
        } else {
            tracing::warn!(app, instance, ?elapsed, %error, "registration failed, retrying");
        }
    }

    fn on_success(&mut self) {
        self.lifecycle.state.change(|_| RegistrarState::Registered);
        self.warned = None;
        let since = self.failing_since.take();
        if std::mem::replace(&mut self.succeeded, true)
            && let Some(since) = since
        {
            let (app, instance, elapsed) = (self.instance.app(), self.instance.id(), since.elapsed());
            tracing::info!(app, instance, ?elapsed, "heartbeat recovered");
        }
    }

    fn timed_out(&self, operation: &'static str, within: Duration) -> Error {
        Error::new(Kind::Timeout, operation)
            .app(self.instance.app())
            .instance(self.instance.id())
            .cause(format!("not confirmed within {within:?}"))
            .advice("the lease expires if the registry stays unreachable")
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

impl Interrupted {
    /// Returns the control flow of the loop.
    fn flow(self) -> ControlFlow<Interruption> {
        match self {
            Self::Shutdown(command) => ControlFlow::Break(command),
            Self::Command => ControlFlow::Continue(()),
        }
    }
}

fn renewal_interval(instance: &Instance) -> Duration {
    let seconds = instance.lease.unwrap_or_default().renewal_interval_secs;
    // A record from elsewhere may have any value.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64).max(1))
}
