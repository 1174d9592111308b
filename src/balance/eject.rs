//! When an endpoint is taken out, and for how long.
//!
//! ```text
//!            5 failures in a row, far more failures than the others, 3 silent calls in a row
//!  available ──────────────────────────────────────────────────────▶ ejected ── its time is over ──▶ probation
//!      ▲  ▲                                                             ▲                              │   │
//!      │  └──────────────── calls of callers succeed, one at a time ────┼──────────────────────────────┘   │
//!      │                                                                └────────── one fails ─────────────┘
//!      │       a connection comes about
//!      └────────────────────────────────── unreachable ◀── cannot be connected to
//! ```
//!
//! Ejection is a guess from failures, so there is a ceiling on it, and below a share of endpoints left it is not believed at all.
//! That an endpoint cannot be connected to is no guess: it is out as long as there is any other. So is one whose health check
//! fails, whatever its calls show, until a check succeeds.

use std::fmt;
use std::time::Duration;

use super::cells::Ticket;
use super::endpoint::EndpointId;
use crate::time::{LONGEST_WAIT, jittered_by};

/// Checking for outliers more often than this would find too few calls in between.
pub(super) const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// An outlier's success rate is at least so far below the mean. Without it the only endpoint of many with a failure in an
/// interval always stands out, be it one failure of thousands: it is the square root of `n - 1` deviations off.
const LEAST_DISTANCE: f64 = 0.05;

/// Default number of silent calls in a row.
pub(super) const SILENT_CALLS: u32 = 3;

/// When endpoints are ejected, and for how long. The defaults are Envoy's, unless a setting says otherwise.
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
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is ejected, whatever it answers. What cannot be connected to is still left out while there is another.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// Ejects after so many failures in a row. Default 5; 0 switches this rule off.
    #[must_use]
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Ejects an endpoint of whose last 64 calls so many failed, and three times as many more as of the others' on average. Finds
    /// an endpoint that fails only sometimes, within tens of its calls. Default 6, our own rule; 0 switches it off.
    #[must_use]
    pub fn recent_failures(mut self, failures: u32) -> Self {
        self.recent_failures = failures;
        self
    }

    /// Sets the number of silent calls in a row after which an endpoint is ejected. Zero disables the rule. Defaults to 3, and
    /// is at least 2: one call is no evidence about its endpoint, since it may be a long poll.
    ///
    /// A call is silent if its caller gave it up, or if it met its deadline, after at least three times the expected latency and
    /// 100 milliseconds, and nothing at all came from the endpoint since the call began. A response to any call begins the
    /// count anew. Calls count while other endpoints respond, and as one if they began at the same moment, or were
    /// pending together and ended within 10 milliseconds, as after a stall of the client. The first silent call starts the
    /// [background probe](super::Builder::probe), if there is one; if that fails, the endpoint counts as unreachable.
    ///
    /// A call that times out is no failure for the other rules.
    #[must_use]
    pub fn silent_calls(mut self, calls: u32) -> Self {
        self.silent_calls = if calls == 0 { 0 } else { calls.max(2) };
        self
    }

    /// Sets the number of failed [health checks](super::Builder::health_check) in a row after which an endpoint is ejected, at
    /// least 1. Counts also where ejection is off. Defaults to 3, as in Kubernetes and HAProxy.
    ///
    /// A check that failed is repeated soon, after a 25th of the interval.
    #[must_use]
    pub fn failed_checks(mut self, checks: u32) -> Self {
        self.failed_checks = checks.max(1);
        self
    }

    /// How often the success rates of all endpoints are compared. Default 10 s, at least 100 ms.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(LEAST_INTERVAL, LONGEST_WAIT);
        self
    }

    /// Ejects at each interval whose success rate is so many standard deviations below the mean of those that had `volume` calls in
    /// it, if there are `hosts` of these, and at least 5 percentage points below it. Default 1.9, 5, 100; a factor of 0 switches
    /// this rule off.
    #[must_use]
    pub fn success_rate(mut self, factor: f64, hosts: usize, volume: u32) -> Self {
        (self.success_rate_factor, self.success_rate_hosts, self.success_rate_volume) = (factor, hosts, volume);
        self
    }

    /// Ejects at each interval of whose calls at least this share failed, from 0 to 1, among those that had `volume` calls in it, if
    /// there are `hosts` of these. Default 0.85, 5, 50; a share of 0 switches this rule off.
    #[must_use]
    pub fn failure_share(mut self, share: f64, hosts: usize, volume: u32) -> Self {
        (self.failure_share, self.failure_share_hosts, self.failure_share_volume) = (share, hosts, volume);
        self
    }

    /// How long an endpoint is out the first time. The n-th time in a row it is n times that; each interval that goes well takes
    /// one off n. Default 30 s.
    #[must_use]
    pub fn base_time(mut self, time: Duration) -> Self {
        self.base_time = time;
        self
    }

    /// How long an endpoint is out at most. Default 300 s, and never less than the base time.
    #[must_use]
    pub fn max_time(mut self, time: Duration) -> Self {
        self.max_time = time;
        self
    }

    /// By what share an ejection is made longer or shorter at random, so that callers do not return all at once. Default 0.1.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self
    }

    /// What share of the endpoints may be ejected, from 0 to 1, but always one of several. Default 0.1.
    #[must_use]
    pub fn max_share(mut self, share: f64) -> Self {
        self.max_share = share.clamp(0.0, 1.0);
        self
    }

    /// Below what share of endpoints left the ejections are disregarded, since the fault is then rather this side's, or that of
    /// everybody, and the few that are left would be overrun. From 0, which switches it off, to 1; default 0.5.
    #[must_use]
    pub fn panic_threshold(mut self, share: f64) -> Self {
        self.panic_threshold = share.clamp(0.0, 1.0);
        self
    }

    /// How many calls, one after the other, have to succeed in a probation. Default 3.
    #[must_use]
    pub fn probes(mut self, calls: u32) -> Self {
        self.probes = calls.max(1);
        self
    }

    pub(super) fn rules(&self) -> Rules {
        let on = |limit| if self.enabled && limit > 0 { limit } else { u32::MAX };
        Rules {
            in_a_row: on(self.consecutive_failures),
            recent: on(self.recent_failures),
            silent_calls: on(self.silent_calls),
        }
    }

    /// How many of so many endpoints may be ejected.
    pub(super) fn ceiling(&self, endpoints: usize) -> usize {
        match endpoints {
            0 | 1 => 0,
            _ => ((endpoints as f64 * self.max_share) as usize).max(1),
        }
    }

    /// How long it is out the n-th time in a row.
    pub(super) fn time(&self, times: u32) -> Duration {
        self.jittered(self.base_time.saturating_mul(times.max(1)).min(self.max_time.max(self.base_time)))
    }

    /// The time, longer or shorter at random.
    pub(super) fn jittered(&self, time: Duration) -> Duration {
        jittered_by(time, self.jitter)
    }

    /// Whether so few of the endpoints are left that the ejections are disregarded.
    pub(super) fn is_panic(&self, left: usize, of: usize) -> bool {
        (left as f64) < of as f64 * self.panic_threshold
    }

    /// Which of these stand out at the end of an interval.
    pub(super) fn outliers(&self, calls: &[(EndpointId, Calls)]) -> Vec<(EndpointId, Cause)> {
        if !self.enabled {
            return Vec::new();
        }
        let with = |volume: u32, hosts: usize| {
            let busy: Vec<_> = calls.iter().filter(|(_, calls)| calls.answered >= volume.max(1)).collect();
            if busy.len() >= hosts.max(1) { busy } else { Vec::new() }
        };
        let mut outliers = Vec::new();
        if self.success_rate_factor > 0.0 {
            let busy = with(self.success_rate_volume, self.success_rate_hosts);
            let rates: Vec<f64> = busy.iter().map(|(_, calls)| 1.0 - calls.failed_share()).collect();
            let mean = rates.iter().sum::<f64>() / rates.len() as f64;
            let deviation = (rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / rates.len() as f64).sqrt();
            let below = |rate: f64| rate < mean - (self.success_rate_factor * deviation).max(LEAST_DISTANCE);
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

/// The calls of an endpoint in one interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calls {
    pub(super) answered: u32,
    pub(super) failed: u32,
}

impl Calls {
    fn failed_share(self) -> f64 {
        f64::from(self.failed.min(self.answered)) / f64::from(self.answered)
    }
}

/// What a failing call checks before it bothers anybody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    in_a_row: u32,
    recent: u32,
    pub(super) silent_calls: u32,
}

impl Rules {
    /// Why the endpoint may have to go, if it may.
    pub(super) fn suspect(&self, cause: Cause, in_a_row: u32, recent: u32) -> Option<Cause> {
        match cause {
            Cause::Unreachable => Some(cause),
            _ if in_a_row >= self.in_a_row => Some(Cause::Consecutive),
            _ if recent >= self.recent => Some(Cause::Recent),
            _ => None,
        }
    }

    /// Whether it fails so much more than the others do, given their average.
    pub(super) fn stands_out(&self, recent: u32, others: f64) -> bool {
        f64::from(recent) >= f64::from(self.recent) + 3.0 * others
    }
}

/// Why an endpoint was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It cannot be connected to.
    Unreachable,
    /// Several calls in a row were given up or timed out, and nothing at all had come from it since they began.
    Silent,
    /// Too many calls in a row failed.
    Consecutive,
    /// Far more of its last calls failed than of the others'.
    Recent,
    /// In the last interval its success rate was far below that of the others.
    SuccessRate,
    /// In the last interval nearly all of its calls failed.
    FailureShare,
    /// Its health checks failed.
    HealthCheck,
    /// A call failed, which alone is no reason.
    Failed,
}

impl Cause {
    /// Whether no comparison with others is called for.
    pub(super) fn is_certain(self) -> bool {
        matches!(self, Self::Unreachable | Self::HealthCheck)
    }
}

impl Cause {
    /// As a metric says it.
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
            Self::Silent => "did not answer in time",
            Self::Consecutive => "calls failed in a row",
            Self::Recent => "fails far more often than the others",
            Self::SuccessRate => "success rate far below the others'",
            Self::FailureShare => "nearly all calls failed",
            Self::HealthCheck => "health check failed",
            Self::Failed => "a call failed",
        })
    }
}

/// Decides on ejections from what calls report: the balancer.
pub(super) trait Control: Send + Sync {
    /// A first call to an endpoint got no sign of life.
    fn doubted(&self, id: EndpointId);

    /// An endpoint gives reason to be taken out.
    fn suspected(&self, id: EndpointId, cause: Cause);

    /// A call that decides on an endpoint that is out is over.
    fn tried(&self, id: EndpointId, ticket: Ticket, result: Result<(), Cause>);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Endpoints with so many calls, of which so many failed in the interval.
    fn outliers(ejection: &Ejection, calls: &[(u32, u32)]) -> Vec<(u64, Cause)> {
        let calls: Vec<_> =
            (0..).zip(calls).map(|(id, &(answered, failed))| (EndpointId(id), Calls { answered, failed })).collect();
        ejection.outliers(&calls).into_iter().map(|(id, cause)| (id.0, cause)).collect()
    }

    #[test]
    fn a_success_rate_far_below_the_others_stands_out() {
        let rule = Ejection::new().failure_share(0.0, 5, 50);
        let out = [(0, Cause::SuccessRate)];
        let good = [(100, 0); 4];
        type Case<'a> = (&'a [(u32, u32)], &'a [(u64, Cause)]);
        let cases: [Case<'_>; 9] = [
            (&[&[(100, 50)], &good[..]].concat(), &out),
            // Envoy's rule alone would take each of these for an outlier.
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
    fn a_share_of_failures_stands_out_by_itself() {
        let rule = Ejection::new().success_rate(0.0, 5, 100);
        let out = |ids: &[u64]| ids.iter().map(|id| (*id, Cause::FailureShare)).collect::<Vec<_>>();
        assert_eq!(outliers(&rule, &[(50, 43), (50, 0), (50, 0), (50, 0), (50, 42)]), out(&[0]));
        assert_eq!(outliers(&rule, &[(50, 50); 5]), out(&[0, 1, 2, 3, 4]));
        assert_eq!(outliers(&rule, &[(49, 49), (50, 50), (50, 0), (50, 0), (50, 0)]), []);
        assert_eq!(outliers(&rule, &[(50, 50); 4]), []);
        // More failures than answers: bodies that broke off, and calls given up.
        assert_eq!(outliers(&rule, &[(50, 90), (50, 0), (50, 0), (50, 0), (50, 0)]), out(&[0]));
        assert_eq!(outliers(&rule.failure_share(0.0, 5, 50), &[(50, 50); 5]), []);
    }

    #[test]
    fn one_reason_per_endpoint_and_none_where_ejection_is_off() {
        let calls = [(100, 100), (100, 0), (100, 0), (100, 0), (100, 0)];
        assert_eq!(outliers(&Ejection::new(), &calls).len(), 1);
        assert_eq!(outliers(&Ejection::off(), &calls), []);
    }

    #[test]
    fn suspicion_needs_a_row_or_many() {
        let rules = Ejection::new().rules();
        let cases = [
            (Cause::Failed, 4, 5, None),
            (Cause::Failed, 5, 5, Some(Cause::Consecutive)),
            (Cause::Failed, 1, 6, Some(Cause::Recent)),
            (Cause::Unreachable, 1, 1, Some(Cause::Unreachable)),
        ];
        for (cause, in_a_row, recent, expected) in cases {
            assert_eq!(rules.suspect(cause, in_a_row, recent), expected, "{cause:?} {in_a_row} {recent}");
        }
        assert!(rules.stands_out(6, 0.0) && rules.stands_out(12, 2.0));
        assert!(!rules.stands_out(11, 2.0) && !rules.stands_out(5, 0.0));
        let off = Ejection::off().rules();
        assert_eq!(off.suspect(Cause::Failed, 64, 64), None);
        assert_eq!(off.silent_calls, u32::MAX);
        assert_eq!(off.suspect(Cause::Unreachable, 0, 0), Some(Cause::Unreachable));
    }

    #[test]
    fn the_ceiling_leaves_one_of_one_and_takes_one_of_few() {
        let ceilings = [0, 1, 2, 9, 10, 19, 20, 100].map(|n| Ejection::new().ceiling(n));
        assert_eq!(ceilings, [0, 0, 1, 1, 1, 1, 2, 10]);
        assert_eq!(Ejection::new().max_share(0.0).ceiling(10), 1);
        assert_eq!(Ejection::new().max_share(1.0).ceiling(10), 10);
    }
}
