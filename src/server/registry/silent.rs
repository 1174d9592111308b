//! Silent leases in the order in which a full registry evicts them.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use super::listing::Shortage;
use super::shards::Shards;

/// Maximum number of silent leases that a search returns.
const MAX_CANDIDATES: usize = 1_000;
/// Minimum time between two searches. A search reads every lease.
const SEARCH_INTERVAL_MS: u64 = 1_000;

/// Application and instance id.
pub(super) type Key = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Silent {
    /// Silent leases of the last search, in the order of eviction.
    leases: VecDeque<Key>,
    searched_at: Option<i64>,
}

impl Silent {
    /// Removes leases that cover the shortage and returns them. Searches for silent leases if the
    /// known ones do not cover it. Returns none if the found ones do not cover it either.
    pub(super) fn take(&mut self, shards: &Shards, shortage: Shortage, now: i64) -> Vec<Key> {
        let chosen = self.choose(shards, shortage, now);
        let is_due = self.searched_at.is_none_or(|at| now.abs_diff(at) >= SEARCH_INTERVAL_MS);
        if !(chosen.is_empty() && is_due) {
            return chosen;
        }
        self.leases = Self::search(shards, now);
        self.searched_at = Some(now);
        self.choose(shards, shortage, now)
    }

    /// Removes the first leases that cover the shortage from the list and returns them. Returns
    /// none if all of them do not cover it.
    fn choose(&mut self, shards: &Shards, mut shortage: Shortage, now: i64) -> Vec<Key> {
        let mut chosen = Vec::new();
        while shortage.instances > 0 || shortage.bytes > 0 {
            let Some((app, id)) = self.leases.pop_front() else {
                self.leases.extend(chosen);
                return Vec::new();
            };
            let shard = shards.shard(&app, &id).read();
            let Some(lease) = shard.get(&app, &id).filter(|lease| lease.reclaim_order(now).is_some()) else { continue };
            shortage.instances = shortage.instances.saturating_sub(1);
            shortage.bytes = shortage.bytes.saturating_sub(lease.record().weight());
            drop(shard);
            chosen.push((app, id));
        }
        chosen
    }

    /// Returns the silent leases that are evicted first.
    fn search(shards: &Shards, now: i64) -> VecDeque<Key> {
        let mut first = BinaryHeap::new();
        for shard in shards.iter() {
            for (app, id, lease) in shard.read().iter() {
                let Some(position) = lease.reclaim_order(now) else { continue };
                first.push((position, app.clone(), id.clone()));
                if first.len() > MAX_CANDIDATES {
                    first.pop();
                }
            }
        }
        first.into_sorted_vec().into_iter().map(|(_, app, id)| (app, id)).collect()
    }
}
