use std::collections::BTreeMap;
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
pub struct Metadata(Arc<BTreeMap<Arc<str>, Arc<str>>>);

impl Metadata {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(AsRef::as_ref)
    }

    /// Sets the value of a key, replacing any earlier one.
    pub fn insert(&mut self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) {
        Arc::make_mut(&mut self.0).insert(key.into(), value.into());
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
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(Arc::new(entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect()))
    }
}
