//! What readers of lists see, and what changed lately. All writers pass here, one after the other; heartbeats do not.
//!
//! The registry has one, and each copy of another region.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::view::{AppView, Record, Snapshot};
use crate::model::{Digest, StatusCounts};

/// The `versions__delta` of every full answer.
const FULL_VERSION: i64 = 1;

#[derive(Debug, Default)]
pub(in crate::server) struct Log {
    published: Mutex<Published>,
    /// Copies of what the mutex guards, for readers that only ask whether anything is new.
    revision: AtomicU64,
    delta_revision: AtomicU64,
    size: AtomicUsize,
}

#[derive(Debug, Default)]
struct Published {
    applications: BTreeMap<Arc<str>, Listed>,
    counts: StatusCounts,
    digest: Digest,
    recent: Recent,
    full: Option<Arc<Snapshot>>,
    delta: Option<Arc<Snapshot>>,
    deltas: i64,
}

#[derive(Debug, Default)]
struct Listed {
    instances: BTreeMap<Arc<str>, Arc<Record>>,
    view: Option<Arc<AppView>>,
}

impl Log {
    /// Publishes an instance, new or changed.
    pub(in crate::server) fn put(&self, id: Arc<str>, record: Arc<Record>, now: i64) {
        self.put_within(usize::MAX, id, record, now);
    }

    /// Publishes an instance, unless it were one more than `limit` in its application.
    pub(super) fn put_within(&self, limit: usize, id: Arc<str>, record: Arc<Record>, now: i64) -> bool {
        // Before the lock is taken, as others wait for it.
        let new = record.digest();
        let mut published = self.lock();
        let Published { applications, counts, digest, recent, .. } = &mut *published;
        let application = applications.entry(record.instance.app.clone()).or_default();
        if application.instances.len() >= limit && !application.instances.contains_key(&id) {
            return false;
        }
        application.view = None;
        counts.add(record.instance.status);
        digest.add(new);
        if let Some(old) = application.instances.insert(id.clone(), record.clone()) {
            counts.remove(old.instance.status);
            digest.remove(old.digest());
        }
        recent.push(id, record, now);
        self.changed(&mut published);
        true
    }

    /// Publishes the end of an instance; `record` is its last state, as the delta shows it.
    pub(in crate::server) fn remove(&self, id: &str, record: Arc<Record>, now: i64) {
        let mut published = self.lock();
        let Published { applications, counts, digest, recent, .. } = &mut *published;
        let name = &record.instance.app;
        if let Some(application) = applications.get_mut(name) {
            application.view = None;
            if let Some(old) = application.instances.remove(id) {
                counts.remove(old.instance.status);
                digest.remove(old.digest());
            }
            if application.instances.is_empty() {
                applications.remove(name);
            }
        }
        recent.push(id.into(), record, now);
        self.changed(&mut published);
    }

    /// Forgets changes from before this time.
    pub(in crate::server) fn prune(&self, before: i64) {
        let mut published = self.lock();
        if published.recent.prune(before) {
            published.delta = None;
            self.delta_revision.fetch_add(1, Ordering::Release);
        }
    }

    pub(in crate::server) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(in crate::server) fn delta_revision(&self) -> u64 {
        self.delta_revision.load(Ordering::Acquire)
    }

    /// How many instances there are.
    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    pub(in crate::server) fn full(&self) -> Arc<Snapshot> {
        self.full_of(&mut self.lock())
    }

    pub(super) fn delta(&self) -> Arc<Snapshot> {
        self.delta_of(&mut self.lock())
    }

    /// What all of these show at one moment, each everything and the delta. Of logs that are looked at together by others as well the order
    /// must be the same.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn at_one_moment<'a>(
        logs: impl Iterator<Item = &'a Self>,
    ) -> Vec<(Arc<Snapshot>, Arc<Snapshot>)> {
        let mut locked: Vec<_> = logs.map(|log| (log, log.lock())).collect();
        locked.iter_mut().map(|(log, published)| (log.full_of(published), log.delta_of(published))).collect()
    }

    /// One instance.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn record(&self, app: &str, id: &str) -> Option<Arc<Record>> {
        self.lock().applications.get(app)?.instances.get(id).cloned()
    }

    /// The first instance with this id, whatever its application.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn record_by_id(&self, id: &str) -> Option<Arc<Record>> {
        self.lock().applications.values().find_map(|listed| listed.instances.get(id)).cloned()
    }

    fn full_of(&self, published: &mut Published) -> Arc<Snapshot> {
        let Published { applications, counts, digest, full, .. } = published;
        full.get_or_insert_with(|| {
            Arc::new(Snapshot {
                revision: self.revision(),
                version: FULL_VERSION,
                counts: *counts,
                digest: *digest,
                applications: applications.iter_mut().map(|(name, listed)| listed.view(name)).collect(),
            })
        })
        .clone()
    }

    fn delta_of(&self, published: &mut Published) -> Arc<Snapshot> {
        let Published { counts, digest, recent, delta, deltas, .. } = published;
        delta
            .get_or_insert_with(|| {
                *deltas += 1;
                Arc::new(Snapshot {
                    revision: self.delta_revision(),
                    version: *deltas,
                    counts: *counts,
                    digest: *digest,
                    applications: recent.views(),
                })
            })
            .clone()
    }

    pub(in crate::server) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        let mut published = self.lock();
        let name = published.applications.get_key_value(name)?.0.clone();
        published.applications.get_mut(&name).map(|listed| listed.view(&name))
    }

    fn changed(&self, published: &mut Published) {
        published.full = None;
        published.delta = None;
        self.size.store(published.counts.total(), Ordering::Relaxed);
        self.revision.fetch_add(1, Ordering::Release);
        self.delta_revision.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    fn view(&mut self, name: &Arc<str>) -> Arc<AppView> {
        let Self { instances, view } = self;
        view.get_or_insert_with(|| AppView::new(name.clone(), instances.values().cloned().collect())).clone()
    }
}

/// The latest change of every instance that changed lately. `server-behaviour` 6.
///
/// An instance that changes again moves to the end, so the list is never longer than what lives or left lately.
#[derive(Debug, Default)]
struct Recent {
    next: u64,
    /// Oldest first: when it was, and of which instance.
    queue: BTreeMap<u64, (i64, Arc<str>, Arc<str>)>,
    applications: HashMap<Arc<str>, RecentApp>,
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
    fn push(&mut self, id: Arc<str>, record: Arc<Record>, now: i64) {
        let number = self.next;
        self.next += 1;
        let name = record.instance.app.clone();
        let application = self.applications.entry(name.clone()).or_insert_with(|| RecentApp {
            since: number,
            records: BTreeMap::new(),
            by_id: HashMap::new(),
            view: None,
        });
        application.view = None;
        application.records.insert(number, record);
        if let Some(old) = application.by_id.insert(id.clone(), number) {
            application.records.remove(&old);
            self.queue.remove(&old);
        }
        self.queue.insert(number, (now, name, id));
    }

    /// Whether anything was old enough.
    fn prune(&mut self, before: i64) -> bool {
        let mut pruned = false;
        while let Some(oldest) = self.queue.first_entry().filter(|entry| entry.get().0 < before) {
            let (number, (_, name, id)) = oldest.remove_entry();
            pruned = true;
            let Some(application) = self.applications.get_mut(&name) else { continue };
            application.view = None;
            application.records.remove(&number);
            application.by_id.remove(&id);
            if application.records.is_empty() {
                self.applications.remove(&name);
            }
        }
        pruned
    }

    fn views(&mut self) -> Vec<Arc<AppView>> {
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
impl Log {
    /// Whether nothing is kept beside what the lists show, of which the delta shows nothing.
    pub(super) fn is_trimmed(&self) -> bool {
        let Published { applications, recent, .. } = &*self.lock();
        recent.queue.is_empty()
            && recent.applications.is_empty()
            && applications.values().all(|listed| !listed.instances.is_empty())
    }
}
