//! Size of an instance, and the limits on it.

use super::{Refused, Settings};
use crate::model::{DataCenter, Instance, Metadata};

/// Bytes that an entry of metadata takes beside its texts.
const ENTRY: usize = 96;
/// Bytes that an instance takes beside its texts: its record, its lease, its places in the indexes,
/// and the names of its members in the lists.
const INSTANCE: usize = 1024;
/// The same of an application.
pub(super) const APPLICATION: usize = 1024;
/// Bytes that a character takes at most in a list if JSON or XML escapes it.
const ESCAPED: usize = 6;

/// Bytes of all texts of an instance, with a fixed number for each entry of its metadata. The limit
/// on a single instance counts these.
pub(super) fn bytes(instance: &Instance) -> usize {
    let texts: usize = texts(instance).map(str::len).sum();
    let entries = entries(instance).map(|(key, value)| key.len() + value.len() + ENTRY);
    texts + entries.sum::<usize>()
}

/// Estimate of the bytes that an instance takes in memory, and of those that it adds to a list. The
/// limit on the registry counts these.
///
/// Characters that lists escape count more often, and keys twice, as XML repeats them. Otherwise few
/// bytes of a registration would be many of every list.
pub(in crate::server) fn weight(instance: &Instance) -> usize {
    let texts: usize = texts(instance).map(listed).sum();
    let entries = entries(instance).map(|(key, value)| 2 * listed(key) + listed(value) + ENTRY);
    INSTANCE + texts + entries.sum::<usize>()
}

/// Upper bound of [`weight`] that does not read the texts.
pub(super) fn max_weight(instance: &Instance) -> usize {
    INSTANCE + 2 * ESCAPED * bytes(instance)
}

fn listed(text: &str) -> usize {
    // Without a branch and counted in bytes, so that the compiler vectorizes it.
    let is_escaped = |byte: u8| {
        let quoted = (byte == b'"') | (byte == b'\'') | (byte == b'\\');
        (byte < 0x20) | quoted | (byte == b'&') | (byte == b'<') | (byte == b'>')
    };
    let count = |chunk: &[u8]| chunk.iter().map(|&byte| u8::from(is_escaped(byte))).sum::<u8>();
    let escaped: usize = text.as_bytes().chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum();
    text.len() + (ESCAPED - 1) * escaped
}

fn texts(instance: &Instance) -> impl Iterator<Item = &str> {
    let data_center = match &instance.data_center {
        Some(DataCenter::Other(name)) => Some(name),
        _ => None,
    };
    let named = [
        &instance.instance_id,
        &instance.host_name,
        &instance.ip_addr,
        &instance.sid,
        &instance.app_group,
        &instance.home_page_url,
        &instance.status_page_url,
        &instance.health_check_url,
        &instance.secure_health_check_url,
        &instance.vip_address,
        &instance.secure_vip_address,
        &instance.asg_name,
    ];
    [&instance.app].into_iter().chain(named.into_iter().flatten()).chain(data_center).map(AsRef::as_ref)
}

fn entries(instance: &Instance) -> impl Iterator<Item = (&str, &str)> {
    let of_amazon = match &instance.data_center {
        Some(DataCenter::Amazon(metadata)) => Some(metadata),
        _ => None,
    };
    instance.metadata.iter().chain(of_amazon.into_iter().flat_map(Metadata::iter))
}

/// Checks an instance against the limits on a single one.
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
        // Most lists are shorter than a single name may be.
        if list.as_ref().is_some_and(|list| is_long(list) && list.split(',').any(is_long)) {
            return Err(Refused::NameTooLong(what, name_limit));
        }
    }
    let metadata: usize = instance.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if metadata > metadata_limit {
        return Err(Refused::MetadataTooLarge(metadata_limit));
    }
    if bytes(instance) > instance_size_limit {
        return Err(Refused::InstanceTooLarge(instance_size_limit));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance::builder("A").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap()
    }

    #[test]
    fn text_that_lists_escape_weighs_as_much_as_it_takes_there() {
        let weight = |value: &str| {
            let mut instance = instance();
            instance.metadata.insert("k", value);
            (bytes(&instance), super::weight(&instance))
        };
        let (bytes, plain) = weight(&"x".repeat(100));
        for escaped in ["\"", "\\", "\u{1}", "<", ">", "&", "'"] {
            assert_eq!(weight(&escaped.repeat(100)), (bytes, plain + 500), "{escaped:?}");
        }
        let mut instance = instance();
        instance.metadata.insert("k", "\"\\\u{1}<>&'".repeat(1_000));
        assert!(super::weight(&instance) <= max_weight(&instance));
        let lists = [instance.to_json().len(), crate::model::compact::json_instance(&instance).len()];
        assert!(lists.iter().all(|&list| list <= super::weight(&instance)), "{lists:?}");
    }

    #[test]
    fn every_text_of_an_instance_counts() {
        let known = instance();
        let text = || Some("x".repeat(100).into());
        for changed in [
            Instance { app: "x".repeat(101).into(), ..known.clone() },
            Instance { sid: text(), ..known.clone() },
            Instance { app_group: text(), ..known.clone() },
            Instance { asg_name: text(), ..known.clone() },
            Instance { data_center: Some(DataCenter::Other("x".repeat(100).into())), ..known.clone() },
        ] {
            assert_eq!(bytes(&changed), bytes(&known) + 100);
        }
        let amazon: Metadata = [("x".repeat(40), "x".repeat(60))].into_iter().collect();
        let changed = Instance { data_center: Some(DataCenter::Amazon(amazon)), ..known.clone() };
        assert_eq!(bytes(&changed), bytes(&known) + 100 + ENTRY);
    }
}
