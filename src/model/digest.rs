use std::fmt;

use http::{HeaderName, HeaderValue};

#[cfg(feature = "client")]
use super::Application;
use super::{Instance, Port};

/// Digest of a registry: the sum, modulo 2^64, of a hash of each instance. Two registries with
/// equal digests list the same instances with the same data, apart from lease times.
/// `docs/protocol-extensions.md` specifies it to the byte.
///
/// It detects loss, not forgery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(u64);

/// Terminates each field. The byte does not occur in UTF-8.
const FIELD_END: u8 = 0xff;
/// Version of the definition, in front of the 16 hexadecimal digits of the header.
const VERSION: &str = "v1=";

impl Digest {
    /// Response header of a list, with the digest of the registry that the list is a part of.
    pub(crate) const HEADER: HeaderName = HeaderName::from_static("eureka-digest");

    /// Computes the digest of one instance of an application.
    pub(crate) fn of(app: &str, instance: &Instance) -> Self {
        let mut hash = Fnv1a::default();
        hash.field(app);
        hash.field(instance.id());
        hash.number(instance.last_dirty_timestamp().unwrap_or_default().max(0));
        hash.field(instance.status().as_str());
        hash.field(instance.overridden_status().as_str());
        hash.field(instance.host_name().unwrap_or_default());
        hash.field(instance.ip_addr().unwrap_or_default());
        hash.port(instance.port());
        hash.port(instance.secure_port());
        hash.field(instance.vip_address().unwrap_or_default());
        hash.field(instance.secure_vip_address().unwrap_or_default());
        // JSON cannot carry this key, which marks a Java type there.
        for (key, value) in instance.metadata().iter().filter(|(key, _)| *key != "@class") {
            hash.field(key);
            hash.field(value);
        }
        Self(fmix64(hash.0))
    }

    /// Computes the digest of all instances of an application.
    #[cfg(feature = "client")]
    pub(crate) fn of_application(application: &Application) -> Self {
        application.instances.iter().map(|instance| Self::of(&application.name, instance)).collect()
    }

    /// Adds an instance, or all instances of another registry.
    pub(crate) fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// Reverses [`add`](Self::add).
    pub(crate) fn remove(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }

    #[cfg(feature = "server")]
    pub(crate) fn to_header(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("digest is visible ASCII")
    }

    /// Reads a header value. Returns `None` for another version of the definition.
    #[cfg(feature = "client")]
    pub(crate) fn from_header(value: &HeaderValue) -> Option<Self> {
        let digits = value.to_str().ok()?.trim().strip_prefix(VERSION)?;
        let is_hex = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| is_hex).map(Self)
    }
}

impl FromIterator<Self> for Digest {
    fn from_iter<I: IntoIterator<Item = Self>>(digests: I) -> Self {
        let mut sum = Self::default();
        digests.into_iter().for_each(|digest| sum.add(digest));
        sum
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}{:016x}", self.0)
    }
}

struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv1a {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn field(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
        self.byte(FIELD_END);
    }

    /// Hashes a number as a decimal string.
    fn number(&mut self, number: i64) {
        // `write_str` below is infallible.
        let _ = fmt::Write::write_fmt(self, format_args!("{number}"));
        self.byte(FIELD_END);
    }

    fn port(&mut self, port: Port) {
        self.number(port.number.into());
        self.field(if port.enabled { "true" } else { "false" });
    }
}

impl fmt::Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.byte(byte));
        Ok(())
    }
}

/// Finalizer of MurmurHash3. Without it, equal changes of two instances could cancel out in the
/// sum.
fn fmix64(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{InstanceStatus, Metadata};

    fn instance() -> Instance {
        let built = Instance::builder("orders").id("orders-1").host_name("h1.example").ip_addr("10.0.0.1").port(8080);
        let built = built.metadata("zone", "b").metadata("a", "\u{e4}").build().unwrap();
        Instance {
            last_dirty_timestamp: Some(1_700_000_000_000),
            vip_address: Some("orders,billing".into()),
            secure_vip_address: None,
            secure_port: Port { number: 443, enabled: false },
            ..built
        }
    }

    /// Test vectors of `docs/protocol-extensions.md`.
    #[test]
    fn digest_of_the_documented_instances_is_as_documented() {
        let (first, second) = (instance(), Instance { status: InstanceStatus::Down, ..instance() });
        let bare = Instance { instance_id: Some("x".into()), ..Instance::bare("A".into()) };
        let sum: Digest = [Digest::of("ORDERS", &first), Digest::of("A", &bare)].into_iter().collect();
        let digests = [
            Digest::default(),
            Digest::of("ORDERS", &first),
            Digest::of("ORDERS", &second),
            Digest::of("A", &bare),
            sum,
        ];
        let expected = [
            "v1=0000000000000000",
            "v1=c8a5c10f0ba3e72b",
            "v1=4c4c8a238673ef8a",
            "v1=36de94c2cffeef98",
            "v1=ff8455d1dba2d6c3",
        ];
        assert_eq!(digests.map(|digest| digest.to_string()), expected);
    }

    #[test]
    fn change_of_each_field_changes_the_digest_and_lease_times_do_not() {
        let digest = |instance: &Instance| Digest::of("ORDERS", instance);
        let known = instance();
        let mut changed = vec![
            Instance { instance_id: Some("orders-2".into()), ..known.clone() },
            Instance { last_dirty_timestamp: Some(1), ..known.clone() },
            Instance { status: InstanceStatus::Down, ..known.clone() },
            Instance { overridden_status: InstanceStatus::Down, ..known.clone() },
            Instance { host_name: Some("h2".into()), ..known.clone() },
            Instance { ip_addr: None, ..known.clone() },
            Instance { port: Port { number: 8081, ..known.port }, ..known.clone() },
            Instance { port: Port { enabled: false, ..known.port }, ..known.clone() },
            Instance { secure_port: Port { enabled: true, ..known.secure_port }, ..known.clone() },
            Instance { vip_address: None, ..known.clone() },
            Instance { secure_vip_address: Some("safe".into()), ..known.clone() },
            Instance { metadata: Metadata::default(), ..known.clone() },
        ];
        assert!(changed.iter().all(|changed| digest(changed) != digest(&known)));
        assert_ne!(Digest::of("OTHER", &known), digest(&known));
        let renewed = known.lease.map(|lease| crate::model::LeaseInfo { last_renewal_timestamp: 7, ..lease });
        changed = vec![
            Instance { lease: renewed, ..known.clone() },
            Instance { last_updated_timestamp: Some(7), ..known.clone() },
            Instance { is_coordinating_discovery_server: true, ..known.clone() },
            Instance { action: Some(crate::model::ActionType::Modified), ..known.clone() },
        ];
        assert!(changed.iter().all(|changed| digest(changed) == digest(&known)));
    }

    #[test]
    fn header_of_another_version_or_length_is_no_digest() {
        let read = |text: &'static str| Digest::from_header(&HeaderValue::from_static(text));
        assert_eq!(read("v1=00000000000000ff"), Some(Digest(255)));
        assert_eq!(read(" v1=00000000000000FF "), Some(Digest(255)));
        for other in ["", "v1=", "v1=ff", "v2=00000000000000ff", "00000000000000ff", "v1=+0000000000000ff"] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    proptest! {
        /// The client computes the digest over decoded instances, the server over its records.
        #[test]
        fn digest_is_the_same_after_a_round_trip(
            texts in prop::collection::vec("\\PC{0,12}|@class|[\u{0}-\u{20}]{1,3}", 10),
            dirty in prop::option::of(any::<i64>()),
            port in any::<i32>(),
            status in 0usize..5,
        ) {
            let text = |at: usize| Some(texts[at].as_str().into());
            let known = Instance {
                instance_id: text(0),
                host_name: text(1),
                ip_addr: text(2),
                vip_address: text(3),
                secure_vip_address: text(4),
                status: InstanceStatus::ALL[status],
                port: Port { number: port, enabled: dirty.is_some() },
                last_dirty_timestamp: dirty,
                metadata: [(texts[5].as_str(), texts[6].as_str()), (&texts[7], &texts[8])].into_iter().collect(),
                ..instance()
            };
            let read = Instance::from_json(&known.to_json()).unwrap();
            prop_assert_eq!(Digest::of("ORDERS", &known), Digest::of("ORDERS", &read));
        }
    }
}
