//! Cancellation of leases, and removal of old changes and tombstones.

use std::sync::Arc;

use super::history::End;
use super::state::Registry;
#[cfg(feature = "peers")]
use super::version::Version;
use crate::model::Instance;
use crate::server::outcome::Origin;

impl Registry {
    /// Cancels a lease. Returns its instance as it was, or `None` if there was no lease.
    pub(in crate::server) fn cancel_from(
        &self,
        app: &str,
        id: &str,
        origin: Origin,
        now: i64,
    ) -> Option<Arc<Instance>> {
        let mut leases = self.shards.write(app, id);
        let lease = leases.remove(app, id)?;
        let ended = self.at(now).published();
        self.publish_cancellation(&lease, id, ended, now);
        #[cfg(feature = "peers")]
        self.add_tombstone(Version::cancelled(lease.instance(), ended), &lease.instance().app, id, now);
        self.ended(&lease, id, End::Cancelled { replicated: origin == Origin::Replica }, now);
        Some(lease.record().instance.clone())
    }

    /// Cancels a lease for a client.
    #[cfg(test)]
    pub(in crate::server) fn cancel(&self, app: &str, id: &str, now: i64) -> Option<crate::model::InstanceStatus> {
        self.cancel_from(app, id, Origin::Client, now).map(|instance| instance.status)
    }

    /// Removes changes and tombstones that are older than their retention times.
    pub(in crate::server) fn prune_delta(&self, now: i64) {
        self.listing.prune(now.saturating_sub(self.settings.delta_retention_ms()));
        #[cfg(feature = "peers")]
        self.tombstones.prune(now.saturating_sub(self.settings.tombstone_retention_ms()));
        self.capacity.log(&self.listing);
        self.ahead.log_ended();
    }
}
