use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::mirror::{Mirror, shared};
use super::snapshot::Snapshot;
use super::vip_index::VipIndex;
use crate::model::{Application, Applications, Digest, Instance, Known};

/// The copy of the registry without IO: the server's list, and held instances that are missing from
/// it.
///
/// A server that restarted sends a valid empty list until its providers have registered again. A
/// server that is cut off from its providers evicts most of them. Regular cancellations and
/// evictions appear in deltas. Therefore a full response is trusted in the instances that it lists,
/// and in its omissions only if they are few. If it lists less than half as many instances as
/// before, or none of an application, the omitted instances are *held*.
///
/// A held instance is removed when a delta deletes it, when the server lists it again, or when it
/// was missing for its lease (at least `min_hold`) at a server that responds and lists any
/// instance. An empty list alone never removes an instance.
///
/// `now` is a clock that runs only while the server responds, so that outages and failed fetches do
/// not count.
#[derive(Debug)]
pub(super) struct LocalCopy {
    mirror: Mirror,
    held: HashMap<Key, Held>,
    min_hold: Duration,
    published: BTreeMap<Arc<str>, Arc<Application>>,
    /// Index of the published applications.
    vips: Arc<VipIndex>,
}

/// Application and instance id.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Held {
    instance: Arc<Instance>,
    since: Instant,
}

impl LocalCopy {
    pub(super) fn new(min_hold: Duration) -> Self {
        Self {
            mirror: Mirror::default(),
            held: HashMap::new(),
            min_hold,
            published: BTreeMap::new(),
            vips: Arc::default(),
        }
    }

    /// Returns `true` if the server lists no instance. Java clients fetch the whole registry then,
    /// too.
    pub(super) fn is_empty(&self) -> bool {
        self.mirror.len() == 0
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

    /// Applies a full response and the digest that came with it.
    pub(super) fn apply_full(&mut self, list: &Applications, digest: Option<Digest>, now: Instant) {
        let before = self.mirror.applications.clone();
        let total = self.mirror.len();
        self.mirror.replace(list, digest);
        let listed = &self.mirror.applications;
        let present: HashSet<(&str, &str)> = each(listed).map(|(app, instance)| (&**app, instance.id())).collect();
        self.held.retain(|(app, id), _| !present.contains(&(&**app, &**id)));

        let missing: Vec<_> = each(&before).filter(|(app, i)| !present.contains(&(&***app, i.id()))).collect();
        // If as many other instances appeared, as in a deployment, the list is complete.
        let implausible = self.mirror.len() * 2 < total;
        for (app, instance) in missing {
            if implausible || !listed.contains_key(app) {
                let held = Held { instance: instance.clone(), since: now };
                self.held.insert((app.clone(), Arc::from(instance.id())), held);
            }
        }
        self.expire(now);
    }

    /// Applies a response without changes.
    pub(super) fn apply_unchanged(&mut self, now: Instant) {
        self.expire(now);
    }

    /// Applies a delta. Returns `true` if the copy now matches the server, and `false` if changes
    /// were missed.
    #[must_use]
    pub(super) fn apply_delta(&mut self, delta: &Applications, digest: Option<Digest>, now: Instant) -> bool {
        self.mirror.apply(delta);
        if !self.held.is_empty() {
            let changes = delta.applications.iter().flat_map(|app| app.instances.iter().map(move |i| (&app.name, i)));
            for (app, instance) in changes.filter(|(_, instance)| instance.action().is_some()) {
                self.held.remove(&(app.clone(), Arc::from(instance.id())));
            }
        }
        self.expire(now);
        self.mirror.matches(delta, digest)
    }

    fn expire(&mut self, now: Instant) {
        if self.is_empty() {
            // The server lists nothing yet, so the time of held instances does not run.
            self.held.values_mut().for_each(|held| held.since = now);
            return;
        }
        let min_hold = self.min_hold;
        self.held.retain(|_, held| {
            let lease = held.instance.lease.map_or(0, |lease| lease.duration_secs.max(0).unsigned_abs());
            now.duration_since(held.since) < Duration::from_secs(lease.into()).max(min_hold)
        });
    }

    /// Returns the server's list together with the held instances. Unchanged applications are the
    /// same `Arc` as in the previous snapshot.
    pub(super) fn snapshot(&mut self) -> Snapshot {
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
        VipIndex::update(&mut self.vips, &self.published, &applications);
        self.published.clone_from(&applications);
        Snapshot { applications, vips: self.vips.clone(), ..Snapshot::default() }
    }
}

fn each(applications: &BTreeMap<Arc<str>, Arc<Application>>) -> impl Iterator<Item = (&Arc<str>, &Arc<Instance>)> {
    applications.iter().flat_map(|(app, application)| application.instances.iter().map(move |instance| (app, instance)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ActionType, InstanceStatus};

    fn instance(id: &str, action: ActionType) -> Arc<Instance> {
        let built = Instance::builder("orders").ip_addr("10.0.0.1").port(80).id(id).build().unwrap();
        Arc::new(Instance { action: Some(action), ..built })
    }

    fn list(instances: Vec<Arc<Instance>>, hash: &str) -> Applications {
        let application = Application { name: "ORDERS".into(), instances };
        Applications { version: Some(1), hash: Some(hash.into()), applications: vec![Arc::new(application)] }
    }

    fn added(ids: &[&str]) -> Vec<Arc<Instance>> {
        ids.iter().map(|id| instance(id, ActionType::Added)).collect()
    }

    fn ids(local: &mut LocalCopy) -> Vec<String> {
        let snapshot = local.snapshot();
        let instances = snapshot.application("orders").map_or(&[][..], |application| &application.instances);
        let mut ids: Vec<_> = instances.iter().map(|i| i.id().to_owned()).collect();
        ids.sort();
        ids
    }

    fn full_of(ids: &[&str]) -> LocalCopy {
        let mut local = LocalCopy::new(Duration::from_secs(90));
        local.apply_full(&list(added(ids), ""), None, Instant::now());
        local
    }

    #[test]
    fn delta_adds_modifies_and_deletes_and_may_be_repeated() {
        let mut local = full_of(&["a", "b"]);
        let down =
            Arc::new(Instance { status: InstanceStatus::Down, ..(*instance("b", ActionType::Modified)).clone() });
        let changes = vec![instance("a", ActionType::Deleted), down, instance("c", ActionType::Added)];
        for _ in 0..3 {
            assert!(local.apply_delta(&list(changes.clone(), "DOWN_1_UP_1_"), None, Instant::now()));
            assert_eq!(ids(&mut local), ["b", "c"]);
        }
    }

    #[test]
    fn delta_of_unknown_instances_adds_the_modified_and_ignores_the_deleted() {
        let mut local = full_of(&["a"]);
        let delta = vec![instance("x", ActionType::Deleted), instance("b", ActionType::Modified)];
        assert!(local.apply_delta(&list(delta, "UP_2_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn delta_entry_without_an_action_is_ignored() {
        let mut local = full_of(&["a"]);
        let silent = Arc::new(Instance { action: None, ..(*instance("b", ActionType::Added)).clone() });
        assert!(local.apply_delta(&list(vec![silent], "UP_1_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["a"]);
    }

    #[test]
    fn delta_of_an_unknown_application_adds_all_but_the_deleted() {
        let mut local = LocalCopy::new(Duration::ZERO);
        let delta = vec![instance("x", ActionType::Deleted), instance("y", ActionType::Added)];
        assert!(local.apply_delta(&list(delta, "UP_1_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["y"]);
    }

    #[test]
    fn delta_with_another_or_no_hash_does_not_match() {
        let mut local = full_of(&["a"]);
        assert!(!local.apply_delta(&list(vec![], "UP_2_"), None, Instant::now()));
        assert!(!local.apply_delta(&Applications { hash: None, ..list(vec![], "") }, None, Instant::now()));
    }

    #[test]
    fn unchanged_application_is_the_same_arc() {
        let mut local = full_of(&["a", "b"]);
        let before = local.snapshot();
        let renewed = added(&["a", "b"]).into_iter().map(|i| {
            let lease = crate::model::LeaseInfo { last_renewal_timestamp: 7, ..i.lease.unwrap() };
            Arc::new(Instance { lease: Some(lease), ..(*i).clone() })
        });
        local.apply_full(&list(renewed.collect(), ""), None, Instant::now());
        let after = local.snapshot();
        assert!(Arc::ptr_eq(before.application("ORDERS").unwrap(), after.application("orders").unwrap()));
    }

    #[test]
    fn empty_list_never_removes_an_instance() {
        let mut local = full_of(&["a", "b"]);
        for hours in 0..3 {
            local.apply_full(&list(vec![], ""), None, Instant::now() + Duration::from_secs(hours * 3600));
            assert_eq!(ids(&mut local), ["a", "b"]);
        }
        // The same holds for a single instance.
        let mut one = full_of(&["a"]);
        one.apply_full(&list(vec![], ""), None, Instant::now());
        assert_eq!(ids(&mut one), ["a"]);
    }

    #[test]
    fn most_instances_missing_at_once_are_held_for_their_lease() {
        let start = Instant::now();
        let mut local = full_of(&["a", "b", "c", "d"]);
        local.apply_full(&list(added(&["a"]), ""), None, start);
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        let held = local.snapshot();
        local.apply_full(&list(added(&["a", "b"]), ""), None, start + Duration::from_secs(30));
        assert_eq!((ids(&mut local).len(), local.held()), (4, 2));
        assert!(held.application("ORDERS").is_some());
        local.apply_full(&list(added(&["a", "b"]), ""), None, start + Duration::from_secs(91));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn instances_missing_at_a_recovering_server_are_held_for_a_lease() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut local = full_of(&["a", "b", "c", "d"]);
        local.apply_full(&list(vec![], ""), None, at(10));
        local.apply_full(&list(vec![], ""), None, at(150));
        local.apply_full(&list(added(&["a"]), ""), None, at(180));
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        local.apply_full(&list(added(&["a", "b"]), ""), None, at(239));
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        local.apply_full(&list(added(&["a", "b"]), ""), None, at(241));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn application_missing_completely_is_held() {
        let mut local = full_of(&["a", "b", "c"]);
        let billing = Arc::new(Instance { app: "BILLING".into(), ..(*instance("x", ActionType::Added)).clone() });
        let mut both = list(added(&["a", "b", "c"]), "");
        both.applications.push(Arc::new(Application { name: "BILLING".into(), instances: vec![billing] }));
        local.apply_full(&both, None, Instant::now());
        local.apply_full(&list(added(&["a", "b", "c"]), ""), None, Instant::now());
        assert!(local.snapshot().application("billing").is_some());
    }

    #[test]
    fn two_entries_of_one_application_are_merged() {
        let mut local = LocalCopy::new(Duration::ZERO);
        let mut twice = list(added(&["a", "b"]), "");
        twice.applications.extend(list(added(&["b", "c"]), "").applications);
        local.apply_full(&twice, None, Instant::now());
        assert_eq!(ids(&mut local), ["a", "b", "c"]);
    }

    #[test]
    fn held_instance_is_removed_by_a_delta_that_deletes_it() {
        let mut local = full_of(&["a", "b", "c"]);
        local.apply_full(&list(added(&["a"]), ""), None, Instant::now());
        assert!(local.apply_delta(&list(vec![instance("b", ActionType::Deleted)], "UP_1_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["a", "c"]);
    }

    #[test]
    fn few_missing_instances_are_removed_at_once() {
        let mut local = full_of(&["a", "b", "c", "d"]);
        local.apply_full(&list(added(&["a", "b", "c"]), ""), None, Instant::now());
        assert_eq!(ids(&mut local), ["a", "b", "c"]);
    }

    #[test]
    fn two_instances_with_one_id_yield_the_later_one() {
        let down = Arc::new(Instance { status: InstanceStatus::Down, ..(*instance("a", ActionType::Added)).clone() });
        let mut local = LocalCopy::new(Duration::ZERO);
        local.apply_full(&list(vec![instance("a", ActionType::Added), down], ""), None, Instant::now());
        assert_eq!(local.snapshot().application("ORDERS").unwrap().instances[0].status(), InstanceStatus::Down);
        assert!(local.apply_delta(&list(vec![], "DOWN_1_"), None, Instant::now()));
    }
}
