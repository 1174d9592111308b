//! Strings and metadata that instances of a list have in common.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::plain;
use crate::model::{DataCenter, Instance, Metadata};

/// Maximum number of distinct strings that are remembered.
const MAX_STRINGS: usize = 4_096;
/// Number of metadata objects that are remembered at a time.
const OBJECTS: usize = 64;
/// Maximum length in bytes of the JSON of metadata that is remembered.
const MAX_OBJECT: usize = 1_024;
/// Bytes of a metadata entry beside its strings.
const ENTRY: usize = 96;

/// Strings and metadata that were decoded before.
#[derive(Debug, Default)]
pub(super) struct Common {
    strings: HashSet<Arc<str>, RandomState>,
    /// JSON of metadata and what it was decoded to. The place is given by the hash of the JSON.
    objects: Vec<Option<(Box<[u8]>, Metadata)>>,
    hasher: RandomState,
    /// Estimated bytes of memory that the metadata takes.
    pub(super) memory: usize,
}

impl Common {
    /// Reads metadata whose values are strings without escapes. `None` if it has another form.
    pub(super) fn metadata(&mut self, value: &[u8]) -> Option<Metadata> {
        let is_remembered = value.len() <= MAX_OBJECT;
        let at = self.hasher.hash_one(value) as usize % OBJECTS;
        if let Some(Some((json, metadata))) = self.objects.get(at).filter(|_| is_remembered)
            && **json == *value
        {
            return Some(metadata.clone());
        }
        let mut entries = Vec::new();
        plain::texts(value, &mut entries)?;
        entries.retain(|(key, _)| *key != "@class");
        self.memory += ENTRY * entries.len() + value.len();
        let metadata: Metadata = entries.into_iter().map(|(key, text)| (self.text(key), self.text(text))).collect();
        if is_remembered {
            self.objects.resize(OBJECTS, None);
            self.objects[at] = Some((value.into(), metadata.clone()));
        }
        Some(metadata)
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let text = Arc::from(text);
        if self.strings.len() < MAX_STRINGS {
            self.strings.insert(Arc::clone(&text));
        }
        text
    }

    /// Replaces the strings of all metadata of an instance by equal ones of other instances.
    pub(super) fn share(&mut self, instance: &mut Instance) {
        self.share_entries(&mut instance.metadata);
        if let Some(DataCenter::Amazon(metadata)) = &mut instance.data_center {
            self.share_entries(metadata);
        }
    }

    pub(super) fn share_entries(&mut self, metadata: &mut Metadata) {
        if metadata.is_empty() {
            return;
        }
        self.memory += ENTRY * metadata.len();
        *metadata = metadata.map_entries(|key, value| (self.text(key), self.text(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_metadata_is_shared_and_other_metadata_has_its_strings_in_common() {
        let mut common = Common::default();
        let first = common.metadata(br#"{"zone":"a","@class":"x","n":"1"}"#).unwrap();
        let memory = common.memory;
        let again = common.metadata(br#"{"zone":"a","@class":"x","n":"1"}"#).unwrap();
        assert!(first.is_same(&again));
        assert_eq!(common.memory, memory);
        assert_eq!(first.iter().collect::<Vec<_>>(), [("n", "1"), ("zone", "a")]);
        let other = common.metadata(br#"{"zone":"a","n":"2"}"#).unwrap();
        assert_eq!(other.get("zone").unwrap().as_ptr(), first.get("zone").unwrap().as_ptr());
        assert!(common.memory > memory && common.metadata(b"{\"n\":1}").is_none());
        // More than are remembered.
        for number in (0..2 * OBJECTS).chain(0..2 * OBJECTS) {
            let value = format!("{{\"n\":\"{number}\"}}");
            assert_eq!(common.metadata(value.as_bytes()).unwrap().get("n"), Some(number.to_string().as_str()));
        }
        let long = format!("{{\"n\":\"{}\"}}", "x".repeat(MAX_OBJECT));
        let twice = [&long, &long].map(|long| common.metadata(long.as_bytes()).unwrap());
        assert!(!twice[0].is_same(&twice[1]) && twice[0] == twice[1]);
    }
}
