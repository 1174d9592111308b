//! Log lines of a registry that reached its limits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::listing::Listing;
use crate::server::audit::{Lasting, Ongoing};
use crate::server::outcome::Refused;

#[derive(Debug, Default)]
pub(super) struct State {
    full: Ongoing,
    /// The delta drops deletions before their retention time.
    delta: Ongoing,
    /// Number of dropped deletions when it was last logged.
    dropped: AtomicU64,
    /// Silent instances are evicted for new ones.
    reclaimed: Ongoing,
}

impl State {
    /// Logs that an instance was refused since the registry is full.
    pub(super) fn log_full(&self, refused: Refused, listing: &Listing) {
        if refused.is_full()
            && let Some(Lasting { count, elapsed }) = self.full.occurred()
        {
            let instances = listing.size();
            tracing::warn!(
                error = %refused, instances, refused = count, ?elapsed,
                "registry is full, new instances are refused (eureka.server.limits.instances, eureka.server.limits.applications, eureka.server.limits.registry-bytes)"
            );
        }
    }

    /// Logs that a silent instance was evicted for a new one.
    pub(super) fn log_reclaimed(&self, listing: &Listing) {
        if let Some(Lasting { count, elapsed }) = self.reclaimed.occurred() {
            let instances = listing.size();
            tracing::warn!(
                evicted = count,
                instances,
                ?elapsed,
                "registry or application is full, silent instances are evicted for new ones (eureka.server.limits.*)"
            );
        }
    }

    /// Logs that the registry has room again, and whether the delta drops deletions early. Must be
    /// called periodically.
    pub(super) fn log(&self, listing: &Listing) {
        let Self { full, delta, dropped, reclaimed } = self;
        if listing.has_room() {
            if let Some(Lasting { count, elapsed }) = full.ended() {
                tracing::info!(refused = count, ?elapsed, "registry has room again");
            }
            if let Some(Lasting { count, elapsed }) = reclaimed.ended() {
                tracing::info!(evicted = count, ?elapsed, "silent instances no longer evicted for new ones");
            }
        }
        let all = listing.dropped_deletions();
        let deletions = all - dropped.swap(all, Relaxed);
        if deletions > 0 {
            if let Some(Lasting { elapsed, .. }) = delta.occurred() {
                tracing::warn!(
                    deletions,
                    ?elapsed,
                    "delta drops deletions before their retention time, clients that miss one fetch the full registry (eureka.server.limits.registry-bytes)"
                );
            }
        } else if let Some(Lasting { elapsed, .. }) = delta.ended() {
            tracing::info!(?elapsed, "delta shows all deletions again");
        }
    }
}
