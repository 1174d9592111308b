use std::net::IpAddr;

use http::Uri;

use super::InvalidInstance;
use super::error::Fault;

/// Refuses the name of an application that is reserved or unfit for a URL path.
pub(crate) fn check_app(app: &str) -> Result<(), InvalidInstance> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if app.is_empty() || !app.chars().all(is_allowed) {
        return Err(InvalidInstance::new(app, Fault::BadName));
    }
    // These are paths and cache keys of the Java server, which registers no application of that
    // name.
    if ["DELTA", "ALL_APPS", "ALL_APPS_DELTA"].iter().any(|reserved| app.eq_ignore_ascii_case(reserved)) {
        return Err(InvalidInstance::new(app, Fault::ReservedName));
    }
    Ok(())
}

/// Returns `true` if an id is fit for a URL path.
pub(super) fn is_usable_id(id: &str) -> bool {
    !(id.is_empty() || id.contains(['/', '\\']) || id.chars().any(char::is_control))
}

/// Parses an address that callers can connect to. IPv4 in the form of IPv6 is returned as IPv4.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, &'static str> {
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        return Err("its zone after the % has a meaning on this machine only, use an address without one");
    }
    let ip = text.parse::<IpAddr>().map_err(|_| "it is neither IPv4 nor IPv6")?;
    check_address(ip)
}

/// Refuses an address that no caller can connect to. IPv4 in the form of IPv6 is returned as IPv4.
pub(crate) fn check_address(ip: IpAddr) -> Result<IpAddr, &'static str> {
    let ip = ip.to_canonical();
    match ip {
        // All of 0.0.0.0/8 means "this network".
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Err(ALL_ADDRESSES),
        IpAddr::V6(v6) if v6.is_unspecified() => Err(ALL_ADDRESSES),
        IpAddr::V4(v4) if v4.is_broadcast() => Err("it is the broadcast address, no instance has it"),
        _ if ip.is_multicast() => Err("it is a multicast address, no instance has it"),
        _ => Ok(ip),
    }
}

const ALL_ADDRESSES: &str =
    "a listener has it to accept connections at all addresses, leave it out to register the detected one";

/// Refuses a host that is unfit for a URL.
pub(super) fn check_host(host: &str) -> Result<(), &'static str> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.split('%').next().is_some_and(|address| address.parse::<IpAddr>().is_ok()) {
        return parse_address(bare).map(drop);
    }
    if host.contains("://") {
        return Err("it is a URL, use the host name alone");
    }
    if host.contains(':') {
        return Err("it has a port, pass that to port()");
    }
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@[]\\$%{}<>\"|^`".contains(c))
    {
        return Err("it is not a host name");
    }
    Ok(())
}

/// Refuses a URL that is not absolute or has an invalid port.
pub(super) fn check_url(url: &str) -> Result<(), &'static str> {
    let unusable = "it is not an absolute URL like http://host:8080/health";
    let uri: Uri = url.parse().map_err(|_| unusable)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(unusable);
    }
    let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(unusable)?;
    let bare = authority.host().trim_matches(['[', ']']);
    if let Ok(ip) = bare.parse() {
        check_address(ip)?;
    }
    let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    match host.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') && !port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Err("its port is not a number from 1 to 65535")
        }
        _ => Ok(()),
    }
}

/// Refuses a path that is unfit for a URL.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.contains("://") {
        return Err("it is a URL, use the path alone");
    }
    let with_slash = format!("/{}", path.trim_start_matches('/'));
    match with_slash.parse::<Uri>() {
        Ok(_) if !path.contains('#') => Ok(()),
        _ => Err("it is not a path like /health"),
    }
}
