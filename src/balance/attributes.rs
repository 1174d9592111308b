//! Attributes of an endpoint, beside its service.

use std::sync::Arc;

use super::label_value::LabelValue;
use crate::model::{Instance, Metadata};

/// Properties of an endpoint that influence picks. All of them are optional.
///
/// Use [`Attributes::of`] for the instances of a registry.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Attributes {
    /// Share of calls relative to the weights of the other endpoints. `None` counts as 1, and so
    /// does a number that is not positive and finite.
    pub weight: Option<f32>,
    /// Zone that the endpoint runs in.
    pub zone: Option<Arc<str>>,
    /// Time since which the endpoint takes calls, in milliseconds of the Unix epoch. [Slow
    /// start](super::SlowStart) counts from it.
    pub up_since_ms: Option<u64>,
    /// Generation of the endpoint, which changes when the endpoint restarts.
    ///
    /// If discovery inserts a key again with the same generation, measurements and ejections are
    /// kept. With another one, or with `None`, they are reset.
    pub generation: Option<u64>,
    /// Address that connections depend on, such as host and port.
    ///
    /// If discovery inserts a key again with the same address, the service is kept with its
    /// connections. With another one, or with `None`, a new service is built.
    pub address: Option<Arc<str>>,
    /// Labels that requests can ask for: the metadata of the instance.
    pub labels: Metadata,
}

impl Attributes {
    /// Creates attributes that are all unknown: weight 1, no zone, no labels and no address.
    /// Measurements and connections then end whenever discovery inserts the key again.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the attributes of an instance, read as Spring's load balancer reads them.
    ///
    /// | attribute | source |
    /// |---|---|
    /// | weight | [`Instance::weight`]; `None` if the instance has no valid one |
    /// | zone | [`Instance::zone`] |
    /// | up since | the lease's `serviceUpTimestamp` |
    /// | generation | number of restarts seen by [`EurekaDiscover`](crate::discover::EurekaDiscover) |
    /// | address | host name or IP address, and both ports; if both are disabled, the number of the plain one |
    /// | labels | the metadata, shared and not copied |
    ///
    /// [`Instance::change_since`] defines which change of a record is a restart. A newer
    /// registration at another address counts as one, too. The generation of an instance that does
    /// not come from [`EurekaDiscover`](crate::discover::EurekaDiscover) never changes; set it by
    /// [`with_generation`](Self::with_generation).
    pub fn of(instance: &Instance) -> Self {
        let up_since = instance.lease().and_then(|lease| u64::try_from(lease.service_up_timestamp).ok());
        let up_since = up_since.filter(|since| *since > 0);
        Self {
            weight: instance.explicit_weight().map(|weight| weight as f32),
            zone: instance.zone().map(Arc::from),
            up_since_ms: up_since,
            generation: Some(instance.generation.into()),
            address: Some(address_of(instance)),
            labels: instance.metadata().clone(),
        }
    }

    /// Sets the share of calls relative to the weights of the other endpoints. Defaults to 1, which
    /// also replaces a number that is not positive and finite.
    #[must_use]
    pub fn with_weight(mut self, weight: f32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Sets the zone that the endpoint runs in, for [`ZoneAware`](super::ZoneAware). Defaults to
    /// none.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the time since which the endpoint takes calls, in milliseconds of the Unix epoch. [Slow
    /// start](super::SlowStart) counts from it.
    #[must_use]
    pub fn with_up_since_ms(mut self, since: u64) -> Self {
        self.up_since_ms = Some(since);
        self
    }

    /// Sets the generation, which changes when the endpoint restarts. With another one, or with
    /// none, which is the default, measurements and ejections are reset when discovery inserts the
    /// key again.
    #[must_use]
    pub fn with_generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// Sets the address that connections depend on, such as host and port. With another one, or
    /// with none, which is the default, a new service is built when discovery inserts the key
    /// again.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<Arc<str>>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Sets the labels that requests can ask for, as keys and values. They replace the present
    /// ones; there are none by default.
    #[must_use]
    pub fn with_labels<K, V>(mut self, labels: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        self.labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        self
    }

    /// Returns the value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key)
    }

    /// Returns `true` if the label has a value that is equal to this one.
    pub(super) fn has_label(&self, key: &str, value: &str) -> bool {
        self.label(key).is_some_and(|own| LabelValue::new(key, own) == LabelValue::new(key, value))
    }
}

/// Formats the properties that a connection depends on.
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
    fn weight_and_zone_equal_those_of_the_instance() {
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
    fn up_since_is_read_from_the_lease_and_generation_from_the_instance() {
        let mut instance = instance();
        instance.lease = Some(LeaseInfo::default());
        let never = Attributes::of(&instance);
        assert_eq!((never.generation, never.up_since_ms), (Some(0), None));
        instance.lease = Some(LeaseInfo { service_up_timestamp: 1_760_000_000_001, ..LeaseInfo::default() });
        instance.generation = 2;
        let up = Attributes::of(&instance);
        assert_eq!((up.generation, up.up_since_ms), (Some(2), Some(1_760_000_000_001)));
        instance.lease = Some(LeaseInfo { service_up_timestamp: -1, ..LeaseInfo::default() });
        assert_eq!(Attributes::of(&instance).up_since_ms, None);
    }

    #[test]
    fn address_changes_only_with_host_and_ports() {
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
