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
    local.apply_full(list, 0, None, now);
    local.snapshot();
}

#[test]
fn delta_adds_modifies_and_deletes_and_may_be_repeated() {
    let mut local = full_of(&["a", "b"]);
    let down = Arc::new(Instance { status: InstanceStatus::Down, ..(*instance("b", ActionType::Modified)).clone() });
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
fn empty_lists_are_believed_once_each_server_may_have_sent_one() {
    let start = Instant::now();
    for (servers, lists) in [(1, 3), (3, 3), (5, 5)] {
        let mut local = full_of(&["a"]);
        local.set_responder(&Origin::of(0), servers);
        // The first one starts the hold.
        for number in 1..=lists {
            assert_eq!(ids(&mut local).len(), 1, "{servers}: {number}");
            let minutes = if number == 1 { 0 } else { 20 };
            full(&mut local, &list(vec![], ""), start + Duration::from_secs(minutes * 60));
        }
        assert_eq!(ids(&mut local).len(), 0, "{servers}");
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
            local.set_responder(origin, 2);
            full(&mut local, &shrunk, start);
            assert_eq!(local.held(), held, "{rule:?}");
        }
    }
    // Empty lists confirm nothing, and begin the count anew.
    let mut local = copy_of(by_responses, &[("A", 10)]);
    local.set_responder(&first, 1);
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

#[test]
fn empty_list_is_unreadable_only_if_its_hash_counts_instances() {
    for (hash, unreadable) in [("UP_2_", true), ("DOWN_1_UP_1_", true), ("", false), ("0", false), ("null", false)] {
        let mut local = full_of(&["a"]);
        let empty = Applications { version: Some(1), hash: Some(hash.into()), applications: Vec::new() };
        full(&mut local, &empty, Instant::now());
        assert_eq!(local.is_unreadable, unreadable, "{hash:?}");
    }
}
