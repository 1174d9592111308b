//! Log of a registry that reached its limits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Refused, Registry};
use crate::server::audit::{Lasting, Ongoing};

#[derive(Debug, Default)]
pub(super) struct State {
    full: Ongoing,
    /// The delta forgets who left before their time.
    short: Ongoing,
    /// Number of those who were forgotten when it was last logged.
    forgotten: AtomicU64,
    /// Silent instances give way to new ones.
    gave_way: Ongoing,
}

impl Registry {
    /// Logs that an instance has no room.
    pub(super) fn log_full(&self, refused: Refused) {
        if refused.is_full()
            && let Some(Lasting { count, elapsed }) = self.fullness.full.occurred()
        {
            let instances = self.size();
            tracing::warn!(
                error = %refused, instances, refused = count, ?elapsed,
                "registry is full, new instances are refused (eureka.server.limits.instances, eureka.server.limits.registry-bytes)"
            );
        }
    }

    /// Logs that a silent instance gave way to a new one.
    pub(super) fn log_gave_way(&self) {
        if let Some(Lasting { count, elapsed }) = self.fullness.gave_way.occurred() {
            let instances = self.size();
            tracing::warn!(
                ended = count,
                instances,
                ?elapsed,
                "registry is full, silent instances give way to new ones (eureka.server.limits.instances, eureka.server.limits.registry-bytes)"
            );
        }
    }

    /// Logs that there is room again, and that the delta is shorter than it should be. To be called
    /// every now and then.
    pub(super) fn log_room(&self) {
        let State { full, short, forgotten, gave_way } = &self.fullness;
        if self.log.has_room() {
            if let Some(Lasting { count, elapsed }) = full.ended() {
                tracing::info!(refused = count, ?elapsed, "registry has room again");
            }
            if let Some(Lasting { count, elapsed }) = gave_way.ended() {
                tracing::info!(ended = count, ?elapsed, "silent instances no longer give way");
            }
        }
        let all = self.log.forgotten();
        let deletions = all - forgotten.swap(all, Relaxed);
        if deletions > 0 {
            if let Some(Lasting { elapsed, .. }) = short.occurred() {
                tracing::warn!(
                    deletions,
                    ?elapsed,
                    "delta forgets instances that left before its time, clients that miss one fetch everything (eureka.server.limits.registry-bytes)"
                );
            }
        } else if let Some(Lasting { elapsed, .. }) = short.ended() {
            tracing::info!(?elapsed, "delta shows all instances that left again");
        }
    }
}
