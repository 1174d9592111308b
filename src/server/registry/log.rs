//! What readers of lists see, and what changed lately. All writers pass here, one after the other; heartbeats do not.
//!
//! The registry has one, and each copy of another region.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::ids::Ids;
use super::recent::Recent;
use super::room::Lack;
use super::{Refused, Settings};
use crate::model::{Digest, Instance, StatusCounts};
use crate::server::view::{self, APPLICATION_WEIGHT, AppView, Record, Snapshot};
use crate::sync::{Mutex, MutexGuard};

/// The `versions__delta` of every full answer.
const FULL_VERSION: i64 = 1;
/// Weight of the ends of instances that the delta may show although the lists are shorter.
const DELETIONS: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(in crate::server) struct Log {
    limits: Limits,
    published: Mutex<Published>,
    /// Copies of what the mutex guards, for readers that only ask whether anything is new.
    revision: AtomicU64,
    delta_revision: AtomicU64,
    size: AtomicUsize,
    weight: AtomicUsize,
    /// Number of ends of instances that were forgotten before their time.
    forgotten: AtomicU64,
}

/// Limits of what is listed, and of what the delta shows beside it.
#[derive(Clone, Copy, Debug)]
struct Limits {
    application: usize,
    instances: usize,
    /// Weight of what is listed, with what the delta shows beside it.
    bytes: usize,
    /// Weight up to which new instances are listed.
    new: usize,
    /// Weight up to which those that are listed may grow.
    growth: usize,
    /// Weight of what the delta shows beside it.
    deletions: usize,
}

/// Those of a copy, whose origin has limits.
impl Default for Limits {
    fn default() -> Self {
        let unlimited = usize::MAX;
        Self {
            application: unlimited,
            instances: unlimited,
            bytes: unlimited,
            new: unlimited,
            growth: unlimited,
            deletions: unlimited,
        }
    }
}

#[derive(Debug, Default)]
struct Published {
    applications: BTreeMap<Arc<str>, Listed>,
    ids: Ids,
    /// Weight of the instances and applications that are listed.
    weight: usize,
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
    /// Makes an empty one with the limits of a registry.
    pub(super) fn new(settings: &Settings) -> Self {
        let &Settings { application_limit, registry_limit, registry_size_limit, .. } = settings;
        let limits = Limits {
            application: application_limit,
            instances: registry_limit,
            bytes: registry_size_limit,
            new: registry_size_limit - registry_size_limit / 16,
            growth: registry_size_limit - registry_size_limit / 32,
            deletions: registry_size_limit / 4,
        };
        Self { limits, ..Self::default() }
    }

    /// Publishes an instance, new or changed.
    pub(in crate::server) fn put(&self, id: Arc<str>, record: Arc<Record>, now: i64) {
        // Before the lock is taken, as others wait for it.
        record.digest();
        let mut published = self.lock();
        self.insert(&mut published, id, record, now);
    }

    /// Publishes an instance, unless that would exceed a limit. One that is listed and does not grow
    /// exceeds none.
    pub(super) fn put_within_limits(&self, id: Arc<str>, record: Arc<Record>, now: i64) -> Result<(), Refused> {
        record.digest();
        let mut published = self.lock();
        published.check(&self.limits, &id, &record)?;
        self.insert(&mut published, id, record, now);
        Ok(())
    }

    /// Returns an error if an instance as it is here would exceed a limit.
    #[cfg(feature = "peers")]
    pub(super) fn check(&self, id: &str, record: &Record) -> Result<(), Refused> {
        self.lock().check(&self.limits, id, record)
    }

    fn insert(&self, published: &mut Published, id: Arc<str>, record: Arc<Record>, now: i64) {
        let Published { applications, ids, weight, counts, digest, recent, .. } = published;
        let app = &record.instance.app;
        let application = applications.entry(app.clone()).or_insert_with(|| {
            *weight += APPLICATION_WEIGHT;
            Listed::default()
        });
        application.view = None;
        counts.add(record.instance.status);
        digest.add(record.digest());
        *weight += record.weight();
        match application.instances.insert(id.clone(), record.clone()) {
            Some(old) => {
                counts.remove(old.instance.status);
                digest.remove(old.digest());
                *weight -= old.weight();
            }
            None => ids.insert(id.clone(), app),
        }
        recent.push(id, record, now);
        self.changed(published);
    }

    /// Publishes the end of an instance; `record` is its last state, as the delta shows it.
    pub(in crate::server) fn remove(&self, id: &str, record: Arc<Record>, now: i64) {
        let mut published = self.lock();
        let Published { applications, ids, weight, counts, digest, recent, .. } = &mut *published;
        let name = &record.instance.app;
        if let Some(application) = applications.get_mut(name) {
            application.view = None;
            if let Some(old) = application.instances.remove(id) {
                counts.remove(old.instance.status);
                digest.remove(old.digest());
                *weight -= old.weight();
                ids.remove(id, name);
            }
            if application.instances.is_empty() {
                applications.remove(name);
                *weight -= APPLICATION_WEIGHT;
            }
        }
        recent.push(id.into(), record, now);
        self.changed(&mut published);
    }

    /// Number of ends of instances that the delta forgot before their time so far.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Room of the registry that an instance lacks. Returns `None` for a known instance, and for one
    /// whose application is full.
    pub(super) fn lack(&self, instance: &Instance) -> Option<Lack> {
        let Limits { application: members, instances, new, .. } = self.limits;
        // Nearly always, without the lock.
        let added = view::max_weight(instance) + APPLICATION_WEIGHT;
        if self.size() < instances && self.weight.load(Ordering::Relaxed) + added <= new {
            return None;
        }
        let weight = view::weight(instance);
        let published = self.lock();
        let application = published.applications.get(&instance.app);
        let refuses =
            |listed: &Listed| listed.instances.contains_key(instance.id()) || listed.instances.len() >= members;
        if application.is_some_and(refuses) {
            return None;
        }
        let added = weight + if application.is_none() { APPLICATION_WEIGHT } else { 0 };
        let lack = Lack {
            instances: (published.counts.total() + 1).saturating_sub(instances),
            bytes: (published.weight + added).saturating_sub(new),
        };
        (lack.instances > 0 || lack.bytes > 0).then_some(lack)
    }

    /// Returns true if new instances of the usual size would have room.
    pub(super) fn has_room(&self) -> bool {
        let Published { counts, weight, .. } = &*self.lock();
        let Limits { instances, new, .. } = self.limits;
        counts.total() < instances && *weight <= new - new / 32
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
        let Published { applications, ids, .. } = &*self.lock();
        applications.get(&ids.application(id, None)?)?.instances.get(id).cloned()
    }

    /// The first application by name that has an instance with this id, or the first one after another.
    pub(super) fn application_of(&self, id: &str, after: Option<&str>) -> Option<Arc<str>> {
        self.lock().ids.application(id, after)
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
        let Limits { bytes, deletions, .. } = self.limits;
        let weight = published.weight;
        // A delta that is longer than everything is of no use.
        let room = bytes.saturating_sub(weight).min(deletions).min(weight.max(DELETIONS));
        let forgotten = published.recent.forget_deletions(room);
        if forgotten > 0 {
            self.forgotten.fetch_add(forgotten as u64, Ordering::Relaxed);
        }
        published.full = None;
        published.delta = None;
        self.size.store(published.counts.total(), Ordering::Relaxed);
        self.weight.store(weight, Ordering::Relaxed);
        self.revision.fetch_add(1, Ordering::Release);
        self.delta_revision.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock()
    }
}

impl Published {
    fn check(&self, limits: &Limits, id: &str, record: &Record) -> Result<(), Refused> {
        let application = self.applications.get(&record.instance.app);
        let old = application.and_then(|application| application.instances.get(id));
        if old.is_some_and(|old| record.weight() <= old.weight()) {
            return Ok(());
        }
        if old.is_none() {
            if application.map_or(0, |application| application.instances.len()) >= limits.application {
                return Err(Refused::ApplicationFull(limits.application));
            }
            if self.counts.total() >= limits.instances {
                return Err(Refused::RegistryFull(limits.instances));
            }
        }
        let added = record.weight() + if application.is_none() { APPLICATION_WEIGHT } else { 0 };
        let removed = old.map_or(0, |old| old.weight());
        let limit = if old.is_none() { limits.new } else { limits.growth };
        if self.weight - removed + added > limit {
            return Err(Refused::RegistryTooLarge(limits.bytes));
        }
        Ok(())
    }
}

impl Listed {
    fn view(&mut self, name: &Arc<str>) -> Arc<AppView> {
        let Self { instances, view } = self;
        view.get_or_insert_with(|| AppView::new(name.clone(), instances.values().cloned().collect())).clone()
    }
}

#[cfg(test)]
impl Log {
    /// Returns true if nothing is kept beside what the lists show, of which the delta shows nothing.
    pub(super) fn is_trimmed(&self) -> bool {
        let Published { applications, recent, .. } = &*self.lock();
        recent.is_empty() && applications.values().all(|listed| !listed.instances.is_empty())
    }

    /// Weight of what is listed, and of what the delta shows beside it.
    pub(super) fn weights(&self) -> (usize, usize) {
        let Published { weight, recent, .. } = &*self.lock();
        (*weight, recent.deleted())
    }
}
