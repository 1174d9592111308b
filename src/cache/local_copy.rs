use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::held::Held;
use super::mirror::{Mirror, is_among, shared};
use super::snapshot::Snapshot;
use super::vip_index::VipIndex;
use crate::config::{Disappearance, OfflineConfig};
use crate::model::{Application, Applications, Digest, Instance, Known};
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
/// rule confirms that it disappeared. Empty lists have to be repeated for longer than others.
///
/// `now` is a clock that runs only while the server responds, so that outages and failed fetches do
/// not count.
#[derive(Debug)]
pub(super) struct LocalCopy {
    pub(super) mirror: Mirror,
    held: HashMap<Key, Held>,
    /// Time of the first empty list in a row, and their number.
    empty: Option<(Instant, u32)>,
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
        Self {
            mirror: Mirror::default(),
            held: HashMap::new(),
            empty: None,
            is_consistent: true,
            responder: None,
            rule: config.disappearance.clone(),
            fixed: config.instances.clone(),
            has_others: false,
            published: BTreeMap::new(),
            vips: Arc::default(),
        }
    }

    /// Returns a copy with the same snapshot that has no list of the server, so that one must be
    /// fetched.
    pub(super) fn without_list(&self) -> Self {
        Self {
            mirror: Mirror::default(),
            held: HashMap::new(),
            empty: None,
            is_consistent: false,
            has_others: false,
            responder: None,
            rule: self.rule.clone(),
            fixed: self.fixed.clone(),
            published: self.published.clone(),
            vips: self.vips.clone(),
        }
    }

    /// Sets the server whose responses are applied from now on.
    pub(super) fn set_responder(&mut self, origin: &Origin) {
        if self.responder.as_ref() != Some(origin) {
            self.responder = Some(origin.clone());
        }
    }

    /// Takes over a list that was saved earlier, before the first response.
    pub(super) fn restore(&mut self, list: &Applications) {
        self.mirror.replace(list, None);
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
        self.mirror.replace(list, digest);
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
            let present: HashSet<&str> = listed.iter().map(|instance| instance.id()).collect();
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
        let (elapsed, lists) = (now.duration_since(*since), *lists);
        self.held.retain(|_, held| !self.rule.is_empty_believed(lists, elapsed, held.lease()));
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
mod tests {
    use std::time::Duration;

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
        let mut local = LocalCopy::new(&OfflineConfig::default());
        full(&mut local, &list(added(ids), ""), Instant::now());
        local
    }

    /// Applies a full response, and publishes the snapshot as every refresh does.
    fn full(local: &mut LocalCopy, list: &Applications, now: Instant) {
        local.apply_full(list, None, now);
        local.snapshot();
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
        let mut local = LocalCopy::new(&OfflineConfig::default());
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
        full(&mut local, &list(renewed.collect(), ""), Instant::now());
        let after = local.snapshot();
        assert!(Arc::ptr_eq(before.application("ORDERS").unwrap(), after.application("orders").unwrap()));
    }

    #[test]
    fn empty_lists_are_believed_by_their_number_and_their_time() {
        let start = Instant::now();
        let cases: [&[(u64, usize)]; 3] =
            [&[(0, 2), (14, 2), (15, 0)], &[(0, 2), (60, 2), (61, 0)], &[(0, 2), (1, 2), (2, 2), (14, 2), (15, 0)]];
        for case in cases {
            let mut local = full_of(&["a", "b"]);
            for &(minutes, left) in case {
                full(&mut local, &list(vec![], ""), start + Duration::from_secs(minutes * 60));
                assert_eq!(ids(&mut local).len(), left, "{case:?}: {minutes}");
            }
        }
    }

    #[test]
    fn most_instances_missing_at_once_are_held_for_their_lease() {
        let start = Instant::now();
        let mut local = full_of(&["a", "b", "c", "d"]);
        full(&mut local, &list(added(&["a"]), ""), start);
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        let held = local.snapshot();
        full(&mut local, &list(added(&["a", "b"]), ""), start + Duration::from_secs(30));
        assert_eq!((ids(&mut local).len(), local.held()), (4, 2));
        assert!(held.application("ORDERS").is_some());
        full(&mut local, &list(added(&["a", "b"]), ""), start + Duration::from_secs(91));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn instances_missing_at_a_recovering_server_are_held_for_a_lease() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut local = full_of(&["a", "b", "c", "d"]);
        full(&mut local, &list(vec![], ""), at(10));
        full(&mut local, &list(vec![], ""), at(150));
        full(&mut local, &list(added(&["a"]), ""), at(180));
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        full(&mut local, &list(added(&["a", "b"]), ""), at(239));
        assert_eq!(ids(&mut local), ["a", "b", "c", "d"]);
        full(&mut local, &list(added(&["a", "b"]), ""), at(241));
        assert_eq!(ids(&mut local), ["a", "b"]);
    }

    #[test]
    fn application_missing_completely_is_held() {
        let mut local = full_of(&["a", "b", "c"]);
        let billing = Arc::new(Instance { app: "BILLING".into(), ..(*instance("x", ActionType::Added)).clone() });
        let mut both = list(added(&["a", "b", "c"]), "");
        both.applications.push(Arc::new(Application { name: "BILLING".into(), instances: vec![billing] }));
        full(&mut local, &both, Instant::now());
        full(&mut local, &list(added(&["a", "b", "c"]), ""), Instant::now());
        assert!(local.snapshot().application("billing").is_some());
    }

    #[test]
    fn two_entries_of_one_application_are_merged() {
        let mut local = LocalCopy::new(&OfflineConfig::default());
        let mut twice = list(added(&["a", "b"]), "");
        twice.applications.extend(list(added(&["b", "c"]), "").applications);
        full(&mut local, &twice, Instant::now());
        assert_eq!(ids(&mut local), ["a", "b", "c"]);
    }

    #[test]
    fn held_instance_is_removed_by_a_delta_that_deletes_it() {
        let mut local = full_of(&["a", "b", "c"]);
        full(&mut local, &list(added(&["a"]), ""), Instant::now());
        assert!(local.apply_delta(&list(vec![instance("b", ActionType::Deleted)], "UP_1_"), None, Instant::now()));
        assert_eq!(ids(&mut local), ["a", "c"]);
    }

    #[test]
    fn few_missing_instances_are_removed_at_once() {
        let mut local = full_of(&["a", "b", "c", "d"]);
        full(&mut local, &list(added(&["a", "b", "c"]), ""), Instant::now());
        assert_eq!(ids(&mut local), ["a", "b", "c"]);
    }

    /// Returns a copy with instances of several applications, each with this number of them.
    fn copy_of(rule: Disappearance, apps: &[(&str, usize)]) -> LocalCopy {
        let mut local = LocalCopy::new(&OfflineConfig { disappearance: rule, ..OfflineConfig::default() });
        full(&mut local, &list_of(apps), Instant::now());
        local
    }

    /// Returns a list in which the instances of each application are numbered.
    fn list_of(apps: &[(&str, usize)]) -> Applications {
        let application = |(name, count): &(&str, usize)| {
            let ids = (0..*count).map(|number| number.to_string());
            let instances = ids
                .map(|id| Arc::new(Instance { app: (*name).into(), ..(*instance(&id, ActionType::Added)).clone() }))
                .collect();
            Arc::new(Application { name: (*name).into(), instances })
        };
        Applications { version: Some(1), hash: None, applications: apps.iter().map(application).collect() }
    }

    fn count(local: &mut LocalCopy) -> usize {
        local.snapshot().instance_count()
    }

    #[test]
    fn list_of_another_registry_removes_nothing_at_first() {
        let mut local = copy_of(Disappearance::new(), &[("A", 3), ("B", 2)]);
        let other = Applications { applications: list_of(&[("X", 9)]).applications, ..list(vec![], "") };
        full(&mut local, &other, Instant::now());
        assert_eq!((count(&mut local), local.held()), (14, 5));
        // The right one replaces it at once.
        full(&mut local, &list_of(&[("A", 3), ("B", 2)]), Instant::now());
        assert_eq!((count(&mut local), local.held()), (14, 9), "X is missing as a whole");
        assert!(local.snapshot().application("A").unwrap().instances.len() == 3);
    }

    #[test]
    fn mismatched_delta_and_empty_list_after_it_remove_nothing() {
        let mut local = full_of(&["a", "b"]);
        let delta = list(vec![instance("a", ActionType::Deleted), instance("b", ActionType::Deleted)], "UP_7_");
        assert!(!local.apply_delta(&delta, None, Instant::now()));
        assert_eq!(ids(&mut local), ["a", "b"]);
        full(&mut local, &list(vec![], ""), Instant::now());
        assert_eq!((ids(&mut local).len(), local.held()), (2, 2));
        // Nor does it remove what is held.
        assert!(!local.apply_delta(&delta, None, Instant::now()));
        full(&mut local, &list(vec![], ""), Instant::now());
        assert_eq!(local.held(), 2);
    }

    #[test]
    fn held_instances_are_removed_by_the_confirmation_of_the_rule() {
        let (start, shrunk) = (Instant::now(), list_of(&[("A", 1)]));
        let (first, second) = (Origin::of(1), Origin::of(2));
        let by_responses = Disappearance::new().confirmed_by_responses(3);
        let by_servers = Disappearance::new().confirmed_by_servers(2);
        for (rule, origins, held) in [
            (Disappearance::new(), [&first, &second, &first, &second], [9, 9, 9, 9]),
            (by_responses.clone(), [&first, &first, &first, &first], [9, 9, 0, 0]),
            (by_servers.clone(), [&first, &first, &second, &first], [9, 9, 0, 0]),
            (by_servers.confirmed_by_responses(2), [&first, &first, &second, &first], [9, 0, 0, 0]),
        ] {
            let mut local = copy_of(rule.clone(), &[("A", 10)]);
            for (origin, held) in origins.into_iter().zip(held) {
                local.set_responder(origin);
                full(&mut local, &shrunk, start);
                assert_eq!(local.held(), held, "{rule:?}");
            }
        }
        // Empty lists confirm nothing, and begin the count anew.
        let mut local = copy_of(by_responses, &[("A", 10)]);
        local.set_responder(&first);
        for (apps, held) in [(1, 9), (1, 9), (0, 10), (0, 10), (0, 10), (0, 10), (1, 9), (1, 9), (1, 0)] {
            full(&mut local, &list_of(&[("A", apps)][..apps]), start);
            assert_eq!(local.held(), held, "{apps}");
        }
    }

    #[test]
    fn time_and_share_of_the_rule_replace_the_defaults() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut local = copy_of(Disappearance::new().plausible_share(0.9).hold(Duration::from_secs(10)), &[("A", 10)]);
        full(&mut local, &list_of(&[("A", 9)]), start);
        assert_eq!(local.held(), 0);
        full(&mut local, &list_of(&[("A", 8)]), start);
        assert_eq!(local.held(), 1);
        full(&mut local, &list_of(&[("A", 8)]), at(9));
        assert_eq!(local.held(), 1);
        full(&mut local, &list_of(&[("A", 8)]), at(10));
        assert_eq!(count(&mut local), 8);

        let mut local = copy_of(Disappearance::new().empty_hold(Duration::from_secs(60)), &[("A", 2)]);
        for (seconds, left) in [(0, 2), (59, 2), (60, 0)] {
            full(&mut local, &list_of(&[]), at(seconds));
            assert_eq!(count(&mut local), left, "{seconds}");
        }

        let mut local = copy_of(Disappearance::believed(), &[("A", 8), ("B", 1)]);
        for (apps, left) in [(&[("A", 1)][..], 1), (&[], 0)] {
            full(&mut local, &list_of(apps), start);
            assert_eq!(count(&mut local), left);
        }
    }

    #[test]
    fn static_instances_are_those_of_applications_that_the_registry_lacks() {
        let fixed = list_of(&[("A", 5), ("B", 5)]).applications;
        let mut local = LocalCopy::new(&OfflineConfig { instances: fixed.clone(), ..OfflineConfig::default() });
        assert_eq!(count(&mut local), 10);
        full(&mut local, &list_of(&[("A", 1), ("C", 1)]), Instant::now());
        assert_eq!(count(&mut local), 1 + 5 + 1);
        let deleted = Arc::new(Instance { app: "A".into(), ..(*instance("0", ActionType::Deleted)).clone() });
        let gone = Application { name: "A".into(), instances: vec![deleted] };
        let delta = Applications { version: Some(2), hash: Some("UP_1_".into()), applications: vec![Arc::new(gone)] };
        assert!(local.apply_delta(&delta, None, Instant::now()));
        assert_eq!(count(&mut local), 5 + 5 + 1);
        assert!(Arc::ptr_eq(&fixed[0], local.snapshot().application("a").unwrap()));
        // They are not held, since they are no part of the registry.
        full(&mut local, &list_of(&[]), Instant::now());
        assert_eq!((count(&mut local), local.held()), (5 + 5 + 1, 1));
    }

    #[test]
    fn restored_list_is_replaced_by_the_rule() {
        let restored = || {
            let mut local = LocalCopy::new(&OfflineConfig::default());
            local.restore(&list_of(&[("A", 4), ("B", 1)]));
            assert_eq!(count(&mut local), 5);
            local
        };
        for (fetched, left) in [(&[("A", 4)][..], 5), (&[("A", 3), ("B", 1)], 4), (&[("A", 1)], 5), (&[], 5)] {
            let mut local = restored();
            full(&mut local, &list_of(fetched), Instant::now());
            assert_eq!(count(&mut local), left, "{fetched:?}");
        }
    }

    #[test]
    fn copy_without_a_list_keeps_its_snapshot_until_the_next_one() {
        let mut local = full_of(&["a", "b", "c"]).without_list();
        assert!(local.is_empty());
        assert_eq!(ids(&mut local), ["a", "b", "c"]);
        full(&mut local, &list(added(&["a"]), ""), Instant::now());
        assert_eq!((ids(&mut local).len(), local.held()), (3, 2));
    }

    #[test]
    fn two_instances_with_one_id_yield_the_later_one() {
        let down = Arc::new(Instance { status: InstanceStatus::Down, ..(*instance("a", ActionType::Added)).clone() });
        let mut local = LocalCopy::new(&OfflineConfig::default());
        full(&mut local, &list(vec![instance("a", ActionType::Added), down], ""), Instant::now());
        assert_eq!(local.snapshot().application("ORDERS").unwrap().instances[0].status(), InstanceStatus::Down);
        assert!(local.apply_delta(&list(vec![], "DOWN_1_"), None, Instant::now()));
    }
}
