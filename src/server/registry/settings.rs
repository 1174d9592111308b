use std::sync::Arc;
use std::time::Duration;

use crate::time::milliseconds;

/// Settings of the registry. [`EurekaServerBuilder`](crate::server::EurekaServerBuilder) documents
/// each.
#[derive(Clone, Debug)]
pub(in crate::server) struct Settings {
    pub(in crate::server) lease_doubling: bool,
    pub(in crate::server) eviction_interval: Duration,
    pub(in crate::server) self_preservation: bool,
    pub(in crate::server) preservation_by_application: bool,
    pub(in crate::server) renewal_percent_threshold: f64,
    pub(in crate::server) expected_renewal_interval: Duration,
    pub(in crate::server) delta_retention: Duration,
    /// Instance id of this server.
    pub(in crate::server) own_id: Option<Arc<str>>,
    /// Compares the version in a heartbeat with the registered one.
    pub(in crate::server) compare_versions: bool,
    pub(in crate::server) metadata_limit: usize,
    pub(in crate::server) application_limit: usize,
    /// Maximum number of applications.
    pub(in crate::server) applications_limit: usize,
    /// Maximum numbers of instances and of applications of one identity.
    pub(in crate::server) identity_limits: [Option<usize>; 2],
    /// Records the owners of the leases, for the access control.
    pub(in crate::server) tracks_owners: bool,
    /// Maximum number of bytes of each name of an instance.
    pub(in crate::server) name_limit: usize,
    /// Maximum number of bytes of all texts of an instance.
    pub(in crate::server) instance_size_limit: usize,
    /// Maximum number of instances.
    pub(in crate::server) registry_limit: usize,
    /// Maximum weight of all instances, including those that only the delta shows.
    pub(in crate::server) registry_size_limit: usize,
    /// Maximum duration of a lease in seconds.
    pub(in crate::server) lease_limit_secs: i32,
    /// Retention time of tombstones. Zero if there are no peers.
    #[cfg(feature = "peers")]
    pub(in crate::server) tombstone_retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_doubling: true,
            eviction_interval: Duration::from_secs(60),
            self_preservation: true,
            preservation_by_application: false,
            renewal_percent_threshold: 0.85,
            expected_renewal_interval: Duration::from_secs(30),
            delta_retention: Duration::from_secs(180),
            own_id: None,
            compare_versions: true,
            metadata_limit: 64 * 1024,
            application_limit: 10_000,
            applications_limit: 100_000,
            identity_limits: [None; 2],
            tracks_owners: false,
            name_limit: 1024,
            instance_size_limit: 64 * 1024,
            registry_limit: 500_000,
            registry_size_limit: 256 * 1024 * 1024,
            lease_limit_secs: 24 * 3600,
            #[cfg(feature = "peers")]
            tombstone_retention: Duration::ZERO,
        }
    }
}

impl Settings {
    pub(in crate::server) fn delta_retention_ms(&self) -> i64 {
        milliseconds(self.delta_retention)
    }

    #[cfg(feature = "peers")]
    pub(super) fn tombstone_retention_ms(&self) -> i64 {
        milliseconds(self.tombstone_retention)
    }

    pub(super) fn eviction_interval_ms(&self) -> i64 {
        milliseconds(self.eviction_interval)
    }
}
