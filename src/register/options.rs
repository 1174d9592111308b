use std::fmt;
use std::time::Duration;

use tower::Service;

use super::Registrar;
use super::drain::ShutdownPreset;
use super::health::IntoHealth;
use super::monitor::Check;
use super::paths::Paths;
use super::vitals::Readiness;
use crate::model::InstanceStatus;

/// Settings of the status.
impl Registrar {
    /// Sets the own status until the instance is ready: until the
    /// [readiness future](Self::ready_when) and the first [health checks](Self::health) have
    /// succeeded. Without any of them, it is the status until [`set_status`](Self::set_status).
    ///
    /// Defaults to UP, or to STARTING if there is a readiness future or a health check. With one of
    /// them, UP counts as STARTING, unless
    /// [`enabled_on_start`](Self::enabled_on_start) is set. OUT_OF_SERVICE is set as an override.
    /// UNKNOWN counts as STARTING, since a registry does not accept it.
    #[must_use]
    pub fn initial_status(mut self, status: InstanceStatus) -> Self {
        self.settings.initial_status = Some(status);
        self
    }

    /// Sets whether the instance is UP before its readiness future and its health checks have
    /// succeeded. Defaults to `false`.
    #[must_use]
    pub fn enabled_on_start(mut self, enabled: bool) -> Self {
        self.settings.enabled_on_start = enabled;
        self
    }

    /// Registers the instance as STARTING until this future completes, and as UP from then on.
    ///
    /// The future starts with the registration, or at once if that has begun, and runs in a task of
    /// its own. If its output is not
    /// UP, or if it panics, the instance stays STARTING and the reason is logged. It runs once: an
    /// instance that is registered again is ready already.
    ///
    /// Applies to all clones.
    #[must_use]
    pub fn ready_when<F>(self, ready: F) -> Self
    where
        F: Future<Output: IntoHealth> + Send + 'static,
    {
        let ready = Box::pin(async move { ready.await.into_health() });
        self.shared.monitors.lock().set_ready(ready);
        self.shared.lifecycle.vitals.set_readiness(Readiness::Pending);
        self.start_added();
        self
    }

    /// Adds a health check, which runs at this interval and decides about the own status: UP, DOWN
    /// or OUT_OF_SERVICE. The worst of several checks counts.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn ping() -> Result<(), std::io::Error> { Ok(()) }
    /// # fn example(registrar: tower_eureka::register::Registrar) {
    /// let registrar = registrar.health(Duration::from_secs(10), || async { ping().await });
    /// # }
    /// ```
    ///
    /// A check that fails, panics or takes longer than the [`health_timeout`](Self::health_timeout)
    /// is DOWN. Results are damped, so that one of them changes nothing, except for the first one
    /// that is UP:
    ///
    /// - A status other than UP needs two equal results in a row. The second check follows after at
    ///   most a second.
    /// - UP needs two results in a row, and twice as many as before, at most eight, after each
    ///   failure within five minutes of a recovery.
    ///
    /// Checks start with the registration, or at once if that has begun. Each run is a task of its
    /// own, and the next one begins after the one before has ended. During the drain the results
    /// change nothing: the instance stays DOWN.
    ///
    /// Applies to all clones. The check is named `check`, the second one `check2`; see
    /// [`named_health`](Self::named_health).
    #[must_use]
    pub fn health<F, O>(self, interval: Duration, check: F) -> Self
    where
        F: FnMut() -> O + Send + 'static,
        O: Future<Output: IntoHealth> + Send + 'static,
    {
        self.add_check(None, |number| Check::new(number, interval, check))
    }

    /// Adds a health check as [`health`](Self::health) does, with a name for the health page.
    #[must_use]
    pub fn named_health<F, O>(self, name: &str, interval: Duration, check: F) -> Self
    where
        F: FnMut() -> O + Send + 'static,
        O: Future<Output: IntoHealth> + Send + 'static,
    {
        self.add_check(Some(name), |number| Check::new(number, interval, check))
    }

    /// Adds a health check as [`health`](Self::health) does, which calls a service. An error of the
    /// service is DOWN. The time that it takes to become ready counts.
    #[must_use]
    pub fn health_service<S>(self, interval: Duration, service: S) -> Self
    where
        S: Service<(), Response: IntoHealth, Error: fmt::Display, Future: Send> + Send + 'static,
    {
        self.add_check(None, |number| Check::of_service(number, interval, service))
    }

    fn add_check(self, name: Option<&str>, check: impl FnOnce(usize) -> Check) -> Self {
        let number = self.shared.lifecycle.vitals.add_component(name.map(Into::into));
        self.shared.monitors.lock().add(check(number));
        self.start_added();
        self
    }

    /// Starts what was added after the registration.
    fn start_added(&self) {
        let instance = self.instance();
        self.shared.monitors.lock().start_added(&self.shared.lifecycle, &instance);
    }

    /// Sets the time limit of each health check. Defaults to 5 seconds.
    ///
    /// Applies to all checks that start afterwards, and to all clones.
    #[must_use]
    pub fn health_timeout(self, timeout: Duration) -> Self {
        self.shared.monitors.lock().set_timeout(timeout);
        self
    }

    /// Sets whether health checks decide about the own status. Defaults to `true`.
    ///
    /// If not, their results only appear in the [`health_report`](Self::health_report). A check that
    /// fails then still makes the health pages of the [`layer`](Self::layer) 503, and the gRPC health
    /// service `NOT_SERVING`.
    #[must_use]
    pub fn health_sets_status(mut self, sets_status: bool) -> Self {
        self.settings.health_sets_status = sets_status;
        self
    }

    /// Sets the time on which the limit of registrations by changes is based, as Java's
    /// instance-info replication interval. Defaults to 30 seconds.
    ///
    /// Two changes are registered without a pause, and `120 s / interval` per minute after that, as
    /// a whole number: four for 30 seconds. More than 120 seconds switch the limit off.
    #[must_use]
    pub fn update_interval(mut self, interval: Duration) -> Self {
        self.settings.update_interval = interval;
        self
    }

    /// Sets whether the first registration has to succeed. Defaults to `false`.
    ///
    /// If it fails, [`try_serve`](Self::try_serve) returns its error and [`serve`](Self::serve)
    /// panics, instead of serving without a registration. Its time is limited by the connect and
    /// read timeouts of the client, for each server that is tried.
    #[must_use]
    pub fn enforce_registration(mut self, enforce: bool) -> Self {
        self.settings.enforce_registration = enforce;
        self
    }

    /// Sets whether the registration is deleted at the end of [`serve`](Self::serve) and when the
    /// last clone is dropped. Defaults to `true`.
    ///
    /// If not, the instance becomes DOWN when [`serve`](Self::serve) ends, and its lease expires. When
    /// the last clone is dropped before, its record stays as it is until the lease expires.
    /// [`deregister`](Self::deregister) always deletes it.
    #[must_use]
    pub fn unregister_on_shutdown(mut self, unregister: bool) -> Self {
        self.settings.unregister_on_shutdown = unregister;
        self
    }
}

/// Settings of the shutdown.
impl Registrar {
    /// Sets all time limits of the shutdown, also those of the settings. Later calls of their
    /// methods change single ones. Defaults to [`Adaptive`](ShutdownPreset::Adaptive).
    #[must_use]
    pub fn shutdown_preset(mut self, preset: ShutdownPreset) -> Self {
        self.config = self.config.with_preset(preset);
        self
    }

    /// Sets the time after which the orchestrator kills the process, such as
    /// `terminationGracePeriodSeconds` of Kubernetes. [`serve`](Self::serve) logs a warning if the
    /// [`shutdown_timeout`](Self::shutdown_timeout) is not shorter. Unknown by default.
    #[must_use]
    pub fn termination_grace(mut self, time: Duration) -> Self {
        self.config.termination_grace = Some(time);
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
    /// The [`shutdown_timeout`](Self::shutdown_timeout) may leave less. Spring's
    /// `spring.lifecycle.timeout-per-shutdown-phase` sets this time, and makes the
    /// `shutdown_timeout` at least 5 seconds longer. With `server.shutdown: immediate` it is zero.
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
}
