use super::{Key, Reference};
use crate::model::{Instance, InstanceStatus, LeaseInfo};
use crate::server::outcome::Origin;

/// Few names, so that operations collide. All applications have the same ids.
pub(super) const APPS: [&str; 3] = ["ORDERS", "STOCK", "BILLING"];
pub(super) const IDS: [&str; 4] = ["host:orders:8080", "host/with it's %20..", "ä", "i-1"];

const DAY_MS: i64 = 24 * 3_600_000;

#[derive(Debug)]
pub(super) enum Operation {
    Wait(i64),
    Register(Box<Instance>, Origin),
    Renew(Key, Option<i64>, Origin),
    Cancel(Key),
    SetOverride(Key, InstanceStatus, Option<i64>),
    DeleteOverride(Key, InstanceStatus, Option<i64>),
    StoreOverride(Key, InstanceStatus),
    MergeMetadata(Key, Vec<(String, String)>),
    Read(Key),
    ReadById(String),
    Evict(u64),
    EndMinute,
    Prune,
}

impl Operation {
    pub(super) fn random(rng: &mut fastrand::Rng, reference: &Reference, now: i64) -> Self {
        let key: Key = (pick(rng, &APPS).into(), pick(rng, &IDS).into());
        let dirty = dirty(rng, reference.dirty(&key), now);
        let origin = pick(rng, &[Origin::Client, Origin::Client, Origin::Replica]);
        let status = pick(rng, &InstanceStatus::ALL);
        match rng.u8(..100) {
            0..20 => Self::Wait(wait(rng)),
            20..40 => Self::Register(Box::new(instance(rng, &key, status, dirty)), origin),
            40..60 => Self::Renew(key, dirty, origin),
            60..64 => Self::Cancel(key),
            64..70 => Self::SetOverride(key, status, dirty),
            70..74 => Self::DeleteOverride(key, status, dirty),
            74..77 => Self::StoreOverride(key, status),
            77..81 => Self::MergeMetadata(key, metadata(rng)),
            81..84 => Self::Read(key),
            84..86 => Self::ReadById(key.1),
            86..92 => Self::Evict(rng.u64(..)),
            92..96 => Self::EndMinute,
            _ => Self::Prune,
        }
    }
}

fn pick<T: Copy>(rng: &mut fastrand::Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// Returns a time around the limits of the rules: one and two leases, the retention, the hour of an
/// override, a late eviction.
fn wait(rng: &mut fastrand::Rng) -> i64 {
    let base =
        pick(rng, &[0, 1, 500, 1_000, 2_000, 10_000, 30_000, 60_000, 90_000, 180_000, 600_000, 3_600_000, DAY_MS]);
    // The clock of the registry never goes back. The rules hold even if it does.
    let sign = if rng.u8(..20) == 0 { -1 } else { 1 };
    sign * (base + rng.i64(-1..=1))
}

/// Returns a version that is older than, equal to or newer than the stored one, negative, or days
/// ahead.
fn dirty(rng: &mut fastrand::Rng, stored: Option<i64>, now: i64) -> Option<i64> {
    match (rng.u8(..8), stored) {
        (0, _) => None,
        (1, Some(stored)) => Some(stored - 1),
        (2 | 3, Some(stored)) => Some(stored),
        (4, Some(stored)) => Some(stored + 1),
        (5, _) => Some(-rng.i64(0..4)),
        (6, _) => Some(pick(rng, &[now + DAY_MS, now + DAY_MS + 1, now + 3 * DAY_MS, i64::MAX])),
        _ => Some(now - rng.i64(0..1_000)),
    }
}

fn instance(rng: &mut fastrand::Rng, key: &Key, status: InstanceStatus, dirty: Option<i64>) -> Instance {
    let mut instance = Instance::builder(&key.0).host_name("h").ip_addr("10.0.0.1").port(80);
    for (name, value) in metadata(rng) {
        instance = instance.metadata(name, value);
    }
    let mut instance = instance.build().expect("a valid instance");
    instance.instance_id = Some(key.1.as_str().into());
    instance.status = status;
    instance.last_dirty_timestamp = dirty;
    if rng.u8(..5) == 0 {
        instance.overridden_status = pick(rng, &InstanceStatus::ALL);
    }
    let duration_secs = pick(rng, &[90, 90, 10, 1, 0, -1, 100_000, i32::MAX]);
    let lease = LeaseInfo {
        duration_secs,
        renewal_interval_secs: pick(rng, &[30, 30, 1, 300, 0, -1, i32::MAX]),
        // Clients cannot set the fields that belong to the server.
        service_up_timestamp: rng.i64(0..3),
        eviction_timestamp: rng.i64(0..3),
        ..LeaseInfo::default()
    };
    instance.lease = rng.bool().then_some(lease);
    instance.is_coordinating_discovery_server = rng.bool();
    instance
}

fn metadata(rng: &mut fastrand::Rng) -> Vec<(String, String)> {
    (0..rng.u8(..3)).map(|_| (format!("k{}", rng.u8(..3)), rng.u8(..3).to_string())).collect()
}
