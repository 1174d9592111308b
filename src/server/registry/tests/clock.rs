//! Published times after the wall clock was set back.

use std::time::Duration;

use super::*;
use crate::server::registry::version::Version;
use InstanceStatus::{Down, OutOfService, Up};
use Origin::Client;

const HOUR: i64 = 3_600_000;

/// Creates a registry that keeps tombstones, whose published times are ahead by an hour.
fn ahead() -> Registry {
    let registry =
        Registry::new(Settings { tombstone_retention: Duration::from_secs(600), ..super::registry().settings });
    assert!(registry.move_published(0, HOUR, 0));
    registry
}

/// Returns the state of an instance at a peer, changed at this time.
fn copy(id: &str, status: InstanceStatus, updated: i64) -> Instance {
    Instance { last_updated_timestamp: Some(updated), ..instance(id, status, 1) }
}

fn updated(registry: &Registry, id: &str, now: i64) -> i64 {
    registry.instance("APP", id, now).unwrap().last_updated_timestamp.unwrap()
}

#[test]
fn change_after_the_clock_was_set_back_is_newer_than_a_record_from_before() {
    for status in [Up, Down] {
        let registry = ahead();
        registry.register(instance("i", status, 1), Client, 1_000).unwrap();
        assert!(registry.move_published(HOUR, 0, 60_000));
        assert_eq!(registry.adopt(copy("i", OutOfService, 999), 60_000, 60_000), Ok(false), "it is older");
        assert_eq!(registry.adopt(copy("i", OutOfService, 2_000), 60_000, 60_000), Ok(true));
        assert_eq!(registry.instance("APP", "i", 60_000).unwrap().status, OutOfService);
        let cancelled = Version { dirty: Some(1), updated: Some(3_000) };
        assert!(registry.adopt_tombstone("APP", "i", cancelled, 60_000), "a cancellation at a peer");
    }
}

#[test]
fn change_after_the_clock_was_set_back_is_newer_than_a_cancellation_from_before() {
    let registry = ahead();
    registry.register(instance("i", Up, 1), Client, 1_000).unwrap();
    registry.cancel("APP", "i", 2_000);
    assert!(registry.move_published(HOUR, 0, 60_000));
    let deleted = registry.delta().applications[0].records[0].instance.clone();
    assert_eq!(Version::of(&deleted), Version { dirty: Some(1), updated: Some(2_000) }, "peers adopt this tombstone");
    assert_eq!(registry.tombstone("APP", "i"), Some(Version::of(&deleted)));
    assert_eq!(registry.adopt(copy("i", Down, 1_500), 60_000, 60_000), Ok(false), "it is older");
    assert_eq!(registry.adopt(copy("i", Down, 3_000), 60_000, 60_000), Ok(true));
}

#[test]
fn state_of_a_peer_from_before_the_clock_was_set_forward_is_set_back_as_well() {
    let registry =
        Registry::new(Settings { tombstone_retention: Duration::from_secs(600), ..super::registry().settings });
    assert!(registry.move_published(0, HOUR, 1_000));
    // Converted by the clock that is ahead.
    registry.adopt(copy("i", Up, HOUR + 950), 1_010, 1_010).unwrap();
    assert!(registry.move_published(HOUR, 0, 2_000));
    assert_eq!(updated(&registry, "i", 2_000), 950);
    assert_eq!(registry.adopt(copy("i", Down, 1_500), 2_000, 2_000), Ok(true), "a later change at the peer");
}

#[test]
fn lists_and_records_agree_after_the_clock_was_set_back() {
    let registry = ahead();
    for (id, at) in [("1", 1_000), ("2", 2_000), ("3", 3_000), ("4", 4_000)] {
        registry.register(instance(id, Up, 1), Client, at).unwrap();
    }
    registry.prune_delta(181_500);
    registry.set_override("APP", "2", OutOfService, None, 5_000);
    registry.cancel("APP", "3", 6_000);
    let (full, delta, weights) = (registry.full(), registry.delta(), registry.listing.weights());
    let before = (registry.revision(), registry.delta_revision());
    assert!(registry.move_published(HOUR, 0, 7_000));
    assert!(before.0 < registry.revision() && before.1 < registry.delta_revision(), "cached lists are built again");
    let times = |snapshot: &Snapshot| {
        let records = snapshot.applications.iter().flat_map(|view| &view.records);
        records.map(|record| record.instance.last_updated_timestamp.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((ids(&registry.full()), ids(&registry.delta())), (ids(&full), ids(&delta)));
    assert_eq!((registry.full().counts, registry.full().digest), (full.counts, full.digest));
    assert_eq!(registry.listing.weights(), weights);
    assert_eq!(times(&registry.full()), [1_000, 5_000, 4_000]);
    assert_eq!(times(&registry.delta()), [4_000, 5_000, 6_000]);
    for (id, at) in [("1", 1_000), ("2", 5_000), ("4", 4_000)] {
        assert_eq!(updated(&registry, id, 4_000), at);
    }
}

#[test]
fn clock_set_back_in_steps_moves_times_from_the_first_one_on() {
    let registry = ahead();
    registry.register(instance("i", Up, 1), Client, 1_000).unwrap();
    for (step, from, to) in [(2, HOUR, HOUR / 2), (3, HOUR / 2, 0), (4, 0, -HOUR)] {
        assert!(!registry.move_published(from + 1, to, step * 1_000), "another thread moved them");
        assert!(registry.move_published(from, to, step * 1_000));
        assert_eq!(updated(&registry, "i", step * 1_000), to + 1_000);
    }
}

#[test]
fn time_from_before_the_clock_was_set_forward_is_kept_unless_it_is_in_the_future() {
    for (back_to, expected) in [(0, 1_000), (-HOUR, 3_000 - HOUR)] {
        let registry = registry();
        registry.register(instance("i", Up, 1), Client, 1_000).unwrap();
        assert!(registry.move_published(0, HOUR, 2_000));
        assert!(registry.move_published(HOUR, back_to, 3_000));
        assert_eq!(updated(&registry, "i", 3_000), expected);
    }
}

#[test]
fn lease_times_are_set_back_with_the_clock_and_the_lease_lasts_as_long() {
    let registry = ahead();
    for id in ["i", "j"] {
        registry.register(instance(id, Up, 1), Client, 1_000).unwrap();
    }
    assert!(registry.move_published(HOUR, 0, 2_000));
    let lease = registry.instance("APP", "i", 2_000).unwrap().lease.unwrap();
    let LeaseInfo { registration_timestamp, last_renewal_timestamp, service_up_timestamp, eviction_timestamp, .. } =
        lease;
    assert_eq!([registration_timestamp, last_renewal_timestamp, service_up_timestamp], [1_000; 3]);
    assert_eq!(eviction_timestamp, 0, "zero means never");
    // It renews the lease.
    registry.set_override("APP", "j", Down, None, 2_500);
    assert_eq!(registry.instance("APP", "j", 2_500).unwrap().lease.unwrap().service_up_timestamp, 1_000);
    assert_eq!(evict(&registry, 91_000), 0);
    assert_eq!(evict(&registry, 91_001), 1);
}
