use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Snapshot;
use super::mirror::{Mirror, shared};
use super::vips::VipIndex;
use crate::model::{Application, Applications, Digest, Instance};

/// The consumer's registry without IO: what the server holds, and what it lost without a word.
///
/// A server that restarts answers correctly formed emptiness until its providers have found it
/// again, and one cut off from them forgets most of them. An instance that leaves in order, or is
/// evicted, is told in deltas; so a full response is believed in what it says, and in what it omits
/// only where that is little. If it lists less than half as many instances as before, or nothing of
/// an application, the omitted ones are *held*. A held instance goes when the server says so (a
/// delta names it deleted), comes back, or has stayed away for its lease (at least `min_hold`) on a
/// server that responds and has anything at all. An empty response alone never removes an instance.
///
/// `now` is the time in which the server responded, so that neither an outage nor a failed fetch
/// now and then counts.
#[derive(Debug)]
pub(super) struct LocalRegistry {
    mirror: Mirror,
    held: HashMap<Key, Held>,
    min_hold: Duration,
    published: BTreeMap<Arc<str>, Arc<Application>>,
    /// Of what is published.
    vips: Arc<VipIndex>,
}

/// Application and instance id.
type Key = (Arc<str>, Arc<str>);

#[derive(Debug)]
struct Held {
    instance: Arc<Instance>,
    since: Instant,
}

impl LocalRegistry {
    pub(super) fn new(min_hold: Duration) -> Self {
        Self {
            mirror: Mirror::default(),
            held: HashMap::new(),
            min_hold,
            published: BTreeMap::new(),
            vips: Arc::default(),
        }
    }

    /// Returns true if the server lists nothing, in which state Java clients fetch everything too.
    pub(super) fn is_empty(&self) -> bool {
        self.mirror.len() == 0
    }

    /// Number of instances that are kept although the server no longer lists them.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Number that a change of any instance that the server lists raises.
    pub(super) fn changes(&self) -> u64 {
        self.mirror.changes()
    }

    /// Returns true if the server sends digests.
    pub(super) fn has_digest(&self) -> bool {
        self.mirror.has_digest()
    }

    /// Returns true if a response with this digest can be compared exactly.
    pub(super) fn is_exact(&self, digest: Option<Digest>) -> bool {
        self.mirror.is_exact(digest)
    }

    /// Takes a full response, with the digest that the server sent with it.
    pub(super) fn full(&mut self, answer: &Applications, digest: Option<Digest>, now: Instant) {
        let before = self.mirror.applications.clone();
        let total = self.mirror.len();
        self.mirror.replace(answer, digest);
        let now_there = &self.mirror.applications;
        let present: HashSet<(&str, &str)> = each(now_there).map(|(app, instance)| (&**app, instance.id())).collect();
        self.held.retain(|(app, id), _| !present.contains(&(&**app, &**id)));

        let lost: Vec<_> = each(&before).filter(|(app, i)| !present.contains(&(&***app, i.id()))).collect();
        // Where others came instead, as in a deployment, nothing was forgotten.
        let implausible = self.mirror.len() * 2 < total;
        for (app, instance) in lost {
            if implausible || !now_there.contains_key(app) {
                let held = Held { instance: instance.clone(), since: now };
                self.held.insert((app.clone(), Arc::from(instance.id())), held);
            }
        }
        self.expire(now);
    }

    /// Takes the response that the server still lists the same.
    pub(super) fn unchanged(&mut self, now: Instant) {
        self.expire(now);
    }

    /// Takes a delta. True if the copy now agrees with the server; otherwise something was missed.
    #[must_use]
    pub(super) fn delta(&mut self, delta: &Applications, digest: Option<Digest>, now: Instant) -> bool {
        self.mirror.apply(delta);
        if !self.held.is_empty() {
            let told = delta.applications.iter().flat_map(|app| app.instances.iter().map(move |i| (&app.name, i)));
            for (app, instance) in told.filter(|(_, instance)| instance.action().is_some()) {
                self.held.remove(&(app.clone(), Arc::from(instance.id())));
            }
        }
        self.expire(now);
        self.mirror.agrees_with(delta, digest)
    }

    fn expire(&mut self, now: Instant) {
        if self.is_empty() {
            // Nobody came back yet, so nobody is late.
            self.held.values_mut().for_each(|held| held.since = now);
            return;
        }
        let min_hold = self.min_hold;
        self.held.retain(|_, held| {
            let lease = held.instance.lease.map_or(0, |lease| lease.duration_secs.max(0).unsigned_abs());
            now.duration_since(held.since) < Duration::from_secs(lease.into()).max(min_hold)
        });
    }

    /// The view of callers: the server's list and the held instances. Unchanged applications are
    /// the same `Arc` as last time.
    pub(super) fn snapshot(&mut self) -> Snapshot {
        let mut applications = self.mirror.applications.clone();
        let mut held = BTreeMap::<&Arc<str>, Vec<Arc<Instance>>>::new();
        for ((app, _), Held { instance, .. }) in &self.held {
            held.entry(app).or_default().push(instance.clone());
        }
        for (app, mut kept) in held {
            kept.sort_by(|a, b| a.id().cmp(b.id()));
            let mut instances =
                applications.get(app).map_or_else(Vec::new, |application| application.instances.clone());
            instances.append(&mut kept);
            applications.insert(app.clone(), shared(self.published.get(app), app, instances));
        }
        VipIndex::update(&mut self.vips, &self.published, &applications);
        self.published.clone_from(&applications);
        Snapshot { applications, vips: self.vips.clone() }
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

    fn answer(instances: Vec<Arc<Instance>>, hash: &str) -> Applications {
        let application = Application { name: "ORDERS".into(), instances };
        Applications { version: Some(1), hash: Some(hash.into()), applications: vec![Arc::new(application)] }
    }

    fn added(ids: &[&str]) -> Vec<Arc<Instance>> {
        ids.iter().map(|id| instance(id, ActionType::Added)).collect()
    }

    fn ids(local: &mut LocalRegistry) -> Vec<String> {
        let snapshot = local.snapshot();
        let instances = snapshot.application("orders").map_or(&[][..], |application| &application.instances);
        let mut ids: Vec<_> = instances.iter().map(|i| i.id().to_owned()).collect();
        ids.sort();
        ids
    }

    fn full_of(ids: &[&str]) -> LocalRegistry {
        let mut local = LocalRegistry::new(Duration::from_secs(90));
        local.full(&answer(added(ids), ""), None, Instant::now());
        local
    }

    #[test]
    fn a_delta_adds_modifies_and_deletes_and_may_come_again() {
        let mut local = full_of(&["a", "b"]);
        let down =
            Arc::new(Instance { status: InstanceStatus::Down, ..(*instance("b", ActionType::Modified)).clone() });
        let changes = vec![instance("a", ActionType::Deleted), down, instance("c", ActionType::Added)];
        for _ in 0..3 {
            assert!(local.delta(&answer(changes.clone(), "DOWN_1_UP_1_"), None, Instant::now()));
            assert_eq!(ids(&mut local), ["b", "c"]);
        }
    }

    #[test]
    fn deleting_the_unknown_changes_nothing_and_modifying_it_adds_it() {
        let mut local = full_of(&["a"]);
        let delta = vec![instance("x", ActionType::Deleted), instance("b", ActionType::Modified)];
        assert!(local.delta(&answer(delta, "UP_2_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn an_entry_without_an_action_says_nothing() {
        let mut local = full_of(&["a"]);
        let silent = Arc::new(Instance { action: None, ..(*instance("b", ActionType::Added)).clone() });
        assert!(local.delta(&answer(vec![silent], "UP_1_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["a"]);
    }

    #[test]
    fn only_the_deleted_of_an_unknown_application_does_not_come_back() {
        let mut local = LocalRegistry::new(Duration::ZERO);
        let delta = vec![instance("x", ActionType::Deleted), instance("y", ActionType::Added)];
        assert!(local.delta(&answer(delta, "UP_1_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["y"]);
    }

    #[test]
    fn a_hash_that_differs_or_is_missing_does_not_agree() {
        let mut local = full_of(&["a"]);
        assert!(!local.delta(&answer(vec![], "UP_2_"), None, Instant::now()));
        assert!(!local.delta(&Applications { hash: None, ..answer(vec![], "") }, None, Instant::now()));
    }

    #[test]
    fn an_unchanged_application_is_the_same_arc() {
        let mut local = full_of(&["a", "b"]);
        let before = local.snapshot();
        let renewed = added(&["a", "b"]).into_iter().map(|i| {
            let lease = crate::model::LeaseInfo { last_renewal_timestamp: 7, ..i.lease.unwrap() };
            Arc::new(Instance { lease: Some(lease), ..(*i).clone() })
        });
        local.full(&answer(renewed.collect(), ""), None, Instant::now());
        let after = local.snapshot();
        assert!(Arc::ptr_eq(before.application("ORDERS").unwrap(), after.application("orders").unwrap()));
    }

    #[test]
    fn an_empty_answer_removes_nothing_however_long_it_stays() {
        let mut local = full_of(&["a", "b"]);
        for hours in 0..3 {
            local.full(&answer(vec![], ""), None, Instant::now() + Duration::from_secs(hours * 3600));
            assert_eq!(ids(&mut local), ["a", "b"]);
        }
        // A single instance is no exception.
        let mut one = full_of(&["a"]);
        one.full(&answer(vec![], ""), None, Instant::now());
        assert_eq!(ids(&mut one), ["a"]);
    }

    #[test]
    fn most_instances_lost_at_once_are_held_for_their_lease() {
        let start = Instant::now();
        let mut local = full_of(&["a", "b", "c", "d"]);
        local.full(&answer(added(&["a"]), ""), None, start);
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        let held = local.snapshot();
        local.full(&answer(added(&["a", "b"]), ""), None, start + Duration::from_secs(30));
        assert_eq!((ids(&mut local).len(), local.held()), (4, 2));
        assert!(held.application("ORDERS").is_some());
        local.full(&answer(added(&["a", "b"]), ""), None, start + Duration::from_secs(91));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn a_recovering_server_has_a_lease_long_to_find_everybody() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut local = full_of(&["a", "b", "c", "d"]);
        local.full(&answer(vec![], ""), None, at(10));
        local.full(&answer(vec![], ""), None, at(150));
        local.full(&answer(added(&["a"]), ""), None, at(180));
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        local.full(&answer(added(&["a", "b"]), ""), None, at(239));
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        local.full(&answer(added(&["a", "b"]), ""), None, at(241));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn an_application_lost_whole_is_held_though_most_of_the_registry_is_there() {
        let mut local = full_of(&["a", "b", "c"]);
        let billing = Arc::new(Instance { app: "BILLING".into(), ..(*instance("x", ActionType::Added)).clone() });
        let mut both = answer(added(&["a", "b", "c"]), "");
        both.applications.push(Arc::new(Application { name: "BILLING".into(), instances: vec![billing] }));
        local.full(&both, None, Instant::now());
        local.full(&answer(added(&["a", "b", "c"]), ""), None, Instant::now());
        assert!(local.snapshot().application("billing").is_some());
    }

    #[test]
    fn two_entries_of_one_application_are_one() {
        let mut local = LocalRegistry::new(Duration::ZERO);
        let mut twice = answer(added(&["a", "b"]), "");
        twice.applications.extend(answer(added(&["b", "c"]), "").applications);
        local.full(&twice, None, Instant::now());
        assert_eq!(ids(&mut local), ["a", "b", "c"]);
    }

    #[test]
    fn a_held_instance_goes_when_the_server_says_so() {
        let mut local = full_of(&["a", "b", "c"]);
        local.full(&answer(added(&["a"]), ""), None, Instant::now());
        assert!(local.delta(&answer(vec![instance("b", ActionType::Deleted)], "UP_1_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["a", "c"]);
    }

    #[test]
    fn a_few_lost_instances_are_believed() {
        let mut local = full_of(&["a", "b", "c", "d"]);
        local.full(&answer(added(&["a", "b", "c"]), ""), None, Instant::now());
        assert_eq!(ids(&mut local), ["a", "b", "c"]);
    }

    #[test]
    fn of_two_instances_with_one_id_the_later_one_counts() {
        let down = Arc::new(Instance { status: InstanceStatus::Down, ..(*instance("a", ActionType::Added)).clone() });
        let mut local = LocalRegistry::new(Duration::ZERO);
        local.full(&answer(vec![instance("a", ActionType::Added), down], ""), None, Instant::now());
        assert_eq!(local.snapshot().application("ORDERS").unwrap().instances[0].status(), InstanceStatus::Down);
        assert!(local.delta(&answer(vec![], "DOWN_1_"), None, Instant::now()));
    }
}
