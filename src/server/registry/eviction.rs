//! Removing instances that fell silent, unless so many did that the fault is more likely the network's: self-preservation.
//!
//! `server-behaviour` 4.2 and 5. Unlike Java, the number of instances from which heartbeats are expected is the size of this
//! registry; a count of its own beside it went wrong in many ways there (13.3, items 9, 11, 12, 13). And a lease is looked at again
//! right before it is removed (item 10).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::Registry;

#[derive(Debug, Default)]
pub(super) struct State {
    renewals_last_minute: AtomicU64,
    last_run: Mutex<Option<i64>>,
}

impl Registry {
    /// Ends a minute of counting heartbeats. To be called every 60 s.
    pub(in crate::server) fn end_minute(&self) {
        self.eviction.renewals_last_minute.store(self.shards.take_renewals(), Relaxed);
    }

    /// Whether expired leases may be evicted: always without self-preservation, else while enough heartbeats come.
    pub(in crate::server) fn is_expiration_enabled(&self) -> bool {
        if !self.settings.self_preservation {
            return true;
        }
        let threshold = renewal_threshold(
            self.log.size(),
            self.settings.expected_renewal_interval.as_secs_f64(),
            self.settings.renewal_percent_threshold,
        );
        threshold > 0 && self.eviction.renewals_last_minute.load(Relaxed) > threshold
    }

    /// Evicts expired leases, at random and not too many at once. Returns how many.
    pub(in crate::server) fn evict(&self, rng: &mut fastrand::Rng, now: i64) -> usize {
        let previous = self.eviction.last_run.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if !self.is_expiration_enabled() {
            return 0;
        }
        let compensation = compensation_ms(previous, self.settings.eviction_interval_ms(), now);
        let mut expired = Vec::new();
        for shard in self.shards.iter() {
            let leases = shard.read();
            let found = leases.iter().filter(|(_, _, lease)| lease.is_expired(compensation, now));
            expired.extend(found.map(|(app, id, _)| (app.clone(), id.clone())));
        }
        // Shards come in the order of a random hash; with this the same seed picks the same leases.
        expired.sort_unstable();
        let limit = eviction_limit(self.log.size(), self.settings.renewal_percent_threshold).min(expired.len());
        let mut evicted = 0;
        for i in 0..limit {
            let picked = rng.usize(i..expired.len());
            expired.swap(i, picked);
            let (app, id) = &expired[i];
            let mut leases = self.shards.write(app, id);
            if !leases.get(app, id).is_some_and(|lease| lease.is_expired(compensation, now)) {
                continue;
            }
            if let Some(lease) = leases.remove(app, id) {
                self.withdraw(&lease, id, now);
            }
            drop(leases);
            evicted += 1;
            tracing::info!(%app, %id, "lease expired");
        }
        evicted
    }
}

/// Heartbeats per minute below which, or at which, nothing is evicted.
fn renewal_threshold(instances: usize, renewal_interval_secs: f64, percent: f64) -> u64 {
    (instances as f64 * (60.0 / renewal_interval_secs) * percent) as u64
}

/// How many leases may go in one run.
fn eviction_limit(instances: usize, percent: f64) -> usize {
    instances - ((instances as f64 * percent) as usize).min(instances)
}

/// How much later than planned this run is: for that long nobody may have been heard.
fn compensation_ms(previous: Option<i64>, interval_ms: i64, now: i64) -> i64 {
    previous.map_or(0, |previous| now.saturating_sub(previous).saturating_sub(interval_ms).max(0))
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

    #[test]
    fn the_cap_truncates_what_stays() {
        for (instances, limit) in [(0, 0), (1, 1), (5, 1), (6, 1), (7, 2), (10, 2), (20, 3), (100, 15)] {
            assert_eq!(eviction_limit(instances, 0.85), limit, "{instances} instances");
        }
    }

    #[test]
    fn only_a_late_run_is_compensated() {
        for (previous, now, compensation) in
            [(None, 60_000, 0), (Some(0), 60_000, 0), (Some(0), 60_010, 10), (Some(0), 59_990, 0)]
        {
            assert_eq!(compensation_ms(previous, 60_000, now), compensation, "{previous:?} {now}");
        }
    }
}
