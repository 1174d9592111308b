use super::InstanceBuilder;

impl InstanceBuilder {
    /// Sets the networks whose addresses are detected, others are not used. Each is a network like
    /// `10.0.0.0/8`, the beginning of an address like `192.168`, or a regular expression that
    /// matches the whole address. Defaults to all networks.
    ///
    /// If no address of the machine is in one of them, another one is registered with a warning.
    /// The regular expressions have no look-around and no back-references.
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
}
