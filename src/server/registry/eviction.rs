//! Removing instances that fell silent, unless so many did that the fault is more likely the network's: see `preservation`.
//!
//! `server-behaviour` 4.2. Unlike in Java, a lease is looked at again right before it is removed (13.3, item 10).

use super::Registry;
use crate::server::audit;
use crate::sync::Mutex;

/// Maximum number of evictions of one run with an info line each.
const EVICTIONS_SHOWN: usize = 10;

/// When the last run was.
#[derive(Debug, Default)]
pub(super) struct State(Mutex<Option<i64>>);

impl Registry {
    /// Evicts expired leases, at random and not too many at once. Returns how many.
    pub(in crate::server) fn evict(&self, rng: &mut fastrand::Rng, now: i64) -> usize {
        let previous = self.eviction.0.lock().replace(now);
        self.judge(now);
        let compensation = compensation_ms(previous, self.settings.eviction_interval_ms(), now);
        let (mut expired, mut kept) = (Vec::new(), 0);
        for shard in self.shards.iter() {
            for (app, id, _) in shard.read().iter().filter(|(_, _, lease)| lease.is_expired(compensation, now)) {
                if self.is_expiration_enabled(app) {
                    expired.push((app.clone(), id.clone()));
                } else {
                    kept += 1;
                }
            }
        }
        self.watch_preservation(kept);
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
            let Some(lease) = leases.remove(app, id) else { continue };
            self.withdraw(&lease, id, self.at(now).published(), now);
            drop(leases);
            evicted += 1;
            audit::expired(app, id, lease.instance().status, evicted > EVICTIONS_SHOWN);
        }
        if evicted > EVICTIONS_SHOWN {
            audit::many_expired(evicted, EVICTIONS_SHOWN);
        }
        evicted
    }
}

/// How many leases of so many may go in one run.
pub(super) fn eviction_limit(instances: usize, percent: f64) -> usize {
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
