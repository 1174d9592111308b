//! The latest change of every instance that changed lately, which the delta shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::ActionType;
use crate::server::view::{AppView, Record};

/// The latest change of every instance that changed lately. `server-behaviour` 6.
///
/// An instance that changes again moves to the end, so the list is never longer than what lives or left lately. What lives shares its record
/// with the lists; what left is kept here alone, within a limit.
#[derive(Debug, Default)]
pub(super) struct Recent {
    next: u64,
    /// Oldest first: when it was, and of which instance.
    queue: BTreeMap<u64, (i64, Arc<str>, Arc<str>)>,
    applications: HashMap<Arc<str>, RecentApp>,
    /// The changes that are the end of an instance.
    deletions: BTreeSet<u64>,
    /// Weight of their records.
    deleted: usize,
}

#[derive(Debug)]
struct RecentApp {
    /// Applications are listed in the order in which they turned up.
    since: u64,
    records: BTreeMap<u64, Arc<Record>>,
    by_id: HashMap<Arc<str>, u64>,
    view: Option<Arc<AppView>>,
}

impl Recent {
    pub(super) fn push(&mut self, id: Arc<str>, record: Arc<Record>, now: i64) {
        let number = self.next;
        self.next += 1;
        let name = record.instance.app.clone();
        if record.instance.action == Some(ActionType::Deleted) {
            self.deletions.insert(number);
            self.deleted += record.weight();
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
            self.forget_deletion(old, replaced);
        }
        self.queue.insert(number, (now, name, id));
    }

    /// Forgets changes from before this time. Returns true if there were any.
    pub(super) fn prune(&mut self, before: i64) -> bool {
        let mut pruned = false;
        while let Some(oldest) = self.queue.first_entry().filter(|entry| entry.get().0 < before) {
            let number = *oldest.key();
            self.forget(number);
            pruned = true;
        }
        pruned
    }

    /// Forgets the oldest ends of instances until the others weigh at most this much. Returns their
    /// number.
    ///
    /// A client that saw such an instance and misses its end has one instance more than the registry,
    /// so it finds another apps hash and fetches everything. A change of an instance that lives would
    /// not always show in the hash, so none is forgotten.
    pub(super) fn forget_deletions(&mut self, limit: usize) -> usize {
        let mut forgotten = 0;
        while self.deleted > limit
            && let Some(&oldest) = self.deletions.first()
        {
            self.forget(oldest);
            forgotten += 1;
        }
        forgotten
    }

    fn forget(&mut self, number: u64) {
        let Some((_, name, id)) = self.queue.remove(&number) else { return };
        let Some(application) = self.applications.get_mut(&name) else { return };
        application.view = None;
        let record = application.records.remove(&number);
        application.by_id.remove(&id);
        if application.records.is_empty() {
            self.applications.remove(&name);
        }
        self.forget_deletion(number, record);
    }

    fn forget_deletion(&mut self, number: u64, record: Option<Arc<Record>>) {
        if self.deletions.remove(&number) {
            self.deleted -= record.map_or(0, |record| record.weight());
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
impl Recent {
    pub(super) fn is_empty(&self) -> bool {
        let Self { queue, applications, deletions, deleted, .. } = self;
        queue.is_empty() && applications.is_empty() && deletions.is_empty() && *deleted == 0
    }

    /// Weight of the records that no list shows.
    pub(super) fn deleted(&self) -> usize {
        self.deleted
    }
}
