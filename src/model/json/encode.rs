//! Writes the JSON of the Java servers: its members, their order and their types.
//! `docs/protocol.md`, "JSON format".

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::{
    Application, Applications, DataCenter, Instance, LeaseInfo, Metadata, Port, ReplicationItem, ReplicationList,
    ReplicationResponse, ReplicationResult,
};

/// Java class of a map without entries. The empty map is written with it, and receivers drop it.
pub(in crate::model) const EMPTY_MAP: &str = "java.util.Collections$EmptyMap";
/// Class of every data center but Amazon. Java no longer has it and keeps the name.
pub(in crate::model) const DEFAULT_DATA_CENTER: &str = "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo";
pub(in crate::model) const AMAZON_DATA_CENTER: &str = "com.netflix.appinfo.AmazonInfo";

pub(super) fn instance_document(instance: &Instance) -> Vec<u8> {
    to_vec(&Wrapped("instance", instance))
}

pub(super) fn application_document(application: &Application) -> Vec<u8> {
    to_vec(&Wrapped("application", application))
}

pub(super) fn applications_document(applications: &Applications) -> Vec<u8> {
    to_vec(&Wrapped("applications", applications))
}

/// Writes the document piece by piece, without a copy of the whole.
#[cfg(feature = "client")]
pub(super) fn write_applications_document(to: impl std::io::Write, applications: &Applications) -> std::io::Result<()> {
    Ok(serde_json::to_writer(to, &Wrapped("applications", applications))?)
}

pub(super) fn replication_list(list: &ReplicationList) -> Vec<u8> {
    to_vec(&Wrapped("replicationList", &list.0))
}

/// Writes one item of a batch, without the list around it.
#[cfg(feature = "peers")]
pub(super) fn replication_item(item: &ReplicationItem) -> Vec<u8> {
    to_vec(item)
}

pub(super) fn replication_response(response: &ReplicationResponse) -> Vec<u8> {
    to_vec(&Wrapped("responseList", &response.0))
}

pub(super) fn to_vec(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("keys are texts, and write to Vec is infallible")
}

/// Root object with a single member: `{"name": value}`.
struct Wrapped<'a, T>(&'static str, &'a T);

impl<T: Serialize> Serialize for Wrapped<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, self.1)?;
        map.end()
    }
}

/// Number or flag that is written as a string.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Writes a member if it has a value. `null` is never written.
pub(super) fn optional<M: SerializeMap, T: Serialize>(
    map: &mut M,
    name: &str,
    value: Option<T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

impl Serialize for Applications {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "versions__delta", self.version.map(Text))?;
        optional(&mut map, "apps__hashcode", self.hash.as_deref())?;
        map.serialize_entry("application", &Shared(&self.applications))?;
        map.end()
    }
}

impl Serialize for Application {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("name", &*self.name)?;
        map.serialize_entry("instance", &Shared(&self.instances))?;
        map.end()
    }
}

struct Shared<'a, T>(&'a [std::sync::Arc<T>]);

impl<T: Serialize> Serialize for Shared<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|item| &**item))
    }
}

impl Serialize for Instance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "instanceId", self.instance_id.as_deref())?;
        optional(&mut map, "hostName", self.host_name.as_deref())?;
        map.serialize_entry("app", &*self.app)?;
        optional(&mut map, "ipAddr", self.ip_addr.as_deref())?;
        optional(&mut map, "sid", self.sid.as_deref())?;
        map.serialize_entry("status", self.status.as_str())?;
        map.serialize_entry("overriddenStatus", self.overridden_status.as_str())?;
        map.serialize_entry("port", &self.port)?;
        map.serialize_entry("securePort", &self.secure_port)?;
        map.serialize_entry("countryId", &self.country_id)?;
        optional(&mut map, "dataCenterInfo", self.data_center.as_ref())?;
        optional(&mut map, "leaseInfo", self.lease.as_ref())?;
        map.serialize_entry("metadata", &self.metadata)?;
        optional(&mut map, "appGroupName", self.app_group.as_deref())?;
        optional(&mut map, "homePageUrl", self.home_page_url.as_deref())?;
        optional(&mut map, "statusPageUrl", self.status_page_url.as_deref())?;
        optional(&mut map, "healthCheckUrl", self.health_check_url.as_deref())?;
        optional(&mut map, "secureHealthCheckUrl", self.secure_health_check_url.as_deref())?;
        optional(&mut map, "vipAddress", self.vip_address.as_deref())?;
        optional(&mut map, "secureVipAddress", self.secure_vip_address.as_deref())?;
        map.serialize_entry("isCoordinatingDiscoveryServer", &Text(self.is_coordinating_discovery_server))?;
        optional(&mut map, "lastUpdatedTimestamp", self.last_updated_timestamp.map(Text))?;
        optional(&mut map, "lastDirtyTimestamp", self.last_dirty_timestamp.map(Text))?;
        optional(&mut map, "actionType", self.action.map(|a| a.as_str()))?;
        optional(&mut map, "asgName", self.asg_name.as_deref())?;
        map.end()
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("$", &self.number)?;
        map.serialize_entry("@enabled", &Text(self.enabled))?;
        map.end()
    }
}

impl Serialize for LeaseInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("renewalIntervalInSecs", &self.renewal_interval_secs)?;
        map.serialize_entry("durationInSecs", &self.duration_secs)?;
        map.serialize_entry("registrationTimestamp", &self.registration_timestamp)?;
        map.serialize_entry("lastRenewalTimestamp", &self.last_renewal_timestamp)?;
        map.serialize_entry("evictionTimestamp", &self.eviction_timestamp)?;
        map.serialize_entry("serviceUpTimestamp", &self.service_up_timestamp)?;
        map.end()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_empty() {
            return serializer.collect_map([("@class", EMPTY_MAP)]);
        }
        serializer.collect_map(self.iter())
    }
}

/// Writes `metadata` last: Java's reader loses the members after it.
impl Serialize for DataCenter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Amazon(metadata) => {
                map.serialize_entry("@class", AMAZON_DATA_CENTER)?;
                map.serialize_entry("name", self.name())?;
                map.serialize_entry("metadata", &AmazonMetadata(metadata))?;
            }
            Self::Other(name) if name.is_empty() => map.serialize_entry("@class", DEFAULT_DATA_CENTER)?,
            Self::MyOwn | Self::Netflix | Self::Other(_) => {
                map.serialize_entry("@class", DEFAULT_DATA_CENTER)?;
                map.serialize_entry("name", self.name())?;
            }
        }
        map.end()
    }
}

/// Metadata without the marker of the empty map, since `@class` is an ordinary key here.
struct AmazonMetadata<'a>(&'a Metadata);

impl Serialize for AmazonMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

impl Serialize for ReplicationItem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "appName", self.app.as_deref())?;
        optional(&mut map, "id", self.id.as_deref())?;
        optional(&mut map, "lastDirtyTimestamp", self.last_dirty_timestamp)?;
        optional(&mut map, "overriddenStatus", self.overridden_status.map(|s| s.as_str()))?;
        optional(&mut map, "status", self.status.map(|s| s.as_str()))?;
        optional(&mut map, "instanceInfo", self.instance.as_ref())?;
        optional(&mut map, "action", self.action.map(|a| a.as_str()))?;
        map.end()
    }
}

impl Serialize for ReplicationResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("statusCode", &self.status)?;
        optional(&mut map, "responseEntity", self.entity.as_deref())?;
        map.end()
    }
}
