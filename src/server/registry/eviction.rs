//! Eviction of expired leases, unless self-preservation keeps them: see `preservation`.
//!
//! The rules are in `docs/server.md`, "Eviction". Unlike in Java, a lease is checked again right
//! before it is removed (quirk S10).

use super::history::End;
use super::state::Registry;
use super::thresholds::eviction_limit;
use crate::server::audit;

/// Maximum number of evictions of one run with an info line each.
const EVICTIONS_SHOWN: usize = 10;

impl Registry {
    /// Evicts expired leases: in random order, and no more per run than the limit. Returns their
    /// number.
    pub(in crate::server) fn evict(&self, rng: &mut fastrand::Rng, now: i64) -> usize {
        let previous = self.evicted_at.lock().replace(now);
        self.update_preserved(now);
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
        self.record_preservation(kept, now);
        // The order of the shards depends on a random hash. Sorting makes a seed pick the same
        // leases.
        expired.sort_unstable();
        let limit = eviction_limit(self.listing.size(), self.settings.renewal_percent_threshold).min(expired.len());
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
            self.publish_eviction(&lease, id, now);
            self.ended(&lease, id, End::Evicted, now);
            drop(leases);
            evicted += 1;
            self.changes().counts().add_expired();
            audit::expired(app, id, lease.status(), evicted > EVICTIONS_SHOWN);
        }
        if evicted > EVICTIONS_SHOWN {
            audit::many_expired(evicted, EVICTIONS_SHOWN);
        }
        evicted
    }
}

/// Returns the delay of this run. Heartbeats may have been lost for as long, so leases are extended
/// by it.
fn compensation_ms(previous: Option<i64>, interval_ms: i64, now: i64) -> i64 {
    previous.map_or(0, |previous| now.saturating_sub(previous).saturating_sub(interval_ms).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compensation_of_a_late_run_is_its_delay() {
        for (previous, now, compensation) in
            [(None, 60_000, 0), (Some(0), 60_000, 0), (Some(0), 60_010, 10), (Some(0), 59_990, 0)]
        {
            assert_eq!(compensation_ms(previous, 60_000, now), compensation, "{previous:?} {now}");
        }
    }
}
