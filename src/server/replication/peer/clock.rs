//! Difference between the clock of a peer and this machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::model::Instance;
use crate::server::audit::{Lasting, Ongoing};
use crate::server::registry::map_published;
use crate::transport::ServerClock;

/// Difference between the clocks of two machines above which it is logged and corrected.
const SKEW_MS: i64 = 5_000;
/// Difference below which the fault is over.
const SKEW_OVER_MS: i64 = 4_000;

/// Clock of a peer.
#[derive(Debug)]
pub(in crate::server) struct PeerClock {
    clock: Arc<ServerClock>,
    /// The peer's clock differs from this machine's.
    is_skewed: AtomicBool,
    skew: Ongoing,
}

impl PeerClock {
    pub(super) fn new(clock: Arc<ServerClock>) -> Self {
        Self { clock, is_skewed: AtomicBool::new(false), skew: Ongoing::default() }
    }

    /// Logs when the clock departs from this machine's, and when they agree again.
    pub(super) fn watch(&self, peer: &str) {
        let Some(ahead_ms) = self.clock.ahead_ms() else { return };
        let was_skewed = self.is_skewed.load(Relaxed);
        let is_skewed = ahead_ms.abs() > if was_skewed { SKEW_OVER_MS } else { SKEW_MS };
        if is_skewed == was_skewed || self.is_skewed.swap(is_skewed, Relaxed) == is_skewed {
            return;
        }
        let ahead_secs = ahead_ms / 1000;
        // Nodes behind one URL may have different clocks, and respond in turn.
        if is_skewed {
            if let Some(Lasting { elapsed, .. }) = self.skew.occurred() {
                tracing::warn!(%peer, ahead_secs, ?elapsed, "clock of a peer differs from this machine's, converting its times");
            }
        } else if let Some(Lasting { elapsed, .. }) = self.skew.ended() {
            tracing::info!(%peer, ahead_secs, ?elapsed, "clock of a peer agrees with this machine's again");
        }
    }

    /// Returns the milliseconds by which the times of the peer are ahead of the times that this
    /// node publishes, or zero if the difference may come from the measurement. The wall clock of
    /// this machine is ahead of the published times by `wall_ahead_ms`.
    pub(in crate::server) fn ahead_ms(&self, wall_ahead_ms: i64) -> i64 {
        let is_skewed = self.is_skewed.load(Relaxed);
        let ahead = self.clock.ahead_ms().filter(|_| is_skewed);
        ahead.map_or(0, |ahead| ahead.saturating_add(wall_ahead_ms))
    }

    /// Converts the times of an instance from the peer's clock to this node's, so that states of
    /// nodes with different clocks can be compared.
    pub(in crate::server) fn in_local_time(&self, mut theirs: Instance, wall_ahead_ms: i64) -> Instance {
        let ahead = self.ahead_ms(wall_ahead_ms);
        if ahead != 0 {
            map_published(&mut theirs, |at| at.saturating_sub(ahead));
        }
        theirs
    }
}
