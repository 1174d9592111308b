use std::net::IpAddr;

use super::Interface;

/// Rules for the choice among the addresses of this machine. Without rules every address is
/// allowed.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressRules {
    preferred: Vec<Network>,
    ignored: Vec<Pattern>,
    site_local_only: bool,
    ipv4_only: bool,
}

impl AddressRules {
    /// Adds a network whose addresses are allowed: a CIDR block, the beginning of an address, or a
    /// regular expression for the whole address.
    #[cfg(feature = "client")]
    pub(crate) fn prefer(&mut self, network: &str) -> Result<(), &'static str> {
        self.preferred.push(Network::parse(network)?);
        Ok(())
    }

    /// Removes all [preferred](Self::prefer) networks.
    #[cfg(feature = "client")]
    pub(crate) fn clear_preferred(&mut self) {
        self.preferred.clear();
    }

    /// Removes all [ignored](Self::ignore) interfaces.
    #[cfg(feature = "client")]
    pub(crate) fn clear_ignored(&mut self) {
        self.ignored.clear();
    }

    /// Adds a regular expression for the names of the interfaces whose addresses are not allowed.
    #[cfg(feature = "client")]
    pub(crate) fn ignore(&mut self, interface: &str) -> Result<(), &'static str> {
        self.ignored.push(Pattern::parse(interface).ok_or("it is not a regular expression")?);
        Ok(())
    }

    /// Sets whether only addresses of private networks are allowed.
    pub(crate) fn only_site_local(&mut self, only: bool) {
        self.site_local_only = only;
    }

    /// Allows IPv4 addresses only, for a server that accepts no other connections.
    pub(crate) fn only_ipv4(&mut self) {
        self.ipv4_only = true;
    }

    pub(super) fn are_empty(&self) -> bool {
        self.preferred.is_empty() && self.ignored.is_empty() && !self.site_local_only && !self.ipv4_only
    }

    /// Returns `true` if the address of this interface is allowed.
    pub(super) fn allow(&self, interface: &Interface) -> bool {
        let ip = interface.ip;
        (!self.ipv4_only || ip.is_ipv4())
            && (!self.site_local_only || is_site_local(ip))
            && !self.ignored.iter().any(|pattern| pattern.matches(&interface.name))
            && (self.preferred.is_empty() || self.preferred.iter().any(|network| network.contains(ip)))
    }
}

/// Returns `true` for the addresses of private networks: 10/8, 172.16/12, 192.168/16, and in IPv6
/// fc00::/7 and its predecessor fec0::/10.
fn is_site_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.segments()[0] & 0xffc0 == 0xfec0,
    }
}

/// Network of a preferred address.
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "created by the builder of a provider"))]
#[derive(Clone, Debug)]
enum Network {
    /// Base address and number of leading bits that count.
    Cidr(IpAddr, u32),
    /// Beginning of an address, or a regular expression for all of it.
    Text(Pattern),
}

impl Network {
    #[cfg(feature = "client")]
    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some((base, bits)) = text.split_once('/')
            && let Ok(base) = base.parse::<IpAddr>()
        {
            let bits = bits.parse().ok().filter(|bits| *bits <= if base.is_ipv4() { 32 } else { 128 });
            return bits.map(|bits| Self::Cidr(base, bits)).ok_or("it is not a network like 10.0.0.0/8");
        }
        let unusable = "it is not a network like 10.0.0.0/8, the beginning of an address, or a regular expression";
        Pattern::parse(text).map(Self::Text).ok_or(unusable)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::Cidr(IpAddr::V4(base), bits), IpAddr::V4(ip)) => {
                let differing = base.to_bits() ^ ip.to_bits();
                differing.leading_zeros() >= *bits
            }
            (Self::Cidr(IpAddr::V6(base), bits), IpAddr::V6(ip)) => {
                let differing = base.to_bits() ^ ip.to_bits();
                differing.leading_zeros() >= *bits
            }
            (Self::Cidr(..), _) => false,
            (Self::Text(pattern), ip) => {
                let text = ip.to_string();
                pattern.matches(&text) || text.starts_with(&pattern.text)
            }
        }
    }
}

/// Regular expression that has to match a whole text.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    #[cfg(feature = "client")]
    regex: regex_lite::Regex,
}

impl Pattern {
    #[cfg(feature = "client")]
    fn parse(text: &str) -> Option<Self> {
        // A part that closes the group would match more than the text says.
        regex_lite::Regex::new(text).ok()?;
        let regex = regex_lite::Regex::new(&format!("^(?:{text})$")).ok()?;
        Some(Self { text: text.to_owned(), regex })
    }

    #[cfg(feature = "client")]
    fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// Compares the texts, since there are no regular expressions without the client.
    #[cfg(not(feature = "client"))]
    fn matches(&self, text: &str) -> bool {
        self.text == text
    }
}

#[cfg(feature = "client")]
#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with a public and two private networks, and containers.
    fn machine() -> Vec<Interface> {
        let interface = |index, name: &str, ip: &str| Interface {
            name: name.into(),
            ip: ip.parse().unwrap(),
            index: Some(index),
            is_up: name != "eth9",
        };
        vec![
            interface(1, "lo", "127.0.0.1"),
            interface(2, "docker0", "172.17.0.1"),
            interface(3, "eth9", "10.9.0.1"),
            interface(4, "eth0", "203.0.113.7"),
            interface(5, "eth1", "10.1.0.7"),
            interface(6, "eth1", "fd00::7"),
            interface(7, "wg0", "192.168.5.7"),
        ]
    }

    fn chosen(preferred: &[&str], ignored: &[&str]) -> Option<String> {
        let mut rules = AddressRules::default();
        preferred.iter().for_each(|network| rules.prefer(network).unwrap());
        ignored.iter().for_each(|interface| rules.ignore(interface).unwrap());
        rules.first_of(&machine()).map(|ip| ip.to_string())
    }

    #[test]
    fn address_is_chosen_by_preferred_networks_and_ignored_interfaces() {
        for (preferred, ignored, expected) in [
            (&[][..], &[][..], Some("203.0.113.7")),
            (&[], &["eth0"], Some("10.1.0.7")),
            (&[], &["eth.*"], Some("192.168.5.7")),
            (&[], &["eth.*", "wg\\d"], Some("172.17.0.1")),
            (&[], &["eth"], Some("203.0.113.7")),
            (&["192.168"], &[], Some("192.168.5.7")),
            (&["10.1"], &[], Some("10.1.0.7")),
            (&["^192\\.168\\..*"], &[], Some("192.168.5.7")),
            (&["192.168.5.0/24"], &[], Some("192.168.5.7")),
            (&["192.168.6.0/24"], &[], None),
            (&["0.0.0.0/0"], &[], Some("203.0.113.7")),
            (&["fd00::/8"], &[], Some("fd00::7")),
            (&["fd00:"], &[], Some("fd00::7")),
            (&["172.16.0.0/12", "192.168"], &[], Some("192.168.5.7")),
            (&["10."], &["eth1"], Some("10.9.0.1")),
            (&["198.51.100"], &[], None),
        ] {
            assert_eq!(chosen(preferred, ignored).as_deref(), expected, "{preferred:?} {ignored:?}");
        }
    }

    #[test]
    fn site_local_and_ipv4_rules_exclude_other_addresses() {
        let mut rules = AddressRules::default();
        rules.only_site_local(true);
        assert_eq!(rules.first_of(&machine()), Some("10.1.0.7".parse().unwrap()));
        for (ip, local) in [
            ("10.0.0.1", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("203.0.113.1", false),
            ("fd00::1", true),
            ("fec0::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_site_local(ip.parse().unwrap()), local, "{ip}");
        }
        let mut rules = AddressRules::default();
        rules.only_ipv4();
        let ipv6_only: Vec<_> = machine().into_iter().filter(|interface| interface.ip.is_ipv6()).collect();
        assert_eq!(AddressRules::default().first_of(&ipv6_only), Some("fd00::7".parse().unwrap()));
        assert_eq!(rules.first_of(&ipv6_only), None);
    }

    #[test]
    fn source_address_of_an_excluded_interface_is_not_allowed() {
        let mut rules = AddressRules::default();
        rules.ignore("wg.*").unwrap();
        assert!(rules.allow_one_of("10.1.0.7".parse().unwrap(), &machine()));
        assert!(!rules.allow_one_of("192.168.5.7".parse().unwrap(), &machine()));
        assert!(!rules.allow_one_of("198.51.100.1".parse().unwrap(), &machine()));
    }

    #[test]
    fn unusable_rule_is_an_error() {
        let mut rules = AddressRules::default();
        for network in ["10.0.0.0/33", "10.0.0.0/x", "fd00::/129", "(10", "a)|(b"] {
            assert!(rules.prefer(network).is_err(), "{network}");
        }
        for interface in ["*", "(eth", "(?!eth).*"] {
            assert!(rules.ignore(interface).is_err(), "{interface}");
        }
        assert!(rules.are_empty());
    }
}
