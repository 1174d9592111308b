//! Self-preservation: expired leases are kept while so many instances are silent that the network
//! is the likely cause. See `docs/server.md`, "Self-preservation".
//!
//! A setting chooses one of two rules.
//!
//! * **As in Java.** All instances together must send more than a share of the heartbeats that they
//!   would send in a minute at one common interval. Below that nothing is evicted. Unlike in Java,
//!   the expected number of instances is the size of this registry. A separate count went wrong in
//!   many ways there (quirks S9, S11, S12 and S13).
//! * **By application.** An instance is silent when its lease is expired, or when it missed two
//!   heartbeats in a row by the interval that it announced itself. An application is preserved
//!   while more of its instances are silent than one eviction run may evict from that many (at
//!   least one, so that one of two can be evicted). The instances of all other applications are
//!   assessed together in the same way, since a single instance proves nothing. If all of those are
//!   silent, they are preserved, too. Replaced instances do not count as silent: as many as sent
//!   heartbeats and were UP first after the oldest silence of their application began. So instances
//!   that were killed and came back under other ids are evicted, however many they were.
//!
//! The second rule is assessed once, at the beginning of an eviction run, and holds until the next.
//! Before the first run nothing is evicted. It counts instances and not heartbeats, since one
//! instance that sends a heartbeat each second would compensate for thirty silent ones.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Registry;
use super::eviction::eviction_limit;
use super::lease::Lease;
use crate::server::audit::Quoted;
use crate::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
pub(super) struct State {
    renewals_last_minute: AtomicU64,
    preserved: Mutex<Preserved>,
    last_run: Mutex<LastRun>,
}

/// State of self-preservation at the last eviction run, and the state that was logged.
#[derive(Debug, Default)]
struct LastRun {
    state: Preservation,
    /// State that was logged last. `None` unless self-preservation is active according to the log.
    logged: Option<Preservation>,
    /// Number of consecutive eviction runs without self-preservation.
    inactive_runs: usize,
}

/// Number of consecutive eviction runs without self-preservation after which its end is logged.
const RUNS_TO_END: usize = 2;

/// State of self-preservation at the last eviction run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::server) enum Preservation {
    /// Disabled by a setting.
    Disabled,
    /// Every expired lease is evicted.
    #[default]
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
}

/// Received and expected heartbeats of the whole registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Renewals {
    pub(in crate::server) last_minute: u64,
    /// Maximum number of heartbeats per minute at which nothing is evicted.
    pub(in crate::server) threshold: u64,
}

/// Applications whose expired leases are kept.
#[derive(Debug, Default, PartialEq)]
enum Preserved {
    #[default]
    All,
    Applications(HashSet<Arc<str>>),
}

/// Leases of one application.
#[derive(Debug, Default)]
struct LeaseCounts {
    instances: usize,
    silent: usize,
    /// Earliest last heartbeat among the silent instances.
    silent_since: Option<i64>,
    /// Times at which the other instances were UP first.
    up_at: Vec<i64>,
}

/// Number of instances that are assessed together.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    instances: usize,
    silent: usize,
    /// Number of silent instances that were replaced by new ones.
    replaced: usize,
}

impl Registry {
    /// Ends a minute of counting heartbeats. Must be called every 60 seconds.
    pub(in crate::server) fn end_minute(&self) {
        self.preservation.renewals_last_minute.store(self.shards.take_renewals(), Relaxed);
    }

    /// Returns true if expired leases of an application may be evicted.
    pub(super) fn is_expiration_enabled(&self, app: &str) -> bool {
        if !self.settings.self_preservation {
            return true;
        }
        if self.settings.preservation_by_application {
            return match &*self.preservation.preserved() {
                Preserved::All => false,
                Preserved::Applications(preserved) => !preserved.contains(app),
            };
        }
        let Renewals { last_minute, threshold } = self.renewals();
        threshold > 0 && last_minute > threshold
    }

    /// Returns the heartbeats of the last minute, and the threshold for the current number of
    /// instances.
    pub(in crate::server) fn renewals(&self) -> Renewals {
        let threshold = renewal_threshold(
            self.listing.size(),
            self.settings.expected_renewal_interval.as_secs_f64(),
            self.settings.renewal_percent_threshold,
        );
        Renewals { last_minute: self.preservation.renewals_last_minute.load(Relaxed), threshold }
    }

    /// Returns the state of self-preservation at the last eviction run.
    pub(in crate::server) fn preservation(&self) -> Preservation {
        self.preservation.last_run().state
    }

    /// Records the state of self-preservation and logs its changes. Must be called once in each
    /// eviction run, with the number of expired leases that the run keeps.
    ///
    /// Too few heartbeats alone cause no warning: a minute of a small registry often has one less,
    /// and the threshold follows a new instance a minute before its heartbeats are counted.
    /// Therefore the beginning is logged only when an expired lease is kept as well, and the end
    /// after two runs.
    pub(super) fn record_preservation(&self, kept: usize) {
        let (instances, renewals) = (self.listing.size(), self.renewals());
        let now = if !self.settings.self_preservation {
            Preservation::Disabled
        } else if instances == 0 {
            Preservation::Inactive
        } else if self.settings.preservation_by_application {
            match &*self.preservation.preserved() {
                Preserved::All => Preservation::Active,
                Preserved::Applications(preserved) if preserved.is_empty() => Preservation::Inactive,
                Preserved::Applications(preserved) => Preservation::Partial(preserved.len()),
            }
        } else if renewals.last_minute > renewals.threshold {
            Preservation::Inactive
        } else {
            Preservation::Active
        };
        let mut last_run = self.preservation.last_run();
        last_run.state = now;
        last_run.inactive_runs = if now.is_active() { 0 } else { last_run.inactive_runs.saturating_add(1) };
        let before = last_run.logged;
        match before {
            None if now.is_active() && kept > 0 => last_run.logged = Some(now),
            Some(_) if now.is_active() => last_run.logged = Some(now),
            Some(_) if last_run.inactive_runs >= RUNS_TO_END => last_run.logged = None,
            _ => {}
        }
        let after = last_run.logged;
        drop(last_run);
        let Renewals { last_minute: received, threshold: expected } = renewals;
        match (before, after) {
            (None, Some(applications)) => {
                tracing::warn!(instances, expected, received, kept, %applications, "self-preservation began: expired leases are kept");
            }
            (Some(_), None) => {
                tracing::info!(instances, expected, received, "self-preservation ended: expired leases are evicted");
            }
            (Some(before), Some(applications)) if before != applications => {
                tracing::info!(instances, expected, received, kept, %applications, "self-preservation changed");
            }
            _ => {}
        }
    }

    /// Assesses which applications are preserved, if self-preservation works by application.
    pub(super) fn update_preserved(&self, now: i64) {
        if !(self.settings.self_preservation && self.settings.preservation_by_application) {
            return;
        }
        let mut applications = HashMap::<Arc<str>, LeaseCounts>::new();
        for shard in self.shards.iter() {
            for (app, _, lease) in shard.read().iter() {
                applications.entry(app.clone()).or_default().count(lease, now);
            }
        }
        let tallies = applications.into_iter().map(|(app, counts)| (app, counts.tally())).collect();
        let preserved = Preserved::of(tallies, self.settings.renewal_percent_threshold);
        let mut last = self.preservation.preserved();
        if *last != preserved
            && let Preserved::Applications(preserved) = &preserved
        {
            preserved.iter().for_each(|app| tracing::debug!(app = %Quoted(app), "application preserved"));
        }
        *last = preserved;
    }
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
    fn last_run(&self) -> MutexGuard<'_, LastRun> {
        self.last_run.lock()
    }

    fn preserved(&self) -> MutexGuard<'_, Preserved> {
        self.preserved.lock()
    }
}

impl Preserved {
    fn of(tallies: HashMap<Arc<str>, Tally>, percent: f64) -> Self {
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
    fn count(&mut self, lease: &Lease, now: i64) {
        self.instances += 1;
        if lease.is_silent(now) {
            self.silent += 1;
            let renewed_at = lease.renewed_at();
            self.silent_since = Some(self.silent_since.map_or(renewed_at, |since| since.min(renewed_at)));
        } else {
            self.up_at.push(lease.service_up_at());
        }
    }

    fn tally(self) -> Tally {
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

/// Returns the maximum number of heartbeats per minute at which nothing is evicted.
fn renewal_threshold(instances: usize, renewal_interval_secs: f64, percent: f64) -> u64 {
    (instances as f64 * (60.0 / renewal_interval_secs) * percent) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_threshold_equals_that_of_java() {
        for (instances, threshold) in
            [(0, 0), (1, 1), (2, 3), (3, 5), (6, 10), (7, 11), (10, 17), (18, 30), (51, 86), (151, 256)]
        {
            assert_eq!(renewal_threshold(instances, 30.0, 0.85), threshold, "{instances} instances");
        }
        assert_eq!(renewal_threshold(18, 15.0, 0.85), 61);
    }

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
