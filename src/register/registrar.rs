use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::RegistrationLayer;
use super::agent::{Agent, Command, Handle};
use super::drain::{self, DrainConfig};
use super::lifecycle::Lifecycle;
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus};
use crate::transport::Transport;

/// Keeps one instance in the registry. Made by [`Eureka::registrar`](crate::Eureka::registrar).
///
/// Cheap to clone; all clones hold one registration. The times that are set on a clone are its own.
///
/// Most servers want [`serve`](Self::serve), which does everything in order. Who runs the server by other means calls
/// [`register`](Self::register) and [`deregister`](Self::deregister), and perhaps [`drain`](Self::drain) between them.
///
/// When the last clone is dropped without a farewell, the instance is taken out of the registry in the background, if the runtime
/// still lives long enough.
#[derive(Clone)]
pub struct Registrar {
    pub(super) shared: Arc<Shared>,
    pub(super) config: DrainConfig,
}

pub(super) struct Shared {
    transport: Transport,
    instance: Instance,
    pub(super) lifecycle: Arc<Lifecycle>,
    agent: Mutex<Slot>,
    /// The setting that switches registration off.
    off: Option<Cow<'static, str>>,
}

/// The task that keeps the registration.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Idle,
    Running(Handle),
    /// It was told to deregister, and does nothing else any more.
    Leaving(Handle),
}

impl Slot {
    fn commands(&self) -> Option<mpsc::Sender<Command>> {
        match self {
            Self::Idle => None,
            Self::Running(agent) | Self::Leaving(agent) => Some(agent.commands.clone()),
        }
    }
}

impl Registrar {
    /// With a setting that switches registration `off`, nothing is ever sent.
    pub(crate) fn new(transport: Transport, instance: Instance, off: Option<Cow<'static, str>>) -> Self {
        let shared = Shared { transport, instance, lifecycle: Arc::default(), agent: Mutex::default(), off };
        Self { shared: Arc::new(shared), config: DrainConfig::default() }
    }

    /// How long no new request must have come before a draining server believes that its callers know. Default 5 s.
    #[must_use]
    pub fn quiet_time(mut self, time: Duration) -> Self {
        self.config.quiet_time = time;
        self
    }

    /// How long a server drains at most, though requests keep coming. Default 30 s, the usual patience of an orchestrator.
    ///
    /// Stock Java callers may take 60 s and more to learn of a change.
    #[must_use]
    pub fn max_drain(mut self, time: Duration) -> Self {
        self.config.max_drain = time;
        self
    }

    /// How long requests in flight may take to finish once no more are accepted. Default 20 s.
    #[must_use]
    pub fn grace(mut self, time: Duration) -> Self {
        self.config.grace = time;
        self
    }

    /// How long a single word with the registry may delay the shutdown: the change to DOWN, the DELETE. Default 3 s.
    #[must_use]
    pub fn registry_timeout(mut self, time: Duration) -> Self {
        self.config.registry_timeout = time;
        self
    }

    /// The instance as described when it was handed over.
    pub fn instance(&self) -> &Instance {
        &self.shared.instance
    }

    /// The layer that lets the drain see requests. Put it outermost around the server's service.
    pub fn layer(&self) -> RegistrationLayer {
        RegistrationLayer::new(self.shared.lifecycle.clone())
    }

    /// Registers the instance as UP and keeps its lease from then on.
    ///
    /// Bounded by the connect and read timeouts of the client, per server tried.
    ///
    /// # Errors
    /// When this first registration fails. It is tried again in the background all the same, until it succeeds or
    /// [`deregister`](Self::deregister) is called.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the registration going on in the background.
    pub async fn register(&self) -> Result<(), Error> {
        self.shared.lifecycle.set_draining(false);
        match self.start() {
            Some(agent) => self.tell(agent, InstanceStatus::Up, false).await,
            None => Ok(()),
        }
    }

    /// Tells the registry of a status of this instance's own choosing. [`InstanceStatus::Down`] and
    /// [`Starting`](InstanceStatus::Starting) can be left again by another call; servers do not take
    /// [`OutOfService`](InstanceStatus::OutOfService) from an instance that is UP.
    ///
    /// Bounded as [`register`](Self::register) is.
    ///
    /// # Errors
    /// When the registry did not take it now; it is tried again in the background. Also when the instance is not being kept in
    /// the registry: before [`register`](Self::register) and after [`deregister`](Self::deregister).
    pub async fn set_status(&self, status: InstanceStatus) -> Result<(), Error> {
        if self.shared.off.is_some() {
            return Ok(());
        }
        self.tell(self.running().ok_or_else(|| self.not_registered())?, status, false).await
    }

    /// Registers the instance as DOWN, then waits, while it keeps serving, until callers have stopped calling it: no new request
    /// for the [`quiet_time`](Self::quiet_time), at most for [`max_drain`](Self::max_drain).
    ///
    /// The wait needs the [`layer`](Self::layer) to see requests; without it, it is the quiet time. A failure to tell the
    /// registry is logged and does not prevent the drain.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; the instance stays DOWN.
    pub async fn drain(&self) {
        self.announce_down().await;
        drain::quiet(&self.shared.lifecycle, &self.config).await;
    }

    /// What to give a server as its shutdown signal when it is not run by [`serve`](Self::serve): completes when `signal` has
    /// and the [`drain`](Self::drain) after it. Then call [`deregister`](Self::deregister) once the server has ended.
    pub fn drain_signal<S: Future<Output = ()>>(&self, signal: S) -> impl Future<Output = ()> + use<S> {
        let this = self.clone();
        async move {
            signal.await;
            this.drain().await;
        }
    }

    /// Takes the instance out of the registry and ends its heartbeats, in this order: nothing of it is sent afterwards, unless
    /// it is registered again.
    ///
    /// Ends within the [`registry_timeout`](Self::registry_timeout) that was set when it was registered; until then the DELETE is
    /// repeated where it fails.
    ///
    /// # Errors
    /// When no server took it in that time; the lease then ends by itself, or at another call. Not when the instance was never
    /// registered, or is not known any more.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it going on in the background.
    pub async fn deregister(&self) -> Result<(), Error> {
        let commands = {
            let mut slot = self.slot();
            *slot = match std::mem::take(&mut *slot) {
                Slot::Idle => return Ok(()),
                Slot::Running(agent) | Slot::Leaving(agent) => Slot::Leaving(agent),
            };
            slot.commands()
        };
        let Some(commands) = commands else { return Ok(()) };
        let (done, result) = oneshot::channel();
        // A closed channel: the DELETE is done, at the request of another clone.
        if commands.send(Command::Deregister(done)).await.is_err() { Ok(()) } else { result.await.unwrap_or(Ok(())) }
    }

    /// The first step of leaving: DOWN, within the registry timeout, whether or not the registry hears it.
    pub(super) async fn announce_down(&self) {
        self.shared.lifecycle.set_draining(true);
        let Some(agent) = self.running() else { return };
        if let Err(error) = self.tell(agent, InstanceStatus::Down, true).await {
            tracing::warn!(%error, "registry was not told that this instance leaves");
        }
    }

    /// Starts the task that keeps the registration, if it does not run. `None` with registration switched off.
    pub(super) fn start(&self) -> Option<mpsc::Sender<Command>> {
        let shared = &self.shared;
        if let Some(setting) = &shared.off {
            let (app, instance) = (shared.instance.app(), shared.instance.id());
            tracing::info!(app, instance, "registration is switched off by {setting}, serving without it");
            return None;
        }
        let mut slot = self.slot();
        let previous = match std::mem::take(&mut *slot) {
            Slot::Running(agent) if !agent.task.is_finished() => {
                let commands = agent.commands.clone();
                *slot = Slot::Running(agent);
                return Some(commands);
            }
            Slot::Running(agent) | Slot::Leaving(agent) => Some(agent.task),
            Slot::Idle => None,
        };
        let timeout = self.config.registry_timeout;
        let agent = Agent::spawn(shared.transport.clone(), shared.instance.clone(), timeout, previous);
        let commands = agent.commands.clone();
        *slot = Slot::Running(agent);
        Some(commands)
    }

    /// Lets go of the task, which then takes the instance out of the registry by itself.
    pub(super) fn abandon(&self) {
        let mut slot = self.slot();
        if let Slot::Running(_) = *slot {
            *slot = Slot::Idle;
        }
    }

    async fn tell(&self, agent: mpsc::Sender<Command>, status: InstanceStatus, haste: bool) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        let command = Command::Register { status, haste, done };
        agent.send(command).await.map_err(|_| self.not_registered())?;
        // Not to keep the task from seeing that every handle is gone.
        drop(agent);
        result.await.map_err(|_| self.not_registered())?
    }

    fn running(&self) -> Option<mpsc::Sender<Command>> {
        match &*self.slot() {
            Slot::Running(agent) => Some(agent.commands.clone()),
            Slot::Idle | Slot::Leaving(_) => None,
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.shared.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_registered(&self) -> Error {
        Error::new(Kind::Closed, "set status of")
            .app(self.shared.instance.app.clone())
            .instance(self.shared.instance.id())
            .cause("it is not being kept in the registry")
            .advice("call register() first")
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar")
            .field("app", &self.shared.instance.app)
            .field("instance", &self.shared.instance.id())
            .field("running", &self.running().is_some())
            .finish()
    }
}
