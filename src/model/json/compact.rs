//! Compact JSON of an instance, without metadata and lease. `docs/protocol.md`, "Compact form".

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::encode::{AMAZON_DATA_CENTER, optional, to_vec};
use crate::model::{DataCenter, Instance, Metadata};

/// Amazon metadata that the compact form keeps.
pub(in crate::model) const AMAZON_KEYS: [&str; 5] =
    ["instance-id", "public-ipv4", "public-hostname", "local-ipv4", "availability-zone"];

/// Writes the compact JSON of an instance, without a root object.
pub(crate) fn json_instance(instance: &Instance) -> Vec<u8> {
    to_vec(&Compact(instance))
}

struct Compact<'a, T>(&'a T);

impl Serialize for Compact<'_, Instance> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instance = self.0;
        let mut map = serializer.serialize_map(None)?;
        optional(&mut map, "instanceId", instance.instance_id.as_deref())?;
        map.serialize_entry("app", &*instance.app)?;
        optional(&mut map, "ipAddr", instance.ip_addr.as_deref())?;
        optional(&mut map, "vipAddress", instance.vip_address.as_deref())?;
        optional(&mut map, "secureVipAddress", instance.secure_vip_address.as_deref())?;
        optional(&mut map, "dataCenterInfo", instance.data_center.as_ref().map(Compact))?;
        optional(&mut map, "hostName", instance.host_name.as_deref())?;
        map.serialize_entry("status", instance.status.as_str())?;
        // The full form has a string.
        optional(&mut map, "lastUpdatedTimestamp", instance.last_updated_timestamp)?;
        optional(&mut map, "actionType", instance.action.map(|action| action.as_str()))?;
        optional(&mut map, "asgName", instance.asg_name.as_deref())?;
        map.serialize_entry("port", &instance.port)?;
        map.serialize_entry("securePort", &instance.secure_port)?;
        map.end()
    }
}

impl Serialize for Compact<'_, DataCenter> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let DataCenter::Amazon(metadata) = self.0 else { return self.0.serialize(serializer) };
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("@class", AMAZON_DATA_CENTER)?;
        map.serialize_entry("name", self.0.name())?;
        map.serialize_entry("metadata", &Compact(metadata))?;
        map.end()
    }
}

impl Serialize for Compact<'_, Metadata> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().filter(|(key, _)| AMAZON_KEYS.contains(key)))
    }
}
