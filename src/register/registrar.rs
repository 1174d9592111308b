use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::RegistrationLayer;
use super::agent::{Agent, Command};
use super::drain::{self, DrainConfig};
use super::lifecycle::Lifecycle;
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus};
use crate::transport::Transport;

/// Keeps one instance in the registry. Made by [`Eureka::registrar`](crate::Eureka::registrar); cheap to clone, all clones are one.
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
    agent: Mutex<Option<mpsc::Sender<Command>>>,
}

impl Registrar {
    pub(crate) fn new(transport: Transport, instance: Instance) -> Self {
        let shared = Shared { transport, instance, lifecycle: Arc::default(), agent: Mutex::new(None) };
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
        self.set_status(InstanceStatus::Up).await
    }

    /// Registers the instance as DOWN, then waits, while it keeps serving, until callers have stopped calling it: no new request
    /// for the quiet time, at most for the longest drain. Meant as, or inside, a server's shutdown signal.
    ///
    /// The waiting time needs the [`layer`](Self::layer) to see requests; without it, it is the quiet time. A failure to tell the
    /// registry is logged and does not prevent the drain.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; the instance stays DOWN.
    pub async fn drain(&self) {
        self.announce_down().await;
        drain::quiet(&self.shared.lifecycle, &self.config).await;
    }

    /// Takes the instance out of the registry and ends its heartbeats, in this order: nothing of it is sent afterwards.
    ///
    /// # Errors
    /// When no server took it within the registry timeout; the lease then ends by itself. Not when the instance was never
    /// registered, or is not known any more.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it going on in the background.
    pub async fn deregister(&self) -> Result<(), Error> {
        let Some(agent) = self.agent_slot().take() else { return Ok(()) };
        let (done, result) = oneshot::channel();
        let ask = async {
            // A closed channel: the task is gone, and with it what there was to do.
            if agent.send(Command::Deregister(done)).await.is_ok() { result.await.unwrap_or(Ok(())) } else { Ok(()) }
        };
        match timeout(self.config.registry_timeout, ask).await {
            Ok(result) => result,
            Err(_) => Err(self.timed_out("deregister")),
        }
    }

    /// Tells the registry of a status of this instance's own choosing. [`InstanceStatus::Down`] and
    /// [`Starting`](InstanceStatus::Starting) can be left again by another call; servers do not take
    /// [`OutOfService`](InstanceStatus::OutOfService) from an instance that is UP.
    ///
    /// # Errors
    /// When the registry did not take it now; it is tried again in the background.
    pub async fn set_status(&self, status: InstanceStatus) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        let closed = || Error::new(Kind::Closed, "register").app(self.shared.instance.app.clone());
        self.start().send(Command::Register(status, done)).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }

    /// The first step of leaving: DOWN, within the registry timeout, whether or not the registry hears it.
    pub(super) async fn announce_down(&self) {
        self.shared.lifecycle.start_draining();
        if self.agent_slot().is_none() {
            return;
        }
        let told = timeout(self.config.registry_timeout, self.set_status(InstanceStatus::Down)).await;
        if let Err(error) = told.unwrap_or_else(|_| Err(self.timed_out("register as DOWN"))) {
            tracing::warn!(%error, "registry was not told that this instance leaves");
        }
    }

    /// Starts the task that keeps the registration, if it does not run.
    pub(super) fn start(&self) -> mpsc::Sender<Command> {
        let shared = &self.shared;
        let mut agent = self.agent_slot();
        let spawn = || Agent::spawn(shared.transport.clone(), shared.instance.clone(), self.config.registry_timeout);
        agent.get_or_insert_with(spawn).clone()
    }

    fn agent_slot(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Command>>> {
        self.shared.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timed_out(&self, operation: &'static str) -> Error {
        Error::new(Kind::Timeout, operation)
            .app(self.shared.instance.app.clone())
            .instance(self.shared.instance.id())
            .cause(format!("not done within {:?}", self.config.registry_timeout))
            .advice("the lease ends by itself if the registry stays away")
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar")
            .field("app", &self.shared.instance.app)
            .field("instance", &self.shared.instance.id())
            .field("running", &self.agent_slot().is_some())
            .finish()
    }
}
