//! Rules for the ejection of endpoints.
//!
//! ```text
//!             5 failures in a row, far more failures than the others,
//!             3 silent calls in a row
//!  available ─────────────────────────────────────▶ ejected ── time elapsed ──▶ half-open
//!      ▲  ▲                                            ▲                          │  │
//!      │  └──────── calls succeed, one at a time ──────┼──────────────────────────┘  │
//!      │                                               └───────── one fails ─────────┘
//!      │       a connection is established
//!      └─────────────────────────────────── unreachable ◀── no connection
//! ```
//!
//! Ejection is a guess from failures. The share of ejected endpoints therefore has a limit, and
//! below a share of available endpoints all ejections are ignored. Unreachable endpoints are
//! certain: they are ejected as long as there is any other. So are endpoints whose health check
//! fails, whatever the outcome of their calls, until a check succeeds.

use std::fmt;
use std::time::Duration;

use crate::time::{LONGEST_WAIT, jittered_by};

/// Minimum interval between two comparisons. Shorter ones would see too few calls.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Minimum distance of an outlier's success rate below the mean. Without it, the only endpoint with
/// a failure would always be an outlier, even with one failure of thousands: its deviation is the
/// square root of `n - 1` standard deviations.
const MIN_DISTANCE: f64 = 0.05;

/// Default number of silent calls in a row.
pub(super) const SILENT_CALLS: u32 = 3;

/// Rules for the ejection of endpoints that fail. Most names and defaults are Envoy's.
///
/// An ejected endpoint gets no calls for the [time](Self::base_time) of its ejection. It is
/// half-open after that: it gets one call at a time, and [successful calls](Self::probes) restore
/// it. The rules do not apply to an endpoint that cannot be connected to. It gets no calls while
/// another endpoint can be reached, and is tried again after 1 second. Each further failure doubles
/// that time, up to 30 seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Ejection {
    pub(super) enabled: bool,
    pub(super) consecutive_failures: u32,
    pub(super) recent_failures: u32,
    pub(super) silent_calls: u32,
    pub(super) failed_checks: u32,
    pub(super) interval: Duration,
    pub(super) success_rate_factor: f64,
    pub(super) success_rate_hosts: usize,
    pub(super) success_rate_volume: u32,
    pub(super) failure_share: f64,
    pub(super) failure_share_hosts: usize,
    pub(super) failure_share_volume: u32,
    pub(super) base_time: Duration,
    pub(super) max_time: Duration,
    pub(super) jitter: f64,
    pub(super) max_share: f64,
    pub(super) panic_threshold: f64,
    pub(super) probes: u32,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 5,
            recent_failures: 6,
            silent_calls: SILENT_CALLS,
            failed_checks: 3,
            interval: Duration::from_secs(10),
            success_rate_factor: 1.9,
            success_rate_hosts: 5,
            success_rate_volume: 100,
            failure_share: 0.85,
            failure_share_hosts: 5,
            failure_share_volume: 50,
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(300),
            jitter: 0.1,
            max_share: 0.1,
            panic_threshold: 0.5,
            probes: 3,
        }
    }
}

impl Ejection {
    /// Creates the default rules: an endpoint is ejected for 30 seconds after 5 failures in a row,
    /// or if it fails much more often than the others. Each method of this type has its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Disables ejection for the outcome of calls. Unreachable endpoints, and those that fail their
    /// [health checks](super::Builder::health_check), still get no calls while there is another
    /// endpoint.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// Sets the number of failures in a row after which an endpoint is ejected. Zero disables the
    /// rule. Defaults to 5.
    ///
    /// A call that got no response, or one that broke off, does not count if it was pending when
    /// the latest such call was counted, and no call succeeded since: a connection that ends takes
    /// many calls with it.
    #[must_use]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Sets the number of failures among an endpoint's last 64 calls, beyond three times the
    /// average of the other endpoints, at which it is ejected. Zero disables the rule. Defaults to
    /// 6.
    ///
    /// This rule is not Envoy's. It finds an endpoint that fails only some of its calls, within
    /// tens of calls.
    #[must_use]
    pub fn recent_failures(mut self, failures: u32) -> Self {
        self.recent_failures = failures;
        self
    }

    /// Sets the number of silent calls in a row after which an endpoint is ejected. Zero disables
    /// the rule. Defaults to 3, and is at least 2: one call is no evidence about its endpoint,
    /// since it may be a long poll.
    ///
    /// A call is silent if it was cancelled or met its deadline after at least 100 milliseconds and
    /// three times the expected latency, and nothing came from the endpoint since the call began. A
    /// response to any call resets the count. Calls count only while other endpoints respond. They
    /// count as one if they began at the same moment, or if they were pending together and ended
    /// within 10 milliseconds, as after a stall of the client. While callers give up calls to
    /// endpoints that respond to others, one more is required. The first silent call starts the
    /// [background probe](super::Builder::probe), if there is one. If that fails, the endpoint is
    /// ejected as unreachable.
    ///
    /// A call that times out is not a failure for the other rules.
    #[must_use]
    pub fn silent_calls(mut self, calls: u32) -> Self {
        self.silent_calls = if calls == 0 { 0 } else { calls.max(2) };
        self
    }

    /// Sets the number of failed [health checks](super::Builder::health_check) in a row after which
    /// an endpoint is ejected. Applies even if ejection is off. Defaults to 3, as in Kubernetes and
    /// HAProxy, and is at least 1.
    ///
    /// A failed check is repeated after a 25th of the interval, at least 100 milliseconds, until
    /// that number is reached.
    #[must_use]
    pub fn failed_checks(mut self, checks: u32) -> Self {
        self.failed_checks = checks.max(1);
        self
    }

    /// Sets the interval at which [success rates](Self::success_rate) and
    /// [failure shares](Self::failure_share) are evaluated. Defaults to 10 seconds, and is at least
    /// 100 milliseconds.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(MIN_INTERVAL, LONGEST_WAIT);
        self
    }

    /// Sets the success-rate rule. At each interval, an endpoint is ejected if its success rate is
    /// `factor` standard deviations and at least 5 percentage points below the mean.
    ///
    /// Only endpoints with at least `volume` calls in the interval are compared, and only if there
    /// are at least `hosts` of them. A factor of zero disables the rule. Defaults to 1.9, 5 and
    /// 100.
    #[must_use]
    pub fn success_rate(mut self, factor: f64, hosts: usize, volume: u32) -> Self {
        (self.success_rate_factor, self.success_rate_hosts, self.success_rate_volume) = (factor, hosts, volume);
        self
    }

    /// Sets the failure-share rule. At each interval, an endpoint is ejected if at least this share
    /// of its calls failed, from 0 to 1.
    ///
    /// Only endpoints with at least `volume` calls in the interval are considered, and only if
    /// there are at least `hosts` of them. A share of zero disables the rule. Defaults to 0.85, 5
    /// and 50.
    #[must_use]
    pub fn failure_share(mut self, share: f64, hosts: usize, volume: u32) -> Self {
        (self.failure_share, self.failure_share_hosts, self.failure_share_volume) = (share, hosts, volume);
        self
    }

    /// Sets the duration of a first ejection. The n-th ejection in a row takes n times as long, and
    /// each interval without a failure reduces n by one. Defaults to 30 seconds.
    #[must_use]
    pub fn base_time(mut self, time: Duration) -> Self {
        self.base_time = time;
        self
    }

    /// Sets the maximum duration of an ejection. It is never less than the base time. Defaults to
    /// 300 seconds.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }

    /// Sets the jitter of an ejection's duration, as a share of it. It keeps callers from returning
    /// at the same time. Defaults to 0.1.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self
    }

    /// Sets the maximum share of ejected endpoints, from 0 to 1. One of several endpoints may
    /// always be ejected. Defaults to 0.1.
    ///
    /// Unreachable endpoints, and those that fail their health checks, do not count.
    #[must_use]
    pub fn max_share(mut self, share: f64) -> Self {
        self.max_share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self
    }

    /// Sets the share of the reachable endpoints that must be available, from 0 to 1. While fewer
    /// are, ejections are ignored. Zero disables the rule. Defaults to 0.5.
    ///
    /// With so many endpoints ejected, the fault is more likely on the caller's side or shared by
    /// all, and the remaining endpoints would be overloaded. Unreachable endpoints, and those that
    /// fail their health checks, do not count and get no calls even then.
    #[must_use]
    pub fn panic_threshold(mut self, share: f64) -> Self {
        self.panic_threshold = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self
    }

    /// Sets the number of successful calls that restore a half-open endpoint, one after the other.
    /// Defaults to 3, and is at least 1. One success restores an endpoint that was unreachable.
    #[must_use]
    pub fn probes(mut self, calls: u32) -> Self {
        self.probes = calls.max(1);
        self
    }

    pub(super) fn rules(&self) -> Rules {
        let on = |limit| if self.enabled && limit > 0 { limit } else { u32::MAX };
        Rules {
            consecutive: on(self.consecutive_failures),
            recent: on(self.recent_failures),
            silent_calls: on(self.silent_calls),
        }
    }

    /// Maximum number of ejected endpoints.
    pub(super) fn ceiling(&self, endpoints: usize) -> usize {
        match endpoints {
            0 | 1 => 0,
            _ => ((endpoints as f64 * self.max_share) as usize).max(1),
        }
    }

    /// Duration of the n-th ejection in a row.
    pub(super) fn time(&self, times: u32) -> Duration {
        self.jittered(self.base_time.saturating_mul(times.max(1)).min(self.max_time.max(self.base_time)))
    }

    /// Adds jitter to a duration.
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        jittered_by(time, self.jitter)
    }

    /// Returns `true` if so few endpoints are available that ejections are ignored.
    pub(super) fn is_panic(&self, left: usize, of: usize) -> bool {
        (left as f64) < of as f64 * self.panic_threshold
    }

    /// Returns the outliers of an interval.
    pub(super) fn outliers<Id: Copy + Ord>(&self, calls: &[(Id, Calls)]) -> Vec<(Id, Cause)> {
        if !self.enabled {
            return Vec::new();
        }
        let with = |volume: u32, hosts: usize| {
            let busy: Vec<_> = calls.iter().filter(|(_, calls)| calls.responses >= volume.max(1)).collect();
            if busy.len() >= hosts.max(1) { busy } else { Vec::new() }
        };
        let mut outliers = Vec::new();
        if self.success_rate_factor > 0.0 {
            let busy = with(self.success_rate_volume, self.success_rate_hosts);
            let rates: Vec<f64> = busy.iter().map(|(_, calls)| 1.0 - calls.failed_share()).collect();
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            let deviation = (rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64).sqrt();
            let below = |rate: f64| rate < mean - (self.success_rate_factor * deviation).max(MIN_DISTANCE);
            outliers.extend(
                busy.iter().zip(&rates).filter(|(_, rate)| below(**rate)).map(|((id, _), _)| (*id, Cause::SuccessRate)),
            );
        }
        if self.failure_share > 0.0 {
            let busy = with(self.failure_share_volume, self.failure_share_hosts);
            let failing = busy.iter().filter(|(_, calls)| calls.failed_share() >= self.failure_share);
            outliers.extend(failing.map(|(id, _)| (*id, Cause::FailureShare)));
        }
        outliers.sort_by_key(|(id, _)| *id);
        outliers.dedup_by_key(|(id, _)| *id);
        outliers
    }
}

/// Calls of an endpoint in one interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calls {
    pub(super) responses: u32,
    pub(super) failed: u32,
}

impl Calls {
    fn failed_share(self) -> f64 {
        f64::from(self.failed.min(self.responses)) / f64::from(self.responses)
    }
}

/// Limits that a failing call checks without a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    consecutive: u32,
    recent: u32,
    pub(super) silent_calls: u32,
}

impl Rules {
    /// Returns the cause for which the endpoint may be ejected, if there is one.
    pub(super) fn suspect(&self, cause: Cause, consecutive: u32, recent: u32) -> Option<Cause> {
        match cause {
            Cause::Unreachable => Some(cause),
            _ if consecutive >= self.consecutive => Some(Cause::Consecutive),
            _ if recent >= self.recent => Some(Cause::Recent),
            _ => None,
        }
    }

    /// Returns `true` if the endpoint fails much more often than the others, whose average is
    /// given.
    pub(super) fn stands_out(&self, recent: u32, others: f64) -> bool {
        f64::from(recent) >= f64::from(self.recent) + 3.0 * others
    }
}

/// Reason for the ejection of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// No connection could be established.
    Unreachable,
    /// Several calls in a row were cancelled or timed out, and nothing came from the endpoint since
    /// they began.
    Silent,
    /// Too many calls in a row failed.
    Consecutive,
    /// Far more of its last calls failed than of the others'.
    Recent,
    /// Its success rate in the last interval was far below that of the others.
    SuccessRate,
    /// Nearly all of its calls in the last interval failed.
    FailureShare,
    /// Its health checks failed.
    HealthCheck,
    /// A call failed, which alone does not eject.
    Failed,
}

impl Cause {
    /// Returns `true` if the cause needs no comparison with other endpoints.
    pub(super) fn is_certain(self) -> bool {
        matches!(self, Self::Unreachable | Self::HealthCheck)
    }

    /// Value of the metric's label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Consecutive => "consecutive_failures",
            Self::Recent => "recent_failures",
            Self::SuccessRate => "success_rate",
            Self::FailureShare => "failure_share",
            Self::HealthCheck => "health_check",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "cannot be connected to",
            Self::Silent => "did not respond in time",
            Self::Consecutive => "calls failed in a row",
            Self::Recent => "failed far more often than the others",
            Self::SuccessRate => "success rate far below the others'",
            Self::FailureShare => "nearly all calls failed",
            Self::HealthCheck => "health check failed",
            Self::Failed => "a call failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outliers among endpoints with these numbers of calls and failures.
    fn outliers(ejection: &Ejection, calls: &[(u32, u32)]) -> Vec<(u64, Cause)> {
        let calls: Vec<(u64, Calls)> =
            (0..).zip(calls).map(|(id, &(responses, failed))| (id, Calls { responses, failed })).collect();
        ejection.outliers(&calls)
    }

    #[test]
    fn success_rate_far_below_the_mean_is_an_outlier() {
        let rule = Ejection::new().failure_share(0.0, 5, 50);
        let out = [(0, Cause::SuccessRate)];
        let good = [(100, 0); 4];
        type Case<'a> = (&'a [(u32, u32)], &'a [(u64, Cause)]);
        let cases: [Case<'_>; 9] = [
            (&[&[(100, 50)], &good[..]].concat(), &out),
            // Envoy's rule alone would eject in each of these cases.
            (&[&[(100, 1)], &good[..]].concat(), &[]),
            (&[&[(100, 6)], &good[..]].concat(), &[]),
            (&[&[(100, 7)], &good[..]].concat(), &out),
            (&[&[(99, 99)], &good[..]].concat(), &[]),
            (&[(100, 50), (100, 0), (100, 0), (100, 0)], &[]),
            (&[(100, 50), (100, 40), (100, 45), (100, 55), (100, 50)], &[]),
            (&[(100, 100); 6], &[]),
            (&[], &[]),
        ];
        for (calls, expected) in cases {
            assert_eq!(outliers(&rule, calls), expected, "{calls:?}");
        }
        assert_eq!(outliers(&rule.clone().success_rate(0.0, 5, 100), &[&[(100, 50)], &good[..]].concat()), []);
        let few = rule.success_rate(1.0, 3, 10);
        assert_eq!(outliers(&few, &[(10, 0), (10, 0), (10, 5)]), [(2, Cause::SuccessRate)]);
    }

    #[test]
    fn high_failure_share_is_an_outlier_without_comparison() {
        let rule = Ejection::new().success_rate(0.0, 5, 100);
        let out = |ids: &[u64]| ids.iter().map(|id| (*id, Cause::FailureShare)).collect::<Vec<_>>();
        assert_eq!(outliers(&rule, &[(50, 43), (50, 0), (50, 0), (50, 0), (50, 42)]), out(&[0]));
        assert_eq!(outliers(&rule, &[(50, 50); 5]), out(&[0, 1, 2, 3, 4]));
        assert_eq!(outliers(&rule, &[(49, 49), (50, 50), (50, 0), (50, 0), (50, 0)]), []);
        assert_eq!(outliers(&rule, &[(50, 50); 4]), []);
        // More failures than responses: broken bodies and cancelled calls.
        assert_eq!(outliers(&rule, &[(50, 90), (50, 0), (50, 0), (50, 0), (50, 0)]), out(&[0]));
        assert_eq!(outliers(&rule.failure_share(0.0, 5, 50), &[(50, 50); 5]), []);
    }

    #[test]
    fn outliers_have_one_cause_and_are_none_if_ejection_is_off() {
        let calls = [(100, 100), (100, 0), (100, 0), (100, 0), (100, 0)];
        assert_eq!(outliers(&Ejection::new(), &calls).len(), 1);
        assert_eq!(outliers(&Ejection::off(), &calls), []);
    }

    #[test]
    fn suspect_requires_consecutive_or_many_recent_failures() {
        let rules = Ejection::new().rules();
        let cases = [
            (Cause::Failed, 4, 5, None),
            (Cause::Failed, 5, 5, Some(Cause::Consecutive)),
            (Cause::Failed, 1, 6, Some(Cause::Recent)),
            (Cause::Unreachable, 1, 1, Some(Cause::Unreachable)),
        ];
        for (cause, consecutive, recent, expected) in cases {
            assert_eq!(rules.suspect(cause, consecutive, recent), expected, "{cause:?} {consecutive} {recent}");
        }
        assert!(rules.stands_out(6, 0.0) && rules.stands_out(12, 2.0));
        assert!(!rules.stands_out(11, 2.0) && !rules.stands_out(5, 0.0));
        let off = Ejection::off().rules();
        assert_eq!(off.suspect(Cause::Failed, 64, 64), None);
        assert_eq!(off.silent_calls, u32::MAX);
        assert_eq!(off.suspect(Cause::Unreachable, 0, 0), Some(Cause::Unreachable));
    }

    #[test]
    fn ceiling_is_zero_for_one_endpoint_and_one_for_few() {
        let ceilings = [0, 1, 2, 9, 10, 19, 20, 100].map(|n| Ejection::new().ceiling(n));
        assert_eq!(ceilings, [0, 0, 1, 1, 1, 1, 2, 10]);
        assert_eq!(Ejection::new().max_share(0.0).ceiling(10), 1);
        assert_eq!(Ejection::new().max_share(1.0).ceiling(10), 10);
    }
}
