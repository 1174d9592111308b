use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::spare::{Change, Spares};
use crate::model::{ActionType, Application, Applications, Digest, Instance, StatusCounts};

/// Exact mirror of the server's list. Deltas are applied to it, and the hash and the digest are
/// computed over it.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) applications: BTreeMap<Arc<str>, Arc<Application>>,
    ids: Ids,
    spares: Spares,
    counts: StatusCounts,
    /// Instances of the server that could not be read. Its apps hash counts them.
    skipped: StatusCounts,
    /// `None` unless the server sends digests that match its lists.
    digest: Option<Digest>,
    /// Increased by every change of an instance that is more than a renewal of its lease.
    changes: u64,
}

impl Mirror {
    pub(super) fn len(&self) -> usize {
        self.counts.total()
    }

    /// Returns a number that increases with every change of an instance.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns `true` if the server sends digests.
    pub(super) fn has_digest(&self) -> bool {
        self.digest.is_some()
    }

    /// Returns `true` if a response with this digest can be compared exactly.
    pub(super) fn is_exact(&self, digest: Option<Digest>) -> bool {
        self.digest.is_some() && digest.is_some()
    }

    /// Returns `true` if the mirror matches a response: by the digests if both sides have one,
    /// otherwise by the counts. A response without both never matches.
    pub(super) fn matches(&self, response: &Applications, digest: Option<Digest>) -> bool {
        match (self.digest, digest) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => response.hash.as_deref().is_some_and(|hash| *hash == self.counts.plus(self.skipped).to_string()),
        }
    }

    /// Replaces the list by a full response. Unchanged instances and applications stay the same
    /// `Arc`. A digest that does not match its own list is ignored.
    pub(super) fn replace(&mut self, list: &Applications, digest: Option<Digest>) {
        let mut listed = BTreeMap::<&Arc<str>, Vec<&Arc<Application>>>::new();
        for application in &list.applications {
            listed.entry(&application.name).or_default().push(application);
        }
        let mut applications = BTreeMap::new();
        for (name, parts) in listed {
            let known = self.applications.get(name);
            // An application that was not known is usually complete.
            if let ([whole], None) = (&parts[..], known)
                && !whole.instances.is_empty()
                && self.ids.set_distinct(name, &whole.instances)
            {
                applications.insert(name.clone(), Arc::clone(whole));
                continue;
            }
            let instances: Vec<_> = parts.into_iter().flat_map(|part| &part.instances).collect();
            if let Some(known) = known.filter(|known| known.instances.iter().map(Arc::as_ptr).eq(pointers(&instances)))
            {
                applications.insert(name.clone(), known.clone());
                continue;
            }
            let instances = keep_unchanged(known.map_or(&[][..], |known| &known.instances), &instances);
            if !instances.is_empty() {
                applications.insert(name.clone(), shared(known, name, instances));
            }
        }
        let before = std::mem::replace(&mut self.applications, applications);
        let is_unchanged = |app: &str| match (before.get(app), self.applications.get(app)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        self.spares.retain(is_unchanged);
        self.skipped = StatusCounts::default();
        self.changes += 1;
        self.recount(&before, digest);
    }

    /// Counts the instances that the latest full response had in addition, but that could not be
    /// read. They are the difference between its apps hash and the counts, if that is their number.
    pub(super) fn count_skipped(&mut self, hash: Option<&str>, skipped: usize) {
        let more = hash.and_then(StatusCounts::of_hash).and_then(|theirs| theirs.minus(self.counts));
        self.skipped = more.filter(|more| more.total() == skipped).unwrap_or_default();
    }

    /// Updates the counts, the digest and the ids from the applications before to the present ones,
    /// at the cost of those that changed.
    fn recount(&mut self, before: &BTreeMap<Arc<str>, Arc<Application>>, theirs: Option<Digest>) {
        let mut ours = theirs.and(self.digest);
        for (name, app) in before {
            if self.applications.get(name).is_some_and(|now| Arc::ptr_eq(now, app)) {
                continue;
            }
            app.instances.iter().for_each(|instance| self.counts.remove(instance.status()));
            self.ids.remove(name);
            if let Some(ours) = &mut ours {
                ours.remove(Digest::of_application(app));
            }
        }
        for (name, app) in &self.applications {
            if before.get(name).is_some_and(|before| Arc::ptr_eq(before, app)) {
                continue;
            }
            app.instances.iter().for_each(|instance| self.counts.add(instance.status()));
            if !self.ids.has(name) {
                self.ids.set(name, &app.instances);
            }
            if let Some(ours) = &mut ours {
                ours.add(Digest::of_application(app));
            }
        }
        self.digest = theirs.filter(|theirs| {
            let ours =
                ours.unwrap_or_else(|| self.applications.values().map(|app| Digest::of_application(app)).collect());
            if ours != *theirs {
                tracing::warn!(%ours, %theirs, "digest does not match its own list, comparing counts instead");
            }
            ours == *theirs
        });
    }

    /// Applies a delta. `ADDED` and `MODIFIED` insert or replace the instance, `DELETED` removes
    /// it, and entries without an action are ignored. Servers send each change for three minutes,
    /// so applying it again has no effect.
    pub(super) fn apply(&mut self, delta: &Applications) {
        for application in &delta.applications {
            for instance in &application.instances {
                match instance.action() {
                    Some(ActionType::Added | ActionType::Modified) => self.put(&application.name, instance),
                    Some(ActionType::Deleted) => self.remove(&application.name, instance.id()),
                    None => {}
                }
            }
        }
    }

    fn put(&mut self, app: &Arc<str>, instance: &Arc<Instance>) {
        let application = self
            .applications
            .entry(app.clone())
            .or_insert_with(|| Arc::new(Application { name: app.clone(), instances: Vec::new() }));
        let position = self.ids.position(app, instance.id(), &application.instances);
        let known = position.map(|at| &application.instances[at]);
        if known.is_some_and(|known| known.is_renewal_of(instance)) {
            return;
        }
        if let Some(known) = known {
            self.counts.remove(known.status());
        }
        self.counts.add(instance.status());
        self.changes += 1;
        if let Some(digest) = &mut self.digest {
            if let Some(known) = known {
                digest.remove(Digest::of(app, known));
            }
            digest.add(Digest::of(app, instance));
        }
        let instance = with_shared_strings(instance, known.or(application.instances.first()));
        let change = match position {
            Some(at) => Change::Replace(at, instance),
            None => {
                self.ids.push(app, instance.id());
                Change::Push(instance)
            }
        };
        self.spares.change(application, change);
    }

    fn remove(&mut self, app: &str, id: &str) {
        let Some(application) = self.applications.get_mut(app) else { return };
        let Some(at) = self.ids.position(app, id, &application.instances) else { return };
        self.counts.remove(application.instances[at].status());
        self.changes += 1;
        if let Some(digest) = &mut self.digest {
            digest.remove(Digest::of(&application.name, &application.instances[at]));
        }
        if application.instances.len() == 1 {
            self.applications.remove(app);
            self.ids.remove(app);
            self.spares.remove(app);
        } else {
            self.spares.change(application, Change::Remove(at));
            self.ids.remove_at(app, at);
        }
    }
}

/// Hashes of the instance ids of each application, in the order of its instances.
///
/// They find an instance without reading the other ones, which are spread over the memory.
#[derive(Debug, Default)]
struct Ids {
    hashes: HashMap<Arc<str>, Vec<u64>>,
    seed: RandomState,
}

impl Ids {
    /// Returns the position of an id in the instances of the application.
    fn position(&self, app: &str, id: &str, instances: &[Arc<Instance>]) -> Option<usize> {
        let hash = self.seed.hash_one(id);
        let mut candidates = self.hashes.get(app)?.iter().enumerate().filter(|(_, known)| **known == hash);
        candidates.find(|(at, _)| instances[*at].id() == id).map(|(at, _)| at)
    }

    fn has(&self, app: &str) -> bool {
        self.hashes.contains_key(app)
    }

    fn set(&mut self, app: &Arc<str>, instances: &[Arc<Instance>]) {
        let hashes = self.hashes_of(instances);
        self.hashes.insert(app.clone(), hashes);
    }

    /// Sets the ids of an application and returns `true`, unless two of them may be equal.
    fn set_distinct(&mut self, app: &Arc<str>, instances: &[Arc<Instance>]) -> bool {
        let hashes = self.hashes_of(instances);
        let mut sorted = hashes.clone();
        sorted.sort_unstable();
        let is_distinct = sorted.is_sorted_by(|one, next| one < next);
        if is_distinct {
            self.hashes.insert(app.clone(), hashes);
        }
        is_distinct
    }

    fn hashes_of(&self, instances: &[Arc<Instance>]) -> Vec<u64> {
        instances.iter().map(|instance| self.seed.hash_one(instance.id())).collect()
    }

    fn push(&mut self, app: &Arc<str>, id: &str) {
        let hash = self.seed.hash_one(id);
        self.hashes.entry(app.clone()).or_default().push(hash);
    }

    fn remove_at(&mut self, app: &str, at: usize) {
        if let Some(hashes) = self.hashes.get_mut(app) {
            hashes.remove(at);
        }
    }

    fn remove(&mut self, app: &str) {
        self.hashes.remove(app);
    }
}

fn pointers<'a>(instances: &'a [&Arc<Instance>]) -> impl Iterator<Item = *const Instance> + 'a {
    instances.iter().map(|instance| Arc::as_ptr(instance))
}

/// Returns the instance with the strings of a known one, if there is one.
fn with_shared_strings(instance: &Arc<Instance>, known: Option<&Arc<Instance>>) -> Arc<Instance> {
    match known {
        Some(known) => Arc::new(Instance::clone(instance).sharing(known)),
        None => instance.clone(),
    }
}

/// Returns the listed instances. An instance that only renewed its lease is the known `Arc`. Of two
/// instances with the same id, the later one is used.
fn keep_unchanged(known: &[Arc<Instance>], listed: &[&Arc<Instance>]) -> Vec<Arc<Instance>> {
    let by_id: HashMap<&str, &Arc<Instance>, RandomState> =
        known.iter().map(|instance| (instance.id(), instance)).collect();
    let mut positions = HashMap::with_capacity_and_hasher(listed.len(), RandomState::default());
    let mut instances = Vec::with_capacity(listed.len());
    for &instance in listed {
        let known_one = by_id.get(instance.id()).copied();
        let instance_now = match known_one.filter(|known| known.is_renewal_of(instance)) {
            Some(kept) => {
                kept.fingerprint.set(instance.fingerprint.get());
                kept.clone()
            }
            None => with_shared_strings(instance, known_one.or(known.first())),
        };
        match positions.entry(instance.id()) {
            Entry::Occupied(at) => instances[*at.get()] = instance_now,
            Entry::Vacant(vacant) => {
                vacant.insert(instances.len());
                instances.push(instance_now);
            }
        }
    }
    instances
}

/// Returns the known application if it consists of the same `Arc`s, otherwise a new one.
pub(super) fn shared(
    known: Option<&Arc<Application>>,
    name: &Arc<str>,
    instances: Vec<Arc<Instance>>,
) -> Arc<Application> {
    match known.filter(|known| are_same(&known.instances, &instances)) {
        Some(known) => known.clone(),
        None => Arc::new(Application { name: name.clone(), instances }),
    }
}

/// Returns `true` if the application is one of the list, as the same `Arc`.
pub(super) fn is_among(list: &[Arc<Application>], application: &Arc<Application>) -> bool {
    list.iter().any(|known| Arc::ptr_eq(known, application))
}

/// Returns `true` if two applications consist of the same `Arc`s.
pub(super) fn has_same_instances(a: &Arc<Application>, b: &Arc<Application>) -> bool {
    Arc::ptr_eq(a, b) || are_same(&a.instances, &b.instances)
}

fn are_same(a: &[Arc<Instance>], b: &[Arc<Instance>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

impl Instance {
    /// Returns `true` if the instances differ at most in the time of the last heartbeat. That time
    /// differs in every response and is irrelevant to callers.
    fn is_renewal_of(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        if Arc::ptr_eq(self, other) {
            return true;
        }
        let renewed_at = |instance: &Self| instance.lease.map(|lease| lease.last_renewal_timestamp);
        if renewed_at(self) == renewed_at(other) {
            return **self == **other;
        }
        match (self.lease, other.lease) {
            (Some(mine), Some(theirs)) => {
                let renewed = crate::model::LeaseInfo { last_renewal_timestamp: theirs.last_renewal_timestamp, ..mine };
                renewed == theirs && Self { lease: Some(theirs), ..Self::clone(self) } == **other
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceStatus;

    const SIZE: usize = 10_000;

    fn list(ids: impl Iterator<Item = usize>, status: InstanceStatus) -> Applications {
        let instance = |id: usize| Instance {
            instance_id: Some(id.to_string().into()),
            status,
            action: Some(ActionType::Modified),
            ..Instance::bare("A".into())
        };
        let instances = ids.map(|id| Arc::new(instance(id))).collect();
        Applications {
            applications: vec![Arc::new(Application { name: "A".into(), instances })],
            ..Applications::default()
        }
    }

    #[test]
    fn delta_after_a_full_list_without_changes_costs_what_one_before_it_costs() {
        let mut mirror = Mirror::default();
        let full = || list(0..SIZE, InstanceStatus::Up);
        mirror.replace(&full(), None);
        let mut published = mirror.applications.clone();
        let mut delta = |mirror: &mut Mirror, status| {
            let delta = list(0..1, status);
            let measured = allocation_counter::measure(|| mirror.apply(&delta));
            published = mirror.applications.clone();
            measured.bytes_total
        };
        for status in [InstanceStatus::Down, InstanceStatus::Up, InstanceStatus::Down, InstanceStatus::Up] {
            delta(&mut mirror, status);
        }
        mirror.replace(&full(), None);
        for status in [InstanceStatus::Down, InstanceStatus::Up] {
            let bytes = delta(&mut mirror, status);
            assert!(bytes < SIZE as u64, "{bytes} bytes");
        }
        assert_eq!(mirror.counts.to_string(), format!("UP_{SIZE}_"));
    }

    #[test]
    fn application_that_was_not_known_is_taken_as_it_is_unless_an_id_occurs_twice() {
        let mut mirror = Mirror::default();
        let full = list(0..3, InstanceStatus::Up);
        mirror.replace(&full, None);
        assert!(Arc::ptr_eq(&mirror.applications["A"], &full.applications[0]));
        mirror.apply(&list(1..2, InstanceStatus::Down));
        assert_eq!(mirror.counts.to_string(), "DOWN_1_UP_2_");
        let mut mirror = Mirror::default();
        mirror.replace(&list([1, 2, 1].into_iter(), InstanceStatus::Up), None);
        mirror.apply(&list(2..3, InstanceStatus::Down));
        assert_eq!((mirror.counts.to_string().as_str(), mirror.len()), ("DOWN_1_UP_1_", 2));
    }
}
