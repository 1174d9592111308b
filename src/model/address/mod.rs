//! Detection of this machine's address, for an instance that is built without one.

#[cfg(feature = "client")]
mod names;
mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

#[cfg(feature = "client")]
pub(crate) use names::{addresses_of, name_of, name_within};
pub(crate) use rules::AddressRules;

/// Name prefixes of the interfaces of local containers and virtual machines. Other machines cannot
/// reach their addresses.
const VIRTUAL_INTERFACES: [&str; 6] = ["docker", "br-", "veth", "virbr", "cni", "flannel"];

impl AddressRules {
    /// Returns the address by which other machines probably reach this one: the source address of
    /// the default route, else the address of an interface. Returns `None` if the rules allow no
    /// address of this machine, or it has no network.
    pub(crate) fn detect(&self) -> Option<IpAddr> {
        // Documentation addresses (RFC 5737, RFC 3849) belong to no network.
        let ipv4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
        let ipv6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
        self.source_ip(ipv4).or_else(|| self.source_ip(ipv6)).or_else(|| self.first_of(&interfaces()))
    }

    /// Returns the source address of packets to `target`, if other machines can reach it and the
    /// rules allow it.
    pub(crate) fn source_ip(&self, target: SocketAddr) -> Option<IpAddr> {
        source_ip(target).filter(|ip| self.are_empty() || self.allow_one_of(*ip, &interfaces()))
    }

    /// Returns the [detected address](Self::detect). Without one, logs a warning and returns the
    /// default, else an address that the rules do not allow, else the loopback address.
    pub(super) fn detect_or(&self, app: &str, default: Option<IpAddr>) -> IpAddr {
        if let Some(ip) = self.detect() {
            return ip;
        }
        let (ip, cause) = match default {
            Some(ip) => (ip, "no network address found, using the default address"),
            None => match Self::default().detect() {
                Some(ip) => (ip, "no address matches the preferred networks and interfaces, using another one"),
                None => (Ipv4Addr::LOCALHOST.into(), "no network address found, using 127.0.0.1"),
            },
        };
        tracing::warn!(app, address = %ip, "{cause}; set ip_addr() or EUREKA_INSTANCE_IPADDRESS");
        ip
    }

    /// Returns the address of the first interface that other machines can reach and the rules
    /// allow. IPv4 is preferred, since every caller supports it.
    fn first_of(&self, interfaces: &[Interface]) -> Option<IpAddr> {
        let candidates = interfaces.iter().filter(|interface| is_usable(&interface.ip) && self.allow(interface));
        let rank = |interface: &&Interface| {
            let is_virtual = VIRTUAL_INTERFACES.iter().any(|prefix| interface.name.starts_with(prefix));
            (interface.ip.is_ipv6(), is_virtual, !interface.is_up, interface.index)
        };
        candidates.min_by_key(rank).map(|interface| interface.ip)
    }

    /// Returns `true` if the rules allow this address of one of the interfaces.
    fn allow_one_of(&self, ip: IpAddr, interfaces: &[Interface]) -> bool {
        interfaces.iter().any(|interface| interface.ip == ip && self.allow(interface))
    }
}

/// One address of a network interface.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    ip: IpAddr,
    index: Option<u32>,
    is_up: bool,
}

/// Returns the interfaces of this machine, none if the operating system does not list them.
fn interfaces() -> Vec<Interface> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
    let with_ip = |interface: if_addrs::Interface| Interface {
        ip: interface.ip(),
        is_up: interface.is_oper_up(),
        index: interface.index,
        name: interface.name,
    };
    interfaces.map(with_ip).collect()
}

/// Returns the source address of packets to `target`, if other machines can reach it. Connecting a
/// UDP socket sends no packet.
fn source_ip(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| is_usable_towards(*ip, target.ip()))
}

/// Returns `true` if the machines in the network of the target may reach this one by the address.
fn is_usable_towards(ip: IpAddr, target: IpAddr) -> bool {
    // A network may have no other addresses. Those of IPv6 need a zone, which no caller knows.
    let is_of_link = ip.is_ipv4() && is_link_local(ip) && is_link_local(target);
    is_of_link || is_usable(&ip)
}

/// Returns `true` if other machines may reach this one by the address.
fn is_usable(ip: &IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_link_local(*ip)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Returns `true` if a host name or address denotes the machine itself.
#[cfg(feature = "client")]
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let is_name = |name: &str| host.eq_ignore_ascii_case(name);
    let below =
        host.len() > 10 && host.get(host.len() - 10..).is_some_and(|end| end.eq_ignore_ascii_case(".localhost"));
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
        Ok(ip) => ip.is_loopback(),
        Err(_) => is_name("localhost") || is_name("localhost.localdomain") || below,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "client")]
    #[test]
    fn loopback_is_recognized_by_name_and_by_address() {
        for host in
            ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "::ffff:127.0.0.1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry", "localhost.example.com", "10.0.0.1", "fd00::1", "", "mylocalhost"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn address_that_others_cannot_reach_is_not_usable() {
        for ip in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "224.0.0.1", "::1", "::", "fe80::1"] {
            assert!(!is_usable(&ip.parse().unwrap()), "{ip}");
        }
        for ip in ["10.0.0.1", "203.0.113.1", "fd00::1", "2001:db8::1"] {
            assert!(is_usable(&ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn link_local_address_is_usable_towards_such_a_target_only() {
        let is_usable = |ip: &str, target: &str| is_usable_towards(ip.parse().unwrap(), target.parse().unwrap());
        assert!(is_usable("169.254.3.7", "169.254.3.1") && is_usable("10.0.0.7", "169.254.3.1"));
        assert!(!is_usable("169.254.3.7", "10.0.0.1") && !is_usable("127.0.0.1", "169.254.3.1"));
        assert!(!is_usable("fe80::7", "fe80::1") && is_usable("fd00::7", "fe80::1"));
    }

    #[test]
    fn source_ip_towards_loopback_is_none() {
        assert_eq!(source_ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 9))), None);
    }
}
