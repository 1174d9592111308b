//! Pure functions of the [`Reference`](super::reference::Reference).

use crate::model::{DataCenter, Instance, InstanceStatus};
use crate::server::outcome::Origin;

const DAY_MS: i64 = 24 * 3_600_000;

/// "Order of the status rules"
pub(super) fn rule(
    candidate: InstanceStatus,
    entry: Option<InstanceStatus>,
    old: Option<InstanceStatus>,
    origin: Origin,
) -> InstanceStatus {
    use InstanceStatus::{Down, OutOfService, Starting, Unknown, Up};
    match (candidate, entry, old, origin) {
        (Down | Starting | Unknown, ..) => candidate,
        (Up | OutOfService, Some(status), ..) => status,
        (Up | OutOfService, None, Some(old @ (Up | OutOfService)), Origin::Client) => old,
        (Up | OutOfService, None, ..) => candidate,
    }
}

pub(super) fn take_larger(instance: &mut Instance, dirty: Option<i64>, now: i64) {
    let theirs = dirty.map_or(0, |dirty| clamped(dirty, instance.last_dirty_timestamp, now));
    if instance.last_dirty_timestamp.is_some_and(|ours| theirs > ours) {
        instance.last_dirty_timestamp = Some(theirs);
    }
}

/// Texts of a generated instance, which has no cloud data.
pub(super) fn texts(instance: &Instance) -> Vec<String> {
    assert!(matches!(instance.data_center, Some(DataCenter::MyOwn)));
    let mut texts = vec![instance.app.to_string(), instance.id().to_owned()];
    let others = [
        instance.host_name(),
        instance.ip_addr(),
        instance.vip_address(),
        instance.secure_vip_address(),
        instance.home_page_url(),
        instance.status_page_url(),
        instance.health_check_url(),
        instance.secure_health_check_url(),
    ];
    texts.extend(others.into_iter().flatten().map(str::to_owned));
    texts.extend(instance.metadata.iter().flat_map(|(key, value)| [key.to_owned(), value.to_owned()]));
    texts
}

pub(super) fn weight(instance: &Instance) -> usize {
    let mut texts = texts(instance);
    texts.extend(instance.metadata.iter().map(|(key, _)| key.to_owned()));
    let escaped = |text: &String| text.chars().filter(|c| "\"\\<>&'".contains(*c)).count();
    1024 + 96 * instance.metadata.len() + texts.iter().map(|text| text.len() + 5 * escaped(text)).sum::<usize>()
}

/// Clamps a version to a day ahead. Two versions in the future count as equal. Java has no such
/// rule.
pub(super) fn clamped(sent: i64, ours: Option<i64>, now: i64) -> i64 {
    match ours {
        _ if sent <= now + DAY_MS => sent,
        Some(ours) if ours > now => ours,
        _ => now + DAY_MS,
    }
}
