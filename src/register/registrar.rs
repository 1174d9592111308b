use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::address::Routes;
use super::agent::{Action, Agent, AgentHandle, AgentParts, AgentTask, Change, Command, ShutdownCommand, draining};
use super::drain::{self, Budget, DrainConfig};
use super::lifecycle::Lifecycle;
use super::monitor::Monitors;
use super::pages::Pages;
use super::paths::Paths;
use super::vitals::StatusRules;
use super::{HealthReport, RegistrarEvents, RegistrarState, RegistrationLayer};
use crate::config::RegistrarConfig;
use crate::error::{Error, Kind};
use crate::metrics::ProviderMetrics;
use crate::model::{Instance, InstanceStatus};
use crate::sync::{Mutex, MutexGuard};
use crate::transport::Transport;

/// Handle that registers one instance and keeps it registered. Created by
/// [`Eureka::registrar`](crate::Eureka::registrar).
///
/// Most servers use [`serve`](Self::serve), which runs the server and all steps in order. If the
/// server is run in another way, call [`register`](Self::register) and
/// [`deregister`](Self::deregister), and [`drain`](Self::drain) between them.
///
/// Clones are cheap and share one registration, its health checks and its readiness, but each has
/// its own settings. When the last clone is dropped, an instance that is still registered is
/// deregistered in the background, as far as the runtime still runs.
///
/// A process may have several instances, for example of two applications. Create a registrar for
/// each from one [`Eureka`](crate::Eureka): they share its connections and its preferred registry
/// server.
///
/// # Status
///
/// The own status is the worst of the status that the program has [set](Self::set_status) and of
/// the [health checks](Self::health). Before the [readiness future](Self::ready_when) and the first
/// health checks have succeeded, it is at best STARTING. OUT_OF_SERVICE is never registered, since
/// servers ignore it: it is set as an override, and removed when it no longer applies.
///
/// An operator's override is kept: it has precedence over the health checks until the operator
/// removes it, and calls of the program replace it. It is seen within about one heartbeat interval,
/// and reported by [`state`](Self::state) and [`events`](Self::events).
///
/// # Changes
///
/// Changes of status, metadata, address and lease are registered at once and together: two without
/// a pause, then one per 15 seconds (see [`update_interval`](Self::update_interval)). A later change
/// is sent with the next registration, so the last one is never lost.
#[derive(Clone)]
pub struct Registrar {
    pub(super) shared: Arc<Shared>,
    pub(super) config: DrainConfig,
    pub(super) settings: RegistrarConfig,
    pub(super) uncounted: Paths,
}

pub(super) struct Shared {
    transport: Transport,
    /// The record as it was registered last, or as it will be registered.
    record: Arc<Mutex<Instance>>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) monitors: Mutex<Monitors>,
    pub(super) metrics: ProviderMetrics,
    agent: Mutex<AgentState>,
    routes: Routes,
    /// Setting that switches registration off.
    pub(super) off: Option<Cow<'static, str>>,
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
    pub(crate) fn new(
        transport: Transport,
        instance: Instance,
        off: Option<Cow<'static, str>>,
        settings: RegistrarConfig,
    ) -> Self {
        let state = if off.is_some() { RegistrarState::Disabled } else { RegistrarState::NotRegistered };
        let lifecycle = Arc::new(Lifecycle::new(state));
        let shared = Shared {
            transport,
            metrics: ProviderMetrics::new(instance.app(), instance.id()),
            record: Arc::new(Mutex::new(instance)),
            lifecycle,
            monitors: Mutex::default(),
            agent: Mutex::default(),
            routes: Routes::default(),
            off,
        };
        Self { shared: Arc::new(shared), config: DrainConfig::default(), settings, uncounted: Paths::default() }
    }

    /// Replaces the routes of the machine.
    #[cfg(test)]
    pub(super) fn with_routes(mut self, routes: Routes) -> Self {
        Arc::get_mut(&mut self.shared).expect("registrar is not cloned yet").routes = routes;
        self
    }

    /// Returns the instance as it was registered last, or as it will be registered. From the first
    /// successful registration on it has the address that was detected for it.
    pub fn instance(&self) -> Instance {
        self.shared.record.lock().clone()
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

    /// Returns the events of the registration from now on, as a stream.
    ///
    /// A receiver that is more than 64 events behind loses the oldest ones, and is informed by
    /// [`RegistrarEvent::Missed`](super::RegistrarEvent::Missed).
    pub fn events(&self) -> RegistrarEvents {
        self.shared.lifecycle.events.subscribe()
    }

    /// Waits until a registry server has accepted the instance, in any status. Returns at once if
    /// it is registered already, or if registration is switched off.
    ///
    /// Waits without a limit while the registry is unreachable. The future does not keep the
    /// registration alive.
    ///
    /// # Errors
    /// If the instance is draining or was deregistered.
    pub fn registered(&self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (mut state, instance) = (self.state(), self.instance());
        async move {
            let settled = state.wait_for(|state| *state != RegistrarState::NotRegistered).await.map(|state| *state);
            match settled {
                Ok(state) if state.is_registered() => Ok(()),
                Ok(RegistrarState::HeartbeatFailing | RegistrarState::Disabled) => Ok(()),
                _ => Err(Error::new(Kind::Closed, "register")
                    .app(instance.app())
                    .instance(instance.id())
                    .cause("the instance is draining or was deregistered")),
            }
        }
    }

    /// Returns the state of the health checks, the readiness, the drain and the registry.
    pub fn health_report(&self) -> HealthReport {
        self.shared.lifecycle.health_report()
    }

    /// Returns a receiver that learns of each change of the readiness and the health checks.
    #[cfg(feature = "tonic-server")]
    pub(crate) fn health_changes(&self) -> watch::Receiver<()> {
        self.shared.lifecycle.vitals.subscribe()
    }

    /// Creates the layer that counts the server's requests for the drain, and serves the health and
    /// info pages. Make it the outermost layer of the server.
    pub fn layer(&self) -> RegistrationLayer {
        let instance = self.instance();
        let uncounted = self.uncounted.with_health_checks(&instance);
        RegistrationLayer::new(self.shared.lifecycle.clone(), uncounted, Pages::of(&instance))
    }

    /// Registers the instance, and renews its lease from then on. Does nothing if it is registered.
    ///
    /// Its status is UP, unless [`initial_status`](Self::initial_status), a
    /// [readiness future](Self::ready_when) or a [health check](Self::health) gives another one.
    ///
    /// Returns once the registration has succeeded or failed. Its time is limited by the connect
    /// and read timeouts of the client, for each server that is tried.
    ///
    /// # Errors
    /// If the registration fails. It is nevertheless repeated in the background, until it succeeds
    /// or [`deregister`](Self::deregister) is called. Also if the instance is
    /// [draining](Self::drain).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped, the registration continues in the background.
    pub async fn register(&self) -> Result<(), Error> {
        match self.start()? {
            Some(agent) => self.execute(agent, Action::Register).await,
            None => Ok(()),
        }
    }

    pub(super) async fn change_override(&self, status: Option<InstanceStatus>) -> Result<(), Error> {
        match self.running_or_error()? {
            Some(agent) => self.execute(agent, Action::Override(status)).await,
            None => Ok(()),
        }
    }

    /// Changes the record, in the registry as well if the instance is registered.
    pub(super) async fn change(&self, change: Change) -> Result<(), Error> {
        let agent = {
            let state = self.agent();
            match &*state {
                AgentState::Running(_) if self.shared.lifecycle.is_draining() => {
                    return Err(draining("change", &self.instance()));
                }
                AgentState::Running(agent) if !agent.task.is_finished() => agent.handle.clone(),
                _ => {
                    change.apply(&mut self.shared.record.lock());
                    return Ok(());
                }
            }
        };
        self.execute(agent, Action::Change(change)).await
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
        // A closed channel means that the DELETE of another clone has succeeded, or that the task's
        // runtime has ended.
        let deregister = async {
            if handle.shutdown.send(ShutdownCommand::Deregister { within, done }).await.is_ok()
                && let Ok(result) = result.await
            {
                return result;
            }
            if self.shared.lifecycle.state.get() == RegistrarState::Deregistered {
                return Ok(());
            }
            let cause = "the runtime on which it was registered has ended";
            Err(self.error(Kind::Closed, "deregister", cause).advice("the lease expires"))
        };
        // The task has its own time limit, but it may still be busy with the DELETE of another
        // clone.
        timeout(within.saturating_add(TIMEOUT_MARGIN), deregister)
            .await
            .unwrap_or_else(|_| Err(self.timed_out("deregister", within)))
    }

    /// Ends the heartbeats without a DELETE.
    pub(super) async fn leave(&self) {
        let Some(handle) = self.agent().handle() else { return };
        let (done, left) = oneshot::channel();
        if handle.shutdown.send(ShutdownCommand::Leave { done }).await.is_ok() {
            let _ = left.await;
        }
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

    /// Starts the health checks and the task that keeps the registration, if they do not run.
    /// Returns `None` if registration is switched off, and an error if the instance is draining.
    pub(super) fn start(&self) -> Result<Option<AgentHandle>, Error> {
        let Shared { transport, record, lifecycle, monitors, routes, off, .. } = &*self.shared;
        let instance = self.instance();
        monitors.lock().start(lifecycle, &instance);
        if let Some(setting) = off {
            let (app, instance) = (instance.app(), instance.id());
            tracing::info!(app, instance, "registration is switched off by {setting}");
            // An earlier server may have been drained.
            lifecycle.set_draining(false);
            lifecycle.stopping.reset();
            return Ok(None);
        }
        let mut state = self.agent();
        let previous = match std::mem::take(&mut *state) {
            AgentState::Running(agent) if !agent.task.is_finished() => {
                let handle = agent.handle.clone();
                *state = AgentState::Running(agent);
                return if lifecycle.is_draining() { Err(draining("register", &instance)) } else { Ok(Some(handle)) };
            }
            AgentState::Running(agent) | AgentState::Deregistering(agent) => Some(agent.task),
            AgentState::Idle => None,
        };
        lifecycle.set_draining(false);
        lifecycle.stopping.reset();
        lifecycle.state.set(RegistrarState::NotRegistered);
        let settings = &self.settings;
        if settings.expects_health && !lifecycle.vitals.has_checks() {
            tracing::info!("eureka.client.healthcheck.enabled has no effect without a check, see Registrar::health");
        }
        let parts = AgentParts {
            transport: transport.clone(),
            published: record.clone(),
            lifecycle: lifecycle.clone(),
            routes: routes.clone(),
            rules: StatusRules {
                initial: settings.initial_status,
                enabled_on_start: settings.enabled_on_start,
                maps_health: settings.health_sets_status,
                manual: None,
            },
            update_interval: settings.update_interval,
            cancel_timeout: settings.unregister_on_shutdown.then_some(self.config.registry_timeout),
        };
        let agent = Agent::spawn(parts, previous);
        let handle = agent.handle.clone();
        *state = AgentState::Running(agent);
        Ok(Some(handle))
    }

    /// Starts the health checks and the readiness that were added to a registration that runs.
    pub(super) fn start_added_monitors(&self) {
        let is_running = matches!(&*self.agent(), AgentState::Running(agent) if !agent.task.is_finished());
        if is_running {
            self.shared.monitors.lock().start(&self.shared.lifecycle, &self.instance());
        }
    }

    /// Drops the handle of the task, which then deregisters the instance by itself.
    pub(super) fn release(&self) {
        let mut state = self.agent();
        if let AgentState::Running(_) = *state {
            *state = AgentState::Idle;
        }
    }

    /// Sends a command to the task and waits for its result.
    pub(super) async fn execute(&self, agent: AgentHandle, action: Action) -> Result<(), Error> {
        self.result_of(|done| async move { agent.normal.send(Command { action, done }).await.is_ok() }).await
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
    pub(super) fn running_or_error(&self) -> Result<Option<AgentHandle>, Error> {
        let state = self.agent();
        match &*state {
            _ if self.shared.off.is_some() => Ok(None),
            AgentState::Running(_) if self.shared.lifecycle.is_draining() => {
                Err(draining("set status of", &self.instance()))
            }
            AgentState::Running(agent) => Ok(Some(agent.handle.clone())),
            AgentState::Idle | AgentState::Deregistering(_) => Err(self.not_registered()),
        }
    }

    fn agent(&self) -> MutexGuard<'_, AgentState> {
        self.shared.agent.lock()
    }

    fn not_registered(&self) -> Error {
        self.error(Kind::Closed, "set status of", "the instance is not registered").advice("call register() first")
    }

    fn timed_out(&self, operation: &'static str, within: Duration) -> Error {
        self.error(Kind::Timeout, operation, format!("not confirmed within {within:?}"))
            .advice("the lease expires if the registry stays unreachable")
    }

    pub(super) fn error(&self, kind: Kind, operation: &'static str, cause: impl Into<String>) -> Error {
        let instance = self.instance();
        Error::new(kind, operation).app(instance.app.clone()).instance(instance.id()).cause(cause)
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = self.instance();
        f.debug_struct("Registrar")
            .field("app", &instance.app)
            .field("instance", &instance.id())
            .field("state", &self.shared.lifecycle.state.get())
            .finish()
    }
}
