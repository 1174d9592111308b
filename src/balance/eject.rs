//! When an endpoint is taken out, and for how long.
//!
//! ```text
//!            5 failures in a row, far more failures than the others, silence
//!  available ──────────────────────────────────────────────────────▶ ejected ── its time is over ──▶ probation
//!      ▲  ▲                                                             ▲                              │   │
//!      │  └──────────────── calls of callers succeed, one at a time ────┼──────────────────────────────┘   │
//!      │                                                                └────────── one fails ─────────────┘
//!      │       a connection comes about
//!      └────────────────────────────────── unreachable ◀── cannot be connected to
//! ```
//!
//! Ejection is a guess from failures, so there is a ceiling on it, and below a share of endpoints left it is not believed at all.
//! That an endpoint cannot be connected to is no guess: it is out as long as there is any other.

use std::fmt;
use std::time::Duration;

use super::endpoint::EndpointId;

/// When endpoints are ejected, and for how long. The defaults are Envoy's, unless a setting says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Ejection {
    pub(super) enabled: bool,
    pub(super) consecutive_failures: u32,
    pub(super) recent_failures: u32,
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

    /// How often the success rates of all endpoints are compared. Default 10 s.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Ejects at each interval whose success rate is so many standard deviations below the mean of those that had `volume` calls in
    /// it, if there are `hosts` of these. Default 1.9, 5, 100; a factor of 0 switches this rule off.
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
        self.jitter = share.clamp(0.0, 1.0);
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
        Rules { in_a_row: on(self.consecutive_failures), recent: on(self.recent_failures), silence: self.enabled }
    }

    /// How many of so many endpoints may be ejected.
    pub(super) fn ceiling(&self, endpoints: usize) -> usize {
        match endpoints {
            0 | 1 => 0,
            _ => ((endpoints as f64 * self.max_share) as usize).max(1),
        }
    }

    /// How long it is out the n-th time in a row, without jitter.
    pub(super) fn time(&self, times: u32) -> Duration {
        self.base_time.saturating_mul(times.max(1)).min(self.max_time.max(self.base_time))
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
            let below = |rate: f64| rate < mean - self.success_rate_factor * deviation;
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
    silence: bool,
}

impl Rules {
    /// Why the endpoint may have to go, if it may.
    pub(super) fn suspect(&self, cause: Cause, in_a_row: u32, recent: u32) -> Option<Cause> {
        match cause {
            Cause::Unreachable => Some(cause),
            Cause::Silent if self.silence => Some(cause),
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
    /// A call to it was given up after a long wait, and nothing at all had come from it since the call began.
    Silent,
    /// Too many calls in a row failed.
    Consecutive,
    /// Far more of its last calls failed than of the others'.
    Recent,
    /// In the last interval its success rate was far below that of the others.
    SuccessRate,
    /// In the last interval nearly all of its calls failed.
    FailureShare,
    /// Its health check failed.
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

/// Who decides on ejections: the balancer, told by calls.
pub(super) trait Control: Send + Sync {
    /// An endpoint gives reason to be taken out.
    fn suspected(&self, id: EndpointId, cause: Cause);

    /// The call that decides on an endpoint in probation is over.
    fn probed(&self, id: EndpointId, success: bool);
}
