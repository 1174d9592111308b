//! When silence is more likely the network's fault than the instances': self-preservation. `server-behaviour` 5.
//!
//! There are two rules, and a setting says which of them holds.
//!
//! * **As in Java**: all instances together have to send more than a share of the heartbeats that they would send in a minute if each
//!   kept the one interval that is expected of all. Below that nothing is evicted. Unlike in Java, the number of instances is the size of this
//!   registry; a count of its own beside it went wrong in many ways there (13.3, items 9, 11, 12, 13).
//! * **By application**: an instance has fallen silent when its lease is expired, or when two of the intervals that it announced itself
//!   went by without a heartbeat. An application is preserved while more of its instances are silent than one eviction run may take of
//!   so many (at least one, so that one of two can go). The instances of all other applications are judged together in the same way,
//!   since one of one says nothing; where none of them is heard, they are preserved, too. Those who were replaced do not count as
//!   silent: as many as are heard that came UP for the first time after the oldest silence of their application began. So instances
//!   that were killed and came back under other ids go, however many they were.
//!
//! The second is judged once, at the beginning of an eviction run, and holds until the next; before the first nothing is evicted. It counts
//! instances, not heartbeats: of those, one instance that sends every second would make up for thirty that are gone.

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
    verdict: Mutex<Verdict>,
    /// As of the last eviction run.
    seen: Mutex<Seen>,
}

/// Self-preservation as of the last eviction run, and as the log has it.
#[derive(Debug, Default)]
struct Seen {
    now: Preservation,
    /// State that was logged last. `None` unless the log says that self-preservation holds.
    logged: Option<Preservation>,
    /// Number of eviction runs in a row that were not preserved.
    inactive_runs: usize,
}

/// Number of eviction runs in a row without self-preservation after which its end is logged.
const RUNS_TO_END: usize = 2;

/// Self-preservation as of the last eviction run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::server) enum Preservation {
    /// A setting switches it off.
    Disabled,
    /// Every lease that expires ends.
    #[default]
    Inactive,
    /// So many applications keep their expired leases.
    Partial(usize),
    /// No lease ends.
    Active,
}

impl Preservation {
    /// Returns true while some expired leases do not end.
    pub(in crate::server) fn is_active(self) -> bool {
        matches!(self, Self::Partial(_) | Self::Active)
    }
}

/// Heartbeats of the registry, which decide whether all of it is preserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Renewals {
    pub(in crate::server) last_minute: u64,
    /// The last number of heartbeats that is too few.
    pub(in crate::server) threshold: u64,
}

/// Which applications may lose what has expired.
#[derive(Debug, Default, PartialEq)]
enum Verdict {
    #[default]
    None,
    AllBut(HashSet<Arc<str>>),
}

/// Whom an application has.
#[derive(Debug, Default)]
struct Census {
    instances: usize,
    silent: usize,
    /// When the first of the silent was heard for the last time.
    silent_since: Option<i64>,
    /// When those who are heard came UP for the first time.
    up_at: Vec<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    instances: usize,
    silent: usize,
    /// Of the silent, those in whose place others came.
    replaced: usize,
}

impl Registry {
    /// Ends a minute of counting heartbeats. To be called every 60 s.
    pub(in crate::server) fn end_minute(&self) {
        self.preservation.renewals_last_minute.store(self.shards.take_renewals(), Relaxed);
    }

    /// Returns true if expired leases of an application may be evicted: always without self-preservation.
    pub(super) fn is_expiration_enabled(&self, app: &str) -> bool {
        if !self.settings.self_preservation {
            return true;
        }
        if self.settings.preservation_by_application {
            return match &*self.preservation.verdict() {
                Verdict::None => false,
                Verdict::AllBut(preserved) => !preserved.contains(app),
            };
        }
        let Renewals { last_minute, threshold } = self.renewals();
        threshold > 0 && last_minute > threshold
    }

    /// Heartbeats of the last minute, and how many are too few for as many instances as there are.
    pub(in crate::server) fn renewals(&self) -> Renewals {
        let threshold = renewal_threshold(
            self.log.size(),
            self.settings.expected_renewal_interval.as_secs_f64(),
            self.settings.renewal_percent_threshold,
        );
        Renewals { last_minute: self.preservation.renewals_last_minute.load(Relaxed), threshold }
    }

    /// Self-preservation as of the last eviction run.
    pub(in crate::server) fn preservation(&self) -> Preservation {
        self.preservation.seen().now
    }

    /// Records the state of self-preservation and logs its changes. To be called once in each eviction
    /// run, with the number of expired leases that the run keeps.
    ///
    /// Few heartbeats alone are no reason for a warning: a minute of a small registry often has one
    /// less, and the threshold follows a new instance a minute before its heartbeats are counted. So
    /// the beginning is logged once an expired lease is kept as well, and the end after two runs.
    pub(super) fn watch_preservation(&self, kept: usize) {
        let (instances, renewals) = (self.log.size(), self.renewals());
        let now = if !self.settings.self_preservation {
            Preservation::Disabled
        } else if instances == 0 {
            Preservation::Inactive
        } else if self.settings.preservation_by_application {
            match &*self.preservation.verdict() {
                Verdict::None => Preservation::Active,
                Verdict::AllBut(preserved) if preserved.is_empty() => Preservation::Inactive,
                Verdict::AllBut(preserved) => Preservation::Partial(preserved.len()),
            }
        } else if renewals.last_minute > renewals.threshold {
            Preservation::Inactive
        } else {
            Preservation::Active
        };
        let mut seen = self.preservation.seen();
        seen.now = now;
        seen.inactive_runs = if now.is_active() { 0 } else { seen.inactive_runs.saturating_add(1) };
        let before = seen.logged;
        match before {
            None if now.is_active() && kept > 0 => seen.logged = Some(now),
            Some(_) if now.is_active() => seen.logged = Some(now),
            Some(_) if seen.inactive_runs >= RUNS_TO_END => seen.logged = None,
            _ => {}
        }
        let after = seen.logged;
        drop(seen);
        let Renewals { last_minute: received, threshold: expected } = renewals;
        match (before, after) {
            (None, Some(applications)) => {
                tracing::warn!(instances, expected, received, kept, %applications, "self-preservation began: expired leases do not end");
            }
            (Some(_), None) => {
                tracing::info!(instances, expected, received, "self-preservation ended: expired leases end again");
            }
            (Some(before), Some(applications)) if before != applications => {
                tracing::info!(instances, expected, received, kept, %applications, "self-preservation changed");
            }
            _ => {}
        }
    }

    /// Judges anew which applications are preserved, where that is a question of each.
    pub(super) fn judge(&self, now: i64) {
        if !(self.settings.self_preservation && self.settings.preservation_by_application) {
            return;
        }
        let mut applications = HashMap::<Arc<str>, Census>::new();
        for shard in self.shards.iter() {
            for (app, _, lease) in shard.read().iter() {
                applications.entry(app.clone()).or_default().count(lease, now);
            }
        }
        let tallies = applications.into_iter().map(|(app, census)| (app, census.tally())).collect();
        let verdict = Verdict::of(tallies, self.settings.renewal_percent_threshold);
        let mut last = self.preservation.verdict();
        if *last != verdict
            && let Verdict::AllBut(preserved) = &verdict
        {
            preserved.iter().for_each(|app| tracing::debug!(app = %Quoted(app), "application preserved"));
        }
        *last = verdict;
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
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    fn verdict(&self) -> MutexGuard<'_, Verdict> {
        self.verdict.lock()
    }
}

impl Verdict {
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
            return Self::None;
        }
        Self::AllBut(preserved)
    }
}

impl Census {
    fn count(&mut self, lease: &Lease, now: i64) {
        self.instances += 1;
        if lease.is_silent(now) {
            self.silent += 1;
            let heard_at = lease.heard_at();
            self.silent_since = Some(self.silent_since.map_or(heard_at, |since| since.min(heard_at)));
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

/// Heartbeats per minute below which, or at which, nothing is evicted.
fn renewal_threshold(instances: usize, renewal_interval_secs: f64, percent: f64) -> u64 {
    (instances as f64 * (60.0 / renewal_interval_secs) * percent) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_of_java() {
        for (instances, threshold) in
            [(0, 0), (1, 1), (2, 3), (3, 5), (6, 10), (7, 11), (10, 17), (18, 30), (51, 86), (151, 256)]
        {
            assert_eq!(renewal_threshold(instances, 30.0, 0.85), threshold, "{instances} instances");
        }
        assert_eq!(renewal_threshold(18, 15.0, 0.85), 61);
    }

    type Fleet = &'static [(usize, usize)];

    #[test]
    fn each_application_is_judged_and_the_small_ones_together() {
        // Applications A, B, ... as (instances, silent), and those that are preserved.
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
            // Half of the registry is cut off, in one application: the others are none the worse.
            (&[(100, 100), (50, 1), (50, 7)], Some("A")),
            (&[(10, 3), (3, 1), (20, 20)], Some("AC")),
            (&[(10, 3), (1, 1)], None),
            // Alone each of them could be gone; together they are too many, unless there are more that are heard.
            (&[(1, 1), (1, 1), (1, 0), (1, 0)], None),
            (&[(1, 1), (1, 1), (10, 0)], Some("")),
            (&[(10, 10), (10, 10)], None),
        ];
        for (applications, expected) in table {
            let names = ('A'..).map(|name| Arc::<str>::from(name.to_string()));
            let tallies = applications.iter().map(|&(instances, silent)| Tally { instances, silent, replaced: 0 });
            let verdict = Verdict::of(names.zip(tallies).collect(), 0.85);
            let expected = expected.map_or(Verdict::None, |names| {
                Verdict::AllBut(names.chars().map(|name| name.to_string().into()).collect())
            });
            assert_eq!(verdict, expected, "{applications:?}");
        }
    }

    #[test]
    fn who_was_replaced_is_not_implausible() {
        // Instances, silent, the oldest silence, when those who are heard came up, and whether it is too much.
        let table: [(usize, usize, i64, &[i64], bool); 7] = [
            (10, 5, 100, &[1, 1, 1, 1, 1], true),
            (10, 5, 100, &[1, 1, 101, 101, 101], false),
            (10, 5, 100, &[1, 1, 1, 101, 101], true),
            (10, 5, 100, &[1, 1, 100, 100, 100], true),
            (20, 10, 100, &[200; 10], false),
            // There can be more new ones than gone.
            (20, 2, 100, &[200; 18], false),
            (2, 2, 100, &[], true),
        ];
        for (instances, silent, since, up_at, implausible) in table {
            let census = Census { instances, silent, silent_since: Some(since), up_at: up_at.to_vec() };
            let tally = census.tally();
            assert_eq!(tally.is_implausible(0.85), implausible, "{instances} {silent} {up_at:?}");
        }
    }
}
