//! Values that Spring provides without a source.

use std::net::UdpSocket;

use super::Settings;
use super::names::uniform;

/// Returns the address of all interfaces: `::` where it includes those of IPv4.
pub(super) fn all_interfaces() -> &'static str {
    // Other systems separate the families by default.
    let is_dual = cfg!(target_os = "linux") && UdpSocket::bind("[::]:0").is_ok();
    if is_dual { "::" } else { "0.0.0.0" }
}

/// Returns the value of a placeholder that no source has.
pub(super) fn value(settings: &Settings, name: &str) -> Option<String> {
    match &*uniform(name) {
        "spring.cloud.client.hostname" => settings.host_name(),
        "spring.cloud.client.ipaddress" => super::instance::ip_address(settings),
        _ => None,
    }
}
