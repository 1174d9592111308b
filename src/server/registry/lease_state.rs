//! State of a lease as operators see it.

use std::sync::Arc;

use super::state::Registry;
use super::thresholds::eviction_limit;
use crate::model::Instance;
use crate::server::outcome::Registrant;

/// State of a lease. All times are those of the clock of the leases.
#[derive(Clone, Debug)]
pub(in crate::server) struct LeaseState {
    pub(in crate::server) instance: Arc<Instance>,
    /// Time of the registration, or of the copy.
    pub(in crate::server) registered_at: i64,
    /// The lease was copied from a peer, and the instance has not registered here since.
    pub(in crate::server) is_copy: bool,
    /// Time of the last heartbeat or registration.
    pub(in crate::server) renewed_at: i64,
    pub(in crate::server) expires_at: i64,
    pub(in crate::server) duration_ms: i64,
    pub(in crate::server) registrant: Registrant,
    /// Expired leases of the application are kept by self-preservation.
    pub(in crate::server) is_preserved: bool,
}

impl LeaseState {
    /// Returns true if a heartbeat was received since the registration.
    pub(in crate::server) fn is_renewed(&self) -> bool {
        self.renewed_at > self.registered_at
    }
}

impl Registry {
    /// Returns the state of a lease, expired or not. It is read without an effect on the lease.
    pub(in crate::server) fn lease_state(&self, app: &str, id: &str) -> Option<LeaseState> {
        let is_preserved = self.is_preserved(app);
        let leases = self.shards.shard(app, id).read();
        let lease = leases.get(app, id)?;
        Some(LeaseState {
            instance: lease.record().instance.clone(),
            registered_at: lease.registered_at(),
            is_copy: lease.is_copy(),
            renewed_at: lease.renewed_at(),
            expires_at: lease.expires_at(),
            duration_ms: lease.duration_ms(),
            registrant: lease.registrant().clone(),
            is_preserved,
        })
    }

    /// Returns true if expired leases of an application are kept.
    pub(in crate::server) fn is_preserved(&self, app: &str) -> bool {
        !self.is_expiration_enabled(app)
    }

    /// Returns the maximum number of leases that one eviction run may evict at the present size.
    pub(in crate::server) fn eviction_limit(&self) -> usize {
        eviction_limit(self.listing.size(), self.settings.renewal_percent_threshold)
    }

    /// Returns the settings of the registry.
    pub(in crate::server) fn settings(&self) -> &super::Settings {
        &self.settings
    }
}
