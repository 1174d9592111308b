//! Decodes the members of an instance that differ from those of the instance before.

use std::collections::HashSet;
use std::sync::Arc;

use serde::de::{DeserializeSeed, MapAccess};
use serde_json::de::SliceRead;

use super::common::Common;
use super::plain;
use super::split::{Member, Members};
use crate::model::json::decode::members::known_member;
use crate::model::{DataCenter, Instance};

/// Instance whose members are not decoded again if the next one has the same.
///
/// The instances of one application differ in a few members only. They come in the same order,
/// since one encoder wrote them.
#[derive(Debug)]
pub(super) struct Template {
    /// Names as written, with their quotes.
    members: Vec<(Box<[u8]>, Field)>,
    instance: Arc<Instance>,
}

impl Template {
    /// Returns `None` if the members of the instance cannot be decoded one by one.
    pub(super) fn new(bytes: &[u8], members: Members<'_>, instance: &Arc<Instance>) -> Option<Self> {
        let (mut names, mut fields) = (HashSet::new(), Vec::new());
        for member in members.of(bytes) {
            let name = name_of(member)?;
            // Two names of one member.
            let is_first = names.insert(if name == "overriddenstatus" { "overriddenStatus" } else { name });
            fields.push(is_first.then(|| (member.name().into(), Field::of(name)))?);
        }
        let is_empty = fields.is_empty();
        (!is_empty).then(|| Self { members: fields, instance: instance.clone() })
    }

    /// Replaces the template by an instance whose members have the same names.
    pub(super) fn replace(&mut self, instance: &Arc<Instance>) {
        self.instance.clone_from(instance);
    }

    /// Returns a copy of the instance without the texts that are read. References to texts take
    /// most of the time of a copy.
    fn copy(&self, members: Members<'_>, is_before: bool) -> Instance {
        let mut is_read = [false; TEXTS.len()];
        for ((_, field), is_same) in self.members.iter().zip(members.are_same()) {
            if let (Field::Text(at), false) = (field, is_before && is_same) {
                is_read[*at] = true;
            }
        }
        let known = &*self.instance;
        let text = |at: usize, text: &Option<Arc<str>>| if is_read[at] { None } else { text.clone() };
        Instance {
            instance_id: text(0, &known.instance_id),
            host_name: text(1, &known.host_name),
            ip_addr: text(2, &known.ip_addr),
            home_page_url: text(3, &known.home_page_url),
            status_page_url: text(4, &known.status_page_url),
            health_check_url: text(5, &known.health_check_url),
            secure_health_check_url: text(6, &known.secure_health_check_url),
            vip_address: text(7, &known.vip_address),
            secure_vip_address: text(8, &known.secure_vip_address),
            asg_name: text(9, &known.asg_name),
            app: known.app.clone(),
            sid: known.sid.clone(),
            data_center: known.data_center.clone(),
            metadata: known.metadata.clone(),
            app_group: known.app_group.clone(),
            local: known.local.clone(),
            fingerprint: known.fingerprint.clone(),
            ..*known
        }
    }

    /// Decodes the members that differ from the template, and takes the others from it. Returns the
    /// instance and the number of bytes that were decoded, or `None` if the names of the members
    /// are not the same. `is_before` is true if the template is the instance before.
    pub(super) fn decode(
        &self,
        bytes: &[u8],
        members: Members<'_>,
        is_before: bool,
        common: &mut Common,
    ) -> Result<Option<(Instance, usize)>, serde_json::Error> {
        if members.len() != self.members.len() {
            return Ok(None);
        }
        let has_names = is_before && members.has_same_names;
        let (mut instance, mut decoded) = (self.copy(members, is_before), 0);
        for ((name, field), member) in self.members.iter().zip(members.of(bytes)) {
            if is_before && member.is_same {
                continue;
            }
            if !has_names && **name != *member.name() {
                return Ok(None);
            }
            decoded += member.bytes.len();
            if field.read(&mut instance, member.value(), common).is_some() {
                continue;
            }
            let Some(name) = name_of(member) else { return Ok(None) };
            let mut value = serde_json::Deserializer::from_slice(member.value());
            known_member(&mut instance, name, &mut OneValue(&mut value))?;
            value.end()?;
            field.share(&mut instance, common);
        }
        Ok(Some((instance, decoded)))
    }
}

/// Names of members that are texts, and the places of the texts.
const TEXTS: [(&str, TextOf); 10] = [
    ("instanceId", |instance| &mut instance.instance_id),
    ("hostName", |instance| &mut instance.host_name),
    ("ipAddr", |instance| &mut instance.ip_addr),
    ("homePageUrl", |instance| &mut instance.home_page_url),
    ("statusPageUrl", |instance| &mut instance.status_page_url),
    ("healthCheckUrl", |instance| &mut instance.health_check_url),
    ("secureHealthCheckUrl", |instance| &mut instance.secure_health_check_url),
    ("vipAddress", |instance| &mut instance.vip_address),
    ("secureVipAddress", |instance| &mut instance.secure_vip_address),
    ("asgName", |instance| &mut instance.asg_name),
];

type TextOf = fn(&mut Instance) -> &mut Option<Arc<str>>;

/// Member of an instance, by the way in which its usual form is read.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// Position in [`TEXTS`].
    Text(usize),
    Time(fn(&mut Instance) -> &mut Option<i64>),
    Lease,
    Metadata,
    DataCenter,
    /// Left to the parser.
    Other,
}

impl Field {
    fn of(name: &str) -> Self {
        if let Some(text) = TEXTS.iter().position(|(known, _)| *known == name) {
            return Self::Text(text);
        }
        match name {
            "lastUpdatedTimestamp" => Self::Time(|instance| &mut instance.last_updated_timestamp),
            "lastDirtyTimestamp" => Self::Time(|instance| &mut instance.last_dirty_timestamp),
            "leaseInfo" => Self::Lease,
            "metadata" => Self::Metadata,
            "dataCenterInfo" => Self::DataCenter,
            _ => Self::Other,
        }
    }

    /// Reads a value of the usual form. `None` if it has another one.
    fn read(self, instance: &mut Instance, value: &[u8], common: &mut Common) -> Option<()> {
        match self {
            Self::Text(at) => *TEXTS[at].1(instance) = Some(plain::text(value)?.into()),
            Self::Time(field) => *field(instance) = Some(plain::number(value)?),
            Self::Lease => instance.lease = Some(plain::lease(value)?),
            Self::Metadata => instance.metadata = common.metadata(value)?,
            Self::DataCenter | Self::Other => return None,
        }
        Some(())
    }

    /// Replaces the strings of metadata that the parser has read.
    fn share(self, instance: &mut Instance, common: &mut Common) {
        match (self, &mut instance.data_center) {
            (Self::Metadata, _) => common.share_entries(&mut instance.metadata),
            (Self::DataCenter, Some(DataCenter::Amazon(metadata))) => common.share_entries(metadata),
            _ => {}
        }
    }
}

/// Returns the name of a member, or `None` if it has escapes.
fn name_of(member: Member<'_>) -> Option<&str> {
    plain::text(member.name().trim_ascii())
}

/// Map of which only the next value is read.
struct OneValue<'a, 'de>(&'a mut serde_json::Deserializer<SliceRead<'de>>);

impl<'de> MapAccess<'de> for OneValue<'_, 'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, _: K) -> Result<Option<K::Value>, Self::Error> {
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        seed.deserialize(&mut *self.0)
    }
}
