use std::net::SocketAddr;

/// DNS records that list registry servers, for a client or for the peers of a server.
///
/// The TXT record `txt.<region>.<domain>` holds the names of zones, `<zone>.<anything>`. The record
/// `txt.` before such a name, or else the record of the name itself, holds the hosts of the zone's
/// servers. All servers have the same port and path. If a record cannot be resolved, the last list
/// remains in use.
///
/// ```
/// use tower_eureka::{DnsServers, Eureka};
///
/// let servers = DnsServers::new("example.com", 8761).context("eureka");
/// let eureka = Eureka::builder().region("eu-west-1").dns(servers).build()?;
/// # Ok::<_, tower_eureka::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
#[cfg_attr(not(feature = "dns"), allow(dead_code, reason = "settings are read without the feature as well"))]
#[must_use]
pub struct DnsServers {
    pub(crate) domain: String,
    pub(crate) port: u16,
    /// Path on each server, with or without slashes around it.
    pub(crate) context: String,
    pub(crate) https: bool,
    /// True if the domain is the name of an SRV record.
    pub(crate) is_srv: bool,
    /// Name server that is used instead of those of the system.
    pub(crate) name_server: Option<SocketAddr>,
}

impl DnsServers {
    /// Creates the settings for servers whose host names are in the TXT records below this domain,
    /// such as `txt.us-east-1.example.com`. All are called at this port, over HTTP unless
    /// [`https`](Self::https) is set.
    ///
    /// Spring `eureka.client.eureka-server-d-n-s-name` and `eureka.client.eureka-server-port`,
    /// Netflix `eureka.eurekaServer.domainName` and `eureka.eurekaServer.port`.
    pub fn new(domain: impl Into<String>, port: u16) -> Self {
        Self { domain: domain.into(), port, context: String::new(), https: false, is_srv: false, name_server: None }
    }

    /// Creates the settings for the servers in an SRV record, such as `_eureka._tcp.example.com`
    /// or that of a named port of a headless service of Kubernetes. Each entry has its own port.
    ///
    /// Servers with the lowest priority number are tried first, as those of the own zone. Weights,
    /// regions and zones have no effect. Java has no such look-up.
    pub fn srv(name: impl Into<String>) -> Self {
        Self { is_srv: true, ..Self::new(name, 0) }
    }

    /// Sets the path on the servers, such as `eureka`. Defaults to no path.
    ///
    /// Spring `eureka.client.eureka-server-u-r-l-context`, Netflix `eureka.eurekaServer.context`.
    pub fn context(mut self, path: impl Into<String>) -> Self {
        self.context = path.into();
        self
    }

    /// Sets whether the servers are called with HTTPS, which needs the feature `tls`. Defaults to
    /// `false`.
    ///
    /// Java always calls them with plain HTTP.
    pub fn https(mut self, https: bool) -> Self {
        self.https = https;
        self
    }

    /// Sets the name server. Defaults to the name servers of the system.
    pub fn name_server(mut self, server: SocketAddr) -> Self {
        self.name_server = Some(server);
        self
    }
}
