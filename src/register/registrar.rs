use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use super::address::Routes;
use super::agent::Action;
use super::drain::{self, Budget, DrainConfig};
use super::lifecycle::Lifecycle;
use super::monitor::Monitors;
use super::pages::Pages;
use super::paths::Paths;
use super::task::AgentState;
use super::{HealthReport, RegistrarEvents, RegistrarState, RegistrationLayer};
use crate::config::RegistrarConfig;
use crate::error::{Error, Kind};
use crate::metrics::ProviderMetrics;
use crate::model::Instance;
use crate::sync::Mutex;
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
/// removes it, or the program calls [`override_status`](Self::override_status),
/// [`remove_override`](Self::remove_override), or [`set_status`](Self::set_status) with
/// OUT_OF_SERVICE. It is seen within about one heartbeat interval, and reported by
/// [`state`](Self::state) and [`events`](Self::events).
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
    pub(super) transport: Transport,
    /// The record as it was registered last, or as it will be registered.
    pub(super) record: Arc<Mutex<Instance>>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) monitors: Mutex<Monitors>,
    pub(super) metrics: ProviderMetrics,
    pub(super) agent: Mutex<AgentState>,
    pub(super) routes: Routes,
    /// Setting that switches registration off.
    pub(super) off: Option<Cow<'static, str>>,
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
        let config = DrainConfig::default().with_settings(&settings);
        Self { shared: Arc::new(shared), config, settings, uncounted: Paths::default() }
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
    ///
    /// Create it before the registration, which includes the URLs of the pages. Those of a layer
    /// that is created later are registered once the instance is deregistered and registered again.
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

    /// Registers the instance as DOWN and waits until callers have stopped calling it. The server
    /// has to keep serving meanwhile.
    ///
    /// The wait ends after the [`quiet_time`](Self::quiet_time) without a new request, and at the
    /// latest after [`max_drain`](Self::max_drain) or when the
    /// [`shutdown_timeout`](Self::shutdown_timeout) requires it. Requests are only known with the
    /// [`layer`](Self::layer). Without it, the wait is the quiet time. With it, an instance that was
    /// never called and was never UP in the registry does not wait, since no caller knows it.
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
