#[cfg(feature = "client")]
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::AddressRules;
#[cfg(feature = "client")]
use super::{Instance, host_in_url};

/// Facts about an instance of this process that are not part of its record. Instances that differ
/// only in them are equal.
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "read by the registrar"))]
#[derive(Clone, Debug, Default)]
pub(crate) struct LocalFacts(Option<Arc<Facts>>);

#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "read by the registrar"))]
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Rules by which the address was detected; `None` if it was not. A better address may replace
    /// a detected one.
    pub(crate) rules: Option<AddressRules>,
    /// Set if the host name is found by a look-up.
    pub(crate) look_up: Option<HostLookup>,
    /// True once the host name was looked up for the present address.
    pub(crate) is_looked_up: bool,
    /// True if the id was not set, so that it begins with the host name or the address.
    pub(crate) has_default_id: bool,
    /// Paths at which the layer serves the health check and the status page.
    pub(crate) page_paths: [Box<str>; 2],
}

/// Reverse look-up of the host name.
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "read by the registrar"))]
#[derive(Clone, Debug)]
pub(crate) struct HostLookup {
    pub(crate) limit: Duration,
    /// Host name that is used if none is found.
    pub(crate) default: Option<Arc<str>>,
}

impl LocalFacts {
    pub(crate) fn new(facts: Facts) -> Self {
        Self(Some(Arc::new(facts)))
    }

    /// Returns the facts; `None` for an instance that was received from a registry.
    #[cfg(feature = "client")]
    pub(crate) fn facts(&self) -> Option<&Facts> {
        self.0.as_deref()
    }
}

impl PartialEq for LocalFacts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LocalFacts {}

#[cfg(feature = "client")]
impl Instance {
    /// Returns the rules by which the address was detected; `None` if it was set by the user.
    pub(crate) fn address_rules(&self) -> Option<&AddressRules> {
        self.local.facts()?.rules.as_ref()
    }

    /// Returns the look-up of the host name that is still to be made, with the address.
    pub(crate) fn pending_look_up(&self) -> Option<(IpAddr, &HostLookup)> {
        let facts = self.local.facts()?;
        Some((self.ip_addr()?.parse().ok()?, facts.look_up.as_ref().filter(|_| !facts.is_looked_up)?))
    }

    /// Returns the instance with another IP address, which replaces the old one in the host name,
    /// the id and the URLs. It also replaces a host name that was looked up.
    pub(crate) fn with_address(&self, ip: &str) -> Self {
        let old = self.ip_addr.clone().unwrap_or_default();
        let looked_up = self.local.facts().is_some_and(|facts| facts.look_up.is_some());
        let host = self.host_name.clone().unwrap_or_default();
        let is_host = host == old || looked_up;
        let mut instance = self.at_host(&old, ip, is_host);
        if looked_up && host != old {
            instance = instance.at_host(&host, ip, true);
        }
        instance.ip_addr = Some(ip.into());
        instance.looked_up(false)
    }

    /// Returns the instance with an IP address that the user has set, as
    /// [`with_address`](Self::with_address) does. No detected address or host name replaces it.
    pub(crate) fn with_fixed_address(&self, ip: &str) -> Self {
        let mut instance = self.with_address(ip);
        if let Some(facts) = self.local.facts() {
            instance.local = LocalFacts::new(Facts { rules: None, look_up: None, ..facts.clone() });
        }
        instance
    }

    /// Returns the instance with the id of another record of it, by which the registry knows it.
    pub(crate) fn with_id_of(self, known: &Self) -> Self {
        Self { instance_id: Some(known.id().into()), ..self }
    }

    /// Returns the instance after the look-up of its host name, which replaces the IP address in
    /// the host name, the id and the URLs. Without a host name, only the look-up is no longer
    /// pending.
    pub(crate) fn with_host_name(&self, name: Option<&str>) -> Self {
        let before = self.host_name.clone().unwrap_or_default();
        let instance = name.map_or_else(|| self.clone(), |name| self.at_host(&before, name, true));
        instance.looked_up(true)
    }

    /// Replaces a host in the URLs and in a default id, and if `is_host` is set the host name.
    fn at_host(&self, old: &str, new: &str, is_host: bool) -> Self {
        let [old_in_url, new_in_url] = [old, new].map(host_in_url);
        let in_url = |url: &Option<Arc<str>>| {
            url.as_ref().map(|url| {
                let (scheme, rest) = url.split_once("://").unwrap_or_default();
                match rest.strip_prefix(&*old_in_url) {
                    Some(rest) if rest.is_empty() || rest.starts_with([':', '/', '?']) => {
                        format!("{scheme}://{new_in_url}{rest}").into()
                    }
                    _ => url.clone(),
                }
            })
        };
        let has_default_id = self.local.facts().is_some_and(|facts| facts.has_default_id);
        let id = self.instance_id.as_ref().map(|id| match id.strip_prefix(old) {
            Some(rest) if has_default_id && rest.starts_with(':') => format!("{new}{rest}").into(),
            _ => id.clone(),
        });
        Self {
            instance_id: id,
            host_name: if is_host { Some(new.into()) } else { self.host_name.clone() },
            home_page_url: in_url(&self.home_page_url),
            status_page_url: in_url(&self.status_page_url),
            health_check_url: in_url(&self.health_check_url),
            secure_health_check_url: in_url(&self.secure_health_check_url),
            ..self.clone()
        }
    }

    /// Sets whether the host name was looked up for the present address.
    fn looked_up(mut self, is_looked_up: bool) -> Self {
        if let Some(facts) = self.local.facts() {
            self.local = LocalFacts::new(Facts { is_looked_up, ..facts.clone() });
        }
        self
    }
}

#[cfg(feature = "client")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceBuilder;

    fn orders() -> InstanceBuilder {
        Instance::builder("orders").port(80).ip_addr("10.0.0.1")
    }

    #[test]
    fn new_address_replaces_the_detected_one() {
        let detected = orders().health_check_url("http://10.0.0.1:80/up").status_page_url("http://10.0.0.10/s");
        let moved = detected.clone().build().unwrap().with_address("fd00::2");
        assert_eq!((moved.ip_addr(), moved.host_name()), (Some("fd00::2"), Some("fd00::2")));
        assert_eq!(moved.id(), "fd00::2:orders:80");
        assert_eq!(moved.home_page_url(), Some("http://[fd00::2]:80/"));
        assert_eq!(moved.health_check_url(), Some("http://[fd00::2]:80/up"));
        assert_eq!(moved.status_page_url(), Some("http://10.0.0.10/s"));
        let named = detected.clone().host_name("h").id("10.0.0.1").build().unwrap().with_address("10.0.0.2");
        assert_eq!((named.ip_addr(), named.host_name(), named.id()), (Some("10.0.0.2"), Some("h"), "10.0.0.1"));
        let own_id = detected.id("10.0.0.1:mine").build().unwrap().with_address("10.0.0.2");
        assert_eq!((own_id.host_name(), own_id.id()), (Some("10.0.0.2"), "10.0.0.1:mine"));
    }

    #[test]
    fn default_id_with_the_address_in_place_of_the_machines_name_follows_the_address() {
        let detected = || Instance::builder("orders").port(80);
        let ip = detected().build().unwrap().ip_addr().unwrap().to_owned();
        let moved = |builder: InstanceBuilder| builder.build().unwrap().with_address("10.9.9.9").id().to_owned();
        let of = |host: &str| detected().id_host(Some(host.to_owned()), false);
        assert_eq!(moved(of(&ip)), "10.9.9.9:orders:80");
        assert_eq!(moved(of(&ip).host_name("h")), "10.9.9.9:orders:80");
        assert_eq!(moved(of("machine")), "machine:orders:80");
        assert_eq!(moved(detected().id_host(Some(ip.clone()), true)), format!("{ip}:orders:80"), "it was set");
        assert_eq!(moved(detected().id(format!("{ip}:mine"))), format!("{ip}:mine"));
    }

    #[test]
    fn host_name_that_was_looked_up_is_looked_up_again_for_a_new_address() {
        let instance = orders().prefer_ip_address(false).health_check_path("/up").build().unwrap();
        assert_eq!(instance.pending_look_up().map(|(ip, _)| ip.to_string()).as_deref(), Some("10.0.0.1"));
        let named = instance.with_host_name(Some("node1"));
        assert_eq!((named.host_name(), named.id()), (Some("node1"), "node1:orders:80"));
        assert_eq!(named.home_page_url(), Some("http://node1:80/"));
        assert_eq!(named.health_check_url(), Some("http://node1:80/up"));
        assert!(named.pending_look_up().is_none());
        let moved = named.with_address("10.0.0.2");
        assert_eq!((moved.host_name(), moved.id()), (Some("10.0.0.2"), "10.0.0.2:orders:80"));
        assert_eq!(moved.health_check_url(), Some("http://10.0.0.2:80/up"));
        assert!(moved.pending_look_up().is_some());
        let unnamed = moved.with_host_name(None);
        assert_eq!((unnamed.host_name(), unnamed.id()), (Some("10.0.0.2"), "10.0.0.2:orders:80"));
        assert!(unnamed.pending_look_up().is_none());
    }

    #[test]
    fn host_name_is_looked_up_only_if_the_address_is_not_preferred() {
        for (builder, pending) in [
            (orders(), false),
            (orders().prefer_ip_address(true), false),
            (orders().prefer_ip_address(false).host_name("h"), false),
            (orders().prefer_ip_address(true).host_name("h"), false),
            (orders().prefer_ip_address(false), true),
        ] {
            assert_eq!(builder.build().unwrap().pending_look_up().is_some(), pending);
        }
    }
}
