//! Silent leases in the order in which a full registry evicts them.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use super::lease::Lease;
use super::listing::{Among, Listing, Shortage};
use super::shards::Shards;

/// Maximum number of silent leases that a search returns.
const MAX_CANDIDATES: usize = 1_000;
/// Minimum time between two searches among all leases, or among those of one application.
const SEARCH_INTERVAL_MS: u64 = 1_000;
/// Minimum time between two searches in applications, whichever they are.
const APPLICATION_INTERVAL_MS: u64 = 100;
/// Maximum number of lists, one for each full application and two for the registry.
const MAX_LISTS: usize = 16;

/// Application and instance id.
pub(super) type Key = (Arc<str>, Arc<str>);

/// Results of the last searches, the last used one at the end.
#[derive(Debug, Default)]
pub(super) struct Silent {
    lists: Vec<List>,
    /// Time of the last search in an application.
    searched_at: Option<i64>,
}

/// Silent leases of the last search, in the order of eviction.
#[derive(Debug)]
struct List {
    among: Among,
    leases: VecDeque<Key>,
    searched_at: Option<i64>,
}

impl Silent {
    /// Removes leases that cover the shortage and returns them. Searches for silent leases if the
    /// known ones do not cover it. Returns none if the found ones do not cover it either.
    pub(super) fn take(&mut self, shards: &Shards, listing: &Listing, shortage: &Shortage, now: i64) -> Vec<Key> {
        let mut list = self.remove(&shortage.among);
        let mut chosen = list.choose(shards, listing, shortage, now);
        let is_over = |at: Option<i64>, interval| at.is_none_or(|at| now.abs_diff(at) >= interval);
        let is_application = matches!(shortage.among, Among::Application(_));
        let is_due = is_over(list.searched_at, SEARCH_INTERVAL_MS)
            && (!is_application || is_over(self.searched_at, APPLICATION_INTERVAL_MS));
        if chosen.is_empty() && is_due {
            list.leases = search(shards, listing, &shortage.among, now);
            list.searched_at = Some(now);
            if is_application {
                self.searched_at = Some(now);
            }
            chosen = list.choose(shards, listing, shortage, now);
        }
        self.lists.push(list);
        chosen
    }

    /// Removes the list of these leases, or creates it. Drops the list that was not used for
    /// longest if there are too many.
    fn remove(&mut self, among: &Among) -> List {
        match self.lists.iter().position(|list| list.among == *among) {
            Some(at) => self.lists.remove(at),
            None => {
                if self.lists.len() >= MAX_LISTS {
                    self.lists.remove(0);
                }
                List { among: among.clone(), leases: VecDeque::new(), searched_at: None }
            }
        }
    }
}

impl List {
    /// Removes the first leases that cover the shortage from the list and returns them. Returns
    /// none if all of them do not cover it.
    fn choose(&mut self, shards: &Shards, listing: &Listing, shortage: &Shortage, now: i64) -> Vec<Key> {
        let (mut instances, mut bytes, mut chosen) = (shortage.instances, shortage.bytes, Vec::new());
        while instances > 0 || bytes > 0 {
            let Some((app, id)) = self.leases.pop_front() else {
                self.leases.extend(chosen);
                return Vec::new();
            };
            if !listing.is_among(&self.among, &app) {
                continue;
            }
            let shard = shards.shard(&app, &id).read();
            let Some(lease) = shard.get(&app, &id).filter(|lease| lease.reclaim_order(now).is_some()) else { continue };
            instances = instances.saturating_sub(1);
            bytes = bytes.saturating_sub(lease.record().weight());
            drop(shard);
            chosen.push((app, id));
        }
        chosen
    }
}

/// Returns the silent leases that are evicted first.
fn search(shards: &Shards, listing: &Listing, among: &Among, now: i64) -> VecDeque<Key> {
    let mut first = BinaryHeap::new();
    let mut consider = |app: &Arc<str>, id: &Arc<str>, lease: &Lease| {
        let Some(position) = lease.reclaim_order(now) else { return };
        if listing.is_among(among, app) {
            first.push((position, app.clone(), id.clone()));
            if first.len() > MAX_CANDIDATES {
                first.pop();
            }
        }
    };
    if let Among::Application(app) = among {
        for id in listing.ids_of(app) {
            if let Some(lease) = shards.shard(app, &id).read().get(app, &id) {
                consider(app, &id, lease);
            }
        }
    } else {
        for shard in shards.iter() {
            shard.read().iter().for_each(|(app, id, lease)| consider(app, id, lease));
        }
    }
    first.into_sorted_vec().into_iter().map(|(_, app, id)| (app, id)).collect()
}
