//! Decodes the instances of a list. What equals a known instance or the instance before is not
//! decoded again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::de::{DeserializeSeed, MapAccess};
use serde_json::de::SliceRead;

use super::split::{Member, Members};
use crate::model::fingerprint::Masked;
use crate::model::json::decode::members::known_member;
use crate::model::{Application, DataCenter, Instance, Metadata};

/// Maximum number of distinct strings that a decoder remembers.
const MAX_STRINGS: usize = 4_096;
/// Bytes of a record beside its instance: references to it, counters and its placeholder.
const RECORD: usize = 32;
/// Bytes of a metadata entry beside its strings.
const ENTRY: usize = 96;

/// Instances of a list, in the order of the document.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) instances: Vec<Arc<Instance>>,
    known: Known,
    template: Option<Template>,
    strings: HashSet<Arc<str>>,
    /// Estimated bytes of memory that the decoded instances take.
    pub(super) memory: usize,
}

/// Instances that were decoded before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    applications: Vec<Arc<Application>>,
    count: usize,
    by_hash: Option<HashMap<u64, Arc<Instance>>>,
}

impl Known {
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn new(applications: Vec<Arc<Application>>) -> Self {
        let count = applications.iter().map(|application| application.instances.len()).sum();
        Self { applications, count, by_hash: None }
    }

    /// Returns the number of instances.
    #[cfg(feature = "client")]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    fn get(&mut self, hash: u64) -> Option<&Arc<Instance>> {
        if self.count == 0 {
            return None;
        }
        let index = || {
            let instances = self.applications.iter().flat_map(|application| &application.instances);
            instances.filter_map(|instance| Some((instance.fingerprint.get()?, instance.clone()))).collect()
        };
        self.by_hash.get_or_insert_with(index).get(&hash)
    }
}

impl Records {
    pub(super) fn new(known: Known) -> Self {
        Self { known, ..Self::default() }
    }

    /// Adds an instance.
    pub(super) fn add(&mut self, bytes: &[u8], members: Members<'_>) -> Result<(), serde_json::Error> {
        let masked = Masked::of(bytes);
        let instance = match self.known.get(masked.hash) {
            Some(known) => known.clone(),
            None => self.decode(bytes, members, &masked)?,
        };
        self.memory += RECORD;
        self.instances.push(instance);
        Ok(())
    }

    fn decode(
        &mut self,
        bytes: &[u8],
        members: Members<'_>,
        masked: &Masked,
    ) -> Result<Arc<Instance>, serde_json::Error> {
        let like_template = match &self.template {
            Some(template) => template.decode(bytes, members)?,
            None => None,
        };
        let is_like_template = like_template.is_some();
        let (mut instance, decoded) = match like_template {
            Some(decoded) => decoded,
            None => (serde_json::from_slice(bytes)?, bytes.len()),
        };
        instance.metadata = self.shared(&instance.metadata, |template| Some(&template.metadata));
        if let Some(DataCenter::Amazon(metadata)) = &mut instance.data_center {
            *metadata = self.shared(metadata, |template| match &template.data_center {
                Some(DataCenter::Amazon(metadata)) => Some(metadata),
                _ => None,
            });
        }
        self.memory += RECORD + size_of::<Instance>() + decoded;
        let renewed = instance.lease.map(|lease| lease.last_renewal_timestamp);
        let is_exact = masked.renewed.is_none() || masked.renewed == renewed;
        instance.fingerprint.set(Some(masked.hash).filter(|_| is_exact && !instance.app.is_empty()));
        let instance = Arc::new(instance);
        match &mut self.template {
            Some(template) if is_like_template => template.replace(bytes, members, &instance),
            template => *template = Template::new(bytes, members, &instance),
        }
        Ok(instance)
    }

    /// Returns the same metadata with strings of this list in common. Metadata that comes from the
    /// template has them already.
    fn shared(&mut self, metadata: &Metadata, of: fn(&Instance) -> Option<&Metadata>) -> Metadata {
        let known = self.template.as_ref().and_then(|template| of(&template.instance));
        if metadata.is_empty() || known.is_some_and(|known| known.is_same(metadata)) {
            return metadata.clone();
        }
        self.memory += ENTRY * metadata.len();
        let strings = &mut self.strings;
        let mut shared = |text: &Arc<str>| match strings.get(text) {
            Some(known) => known.clone(),
            None => {
                if strings.len() < MAX_STRINGS {
                    strings.insert(text.clone());
                }
                text.clone()
            }
        };
        metadata.map_entries(|key, value| (shared(key), shared(value)))
    }
}

/// Instance whose members are not decoded again if the next one has the same.
///
/// The instances of one application differ in a few members only. They come in the same order,
/// since one encoder wrote them.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    marks: Vec<u32>,
    instance: Arc<Instance>,
}

impl Template {
    /// Returns `None` if the members of the instance cannot be decoded one by one.
    fn new(bytes: &[u8], members: Members<'_>, instance: &Arc<Instance>) -> Option<Self> {
        let mut names = HashSet::new();
        // Two names of one member.
        let first_name = |name| if name == "overriddenstatus" { "overriddenStatus" } else { name };
        let is_plain =
            members.of(bytes).all(|member| name_of(member).is_some_and(|name| names.insert(first_name(name))));
        let is_plain = is_plain && !names.is_empty();
        is_plain.then(|| Self { bytes: bytes.into(), marks: members.marks.into(), instance: instance.clone() })
    }

    /// Replaces the template by an instance whose members have the same names.
    fn replace(&mut self, bytes: &[u8], members: Members<'_>, instance: &Arc<Instance>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.marks.clear();
        self.marks.extend_from_slice(members.marks);
        self.instance.clone_from(instance);
    }

    /// Decodes the members that differ from the template, and takes the others from it. Returns the
    /// instance and the number of bytes that were decoded, or `None` if the names of the members
    /// are not the same.
    fn decode(&self, bytes: &[u8], members: Members<'_>) -> Result<Option<(Instance, usize)>, serde_json::Error> {
        if members.marks.len() != self.marks.len() {
            return Ok(None);
        }
        let (mut instance, mut decoded) = (Instance::clone(&self.instance), 0);
        let own = Members { marks: &self.marks }.of(&self.bytes);
        for (own, member) in own.zip(members.of(bytes)) {
            if own.bytes == member.bytes {
                continue;
            }
            let Some(name) = name_of(member).filter(|_| own.name() == member.name()) else { return Ok(None) };
            decoded += member.bytes.len();
            let mut value = serde_json::Deserializer::from_slice(member.value());
            known_member(&mut instance, name, &mut OneValue(&mut value))?;
            value.end()?;
        }
        Ok(Some((instance, decoded)))
    }
}

/// Returns the name of a member, or `None` if it has escapes.
fn name_of(member: Member<'_>) -> Option<&str> {
    let name = member.name().trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    std::str::from_utf8(name).ok().filter(|name| !name.contains(['\\', '"']))
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
