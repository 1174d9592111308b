//! Hosts and ports of URIs.

use http::Uri;
use http::uri::Scheme;

/// Returns the port of a URI. Defaults to that of its scheme.
pub(crate) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 })
}

/// Returns a host without the brackets that an IPv6 address has in a URI.
pub(super) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
