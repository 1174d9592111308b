use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Returns the host name of an address, by a reverse look-up of the operating system. Returns
/// `None` if it has none, or if the name does not resolve to the address, as in Java.
///
/// Blocks for as long as the resolver takes.
pub(crate) fn name_of(ip: IpAddr) -> Option<String> {
    let name = dns_lookup::lookup_addr(&ip).ok()?;
    let name = name.trim_end_matches('.');
    let is_name = !name.is_empty() && name.parse::<IpAddr>().is_err() && !super::is_loopback(name);
    (is_name && addresses_of(name).contains(&ip)).then(|| name.to_owned())
}

/// Returns the addresses of a host name, none if it does not resolve.
///
/// Blocks for as long as the resolver takes.
pub(crate) fn addresses_of(name: &str) -> Vec<IpAddr> {
    (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

/// Returns the [host name](name_of) of an address. Blocks at most for this time. The look-up runs
/// on a thread of its own, which a slow resolver may keep for longer.
pub(crate) fn name_within(ip: IpAddr, limit: Duration) -> Option<String> {
    let (done, result) = mpsc::channel();
    let spawned = thread::Builder::new().name("eureka-names".into()).spawn(move || {
        // The caller may have stopped waiting.
        let _ = done.send(name_of(ip));
    });
    spawned.ok()?;
    result.recv_timeout(limit).ok().flatten()
}
