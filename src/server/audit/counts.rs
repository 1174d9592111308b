//! Counters of changes since the start, which the metrics show.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::server::outcome::{Origin, Refused};

/// Kind of a change that clients and peers make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Change {
    Registration,
    Cancellation,
    Override,
    Metadata,
}

/// Numbers of changes since the start.
#[derive(Debug, Default)]
pub(in crate::server) struct Counts {
    /// By kind and origin.
    changes: [[AtomicU64; 2]; 4],
    expired: AtomicU64,
    reclaimed: AtomicU64,
    /// By position in [`Refused::REASONS`].
    refused: [AtomicU64; Refused::REASONS.len()],
}

impl Counts {
    pub(super) fn add(&self, change: Change, origin: Origin) {
        self.changes[change as usize][origin as usize].fetch_add(1, Relaxed);
    }

    /// Counts the eviction of an expired lease.
    pub(in crate::server) fn add_expired(&self) {
        self.expired.fetch_add(1, Relaxed);
    }

    /// Counts the eviction of a silent instance for a new one.
    pub(in crate::server) fn add_reclaimed(&self) {
        self.reclaimed.fetch_add(1, Relaxed);
    }

    /// Counts an instance that the registry refused.
    pub(in crate::server) fn add_refused(&self, refused: Refused) {
        self.refused[refused.position()].fetch_add(1, Relaxed);
    }
}

#[cfg(feature = "prometheus")]
impl Counts {
    pub(in crate::server) fn changes(&self, change: Change, origin: Origin) -> u64 {
        self.changes[change as usize][origin as usize].load(Relaxed)
    }

    pub(in crate::server) fn expired(&self) -> u64 {
        self.expired.load(Relaxed)
    }

    pub(in crate::server) fn reclaimed(&self) -> u64 {
        self.reclaimed.load(Relaxed)
    }

    /// Returns the number of refused instances by reason.
    pub(in crate::server) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refused::REASONS.into_iter().zip(&self.refused).map(|(reason, count)| (reason, count.load(Relaxed)))
    }
}
