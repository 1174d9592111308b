use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::address::Routes;
use super::agent::{Agent, Command, Commands, Handle, Urgent, leaving};
use super::drain::{self, Budget, DrainConfig};
use super::lifecycle::Lifecycle;
use super::paths::Paths;
use super::{RegistrarState, RegistrationLayer};
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus};
use crate::sync::Mutex;
use crate::transport::Transport;

/// Keeps one instance in the registry. Made by [`Eureka::registrar`](crate::Eureka::registrar).
///
/// Cheap to clone; all clones hold one registration. The times that are set on a clone are its own.
///
/// Most servers want [`serve`](Self::serve), which does everything in order. Who runs the server by
/// other means calls [`register`](Self::register) and [`deregister`](Self::deregister), and perhaps
/// [`drain`](Self::drain) between them.
///
/// When the last clone is dropped without a farewell, the instance is taken out of the registry in
/// the background, if the runtime still lives long enough.
#[derive(Clone)]
pub struct Registrar {
    pub(super) shared: Arc<Shared>,
    pub(super) config: DrainConfig,
    uncounted: Paths,
}

pub(super) struct Shared {
    transport: Transport,
    instance: Instance,
    pub(super) lifecycle: Arc<Lifecycle>,
    agent: Mutex<Slot>,
    routes: Routes,
    /// The setting that switches registration off.
    off: Option<Cow<'static, str>>,
}

/// Time that the task gets to report the end of its own bound.
const MARGIN: Duration = Duration::from_millis(20);

/// The task that keeps the registration.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Idle,
    Running(Handle),
    /// It deregisters, and does nothing else any more.
    Leaving(Handle),
}

impl Slot {
    fn commands(&self) -> Option<Commands> {
        match self {
            Self::Idle => None,
            Self::Running(agent) | Self::Leaving(agent) => Some(agent.commands.clone()),
        }
    }
}

impl Registrar {
    /// With a setting that switches registration `off`, nothing is ever sent.
    pub(crate) fn new(transport: Transport, instance: Instance, off: Option<Cow<'static, str>>) -> Self {
        let state = if off.is_some() { RegistrarState::Disabled } else { RegistrarState::NotRegistered };
        let lifecycle = Arc::new(Lifecycle::new(state));
        let shared = Shared { transport, instance, lifecycle, agent: Mutex::default(), routes: Routes::default(), off };
        Self { shared: Arc::new(shared), config: DrainConfig::default(), uncounted: Paths::default() }
    }

    /// Replaces the routes of this machine.
    #[cfg(test)]
    pub(super) fn with_routes(mut self, routes: Routes) -> Self {
        Arc::get_mut(&mut self.shared).expect("registrar is not cloned yet").routes = routes;
        self
    }

    /// Sets the time limit of the whole shutdown: DOWN, drain, requests in flight and DELETE share
    /// it. Defaults to 25 seconds, since orchestrators kill after 30.
    ///
    /// A step that may take longer by its own limit is cut. Each later step keeps a reserve: a
    /// fifth of the time for the requests in flight, and the
    /// [`registry_timeout`](Self::registry_timeout), at most a quarter, for the DELETE.
    #[must_use]
    pub fn shutdown_timeout(mut self, time: Duration) -> Self {
        self.config.shutdown_timeout = time;
        self
    }

    /// Sets the time without a new request after which the callers of a draining server are taken
    /// to know. Defaults to 5 seconds.
    #[must_use]
    pub fn quiet_time(mut self, time: Duration) -> Self {
        self.config.quiet_time = time;
        self
    }

    /// Sets the maximum time of the drain, for a server whose requests keep coming. Defaults to 15
    /// seconds.
    ///
    /// Stock Java callers may take 60 seconds and more to learn of a change. A longer drain needs a
    /// longer [`shutdown_timeout`](Self::shutdown_timeout), and an orchestrator that waits as long.
    #[must_use]
    pub fn max_drain(mut self, time: Duration) -> Self {
        self.config.max_drain = time;
        self
    }

    /// Sets the maximum time for the requests in flight to finish once no more are accepted.
    /// Defaults to 20 seconds, as far as the [`shutdown_timeout`](Self::shutdown_timeout) leaves
    /// them.
    #[must_use]
    pub fn grace(mut self, time: Duration) -> Self {
        self.config.grace = time;
        self
    }

    /// Sets the time limit of each registry request made during the shutdown: the change to DOWN
    /// and the DELETE. Defaults to 3 seconds.
    #[must_use]
    pub fn registry_timeout(mut self, time: Duration) -> Self {
        self.config.registry_timeout = time;
        self
    }

    /// Replaces the paths whose requests do not count as calls, so that probes do not keep a server
    /// draining. A path that ends in `/*` stands for all below it. Defaults to the usual paths of
    /// probes and metrics: `/health`, `/healthz`, `/livez` and `/readyz`, each with all below it,
    /// `/healthcheck`, `/metrics`, `/actuator/health` with all below it, `/actuator/prometheus` and
    /// `/grpc.health.v1.Health/*`.
    ///
    /// The paths of the instance's health check URLs never count. Takes effect on layers that are
    /// made afterwards.
    #[must_use]
    pub fn uncounted_paths(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.uncounted = Paths::new(paths);
        self
    }

    /// The instance: as described when it was handed over, from the first registration on at the
    /// address that was found then.
    pub fn instance(&self) -> &Instance {
        self.shared.lifecycle.moved().unwrap_or(&self.shared.instance)
    }

    /// The state of the registration, which can be awaited.
    ///
    /// ```no_run
    /// # async fn example(registrar: tower_eureka::register::Registrar) {
    /// use tower_eureka::register::RegistrarState;
    ///
    /// let mut state = registrar.state();
    /// // Fails when the last registrar is gone.
    /// let registered = state.wait_for(|state| *state == RegistrarState::Registered).await.is_ok();
    /// # }
    /// ```
    pub fn state(&self) -> watch::Receiver<RegistrarState> {
        self.shared.lifecycle.state.subscribe()
    }

    /// The layer that lets the drain see requests. Put it outermost around the server's service.
    pub fn layer(&self) -> RegistrationLayer {
        let uncounted = self.uncounted.and_health_checks(&self.shared.instance);
        RegistrationLayer::new(self.shared.lifecycle.clone(), uncounted)
    }

    /// Registers the instance as UP and keeps its lease from then on.
    ///
    /// Bounded by the connect and read timeouts of the client, per server tried.
    ///
    /// # Errors
    /// When this first registration fails. It is repeated in the background all the same, until it
    /// succeeds or [`deregister`](Self::deregister) is called. Also while the instance
    /// [drains](Self::drain).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the registration going on in the background.
    pub async fn register(&self) -> Result<(), Error> {
        match self.start() {
            Ok(Some(agent)) => self.ask(agent, InstanceStatus::Up).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Changes the instance's own status: UP, DOWN or STARTING.
    ///
    /// Bounded as [`register`](Self::register) is.
    ///
    /// # Errors
    /// - When the registry does not take it now. It is repeated in the background.
    /// - When the instance is not kept in the registry: before [`register`](Self::register) and
    ///   after [`deregister`](Self::deregister).
    /// - From the beginning of the [drain](Self::drain) on: an instance that leaves stays DOWN. See
    ///   [`state`](Self::state).
    /// - For OUT_OF_SERVICE and UNKNOWN, which servers do not take from an instance itself. Use
    ///   [`override_status`](Self::override_status).
    pub async fn set_status(&self, status: InstanceStatus) -> Result<(), Error> {
        if matches!(status, InstanceStatus::OutOfService | InstanceStatus::Unknown) {
            let cause = format!("a registry does not take {status} as an instance's own status");
            return Err(self.error(Kind::Config, "set status of", cause).advice("use Registrar::override_status"));
        }
        match self.running_or_error()? {
            Some(agent) => self.ask(agent, status).await,
            None => Ok(()),
        }
    }

    /// Puts a status over the instance's own in the registry, until
    /// [`remove_override`](Self::remove_override) or the end of the registration: `OUT_OF_SERVICE`
    /// takes the instance out of service while it keeps its lease.
    ///
    /// Bounded as [`register`](Self::register) is.
    ///
    /// # Errors
    /// When the registry does not take it, which is not repeated, and where
    /// [`set_status`](Self::set_status) has an error.
    pub async fn override_status(&self, status: InstanceStatus) -> Result<(), Error> {
        self.put_over(Some(status)).await
    }

    /// Removes the status that [`override_status`](Self::override_status) put over the instance's
    /// own, and registers that anew.
    ///
    /// Bounded as [`register`](Self::register) is, twice.
    ///
    /// # Errors
    /// When the registry does not take it, and where [`set_status`](Self::set_status) has an error.
    pub async fn remove_override(&self) -> Result<(), Error> {
        self.put_over(None).await
    }

    async fn put_over(&self, status: Option<InstanceStatus>) -> Result<(), Error> {
        let Some(agent) = self.running_or_error()? else { return Ok(()) };
        self.result_of(|done| async move { agent.normal.send(Command::Override { status, done }).await.is_ok() }).await
    }

    /// Registers the instance as DOWN, then waits, while it keeps serving, until callers have
    /// stopped calling it: no new request for the [`quiet_time`](Self::quiet_time), at most for
    /// [`max_drain`](Self::max_drain), and within the [`shutdown_timeout`](Self::shutdown_timeout).
    /// From here on the status cannot be set.
    ///
    /// The wait needs the [`layer`](Self::layer) to see requests; without it, it is the quiet time.
    /// A failure to register the DOWN is logged and does not prevent the drain.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; the instance stays DOWN.
    pub async fn drain(&self) {
        self.drain_within(&self.config.begin()).await;
    }

    pub(super) async fn drain_within(&self, budget: &Budget) {
        self.announce_down(self.config.registry_timeout.min(budget.registry)).await;
        drain::quiet(&self.shared.lifecycle, &self.config, budget).await;
    }

    /// Creates the shutdown signal of a server that is not run by [`serve`](Self::serve): it
    /// completes when `signal` has and the [`drain`](Self::drain) after it. Then call
    /// [`deregister`](Self::deregister) once the server has ended.
    pub fn drain_signal<S: Future<Output = ()>>(&self, signal: S) -> impl Future<Output = ()> + use<S> {
        let this = self.clone();
        async move {
            signal.await;
            this.drain().await;
        }
    }

    /// Takes the instance out of the registry and ends its heartbeats, in this order: nothing of it
    /// is sent afterwards, unless it is registered again.
    ///
    /// Ends within the [`registry_timeout`](Self::registry_timeout), also while a registration is
    /// under way; until then the DELETE is repeated where it fails.
    ///
    /// # Errors
    /// When no server took it in that time; the lease then ends by itself, or at another call. Not
    /// when the instance was never registered, or is not known any more.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it going on in the background.
    pub async fn deregister(&self) -> Result<(), Error> {
        self.deregister_within(self.config.registry_timeout).await
    }

    pub(super) async fn deregister_within(&self, within: Duration) -> Result<(), Error> {
        let commands = {
            let mut slot = self.slot();
            *slot = match std::mem::take(&mut *slot) {
                Slot::Idle => {
                    if self.shared.off.is_none() {
                        self.shared.lifecycle.state.set(RegistrarState::Deregistered);
                    }
                    return Ok(());
                }
                Slot::Running(agent) | Slot::Leaving(agent) => Slot::Leaving(agent),
            };
            slot.commands()
        };
        let Some(commands) = commands else { return Ok(()) };
        let (done, result) = oneshot::channel();
        // A closed channel: the DELETE is done, at the request of another clone.
        let deregister = async {
            match commands.urgent.send(Urgent::Deregister { within, done }).await {
                Ok(()) => result.await.unwrap_or(Ok(())),
                Err(_) => Ok(()),
            }
        };
        // The task bounds itself, but may have to end another farewell before.
        timeout(within.saturating_add(MARGIN), deregister).await.unwrap_or_else(|_| Err(self.too_late(within)))
    }

    /// The first step of leaving: DOWN, within this time, whether or not the registry takes it.
    async fn announce_down(&self, within: Duration) {
        let agent = {
            let slot = self.slot();
            self.shared.lifecycle.set_draining(true);
            if self.shared.off.is_none() && !matches!(*slot, Slot::Leaving(_)) {
                self.shared.lifecycle.state.set(RegistrarState::Draining);
            }
            match &*slot {
                Slot::Running(agent) => agent.commands.clone(),
                Slot::Idle | Slot::Leaving(_) => return,
            }
        };
        let down = |done| async move { agent.urgent.send(Urgent::Down { within, done }).await.is_ok() };
        let registered = timeout(within.saturating_add(MARGIN), self.result_of(down)).await;
        if let Err(error) = registered.unwrap_or_else(|_| Err(self.too_late(within))) {
            tracing::warn!(%error, "cannot register as DOWN, leaving all the same");
        }
    }

    /// Starts the task that keeps the registration, if it does not run. `None` with registration
    /// switched off; an error while the instance drains.
    pub(super) fn start(&self) -> Result<Option<Commands>, Error> {
        let Shared { transport, lifecycle, routes, off, .. } = &*self.shared;
        if let Some(setting) = off {
            let (app, instance) = (self.instance().app(), self.instance().id());
            tracing::info!(app, instance, "registration is switched off by {setting}, serving without it");
            return Ok(None);
        }
        let mut slot = self.slot();
        let previous = match std::mem::take(&mut *slot) {
            Slot::Running(agent) if !agent.task.is_finished() => {
                let commands = agent.commands.clone();
                *slot = Slot::Running(agent);
                return if lifecycle.is_draining() { Err(leaving(self.instance())) } else { Ok(Some(commands)) };
            }
            Slot::Running(agent) | Slot::Leaving(agent) => Some(agent.task),
            Slot::Idle => None,
        };
        lifecycle.set_draining(false);
        lifecycle.state.set(RegistrarState::NotRegistered);
        let timeout = self.config.registry_timeout;
        let (transport, instance) = (transport.clone(), self.instance().clone());
        let agent = Agent::spawn(transport, instance, lifecycle.clone(), routes.clone(), timeout, previous);
        let commands = agent.commands.clone();
        *slot = Slot::Running(agent);
        Ok(Some(commands))
    }

    /// Lets go of the task, which then takes the instance out of the registry by itself.
    pub(super) fn abandon(&self) {
        let mut slot = self.slot();
        if let Slot::Running(_) = *slot {
            *slot = Slot::Idle;
        }
    }

    /// Lets the task register this status.
    async fn ask(&self, agent: Commands, status: InstanceStatus) -> Result<(), Error> {
        self.result_of(|done| async move { agent.normal.send(Command::Register { status, done }).await.is_ok() }).await
    }

    /// Sends a command and waits for its result. What `send` holds of the task is dropped before,
    /// not to keep the task from seeing that every handle is gone.
    async fn result_of<F: Future<Output = bool>>(
        &self,
        send: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> F,
    ) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        if !send(done).await {
            return Err(self.not_registered());
        }
        result.await.map_err(|_| self.not_registered())?
    }

    /// The channels to the task; `None` with registration switched off.
    fn running_or_error(&self) -> Result<Option<Commands>, Error> {
        let slot = self.slot();
        match &*slot {
            _ if self.shared.off.is_some() => Ok(None),
            Slot::Running(_) if self.shared.lifecycle.is_draining() => Err(leaving(self.instance())),
            Slot::Running(agent) => Ok(Some(agent.commands.clone())),
            Slot::Idle | Slot::Leaving(_) => Err(self.not_registered()),
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.shared.agent.lock()
    }

    fn not_registered(&self) -> Error {
        self.error(Kind::Closed, "set status of", "it is not being kept in the registry")
            .advice("call register() first")
    }

    fn too_late(&self, within: Duration) -> Error {
        self.error(Kind::Timeout, "leave the registry with", format!("not done within {within:?}"))
            .advice("the lease ends by itself if the registry stays away")
    }

    fn error(&self, kind: Kind, operation: &'static str, cause: impl Into<String>) -> Error {
        let instance = self.instance();
        Error::new(kind, operation).app(instance.app.clone()).instance(instance.id()).cause(cause)
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar")
            .field("app", &self.instance().app)
            .field("instance", &self.instance().id())
            .field("state", &self.shared.lifecycle.state.get())
            .finish()
    }
}
