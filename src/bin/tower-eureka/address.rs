//! Addresses to listen on.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use tower_eureka::Settings;

/// Default host. A registry without access control is reachable from this machine only, unless it
/// is configured otherwise.
const LOOPBACK: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 8761;
/// Host if only a port is configured: all interfaces of both families, as on a Spring server.
const EVERYWHERE: &str = "::";
/// Maximum number of connections that wait to be accepted, until the library sets its own.
const BACKLOG: i32 = 1024;

/// Address to listen on. The host may be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let is_bracketed = text.starts_with('[') && text.ends_with(']');
        let (host, port) = match text.rsplit_once(':').filter(|_| !is_bracketed) {
            Some(("", port)) => (EVERYWHERE.to_owned(), port),
            Some((host, port)) => (host_of(host)?, port),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => (EVERYWHERE.to_owned(), text),
            None => return Ok(Self { host: host_of(text)?, port: DEFAULT_PORT }),
        };
        Ok(Self { host, port: port_of(port)? })
    }
}

impl Address {
    /// Binds a listener. The address `::` includes all IPv4 interfaces, and means only these on a
    /// system without IPv6.
    pub(crate) async fn bind(&self) -> io::Result<TcpListener> {
        if self.host.parse() != Ok(Ipv6Addr::UNSPECIFIED) {
            return TcpListener::bind((&*self.host, self.port)).await;
        }
        match both_families(self.port) {
            // No fallback to IPv4, which would be half of the requested interfaces.
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                Err(error)
            }
            Err(error) => {
                tracing::info!(%error, "IPv6 is not available, listening on all IPv4 interfaces");
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)).await
            }
            listener => listener,
        }
    }
}

/// Binds a listener on all interfaces of IPv6 and IPv4, independently of the system's default for
/// IPv6 sockets.
fn both_families(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    // Set by tokio's listeners, too. The option has another meaning on Windows.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn port_of(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| "expected a port, 0 to 65535".to_owned())
}

/// Parses a host name or an address. Removes the brackets of an IPv6 address.
fn host_of(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(address) if address.parse::<Ipv6Addr>().is_ok() => return Ok(address.into()),
        Some(_) => return Err("expected an IPv6 address in the brackets".into()),
        None if text.contains(':') => return Err("expected brackets around an IPv6 address: [::1]:8761".into()),
        None => {}
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("expected a host name or an address".into());
    }
    Ok(text.into())
}

/// Addresses of the listeners.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) traffic: Address,
    /// `None` if the management endpoints are served on the address of the traffic.
    pub(crate) management: Option<Management>,
}

/// Listener of the management endpoints.
#[derive(Debug)]
pub(crate) struct Management {
    pub(crate) address: Address,
    /// `true` for plain HTTP, although the traffic has TLS.
    pub(crate) is_plain: bool,
}

const PORT: &str = "server.port";
const ADDRESS: &str = "server.address";
const MANAGEMENT_PORT: &str = "management.server.port";
const MANAGEMENT_ADDRESS: &str = "management.server.address";
const MANAGEMENT_SSL: &str = "management.server.ssl.enabled";

type Error = Box<dyn std::error::Error>;

/// Returns the addresses to listen on: that of `--listen`, else that of a Spring server's settings,
/// and that of the management endpoints.
pub(crate) fn addresses(listen: Option<&Address>, settings: &Settings) -> Result<Addresses, Error> {
    let traffic = traffic(listen, settings)?;
    let port = parsed(settings, MANAGEMENT_PORT, port_of)?;
    let is_plain = parsed(settings, MANAGEMENT_SSL, is_off)?.unwrap_or(false);
    // Port 0 selects another free port, so it is never the one of the traffic.
    let Some(port) = port.filter(|&port| port == 0 || port != traffic.port) else {
        let is_set = settings.get(MANAGEMENT_ADDRESS)?.is_some();
        if let Some(source) = settings.source(MANAGEMENT_ADDRESS).filter(|_| is_set) {
            return Err(format!("{source} has no effect without {MANAGEMENT_PORT} of its own: set that as well").into());
        }
        return Ok(Addresses { traffic, management: None });
    };
    let host = parsed(settings, MANAGEMENT_ADDRESS, bare_host)?.unwrap_or_else(|| traffic.host.clone());
    Ok(Addresses { traffic, management: Some(Management { address: Address { host, port }, is_plain }) })
}

/// Parses the value of a setting, if it has one. An error has the source of the setting.
fn parsed<T>(
    settings: &Settings,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    let Some(value) = settings.get(name)? else { return Ok(None) };
    let invalid = |why| {
        let source = settings.source(name).unwrap_or_else(|| name.to_owned());
        format!("{source} is '{value}': {why}").into()
    };
    parse(&value).map(Some).map_err(invalid)
}

/// Returns `true` for a switch that is off. An empty one is on.
fn is_off(text: &str) -> Result<bool, String> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("false") => Ok(true),
        text if text.is_empty() || text.eq_ignore_ascii_case("true") => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

/// Parses a host name or an address, without brackets around an IPv6 address.
fn bare_host(text: &str) -> Result<String, String> {
    text.parse::<Ipv6Addr>().map_or_else(|_| host_of(text), |address| Ok(address.to_string()))
}

fn traffic(listen: Option<&Address>, settings: &Settings) -> Result<Address, Error> {
    if let Some(listen) = listen {
        for source in [PORT, ADDRESS].iter().filter_map(|name| settings.source(name)) {
            tracing::warn!("{source} is ignored: --listen or TOWER_EUREKA_LISTEN takes precedence");
        }
        return Ok(listen.clone());
    }
    let host = parsed(settings, ADDRESS, bare_host)?;
    let port = parsed(settings, PORT, port_of)?;
    let default = if port.is_some() { EVERYWHERE } else { LOOPBACK };
    Ok(Address { host: host.unwrap_or_else(|| default.to_owned()), port: port.unwrap_or(DEFAULT_PORT) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_a_port_a_host_or_both() {
        for (text, host, port) in [
            ("8080", "::", 8080),
            (":8080", "::", 8080),
            ("localhost", "localhost", 8761),
            ("10.0.0.1", "10.0.0.1", 8761),
            ("[::1]", "::1", 8761),
            ("[::1]:8080", "::1", 8080),
            (" eureka-0.eureka:8080 ", "eureka-0.eureka", 8080),
        ] {
            assert_eq!(text.parse(), Ok(Address { host: host.into(), port }), "{text}");
        }
        for text in ["::1", "a b", "http://localhost:8761", "[x]", ""] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    fn management(settings: &[(&str, &str)]) -> Result<Option<String>, String> {
        let builder = Settings::builder().environment([("", ""); 0]).without_files();
        let arguments = settings.iter().map(|(name, value)| format!("--{name}={value}"));
        let settings = builder.arguments(arguments).load().unwrap();
        let addresses = addresses(None, &settings).map_err(|error| error.to_string())?;
        Ok(addresses.management.map(|it| format!("{}{}", it.address, if it.is_plain { " plain" } else { "" })))
    }

    #[test]
    fn management_endpoints_have_a_listener_if_their_port_differs() {
        let traffic = ("server.port", "8761");
        for (settings, expected) in [
            (&[][..], None),
            (&[(MANAGEMENT_PORT, "")], None),
            (&[traffic, (MANAGEMENT_PORT, "8761")], None),
            (&[traffic, (MANAGEMENT_PORT, "9001")], Some("[::]:9001")),
            (&[(MANAGEMENT_PORT, "0")], Some("127.0.0.1:0")),
            (&[traffic, (MANAGEMENT_PORT, "1"), (MANAGEMENT_ADDRESS, "::1")], Some("[::1]:1")),
            (&[traffic, (MANAGEMENT_PORT, "1"), (MANAGEMENT_SSL, "false")], Some("[::]:1 plain")),
        ] {
            assert_eq!(management(settings), Ok(expected.map(str::to_owned)), "{settings:?}");
        }
    }

    #[test]
    fn management_setting_without_a_meaning_is_an_error() {
        for (settings, expected) in [
            (&[(MANAGEMENT_ADDRESS, "::1")][..], "has no effect without management.server.port"),
            (&[(MANAGEMENT_PORT, "x")], "expected a port"),
            (&[(MANAGEMENT_PORT, "1"), (MANAGEMENT_ADDRESS, "a b")], "expected a host name"),
            (&[(MANAGEMENT_PORT, "1"), (MANAGEMENT_SSL, "maybe")], "expected true or false"),
        ] {
            let error = management(settings).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
