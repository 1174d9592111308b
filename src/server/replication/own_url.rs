//! Recognition of this node's own URL by its text.

use http::Uri;

use crate::config::ServiceUrl;

/// The URL of this node, as far as it is known.
#[derive(Clone, Debug)]
pub(super) struct OwnUrl<'a> {
    pub(super) url: Option<&'a str>,
    /// Host name and IP address.
    pub(super) hosts: [&'a str; 2],
    pub(super) port: Option<u16>,
}

impl OwnUrl<'_> {
    /// Returns true if a URL is this node's. Host and port have to match, the host without regard
    /// to case. Java compares the host alone, so two nodes on one host drop each other there.
    pub(super) fn matches(&self, url: &ServiceUrl) -> bool {
        if let Some(mine) = self.url {
            return ServiceUrl::parse_list(mine)
                .is_ok_and(|mine| mine.iter().any(|mine| mine.as_str() == url.as_str()));
        }
        let Ok(uri) = url.as_str().parse::<Uri>() else { return false };
        let port = uri.port_u16().unwrap_or(if url.is_secure() { 443 } else { 80 });
        uri.host().is_some_and(|host| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
            && self.port.is_none_or(|own| own == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_url_is_recognised_by_host_and_port() {
        let url = |text: &str| ServiceUrl::parse_list(text).unwrap().remove(0);
        let own = OwnUrl { url: None, hosts: ["node1", "10.0.0.1"], port: Some(8761) };
        for (text, expected) in [
            ("http://node1:8761/eureka/", true),
            ("http://user:password@node1:8761/eureka", true),
            ("http://10.0.0.1:8761/eureka", true),
            ("http://node1:8762/eureka/", false),
            ("http://node1/eureka/", false),
            ("http://Node1:8761/eureka/", true),
            ("http://node2:8761/eureka/", false),
        ] {
            assert_eq!(own.matches(&url(text)), expected, "{text}");
        }
        assert!(
            OwnUrl { port: None, ..own.clone() }.matches(&url("http://node1:8762/")),
            "without a port the host decides"
        );
        let capital = OwnUrl { hosts: ["Node1", "10.0.0.1"], ..own.clone() };
        assert!(capital.matches(&url("http://node1:8761/eureka/")));
        let named = OwnUrl { url: Some("http://LB:80/eureka"), ..own };
        assert!(named.matches(&url("http://lb/eureka/")) && !named.matches(&url("http://node1:8761/eureka/")));
    }
}
