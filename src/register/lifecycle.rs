use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::events::Events;
use super::health::{HealthReport, HealthStatus, RegistryHealth};
use super::pages::PublishedPages;
use super::paths::Paths;
use super::state::{RegistrarState, StateCell};
use super::stopping::Stopping;
use super::vitals::Vitals;
use crate::sync::Mutex;
use crate::time::Moment;

/// State that the server's layer and the registrar share.
#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) state: StateCell,
    pub(super) pages: PublishedPages,
    pub(super) stopping: Stopping,
    draining: AtomicBool,
    /// True once a layer exists. Without one, requests are not counted.
    layered: AtomicBool,
    /// True once a request was received that counts as a call.
    served: AtomicBool,
    /// True once the registry had the instance as UP, so that callers may know it.
    listed: AtomicBool,
    in_flight: AtomicUsize,
    /// Time of the last call. Written only during the drain, since nothing else reads it.
    last_request: Mutex<Option<Instant>>,
    /// Readiness and health checks.
    pub(super) vitals: Vitals,
    /// Time of the last registration or renewal of the present lease.
    renewed: Mutex<Option<Moment>>,
    /// True if the last heartbeat or registration failed.
    unreachable: AtomicBool,
    pub(super) events: Events,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new(RegistrarState::NotRegistered)
    }
}

impl Lifecycle {
    pub(super) fn new(state: RegistrarState) -> Self {
        Self {
            state: StateCell::new(state),
            pages: PublishedPages::default(),
            stopping: Stopping::default(),
            draining: AtomicBool::new(false),
            layered: AtomicBool::new(false),
            served: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            last_request: Mutex::default(),
            vitals: Vitals::default(),
            renewed: Mutex::default(),
            unreachable: AtomicBool::new(false),
            events: Events::default(),
        }
    }

    /// Records that the lease was registered or renewed, or that it has ended.
    pub(super) fn set_renewed(&self, renewed: bool) {
        *self.renewed.lock() = renewed.then(Moment::now);
    }

    /// Returns the time since the lease was last registered or renewed.
    pub(super) fn lease_age(&self) -> Option<Duration> {
        self.renewed.lock().as_ref().map(Moment::elapsed)
    }

    pub(super) fn set_unreachable(&self, unreachable: bool) {
        self.unreachable.store(unreachable, Ordering::Relaxed);
    }

    /// Returns `true` if there is a lease and its last renewal succeeded.
    pub(super) fn is_renewing(&self) -> bool {
        self.renewed.lock().is_some() && !self.unreachable.load(Ordering::Relaxed)
    }

    /// Returns the state of the health checks, the readiness, the drain and the registry.
    pub(super) fn health_report(&self) -> HealthReport {
        let lease_age = self.lease_age();
        let status = match self.state.get() {
            RegistrarState::Disabled | RegistrarState::Deregistered => HealthStatus::Unknown,
            _ if self.unreachable.load(Ordering::Relaxed) => HealthStatus::Down,
            _ if lease_age.is_some() => HealthStatus::Up,
            _ => HealthStatus::Unknown,
        };
        self.vitals.report(self.is_draining(), RegistryHealth { status, lease_age })
    }

    /// Records that a layer exists. Returns `true` for the first one.
    pub(super) fn set_layered(&self) -> bool {
        !self.layered.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_layered(&self) -> bool {
        self.layered.load(Ordering::Relaxed)
    }

    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Returns `true` if callers may know the instance: it was called, or was UP in the registry.
    pub(super) fn may_be_called(&self) -> bool {
        self.has_served() || self.listed.load(Ordering::Relaxed)
    }

    pub(super) fn set_listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Counts a request in flight until [`finish`](Self::finish). It also counts as a call, unless
    /// its path is in `uncounted`.
    pub(super) fn begin(&self, path: &str, uncounted: &Paths) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        // The paths are compared only while the result matters.
        if self.has_served() && !self.is_draining() || uncounted.contains(path) {
            return;
        }
        self.served.store(true, Ordering::Relaxed);
        if self.is_draining() {
            *self.last_request.lock() = Some(Instant::now());
        }
    }

    pub(super) fn finish(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn last_request(&self) -> Option<Instant> {
        *self.last_request.lock()
    }
}
