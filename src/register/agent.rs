use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::address::{self, Routes};
use super::lifecycle::Lifecycle;
use super::state::RegistrarState;
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus, LeaseInfo};
use crate::panics::catch_panic;
use crate::time::{Backoff, jittered, wall_clock_ms};
use crate::transport::{Renewal, Transport};

/// A record that is newer than the clock by more than this is not overtaken: its timestamp means
/// nothing.
const LARGEST_SKEW_MS: i64 = 366 * 24 * 3600 * 1000;

/// Time between two warnings of one failure that lasts.
const WARNING_INTERVAL: Duration = Duration::from_secs(600);

/// Does every write of one instance, one after the other, so that their order on the wire is the
/// order of their sending.
pub(super) struct Agent {
    transport: Transport,
    /// The same for heartbeats: it leaves servers alone that asked for a pause.
    background: Transport,
    instance: Instance,
    lifecycle: Arc<Lifecycle>,
    commands: mpsc::Receiver<Command>,
    /// A command before which a heartbeat was given up.
    waiting: Option<Command>,
    /// Commands of a shutdown. They interrupt other operations.
    urgent: mpsc::Receiver<Urgent>,
    /// True while the server has our newest data, as far as we know.
    registered: bool,
    /// True once a registration was sent, so that there may be something to cancel.
    attempted: bool,
    /// No heartbeat and no registration any more: the DELETE alone is left to be done.
    leaving: bool,
    routes: Routes,
    /// True once a registry has taken the instance at its present address.
    located: bool,
    /// True from the time another address is found until a registry has taken it.
    moved: bool,
    /// True until the record in the registry was compared with ours.
    unverified: bool,
    /// True once a registry has taken a registration.
    succeeded: bool,
    failing_since: Option<Instant>,
    warned: Option<Instant>,
    backoff: Backoff,
    next: Instant,
}

/// Commands that wait for their turn.
pub(super) enum Command {
    /// Register now, with this status, and return the result.
    Register { status: InstanceStatus, done: Done },
    /// Put a status over the instance's own, or remove it and register anew.
    Override { status: Option<InstanceStatus>, done: Done },
}

/// Commands of a shutdown, each with its bound.
pub(super) enum Urgent {
    /// Register as DOWN.
    Down { within: Duration, done: Done },
    /// Delete the registration and end. If no server takes it, stay for another try, but send
    /// nothing else.
    Deregister { within: Duration, done: Done },
}

type Done = oneshot::Sender<Result<(), Error>>;

/// Channels to the task.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    pub(super) normal: mpsc::Sender<Command>,
    pub(super) urgent: mpsc::Sender<Urgent>,
}

/// The task and the channels to it.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) commands: Commands,
    pub(super) task: JoinHandle<()>,
}

/// Reason for which an operation of a shutdown comes before another one: a command, or the end of
/// all handles.
type Interruption = Option<Urgent>;

/// Reason for which an operation has no result.
enum Stop {
    Shutdown(Interruption),
    /// A command that waits for its turn.
    Command,
}

type Outcome = Result<Result<(), Error>, Stop>;

impl Agent {
    /// Starts the task, which begins when the `previous` one has ended. It registers at once, and
    /// again with back-off until it succeeds. Once all handles are gone, it deletes the
    /// registration within `farewell`.
    pub(super) fn spawn(
        transport: Transport,
        instance: Instance,
        lifecycle: Arc<Lifecycle>,
        routes: Routes,
        farewell: Duration,
        previous: Option<JoinHandle<()>>,
    ) -> Handle {
        let (normal, commands) = mpsc::channel(4);
        let (sender, urgent) = mpsc::channel(4);
        let interval = renewal_interval(&instance);
        let mut agent = Self {
            background: transport.in_background(),
            transport,
            instance,
            routes,
            located: lifecycle.moved().is_some(),
            moved: false,
            lifecycle,
            commands,
            waiting: None,
            urgent,
            registered: false,
            attempted: false,
            leaving: false,
            unverified: true,
            succeeded: false,
            failing_since: None,
            warned: None,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            next: Instant::now(),
        };
        agent.touch();
        agent.instance.last_updated_timestamp = agent.instance.last_dirty_timestamp;
        let task = tokio::spawn(async move {
            if let Some(previous) = previous {
                // However it ended, it sends nothing any more.
                let _ = previous.await;
            }
            agent.next = Instant::now();
            // A panic ends one turn, and not the heartbeats.
            while catch_panic(agent.run(farewell)).await.is_err() {
                let (app, instance) = (agent.instance.app(), agent.instance.id());
                tracing::error!(app, instance, "registration panicked and is started again");
                agent.registered = false;
                agent.lifecycle.state.change(RegistrarState::failing);
                agent.next = Instant::now() + agent.backoff.next();
            }
        });
        Handle { commands: Commands { normal, urgent: sender }, task }
    }

    async fn run(&mut self, farewell: Duration) {
        let mut interruption = None;
        loop {
            let urgent = match interruption.take() {
                Some(urgent) => urgent,
                None => match self.turn().await {
                    ControlFlow::Continue(()) => continue,
                    ControlFlow::Break(urgent) => urgent,
                },
            };
            match urgent {
                Some(Urgent::Down { within, done }) => match self.down(within, done).await {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(urgent) => interruption = Some(urgent),
                },
                Some(Urgent::Deregister { within, done }) => {
                    let result = self.cancel(within).await;
                    let gone = result.is_ok();
                    let _ = done.send(result);
                    if gone {
                        return;
                    }
                }
                // Every handle was dropped: leave as well as possible.
                None => {
                    let _ = self.cancel(farewell).await;
                    return;
                }
            }
        }
    }

    /// Waits for what is next, a command or the time of a heartbeat, and does it.
    async fn turn(&mut self) -> ControlFlow<Interruption> {
        if let Some(command) = self.waiting.take() {
            return self.obey(command).await;
        }
        tokio::select! {
            biased;
            urgent = self.urgent.recv() => ControlFlow::Break(urgent),
            command = self.commands.recv() => match command {
                Some(command) => self.obey(command).await,
                // The other channel has ended, too.
                None => ControlFlow::Break(None),
            },
            () = std::future::ready(()), if self.registered && self.unverified && !self.leaving => self.verify().await,
            () = sleep_until(self.next), if !self.leaving => self.beat().await,
        }
    }

    async fn obey(&mut self, command: Command) -> ControlFlow<Interruption> {
        let (status, over, done) = match command {
            Command::Register { status, done } => (Some(status), None, done),
            Command::Override { status, done } => (None, Some(status), done),
        };
        // The handle has looked before. This one was waiting when the shutdown began.
        if self.leaving || self.lifecycle.is_draining() {
            let _ = done.send(Err(self.refused()));
            return ControlFlow::Continue(());
        }
        if let Some(status) = status.filter(|status| self.instance.status != *status) {
            self.instance.status = status;
            self.touch();
        }
        let outcome = match over {
            None => self.register(self.transport.clone()).await,
            Some(status) => self.put_over(status).await,
        };
        match outcome {
            Ok(result) => {
                if over.is_none() {
                    self.note(&result);
                }
                // The caller may have given up waiting.
                let _ = done.send(result);
                ControlFlow::Continue(())
            }
            Err(stop) => {
                let _ = done.send(Err(self.refused()));
                stop.flow()
            }
        }
    }

    /// A heartbeat; a registration where that is owed instead, or where the server does not know
    /// the lease.
    async fn beat(&mut self) -> ControlFlow<Interruption> {
        let outcome = if self.registered { self.renew().await } else { self.register(self.background.clone()).await };
        match outcome {
            Ok(result) => {
                self.note(&result);
                ControlFlow::Continue(())
            }
            Err(stop) => stop.flow(),
        }
    }

    async fn renew(&mut self) -> Outcome {
        let (transport, instance) = (self.background.clone(), self.instance.clone());
        let dirty = instance.last_dirty_timestamp.unwrap_or_default();
        let renewal = tokio::select! {
            biased;
            urgent = self.urgent.recv() => return Err(Stop::Shutdown(urgent)),
            // A lost heartbeat costs nothing, so any command may go before it.
            Some(command) = self.commands.recv() => {
                self.waiting = Some(command);
                return Err(Stop::Command);
            }
            renewal = transport.heartbeat(instance.app(), instance.id(), instance.status, dirty) => renewal,
        };
        match renewal {
            Ok(Renewal::Renewed) => {
                self.succeeded();
                Ok(Ok(()))
            }
            Ok(Renewal::Unknown) => {
                tracing::info!(app = instance.app(), instance = instance.id(), "lease lost, registering again");
                // Newer than what any server holds, else it would keep its own copy.
                self.touch();
                self.register(transport).await
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Registers, unless a command of a shutdown comes between.
    ///
    /// Such a command gets its turn at once: the timestamp of the data orders a registration that
    /// arrives late behind one that was sent later.
    async fn register(&mut self, transport: Transport) -> Outcome {
        self.registered = false;
        if self.instance.is_address_detected() && (!self.located || address::is_at_loopback(&self.instance)) {
            let found = tokio::select! {
                biased;
                urgent = self.urgent.recv() => return Err(Stop::Shutdown(urgent)),
                found = self.routes.towards_registry(&transport, &self.instance) => found,
            };
            if let Some(instance) = found {
                (self.instance, self.moved) = (instance, true);
            }
        }
        self.attempted = true;
        let instance = self.instance.clone();
        let result = tokio::select! {
            biased;
            urgent = self.urgent.recv() => return Err(Stop::Shutdown(urgent)),
            result = transport.register(&instance) => result,
        };
        if result.is_ok() {
            self.is_registered();
        }
        Ok(result)
    }

    /// Puts a status over the instance's own. Without one it takes the status back, and registers
    /// anew, as it is UNKNOWN then.
    async fn put_over(&mut self, status: Option<InstanceStatus>) -> Outcome {
        let (transport, instance) = (self.transport.clone(), self.instance.clone());
        let dirty = instance.last_dirty_timestamp.unwrap_or_default();
        let result = tokio::select! {
            biased;
            urgent = self.urgent.recv() => return Err(Stop::Shutdown(urgent)),
            result = transport.override_status(instance.app(), instance.id(), status, dirty) => result,
        };
        if result.is_err() || status.is_some() {
            return Ok(result);
        }
        self.touch();
        let result = self.register(transport).await?;
        self.note(&result);
        Ok(result)
    }

    /// Compares the record in the registry with ours, once. A newer one, left by a process whose
    /// clock was ahead, is kept by the registry in the place of ours; it is overtaken.
    async fn verify(&mut self) -> ControlFlow<Interruption> {
        self.unverified = false;
        let (transport, ours) = (self.background.clone(), self.instance.clone());
        let found = tokio::select! {
            biased;
            urgent = self.urgent.recv() => return ControlFlow::Break(urgent),
            Some(command) = self.commands.recv() => {
                self.waiting = Some(command);
                return ControlFlow::Continue(());
            }
            found = timeout(renewal_interval(&ours), transport.registered(ours.app(), ours.id())) => found,
        };
        let Ok(Ok(Some(found))) = found else { return ControlFlow::Continue(()) };
        let dirty = ours.last_dirty_timestamp.unwrap_or_default();
        let Some(theirs) = found.last_dirty_timestamp.filter(|theirs| *theirs > dirty) else {
            return ControlFlow::Continue(());
        };
        let (app, instance, ahead) = (ours.app(), ours.id(), Duration::from_millis(theirs.abs_diff(dirty)));
        if theirs.saturating_sub(wall_clock_ms()) > LARGEST_SKEW_MS {
            tracing::warn!(
                app,
                instance,
                ?ahead,
                "registry keeps a record that is newer than this registration by more than a year; delete it there"
            );
            return ControlFlow::Continue(());
        }
        tracing::warn!(
            app,
            instance,
            ?ahead,
            "registry keeps a newer record of this instance, overtaking it; was a clock ahead?"
        );
        self.instance.last_dirty_timestamp = Some(theirs.saturating_add(1));
        self.registered = false;
        self.next = Instant::now();
        ControlFlow::Continue(())
    }

    /// Registers as DOWN.
    async fn down(&mut self, within: Duration, done: Done) -> ControlFlow<Interruption> {
        if self.leaving {
            let _ = done.send(Err(self.refused()));
            return ControlFlow::Continue(());
        }
        if self.instance.status != InstanceStatus::Down {
            self.instance.status = InstanceStatus::Down;
            self.touch();
        }
        // At the last address that was found: a look-up would take the time of the DOWN.
        (self.attempted, self.registered, self.unverified) = (true, false, false);
        let (transport, instance) = (self.transport.with_timeout(within), self.instance.clone());
        let result = tokio::select! {
            biased;
            urgent = self.urgent.recv() => {
                let _ = done.send(Err(self.refused()));
                return ControlFlow::Break(urgent);
            }
            result = timeout(within, transport.register(&instance)) => result,
        };
        let result = result.unwrap_or_else(|_| Err(self.too_late("register", within)));
        if result.is_ok() {
            self.is_registered();
        }
        self.schedule(&result);
        let _ = done.send(result);
        ControlFlow::Continue(())
    }

    /// Sends the DELETE until a server takes it or this time is over.
    async fn cancel(&mut self, within: Duration) -> Result<(), Error> {
        self.leaving = true;
        if !self.attempted {
            self.lifecycle.state.set(RegistrarState::Deregistered);
            return Ok(());
        }
        let hurried = self.transport.with_timeout(within);
        let deadline = Instant::now() + within;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let cancelled = timeout_at(deadline, hurried.cancel(self.instance.app(), self.instance.id())).await;
            let error = match cancelled {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => error,
                Err(_) => {
                    self.lifecycle.state.set(RegistrarState::Deregistered);
                    return Err(self.too_late("deregister", within));
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

    /// New data: later than the last, even within a millisecond or after the clock was set back.
    fn touch(&mut self) {
        let last = self.instance.last_dirty_timestamp.unwrap_or_default();
        self.instance.last_dirty_timestamp = Some(wall_clock_ms().max(last.saturating_add(1)));
        self.registered = false;
    }

    /// Sets the time of the next heartbeat. A registry that is overloaded gets no more of them than
    /// one that is well.
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

    fn is_registered(&mut self) {
        self.registered = true;
        if !std::mem::replace(&mut self.located, true) {
            address::warn_of_loopback(&self.transport, &self.instance);
        }
        if std::mem::take(&mut self.moved) {
            self.lifecycle.set_moved(&self.instance);
        }
        self.succeeded();
        let (app, instance, status) = (self.instance.app(), self.instance.id(), self.instance.status);
        tracing::info!(app, instance, %status, "registered");
    }

    /// Follows the result of a heartbeat or a registration.
    fn note(&mut self, result: &Result<(), Error>) {
        if let Err(error) = result {
            self.failed(error);
        }
        self.schedule(result);
    }

    fn failed(&mut self, error: &Error) {
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

    fn succeeded(&mut self) {
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

    fn too_late(&self, operation: &'static str, within: Duration) -> Error {
        Error::new(Kind::Timeout, operation)
            .app(self.instance.app())
            .instance(self.instance.id())
            .cause(format!("not done within {within:?}"))
            .advice("the lease ends by itself if the registry stays away")
    }

    fn refused(&self) -> Error {
        leaving(&self.instance)
    }
}

/// Error of a change to an instance that leaves.
pub(super) fn leaving(instance: &Instance) -> Error {
    Error::new(Kind::Closed, "set status of")
        .app(instance.app.clone())
        .instance(instance.id())
        .cause("it leaves the registry and stays DOWN until it is deregistered")
        .advice("see state(); call deregister() and then register() to bring it back")
}

impl Stop {
    /// The next step of the loop.
    fn flow(self) -> ControlFlow<Interruption> {
        match self {
            Self::Shutdown(urgent) => ControlFlow::Break(urgent),
            Self::Command => ControlFlow::Continue(()),
        }
    }
}

fn renewal_interval(instance: &Instance) -> Duration {
    let seconds = instance.lease.unwrap_or_default().renewal_interval_secs;
    // At least a second, whatever a hand-made instance says.
    Duration::from_secs(u64::try_from(seconds).unwrap_or(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64).max(1))
}
