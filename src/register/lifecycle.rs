use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::Instant;

use super::pages::PublishedPages;
use super::paths::Paths;
use super::state::{RegistrarState, StateCell};
use super::stopping::Stopping;
use crate::model::Instance;
use crate::sync::Mutex;

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
    in_flight: AtomicUsize,
    /// Time of the last call. Written only during the drain, since nothing else reads it.
    last_request: Mutex<Option<Instant>>,
    /// The instance with the address that was detected and registered.
    registered_instance: OnceLock<Instance>,
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
            in_flight: AtomicUsize::new(0),
            last_request: Mutex::default(),
            registered_instance: OnceLock::new(),
        }
    }

    /// Stores the instance with its detected address. Only the first call has an effect.
    pub(super) fn set_registered_instance(&self, instance: &Instance) {
        let _ = self.registered_instance.set(instance.clone());
    }

    pub(super) fn registered_instance(&self) -> Option<&Instance> {
        self.registered_instance.get()
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
