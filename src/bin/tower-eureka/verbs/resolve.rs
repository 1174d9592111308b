//! Addresses of host names.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::net::lookup_host;
use tower_eureka::client::Resolved;

/// Looks up the addresses of a host name. `localhost` is this machine (RFC 6761): an image without
/// `/etc/hosts` would ask its name server for it.
pub(super) async fn resolve(host: String) -> io::Result<Resolved> {
    if is_localhost(&host) {
        return Ok(Resolved::new([Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)]));
    }
    let addresses = lookup_host((host, 0)).await?;
    Ok(Resolved::new(addresses.map(|address| address.ip())))
}

/// Returns true for `localhost` and the names below it.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_this_machine_without_a_name_server() {
        let loopback = Resolved::new([IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()]);
        for host in ["localhost", "LOCALHOST", "localhost.", "registry.localhost"] {
            assert_eq!(resolve(host.into()).await.unwrap(), loopback, "{host}");
        }
        for host in ["", ".", "localhost.example", "mylocalhost", "localhost.localdomain"] {
            assert!(!is_localhost(host), "{host}");
        }
    }
}
