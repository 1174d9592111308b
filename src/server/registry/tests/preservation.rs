use super::*;
use InstanceStatus::Up;
use Origin::Client;

#[test]
fn self_preservation_stops_evictions_until_enough_heartbeats_arrive() {
    let registry = Registry::new(Settings::default());
    for i in 0..10 {
        registry.register(instance(&i.to_string(), Up, 1), Client, 0).unwrap();
    }
    // 10 instances, 2 heartbeats per minute, 85 %: more than 17 are needed.
    let heartbeats = |count: usize, now| {
        for i in 0..count {
            registry.renew("APP", &(i % 9).to_string(), None, Origin::Replica, now);
        }
        registry.end_minute();
    };
    assert_eq!(evict(&registry, 95_000), 0, "no heartbeats were counted yet");
    heartbeats(17, 95_000);
    assert_eq!(evict(&registry, 95_000), 0);
    assert!(registry.instance("APP", "9", 95_000).is_some(), "it is not hidden");
    heartbeats(18, 95_000);
    assert_eq!(evict(&registry, 95_000), 1);
    assert!(!registry.ids().contains(&"APP/9".into()));
    heartbeats(0, 95_000);
    assert_eq!(evict(&registry, 1_000_000), 0);
}

/// Returns a registry with self-preservation by application. Each entry of the fleet is an
/// application, its number of instances and their announced interval. All are registered at time 0.
fn preserving_by_application(fleet: &[(&str, usize, i32)]) -> Registry {
    let registry = Registry::new(Settings { preservation_by_application: true, ..Settings::default() });
    for &(app, count, renewal_interval_secs) in fleet {
        for i in 0..count {
            let mut instance = instance_of(app, &i.to_string(), Up, 1);
            instance.lease = Some(LeaseInfo { renewal_interval_secs, ..LeaseInfo::default() });
            registry.register(instance, Client, 0).unwrap();
        }
    }
    registry
}

#[test]
fn silent_application_is_preserved_while_others_are_evicted() {
    let registry = preserving_by_application(&[("CUT", 10, 30), ("FINE", 20, 30), ("PAIR", 2, 30), ("ONE", 1, 30)]);
    // 7 of 10, 18 of 20, 1 of 2 and 0 of 1 send heartbeats.
    for (app, heard) in [("CUT", 7), ("FINE", 18), ("PAIR", 1)] {
        (0..heard).for_each(|i| drop(registry.renew(app, &i.to_string(), None, Client, 90_000)));
    }
    assert!(registry.instance("ONE", "0", 90_001).is_some(), "nothing is evicted before the first run");
    assert_eq!(evict(&registry, 90_001), 4);
    assert_eq!(registry.full().applications.iter().map(|view| view.records.len()).collect::<Vec<_>>(), [10, 18, 1]);
    assert!(registry.instance("CUT", "9", 90_001).is_some(), "a preserved instance is not hidden");
    assert_eq!(evict(&registry, 90_002), 0);
    // One more sends a heartbeat. Two of ten may be evicted.
    registry.renew("CUT", "9", None, Client, 90_003);
    assert!(registry.instance("CUT", "8", 90_003).is_some(), "until the next run");
    assert_eq!(evict(&registry, 90_004), 2);
}

#[test]
fn server_without_heartbeats_preserves_everything() {
    let registry = preserving_by_application(&[("BIG", 10, 30), ("PAIR", 2, 30), ("ONE", 1, 30), ("OTHER", 1, 30)]);
    assert_eq!((evict(&registry, 1_000_000), registry.size()), (0, 14));
    // BIG sends heartbeats again. One silent small instance is plausible; three of fourteen are too
    // many.
    (0..10).for_each(|i| drop(registry.renew("BIG", &i.to_string(), None, Client, 1_000_000)));
    registry.renew("PAIR", "0", None, Client, 1_000_000);
    assert_eq!((evict(&registry, 1_000_001), registry.size()), (3, 11));
}

#[test]
fn silence_is_measured_by_the_announced_interval() {
    for (interval, silent_after) in [(30, 60_000), (5, 10_000), (40, 80_000), (0, 60_000), (-1, 60_000)] {
        // Two of two are too many, so the application is preserved once both are silent.
        let registry = preserving_by_application(&[("A", 2, interval), ("ALIVE", 1, 30)]);
        for (now, is_enabled) in [(silent_after, true), (silent_after + 1, false)] {
            registry.renew("ALIVE", "0", None, Client, now);
            evict(&registry, now);
            assert_eq!(registry.is_expiration_enabled("A"), is_enabled, "{interval} s, at {now}");
        }
    }
    // An expired lease counts as silent even if the announced interval is longer than the lease.
    let registry = preserving_by_application(&[("A", 2, i32::MAX), ("ALIVE", 1, 30)]);
    registry.renew("ALIVE", "0", None, Client, 90_001);
    assert_eq!((evict(&registry, 90_000), evict(&registry, 90_001)), (0, 0));
    assert!(!registry.is_expiration_enabled("A"));
}

#[test]
fn killed_and_replaced_instances_are_evicted() {
    let registry = preserving_by_application(&[("A", 10, 30), ("ALIVE", 40, 30)]);
    for id in 0..10 {
        registry.register(instance_of("CUT", &id.to_string(), Up, 1), Client, 1).unwrap();
    }
    let renew = |app: &str, ids: std::ops::Range<usize>, now| {
        ids.for_each(|id| drop(registry.renew(app, &id.to_string(), None, Client, now)));
    };
    // All of A is replaced. Half of CUT sends heartbeats and registers again, which replaces
    // nothing.
    for id in 10..20 {
        registry.register(instance_of("A", &id.to_string(), Up, 1), Client, 20_000).unwrap();
    }
    for id in 0..5 {
        registry.register(instance_of("CUT", &id.to_string(), Up, 2), Client, 20_000).unwrap();
    }
    renew("A", 10..20, 90_001);
    renew("CUT", 0..5, 90_001);
    renew("ALIVE", 0..40, 90_001);
    while evict(&registry, 90_001) > 0 {}
    assert!((0..10).all(|id| registry.instance("A", &id.to_string(), 90_001).is_none()));
    assert!((0..10).all(|id| registry.instance("CUT", &id.to_string(), 90_001).is_some()));
    assert_eq!(registry.size(), 60);
}
