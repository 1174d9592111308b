/// How long an instance stays registered without a sign of life, and when the server saw what.
///
/// A client sets the first two members and leaves the timestamps 0; servers answer with their own timestamps. All timestamps
/// are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds between two heartbeats. Default 30.
    pub renewal_interval_secs: i32,
    /// Seconds after which a silent instance counts as gone. Default 90. (Java servers wait twice that after a heartbeat.)
    pub duration_secs: i32,
    /// The last registration.
    pub registration_timestamp: i64,
    /// The last renewal *plus the lease duration*, a fault of the Java server that became the protocol; the registration
    /// before the first renewal.
    pub last_renewal_timestamp: i64,
    /// The cancellation or eviction; 0 before.
    pub eviction_timestamp: i64,
    /// The first time the status was UP, kept over re-registrations; 0 if never.
    pub service_up_timestamp: i64,
}

impl LeaseInfo {
    /// Seconds between heartbeats where a client names none, or none above 0.
    pub const DEFAULT_RENEWAL_INTERVAL_SECS: i32 = 30;
    /// Seconds of a lease where a client names none, or none above 0.
    pub const DEFAULT_DURATION_SECS: i32 = 90;
}

impl Default for LeaseInfo {
    fn default() -> Self {
        Self {
            renewal_interval_secs: Self::DEFAULT_RENEWAL_INTERVAL_SECS,
            duration_secs: Self::DEFAULT_DURATION_SECS,
            registration_timestamp: 0,
            last_renewal_timestamp: 0,
            eviction_timestamp: 0,
            service_up_timestamp: 0,
        }
    }
}
