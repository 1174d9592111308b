//! Address to listen on.

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
/// Maximum number of connections that wait to be accepted. tokio's listeners have the same.
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
        let (host, port) = match text.rsplit_once(':') {
            Some(("", port)) => (EVERYWHERE.to_owned(), port),
            Some((host, port)) => (host_of(host)?, port),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => (EVERYWHERE.to_owned(), text),
            None => return Err("expected PORT, :PORT or HOST:PORT".into()),
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

/// Returns the address to listen on: that of `--listen`, else that of a Spring server's settings.
pub(crate) fn address(listen: Option<&Address>, settings: &Settings) -> Result<Address, Box<dyn std::error::Error>> {
    let names = ["server.port", "server.address"];
    if let Some(listen) = listen {
        for source in names.iter().filter_map(|name| settings.source(name)) {
            tracing::warn!("{source} is ignored: --listen takes precedence");
        }
        return Ok(listen.clone());
    }
    let invalid = |name: &str, value: &str, why: String| {
        format!("{} is '{value}': {why}", settings.source(name).unwrap_or_else(|| name.to_owned()))
    };
    let [port, host] = names.map(|name| settings.get(name));
    let (port, host) = (port?, host?);
    let default = if port.is_some() { EVERYWHERE } else { LOOPBACK };
    let host = match host {
        None => default.to_owned(),
        Some(value) => match value.parse::<Ipv6Addr>() {
            Ok(address) => address.to_string(),
            Err(_) => host_of(&value).map_err(|why| invalid("server.address", &value, why))?,
        },
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(value) => port_of(&value).map_err(|why| invalid("server.port", &value, why))?,
    };
    Ok(Address { host, port })
}
