/// Lease of an instance: its intervals, which the client sets, and timestamps, which the server
/// sets.
///
/// A client sends the timestamps as 0. All timestamps are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds between two heartbeats. Defaults to 30.
    pub renewal_interval_secs: i32,
    /// Seconds without a heartbeat until the lease ends. Defaults to 90. Java servers wait twice as
    /// long after a heartbeat.
    pub duration_secs: i32,
    /// Time of the last registration.
    pub registration_timestamp: i64,
    /// Time of the last renewal *plus the lease duration*: a fault of the Java server that became
    /// the protocol. Before the first renewal, the time of the registration.
    pub last_renewal_timestamp: i64,
    /// Time of the cancellation or eviction, 0 before.
    pub eviction_timestamp: i64,
    /// First time that the status was UP, kept over later registrations. 0 if it never was.
    pub service_up_timestamp: i64,
}

impl LeaseInfo {
    /// Heartbeat interval in seconds of a client that sends none, or none above 0.
    pub const DEFAULT_RENEWAL_INTERVAL_SECS: i32 = 30;
    /// Lease duration in seconds of a client that sends none, or none above 0.
    pub const DEFAULT_DURATION_SECS: i32 = 90;

    /// Returns the heartbeat interval in seconds: the default unless the announced one is above 0.
    #[cfg(feature = "server")]
    pub(crate) fn interval_secs(&self) -> i32 {
        if self.renewal_interval_secs > 0 { self.renewal_interval_secs } else { Self::DEFAULT_RENEWAL_INTERVAL_SECS }
    }
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
