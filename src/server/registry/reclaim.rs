//! Eviction of silent instances for new ones in a full registry, also under self-preservation.
//!
//! Otherwise a few registrations with long leases that are never renewed would exclude all others.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use super::{Registry, limits};
use crate::model::Instance;
use crate::server::audit;
use crate::sync::Mutex;

/// Maximum number of silent leases that a search returns.
const MAX_CANDIDATES: usize = 1_000;
/// Minimum time between two searches. A search reads every lease.
const SEARCH_INTERVAL_MS: u64 = 1_000;

/// Application and instance id.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct State(Mutex<Silent>);

#[derive(Debug, Default)]
struct Silent {
    /// Silent leases of the last search, in the order of eviction.
    leases: VecDeque<Key>,
    searched_at: Option<i64>,
}

/// Number of instances and bytes by which a new instance exceeds the limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shortage {
    pub(super) instances: usize,
    pub(super) bytes: usize,
}

impl Registry {
    /// Evicts as many silent leases as are necessary to register a new instance, or none if they do
    /// not suffice. Must be called without a lock on a shard.
    pub(super) fn reclaim(&self, incoming: &Instance, now: i64) {
        let Some(shortage) = self.listing.shortage(incoming) else { return };
        if limits::check(incoming, &self.settings).is_err() {
            return;
        }
        let mut silent = self.silent.0.lock();
        let mut chosen = self.choose(&mut silent.leases, shortage, now);
        if chosen.is_empty() && silent.searched_at.is_none_or(|at| now.abs_diff(at) >= SEARCH_INTERVAL_MS) {
            silent.leases = self.search(now);
            silent.searched_at = Some(now);
            chosen = self.choose(&mut silent.leases, shortage, now);
        }
        for (app, id) in chosen {
            let mut leases = self.shards.write(&app, &id);
            if leases.get(&app, &id).is_none_or(|lease| lease.reclaim_order(now).is_none()) {
                continue;
            }
            let Some(lease) = leases.remove(&app, &id) else { continue };
            self.publish_removal(&lease, &id, self.at(now).published(), now);
            drop(leases);
            audit::evicted_silent(&app, &id, lease.instance().status);
            self.log_reclaimed();
        }
    }

    /// Removes the first leases that cover the shortage from the list and returns them. Returns
    /// none if all of them do not cover it.
    fn choose(&self, leases: &mut VecDeque<Key>, mut shortage: Shortage, now: i64) -> Vec<Key> {
        let mut chosen = Vec::new();
        while shortage.instances > 0 || shortage.bytes > 0 {
            let Some((app, id)) = leases.pop_front() else {
                leases.extend(chosen);
                return Vec::new();
            };
            let shard = self.shards.shard(&app, &id).read();
            let Some(lease) = shard.get(&app, &id).filter(|lease| lease.reclaim_order(now).is_some()) else { continue };
            shortage.instances = shortage.instances.saturating_sub(1);
            shortage.bytes = shortage.bytes.saturating_sub(lease.record().weight());
            drop(shard);
            chosen.push((app, id));
        }
        chosen
    }

    /// Returns the silent leases that are evicted first.
    fn search(&self, now: i64) -> VecDeque<Key> {
        let mut first = BinaryHeap::new();
        for shard in self.shards.iter() {
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
