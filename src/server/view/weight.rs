//! Size of an instance, as the limits of the registry count it.

use crate::model::{DataCenter, Instance, Metadata};

/// Bytes of a metadata entry beside its key and value.
const ENTRY: usize = 96;
/// Bytes of an instance beside its texts: its record, its lease, its entries in the indexes, and
/// the member names in the lists.
const INSTANCE: usize = 1024;
/// Bytes of an application beside its instances.
pub(in crate::server) const APPLICATION_WEIGHT: usize = 1024;
/// Maximum length of an escaped character in JSON or XML, for each of its bytes.
const ESCAPED: usize = 6;

/// Returns the bytes of all texts of an instance, plus a constant for each metadata entry.
///
/// The size limit on a single instance counts these.
pub(in crate::server) fn instance_bytes(instance: &Instance) -> usize {
    let texts: usize = texts(instance).map(str::len).sum();
    let entries = entries(instance).map(|(key, value)| key.len() + value.len() + ENTRY);
    texts + entries.sum::<usize>()
}

/// Estimates the bytes that an instance takes in memory and adds to a list.
///
/// The size limit on the registry counts these. Escaped characters count at their encoded length,
/// and metadata keys as the two names of an element in XML. Otherwise a short registration could
/// take far more space in each list than it counts for.
pub(in crate::server) fn weight(instance: &Instance) -> usize {
    let texts: usize = texts(instance).map(escaped_len).sum();
    let entries = entries(instance).map(|(key, value)| 2 * key_len(key) + escaped_len(value) + ENTRY);
    INSTANCE + texts + entries.sum::<usize>()
}

/// Returns an upper bound of [`weight`] without reading the texts.
pub(in crate::server) fn max_weight(instance: &Instance) -> usize {
    // The constant of an entry covers the escape of its key's first character.
    INSTANCE + 2 * ESCAPED * instance_bytes(instance)
}

fn escaped_len(text: &str) -> usize {
    // Without a branch and counted in bytes, so that the compiler vectorizes it.
    let is_escaped = |byte: u8| {
        let quoted = (byte == b'"') | (byte == b'\'') | (byte == b'\\');
        // The controls from U+0080 to U+009F begin with 0xC2, as some letters do.
        let control = (byte < 0x20) | (byte == 0x7f) | (byte == 0xc2);
        control | quoted | (byte == b'&') | (byte == b'<') | (byte == b'>')
    };
    let count = |chunk: &[u8]| chunk.iter().map(|&byte| u8::from(is_escaped(byte))).sum::<u8>();
    let escaped: usize = text.as_bytes().chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum();
    text.len() + (ESCAPED - 1) * escaped
}

/// Returns the length of a metadata key as an element name of XML, which is at least as long as the
/// key in JSON.
fn key_len(key: &str) -> usize {
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => 1,
        b'_' | b'$' => 2,
        // Of two to four bytes, and one or two escapes.
        0x80.. => ESCAPED / 2,
        _ => ESCAPED,
    };
    let first = usize::from(key.starts_with(|c: char| !c.is_ascii_alphabetic()));
    key.bytes().map(encoded).sum::<usize>() + (ESCAPED - 1) * first
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

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance::builder("A").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap()
    }

    #[test]
    fn weight_of_escaped_text_is_its_encoded_length() {
        let weight = |value: &str| {
            let mut instance = instance();
            instance.metadata.insert("k", value);
            (instance_bytes(&instance), super::weight(&instance))
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

    #[cfg(feature = "xml")]
    #[test]
    fn weight_is_at_least_the_length_of_each_list() {
        for text in
            [":", "_", "$", "/", " ", "1", "-", "\u{7f}", "\u{80}", "\u{9f}", "\u{301}", "№", "😀", "中", "\u{1}"]
        {
            let long = || Some(text.repeat(1_000).into());
            let mut instance = Instance { home_page_url: long(), vip_address: long(), ..instance() };
            instance.metadata.insert(text.repeat(1_000), text.repeat(1_000));
            (0..100).for_each(|i| instance.metadata.insert(format!("{text}{i}"), text));
            let lists = [
                instance.to_json().len(),
                instance.to_xml().len(),
                crate::model::compact::json_instance(&instance).len(),
                crate::model::xml::compact_instance(&instance).len(),
            ];
            assert!(lists.iter().all(|&list| list <= super::weight(&instance)), "{text:?}: {lists:?}");
            assert!(super::weight(&instance) <= max_weight(&instance), "{text:?}");
        }
    }

    #[test]
    fn instance_bytes_count_every_text() {
        let known = instance();
        let text = || Some("x".repeat(100).into());
        for changed in [
            Instance { app: "x".repeat(101).into(), ..known.clone() },
            Instance { sid: text(), ..known.clone() },
            Instance { app_group: text(), ..known.clone() },
            Instance { asg_name: text(), ..known.clone() },
            Instance { data_center: Some(DataCenter::Other("x".repeat(100).into())), ..known.clone() },
        ] {
            assert_eq!(instance_bytes(&changed), instance_bytes(&known) + 100);
        }
        let amazon: Metadata = [("x".repeat(40), "x".repeat(60))].into_iter().collect();
        let changed = Instance { data_center: Some(DataCenter::Amazon(amazon)), ..known.clone() };
        assert_eq!(instance_bytes(&changed), instance_bytes(&known) + 100 + ENTRY);
    }
}
