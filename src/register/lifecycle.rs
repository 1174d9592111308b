use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::Instant;

use super::paths::Paths;
use super::state::{RegistrarState, StateCell};
use crate::model::Instance;
use crate::sync::Mutex;

/// Knowledge that the serving side and the registering side share.
#[derive(Debug)]
pub(super) struct Lifecycle {
    pub(super) state: StateCell,
    draining: AtomicBool,
    /// True once a layer exists, without which requests are not seen.
    layered: AtomicBool,
    /// True once a request that counts has come.
    served: AtomicBool,
    in_flight: AtomicUsize,
    /// The last request since the drain began. Not written before, when nobody reads it.
    last_request: Mutex<Option<Instant>>,
    /// The instance at the address that was found on the way to the registry.
    moved: OnceLock<Instance>,
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
            draining: AtomicBool::new(false),
            layered: AtomicBool::new(false),
            served: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            last_request: Mutex::default(),
            moved: OnceLock::new(),
        }
    }

    /// Notes the address at which the instance is registered. The first one stays.
    pub(super) fn set_moved(&self, instance: &Instance) {
        let _ = self.moved.set(instance.clone());
    }

    pub(super) fn moved(&self) -> Option<&Instance> {
        self.moved.get()
    }

    pub(super) fn set_layered(&self) {
        self.layered.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_layered(&self) -> bool {
        self.layered.load(Ordering::Relaxed)
    }

    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Counts a request to this path; [`finish`](Self::finish) takes it back. A path among the
    /// `uncounted` is no sign of a caller.
    pub(super) fn begin(&self, path: &str, uncounted: &Paths) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        // Looked up only while it matters: a server that has served and does not drain skips it.
        if self.has_served() && !self.is_draining() || uncounted.contain(path) {
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
