//! Readers of JSON objects. Of a duplicate member the last value counts, as in Java.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::scalar::{Scalar, Verbatim};
use super::shapes::{OneOrMany, OptionalObject};
use crate::model::lists::ApplicationMembers;
use crate::model::{
    ActionType, DataCenter, Instance, InstanceStatus, LeaseInfo, MAX_METADATA_ENTRIES, Metadata, Port, app_name,
};

/// Reads an object into `Self`, one member after the other.
pub(super) trait Members<'de>: Sized {
    const EXPECTED: &'static str;
    fn start() -> Self;
    /// Reads the value of this member. Must take exactly one value from the map.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Members<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut value = T::start();
        while let Some(Name(name)) = map.next_key()? {
            value.member(&name, &mut map)?;
        }
        Ok(value)
    }
}

pub(super) fn read<'de, T: Members<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(MembersVisitor(PhantomData))
}

pub(super) fn scalar<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Scalar<'de>, A::Error> {
    map.next_value()
}

pub(super) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}

/// Name of a member, borrowed unless it has escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }
            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.into())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

/// Reader of the root object: takes one member and skips the others.
pub(super) struct Document<T> {
    wrapper: &'static str,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Document<T> {
    pub(super) fn new(wrapper: &'static str) -> Self {
        Self { wrapper, value: PhantomData }
    }

    pub(super) fn read<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Document<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the member '{}'", self.wrapper)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<T>, A::Error> {
        let mut value = None;
        while let Some(Name(name)) = map.next_key()? {
            if name == self.wrapper {
                value = Some(map.next_value()?);
            } else {
                skip(&mut map)?;
            }
        }
        Ok(value)
    }
}

/// Members of a list with instances of this form.
pub(super) struct ApplicationsMembers<T> {
    pub(super) version: Option<i64>,
    pub(super) hash: Option<Arc<str>>,
    pub(super) applications: Vec<ApplicationMembers<T>>,
}

impl<'de, T: Deserialize<'de>> Members<'de> for ApplicationsMembers<T> {
    const EXPECTED: &'static str = "applications";

    fn start() -> Self {
        Self { version: None, hash: None, applications: Vec::new() }
    }

    /// Recognizes version and hash by their prefixes, since the underscores depend on a setting of
    /// the sender.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "application" => self.applications = map.next_value::<OneOrMany<_>>()?.log_skipped("application"),
            name if name.starts_with("versions_") => self.version = scalar(map)?.number(),
            name if name.starts_with("apps_") => self.hash = scalar(map)?.text(),
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ApplicationsMembers<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de, T: Deserialize<'de>> Members<'de> for ApplicationMembers<T> {
    const EXPECTED: &'static str = "an application";

    fn start() -> Self {
        Self { name: None, instances: Vec::new() }
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "name" => self.name = scalar(map)?.text(),
            "instance" => self.instances = map.next_value::<OneOrMany<_>>()?.log_skipped("instance"),
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ApplicationMembers<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

impl<'de> Members<'de> for Instance {
    const EXPECTED: &'static str = "an instance";

    fn start() -> Self {
        Self::bare(Arc::from(""))
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        known_member(self, name, map)
    }
}

/// Takes a member of an instance.
pub(super) fn known_member<'de, A: MapAccess<'de>>(
    instance: &mut Instance,
    name: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    instance_member::<{ usize::MAX }, A>(instance, &mut false, name, map)
}

/// Takes a member of an instance, of its metadata at most `MAX` entries. Sets the mark if there are
/// more.
fn instance_member<'de, const MAX: usize, A: MapAccess<'de>>(
    instance: &mut Instance,
    too_much_metadata: &mut bool,
    name: &str,
    map: &mut A,
) -> Result<(), A::Error> {
    match name {
        "instanceId" => instance.instance_id = scalar(map)?.text(),
        "hostName" => instance.host_name = scalar(map)?.text(),
        "app" => instance.app = app_name(&scalar(map)?.word().unwrap_or_default()),
        "ipAddr" => instance.ip_addr = scalar(map)?.text(),
        // "na" is how older clients write "none", and is not written back.
        "sid" => instance.sid = scalar(map)?.text().filter(|sid| !matches!(&**sid, "na" | "unknown")),
        "status" => {
            instance.status = scalar(map)?.word().map_or(InstanceStatus::Up, |word| InstanceStatus::from_body(&word));
        }
        // Two spellings of one member: servers before 1.8.0 and most other languages write the
        // second.
        "overriddenStatus" | "overriddenstatus" => {
            let word = scalar(map)?.word();
            instance.overridden_status = word.map_or(InstanceStatus::Unknown, |word| InstanceStatus::from_body(&word));
        }
        "port" => instance.port = map.next_value::<PortMembers>()?.port(Port::DEFAULT_PLAIN),
        "securePort" => instance.secure_port = map.next_value::<PortMembers>()?.port(Port::DEFAULT_SECURE),
        "countryId" => instance.country_id = scalar(map)?.int().unwrap_or(1),
        "dataCenterInfo" => {
            let members = map.next_value::<OptionalObject<DataCenterMembers<MAX>>>()?.0;
            *too_much_metadata |= members.as_ref().is_some_and(|members| members.too_much_metadata);
            instance.data_center = members.map(DataCenterMembers::data_center);
        }
        "leaseInfo" => instance.lease = map.next_value::<OptionalObject<LeaseInfo>>()?.0,
        "metadata" => {
            let entries = MetadataMembers::<MAX>::take(map, too_much_metadata)?;
            instance.metadata = entries.into_iter().filter(|(key, _)| &**key != "@class").collect();
        }
        "appGroupName" => instance.app_group = scalar(map)?.word().map(|group| app_name(&group)),
        "homePageUrl" => instance.home_page_url = scalar(map)?.text(),
        "statusPageUrl" => instance.status_page_url = scalar(map)?.text(),
        "healthCheckUrl" => instance.health_check_url = scalar(map)?.text(),
        "secureHealthCheckUrl" => instance.secure_health_check_url = scalar(map)?.text(),
        "vipAddress" => instance.vip_address = scalar(map)?.text(),
        "secureVipAddress" => instance.secure_vip_address = scalar(map)?.text(),
        "isCoordinatingDiscoveryServer" => {
            instance.is_coordinating_discovery_server = scalar(map)?.flag().unwrap_or(false);
        }
        "lastUpdatedTimestamp" => instance.last_updated_timestamp = scalar(map)?.number(),
        "lastDirtyTimestamp" => instance.last_dirty_timestamp = scalar(map)?.number(),
        "actionType" => instance.action = scalar(map)?.word().and_then(|word| ActionType::from_body(&word)),
        "asgName" => instance.asg_name = scalar(map)?.text(),
        _ => skip(map)?,
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

/// Instance of a registration.
pub(super) struct Registration {
    pub(super) instance: Instance,
    /// `true` if the member `app` is a string, which may be empty.
    pub(super) named: bool,
    /// `true` if the instance has more than [`MAX_METADATA_ENTRIES`]. The rest is skipped.
    pub(super) too_much_metadata: bool,
}

impl<'de> Members<'de> for Registration {
    const EXPECTED: &'static str = "an instance";

    fn start() -> Self {
        Self { instance: Members::start(), named: false, too_much_metadata: false }
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name != "app" {
            return instance_member::<MAX_METADATA_ENTRIES, A>(
                &mut self.instance,
                &mut self.too_much_metadata,
                name,
                map,
            );
        }
        let app = scalar(map)?.text();
        self.named = app.is_some();
        self.instance.app = app_name(&app.unwrap_or_default());
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Registration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

/// Port: an object, or a bare number in samples of the first servers.
struct PortMembers {
    number: Option<i32>,
    enabled: Option<bool>,
}

impl PortMembers {
    fn port(self, default: Port) -> Port {
        Port { number: self.number.unwrap_or(default.number), enabled: self.enabled.unwrap_or(default.enabled) }
    }
}

impl<'de> Deserialize<'de> for PortMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortVisitor;
        impl PortVisitor {
            fn bare<E>(self, value: Scalar<'_>) -> Result<PortMembers, E> {
                Ok(PortMembers { number: value.int(), enabled: None })
            }
        }
        impl<'de> Visitor<'de> for PortVisitor {
            type Value = PortMembers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port")
            }
            fn visit_unit<E: Error>(self) -> Result<PortMembers, E> {
                self.bare(Scalar::Null)
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<PortMembers, E> {
                self.bare(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PortMembers, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                self.bare(Scalar::Other)
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<PortMembers, E> {
                self.bare(Scalar::Int(number))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<PortMembers, E> {
                self.bare(number.into())
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<PortMembers, E> {
                self.bare(Scalar::Float(number))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<PortMembers, E> {
                self.bare(Scalar::Text(text.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PortMembers, A::Error> {
                let mut port = PortMembers { number: None, enabled: None };
                while let Some(Name(name)) = map.next_key()? {
                    match &*name {
                        // As in the Java reader, `null` is 0 or `false`, but an absent member has
                        // its default.
                        "$" => port.number = Some(scalar(&mut map)?.int().unwrap_or(0)),
                        "@enabled" => port.enabled = Some(scalar(&mut map)?.flag().unwrap_or(false)),
                        _ => skip(&mut map)?,
                    }
                }
                Ok(port)
            }
        }
        deserializer.deserialize_any(PortVisitor)
    }
}

#[derive(Default)]
struct DataCenterMembers<const MAX: usize> {
    is_amazon: bool,
    name: Option<Arc<str>>,
    metadata: Metadata,
    too_much_metadata: bool,
}

impl<const MAX: usize> DataCenterMembers<MAX> {
    /// Converts the members. Amazon is recognized by its class, even without a name; all others by
    /// name.
    fn data_center(self) -> DataCenter {
        let named = |name: &str| self.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name));
        if self.is_amazon || named("Amazon") {
            DataCenter::Amazon(self.metadata)
        } else if named("MyOwn") {
            DataCenter::MyOwn
        } else if named("Netflix") {
            DataCenter::Netflix
        } else {
            DataCenter::Other(self.name.unwrap_or_default())
        }
    }
}

impl<'de, const MAX: usize> Members<'de> for DataCenterMembers<MAX> {
    const EXPECTED: &'static str = "a data center";

    fn start() -> Self {
        Self::default()
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "@class" | "class" => {
                self.is_amazon = scalar(map)?.word().is_some_and(|class| class.ends_with("AmazonInfo"));
            }
            "name" => self.name = scalar(map)?.text(),
            "metadata" => {
                let entries = MetadataMembers::<MAX>::take(map, &mut self.too_much_metadata)?;
                self.metadata = entries.into_iter().collect();
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for DataCenterMembers<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}

/// Keys and values in the order of the document.
type Entries = Vec<(Arc<str>, Arc<str>)>;

/// Up to `MAX` metadata entries, `@class` included. Whether that is an entry depends on the owner.
struct MetadataMembers<const MAX: usize> {
    entries: Entries,
    /// `true` if there are more entries, which are skipped.
    too_much_metadata: bool,
}

impl<const MAX: usize> MetadataMembers<MAX> {
    /// Reads the entries, and sets `too_much_metadata` if there are more.
    fn take<'de, A: MapAccess<'de>>(map: &mut A, too_much_metadata: &mut bool) -> Result<Entries, A::Error> {
        let Some(metadata) = map.next_value::<OptionalObject<Self>>()?.0 else { return Ok(Vec::new()) };
        *too_much_metadata |= metadata.too_much_metadata;
        Ok(metadata.entries)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for MetadataMembers<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for MetadataVisitor<MAX> {
            type Value = MetadataMembers<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metadata")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MetadataMembers<MAX>, A::Error> {
                let (mut entries, mut too_much_metadata) = (Vec::new(), false);
                while let Some(Name(key)) = map.next_key()? {
                    if entries.len() == MAX {
                        too_much_metadata = true;
                        skip(&mut map)?;
                        continue;
                    }
                    let Verbatim(value) = map.next_value()?;
                    entries.push((Arc::from(key), value));
                }
                Ok(MetadataMembers { entries, too_much_metadata })
            }
        }
        deserializer.deserialize_map(MetadataVisitor)
    }
}

impl<'de> Members<'de> for LeaseInfo {
    const EXPECTED: &'static str = "a lease";

    fn start() -> Self {
        Self::default()
    }

    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let number = match name {
            "renewalIntervalInSecs" | "durationInSecs" => {
                let seconds = scalar(map)?.int().filter(|&seconds| seconds > 0);
                if name == "durationInSecs" {
                    self.duration_secs = seconds.unwrap_or(Self::DEFAULT_DURATION_SECS);
                } else {
                    self.renewal_interval_secs = seconds.unwrap_or(Self::DEFAULT_RENEWAL_INTERVAL_SECS);
                }
                return Ok(());
            }
            "registrationTimestamp" => &mut self.registration_timestamp,
            // Older codecs write `renewalTimestamp`.
            "lastRenewalTimestamp" | "renewalTimestamp" => &mut self.last_renewal_timestamp,
            "evictionTimestamp" => &mut self.eviction_timestamp,
            "serviceUpTimestamp" => &mut self.service_up_timestamp,
            _ => return skip(map),
        };
        *number = scalar(map)?.number().unwrap_or(0);
        Ok(())
    }
}

impl<'de> Deserialize<'de> for LeaseInfo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer)
    }
}
