//! Published state of the registry: lists of applications, counts, and recent changes.
//!
//! All changes are published here, one after the other. Heartbeats are not. The registry has one
//! listing, and so has each copy of another region.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::id_index::IdIndex;
use super::recent_changes::RecentChanges;
use super::settings::Settings;
use crate::model::{Digest, Instance, StatusCounts};
use crate::server::outcome::Refused;
use crate::server::view::{self, APPLICATION_WEIGHT, AppView, Record, Snapshot};
use crate::sync::{Mutex, MutexGuard};

/// `versions__delta` of every full response.
const FULL_VERSION: i64 = 1;
/// Weight of deletions that the delta may show even if the lists weigh less.
const MIN_DELETIONS: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(in crate::server) struct Listing {
    limits: Limits,
    published: Mutex<Published>,
    /// Copies of fields behind the mutex, for readers that only check for changes.
    revision: AtomicU64,
    delta_revision: AtomicU64,
    size: AtomicUsize,
    applications: AtomicUsize,
    largest: AtomicUsize,
    weight: AtomicUsize,
    /// Number of deletions that were dropped before their retention time.
    dropped_deletions: AtomicU64,
}

/// Limits on the listed instances, and on the deletions that the delta shows.
#[derive(Clone, Copy, Debug)]
struct Limits {
    application: usize,
    applications: usize,
    instances: usize,
    /// Weight of listed instances and shown deletions together.
    bytes: usize,
    /// Weight up to which new instances are accepted.
    new: usize,
    /// Weight up to which listed instances may grow.
    growth: usize,
    /// Weight of the deletions that the delta shows.
    deletions: usize,
}

/// Numbers of a listing at one moment.
#[cfg(feature = "prometheus")]
#[derive(Clone, Debug)]
pub(in crate::server) struct Totals {
    pub(in crate::server) applications: usize,
    pub(in crate::server) counts: StatusCounts,
    /// Weight of the listed instances and applications.
    pub(in crate::server) bytes: usize,
}

/// Number of instances and bytes by which a new instance exceeds the limits.
#[derive(Clone, Debug)]
pub(super) struct Shortage {
    pub(super) among: Among,
    pub(super) instances: usize,
    pub(super) bytes: usize,
}

/// Instances of which one has to leave for a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Among {
    All,
    /// Those of a full application.
    Application(Arc<str>),
    /// Those that are the only ones of their application, since there are too many applications.
    Alone,
}

/// No limits, for a copy of a registry that has its own.
impl Default for Limits {
    fn default() -> Self {
        let unlimited = usize::MAX;
        Self {
            application: unlimited,
            applications: unlimited,
            instances: unlimited,
            bytes: unlimited,
            new: unlimited,
            growth: unlimited,
            deletions: unlimited,
        }
    }
}

/// Numbers of a listing that the limits apply to.
#[derive(Clone, Copy, Debug)]
struct Usage {
    applications: usize,
    instances: usize,
    weight: usize,
}

#[derive(Debug, Default)]
struct Published {
    applications: BTreeMap<Arc<str>, Listed>,
    ids: IdIndex,
    /// Number of instances of the largest application so far.
    largest: usize,
    /// Weight of the listed instances and applications.
    weight: usize,
    counts: StatusCounts,
    digest: Digest,
    recent: RecentChanges,
    full: Option<Arc<Snapshot>>,
    delta: Option<Arc<Snapshot>>,
    deltas: i64,
}

#[derive(Debug, Default)]
struct Listed {
    instances: BTreeMap<Arc<str>, Arc<Record>>,
    view: Option<Arc<AppView>>,
}

impl Listing {
    /// Creates an empty listing with the limits of a registry.
    pub(super) fn new(settings: &Settings) -> Self {
        let &Settings { application_limit, applications_limit, registry_limit, registry_size_limit, .. } = settings;
        let limits = Limits {
            application: application_limit,
            applications: applications_limit,
            instances: registry_limit,
            bytes: registry_size_limit,
            new: registry_size_limit - registry_size_limit / 16,
            growth: registry_size_limit - registry_size_limit / 32,
            deletions: registry_size_limit / 4,
        };
        Self { limits, ..Self::default() }
    }

    /// Creates an empty listing for the copy of another registry: with the limits on all instances,
    /// which it may use up.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn of_copy(settings: &Settings) -> Self {
        let bytes = settings.registry_size_limit;
        let limits = Limits {
            applications: settings.applications_limit,
            instances: settings.registry_limit,
            bytes,
            new: bytes,
            growth: bytes,
            deletions: bytes / 4,
            ..Limits::default()
        };
        Self { limits, ..Self::default() }
    }

    /// Publishes a new or changed instance.
    pub(in crate::server) fn put(&self, id: Arc<str>, record: Arc<Record>, now: i64) {
        self.insert(id, record, now, &Limits::default()).expect("nothing is refused without limits");
    }

    /// Publishes an instance, unless that would exceed a limit. A listed instance that does not
    /// grow never exceeds one.
    pub(in crate::server) fn put_within_limits(
        &self,
        id: Arc<str>,
        record: Arc<Record>,
        now: i64,
    ) -> Result<(), Refused> {
        self.insert(id, record, now, &self.limits)
    }

    /// Returns an error if publishing this instance would exceed a limit.
    #[cfg(feature = "peers")]
    pub(super) fn check(&self, id: &str, record: &Record) -> Result<(), Refused> {
        let published = self.lock();
        let application = published.applications.get(&record.instance.app);
        let members = application.map(|application| application.instances.len());
        let old = application.and_then(|application| application.instances.get(id));
        self.limits.check(published.usage(), members, old.map(|old| old.weight()), record.weight())
    }

    fn insert(&self, id: Arc<str>, record: Arc<Record>, now: i64, limits: &Limits) -> Result<(), Refused> {
        // Computed before the lock is taken, since other writers wait for it.
        let (added, app) = (record.digest(), &record.instance.app);
        let mut published = self.lock();
        let usage = published.usage();
        let check = |members, old| limits.check(usage, members, old, record.weight());
        let Published { applications, ids, largest, weight, counts, digest, recent, .. } = &mut *published;
        let old = match applications.get_mut(app) {
            Some(Listed { instances, view }) => {
                let members = Some(instances.len());
                let old = match instances.entry(id.clone()) {
                    Entry::Occupied(mut known) => {
                        check(members, Some(known.get().weight()))?;
                        Some(known.insert(record.clone()))
                    }
                    Entry::Vacant(vacant) => {
                        check(members, None)?;
                        vacant.insert(record.clone());
                        *largest = instances.len().max(*largest);
                        None
                    }
                };
                *view = None;
                old
            }
            None => {
                check(None, None)?;
                let instances = [(id.clone(), record.clone())].into();
                applications.insert(app.clone(), Listed { instances, view: None });
                *largest = (*largest).max(1);
                *weight += APPLICATION_WEIGHT;
                None
            }
        };
        counts.add(record.instance.status);
        digest.add(added);
        *weight += record.weight();
        match old {
            Some(old) => {
                counts.remove(old.instance.status);
                digest.remove(old.digest());
                *weight -= old.weight();
            }
            None => ids.insert(id.clone(), app),
        }
        recent.push(id, record, now);
        self.publish(&mut published);
        Ok(())
    }

    /// Publishes the removal of an instance. The delta shows `record`, its last state.
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
        self.publish(&mut published);
    }

    /// Replaces listed instances by ones with other published times, and so the deletions that the
    /// delta shows. Neither the digest nor the weight depends on these times. The delta shows no
    /// other changes than before.
    pub(super) fn replace(&self, records: &[(Arc<str>, Arc<Record>)], replacement: impl Fn(&Record) -> Arc<Record>) {
        let mut published = self.lock();
        let Published { applications, recent, .. } = &mut *published;
        for (id, record) in records {
            let Some(Listed { instances, view }) = applications.get_mut(&record.instance.app) else { continue };
            let Some(known) = instances.get_mut(id) else { continue };
            *known = record.clone();
            *view = None;
            recent.replace(id, record);
        }
        recent.replace_deletions(replacement);
        self.publish(&mut published);
    }

    /// Returns the number of deletions that the delta dropped before their retention time so far.
    pub(super) fn dropped_deletions(&self) -> u64 {
        self.dropped_deletions.load(Ordering::Relaxed)
    }

    /// Returns the shortage of the registry for a new instance. `None` if there is none, or if the
    /// instance is known.
    ///
    /// Each instance of a full application takes as much room as the new one, or nearly so.
    pub(super) fn shortage(&self, instance: &Instance) -> Option<Shortage> {
        let Limits { application: members, applications, instances, new, .. } = self.limits;
        // Fast path without the lock.
        let added = view::max_weight(instance) + APPLICATION_WEIGHT;
        let of = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        if of(&self.size) < instances
            && of(&self.applications) < applications
            && of(&self.largest) < members
            && of(&self.weight) + added <= new
        {
            return None;
        }
        let weight = view::weight(instance);
        let published = self.lock();
        let application = published.applications.get(&instance.app);
        if application.is_some_and(|listed| listed.instances.contains_key(instance.id())) {
            return None;
        }
        let added = weight + if application.is_none() { APPLICATION_WEIGHT } else { 0 };
        let mut shortage = Shortage {
            among: Among::All,
            instances: (published.counts.total() + 1).saturating_sub(instances),
            bytes: (published.weight + added).saturating_sub(new),
        };
        let full = application.is_some_and(|listed| listed.instances.len() >= members);
        if full || application.is_none() && published.applications.len() >= applications {
            shortage.among = if full { Among::Application(instance.app.clone()) } else { Among::Alone };
            shortage.instances = shortage.instances.max(1);
        }
        (shortage.instances > 0 || shortage.bytes > 0).then_some(shortage)
    }

    /// Returns true if these are instances of which one can leave for the new one.
    pub(super) fn is_among(&self, among: &Among, app: &Arc<str>) -> bool {
        match among {
            Among::All => true,
            Among::Application(wanted) => app == wanted,
            Among::Alone => self.lock().applications.get(app).is_some_and(|listed| listed.instances.len() == 1),
        }
    }

    /// Returns the ids of the instances of an application.
    pub(super) fn ids_of(&self, app: &str) -> Vec<Arc<str>> {
        self.lock().applications.get(app).map(|listed| listed.instances.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns true if new instances of the usual size would be accepted.
    pub(super) fn has_room(&self) -> bool {
        let Published { applications: listed, counts, weight, .. } = &*self.lock();
        let Limits { applications, instances, new, .. } = self.limits;
        listed.len() < applications && counts.total() < instances && *weight <= new - new / 32
    }

    /// Removes changes from before this time from the delta.
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

    /// Returns the present numbers of the lists.
    #[cfg(feature = "prometheus")]
    pub(super) fn totals(&self) -> Totals {
        let Published { applications, counts, weight, .. } = &*self.lock();
        Totals { applications: applications.len(), counts: *counts, bytes: *weight }
    }

    /// Returns the number of instances.
    pub(super) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    pub(in crate::server) fn full(&self) -> Arc<Snapshot> {
        self.full_of(&mut self.lock())
    }

    pub(super) fn delta(&self) -> Arc<Snapshot> {
        self.delta_of(&mut self.lock())
    }

    /// Returns the full list and the delta of several listings at the same moment.
    ///
    /// Callers must pass listings in the same order, since all of them are locked.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn snapshots<'a>(
        listings: impl Iterator<Item = &'a Self>,
    ) -> Vec<(Arc<Snapshot>, Arc<Snapshot>)> {
        let mut locked: Vec<_> = listings.map(|listing| (listing, listing.lock())).collect();
        locked
            .iter_mut()
            .map(|(listing, published)| (listing.full_of(published), listing.delta_of(published)))
            .collect()
    }

    /// Returns one instance.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn record(&self, app: &str, id: &str) -> Option<Arc<Record>> {
        self.lock().applications.get(app)?.instances.get(id).cloned()
    }

    /// Returns the instance with this id in the first application by name that has one.
    #[cfg(feature = "peers")]
    pub(in crate::server) fn record_by_id(&self, id: &str) -> Option<Arc<Record>> {
        let Published { applications, ids, .. } = &*self.lock();
        applications.get(&ids.application(id, None)?)?.instances.get(id).cloned()
    }

    /// Returns the first application by name that has an instance with this id, or the first one
    /// after `after`.
    pub(super) fn application_of(&self, id: &str, after: Option<&str>) -> Option<Arc<str>> {
        self.lock().ids.application(id, after)
    }

    fn full_of(&self, published: &mut Published) -> Arc<Snapshot> {
        let Published { applications, counts, digest, full, .. } = published;
        full.get_or_insert_with(|| {
            let applications = applications.iter_mut().map(|(name, listed)| listed.view(name)).collect();
            Snapshot::new(self.revision(), FULL_VERSION, *counts, *digest, applications)
        })
        .clone()
    }

    fn delta_of(&self, published: &mut Published) -> Arc<Snapshot> {
        let Published { counts, digest, recent, delta, deltas, .. } = published;
        delta
            .get_or_insert_with(|| {
                *deltas += 1;
                Snapshot::new(self.delta_revision(), *deltas, *counts, *digest, recent.views())
            })
            .clone()
    }

    pub(in crate::server) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        let mut published = self.lock();
        let name = published.applications.get_key_value(name)?.0.clone();
        published.applications.get_mut(&name).map(|listed| listed.view(&name))
    }

    fn publish(&self, published: &mut Published) {
        let Limits { bytes, deletions, .. } = self.limits;
        let weight = published.weight;
        // A delta that is longer than the full list has no use.
        let limit = bytes.saturating_sub(weight).min(deletions).min(weight.max(MIN_DELETIONS));
        let dropped = published.recent.drop_deletions(limit);
        if dropped > 0 {
            self.dropped_deletions.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        published.full = None;
        published.delta = None;
        self.size.store(published.counts.total(), Ordering::Relaxed);
        self.applications.store(published.applications.len(), Ordering::Relaxed);
        self.largest.store(published.largest, Ordering::Relaxed);
        self.weight.store(weight, Ordering::Relaxed);
        self.revision.fetch_add(1, Ordering::Release);
        self.delta_revision.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published.lock()
    }
}

impl Limits {
    /// Checks an instance of this weight against the limits. `members` is the number of instances
    /// of its application, if that is listed. `old` is the weight of the listed instance, if there
    /// is one.
    fn check(&self, usage: Usage, members: Option<usize>, old: Option<usize>, weight: usize) -> Result<(), Refused> {
        if old.is_some_and(|old| weight <= old) {
            return Ok(());
        }
        if old.is_none() {
            if members.unwrap_or_default() >= self.application {
                return Err(Refused::ApplicationFull(self.application));
            }
            if members.is_none() && usage.applications >= self.applications {
                return Err(Refused::TooManyApplications(self.applications));
            }
            if usage.instances >= self.instances {
                return Err(Refused::RegistryFull(self.instances));
            }
        }
        let added = weight + if members.is_none() { APPLICATION_WEIGHT } else { 0 };
        let limit = if old.is_none() { self.new } else { self.growth };
        if usage.weight - old.unwrap_or_default() + added > limit {
            return Err(Refused::RegistryTooLarge(self.bytes));
        }
        Ok(())
    }
}

impl Published {
    fn usage(&self) -> Usage {
        Usage { applications: self.applications.len(), instances: self.counts.total(), weight: self.weight }
    }
}

impl Listed {
    fn view(&mut self, name: &Arc<str>) -> Arc<AppView> {
        let Self { instances, view } = self;
        view.get_or_insert_with(|| AppView::new(name.clone(), instances.values().cloned().collect())).clone()
    }
}

#[cfg(test)]
impl Listing {
    /// Returns true if the listing holds nothing but the full list, and the delta is empty.
    pub(super) fn is_trimmed(&self) -> bool {
        let Published { applications, recent, .. } = &*self.lock();
        recent.is_empty() && applications.values().all(|listed| !listed.instances.is_empty())
    }

    /// Returns the weight of the listed instances, and of the deletions that the delta shows.
    pub(super) fn weights(&self) -> (usize, usize) {
        let Published { weight, recent, .. } = &*self.lock();
        (*weight, recent.deleted_weight())
    }
}
