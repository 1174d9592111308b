use std::net::IpAddr;

use crate::connect::uri::without_brackets;

/// Hosts that are connected to without a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Direct {
    loopback: bool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    hosts: Hosts,
    /// `None` stands for all ports.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// Addresses with the same first bits.
    Network(IpAddr, u32),
    /// The domain and all names below it, in lower case.
    Domain(String),
}

/// The hosts of loopback.
impl Default for Direct {
    fn default() -> Self {
        Self { loopback: true, rules: Vec::new() }
    }
}

impl Direct {
    /// Creates the list of these hosts only, so that loopback is not one of them unless it is
    /// named.
    ///
    /// The text has the form of `NO_PROXY`: names, addresses and networks (`10.0.0.0/8`), separated
    /// by commas or spaces. A name stands for all names below it as well, with or without a leading
    /// `.` or `*.`. An entry may have a port. `*` stands for all hosts.
    pub(crate) fn only(hosts: &str) -> Self {
        Self { loopback: false, rules: Vec::new() }.with(hosts)
    }

    /// Adds hosts.
    pub(super) fn with(mut self, hosts: &str) -> Self {
        let entries = hosts.split([',', ' ', '\t', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        self.rules.extend(entries.map(Rule::parse));
        self
    }

    /// Returns `true` if this host and port are connected to directly.
    pub(super) fn contains(&self, host: &str, port: u16) -> bool {
        let host = without_brackets(host).trim_end_matches('.').to_ascii_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        let is_loopback = ip
            .map_or_else(|| host == "localhost" || host.ends_with(".localhost"), |ip| ip.to_canonical().is_loopback());
        self.loopback && is_loopback || self.rules.iter().any(|rule| rule.contains(&host, ip, port))
    }
}

impl Rule {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self { hosts: Hosts::All, port: None };
        }
        if let Some(hosts) = network(entry) {
            return Self { hosts, port: None };
        }
        let (host, port) = match entry.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, Some(port)),
            _ => (entry, None),
        };
        let hosts = network(host).unwrap_or_else(|| {
            let domain = host.strip_prefix('*').unwrap_or(host);
            Hosts::Domain(domain.trim_matches('.').to_ascii_lowercase())
        });
        Self { hosts, port }
    }

    fn contains(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        let is_host = match &self.hosts {
            Hosts::All => true,
            Hosts::Network(network, bits) => ip.is_some_and(|ip| same_prefix(ip.to_canonical(), *network, *bits)),
            Hosts::Domain(domain) => {
                ip.is_none() && host.strip_suffix(&**domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        };
        is_host && self.port.is_none_or(|only| only == port)
    }
}

/// Parses an address, or an address with the length of its network prefix.
fn network(text: &str) -> Option<Hosts> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = without_brackets(address).parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(most), str::parse).ok().filter(|bits| *bits <= most)?;
    Some(Hosts::Network(address, bits))
}

fn same_prefix(a: IpAddr, b: IpAddr, bits: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_covers_its_hosts_and_no_others() {
        for (entry, covered, others) in [
            ("*", &["a", "10.0.0.1", "[::1]"][..], &[][..]),
            ("corp.example", &["corp.example", "a.corp.example", "A.Corp.Example."], &["notcorp.example", "example"]),
            (".corp.example", &["corp.example", "a.corp.example"], &["xcorp.example"]),
            ("*.corp.example", &["a.corp.example"], &["a.corp.example.org"]),
            ("10.0.0.0/8", &["10.1.2.3", "[::ffff:10.1.2.3]"], &["11.0.0.1", "a"]),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.4", "10.1.2.30"]),
            ("0.0.0.0/0", &["10.1.2.3"], &["[::2]"]),
            ("fd00::/8", &["[fd12::1]"], &["[fe80::1]"]),
            ("[fd00::1]", &["[fd00::1]"], &["[fd00::2]"]),
            ("registry:80", &["registry", "a.registry"], &["other"]),
            ("registry:8761", &[], &["registry"]),
            ("[fd00::1]:80", &["[fd00::1]"], &["[fd00::2]"]),
            ("10.0.0.0/99", &[], &["10.0.0.0"]),
        ] {
            let direct = Direct::only(entry);
            for host in covered {
                assert!(direct.contains(host, 80), "{entry} {host}");
            }
            for host in others {
                assert!(!direct.contains(host, 80), "{entry} {host}");
            }
        }
        let several = Direct::only("a, b\tc ,,");
        assert!(["a", "b", "c"].iter().all(|host| several.contains(host, 1)) && !several.contains("localhost", 1));
        assert!(Direct::default().contains("localhost", 1) && !Direct::default().contains("localhost.example", 1));
    }
}
