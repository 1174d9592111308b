use std::sync::Arc;

/// Key of the gRPC port, as Spring's gRPC starters set it.
#[cfg(feature = "client")]
pub(crate) const GRPC_PORT_KEY: &str = "gRPC_port";
/// Key of the port of the pages, as Spring sets it.
pub(crate) const MANAGEMENT_PORT_KEY: &str = "management.port";
/// Key of the mark of an override that the instance has set on itself. The value is the override.
#[cfg(feature = "client")]
pub(crate) const OVERRIDE_KEY: &str = "tower-eureka.override";

/// Metadata of an instance: strings by key, such as `zone`, `weight` or a version.
///
/// Cheap to clone. Keys are case-sensitive. Values are always strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata(Arc<[Entry]>);

/// Key and value. Entries are sorted by key, and each key occurs once. A sorted slice needs a third
/// of the memory of a map, and real instances have fewer than ten entries.
type Entry = (Arc<str>, Arc<str>);

impl Metadata {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.position(key).ok().map(|at| &*self.0[at].1)
    }

    /// Sets the value of a key, replacing any earlier one.
    pub fn insert(&mut self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) {
        let entry = (key.into(), value.into());
        let mut entries = self.0.to_vec();
        match self.position(&entry.0) {
            Ok(at) => entries[at] = entry,
            Err(at) => entries.insert(at, entry),
        }
        self.0 = entries.into();
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key))
    }

    /// Iterates over the entries, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if both are the same copy.
    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the entry of a key.
    #[cfg(feature = "client")]
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.position(key).ok().map(|at| &self.0[at])
    }

    /// Returns the same metadata with each entry replaced by an equal one.
    pub(super) fn map_entries(&self, mut equal: impl FnMut(&Arc<str>, &Arc<str>) -> Entry) -> Self {
        Self(self.0.iter().map(|(key, value)| equal(key, value)).collect())
    }
}

/// Of a key that occurs repeatedly, the last value is used.
impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<Entry> = entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        // The sort is stable, and the values are swapped so that the last one stays.
        if entries.is_empty() {
            return Self::default();
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(&mut later.1, &mut earlier.1);
            }
            same
        });
        Self(entries.into())
    }
}

/// Replaces earlier values of the same keys.
impl<K: Into<Arc<str>>, V: Into<Arc<str>>> Extend<(K, V)> for Metadata {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        let known = self.0.iter().cloned();
        *self = known.chain(entries.into_iter().map(|(k, v)| (k.into(), v.into()))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_and_the_last_value_of_a_key_is_used() {
        let mut metadata = Metadata::from_iter([("b", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("b", "5")]);
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("a", "4"), ("b", "5")]);
        metadata.insert("aa", "6");
        metadata.insert("b", "7");
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("a", "4"), ("aa", "6"), ("b", "7")]);
        metadata.extend([("b", "8"), ("a", "4")]);
        assert_eq!(metadata.get("b"), Some("8"));
        assert_eq!((metadata.get("aa"), metadata.get("c"), metadata.len()), (Some("6"), None, 3));
    }
}
