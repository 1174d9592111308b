use std::net::Ipv6Addr;

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

/// Refuses a host that is unfit for a URL.
pub(super) fn check_host(host: &str) -> Result<(), &'static str> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Ok(());
    }
    if host.contains("://") {
        return Err("it is a URL, use the host name alone");
    }
    if host.contains(':') {
        return Err("it has a port, pass that to port()");
    }
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@[]\\".contains(c)) {
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
