use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use InstanceStatus::{Down, OutOfService, Up};
use Origin::Client;

fn entries(registry: &Registry) -> Vec<String> {
    let delta = registry.delta();
    let records = delta.applications.iter().flat_map(|view| &view.records);
    records
        .map(|r| format!("{} {} {}", r.instance.id(), r.instance.action.unwrap().as_str(), r.instance.status))
        .collect()
}

#[test]
fn delta_has_one_entry_per_instance_with_its_last_state() {
    let registry = with_instance(Up, 1);
    assert_eq!(entries(&registry), ["i ADDED UP"]);
    registry.set_override("APP", "i", OutOfService, None, 1);
    assert_eq!(entries(&registry), ["i MODIFIED OUT_OF_SERVICE"]);
    registry.cancel("APP", "i", 2);
    assert_eq!(entries(&registry), ["i DELETED OUT_OF_SERVICE"]);
    registry.register(instance("i", Up, 2), Client, 3).unwrap();
    assert_eq!(entries(&registry), ["i ADDED UP"]);
}

#[test]
fn repeated_change_moves_to_the_end_of_its_application() {
    let registry = registry();
    for (app, id) in [("B", "1"), ("A", "2"), ("B", "3"), ("B", "1")] {
        registry.register(instance_of(app, id, Up, 1), Client, 0).unwrap();
    }
    assert_eq!(ids(&registry.delta()), ["B/3", "B/1", "A/2"]);
    assert_eq!(registry.ids(), ["A/2", "B/1", "B/3"]);
}

#[test]
fn changes_are_shown_for_the_retention_time() {
    let registry = with_instance(Up, 1);
    registry.register(instance("j", Down, 1), Client, 10_000).unwrap();
    let before = registry.delta_revision();
    registry.prune_delta(180_000);
    assert_eq!((entries(&registry).len(), registry.delta_revision()), (2, before));
    registry.prune_delta(180_001);
    assert_eq!(entries(&registry), ["j ADDED DOWN"]);
    assert_ne!(registry.delta_revision(), before);
    registry.prune_delta(500_000);
    let delta = registry.delta();
    assert!(delta.applications.is_empty());
    assert_eq!(delta.counts.to_string(), "DOWN_1_UP_1_", "the hash is that of the whole registry");
}

#[test]
fn heartbeat_is_no_change_and_the_version_counts_the_deltas() {
    let registry = with_instance(Up, 1);
    let (full, delta) = (registry.full(), registry.delta());
    registry.renew("APP", "i", None, Client, 5);
    registry.set_override("APP", "i", Up, None, 6);
    assert!(Arc::ptr_eq(&full, &registry.full()) && Arc::ptr_eq(&delta, &registry.delta()));
    assert_eq!((full.version, delta.version), (1, 1));
    registry.register(instance("i", Up, 2), Client, 7).unwrap();
    assert_eq!((registry.full().version, registry.delta().version, registry.delta().version), (1, 2, 2));
}

/// The memory does not grow with the number of changes.
#[test]
fn replaced_records_are_freed() {
    const CHANGES: i64 = 20_000;
    let registry = registry();
    let (mut rng, mut weak) = (fastrand::Rng::with_seed(3), Vec::new());
    for now in 0..CHANGES {
        let (app, id) = (rng.u8(..4).to_string(), rng.u8(..50).to_string());
        match rng.u8(..8) {
            0 => drop(registry.cancel(&app, &id, now)),
            1 => drop(registry.set_override(&app, &id, *rng.choice(&InstanceStatus::ALL).unwrap(), None, now)),
            _ => drop(registry.register(instance_of(&app, &id, Up, now), Client, now).unwrap()),
        }
        // Lists are built, which hold records.
        for snapshot in [registry.full(), registry.delta()] {
            let view = snapshot.applications.iter().find(|view| *view.name == *app);
            let record = view.and_then(|view| view.records.iter().find(|record| record.instance.id() == id));
            weak.extend(record.map(Arc::downgrade));
        }
        if now % 1_000 == 0 {
            registry.prune_delta(now);
        }
    }
    registry.prune_delta(i64::MAX);
    drop((registry.full(), registry.delta()));
    assert!(weak.len() > CHANGES as usize, "records were observed");
    let alive: std::collections::HashSet<_> =
        weak.iter().filter_map(std::sync::Weak::upgrade).map(|record| Arc::as_ptr(&record)).collect();
    assert_eq!(alive.len(), registry.size());
    assert!(registry.listing.is_trimmed(), "no list holds a record that it does not show");
}

/// Copy of a client that started empty.
type Copy = BTreeMap<(String, String), Instance>;

fn apply(copy: &mut Copy, delta: &Snapshot) {
    for record in delta.applications.iter().flat_map(|view| &view.records) {
        let instance = &record.instance;
        let key = (instance.app().to_owned(), instance.id().to_owned());
        match instance.action {
            Some(ActionType::Deleted) => copy.remove(&key),
            _ => copy.insert(key, (**instance).clone()),
        };
    }
}

proptest! {
    /// A client that applies each delta has what the full list shows.
    #[test]
    fn client_that_applies_random_deltas_has_the_full_list(
        operations in prop::collection::vec((0usize..8, 0u8..3, 0u8..4, 0usize..5, 0i64..40_000), 1..120),
    ) {
        let registry = registry();
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut copy, mut now, mut dirty) = (Copy::new(), 0, 0);
        for (operation, app, id, status, pause) in operations {
            now += pause;
            dirty += 1;
            let (app, id, status) = (format!("A{app}"), format!("i{id}"), InstanceStatus::ALL[status]);
            match operation {
                0 | 1 => drop(registry.register(instance_of(&app, &id, status, dirty), Client, now).unwrap()),
                2 => drop(registry.register(instance_of(&app, &id, status, dirty - 20), Origin::Replica, now).unwrap()),
                3 => drop(registry.cancel(&app, &id, now)),
                4 => drop(registry.set_override(&app, &id, status, Some(dirty), now)),
                5 => drop(registry.delete_override(&app, &id, status, None, now)),
                6 => drop(registry.renew(&app, &id, None, Client, now)),
                _ => drop(registry.evict(&mut rng, now)),
            }
            registry.prune_delta(now);
            let (delta, full) = (registry.delta(), registry.full());
            apply(&mut copy, &delta);
            prop_assert_eq!(delta.counts, full.counts);
            let counted: crate::model::StatusCounts = copy.values().map(|instance| instance.status).collect();
            prop_assert_eq!(counted, full.counts);
            let listed: Copy = full.applications.iter().flat_map(|view| &view.records).map(|record| {
                let instance = (*record.instance).clone();
                ((instance.app().to_owned(), instance.id().to_owned()), instance)
            }).collect();
            prop_assert_eq!(&copy, &listed);
            prop_assert_eq!(full.revision, registry.revision());
        }
    }
}

#[test]
fn writers_on_many_threads_agree_with_what_is_published() {
    let registry = registry();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let registry = &registry;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                for now in 0..2_000 {
                    let id = rng.u8(..8).to_string();
                    match rng.u8(..4) {
                        0 => drop(registry.cancel("APP", &id, now)),
                        1 => drop(registry.renew("APP", &id, None, Client, now)),
                        _ => {
                            let status = *rng.choice(&InstanceStatus::ALL).unwrap();
                            registry.register(instance(&id, status, now), Client, now).unwrap();
                        }
                    }
                }
            });
        }
    });
    let full = registry.full();
    for id in 0..8 {
        let id = id.to_string();
        let stored = registry.instance("APP", &id, 0).map(|instance| instance.status);
        let mut listed = full.applications.iter().flat_map(|view| &view.records);
        assert_eq!(listed.find(|r| r.instance.id() == id).map(|r| r.instance.status), stored, "instance {id}");
    }
    assert_eq!(full.counts.total(), registry.ids().len());
}
