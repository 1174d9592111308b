//! What a balancer may know of an endpoint beside its service.

use std::sync::Arc;

use crate::model::{Instance, Metadata};

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
    pub labels: Metadata,
}

impl Attributes {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of an instance, as Spring's load balancer reads them.
    ///
    /// | | from |
    /// |---|---|
    /// | weight | [`Instance::weight`]; `None` where the instance gives none that counts |
    /// | zone | [`Instance::zone`] |
    /// | up since | the lease's `serviceUpTimestamp` |
    /// | start | the restarts that [`EurekaDiscover`](crate::discover::EurekaDiscover) has seen |
    /// | address | host name, else IP address, and both ports; where both are disabled, the number of the plain one |
    /// | labels | its metadata, shared and not copied |
    ///
    /// [`Instance::change_since`] says which change of a record is a restart. An instance that does
    /// not come from [`EurekaDiscover`](crate::discover::EurekaDiscover) has always the same start;
    /// set it with [`with_start`](Self::with_start).
    pub fn of(instance: &Instance) -> Self {
        let up_since = instance.lease().and_then(|lease| u64::try_from(lease.service_up_timestamp).ok());
        let up_since = up_since.filter(|since| *since > 0);
        Self {
            weight: instance.explicit_weight().map(|weight| weight as f32),
            zone: instance.zone().map(Arc::from),
            up_since_ms: up_since,
            start: Some(instance.generation.into()),
            address: Some(address_of(instance)),
            labels: instance.metadata().clone(),
        }
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
        self.labels.get(key)
    }
}

/// Changes with anything that a connection depends on.
fn address_of(instance: &Instance) -> Arc<str> {
    let host = instance.host().unwrap_or_default();
    // Calls go to the plain port of such a record.
    if let Some(port) = instance.disabled_plain_port() {
        return format!("{host} ({port}) -").into();
    }
    let number = |port: Option<u16>| port.map_or_else(|| "-".to_owned(), |port| port.to_string());
    let (plain, secure) = (number(instance.port().usable()), number(instance.secure_port().usable()));
    format!("{host} {plain} {secure}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DataCenter, LeaseInfo, Port};

    fn instance() -> Instance {
        Instance::builder("orders").ip_addr("10.0.0.1").port(8080).build().unwrap()
    }

    fn with_metadata(key: &str, value: &str) -> Attributes {
        let mut instance = instance();
        instance.metadata.insert(key, value);
        Attributes::of(&instance)
    }

    #[test]
    fn weight_and_zone_are_those_of_the_instance() {
        for text in ["3", " 3 ", "0", "-2", "", " ", "2.5", "1e3", "heavy", "4000000000", "2147483647"] {
            let mut instance = instance();
            instance.metadata.insert("weight", text);
            let weight = Attributes::of(&instance).weight.unwrap_or(1.0);
            assert_eq!(weight, instance.weight() as f32, "{text:?}");
        }
        assert_eq!(Attributes::of(&instance()).weight, None);
        for text in ["rack-a", " rack-a ", "", " "] {
            let mut instance = instance();
            instance.metadata.insert("zone", text);
            assert_eq!(Attributes::of(&instance).zone.as_deref(), instance.zone(), "{text:?}");
            let amazon = Metadata::from_iter([("availability-zone", " us-east-1c ")]);
            instance.data_center = Some(DataCenter::Amazon(amazon));
            assert_eq!(Attributes::of(&instance).zone.as_deref(), instance.zone(), "{text:?}");
        }
    }

    #[test]
    fn up_since_is_that_of_the_lease_and_start_the_generation() {
        let mut instance = instance();
        instance.lease = Some(LeaseInfo::default());
        let never = Attributes::of(&instance);
        assert_eq!((never.start, never.up_since_ms), (Some(0), None));
        instance.lease = Some(LeaseInfo { service_up_timestamp: 1_760_000_000_001, ..LeaseInfo::default() });
        instance.generation = 2;
        let up = Attributes::of(&instance);
        assert_eq!((up.start, up.up_since_ms), (Some(2), Some(1_760_000_000_001)));
        instance.lease = Some(LeaseInfo { service_up_timestamp: -1, ..LeaseInfo::default() });
        assert_eq!(Attributes::of(&instance).up_since_ms, None);
    }

    #[test]
    fn the_address_changes_with_what_a_connection_depends_on_alone() {
        let before = Attributes::of(&instance()).address;
        assert_eq!(with_metadata("version", "2").address, before);
        let mut changed = [instance(), instance(), instance(), instance()];
        changed[0].port = Port { number: 8081, enabled: true };
        changed[1].port = Port { number: 8080, enabled: false };
        changed[2].secure_port = Port { number: 8443, enabled: true };
        changed[3].host_name = Some("other".into());
        for instance in &changed {
            assert_ne!(Attributes::of(instance).address, before);
        }
        let disabled =
            |number| Attributes::of(&Instance { port: Port { number, enabled: false }, ..instance() }).address;
        assert_eq!(disabled(8080), disabled(8080));
        assert_ne!(disabled(8080), disabled(8081));
        assert_eq!(with_metadata("version", "2").label("version"), Some("2"));
    }
}
