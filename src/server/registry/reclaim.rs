//! Eviction of silent instances for new ones in a full registry, also under self-preservation.
//!
//! Otherwise a few registrations with long leases that are never renewed would exclude all others.

use super::history::End;
use super::limits;
use super::state::Registry;
use crate::model::Instance;
use crate::server::audit;

impl Registry {
    /// Evicts as many silent leases as are necessary to register a new instance, or none if they do
    /// not suffice. Must be called without a lock on a shard.
    pub(super) fn reclaim(&self, incoming: &Instance, now: i64) {
        let Some(shortage) = self.listing.shortage(incoming) else { return };
        if limits::check(incoming, &self.settings).is_err() {
            return;
        }
        let mut silent = self.silent.lock();
        for (app, id) in silent.take(&self.shards, &self.listing, &shortage, now) {
            let mut leases = self.shards.write(&app, &id);
            if leases.get(&app, &id).is_none_or(|lease| lease.reclaim_order(now).is_none()) {
                continue;
            }
            let Some(lease) = leases.remove(&app, &id) else { continue };
            self.publish_eviction(&lease, &id, now);
            self.ended(&lease, &id, End::Evicted, now);
            drop(leases);
            audit::evicted_silent(&app, &id, lease.status());
            self.changes().counts().add_reclaimed();
            self.capacity.log_reclaimed(&self.listing);
        }
    }
}
