use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::held::Held;
use super::mirror::{Mirror, is_among, shared};
use super::snapshot::Snapshot;
use super::vip_index::VipIndex;
use crate::config::{Disappearance, OfflineConfig};
use crate::model::{Application, Applications, Digest, Instance, Known, StatusCounts};
use crate::transport::Origin;

/// The copy of the registry without IO: the server's list, held instances that are missing from it,
/// and static instances of applications that it does not have.
///
/// Regular cancellations and evictions appear in deltas. Therefore a full response is trusted in
/// the instances that it lists, and in its omissions only if they are plausible by the rule
/// ([`Disappearance`]). By default, if it lists less than half as many instances as before, or none
/// of an application, the omitted instances are *held*.
///
/// A held instance is removed when a delta deletes it, when the server lists it again, or when the
/// rule confirms that it disappeared. Empty lists have to be repeated for longer than others, and
/// mean nothing if their instances could not be read.
///
/// `now` is a clock that runs only while the server responds, so that outages and failed fetches do
/// not count.
#[derive(Debug)]
pub(super) struct LocalCopy {
    pub(super) mirror: Mirror,
    held: HashMap<Key, Held>,
    /// Time of the first empty list in a row, and their number.
    empty: Option<(Instant, u32)>,
    /// True if the last full response had instances, as far as it tells, although none could be
    /// read.
    is_unreadable: bool,
    /// Number of servers that are asked in turn while the list is empty.
    servers: u32,
    /// Number of empty lists so far. `None` once an instance was in a list, or in the one that was
    /// saved earlier.
    empty_lists: Option<u32>,
    /// False after a delta that did not match.
    is_consistent: bool,
    /// Server whose response is applied.
    responder: Option<Origin>,
    rule: Disappearance,
    /// Instances of applications that are in neither list.
    fixed: Vec<Arc<Application>>,
    /// True if the server lists instances that are no part of the copy.
    has_others: bool,
    published: BTreeMap<Arc<str>, Arc<Application>>,
    /// Index of the published applications.
    vips: Arc<VipIndex>,
}

/// Application and instance id.
type Key = (Arc<str>, Arc<str>);

/// Application and instance.
type Missing = (Arc<str>, Arc<Instance>);

impl LocalCopy {
    pub(super) fn new(config: &OfflineConfig) -> Self {
        Self::empty(config.disappearance.clone(), config.instances.clone())
    }

    fn empty(rule: Disappearance, fixed: Vec<Arc<Application>>) -> Self {
        Self {
            mirror: Mirror::default(),
            held: HashMap::new(),
            empty: None,
            is_unreadable: false,
            servers: 1,
            empty_lists: Some(0),
            is_consistent: true,
            responder: None,
            rule,
            fixed,
            has_others: false,
            published: BTreeMap::new(),
            vips: Arc::default(),
        }
    }

    /// Returns a copy with the same snapshot that has no list of the server, so that one must be
    /// fetched.
    pub(super) fn without_list(&self) -> Self {
        Self {
            servers: self.servers,
            empty_lists: self.empty_lists,
            is_consistent: false,
            published: self.published.clone(),
            vips: self.vips.clone(),
            ..Self::empty(self.rule.clone(), self.fixed.clone())
        }
    }

    /// Sets the server whose responses are applied from now on, and the number of all servers.
    pub(super) fn set_responder(&mut self, origin: &Origin, servers: usize) {
        self.servers = u32::try_from(servers).unwrap_or(u32::MAX);
        if self.responder.as_ref() != Some(origin) {
            self.responder = Some(origin.clone());
        }
    }

    /// Takes over a list that was saved earlier, before the first response.
    pub(super) fn restore(&mut self, list: &Applications) {
        self.mirror.replace(list, None);
        self.empty_lists = self.empty_lists.filter(|_| self.is_empty());
    }

    /// Returns `true` if the server lists no instance. Java clients fetch the whole registry then,
    /// too.
    pub(super) fn is_empty(&self) -> bool {
        self.mirror.len() == 0
    }

    /// Returns the server that sent the present list if it lists nothing although another server
    /// may have instances: some are held, or none was ever listed and not all servers were asked.
    pub(super) fn empty_server(&self) -> Option<&Origin> {
        let is_new = self.empty_lists.is_some_and(|lists| lists < self.servers);
        let is_doubted = self.is_empty() && !self.has_others && (!self.held.is_empty() || is_new);
        self.responder.as_ref().filter(|_| is_doubted)
    }

    /// Counts the empty lists before the first instance.
    fn count_empty(&mut self) {
        self.empty_lists = self.empty_lists.filter(|_| self.is_empty()).map(|lists| lists.saturating_add(1));
    }

    /// Returns the instances of the server's list.
    pub(super) fn known(&self) -> Known {
        Known::new(self.mirror.applications.values().cloned().collect())
    }

    /// Returns the number of held instances.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns a number that increases with every change of the server's list.
    pub(super) fn changes(&self) -> u64 {
        self.mirror.changes()
    }

    /// Returns `true` if the server sends digests.
    pub(super) fn has_digest(&self) -> bool {
        self.mirror.has_digest()
    }

    /// Returns `true` if a response with this digest can be compared exactly.
    pub(super) fn is_exact(&self, digest: Option<Digest>) -> bool {
        self.mirror.is_exact(digest)
    }

    /// Applies a full response and the digest that came with it. `skipped` is the number of
    /// instances that could not be read.
    pub(super) fn apply_full(&mut self, list: &Applications, skipped: usize, digest: Option<Digest>, now: Instant) {
        self.mirror.replace(list, digest);
        let hash = list.hash.as_deref();
        self.mirror.count_skipped(hash, skipped);
        // A hash of another form counts nothing. That of a part may be that of the whole registry.
        let counts_any = |hash| StatusCounts::of_hash(hash).is_some_and(|counts| counts.total() > 0);
        let is_counted = !self.has_others && hash.is_some_and(counts_any);
        self.is_unreadable = self.is_empty() && (skipped > 0 || is_counted);
        self.is_consistent = true;
        let (missing, in_use) = self.missing();
        let (known, mut held) = (in_use.saturating_sub(self.held.len()), std::mem::take(&mut self.held));
        let mut gone = Vec::new();
        for (app, instance) in missing {
            let key = (app, Arc::from(instance.id()));
            match held.remove(&key) {
                Some(held) => drop(self.held.insert(key, held)),
                None => gone.push((key, instance)),
            }
        }
        let lacks_application = |(app, _): &Key| !self.mirror.applications.contains_key(app);
        let whole = self.rule.whole_applications;
        // A list without any known instance that lacks applications may be that of another
        // registry.
        let is_foreign = whole && gone.len() == known && gone.iter().any(|(key, _)| lacks_application(key));
        // If as many other instances appeared, as in a deployment, the list is complete.
        let implausible = is_foreign || self.rule.is_implausible(self.mirror.len(), known);
        gone.retain(|(key, _)| implausible || whole && lacks_application(key));
        self.held.extend(gone.into_iter().map(|(key, instance)| (key, Held::new(instance, now))));
        self.count_empty();
        self.expire(true, now);
    }

    /// Returns the instances in use that the server's list lacks, those that are held as well, and
    /// the number of all instances in use.
    fn missing(&self) -> (Vec<Missing>, usize) {
        let (mut missing, mut in_use) = (Vec::new(), 0);
        for (app, application) in self.published.iter().filter(|(_, application)| !self.is_fixed(application)) {
            in_use += application.instances.len();
            let listed = self.mirror.applications.get(app);
            if listed.is_some_and(|listed| Arc::ptr_eq(listed, application)) {
                continue;
            }
            let listed = listed.map_or(&[][..], |listed| &listed.instances);
            let present: HashSet<&str, RandomState> = listed.iter().map(|instance| instance.id()).collect();
            let lacking = application.instances.iter().filter(|instance| !present.contains(instance.id()));
            missing.extend(lacking.map(|instance| (app.clone(), instance.clone())));
        }
        (missing, in_use)
    }

    /// Returns `true` for static instances.
    fn is_fixed(&self, application: &Arc<Application>) -> bool {
        is_among(&self.fixed, application)
    }

    /// Applies a response without changes.
    pub(super) fn apply_unchanged(&mut self, now: Instant) {
        self.count_empty();
        self.expire(true, now);
    }

    /// Applies a delta. Returns `true` if the copy now matches the server, and `false` if changes
    /// were missed. Snapshots then stay as they are until a full response is applied.
    #[must_use]
    pub(super) fn apply_delta(&mut self, delta: &Applications, digest: Option<Digest>, now: Instant) -> bool {
        self.mirror.apply(delta);
        self.is_consistent = self.mirror.matches(delta, digest);
        if self.is_consistent {
            self.release(delta);
        }
        self.expire(self.is_consistent, now);
        self.is_consistent
    }

    /// Applies the part of a delta that concerns a copy of a part of the registry. The hash of the
    /// delta proves nothing about a part. `are_missing` is false if the response is not about held
    /// instances that the part does not mention.
    pub(super) fn apply_part(&mut self, delta: &Applications, are_missing: bool, now: Instant) {
        self.mirror.apply(delta);
        self.release(delta);
        self.expire(are_missing, now);
    }

    /// Holds the instances no longer that a delta adds, changes or deletes.
    fn release(&mut self, delta: &Applications) {
        if self.held.is_empty() {
            return;
        }
        let changes = delta.applications.iter().flat_map(|app| app.instances.iter().map(move |i| (&app.name, i)));
        for (app, instance) in changes.filter(|(_, instance)| instance.action().is_some()) {
            self.held.remove(&(app.clone(), Arc::from(instance.id())));
        }
    }

    /// Sets whether the server lists instances that are no part of the copy. An empty copy then
    /// does not mean an empty server.
    pub(super) fn set_others(&mut self, has_others: bool) {
        self.has_others = has_others;
    }

    /// Removes the held instances whose disappearance is confirmed. `are_missing` is true if the
    /// present list is known to lack them.
    fn expire(&mut self, are_missing: bool, now: Instant) {
        if self.is_empty() && self.is_unreadable {
            self.empty = None;
            self.held.values_mut().for_each(|held| held.restart(now));
            return;
        }
        if !self.is_empty() || self.has_others {
            self.empty = None;
            let (rule, origin) = (&self.rule, self.responder.as_ref().filter(|_| are_missing));
            self.held.retain(|_, held| {
                held.was_missing(origin);
                !held.is_confirmed(rule, now)
            });
            return;
        }
        let (since, lists) = self.empty.get_or_insert((now, 0));
        *lists = lists.saturating_add(are_missing.into());
        let (elapsed, lists, servers) = (now.duration_since(*since), *lists, self.servers);
        self.held.retain(|_, held| !self.rule.is_empty_believed(lists, servers, elapsed, held.lease()));
        // The server lists nothing yet, so the time of held instances does not run.
        self.held.values_mut().for_each(|held| held.restart(now));
    }

    /// Returns the server's list together with the held and the static instances. Unchanged
    /// applications are the same `Arc` as in the previous snapshot.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        if !self.is_consistent {
            let (applications, vips) = (self.published.clone(), self.vips.clone());
            return Snapshot { applications, vips, ..Snapshot::default() };
        }
        let mut applications = self.mirror.applications.clone();
        let mut held = BTreeMap::<&Arc<str>, Vec<Arc<Instance>>>::new();
        for ((app, _), Held { instance, .. }) in &self.held {
            held.entry(app).or_default().push(instance.clone());
        }
        for (app, mut instances_held) in held {
            instances_held.sort_by(|a, b| a.id().cmp(b.id()));
            let mut instances =
                applications.get(app).map_or_else(Vec::new, |application| application.instances.clone());
            instances.append(&mut instances_held);
            applications.insert(app.clone(), shared(self.published.get(app), app, instances));
        }
        for fixed in &self.fixed {
            applications.entry(fixed.name.clone()).or_insert_with(|| fixed.clone());
        }
        VipIndex::update(&mut self.vips, &self.published, &applications);
        self.published.clone_from(&applications);
        Snapshot { applications, vips: self.vips.clone(), ..Snapshot::default() }
    }
}

#[cfg(test)]
mod tests;
