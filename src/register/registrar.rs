use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::address::Routes;
use super::agent::{Agent, AgentHandle, AgentTask, Command, ShutdownCommand, draining};
use super::drain::{self, Budget, DrainConfig};
use super::lifecycle::Lifecycle;
use super::pages::Pages;
use super::paths::Paths;
use super::{RegistrarState, RegistrationLayer};
use crate::error::{Error, Kind};
use crate::model::{Instance, InstanceStatus};
use crate::sync::Mutex;
use crate::transport::Transport;

/// Handle that registers one instance and keeps it registered. Created by
/// [`Eureka::registrar`](crate::Eureka::registrar).
///
/// Most servers use [`serve`](Self::serve), which runs the server and all steps in order. If the
/// server is run in another way, call [`register`](Self::register) and
/// [`deregister`](Self::deregister), and [`drain`](Self::drain) between them.
///
/// Clones are cheap and share one registration, but each has its own time limits. When the last
/// clone is dropped, an instance that is still registered is deregistered in the background, as far
/// as the runtime still runs.
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
    agent: Mutex<AgentState>,
    routes: Routes,
    /// Setting that switches registration off.
    off: Option<Cow<'static, str>>,
}

/// Additional time for the task to report that its own time limit was reached.
const TIMEOUT_MARGIN: Duration = Duration::from_millis(20);

/// State of the task that keeps the registration.
#[derive(Debug, Default)]
enum AgentState {
    #[default]
    Idle,
    Running(AgentTask),
    /// The task sends the DELETE and nothing else.
    Deregistering(AgentTask),
}

impl AgentState {
    fn handle(&self) -> Option<AgentHandle> {
        match self {
            Self::Idle => None,
            Self::Running(agent) | Self::Deregistering(agent) => Some(agent.handle.clone()),
        }
    }
}

impl Registrar {
    /// Creates a registrar. It sends nothing if `off` names a setting that switches registration
    /// off.
    pub(crate) fn new(transport: Transport, instance: Instance, off: Option<Cow<'static, str>>) -> Self {
        let state = if off.is_some() { RegistrarState::Disabled } else { RegistrarState::NotRegistered };
        let lifecycle = Arc::new(Lifecycle::new(state));
        let shared = Shared { transport, instance, lifecycle, agent: Mutex::default(), routes: Routes::default(), off };
        Self { shared: Arc::new(shared), config: DrainConfig::default(), uncounted: Paths::default() }
    }

    /// Replaces the routes of the machine.
    #[cfg(test)]
    pub(super) fn with_routes(mut self, routes: Routes) -> Self {
        Arc::get_mut(&mut self.shared).expect("registrar is not cloned yet").routes = routes;
        self
    }

    /// Sets the time limit of the whole shutdown, which DOWN, drain, requests in flight and DELETE
    /// share. Defaults to 25 seconds, since orchestrators kill a process after 30.
    ///
    /// Each step also has its own limit, and gets less if the later steps would have too little
    /// time left. A fifth of the time is reserved for the requests in flight. The
    /// [`registry_timeout`](Self::registry_timeout), but at most a quarter of the time, is reserved
    /// for the DELETE.
    #[must_use]
    pub fn shutdown_timeout(mut self, time: Duration) -> Self {
        self.config.shutdown_timeout = time;
        self
    }

    /// Sets the time without a new request after which the drain ends, since callers have stopped
    /// calling. Defaults to 5 seconds.
    #[must_use]
    pub fn quiet_time(mut self, time: Duration) -> Self {
        self.config.quiet_time = time;
        self
    }

    /// Sets the maximum time of the drain, for a server that keeps receiving requests. Defaults to
    /// 15 seconds.
    ///
    /// Stock Java callers may learn of a change after 60 seconds and more. A longer drain needs a
    /// longer [`shutdown_timeout`](Self::shutdown_timeout), and an orchestrator that waits as long.
    #[must_use]
    pub fn max_drain(mut self, time: Duration) -> Self {
        self.config.max_drain = time;
        self
    }

    /// Sets the maximum time for the requests in flight to finish once the server has stopped
    /// accepting. Defaults to 20 seconds.
    ///
    /// The [`shutdown_timeout`](Self::shutdown_timeout) may leave less.
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

    /// Sets the paths whose requests do not count as calls, so that probes do not prolong the
    /// drain. A path that ends in `/*` stands for all paths below it.
    ///
    /// Defaults to the usual paths of probes and metrics: `/health`, `/healthz`, `/livez` and
    /// `/readyz`, each with all paths below it, `/healthcheck`, `/metrics`, `/actuator/health` with
    /// all paths below it, `/actuator/prometheus` and `/grpc.health.v1.Health/*`. The
    /// new paths replace them. The paths of the instance's health check URLs never count, except
    /// for `/`, which also receives calls.
    ///
    /// Applies to the layers that are created afterwards.
    #[must_use]
    pub fn uncounted_paths(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.uncounted = Paths::new(paths);
        self
    }

    /// Returns the instance. From the first successful registration on it has the address that was
    /// detected for it.
    pub fn instance(&self) -> &Instance {
        self.shared.lifecycle.registered_instance().unwrap_or(&self.shared.instance)
    }

    /// Returns the state of the registration. The receiver can wait for a certain state.
    ///
    /// ```no_run
    /// # async fn example(registrar: tower_eureka::register::Registrar) {
    /// use tower_eureka::register::RegistrarState;
    ///
    /// let mut state = registrar.state();
    /// // An error means that the last registrar and its layers were dropped.
    /// let registered = state.wait_for(|state| *state == RegistrarState::Registered).await.is_ok();
    /// # }
    /// ```
    pub fn state(&self) -> watch::Receiver<RegistrarState> {
        self.shared.lifecycle.state.subscribe()
    }

    /// Creates the layer that counts the server's requests for the drain, and serves the health and
    /// info pages. Make it the outermost layer of the server.
    pub fn layer(&self) -> RegistrationLayer {
        let uncounted = self.uncounted.with_health_checks(&self.shared.instance);
        RegistrationLayer::new(self.shared.lifecycle.clone(), uncounted, Pages::of(&self.shared.instance))
    }

    /// Registers the instance as UP, and renews its lease from then on.
    ///
    /// Returns once the first registration has succeeded or failed. Its time is limited by the
    /// connect and read timeouts of the client, for each server that is tried.
    ///
    /// # Errors
    /// If the first registration fails. It is nevertheless repeated in the background, until it
    /// succeeds or [`deregister`](Self::deregister) is called. Also if the instance is
    /// [draining](Self::drain).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped, the registration continues in the background.
    pub async fn register(&self) -> Result<(), Error> {
        match self.start() {
            Ok(Some(agent)) => self.register_as(agent, InstanceStatus::Up).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets the instance's own status: UP, DOWN or STARTING.
    ///
    /// The time limits are those of [`register`](Self::register).
    ///
    /// # Errors
    /// - If the request fails. It is repeated in the background.
    /// - If the instance is not registered: before [`register`](Self::register) and after
    ///   [`deregister`](Self::deregister).
    /// - Once the [drain](Self::drain) has begun, since the instance then stays DOWN. See
    ///   [`state`](Self::state).
    /// - For OUT_OF_SERVICE and UNKNOWN, which servers do not accept from an instance itself. Use
    ///   [`override_status`](Self::override_status).
    ///
    /// # Cancel safety
    /// If the future is dropped, the status may still be changed in the background.
    pub async fn set_status(&self, status: InstanceStatus) -> Result<(), Error> {
        if matches!(status, InstanceStatus::OutOfService | InstanceStatus::Unknown) {
            let cause = format!("a registry does not accept {status} as an instance's own status");
            return Err(self.error(Kind::Config, "set status of", cause).advice("use Registrar::override_status"));
        }
        match self.running_or_error()? {
            Some(agent) => self.register_as(agent, status).await,
            None => Ok(()),
        }
    }

    /// Sets a status in the registry that overrides the instance's own one. `OUT_OF_SERVICE` stops
    /// calls to the instance while it keeps its lease.
    ///
    /// The override lasts until [`remove_override`](Self::remove_override) or the end of the
    /// registration. The time limits are those of [`register`](Self::register).
    ///
    /// # Errors
    /// If the request fails, which is not repeated. Also if the instance is not registered, or its
    /// [drain](Self::drain) has begun.
    ///
    /// # Cancel safety
    /// If the future is dropped, the override may still be set in the background.
    pub async fn override_status(&self, status: InstanceStatus) -> Result<(), Error> {
        self.change_override(Some(status)).await
    }

    /// Removes the override that [`override_status`](Self::override_status) has set, and registers
    /// the instance's own status again.
    ///
    /// Takes at most twice the time of [`register`](Self::register).
    ///
    /// # Errors
    /// If a request fails. The removal is not repeated, and the registration is repeated in the
    /// background. Also if the instance is not registered, or its [drain](Self::drain) has begun.
    ///
    /// # Cancel safety
    /// If the future is dropped, the override may still be removed in the background.
    pub async fn remove_override(&self) -> Result<(), Error> {
        self.change_override(None).await
    }

    async fn change_override(&self, status: Option<InstanceStatus>) -> Result<(), Error> {
        let Some(agent) = self.running_or_error()? else { return Ok(()) };
        self.result_of(|done| async move { agent.normal.send(Command::Override { status, done }).await.is_ok() }).await
    }

    /// Registers the instance as DOWN and waits until callers have stopped calling it. The server
    /// has to keep serving meanwhile.
    ///
    /// The wait ends after the [`quiet_time`](Self::quiet_time) without a new request, and at the
    /// latest after [`max_drain`](Self::max_drain) or when the
    /// [`shutdown_timeout`](Self::shutdown_timeout) requires it. Requests are only known with the
    /// [`layer`](Self::layer): a server that was never called does not wait. Without the layer, the
    /// wait is the quiet time.
    ///
    /// Once the drain has begun, the status can no longer be set. If the registration as DOWN
    /// fails, that is logged and the drain continues.
    ///
    /// # Cancel safety
    /// If the future is dropped, the wait ends and the instance stays DOWN.
    pub async fn drain(&self) {
        self.drain_within(&self.config.begin()).await;
    }

    pub(super) async fn drain_within(&self, budget: &Budget) {
        self.register_down(self.config.registry_timeout.min(budget.registry)).await;
        drain::wait_until_quiet(&self.shared.lifecycle, &self.config, budget).await;
    }

    /// Returns a shutdown signal for a server that is not run by [`serve`](Self::serve). It waits
    /// for `signal` and then for the [`drain`](Self::drain).
    ///
    /// Call [`deregister`](Self::deregister) when the server has ended.
    pub fn drain_signal<S: Future<Output = ()>>(&self, signal: S) -> impl Future<Output = ()> + use<S> {
        let this = self.clone();
        async move {
            signal.await;
            this.drain().await;
            this.shared.lifecycle.stopping.begin();
        }
    }

    /// Ends the heartbeats and deletes the instance from the registry. Nothing is sent for it
    /// afterwards, unless it is registered again.
    ///
    /// Takes at most the [`registry_timeout`](Self::registry_timeout), even during a registration.
    /// A DELETE that fails is repeated until then.
    ///
    /// # Errors
    /// If no server accepts the DELETE in that time. The lease then expires, unless another call of
    /// this method succeeds. An instance that was never registered, or that the registry no longer
    /// has, is not an error.
    ///
    /// # Cancel safety
    /// If the future is dropped, the DELETE continues in the background.
    pub async fn deregister(&self) -> Result<(), Error> {
        self.deregister_within(self.config.registry_timeout).await
    }

    pub(super) async fn deregister_within(&self, within: Duration) -> Result<(), Error> {
        let handle = {
            let mut state = self.agent();
            *state = match std::mem::take(&mut *state) {
                AgentState::Idle => {
                    if self.shared.off.is_none() {
                        self.shared.lifecycle.state.set(RegistrarState::Deregistered);
                    }
                    return Ok(());
                }
                AgentState::Running(agent) | AgentState::Deregistering(agent) => AgentState::Deregistering(agent),
            };
            state.handle()
        };
        let Some(handle) = handle else { return Ok(()) };
        let (done, result) = oneshot::channel();
        // A closed channel means that the DELETE of another clone has succeeded.
        let deregister = async {
            match handle.shutdown.send(ShutdownCommand::Deregister { within, done }).await {
                Ok(()) => result.await.unwrap_or(Ok(())),
                Err(_) => Ok(()),
            }
        };
        // The task has its own time limit, but it may still be busy with the DELETE of another
        // clone.
        timeout(within.saturating_add(TIMEOUT_MARGIN), deregister)
            .await
            .unwrap_or_else(|_| Err(self.timed_out("deregister", within)))
    }

    /// Registers the instance as DOWN within this time. A failure is logged.
    async fn register_down(&self, within: Duration) {
        let agent = {
            let state = self.agent();
            self.shared.lifecycle.set_draining(true);
            if self.shared.off.is_none() && !matches!(*state, AgentState::Deregistering(_)) {
                self.shared.lifecycle.state.set(RegistrarState::Draining);
            }
            match &*state {
                AgentState::Running(agent) => agent.handle.clone(),
                AgentState::Idle | AgentState::Deregistering(_) => return,
            }
        };
        let down = |done| async move { agent.shutdown.send(ShutdownCommand::Down { within, done }).await.is_ok() };
        let registered = timeout(within.saturating_add(TIMEOUT_MARGIN), self.result_of(down)).await;
        if let Err(error) = registered.unwrap_or_else(|_| Err(self.timed_out("register", within))) {
            tracing::warn!(%error, "cannot register as DOWN, draining nevertheless");
        }
    }

    /// Starts the task that keeps the registration, if it does not run. Returns `None` if
    /// registration is switched off, and an error if the instance is draining.
    pub(super) fn start(&self) -> Result<Option<AgentHandle>, Error> {
        let Shared { transport, lifecycle, routes, off, .. } = &*self.shared;
        if let Some(setting) = off {
            let (app, instance) = (self.instance().app(), self.instance().id());
            tracing::info!(app, instance, "registration is switched off by {setting}");
            return Ok(None);
        }
        let mut state = self.agent();
        let previous = match std::mem::take(&mut *state) {
            AgentState::Running(agent) if !agent.task.is_finished() => {
                let handle = agent.handle.clone();
                *state = AgentState::Running(agent);
                return if lifecycle.is_draining() {
                    Err(draining("register", self.instance()))
                } else {
                    Ok(Some(handle))
                };
            }
            AgentState::Running(agent) | AgentState::Deregistering(agent) => Some(agent.task),
            AgentState::Idle => None,
        };
        lifecycle.set_draining(false);
        lifecycle.stopping.reset();
        lifecycle.state.set(RegistrarState::NotRegistered);
        let timeout = self.config.registry_timeout;
        let (health, info) = lifecycle.pages.paths();
        let instance = self.instance().with_pages(health.as_deref(), info.as_deref());
        let transport = transport.clone();
        let agent = Agent::spawn(transport, instance, lifecycle.clone(), routes.clone(), timeout, previous);
        let handle = agent.handle.clone();
        *state = AgentState::Running(agent);
        Ok(Some(handle))
    }

    /// Drops the handle of the task, which then deregisters the instance by itself.
    pub(super) fn release(&self) {
        let mut state = self.agent();
        if let AgentState::Running(_) = *state {
            *state = AgentState::Idle;
        }
    }

    /// Registers this status by the task.
    async fn register_as(&self, agent: AgentHandle, status: InstanceStatus) -> Result<(), Error> {
        self.result_of(|done| async move { agent.normal.send(Command::Register { status, done }).await.is_ok() }).await
    }

    /// Sends a command and waits for its result. The handle in `send` is dropped before the wait,
    /// so that the task notices when all handles were dropped.
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

    /// Returns the channels to the task; `None` if registration is switched off.
    fn running_or_error(&self) -> Result<Option<AgentHandle>, Error> {
        let state = self.agent();
        match &*state {
            _ if self.shared.off.is_some() => Ok(None),
            AgentState::Running(_) if self.shared.lifecycle.is_draining() => {
                Err(draining("set status of", self.instance()))
            }
            AgentState::Running(agent) => Ok(Some(agent.handle.clone())),
            AgentState::Idle | AgentState::Deregistering(_) => Err(self.not_registered()),
        }
    }

    fn agent(&self) -> std::sync::MutexGuard<'_, AgentState> {
        self.shared.agent.lock()
    }

    fn not_registered(&self) -> Error {
        self.error(Kind::Closed, "set status of", "the instance is not registered").advice("call register() first")
    }

    fn timed_out(&self, operation: &'static str, within: Duration) -> Error {
        self.error(Kind::Timeout, operation, format!("not confirmed within {within:?}"))
            .advice("the lease expires if the registry stays unreachable")
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
