use super::*;
use InstanceStatus::{Down, Up};
use Origin::{Client, Replica};

const KIB: usize = 1024;
const DAY: i64 = 24 * 3_600_000;

fn registry_with(settings: Settings) -> Registry {
    Registry::new(Settings { self_preservation: false, ..settings })
}

/// Returns an instance whose metadata has this length.
fn large(id: &str, bytes: usize, dirty: i64) -> Instance {
    let mut instance = instance(id, Up, dirty);
    instance.metadata.insert("k", "x".repeat(bytes));
    instance
}

fn deletions(registry: &Registry) -> Vec<String> {
    let delta = registry.delta();
    let records = delta.applications.iter().flat_map(|view| &view.records);
    let deleted = records.filter(|record| record.instance.action == Some(ActionType::Deleted));
    deleted.map(|record| record.instance.id().to_owned()).collect()
}

/// Sets a name to a text of this length.
type Set<'a> = &'a dyn Fn(&mut Instance, usize);

#[test]
fn name_longer_than_the_limit_is_refused_from_each_source() {
    let registry = registry();
    let name = |length: usize| Some("x".repeat(length).into());
    let with = |set: Set<'_>, length| {
        let mut instance = instance("i", Up, 1);
        set(&mut instance, length);
        instance
    };
    let cases: [(&str, Set<'_>); 9] = [
        ("application name", &|instance, length| instance.app = "X".repeat(length).into()),
        ("instance id", &|instance, length| instance.instance_id = name(length)),
        ("host name", &|instance, length| instance.host_name = name(length)),
        ("IP address", &|instance, length| instance.ip_addr = name(length)),
        ("name of the application group", &|instance, length| instance.app_group = name(length)),
        ("name of the auto scaling group", &|instance, length| instance.asg_name = name(length)),
        ("sid", &|instance, length| instance.sid = name(length)),
        ("VIP address", &|instance, length| instance.vip_address = name(length)),
        ("secure VIP address", &|instance, length| instance.secure_vip_address = name(length)),
    ];
    for (what, set) in cases {
        for origin in [Client, Replica] {
            let refused = registry.register(with(set, KIB + 1), origin, 0).unwrap_err();
            assert_eq!(refused, Refused::NameTooLong(what, KIB));
        }
        #[cfg(feature = "peers")]
        assert_eq!(registry.adopt(with(set, KIB + 1), 0, 0), Err(Refused::NameTooLong(what, KIB)));
        assert!(registry.register(with(set, KIB), Client, 0).is_ok(), "{what}");
    }
    let many = vec!["x".repeat(KIB); 10].join(",");
    let listed = Instance { vip_address: Some(many.into()), ..instance("many", Up, 1) };
    assert!(registry.register(listed, Client, 0).is_ok(), "each name of a list counts alone");
}

#[test]
fn instance_larger_than_the_limit_is_refused_and_the_known_one_stays() {
    let registry = with_instance(Up, 1);
    let long = Instance { home_page_url: Some("x".repeat(64 * KIB).into()), ..instance("i", Down, 2) };
    assert_eq!(registry.register(long, Client, 0), Err(Refused::InstanceTooLarge(64 * KIB)));
    assert_eq!(registry.status(), Up);
    let entry = |i: usize| (i.to_string(), "x".repeat(KIB));
    let merged = registry.merge_metadata("APP", "i", (0..60).map(entry).collect(), 0);
    assert_eq!(merged, Err(Refused::InstanceTooLarge(64 * KIB)));
    assert!(registry.merge_metadata("APP", "i", (0..50).map(entry).collect(), 0).is_ok());
}

#[test]
fn full_registry_accepts_renewals_cancellations_and_registrations_that_do_not_grow() {
    for (settings, refused) in [
        (Settings { registry_limit: 3, ..Settings::default() }, Refused::RegistryFull(3)),
        (Settings { registry_size_limit: 17 * KIB, ..Settings::default() }, Refused::RegistryTooLarge(17 * KIB)),
    ] {
        let registry = registry_with(settings);
        for id in ["a", "b", "c"] {
            registry.register(large(id, 3 * KIB, 1), Client, 0).unwrap();
        }
        for origin in [Client, Replica] {
            assert_eq!(registry.register(large("d", 3 * KIB, 1), origin, 0), Err(refused));
        }
        assert_eq!(registry.register(instance_of("OTHER", "d", Up, 1), Client, 0).is_ok(), !refused_by_count(refused));
        registry.cancel("OTHER", "d", 0);
        assert_eq!(registry.size(), 3);
        assert_eq!(registry.renew("APP", "a", Some(1), Client, 1), Renewal::Renewed);
        assert!(registry.register(large("a", 3 * KIB, 2), Client, 2).is_ok());
        assert!(registry.register(large("b", KIB, 2), Client, 2).is_ok(), "it became smaller");
        assert!(registry.set_override("APP", "a", Down, None, 2).is_found());
        assert!(registry.cancel("APP", "c", 3).is_some());
        assert!(registry.register(large("d", 3 * KIB, 1), Client, 4).is_ok(), "the registry has room again");
        assert!(registry.listing.application_of("d", None).is_some());
    }
}

fn refused_by_count(refused: Refused) -> bool {
    matches!(refused, Refused::RegistryFull(_))
}

#[test]
fn refused_instance_leaves_nothing() {
    let registry = registry_with(Settings { registry_size_limit: 3 * KIB, ..Settings::default() });
    registry.register(instance("i", Up, 1), Client, 0).unwrap();
    let (weights, revision) = (registry.listing.weights(), registry.revision());
    assert!(registry.register(instance_of("OTHER", "x", Up, 1), Client, 0).is_err());
    assert_eq!((registry.listing.weights(), registry.revision()), (weights, revision));
    assert!(registry.listing.application_of("x", None).is_none() && registry.application("OTHER").is_none());
    registry.cancel("APP", "i", 0);
    registry.prune_delta(i64::MAX);
    assert_eq!(registry.listing.weights(), (0, 0));
    assert!(registry.listing.is_trimmed());
}

#[test]
fn registering_and_cancelling_in_a_loop_stays_within_the_limit() {
    let limit = 512 * KIB;
    let registry = registry_with(Settings { registry_size_limit: limit, ..Settings::default() });
    registry.register(instance("honest", Up, 1), Client, 0).unwrap();
    for now in 0..1_000 {
        let id = format!("i{now}");
        registry.register(large(&id, 32 * KIB, 1), Client, now).unwrap();
        // Lists are built, so that they hold records as well.
        drop((registry.full(), registry.delta()));
        registry.cancel("APP", &id, now);
        let (listed, deleted) = registry.listing.weights();
        assert!(listed + deleted <= limit && deleted <= limit / 4, "{listed} + {deleted}");
    }
    assert_eq!(deletions(&registry), ["i997", "i998", "i999"], "the oldest deletions are dropped");
    let delta = registry.delta();
    let honest = delta.applications.iter().flat_map(|view| &view.records).any(|r| r.instance.id() == "honest");
    assert!(honest, "the change of a registered instance is never dropped");
}

#[test]
fn one_id_registered_again_and_again_takes_the_room_of_one() {
    let registry = registry();
    for now in 0..1_000 {
        registry.register(large("i", 60 * KIB, now), Client, now).unwrap();
        if now % 2 == 0 {
            registry.cancel("APP", "i", now);
        }
        let (listed, deleted) = registry.listing.weights();
        assert!(listed + deleted < 128 * KIB, "{listed} + {deleted}");
    }
}

#[test]
fn client_that_misses_a_forgotten_deletion_finds_another_hash() {
    let registry = registry_with(Settings { registry_size_limit: 64 * KIB, ..Settings::default() });
    registry.register(large("seen", 8 * KIB, 1), Client, 0).unwrap();
    let seen = registry.full().counts;
    registry.cancel("APP", "seen", 1);
    for now in 0..10 {
        registry.register(large(&now.to_string(), 8 * KIB, 1), Client, 1).unwrap();
        registry.cancel("APP", &now.to_string(), 1);
    }
    assert!(!deletions(&registry).contains(&"seen".to_owned()));
    let delta = registry.delta();
    assert_ne!(delta.counts, seen, "the copy with `seen` has one instance more");
    assert_ne!(delta.digest, [Record::new(large("seen", 8 * KIB, 1)).digest()].into_iter().collect());
}

#[test]
fn deletions_in_the_delta_are_dropped_for_new_instances() {
    let registry = registry_with(Settings { registry_size_limit: 42 * KIB, ..Settings::default() });
    registry.register(large("gone", 8 * KIB, 1), Client, 0).unwrap();
    registry.cancel("APP", "gone", 1);
    assert_eq!(deletions(&registry), ["gone"]);
    for id in ["a", "b", "c", "d"] {
        registry.register(large(id, 8 * KIB, 1), Client, 2).unwrap();
    }
    assert!(deletions(&registry).is_empty());
}

/// Returns a registry that refuses a new instance of 8 KiB, and the number of its instances.
fn full_of_8k(limit: usize) -> (Registry, usize) {
    let registry = registry_with(Settings { registry_size_limit: limit, ..Settings::default() });
    let taken = (0..).take_while(|i| registry.register(large(&format!("i{i:03}"), 8 * KIB, 1), Client, 0).is_ok());
    let taken = taken.count();
    (registry, taken)
}

#[test]
fn replacements_in_a_full_registry_are_all_shown_by_the_delta() {
    let (registry, count) = full_of_8k(1024 * KIB);
    for round in 0..3 {
        registry.cancel("APP", &format!("i{round:03}"), 1);
        registry.register(large(&format!("n{round:03}"), 8 * KIB, 1), Client, 1).unwrap();
        assert_eq!(deletions(&registry).len(), round + 1);
        assert_eq!(registry.size(), count);
    }
    assert_eq!(registry.listing.dropped_deletions(), 0);
}

#[test]
fn known_instance_grows_in_a_full_registry_within_its_reserve() {
    let limit = 1024 * KIB;
    let (registry, count) = full_of_8k(limit);
    for i in 0..count {
        let grown = Instance { status: Down, ..large(&format!("i{i:03}"), 8 * KIB + 256, 2) };
        assert_eq!(registry.register(grown, Client, 1).unwrap().refused, None, "{i}");
    }
    assert!(registry.register(large("new", 1, 1), Client, 1).is_err());
    registry.cancel("APP", "i000", 2);
    assert_eq!(deletions(&registry), ["i000"], "the rest of the size is reserved for deletions");
}

#[test]
fn known_instance_that_grows_beyond_the_reserve_has_its_status_and_version_taken() {
    let (registry, _) = full_of_8k(1024 * KIB);
    let grown = Instance { status: Down, host_name: Some("other".into()), ..large("i000", 60 * KIB, 2) };
    let refused = Refused::RegistryTooLarge(1024 * KIB);
    assert_eq!(registry.register(grown.clone(), Client, 80_000).unwrap().refused, Some(refused));
    let known = registry.instance("APP", "i000", 170_000).expect("its lease is new");
    assert_eq!((known.status, known.last_dirty_timestamp), (Down, Some(2)));
    assert_eq!((known.host_name(), known.metadata.get("k").map(str::len)), (Some("h"), Some(8 * KIB)));
    assert_eq!(known.last_updated_timestamp, Some(0), "a peer that has all data has the newer state");
    assert_eq!(registry.renew("APP", "i000", Some(2), Client, 80_001), Renewal::Renewed);
    #[cfg(feature = "peers")]
    for _ in 0..2 {
        let revision = registry.revision();
        let copy = Instance { last_updated_timestamp: Some(80_000), ..grown.clone() };
        assert_eq!(registry.adopt(copy, 80_000, 80_000), Err(refused), "its state is known");
        assert_eq!(registry.revision(), revision);
    }
    let entries = vec![("more".to_owned(), "x".repeat(55 * KIB))];
    assert_eq!(registry.merge_metadata("APP", "i000", entries, 80_000), Err(refused));
    assert_eq!(registry.instance("APP", "i000", 80_000).unwrap().metadata.len(), 1);
    for i in 1..10 {
        registry.cancel("APP", &format!("i{i:03}"), 90_000);
    }
    #[cfg(feature = "peers")]
    assert_eq!(
        registry.adopt(Instance { last_updated_timestamp: Some(90_000), ..grown }, 90_000, 90_000),
        Ok(true),
        "a copy brings the rest once there is room"
    );
}

/// Returns an instance with this lease whose metadata takes six times its length in lists.
fn greedy(id: &str, lease_secs: i32) -> Instance {
    let lease = LeaseInfo { duration_secs: lease_secs, ..LeaseInfo::default() };
    let mut instance = Instance { lease: Some(lease), ..instance(id, Up, 1) };
    instance.metadata.insert("k", "<".repeat(60 * KIB));
    instance
}

/// Returns a registry with self-preservation that is full of such instances at time 0, and their
/// number.
fn full_of_greedy(lease_secs: i32) -> (Registry, usize) {
    let registry = Registry::new(Settings { registry_size_limit: 4096 * KIB, ..Settings::default() });
    registry.register(greedy("honest", 90), Client, 0).unwrap();
    let taken = (0..).take_while(|i| registry.register(greedy(&format!("i{i}"), lease_secs), Client, 0).is_ok());
    let count = taken.count();
    (registry, count)
}

#[test]
fn silent_instances_of_a_full_registry_are_evicted_for_new_ones() {
    for (lease_secs, silence) in [(10, 10_000), (90, 90_000), (900, 300_000), (86_400, 600_000)] {
        let (registry, count) = full_of_greedy(lease_secs);
        assert_eq!(registry.size(), count + 1);
        registry.renew("APP", "honest", None, Client, silence);
        assert!(registry.register(greedy("new", 90), Client, silence).is_err());
        assert!(registry.register(greedy("new", 90), Client, silence + 1_000).is_ok(), "{lease_secs}");
        assert_eq!(registry.size(), count + 1, "one was evicted for one");
        assert!(registry.ids().contains(&"APP/honest".to_owned()));
        for i in 0..count - 1 {
            registry.register(greedy(&format!("n{i}"), 90), Client, silence + 1_000).unwrap();
        }
        assert!(registry.register(greedy("more", 90), Client, silence + 1_000).is_err(), "the others are alive");
        assert!(registry.ids().contains(&"APP/honest".to_owned()));
        assert!(registry.full().applications[0].records.iter().all(|r| !r.instance.id().starts_with('i')));
    }
}

#[test]
fn instance_with_a_long_interval_may_miss_one_heartbeat_in_a_full_registry() {
    for (interval_secs, silence) in [(30, 120_000), (100, 200_000), (86_400, 360_000)] {
        let registry = Registry::new(Settings { registry_limit: 1, ..Settings::default() });
        let lease = LeaseInfo { duration_secs: 360, renewal_interval_secs: interval_secs, ..LeaseInfo::default() };
        registry.register(Instance { lease: Some(lease), ..instance("i", Up, 1) }, Client, 0).unwrap();
        assert!(registry.register(instance("new", Up, 1), Client, silence).is_err(), "{interval_secs}");
        assert!(registry.register(instance("new", Up, 1), Client, silence + 1_000).is_ok(), "{interval_secs}");
    }
}

#[test]
fn lease_of_an_instance_evicted_from_a_full_registry_has_ended_in_the_delta() {
    let registry = Registry::new(Settings { registry_limit: 1, ..Settings::default() });
    registry.register(instance("silent", Up, 1), Client, 0).unwrap();
    registry.renew("APP", "silent", None, Client, 1_000);
    registry.register(instance("new", Up, 1), Client, 91_500).unwrap();
    let delta = registry.delta();
    let records = delta.applications.iter().flat_map(|view| &view.records);
    let removed = records.map(|record| &record.instance).find(|instance| instance.id() == "silent").unwrap();
    let (lease, at) = (removed.lease.unwrap(), removed.last_updated_timestamp.unwrap());
    assert_eq!(removed.action, Some(ActionType::Deleted));
    assert!(lease.last_renewal_timestamp + 1000 * i64::from(lease.duration_secs) < at, "{lease:?} {at}");
}

#[test]
fn longest_silent_instance_is_evicted_first_and_a_renewed_one_last() {
    let registry = Registry::new(Settings { registry_limit: 3, ..Settings::default() });
    for (id, registered) in [("renewed", 0), ("b", 2_000), ("a", 3_000)] {
        registry.register(instance(id, Up, 1), Client, registered).unwrap();
    }
    registry.renew("APP", "renewed", None, Client, 1_000);
    for (now, new, left) in [
        (300_000, "x", ["APP/a", "APP/renewed", "APP/x"]),
        (300_000, "y", ["APP/renewed", "APP/x", "APP/y"]),
        (300_001, "z", ["APP/x", "APP/y", "APP/z"]),
    ] {
        registry.register(instance(new, Up, 1), Client, now).unwrap();
        assert_eq!(registry.ids(), left);
    }
    assert!(registry.register(instance("more", Up, 1), Client, 302_000).is_err());
}

#[test]
fn silent_instances_that_do_not_suffice_are_kept() {
    let registry = Registry::new(Settings { registry_size_limit: 64 * KIB, ..Settings::default() });
    registry.register(large("silent", 8 * KIB, 1), Client, 0).unwrap();
    registry.register(large("alive", 30 * KIB, 1), Client, 200_000).unwrap();
    assert!(registry.register(large("new", 40 * KIB, 1), Client, 200_000).is_err());
    assert_eq!(registry.ids(), ["APP/alive", "APP/silent"]);
    registry.register(large("new", 20 * KIB, 1), Client, 200_000).unwrap();
    assert_eq!(registry.ids(), ["APP/alive", "APP/new"], "a smaller instance needs no other search");
}

#[cfg(feature = "peers")]
#[test]
fn silent_instances_are_evicted_for_a_copy_that_is_not_silent() {
    let registry = Registry::new(Settings { registry_limit: 1, ..Settings::default() });
    registry.register(instance("silent", Up, 1), Client, 0).unwrap();
    assert!(registry.adopt(instance("copy", Up, 1), 100_000, 200_000).is_err());
    assert_eq!(registry.adopt(instance("copy", Up, 1), 190_000, 200_000), Ok(true));
    assert_eq!(registry.ids(), ["APP/copy"]);
    assert!(registry.register(instance("new", Up, 1), Replica, 281_000).is_ok(), "the copy was never renewed");
}

#[test]
fn version_years_ahead_counts_as_a_day_ahead() {
    let registry = with_instance(Up, 1);
    registry.register(Instance { host_name: Some("evil".into()), ..instance("i", Up, i64::MAX) }, Client, 10).unwrap();
    assert_eq!(registry.stored().last_dirty_timestamp, Some(10 + DAY));
    for origin in [Client, Replica] {
        let renewal = registry.renew("APP", "i", Some(i64::MAX), origin, 20);
        assert_eq!(renewal, Renewal::Renewed, "it need not register again with each heartbeat");
    }
    registry.register(instance("i", Up, 30 + DAY), Client, 30 + DAY).unwrap();
    assert_eq!(registry.stored().host_name(), Some("h"), "after a day the version of the instance is newer");
}

#[test]
fn override_with_a_version_years_ahead_counts_as_a_day_ahead() {
    for delete in [false, true] {
        let registry = with_instance(Up, 1);
        registry.set_override("APP", "i", Down, Some(if delete { 5 } else { i64::MAX }), 10);
        if delete {
            registry.delete_override("APP", "i", Up, Some(i64::MAX), 10);
        }
        assert_eq!(registry.stored().last_dirty_timestamp, Some(10 + DAY));
    }
}

#[cfg(feature = "peers")]
#[test]
fn copy_with_a_version_years_ahead_is_adopted_once() {
    let registry = with_instance(Up, 1);
    let copy = |updated| Instance { last_updated_timestamp: Some(updated), ..instance("i", Down, i64::MAX) };
    assert_eq!(registry.adopt(copy(5), 10, 10), Ok(true));
    assert_eq!((registry.status(), registry.stored().last_dirty_timestamp), (Down, Some(10 + DAY)));
    let revision = registry.revision();
    for now in [20, 30, DAY] {
        assert_eq!(registry.adopt(copy(5), now, now), Ok(false));
    }
    assert_eq!(registry.revision(), revision);
    assert_eq!(registry.adopt(copy(i64::MAX), 40, 40), Ok(true), "it is newer");
    assert_eq!(registry.stored().last_updated_timestamp, Some(40 + DAY));
}

#[cfg(feature = "peers")]
#[test]
fn tombstones_of_long_names_stay_within_their_bytes() {
    let tombstone_retention = std::time::Duration::from_secs(900);
    let registry = registry_with(Settings { tombstone_retention, ..Settings::default() });
    for now in 0..15_000_i64 {
        let id = format!("{now:01024}");
        registry.register(instance(&id, Up, 1), Client, now).unwrap();
        registry.cancel("APP", &id, now);
    }
    let kept = registry.tombstones.len();
    assert!((12_000..14_000).contains(&kept), "{kept}");
    assert!(registry.tombstone("APP", &format!("{:01024}", 14_999)).is_some());
    registry.prune_delta(i64::MAX);
    assert_eq!(registry.tombstones.len(), 0);
}

#[cfg(feature = "peers")]
#[test]
fn repeated_cancellation_of_an_instance_displaces_no_other_tombstone() {
    let tombstone_retention = std::time::Duration::from_secs(900);
    let registry = registry_with(Settings { tombstone_retention, ..Settings::default() });
    let cancel = |id: &str, now| {
        registry.register(instance(id, Up, now), Client, now).unwrap();
        registry.cancel("APP", id, now);
    };
    cancel("other", 0);
    (1..=50_000).for_each(|now| cancel("again", now));
    assert!(registry.tombstone("APP", "other").is_some());
    assert_eq!(registry.tombstones.len(), 2);
    registry.prune_delta(900_001);
    assert!(registry.tombstone("APP", "other").is_none() && registry.tombstone("APP", "again").is_some());
    registry.prune_delta(950_001);
    assert_eq!(registry.tombstones.len(), 0);
}

#[test]
fn lease_longer_than_the_limit_is_cut_to_it() {
    for (settings, announced, duration) in [
        (Settings::default(), i32::MAX, 86_400),
        (Settings::default(), 86_401, 86_400),
        (Settings::default(), 86_400, 86_400),
        (Settings { lease_limit_secs: i32::MAX, ..Settings::default() }, i32::MAX, i32::MAX),
        (Settings { lease_limit_secs: 30, ..Settings::default() }, 90, 30),
    ] {
        let registry = registry_with(settings);
        let lease = LeaseInfo { duration_secs: announced, ..LeaseInfo::default() };
        registry.register(Instance { lease: Some(lease), ..instance("i", Up, 1) }, Client, 0).unwrap();
        assert_eq!(registry.stored().lease.unwrap().duration_secs, duration);
        let end = i64::from(duration) * 1000;
        assert!(registry.instance("APP", "i", end).is_some() && registry.instance("APP", "i", end + 1).is_none());
    }
    let registry = registry_with(Settings { lease_limit_secs: 30, ..Settings::default() });
    registry.register(Instance { lease: None, ..instance("i", Up, 1) }, Client, 0).unwrap();
    assert!(registry.instance("APP", "i", 30_001).is_none(), "the limit holds for the default duration");
}

#[test]
fn id_in_several_applications_returns_the_first_visible_instance_by_name() {
    let registry = registry();
    for (app, registered) in [("B", 10_000), ("C", 20_000), ("A", 0)] {
        registry.register(instance_of(app, "same", Up, 1), Client, registered).unwrap();
    }
    let found = |now| registry.instance_by_id("same", now).map(|instance| instance.app().to_owned());
    assert_eq!(found(20_000).as_deref(), Some("A"));
    assert_eq!(found(90_001).as_deref(), Some("B"), "the lease in A is expired");
    registry.cancel("A", "same", 20_000);
    registry.cancel("B", "same", 20_000);
    assert_eq!(found(20_000).as_deref(), Some("C"));
    registry.cancel("C", "same", 20_000);
    assert_eq!(found(20_000), None);
}

#[test]
fn identity_beyond_its_limits_is_refused_and_others_are_not() {
    let settings = Settings { identity_limits: [Some(2), Some(1)], registry_limit: 4, ..Settings::default() };
    let registry = Registry::new(settings);
    let register = |app: &str, id: &str, name: Option<&str>| {
        let registrant = Registrant { identity: name.map(|name| format!("user:{name}").into()), ..Client.into() };
        registry.register(instance_of(app, id, Up, 1), registrant, 0).map(|_| ())
    };
    let alice = Some("alice");
    register("A", "1", alice).unwrap();
    assert_eq!(register("B", "1", alice), Err(Refused::IdentityApplications(1)));
    register("A", "2", alice).unwrap();
    assert_eq!(register("A", "3", alice), Err(Refused::IdentityInstances(2)));
    register("A", "2", alice).unwrap();
    register("A", "3", Some("bob")).unwrap();
    register("A", "4", None).unwrap();
    registry.cancel("A", "1", 0);
    register("A", "1", None).unwrap();
    // The registry refuses it, so it does not count.
    assert_eq!(register("A", "5", alice), Err(Refused::RegistryFull(4)));
    registry.cancel("A", "4", 0);
    register("A", "5", alice).unwrap();
    assert_eq!(registry.ids(), ["A/1", "A/2", "A/3", "A/5"]);
}

#[test]
fn registrations_without_heartbeats_do_not_hold_a_full_application() {
    let settings = Settings { application_limit: 3, applications_limit: 2, ..Settings::default() };
    let registry = Registry::new(settings);
    let register = |app: &str, id: &str, now| registry.register(instance_of(app, id, Up, now), Client, now).map(|_| ());
    for id in ["alive", "loud", "late"] {
        register("A", id, 0).unwrap();
    }
    register("B", "alone", 0).unwrap();
    for now in [30_000, 60_000, 90_000, 120_000] {
        registry.renew("A", "alive", None, Client, now);
        registry.renew("B", "alone", None, Client, now);
        register("A", "loud", now).unwrap();
    }
    registry.renew("A", "late", None, Client, 119_000);
    assert_eq!(register("C", "1", 120_000), Err(Refused::TooManyApplications(2)), "all of them are alive");
    register("A", "new", 120_000).unwrap();
    assert_eq!(registry.ids(), ["A/alive", "A/late", "A/new", "B/alone"], "it never sent a heartbeat");
    assert_eq!(register("A", "more", 121_000), Err(Refused::ApplicationFull(3)));
    registry.renew("A", "alive", None, Client, 250_000);
    register("C", "1", 250_000).unwrap();
    assert_eq!(registry.ids(), ["A/alive", "A/late", "A/new", "C/1"], "of A, others would remain");
}
