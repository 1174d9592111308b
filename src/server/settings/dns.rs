use std::net::SocketAddr;

use crate::transport::DnsUrls;

/// DNS records that list the peers.
///
/// The TXT record `txt.<region>.<domain>` holds the names of zones, `<zone>.<anything>`. The record
/// `txt.` before such a name holds the hosts of the zone's servers. All servers have the same port
/// and path. If a record cannot be resolved, the last list remains in use.
///
/// ```
/// use tower_eureka::server::{Dns, Peers};
///
/// let peers = Peers::new().dns(Dns::new("example.com", 8761).context("eureka"));
/// # let _ = peers;
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
#[must_use]
pub struct Dns(pub(super) DnsUrls);

impl Dns {
    /// Creates the settings for the records below a domain, and servers at a port.
    ///
    /// Spring `eureka.client.eureka-server-d-n-s-name` and `eureka.client.eureka-server-port`,
    /// Netflix `eureka.eurekaServer.domainName` and `eureka.eurekaServer.port`.
    pub fn new(domain: impl Into<String>, port: u16) -> Self {
        Self(DnsUrls { domain: domain.into(), port, ..DnsUrls::default() })
    }

    /// Sets the path on the servers, such as `eureka`. Defaults to no path.
    ///
    /// Spring `eureka.client.eureka-server-u-r-l-context`, Netflix `eureka.eurekaServer.context`.
    pub fn context(mut self, path: impl Into<String>) -> Self {
        self.0.context = path.into();
        self
    }

    /// Sets the name server. Defaults to the name servers of the system.
    pub fn name_server(mut self, server: SocketAddr) -> Self {
        self.0.server = Some(server);
        self
    }
}
