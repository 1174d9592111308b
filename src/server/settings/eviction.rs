use std::time::Duration;

use super::check_not_zero;
use crate::server::Error;

/// Eviction of expired leases, and self-preservation.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::server::Eviction;
///
/// // A registry for tests: instances disappear soon after they die.
/// let eviction = Eviction::new().interval(Duration::from_secs(1)).self_preservation(false);
/// # let _ = eviction;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Eviction {
    pub(in crate::server) interval: Duration,
    pub(in crate::server) self_preservation: bool,
    pub(in crate::server) preservation_by_application: bool,
    pub(in crate::server) renewal_percent_threshold: f64,
    pub(in crate::server) expected_renewal_interval: Duration,
    pub(in crate::server) lease_doubling: bool,
}

impl Default for Eviction {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            self_preservation: true,
            preservation_by_application: false,
            renewal_percent_threshold: 0.85,
            expected_renewal_interval: Duration::from_secs(30),
            lease_doubling: true,
        }
    }
}

impl Eviction {
    /// Creates the settings with their defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time between two runs that remove expired leases. Defaults to 60 seconds.
    ///
    /// Spring `eureka.server.eviction-interval-timer-in-ms`, Netflix
    /// `eureka.evictionIntervalTimerInMs`.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Enables self-preservation: no lease is evicted while too few heartbeats arrive. Defaults to
    /// true.
    ///
    /// Then a fault of the network is more likely than a fault of the instances. Without
    /// self-preservation, a run still evicts no more than the share of the registry that
    /// [`renewal_percent_threshold`](Self::renewal_percent_threshold) leaves.
    ///
    /// Spring `eureka.server.enable-self-preservation`, Netflix `eureka.enableSelfPreservation`.
    pub fn self_preservation(mut self, enabled: bool) -> Self {
        self.self_preservation = enabled;
        self
    }

    /// Judges self-preservation by application, and each instance by the renewal interval that it
    /// announced. Defaults to false: all instances are judged together, as by a Java server.
    ///
    /// An instance is silent if it has sent no heartbeat for two of its own intervals
    /// (`leaseInfo.renewalIntervalInSecs`, 30 seconds if it has none), or if its lease has expired.
    /// Each eviction run begins with these rules:
    ///
    /// * An application is preserved if more of its instances are silent than one run may evict.
    ///   None of its instances is evicted in this run. With a
    ///   [share](Self::renewal_percent_threshold) of 0.85, one run may evict one of up to six
    ///   instances, two of ten, fifteen of a hundred.
    /// * All other applications are judged together by the same rule. None is evicted if too many
    ///   of their instances are silent, or all of them. This covers a server that was cut off, and
    ///   applications with a single instance.
    /// * A silent instance that was replaced does not count: one for each instance that came UP for
    ///   the first time after the first silent one sent its last heartbeat. Therefore instances
    ///   that were killed and came back with other ids are evicted in any number.
    ///
    /// So an application that lost its network does not stop the eviction of other applications.
    /// One of two instances can be evicted, which takes seven instances by Java's count. An
    /// instance with a heartbeat every five minutes does not make others look silent. The setting
    /// has no effect without [`self_preservation`](Self::self_preservation), and
    /// [`expected_renewal_interval`](Self::expected_renewal_interval) has none with it.
    ///
    /// Spring has no such setting; the property is
    /// `eureka.server.self-preservation-by-application`.
    pub fn preservation_by_application(mut self, enabled: bool) -> Self {
        self.preservation_by_application = enabled;
        self
    }

    /// Sets the share of the expected heartbeats below which self-preservation stops evictions. It
    /// is also the share of the registry that one eviction run leaves. Must be above 0 and at most
    /// 1. Defaults to 0.85.
    ///
    /// The heartbeats of the last minute count. Spring `eureka.server.renewal-percent-threshold`,
    /// Netflix `eureka.renewalPercentThreshold`.
    pub fn renewal_percent_threshold(mut self, share: f64) -> Self {
        self.renewal_percent_threshold = share;
        self
    }

    /// Sets the expected time between two heartbeats of an instance. Defaults to 30 seconds.
    ///
    /// It is one value for all instances. The intervals in their leases count only
    /// [by application](Self::preservation_by_application). Spring
    /// `eureka.server.expected-client-renewal-interval-seconds`, Netflix
    /// `eureka.expectedClientRenewalIntervalSeconds`.
    pub fn expected_renewal_interval(mut self, interval: Duration) -> Self {
        self.expected_renewal_interval = interval;
        self
    }

    /// Lets a lease last twice its duration after the last heartbeat, as on a Java server. Defaults
    /// to true.
    ///
    /// Java adds the duration twice, and clients and peers rely on it. With `false`, this server
    /// evicts an instance one lease duration earlier than its Java peers, and
    /// `lastRenewalTimestamp` is the time of the heartbeat instead of a time in the future. Java
    /// has no property for it.
    pub fn lease_doubling(mut self, doubling: bool) -> Self {
        self.lease_doubling = doubling;
        self
    }

    pub(in crate::server) fn check(&self) -> Result<(), Error> {
        if self.interval < Duration::from_millis(1) {
            return Err(Error::setting_of(
                "Eviction::interval",
                "eureka.server.eviction-interval-timer-in-ms",
                "must be at least a millisecond",
            ));
        }
        let share = self.renewal_percent_threshold;
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::setting_of(
                "Eviction::renewal_percent_threshold",
                "eureka.server.renewal-percent-threshold",
                "must be above 0 and at most 1",
            ));
        }
        check_not_zero(&[(
            self.expected_renewal_interval.is_zero(),
            "Eviction::expected_renewal_interval",
            "eureka.server.expected-client-renewal-interval-seconds",
        )])
    }
}
