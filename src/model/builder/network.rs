use std::net::IpAddr;

#[cfg(feature = "client")]
use super::super::name_within;
use super::InstanceBuilder;

impl InstanceBuilder {
    /// Sets the networks whose addresses are detected, others are not used. Each is a network like
    /// `10.0.0.0/8`, the beginning of an address like `192.168`, or a regular expression that
    /// matches the whole address. Defaults to all networks.
    ///
    /// If no address of the machine is in one of them, another one is registered with a warning.
    /// The regular expressions have no look-around and no back-references.
    #[cfg(feature = "client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "client")))]
    pub fn preferred_networks(mut self, networks: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.rules.clear_preferred();
        for network in networks {
            let network = network.as_ref().trim();
            if let Err(why) = self.rules.prefer(network) {
                self.unusable_rule.get_or_insert(("preferred network", network.to_owned(), why));
            }
        }
        self
    }

    /// Sets the interfaces whose addresses are not detected, as regular expressions that match the
    /// whole name, such as `docker0` or `veth.*`. Defaults to none.
    ///
    /// Without this, the usual interfaces of containers and virtual machines are used only if there
    /// is no other.
    #[cfg(feature = "client")]
    #[cfg_attr(docsrs, doc(cfg(feature = "client")))]
    pub fn ignored_interfaces(mut self, interfaces: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.rules.clear_ignored();
        for interface in interfaces {
            let interface = interface.as_ref().trim();
            if let Err(why) = self.rules.ignore(interface) {
                self.unusable_rule.get_or_insert(("ignored interface", interface.to_owned(), why));
            }
        }
        self
    }

    /// Registers the `public-ipv4` of [Amazon's](super::super::DataCenter::Amazon) metadata as the IP
    /// address, for callers in other networks. Without that entry it is the `local-ipv4`. Defaults
    /// to `false`. It has no effect in another data center.
    ///
    /// Netflix `eureka.broadcastPublicIpv4`.
    pub fn public_ipv4(mut self, public: bool) -> Self {
        self.public_ipv4 = public;
        self
    }

    /// Returns the address of this machine by the rules, as [`build`](Self::build) detects it.
    pub(crate) fn local_address(&self) -> IpAddr {
        let default = self.default_ip_addr.as_deref().and_then(|ip| ip.parse().ok());
        self.address_rules().detect_or(&self.app, default)
    }

    /// Returns the host name of this machine: that of its address, else the default, else the
    /// address. Blocks for at most the [`host_name_timeout`](Self::host_name_timeout).
    pub(crate) fn local_host_name(&self) -> String {
        let ip = self.local_address();
        #[cfg(feature = "client")]
        let name = name_within(ip, self.host_name_timeout);
        #[cfg(not(feature = "client"))]
        let name: Option<String> = None;
        name.or_else(|| self.default_host_name.clone()).unwrap_or_else(|| ip.to_string())
    }
}
