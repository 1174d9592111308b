//! Counters of the batches that were sent to a peer, and the state of the replication to it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(feature = "prometheus")]
use std::time::Duration;

/// End of one batch, as the metrics show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchEnd {
    /// The peer applied it.
    Applied,
    /// The peer refused it for good.
    Refused,
    /// The peer is overloaded or did not respond in time. The batch is sent again.
    Congested,
    /// The peer was not reached. The batch is sent again.
    Failed,
}

/// Number of batches by their end, since the start.
#[derive(Debug, Default)]
pub(super) struct BatchCounts([AtomicU64; 4]);

impl BatchCounts {
    pub(super) fn add(&self, end: BatchEnd) {
        self.0[end as usize].fetch_add(1, Relaxed);
    }

    /// Returns the numbers with the names of the ends.
    #[cfg(feature = "prometheus")]
    pub(super) fn all(&self) -> [(&'static str, u64); 4] {
        let names = ["applied", "refused", "congested", "failed"];
        std::array::from_fn(|end| (names[end], self.0[end].load(Relaxed)))
    }
}

/// State of the replication to a peer, as the metrics show it.
#[cfg(feature = "prometheus")]
#[derive(Debug)]
pub(in crate::server) struct PeerState {
    pub(in crate::server) is_available: bool,
    /// Number of changes that wait or are in flight.
    pub(in crate::server) backlog: usize,
    /// Time since the oldest waiting change was queued.
    pub(in crate::server) lag: Duration,
    /// Number of batches by their end.
    pub(in crate::server) batches: [(&'static str, u64); 4],
    /// Number of changes and heartbeats that were not sent, by reason.
    pub(in crate::server) dropped: [(&'static str, u64); 3],
}
