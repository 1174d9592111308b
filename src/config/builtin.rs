//! Values that Spring provides without a source.

use std::net::UdpSocket;

use super::Settings;
use super::names::{relaxed, uniform};
use super::value::Unit;
use crate::model::HOST_PLACEHOLDER;

/// Settings with the URL of a page, in which `${eureka.hostname}` is the registered host name.
const PAGES: [&str; 8] = [
    "eureka.instance.home-page-url",
    "eureka.instance.status-page-url",
    "eureka.instance.health-check-url",
    "eureka.instance.secure-health-check-url",
    "eureka.homePageUrl",
    "eureka.statusPageUrl",
    "eureka.healthCheckUrl",
    "eureka.secureHealthCheckUrl",
];

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

/// Returns the placeholder of the builder of an instance for `${NAMESPACE.hostname}` in the URL of
/// a page. The namespace is `eureka` unless `eureka.instance.namespace` is set.
pub(super) fn host_of_page(settings: &Settings, setting: &str, name: &str) -> Option<String> {
    let namespace = || settings.find("eureka.instance.namespace", Unit::Text).ok().flatten();
    let is_host = |namespace: &str| name.strip_prefix(namespace.trim_end_matches('.')) == Some(".hostname");
    let is_page = PAGES.iter().any(|page| relaxed(page) == relaxed(setting));
    let is_placeholder = is_page && namespace().map_or_else(|| is_host("eureka"), |set| is_host(set.text()));
    is_placeholder.then(|| HOST_PLACEHOLDER.to_owned())
}
