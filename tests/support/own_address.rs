//! Address of this machine at which others could reach it.

use std::net::IpAddr;

use tower_eureka::Instance;

/// Returns an address of this machine that is not a loopback address. A loopback address in a
/// record is not called instead of a host name.
pub(crate) fn own_address() -> IpAddr {
    let detected = Instance::builder("test").port(80).build().expect("instance is valid");
    let ip: IpAddr = detected.ip_addr().expect("an address is detected").parse().expect("it is an IP address");
    assert!(!ip.is_loopback(), "the test needs a network interface besides the loopback one");
    ip
}
