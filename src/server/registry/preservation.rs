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

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::preserved::{LeaseCounts, Preservation, Preserved, Renewals};
use super::state::Registry;
use super::thresholds::{expected_renewals, renewal_threshold};
use crate::server::audit::Quoted;
use crate::server::events::ServerEvent;

/// Number of consecutive eviction runs without self-preservation after which its end is logged.
const RUNS_TO_END: usize = 2;

impl Registry {
    /// Ends a minute of counting heartbeats. Must be called every 60 seconds.
    pub(in crate::server) fn end_minute(&self) {
        let total = self.shards.renewals();
        let before = self.preservation.renewals_before.swap(total, Relaxed);
        self.preservation.renewals_last_minute.store(total - before, Relaxed);
        if !self.settings.preservation_by_application {
            self.preservation.last_run().is_assessed = true;
        }
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
        let Renewals { last_minute, threshold, .. } = self.renewals();
        threshold > 0 && last_minute > threshold
    }

    /// Returns the heartbeats of the last minute, and those that are expected and needed for the
    /// current number of instances.
    pub(in crate::server) fn renewals(&self) -> Renewals {
        let interval = self.settings.expected_renewal_interval;
        let expected = expected_renewals(self.listing.size(), interval.as_secs_f64());
        Renewals {
            last_minute: self.preservation.renewals_last_minute.load(Relaxed),
            expected: expected as u64,
            threshold: renewal_threshold(expected, self.settings.renewal_percent_threshold),
        }
    }

    /// Returns the number of heartbeats since the start that renewed a lease.
    #[cfg(feature = "prometheus")]
    pub(in crate::server) fn renewals_total(&self) -> u64 {
        self.shards.renewals()
    }

    /// Returns true if self-preservation is enabled.
    #[cfg(feature = "prometheus")]
    pub(in crate::server) fn has_self_preservation(&self) -> bool {
        self.settings.self_preservation
    }

    /// Returns the number of expired leases that self-preservation kept in the last eviction run.
    #[cfg(any(feature = "page", feature = "prometheus"))]
    pub(in crate::server) fn kept_leases(&self) -> usize {
        self.preservation.last_run().kept
    }

    /// Returns the present state of self-preservation: the effect of an eviction run now.
    ///
    /// A registry without instances has nothing to preserve. Nothing is evicted before the first
    /// minute of heartbeats, or before the first run, but that is no sign of a fault.
    pub(in crate::server) fn preservation(&self) -> Preservation {
        if !self.settings.self_preservation {
            return Preservation::Disabled;
        }
        if self.listing.size() == 0 || !self.preservation.last_run().is_assessed {
            return Preservation::Inactive;
        }
        if self.settings.preservation_by_application {
            return match &*self.preservation.preserved() {
                Preserved::All => Preservation::Active,
                Preserved::Applications(preserved) if preserved.is_empty() => Preservation::Inactive,
                Preserved::Applications(preserved) => Preservation::Partial(preserved.len()),
            };
        }
        let Renewals { last_minute, threshold, .. } = self.renewals();
        if last_minute > threshold { Preservation::Inactive } else { Preservation::Active }
    }

    /// Returns the time of the eviction run in which self-preservation became active. `None` while
    /// it is not.
    #[cfg(feature = "page")]
    pub(in crate::server) fn preservation_since(&self) -> Option<i64> {
        self.preservation.last_run().active_since
    }

    /// Records the state of self-preservation and logs its changes. Must be called once in each
    /// eviction run, with the number of expired leases that the run keeps.
    ///
    /// Too few heartbeats alone cause no warning: a minute of a small registry often has one less,
    /// and the threshold follows a new instance a minute before its heartbeats are counted.
    /// Therefore the beginning is logged only when an expired lease is kept as well, and the end
    /// after two runs.
    pub(super) fn record_preservation(&self, kept: usize, now_ms: i64) {
        self.preservation.last_run().is_assessed = true;
        let (instances, renewals, now) = (self.listing.size(), self.renewals(), self.preservation());
        let mut last_run = self.preservation.last_run();
        last_run.kept = kept;
        last_run.active_since = if now.is_active() { last_run.active_since.or(Some(now_ms)) } else { None };
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
        let Renewals { last_minute: received, expected, threshold } = renewals;
        match (before, after) {
            (None, Some(applications)) => {
                self.events.send(|| ServerEvent::PreservationOn { kept });
                tracing::warn!(instances, expected, threshold, received, kept, %applications, "self-preservation began: expired leases are kept");
            }
            (Some(_), None) => {
                self.events.send(|| ServerEvent::PreservationOff);
                tracing::info!(
                    instances,
                    expected,
                    threshold,
                    received,
                    "self-preservation ended: expired leases are evicted"
                );
            }
            (Some(before), Some(applications)) if before != applications => {
                tracing::info!(instances, expected, threshold, received, kept, %applications, "self-preservation changed");
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
