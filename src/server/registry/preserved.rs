//! State of self-preservation, and the assessment of applications. See `preservation` for the
//! rules.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::lease::Lease;
use super::thresholds::eviction_limit;
use crate::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) renewals_last_minute: AtomicU64,
    /// Number of renewals before the present minute.
    pub(super) renewals_before: AtomicU64,
    preserved: Mutex<Preserved>,
    last_run: Mutex<LastRun>,
}

/// Last eviction run, and the state of self-preservation that was logged.
#[derive(Debug, Default)]
pub(super) struct LastRun {
    /// There was an eviction run, or a minute of heartbeats that the rule of Java needs.
    pub(super) is_assessed: bool,
    /// Number of expired leases that the run kept.
    pub(super) kept: usize,
    /// State that was logged last. `None` unless self-preservation is active according to the log.
    pub(super) logged: Option<Preservation>,
    /// Number of consecutive eviction runs without self-preservation.
    pub(super) inactive_runs: usize,
    /// Time of the run in which self-preservation became active. `None` while it is not.
    #[cfg_attr(not(feature = "page"), allow(dead_code, reason = "the page shows it"))]
    pub(super) active_since: Option<i64>,
}

/// State of self-preservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Preservation {
    /// Disabled by a setting.
    Disabled,
    /// Every expired lease is evicted.
    Inactive,
    /// This number of applications keeps its expired leases.
    Partial(usize),
    /// No lease is evicted.
    Active,
}

impl Preservation {
    /// Returns true while some expired leases are kept.
    pub(in crate::server) fn is_active(self) -> bool {
        matches!(self, Self::Partial(_) | Self::Active)
    }

    /// Returns the name of the state, as health and the status show it.
    pub(in crate::server) fn state(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Inactive => "inactive",
            Self::Partial(_) | Self::Active => "active",
        }
    }
}

/// Received and expected heartbeats of the whole registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Renewals {
    pub(in crate::server) last_minute: u64,
    /// Number of heartbeats per minute if no instance is silent.
    pub(in crate::server) expected: u64,
    /// Maximum number of heartbeats per minute at which nothing is evicted.
    pub(in crate::server) threshold: u64,
}

/// Applications whose expired leases are kept.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Preserved {
    #[default]
    All,
    Applications(HashSet<Arc<str>>),
}

/// Leases of one application.
#[derive(Debug, Default)]
pub(super) struct LeaseCounts {
    instances: usize,
    silent: usize,
    /// Earliest last heartbeat among the silent instances.
    silent_since: Option<i64>,
    /// Times at which the other instances were UP first.
    up_at: Vec<i64>,
}

/// Number of instances that are assessed together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    instances: usize,
    silent: usize,
    /// Number of silent instances that were replaced by new ones.
    replaced: usize,
}

impl fmt::Display for Preservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled | Self::Inactive => f.write_str("none"),
            Self::Partial(applications) => applications.fmt(f),
            Self::Active => f.write_str("all"),
        }
    }
}

impl State {
    pub(super) fn last_run(&self) -> MutexGuard<'_, LastRun> {
        self.last_run.lock()
    }

    pub(super) fn preserved(&self) -> MutexGuard<'_, Preserved> {
        self.preserved.lock()
    }
}

impl Preserved {
    pub(super) fn of(tallies: HashMap<Arc<str>, Tally>, percent: f64) -> Self {
        let mut rest = Tally::default();
        let mut preserved = HashSet::new();
        for (app, tally) in tallies {
            if tally.is_implausible(percent) {
                preserved.insert(app);
            } else {
                rest.instances += tally.instances;
                rest.silent += tally.silent;
                rest.replaced += tally.replaced;
            }
        }
        if rest.is_implausible(percent) || rest.silent == rest.instances {
            return Self::All;
        }
        Self::Applications(preserved)
    }
}

impl LeaseCounts {
    pub(super) fn count(&mut self, lease: &Lease, now: i64) {
        self.instances += 1;
        if lease.is_silent(now) {
            self.silent += 1;
            let renewed_at = lease.renewed_at();
            self.silent_since = Some(self.silent_since.map_or(renewed_at, |since| since.min(renewed_at)));
        } else {
            self.up_at.push(lease.service_up_at());
        }
    }

    pub(super) fn tally(self) -> Tally {
        let Self { instances, silent, silent_since, up_at } = self;
        let new = silent_since.map_or(0, |since| up_at.iter().filter(|&&up_at| up_at > since).count());
        Tally { instances, silent, replaced: new.min(silent) }
    }
}

impl Tally {
    fn is_implausible(self, percent: f64) -> bool {
        self.silent - self.replaced > eviction_limit(self.instances, percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fleet = &'static [(usize, usize)];

    #[test]
    fn applications_are_assessed_each_and_small_ones_together() {
        // Applications A, B, ... as (instances, silent), and the preserved ones.
        let table: [(Fleet, Option<&str>); 15] = [
            (&[], None),
            (&[(1, 0)], Some("")),
            (&[(1, 1)], None),
            (&[(2, 1)], Some("")),
            (&[(2, 2)], None),
            (&[(1, 1), (1, 0)], Some("")),
            (&[(10, 2)], Some("")),
            (&[(10, 3)], None),
            (&[(20, 3)], Some("")),
            // Half of the registry is silent, in one application. The others are not affected.
            (&[(100, 100), (50, 1), (50, 7)], Some("A")),
            (&[(10, 3), (3, 1), (20, 20)], Some("AC")),
            (&[(10, 3), (1, 1)], None),
            // Each of them alone may be evicted. Together they are too many, unless more instances
            // are alive.
            (&[(1, 1), (1, 1), (1, 0), (1, 0)], None),
            (&[(1, 1), (1, 1), (10, 0)], Some("")),
            (&[(10, 10), (10, 10)], None),
        ];
        for (applications, expected) in table {
            let names = ('A'..).map(|name| Arc::<str>::from(name.to_string()));
            let tallies = applications.iter().map(|&(instances, silent)| Tally { instances, silent, replaced: 0 });
            let preserved = Preserved::of(names.zip(tallies).collect(), 0.85);
            let expected = expected.map_or(Preserved::All, |names| {
                Preserved::Applications(names.chars().map(|name| name.to_string().into()).collect())
            });
            assert_eq!(preserved, expected, "{applications:?}");
        }
    }

    #[test]
    fn replaced_instances_do_not_count_as_silent() {
        // Instances, silent ones, oldest silence, times at which the others were UP first, and the
        // result.
        let table: [(usize, usize, i64, &[i64], bool); 7] = [
            (10, 5, 100, &[1, 1, 1, 1, 1], true),
            (10, 5, 100, &[1, 1, 101, 101, 101], false),
            (10, 5, 100, &[1, 1, 1, 101, 101], true),
            (10, 5, 100, &[1, 1, 100, 100, 100], true),
            (20, 10, 100, &[200; 10], false),
            // There may be more new instances than silent ones.
            (20, 2, 100, &[200; 18], false),
            (2, 2, 100, &[], true),
        ];
        for (instances, silent, since, up_at, implausible) in table {
            let counts = LeaseCounts { instances, silent, silent_since: Some(since), up_at: up_at.to_vec() };
            let tally = counts.tally();
            assert_eq!(tally.is_implausible(0.85), implausible, "{instances} {silent} {up_at:?}");
        }
    }
}
