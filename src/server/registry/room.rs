//! Room for new instances in a full registry: silent ones give way, also under self-preservation.
//!
//! Otherwise a few registrations with long leases, which nobody renews, would keep all others out.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use super::{Registry, limits};
use crate::model::Instance;
use crate::server::audit;
use crate::sync::Mutex;

/// Maximum number of silent leases that are remembered between two searches.
const REMEMBERED: usize = 1_000;
/// Minimum time between two searches, which look at every lease.
const SEARCH_INTERVAL_MS: u64 = 1_000;

/// Application and id.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct State(Mutex<Silent>);

#[derive(Debug, Default)]
struct Silent {
    /// Silent leases as of the last search, in the order in which they give way.
    leases: VecDeque<Key>,
    searched_at: Option<i64>,
}

/// Room that a new instance lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lack {
    pub(super) instances: usize,
    pub(super) bytes: usize,
}

impl Registry {
    /// Ends as many silent leases as a new instance needs to have room. Ends none if they do not
    /// suffice. To be called without a lock on a shard.
    pub(super) fn make_room(&self, incoming: &Instance, now: i64) {
        let Some(lack) = self.log.lack(incoming) else { return };
        if limits::check(incoming, &self.settings).is_err() {
            return;
        }
        let mut silent = self.silent.0.lock();
        let mut chosen = self.choose(&mut silent.leases, lack, now);
        if chosen.is_empty() && silent.searched_at.is_none_or(|at| now.abs_diff(at) >= SEARCH_INTERVAL_MS) {
            silent.leases = self.search(now);
            silent.searched_at = Some(now);
            chosen = self.choose(&mut silent.leases, lack, now);
        }
        for (app, id) in chosen {
            let mut leases = self.shards.write(&app, &id);
            if leases.get(&app, &id).is_none_or(|lease| lease.silence(now).is_none()) {
                continue;
            }
            let Some(lease) = leases.remove(&app, &id) else { continue };
            self.withdraw(&lease, &id, self.at(now).published(), now);
            drop(leases);
            audit::gave_way(&app, &id, lease.instance().status);
            self.log_gave_way();
        }
    }

    /// Takes the first leases that suffice from the list, and none if all do not.
    fn choose(&self, leases: &mut VecDeque<Key>, mut lack: Lack, now: i64) -> Vec<Key> {
        let mut chosen = Vec::new();
        while lack.instances > 0 || lack.bytes > 0 {
            let Some((app, id)) = leases.pop_front() else {
                leases.extend(chosen);
                return Vec::new();
            };
            let shard = self.shards.shard(&app, &id).read();
            let Some(lease) = shard.get(&app, &id).filter(|lease| lease.silence(now).is_some()) else { continue };
            lack.instances = lack.instances.saturating_sub(1);
            lack.bytes = lack.bytes.saturating_sub(lease.record().weight());
            drop(shard);
            chosen.push((app, id));
        }
        chosen
    }

    /// Returns the leases that give way first.
    fn search(&self, now: i64) -> VecDeque<Key> {
        let mut first = BinaryHeap::new();
        for shard in self.shards.iter() {
            for (app, id, lease) in shard.read().iter() {
                let Some(silence) = lease.silence(now) else { continue };
                first.push((silence, app.clone(), id.clone()));
                if first.len() > REMEMBERED {
                    first.pop();
                }
            }
        }
        first.into_sorted_vec().into_iter().map(|(_, app, id)| (app, id)).collect()
    }
}
