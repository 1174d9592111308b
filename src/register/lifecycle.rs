use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// What the serving side and the registering side know of each other.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    draining: AtomicBool,
    /// Whether a layer exists, without which requests are not seen.
    layered: AtomicBool,
    /// Whether any request has come.
    served: AtomicBool,
    in_flight: AtomicUsize,
    /// The last request since the drain began. Written only then: before, nobody asks.
    last_request: Mutex<Option<Instant>>,
}

impl Lifecycle {
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

    /// Counts a request that came; [`finish`](Self::finish) takes it back.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        if !self.has_served() {
            self.served.store(true, Ordering::Relaxed);
        }
        if self.is_draining() {
            *self.last_request.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    pub(super) fn finish(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn last_request(&self) -> Option<Instant> {
        *self.last_request.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
