use super::*;
use InstanceStatus::{Down, OutOfService, Starting, Unknown, Up};
use Origin::{Client, Replica};

enum Step {
    Register(InstanceStatus, i64, Origin),
    Put(InstanceStatus),
    Delete(InstanceStatus),
}
use Step::{Delete, Put, Register};

#[test]
fn status_of_an_up_instance_follows_the_rules() {
    let cases: [(&str, &[Step], InstanceStatus); 12] = [
        ("an override survives a registration", &[Put(OutOfService), Register(Up, 200, Client)], OutOfService),
        ("and a replicated registration", &[Put(OutOfService), Register(Up, 200, Replica)], OutOfService),
        ("deleting sets the given status", &[Put(OutOfService), Delete(Down)], Down),
        ("and the next registration sets its own", &[Put(OutOfService), Delete(Down), Register(Up, 200, Client)], Up),
        ("an override does not hide STARTING", &[Put(OutOfService), Register(Starting, 200, Client)], Starting),
        ("nor DOWN", &[Put(Up), Register(Down, 200, Client)], Down),
        ("a client's registration keeps UP", &[Register(OutOfService, 200, Client)], Up),
        ("a replicated one does not", &[Register(OutOfService, 200, Replica)], OutOfService),
        ("older data is dropped", &[Register(Starting, 50, Replica)], Up),
        ("the later of equal versions wins", &[Register(Starting, 100, Replica)], Starting),
        ("without an override, deleting does nothing", &[Delete(Down)], Up),
        ("the present status stores no override", &[Put(Up), Register(OutOfService, 200, Replica)], OutOfService),
    ];
    for (what, steps, expected) in cases {
        let registry = with_instance(Up, 100);
        for step in steps {
            match *step {
                Register(status, dirty, origin) => {
                    registry.register(instance("i", status, dirty), origin, 0).unwrap();
                }
                Put(status) => assert!(registry.set_override("APP", "i", status, None, 0).is_found()),
                Delete(status) => assert!(registry.delete_override("APP", "i", status, None, 0).is_found()),
            }
        }
        assert_eq!(registry.status(), expected, "{what}");
    }
}

#[test]
fn override_deleted_without_a_value_makes_the_instance_register_again() {
    let registry = with_instance(Up, 100);
    registry.set_override("APP", "i", OutOfService, None, 0);
    registry.delete_override("APP", "i", Unknown, None, 0);
    assert_eq!(registry.status(), Unknown);
    assert_eq!(registry.renew("APP", "i", Some(100), Client, 0), Renewal::NotFound);
    registry.register(instance("i", Up, 101), Client, 0).unwrap();
    assert_eq!(registry.status(), Up);
    assert_eq!(registry.renew("APP", "i", Some(101), Client, 0), Renewal::Renewed);
}

#[test]
fn override_is_shown_and_raises_the_version_only() {
    for (given, expected) in [(None, 100), (Some(99), 100), (Some(101), 101)] {
        let registry = with_instance(Up, 100);
        registry.set_override("APP", "i", OutOfService, given, 5);
        let stored = registry.stored();
        assert_eq!(stored.last_dirty_timestamp, Some(expected));
        assert_eq!((stored.overridden_status, stored.action), (OutOfService, Some(ActionType::Modified)));
        assert_eq!(stored.last_updated_timestamp, Some(5));
        registry.delete_override("APP", "i", Up, None, 6);
        assert_eq!((registry.stored().overridden_status, registry.status()), (Unknown, Up));
    }
}

/// Java compares the registered version with 0 if an override has none.
#[test]
fn override_without_a_version_raises_a_negative_one_to_zero() {
    for (stored, given, expected) in
        [(-1, None, 0), (i64::MIN, None, 0), (-5, Some(-9), -5), (-5, Some(-3), -3), (0, None, 0), (1, Some(-1), 1)]
    {
        let registry = with_instance(Up, stored);
        registry.set_override("APP", "i", OutOfService, given, 0);
        assert_eq!(registry.stored().last_dirty_timestamp, Some(expected), "set: {stored} {given:?}");
        let registry = with_instance(Up, stored);
        registry.set_override("APP", "i", OutOfService, Some(i64::MIN), 0);
        registry.delete_override("APP", "i", Up, given, 0);
        assert_eq!(registry.stored().last_dirty_timestamp, Some(expected), "deleted: {stored} {given:?}");
    }
}

#[test]
fn override_of_an_id_in_another_application_does_not_apply() {
    let registry = with_instance(Up, 100);
    registry.register(instance_of("OTHER", "i", Up, 100), Client, 0).unwrap();
    registry.set_override("OTHER", "i", OutOfService, None, 0);
    registry.renew("APP", "i", None, Client, 0);
    assert_eq!(registry.status(), Up);
}

#[test]
fn registration_with_an_override_stores_it() {
    let registry = registry();
    let mut overridden = instance("i", Up, 100);
    overridden.overridden_status = OutOfService;
    registry.register(overridden, Replica, 0).unwrap();
    assert_eq!(registry.status(), OutOfService);
    registry.register(instance("i", Up, 200), Client, 0).unwrap();
    assert_eq!((registry.status(), registry.stored().overridden_status), (OutOfService, OutOfService));
}

#[test]
fn replicated_override_is_applied_and_published_by_the_next_heartbeat() {
    let registry = with_instance(Up, 100);
    registry.store_override("APP", "i", OutOfService, 1);
    assert_eq!(registry.stored().overridden_status, OutOfService);
    assert_eq!(registry.stored().status, Up);
    assert_eq!(registry.renew("APP", "i", None, Client, 2), Renewal::Renewed);
    assert_eq!(registry.status(), OutOfService);
    assert_eq!(registry.delta().counts.to_string(), "OUT_OF_SERVICE_1_");
    registry.store_override("APP", "nobody", OutOfService, 3);
}

#[test]
fn override_that_is_not_read_ends_after_an_hour() {
    let hour = 3_600_000;
    for (read_at, now, is_alive) in
        [(0, hour, true), (0, hour + 1, false), (hour, 2 * hour, true), (hour, 2 * hour + 1, false)]
    {
        let registry = with_instance(Down, 100);
        registry.set_override("APP", "i", OutOfService, None, 0);
        registry.register(instance("i", Down, 101), Client, read_at).unwrap();
        // Deleting sets DOWN only if there is an override.
        registry
            .register(Instance { overridden_status: Unknown, ..instance("i", OutOfService, 102) }, Client, now)
            .unwrap();
        registry.delete_override("APP", "i", Down, None, now);
        let deleted = registry.status() == Down;
        assert_eq!(deleted, is_alive, "read at {read_at}, now {now}");
    }
}

#[test]
fn instance_up_without_a_registration_has_a_service_up_time() {
    let registry = with_instance(Down, 100);
    registry.set_override("APP", "i", OutOfService, None, 1);
    assert_eq!(registry.stored().lease.unwrap().service_up_timestamp, 0);
    registry.delete_override("APP", "i", Up, None, 2);
    assert_eq!(registry.stored().lease.unwrap().service_up_timestamp, 2);
}

#[test]
fn override_of_an_unknown_instance_is_not_found() {
    let registry = registry();
    assert!(!registry.set_override("APP", "i", Up, None, 0).is_found());
    assert!(!registry.delete_override("APP", "i", Up, None, 0).is_found());
    assert_eq!(registry.merge_metadata("APP", "i", Vec::new(), 0), Ok(None));
}

#[test]
fn merged_metadata_is_a_registration() {
    let registry = with_instance(Up, 100);
    let mut before = registry.stored();
    before.metadata = Metadata::from_iter([("a", "1"), ("b", "2")]);
    registry.register(before, Client, 0).unwrap();
    assert_eq!(
        registry.merge_metadata("APP", "i", vec![("b".into(), "3".into()), ("c".into(), "4".into())], 7),
        Ok(Some(Registered {
            status: Up,
            outcome: RegisterOutcome::Changed,
            kept: None,
            refused: None,
            states: crate::server::outcome::States::default()
        }))
    );
    let stored = registry.stored();
    assert_eq!(stored.metadata.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3"), ("c", "4")]);
    assert_eq!((stored.last_dirty_timestamp, stored.action), (Some(100), Some(ActionType::Added)));
    assert_eq!(stored.lease.unwrap().registration_timestamp, 7);
}
