//! What a balancer may know of an endpoint beside its service.

use std::sync::Arc;

use crate::model::Instance;

/// What is known of an endpoint, as far as it matters to a choice. Everything is optional.
///
/// For instances of a registry it is worked out by [`Attributes::of`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Attributes {
    /// The share of calls it should get in relation to the others'; `None` counts as 1.
    pub weight: Option<f32>,
    /// The zone it runs in.
    pub zone: Option<Arc<str>>,
    /// Since when it takes calls, in milliseconds of the Unix epoch: what slow start counts from.
    pub up_since_ms: Option<u64>,
    /// What tells one start of it from the next. Where discovery inserts a key again with another start, what was measured and
    /// what it was ejected for is forgotten; with the same one it is kept. `None` forgets.
    pub start: Option<u64>,
    /// What its connections depend on, such as host and port. Where discovery inserts a key again with the same address, its
    /// service is kept with its connections. `None` makes a new one.
    pub address: Option<Arc<str>>,
    /// What routes by label choose by: the instance's metadata.
    pub labels: Arc<[(Arc<str>, Arc<str>)]>,
}

impl Attributes {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of an instance: metadata `weight` and `zone` as Spring's load balancer reads them, when it came up, all of its metadata
    /// as labels.
    pub fn of(instance: &Instance) -> Self {
        let _ = instance;
        Self::default()
    }

    /// Sets [`weight`](Self::weight).
    #[must_use]
    pub fn with_weight(mut self, weight: f32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Sets [`zone`](Self::zone).
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets [`up_since_ms`](Self::up_since_ms).
    #[must_use]
    pub fn with_up_since_ms(mut self, since: u64) -> Self {
        self.up_since_ms = Some(since);
        self
    }

    /// Sets [`start`](Self::start).
    #[must_use]
    pub fn with_start(mut self, start: u64) -> Self {
        self.start = Some(start);
        self
    }

    /// Sets [`address`](Self::address).
    #[must_use]
    pub fn with_address(mut self, address: impl Into<Arc<str>>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Sets [`labels`](Self::labels).
    #[must_use]
    pub fn with_labels<K, V>(mut self, labels: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        self.labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self
    }

    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| **known == *key).map(|(_, value)| &**value)
    }
}
