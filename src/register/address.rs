use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::model::{Instance, is_loopback, route_towards};
use crate::transport::Transport;

/// Bound of the look-up of the registry's address before the first registration.
const LOOKUP_TIME: Duration = Duration::from_secs(1);

/// The instance with the address by which it reaches the registry, which is the network that its callers are in. `None` where the
/// user gave an address, or where there is no better one.
///
/// Logs a warning if other machines cannot reach the instance though the registry is on another one.
pub(super) async fn towards_registry(transport: &Transport, instance: &Instance) -> Option<Instance> {
    let hosts = transport.hosts();
    let mut found = None;
    if instance.is_address_found() {
        let remote = hosts.iter().filter(|(host, _)| !is_loopback(host));
        // The first server is enough: a name that cannot be looked up is not worth more waiting.
        if let Some((host, port)) = remote.into_iter().next() {
            let addresses = look_up(host, *port, transport.looks_up_names()).await;
            found = addresses.into_iter().find_map(route_towards).and_then(|ip| moved(instance, ip));
        }
    }
    let registered = found.as_ref().unwrap_or(instance);
    let reached_by = [registered.host_name(), registered.ip_addr()];
    if reached_by.into_iter().flatten().any(is_loopback)
        && let Some((registry, _)) = hosts.iter().find(|(host, _)| !is_loopback(host))
    {
        tracing::warn!(
            app = registered.app(),
            instance = registered.id(),
            registry,
            "registering a loopback address, by which other machines do not reach this one; set ip_addr() or EUREKA_INSTANCE_IPADDRESS"
        );
    }
    found
}

/// The addresses of a host; none if they are not known in time. Names are looked up only if `names`.
async fn look_up(host: &str, port: u16, names: bool) -> Vec<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return vec![SocketAddr::from((ip, port))];
    }
    if !names {
        return Vec::new();
    }
    match timeout(LOOKUP_TIME, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        _ => Vec::new(),
    }
}

/// The instance with this address; `None` if it has it already.
fn moved(instance: &Instance, ip: IpAddr) -> Option<Instance> {
    let ip = ip.to_string();
    (instance.ip_addr() != Some(&*ip)).then(|| instance.with_address(&ip))
}
