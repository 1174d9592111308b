//! Limits on a single instance.

use super::settings::Settings;
use crate::model::Instance;
use crate::server::outcome::Refused;
use crate::server::view::instance_bytes;

/// Checks an instance against the limits on a single instance.
pub(super) fn check(instance: &Instance, settings: &Settings) -> Result<(), Refused> {
    let &Settings { name_limit, metadata_limit, instance_size_limit, .. } = settings;
    let is_long = |name: &str| name.len() > name_limit;
    let names = [
        ("application name", Some(&instance.app)),
        ("instance id", instance.instance_id.as_ref()),
        ("host name", instance.host_name.as_ref()),
        ("IP address", instance.ip_addr.as_ref()),
        ("name of the application group", instance.app_group.as_ref()),
        ("name of the auto scaling group", instance.asg_name.as_ref()),
        ("sid", instance.sid.as_ref()),
    ];
    if let Some((what, _)) = names.into_iter().find(|(_, name)| name.is_some_and(|name| is_long(name))) {
        return Err(Refused::NameTooLong(what, name_limit));
    }
    if is_long(instance.id()) {
        return Err(Refused::NameTooLong("instance id", name_limit));
    }
    for (what, list) in [("VIP address", &instance.vip_address), ("secure VIP address", &instance.secure_vip_address)] {
        // Nearly all lists are shorter than the limit on a single name.
        if list.as_ref().is_some_and(|list| is_long(list) && list.split(',').any(is_long)) {
            return Err(Refused::NameTooLong(what, name_limit));
        }
    }
    let metadata: usize = instance.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if metadata > metadata_limit {
        return Err(Refused::MetadataTooLarge(metadata_limit));
    }
    if instance_bytes(instance) > instance_size_limit {
        return Err(Refused::InstanceTooLarge(instance_size_limit));
    }
    Ok(())
}
