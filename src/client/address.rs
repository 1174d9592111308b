use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use super::options::{CallOptions, InstanceScheme, Ports};
use super::presence::Presence;
use crate::connect::TlsSettings;
use crate::model::{Instance, Port};

/// Scheme, host and port of an instance. With TLS, the certificate must be valid for the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

/// Rule by which an instance's address is chosen from its ports.
#[derive(Clone, Debug)]
pub(super) struct AddressRule {
    pub(super) ports: Ports,
    pub(super) port_key: Option<Arc<str>>,
    /// `true` if this build, or the service below, can speak TLS.
    pub(super) can_tls: bool,
    /// `true` if [`Ports::Auto`] prefers the plain port.
    pub(super) prefers_plain: bool,
    pub(super) scheme: InstanceScheme,
}

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
        let plain = || instance.http_authority().map(|authority| Address { scheme: Scheme::HTTP, authority });
        let secure = || instance.https_authority().map(|authority| Address { scheme: Scheme::HTTPS, authority });
        // If both ports are marked disabled, the flags are ignored: Java callers use the plain
        // port.
        let plain = || match self.ports {
            Ports::Auto => plain().or_else(|| {
                let authority = instance.authority_at(instance.disabled_plain_port()?)?;
                Some(Address { scheme: Scheme::HTTP, authority })
            }),
            _ => plain(),
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

    fn named_port(&self, instance: &Instance) -> Option<u16> {
        let port = instance.metadata().get(self.port_key.as_ref()?)?.trim().parse().ok()?;
        (port != 0).then_some(port)
    }

    /// Address at a port from the metadata.
    ///
    /// The port belongs to another server than the ports of the record, so the scheme follows the
    /// rule. Only with [`Ports::Auto`] the record decides.
    fn address_at(&self, instance: &Instance, port: u16) -> Result<Address, &'static str> {
        let scheme = match self.ports {
            Ports::Plain => Scheme::HTTP,
            Ports::Secure => Scheme::HTTPS,
            Ports::Auto if instance.https_authority().is_none() => Scheme::HTTP,
            Ports::Auto if self.prefers_plain && instance.http_authority().is_some() => Scheme::HTTP,
            Ports::Auto if self.can_tls => Scheme::HTTPS,
            Ports::Auto if instance.http_authority().is_some() => Scheme::HTTP,
            Ports::Auto => Scheme::HTTPS,
        };
        if scheme == Scheme::HTTPS && !self.can_tls {
            return Err("is to be called over HTTPS, which needs the feature `tls`");
        }
        let authority = instance.authority_at(port).ok_or("offers no host")?;
        Ok(Address { scheme, authority })
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
        let port_key = Some("gRPC_port".into());
        AddressRule { ports, port_key, can_tls, prefers_plain: false, scheme: InstanceScheme::OfPort }
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
