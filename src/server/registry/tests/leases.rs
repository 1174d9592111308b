use super::*;
use InstanceStatus::{Down, OutOfService, Starting, Up};
use Origin::{Client, Replica};

#[test]
fn lease_lives_one_duration_and_after_a_heartbeat_two() {
    for (doubling, renewed_at, last_renewal, alive_until) in
        [(true, None, 0, 90_000), (true, Some(30_000), 120_000, 210_000), (false, Some(30_000), 30_000, 120_000)]
    {
        let registry =
            Registry::new(Settings { self_preservation: false, lease_doubling: doubling, ..Settings::default() });
        registry.register(instance("i", Up, 1), Client, 0).unwrap();
        if let Some(now) = renewed_at {
            assert_eq!(registry.renew("APP", "i", None, Client, now), Renewal::Renewed);
        }
        assert_eq!(registry.stored().lease.unwrap().last_renewal_timestamp, last_renewal);
        assert!(registry.instance("APP", "i", alive_until).is_some());
        assert_eq!(evict(&registry, alive_until), 0);
        assert!(
            registry.instance("APP", "i", alive_until + 1).is_none(),
            "an expired instance is hidden before its eviction"
        );
        assert_eq!(registry.ids(), ["APP/i"], "it is still listed");
        // This run is on time, so the lease is not extended.
        assert_eq!(evict(&registry, alive_until + 1), 1);
        assert!(registry.ids().is_empty());
    }
}

#[test]
fn heartbeat_revives_an_expired_lease() {
    let registry = with_instance(Up, 1);
    assert_eq!(registry.renew("APP", "i", None, Client, 1_000_000), Renewal::Renewed);
    assert_eq!(evict(&registry, 1_000_001), 0);
}

#[test]
fn lease_duration_is_that_of_the_last_registration() {
    let registry = registry();
    let with_duration = |seconds, dirty| {
        let mut instance = instance("i", Up, dirty);
        instance.lease = Some(LeaseInfo { duration_secs: seconds, ..LeaseInfo::default() });
        instance
    };
    registry.register(with_duration(10, 200), Client, 0).unwrap();
    assert!(registry.instance("APP", "i", 10_001).is_none());
    registry.register(with_duration(20, 100), Client, 0).unwrap();
    assert_eq!(registry.stored().lease.unwrap().duration_secs, 10, "the older data is dropped");
    assert!(registry.instance("APP", "i", 20_000).is_some(), "its duration is accepted");
    for (seconds, alive_until) in [(0, 90_000), (-1, 90_000), (i32::MIN, 90_000), (i32::MAX, 86_400_000)] {
        registry.register(with_duration(seconds, 300), Client, 0).unwrap();
        assert!(registry.instance("APP", "i", alive_until).is_some());
        assert!(registry.instance("APP", "i", alive_until + 1).is_none());
        assert_eq!(registry.renew("APP", "i", None, Client, i64::MAX - 1), Renewal::Renewed);
        assert!(registry.instance("APP", "i", i64::MAX).is_some(), "no time is out of range");
    }
}

#[test]
fn id_in_two_applications_names_two_instances() {
    let registry = registry();
    for (app, dirty) in [("A", 1), ("B", 2)] {
        registry.register(instance_of(app, "i", Up, dirty), Client, 0).unwrap();
    }
    assert_eq!(registry.ids(), ["A/i", "B/i"]);
    assert_eq!(registry.renew("A", "i", Some(2), Client, 60_000), Renewal::SenderIsNewer);
    assert_eq!(registry.renew("B", "i", Some(2), Client, 1), Renewal::Renewed);
    registry.set_override("A", "i", Down, None, 1);
    registry.merge_metadata("A", "i", vec![("k".into(), "v".into())], 60_000).unwrap();
    let [a, b] = ["A", "B"].map(|app| registry.instance(app, "i", 1).unwrap());
    assert_eq!((a.status, b.status), (Down, Up));
    assert_eq!((a.metadata.len(), b.metadata.len()), (1, 0));
    registry.renew("A", "i", None, Client, 180_000);
    assert_eq!(evict(&registry, 180_002), 1);
    assert_eq!(registry.ids(), ["A/i"], "the other is expired");
    assert!(registry.cancel("B", "i", 180_003).is_none());
    assert_eq!(ids(&registry.delta()), ["A/i", "B/i"]);
}

#[test]
fn clock_that_jumps_both_ways_evicts_nothing() {
    const HOUR: i64 = 3_600_000;
    let registry = with_instance(Up, 1);
    registry.set_override("APP", "i", OutOfService, None, 0);
    assert_eq!(evict(&registry, 0), 0);
    // The clock goes back. Heartbeats count from the earlier time.
    assert_eq!(registry.renew("APP", "i", None, Client, -HOUR), Renewal::Renewed);
    assert_eq!(evict(&registry, -HOUR), 0);
    assert_eq!(registry.instance("APP", "i", -HOUR).map(|instance| instance.status), Some(OutOfService));
    registry.prune_delta(-HOUR);
    assert_eq!(registry.delta().applications.len(), 1);
    // The clock goes forward by an hour without heartbeats, so leases are extended.
    assert_eq!((evict(&registry, 0), registry.ids().len()), (0, 1));
    assert_eq!(registry.renew("APP", "i", None, Client, 1), Renewal::Renewed);
    assert_eq!((evict(&registry, 60_000), evict(&registry, 180_001), evict(&registry, 240_001)), (0, 0, 1));
    for now in [i64::MIN, i64::MAX, 0, i64::MAX, i64::MIN] {
        registry.register(instance("i", Up, now), Client, now).unwrap();
        registry.set_override("APP", "i", Down, None, now);
        registry.renew("APP", "i", None, Client, now);
        evict(&registry, now);
        registry.prune_delta(now);
    }
}

#[test]
fn versions_are_compared_after_the_renewal() {
    let ours = 7;
    for (theirs, client, replica) in [
        (None, "renewed", "renewed"),
        (Some(7), "renewed", "renewed"),
        (Some(9), "newer", "newer"),
        (Some(5), "renewed", "older"),
    ] {
        for (origin, expected) in [(Client, client), (Replica, replica)] {
            let registry = with_instance(Up, ours);
            let actual = match registry.renew("APP", "i", theirs, origin, 10) {
                Renewal::Renewed => "renewed",
                Renewal::SenderIsNewer => "newer",
                Renewal::SenderIsOlder(instance) => {
                    assert_eq!(instance.last_dirty_timestamp, Some(ours));
                    "older"
                }
                Renewal::NotFound => "not found",
            };
            assert_eq!(actual, expected, "{theirs:?} {origin:?}");
            assert_eq!(registry.stored().lease.unwrap().last_renewal_timestamp, 90_010);
        }
    }
    assert_eq!(registry().renew("APP", "i", None, Client, 0), Renewal::NotFound);
}

#[test]
fn older_registration_is_dropped_and_a_missing_version_is_now() {
    let registry = with_instance(Up, 22_222);
    registry.register(instance("i", Starting, 11_111), Replica, 5).unwrap();
    assert_eq!(registry.status(), Up);
    assert_eq!(registry.stored().lease.unwrap().registration_timestamp, 5, "the lease is new");

    let registry = with_instance(Up, 100);
    registry.register(Instance { last_dirty_timestamp: None, ..instance("i", Down, 0) }, Client, 101).unwrap();
    assert_eq!((registry.status(), registry.stored().last_dirty_timestamp), (Down, Some(101)));
}

#[test]
fn time_of_the_first_up_is_kept() {
    let registry = registry();
    for (now, status, expected) in [(1, Starting, 0), (2, Up, 2), (3, Down, 2), (4, Up, 2)] {
        registry.register(instance("i", status, now), Client, now).unwrap();
        let info = registry.stored().lease.unwrap();
        assert_eq!((info.service_up_timestamp, info.registration_timestamp), (expected, now));
    }
    let registry = with_instance(Starting, 1);
    registry.set_override("APP", "i", Up, None, 9);
    assert_eq!(registry.stored().lease.unwrap().service_up_timestamp, 9);
}

#[test]
fn cancelled_instance_is_deleted_once_in_the_delta() {
    let registry = with_instance(Up, 1);
    registry.set_override("APP", "i", Down, None, 1);
    assert!(registry.cancel("APP", "i", 5).is_some());
    assert!(registry.cancel("APP", "i", 6).is_none());
    assert!(registry.ids().is_empty());
    assert_eq!(registry.full().counts.total(), 0);
    let gone = registry.delta().applications[0].records[0].instance.clone();
    assert_eq!((gone.action, gone.last_updated_timestamp), (Some(ActionType::Deleted), Some(5)));
    assert_eq!(gone.lease.unwrap().eviction_timestamp, 5);
    registry.register(instance("i", Up, 2), Client, 7).unwrap();
    assert_eq!(registry.status(), Up, "the override ended with the lease");
}

#[test]
fn eviction_run_takes_a_random_share() {
    let picked = |seed| {
        let registry = registry();
        for i in 0..20 {
            registry.register(instance(&format!("{i:02}"), Up, 1), Client, 0).unwrap();
        }
        assert_eq!(registry.evict(&mut fastrand::Rng::with_seed(seed), 100_000), 3);
        registry.ids()
    };
    assert_eq!(picked(1), picked(1));
    assert!((2..20).any(|seed| picked(seed) != picked(1)), "different seeds pick different leases");
}

#[test]
fn late_eviction_run_extends_the_leases() {
    let registry = with_instance(Up, 1);
    assert_eq!(evict(&registry, 50_000), 0);
    // This run is 21 s late, so a lease of 90 s lasts 111 s. The next run is on time.
    assert_eq!(evict(&registry, 131_000), 1);
    let registry = with_instance(Up, 1);
    assert_eq!(evict(&registry, 30_000), 0);
    assert_eq!(evict(&registry, 100_000), 0, "10 s late, and expired 10 s ago");
    assert_eq!(evict(&registry, 160_000), 1);
}

#[test]
fn instance_is_found_by_its_id_alone() {
    let registry = with_instance(Up, 1);
    registry.register(instance_of("OTHER", "x", Up, 1), Client, 0).unwrap();
    assert_eq!(registry.instance_by_id("x", 0).unwrap().app(), "OTHER");
    assert!(registry.instance_by_id("y", 0).is_none());
    assert!(registry.instance_by_id("x", 90_001).is_none(), "expired");
}

#[test]
fn lease_keeps_the_last_client_that_registered_it_and_a_peer_only_without_one() {
    let from = |origin, address: [u8; 4], name: Option<&str>| Registrant {
        origin,
        place: Place::Address(address.into()),
        identity: name.map(|name| format!("user:{name}").into()),
        owner: Owner::Unknown,
        is_provisional: false,
    };
    let registry = registry();
    let register = |registrant: &Registrant, dirty| {
        registry.register(instance("i", Up, dirty), registrant.clone(), dirty).unwrap();
        registry.registrant("APP", "i").unwrap()
    };
    let (peer, alice) = (from(Replica, [10, 0, 0, 9], None), from(Client, [10, 0, 0, 1], Some("alice")));
    assert_eq!(register(&peer, 1), peer);
    assert_eq!(register(&alice, 2), alice);
    assert_eq!(register(&peer, 3), alice);
    assert_eq!(register(&from(Client, [10, 0, 0, 2], None), 1), alice, "an older registration is dropped");
    assert_eq!(alice.to_string(), "client 10.0.0.1 (alice)");
    let moved = from(Client, [10, 0, 0, 2], None);
    assert_eq!(register(&moved, 4), moved);
    registry.merge_metadata("APP", "i", vec![("k".into(), "v".into())], 5).unwrap();
    registry.set_override("APP", "i", Down, None, 6);
    assert_eq!(registry.registrant("APP", "i"), Some(moved));
    registry.cancel("APP", "i", 7);
    assert_eq!(registry.registrant("APP", "i"), None);
}

#[test]
fn history_has_registrations_and_ends_of_leases() {
    let registry = registry();
    registry.register(instance("i", Up, 1), Client, 1).unwrap();
    registry.register(instance("i", Up, 2), Replica, 2).unwrap();
    registry.register(instance("i", Up, 1), Client, 3).unwrap();
    registry.merge_metadata("APP", "i", vec![("k".into(), "v".into())], 4).unwrap();
    registry.cancel_from("APP", "i", Replica, 5);
    registry.register(instance("j", Up, 1), Client, 6).unwrap();
    evict(&registry, 1_000_000);
    let registered: Vec<_> =
        registry.last_registered().into_iter().map(|past| (past.at, past.id.to_string())).collect();
    assert_eq!(registered, [(6, "j".into()), (2, "i".into()), (1, "i".into())]);
    let cancelled: Vec<_> = registry.last_cancelled().into_iter().map(|(past, end)| (past.at, end)).collect();
    assert_eq!(cancelled, [(1_000_000, End::Evicted), (5, End::Cancelled { replicated: true })]);
}
