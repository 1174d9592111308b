//! Recent changes, which the delta shows. See `docs/server.md`, "Delta".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::ActionType;
use crate::server::view::{AppView, Record};

/// Latest change of each instance that changed recently.
///
/// An instance that changes again moves to the end, so there is at most one entry for each
/// registered or recently deleted instance. A registered instance shares its record with the lists.
/// A deleted one is held only here, within a limit.
#[derive(Debug, Default)]
pub(super) struct RecentChanges {
    next: u64,
    /// Time, application and instance id of each change, oldest first.
    queue: BTreeMap<u64, (i64, Arc<str>, Arc<str>)>,
    applications: HashMap<Arc<str>, RecentApp>,
    /// Numbers of the changes that are deletions.
    deletions: BTreeSet<u64>,
    /// Weight of the records of all deletions.
    deleted_weight: usize,
}

#[derive(Debug)]
struct RecentApp {
    /// Number of the first change. Applications are listed in this order.
    since: u64,
    records: BTreeMap<u64, Arc<Record>>,
    by_id: HashMap<Arc<str>, u64>,
    view: Option<Arc<AppView>>,
}

impl RecentChanges {
    pub(super) fn push(&mut self, id: Arc<str>, record: Arc<Record>, now: i64) {
        let number = self.next;
        self.next += 1;
        let name = record.instance.app.clone();
        if record.instance.action == Some(ActionType::Deleted) {
            self.deletions.insert(number);
            self.deleted_weight += record.weight();
        }
        let application = self.applications.entry(name.clone()).or_insert_with(|| RecentApp {
            since: number,
            records: BTreeMap::new(),
            by_id: HashMap::new(),
            view: None,
        });
        application.view = None;
        application.records.insert(number, record);
        if let Some(old) = application.by_id.insert(id.clone(), number) {
            let replaced = application.records.remove(&old);
            self.queue.remove(&old);
            self.uncount_deletion(old, replaced);
        }
        self.queue.insert(number, (now, name, id));
    }

    /// Replaces the record of a listed instance, if it changed recently. It keeps its position.
    pub(super) fn replace(&mut self, id: &str, record: &Arc<Record>) {
        let Some(application) = self.applications.get_mut(&record.instance.app) else { return };
        let Some(number) = application.by_id.get(id) else { return };
        application.records.insert(*number, record.clone());
        application.view = None;
    }

    /// Replaces the records of all deletions by ones of the same weight. They keep their positions.
    pub(super) fn replace_deletions(&mut self, replacement: impl Fn(&Record) -> Arc<Record>) {
        for number in &self.deletions {
            let Some((_, name, _)) = self.queue.get(number) else { continue };
            let Some(application) = self.applications.get_mut(name) else { continue };
            let Some(record) = application.records.get_mut(number) else { continue };
            *record = replacement(record);
            application.view = None;
        }
    }

    /// Removes changes from before this time. Returns true if there were any.
    pub(super) fn prune(&mut self, before: i64) -> bool {
        let mut pruned = false;
        while let Some(oldest) = self.queue.first_entry().filter(|entry| entry.get().0 < before) {
            let number = *oldest.key();
            self.remove(number);
            pruned = true;
        }
        pruned
    }

    /// Removes the oldest deletions until the others weigh at most `limit`. Returns the number of
    /// removed deletions.
    ///
    /// A client that misses a deletion has one instance more than the registry, so its apps hash
    /// differs and it fetches the full registry. Changes of registered instances are never removed,
    /// since the hash does not always show them.
    pub(super) fn drop_deletions(&mut self, limit: usize) -> usize {
        let mut dropped = 0;
        while self.deleted_weight > limit
            && let Some(&oldest) = self.deletions.first()
        {
            self.remove(oldest);
            dropped += 1;
        }
        dropped
    }

    fn remove(&mut self, number: u64) {
        let Some((_, name, id)) = self.queue.remove(&number) else { return };
        let Some(application) = self.applications.get_mut(&name) else { return };
        application.view = None;
        let record = application.records.remove(&number);
        application.by_id.remove(&id);
        if application.records.is_empty() {
            self.applications.remove(&name);
        }
        self.uncount_deletion(number, record);
    }

    fn uncount_deletion(&mut self, number: u64, record: Option<Arc<Record>>) {
        if self.deletions.remove(&number) {
            self.deleted_weight -= record.map_or(0, |record| record.weight());
        }
    }

    pub(super) fn views(&mut self) -> Vec<Arc<AppView>> {
        let mut applications: Vec<_> = self.applications.iter_mut().collect();
        applications.sort_unstable_by_key(|(_, application)| application.since);
        applications
            .into_iter()
            .map(|(name, RecentApp { records, view, .. })| {
                view.get_or_insert_with(|| AppView::new(name.clone(), records.values().cloned().collect())).clone()
            })
            .collect()
    }
}

#[cfg(test)]
impl RecentChanges {
    pub(super) fn is_empty(&self) -> bool {
        let Self { queue, applications, deletions, deleted_weight, .. } = self;
        queue.is_empty() && applications.is_empty() && deletions.is_empty() && *deleted_weight == 0
    }

    /// Returns the weight of the records that no list shows.
    pub(super) fn deleted_weight(&self) -> usize {
        self.deleted_weight
    }
}
