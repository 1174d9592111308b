use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use super::options::{CallOptions, InstanceAddress, InstanceScheme, Ports};
use super::presence::Presence;
use crate::connect::{Dial, TlsSettings, UseIp};
use crate::model::{Instance, Port, host_in_url, ip_of};

/// Scheme, host and port of an instance. With TLS, the certificate must be valid for the host,
/// unless [`CallOptions::tls_server_name`] sets another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

/// Rule by which an instance's address is chosen from its host, IP address and ports.
#[derive(Clone, Debug)]
pub(super) struct AddressRule {
    pub(super) ports: Ports,
    pub(super) port_key: Option<Arc<str>>,
    /// `true` if this build, or the service below, can speak TLS.
    pub(super) can_tls: bool,
    /// `true` if [`Ports::Auto`] prefers the plain port.
    pub(super) prefers_plain: bool,
    pub(super) scheme: InstanceScheme,
    pub(super) address: InstanceAddress,
    pub(super) server_name: Option<ServerNameOf>,
}

/// Returns the name for which an instance's certificate must be valid.
#[derive(Clone)]
pub(super) struct ServerNameOf(pub(super) Arc<NameOf>);

type NameOf = dyn Fn(&Instance) -> Option<Arc<str>> + Send + Sync;

/// An endpoint service at an address.
pub(super) trait HasAddress {
    /// `true` if all endpoints share one service below. Waiting until it is ready then says nothing
    /// about an instance.
    const IS_SHARED: bool = false;

    /// Returns the presence of the instance at its address.
    fn presence(&self) -> &Arc<Presence>;

    fn address(&self) -> &Address {
        &self.presence().address
    }
}

impl AddressRule {
    /// Rule for the crate's own connections.
    pub(super) fn of(options: &CallOptions) -> Self {
        Self {
            ports: options.ports,
            port_key: options.port_key.clone(),
            can_tls: TlsSettings::SUPPORTED,
            prefers_plain: false,
            scheme: options.scheme,
            address: options.address,
            server_name: options.server_name.clone(),
        }
    }

    /// Rule for the service below an [`EurekaLayer`](super::EurekaLayer). Only the user knows
    /// whether it can speak TLS.
    pub(super) fn of_layer(options: &CallOptions) -> Self {
        Self { can_tls: true, prefers_plain: true, ..Self::of(options) }
    }

    /// Returns the address of an instance, or the reason why it cannot be called.
    pub(super) fn address(&self, instance: &Instance) -> Result<Address, &'static str> {
        let address = self.address_of_port(instance)?;
        match self.scheme {
            InstanceScheme::OfPort => Ok(address),
            InstanceScheme::Http => Ok(Address { scheme: Scheme::HTTP, ..address }),
            InstanceScheme::Https if !self.can_tls => Err("is to be called over HTTPS, which needs the feature `tls`"),
            InstanceScheme::Https => Ok(Address { scheme: Scheme::HTTPS, ..address }),
        }
    }

    /// Returns the address with the scheme of its port.
    fn address_of_port(&self, instance: &Instance) -> Result<Address, &'static str> {
        if let Some(port) = self.named_port(instance) {
            return self.address_at(instance, port);
        }
        let at = |scheme, port| Some(Address { scheme, authority: self.authority(instance, port?)? });
        let secure = || at(Scheme::HTTPS, instance.secure_port().usable());
        let plain = || match self.ports {
            // If both ports are marked disabled, the flags are ignored: Java callers use the plain
            // port.
            Ports::Auto => at(Scheme::HTTP, instance.port().usable().or_else(|| instance.disabled_plain_port())),
            _ => at(Scheme::HTTP, instance.port().usable()),
        };
        match self.ports {
            Ports::Plain => plain()
                .ok_or_else(|| no_port(instance.port(), "offers no plain HTTP port", "its plain port is disabled")),
            Ports::Secure if !self.can_tls => Err("is to be called over HTTPS, which needs the feature `tls`"),
            Ports::Secure => secure()
                .ok_or_else(|| no_port(instance.secure_port(), "offers no secure port", "its secure port is disabled")),
            Ports::Auto if self.prefers_plain => plain().or_else(secure).ok_or("offers no port"),
            Ports::Auto if self.can_tls => secure().or_else(plain).ok_or("offers no port"),
            Ports::Auto => plain().ok_or_else(|| match secure() {
                Some(_) => "offers no plain HTTP port, and HTTPS needs the feature `tls`",
                None => "offers no port",
            }),
        }
    }

    /// Returns the rules for connections to an instance that its address does not contain.
    pub(super) fn dial(&self, instance: &Instance) -> Dial {
        Dial {
            host: instance.host_name().map(Into::into),
            ip: instance.ip(),
            use_ip: match self.preference(instance) {
                InstanceAddress::Host => UseIp::Never,
                InstanceAddress::Ip => UseIp::Always,
                InstanceAddress::HostOrIp => UseIp::Unresolved,
            },
            server_name: self.server_name.as_ref().and_then(|ServerNameOf(name)| name(instance)),
            app: instance.app().into(),
        }
    }

    fn named_port(&self, instance: &Instance) -> Option<u16> {
        let port = instance.metadata().get(self.port_key.as_ref()?)?.trim().parse().ok()?;
        (port != 0).then_some(port)
    }

    /// Address at a port from the metadata.
    ///
    /// The port belongs to another server than the ports of the record, so the scheme follows the
    /// rule. Only with [`Ports::Auto`] the record decides.
    fn address_at(&self, instance: &Instance, port: u16) -> Result<Address, &'static str> {
        let has_plain = instance.port().usable().is_some();
        let scheme = match self.ports {
            Ports::Plain => Scheme::HTTP,
            Ports::Secure => Scheme::HTTPS,
            Ports::Auto if instance.secure_port().usable().is_none() => Scheme::HTTP,
            Ports::Auto if self.prefers_plain && has_plain => Scheme::HTTP,
            Ports::Auto if self.can_tls => Scheme::HTTPS,
            Ports::Auto if has_plain => Scheme::HTTP,
            Ports::Auto => Scheme::HTTPS,
        };
        if scheme == Scheme::HTTPS && !self.can_tls {
            return Err("is to be called over HTTPS, which needs the feature `tls`");
        }
        let authority = self.authority(instance, port).ok_or("offers no host")?;
        Ok(Address { scheme, authority })
    }

    /// Returns the host or IP address with this port.
    fn authority(&self, instance: &Instance, port: u16) -> Option<Authority> {
        let host = || authority(instance.host_name()?, ip_of(instance.host_name()?), port);
        let ip = || {
            let text = instance.ip_addr()?;
            // An unspecified address would connect to this machine.
            let is_unspecified = ip_of(text).is_some_and(|ip| ip.is_unspecified());
            if is_unspecified { None } else { authority(text, instance.ip(), port) }
        };
        match self.preference(instance) {
            InstanceAddress::Ip => ip().or_else(host),
            // A host name that no URL can contain does not resolve either.
            InstanceAddress::HostOrIp => host().or_else(ip),
            InstanceAddress::Host if instance.host_name().is_some() => host(),
            InstanceAddress::Host => ip(),
        }
    }

    /// Returns the address of an instance that is preferred. A loopback address does not replace a
    /// host name, since it would be the caller itself.
    fn preference(&self, instance: &Instance) -> InstanceAddress {
        let is_loopback = || instance.ip().is_some_and(|ip| ip.to_canonical().is_loopback());
        match self.address {
            InstanceAddress::HostOrIp if is_loopback() => InstanceAddress::Host,
            address => address,
        }
    }
}

/// Formats a host and a port. An IP address is normalized.
fn authority(host: &str, ip: Option<IpAddr>, port: u16) -> Option<Authority> {
    let host = ip.map_or_else(|| host_in_url(host), |ip| host_in_url(&ip.to_string()));
    format!("{host}:{port}").parse().ok()
}

impl Instance {
    /// Returns the URL at which callers reach the instance, such as `http://orders-1:8080/`. `None`
    /// if the instance has no such port, or no host that a URL can contain.
    ///
    /// The host is the host name, else the IP address. With [`Ports::Auto`], the secure port is
    /// preferred, as Spring callers do, also without the feature `tls`.
    pub fn uri(&self, ports: Ports) -> Option<Uri> {
        let rule = AddressRule { can_tls: true, ..AddressRule::of(&CallOptions::new().ports(ports)) };
        Some(rule.address(self).ok()?.uri_of(None))
    }
}

impl fmt::Debug for ServerNameOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerNameOf")
    }
}

/// Reason why a port is not called: it does not exist, or is marked disabled.
fn no_port(port: Port, none: &'static str, disabled: &'static str) -> &'static str {
    if port.enabled || port.number == 0 { none } else { disabled }
}

impl Address {
    /// Value of the `host` header. Omits the default port of the scheme.
    pub(super) fn host(&self) -> HeaderValue {
        let Self { scheme, authority } = self;
        let default_port = if *scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = match authority.port_u16().filter(|port| *port != default_port) {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_owned(),
        };
        HeaderValue::try_from(host).expect("authority is a valid header value")
    }

    /// Returns the URI of a path at this address. Defaults to the root path.
    pub(super) fn uri_of(&self, path: Option<&PathAndQuery>) -> Uri {
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(self.scheme.clone()), Some(self.authority.clone()));
        parts.path_and_query = Some(path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        Uri::from_parts(parts).expect("scheme, authority and path form a URI")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(ports: Ports, can_tls: bool) -> AddressRule {
        AddressRule { can_tls, ..AddressRule::of(&CallOptions::new().ports(ports).port_key("gRPC_port")) }
    }

    fn address(rule: &AddressRule, instance: &Instance) -> String {
        match rule.address(instance) {
            Ok(Address { scheme, authority }) => format!("{scheme}://{authority}"),
            Err(reason) => reason.to_owned(),
        }
    }

    #[test]
    fn address_follows_the_ports_and_the_port_key() {
        let both = Instance::builder("a").host_name("h").ip_addr("10.0.0.1").port(80).secure_port(443).build().unwrap();
        let plain_one = Instance::builder("a").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        let named = Instance::builder("a").ip_addr("::1").port(80).metadata("gRPC_port", " 9090 ").build().unwrap();
        let secure = Instance::builder("a").host_name("h").ip_addr("10.0.0.1").secure_port(443);
        let named_secure = secure.metadata("gRPC_port", "9090").build().unwrap();
        let port = |number, enabled| Port { number, enabled };
        let with_ports = |plain, secure| Instance { port: plain, secure_port: secure, ..plain_one.clone() };
        let (off, zero) = (with_ports(port(80, false), port(443, false)), with_ports(port(0, false), port(443, false)));
        for (ports, can_tls, instance, expected) in [
            (Ports::Auto, true, &off, "http://h:80"),
            (Ports::Auto, false, &off, "http://h:80"),
            (Ports::Plain, true, &off, "its plain port is disabled"),
            (Ports::Secure, true, &off, "its secure port is disabled"),
            (Ports::Auto, true, &zero, "offers no port"),
            (Ports::Auto, true, &both, "https://h:443"),
            (Ports::Auto, false, &both, "http://h:80"),
            (Ports::Auto, true, &plain_one, "http://h:80"),
            (Ports::Plain, true, &both, "http://h:80"),
            (Ports::Secure, true, &both, "https://h:443"),
            (Ports::Secure, true, &plain_one, "its secure port is disabled"),
            (Ports::Secure, false, &both, "is to be called over HTTPS, which needs the feature `tls`"),
            (Ports::Auto, true, &named, "http://[::1]:9090"),
            (Ports::Secure, true, &named, "https://[::1]:9090"),
            (Ports::Secure, false, &named, "is to be called over HTTPS, which needs the feature `tls`"),
            (Ports::Auto, true, &named_secure, "https://h:9090"),
            (Ports::Auto, false, &named_secure, "is to be called over HTTPS, which needs the feature `tls`"),
            (Ports::Plain, false, &named_secure, "http://h:9090"),
        ] {
            assert_eq!(address(&rule(ports, can_tls), instance), expected);
        }
    }

    #[test]
    fn scheme_replaces_that_of_the_port() {
        let plain = Instance::builder("a").ip_addr("10.0.0.1").port(80).build().unwrap();
        let secure = Instance::builder("a").ip_addr("10.0.0.1").secure_port(443).build().unwrap();
        for (scheme, can_tls, instance, expected) in [
            (InstanceScheme::OfPort, true, &plain, "http://10.0.0.1:80"),
            (InstanceScheme::Https, true, &plain, "https://10.0.0.1:80"),
            (InstanceScheme::Http, true, &secure, "http://10.0.0.1:443"),
            (InstanceScheme::Https, false, &plain, "is to be called over HTTPS, which needs the feature `tls`"),
        ] {
            let rule = AddressRule { scheme, ..rule(Ports::Auto, can_tls) };
            assert_eq!(address(&rule, instance), expected, "{scheme:?}");
        }
    }

    #[test]
    fn host_of_an_address_follows_the_rule() {
        use InstanceAddress::{Host, HostOrIp, Ip};
        let instance = |host: &str, ip: &str| {
            let mut instance = Instance::builder("a").ip_addr("10.0.0.1").port(80).build().unwrap();
            (instance.host_name, instance.ip_addr) = (Some(host.into()), Some(ip.into()));
            instance
        };
        for (host, ip, address_rule, expected) in [
            ("h", "10.0.0.1", HostOrIp, "http://h:80"),
            ("h", "10.0.0.1", Host, "http://h:80"),
            ("h", "10.0.0.1", Ip, "http://10.0.0.1:80"),
            ("h", "", Ip, "http://h:80"),
            ("h", "0.0.0.0", Ip, "http://h:80"),
            ("", "10.0.0.1", Host, "http://10.0.0.1:80"),
            ("my_service", "10.0.0.1", HostOrIp, "http://my_service:80"),
            ("a b", "10.0.0.1", HostOrIp, "http://10.0.0.1:80"),
            ("a b", "10.0.0.1", Host, "offers no port"),
            ("a b", "127.0.0.1", HostOrIp, "offers no port"),
            ("", "127.0.0.1", HostOrIp, "http://127.0.0.1:80"),
            ("", "", HostOrIp, "offers no port"),
            ("fd00:0:0:0:0:0:0:1%eth0", "", HostOrIp, "http://[fd00::1]:80"),
            ("[fd00::1]", "10.0.0.1", HostOrIp, "http://[fd00::1]:80"),
            ("h", "fe80:0:0:0:42:acff:fe11:2%2", Ip, "http://[fe80::42:acff:fe11:2]:80"),
        ] {
            let rule = AddressRule { address: address_rule, ..rule(Ports::Auto, true) };
            assert_eq!(address(&rule, &instance(host, ip)), expected, "{host} {ip} {address_rule:?}");
        }
    }

    #[test]
    fn loopback_address_does_not_replace_an_unresolvable_host_name() {
        let rule = AddressRule { address: InstanceAddress::HostOrIp, ..rule(Ports::Auto, true) };
        for (ip, use_ip) in
            [("10.0.0.1", UseIp::Unresolved), ("127.0.1.1", UseIp::Never), ("::ffff:127.0.0.1", UseIp::Never)]
        {
            let instance = Instance::builder("a").host_name("h").ip_addr(ip).port(80).build().unwrap();
            assert_eq!(rule.dial(&instance).use_ip, use_ip, "{ip}");
        }
    }

    #[test]
    fn uri_of_an_instance_follows_the_ports() {
        let instance = Instance::builder("a").host_name("h").ip_addr("10.0.0.1").port(80).secure_port(8443);
        let instance = instance.build().unwrap();
        let uri = |ports| instance.uri(ports).map(|uri| uri.to_string());
        assert_eq!(uri(Ports::Auto).as_deref(), Some("https://h:8443/"));
        assert_eq!(uri(Ports::Plain).as_deref(), Some("http://h:80/"));
        let instance = Instance::builder("a").ip_addr("::1").port(80).build().unwrap();
        assert_eq!(instance.uri(Ports::Auto).unwrap(), "http://[::1]:80/");
        assert_eq!(instance.uri(Ports::Secure), None);
    }

    #[test]
    fn host_header_omits_the_default_port() {
        for (scheme, authority, host) in [
            (Scheme::HTTP, "h:80", "h"),
            (Scheme::HTTPS, "h:443", "h"),
            (Scheme::HTTP, "h:443", "h:443"),
            (Scheme::HTTPS, "[::1]:8443", "[::1]:8443"),
            (Scheme::HTTP, "[::1]:80", "[::1]"),
        ] {
            assert_eq!(Address { scheme, authority: Authority::from_static(authority) }.host(), host);
        }
    }

    #[test]
    fn uri_at_an_address_keeps_the_path() {
        for (uri, expected) in [
            ("http://orders/a?b=1", "https://h:1/a?b=1"),
            ("/pkg.S/M", "https://h:1/pkg.S/M"),
            ("http://orders", "https://h:1/"),
        ] {
            let address = Address { scheme: Scheme::HTTPS, authority: Authority::from_static("h:1") };
            assert_eq!(address.uri_of(uri.parse::<Uri>().unwrap().path_and_query()), expected);
        }
    }
}
