use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tower::BoxError;

use super::{DnsServers, ListedServer, ServiceUrl, Zones};
use crate::connect::Names;
use crate::error::{Error, Kind};
use crate::panics::catch_panic;
use crate::time::LONGEST_WAIT;

/// Name of the zone of servers whose source knows no zones.
const NO_ZONE: &str = "";

/// Settings of a client's registry servers: their list or its source, and the order in which they
/// are tried.
#[derive(Clone, Debug)]
pub(crate) struct ServerSettings {
    pub(crate) zones: Zones,
    /// Function of the user. It replaces the URLs.
    pub(crate) source: Option<ServerSource>,
    /// Look-up of the instances of a cluster. It replaces the DNS, the function and the URLs.
    pub(crate) members: Option<Members>,
    /// True if the servers are looked up in DNS. That replaces the function and the URLs.
    pub(crate) uses_dns: bool,
    pub(crate) dns: DnsServers,
    pub(crate) poll_interval: Duration,
    pub(crate) session: Duration,
    pub(crate) quarantine_threshold: f64,
    pub(crate) shuffle: bool,
    /// True if each address of a host is a server of its own.
    pub(crate) expand_hosts: bool,
    /// Lookups of these hosts.
    pub(crate) names: Arc<Names>,
    pub(crate) cluster: Cluster,
    /// Servers that are used for fetches of the registry only.
    pub(crate) read_cluster: Cluster,
    /// Calls the servers of both clusters by their IP addresses, not by their host names.
    pub(crate) by_ip: bool,
}

/// Registry servers that are instances of an application, which the listed servers know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) is_used: bool,
    /// VIP address of the servers.
    pub(crate) vip: String,
}

impl Cluster {
    /// Checks that the VIP address is set if the cluster is used, and only then.
    fn check(&self, vip: &str, switch: &str, advice: &'static str) -> Result<(), Error> {
        if self.is_used && self.vip.is_empty() {
            return Err(Error::new(Kind::Config, "build client")
                .cause("the registry servers are instances of an application, but its VIP address is not set")
                .advice(advice));
        }
        if !self.is_used && !self.vip.is_empty() {
            tracing::warn!("{vip} has no effect without {switch}");
        }
        Ok(())
    }
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            zones: Zones::default(),
            source: None,
            members: None,
            uses_dns: false,
            dns: DnsServers::new("", 0),
            poll_interval: Duration::from_secs(300),
            session: Duration::from_secs(1200),
            quarantine_threshold: 0.66,
            shuffle: true,
            expand_hosts: false,
            names: Arc::default(),
            cluster: Cluster::default(),
            read_cluster: Cluster::default(),
            by_ip: false,
        }
    }
}

impl ServerSettings {
    /// Returns `true` if the servers are looked up, so that their URLs have no effect.
    pub(crate) fn is_looked_up(&self) -> bool {
        self.uses_dns || self.source.is_some()
    }

    /// Limits the durations to what timers can represent.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        let invalid = |cause: &str, advice| Err(Error::new(Kind::Config, "build client").cause(cause).advice(advice));
        if self.poll_interval.is_zero() || self.session.is_zero() {
            return invalid(
                "the poll interval or the session of registry servers is zero",
                "set each to a positive duration",
            );
        }
        (self.poll_interval, self.session) = (self.poll_interval.min(LONGEST_WAIT), self.session.min(LONGEST_WAIT));
        if !self.quarantine_threshold.is_finite() || self.quarantine_threshold < 0.0 {
            return invalid("the quarantine threshold is not a share of the servers", "set it to a number from 0 to 1");
        }
        self.cluster.check(
            "eureka.client.transport.write-cluster-vip",
            "eureka.client.transport.bootstrap-resolver-strategy=composite",
            "set eureka.client.transport.write-cluster-vip or call server_vip()",
        )?;
        self.read_cluster.check(
            "eureka.client.transport.read-cluster-vip",
            "eureka.client.transport.bootstrap-resolver-for-query=false",
            "set eureka.client.transport.read-cluster-vip or call read_server_vip()",
        )?;
        if self.uses_dns {
            self.check_dns()?;
        }
        Ok(())
    }

    #[cfg(feature = "dns")]
    fn check_dns(&self) -> Result<(), Error> {
        let missing = |cause: &str, advice| Err(Error::new(Kind::Config, "build client").cause(cause).advice(advice));
        if self.dns.domain.trim_matches('.').is_empty() {
            return missing(
                "registry servers are looked up in DNS, but no domain is set",
                "set eureka.client.eureka-server-d-n-s-name or the domain of DnsServers::new()",
            );
        }
        if self.dns.port == 0 && !self.dns.is_srv {
            return missing(
                "registry servers are looked up in DNS, but no port is set",
                "set eureka.client.eureka-server-port or the port of DnsServers::new()",
            );
        }
        Ok(())
    }

    #[cfg(not(feature = "dns"))]
    fn check_dns(&self) -> Result<(), Error> {
        Err(Error::new(Kind::Config, "build client")
            .cause("registry servers are looked up in DNS, but this build cannot do that")
            .advice("switch on the feature `dns` of tower-eureka, or set service URLs"))
    }
}

type Urls = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// Function of the user that returns the URLs of the registry servers, separated by commas.
#[derive(Clone)]
pub(crate) struct ServerSource(Arc<dyn Fn() -> Urls + Send + Sync>);

impl ServerSource {
    pub(crate) fn new<F, Fut, U, E>(source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
        U: Into<String>,
        E: Into<BoxError>,
    {
        Self(Arc::new(move || {
            let urls = source();
            Box::pin(async move { urls.await.map(Into::into).map_err(Into::into) })
        }))
    }

    /// Calls the function.
    pub(crate) async fn urls(&self) -> Result<String, BoxError> {
        (self.0)().await
    }

    /// Calls the function. A panic is returned as an error.
    pub(crate) async fn servers(&self) -> Result<Vec<ListedServer>, BoxError> {
        let urls = catch_panic(self.urls()).await??;
        listed(&urls, &NO_ZONE.into(), 0)
    }
}

impl fmt::Debug for ServerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerSource")
    }
}

type Listed = Pin<Box<dyn Future<Output = Result<Vec<ListedServer>, Error>> + Send>>;

/// Look-up of the registry servers that are instances of an application.
#[derive(Clone)]
pub(crate) struct Members(Arc<dyn Fn() -> Listed + Send + Sync>);

impl Members {
    pub(crate) fn new<F, Fut>(look_up: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<ListedServer>, Error>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(look_up())))
    }

    pub(crate) async fn servers(&self) -> Result<Vec<ListedServer>, BoxError> {
        Ok((self.0)().await?)
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Members")
    }
}

/// Parses a list of URLs as servers of one zone.
pub(crate) fn listed(urls: &str, zone: &Arc<str>, rank: usize) -> Result<Vec<ListedServer>, BoxError> {
    let urls = ServiceUrl::parse_list(urls)?;
    Ok(urls.into_iter().map(|url| ListedServer { url, zone: zone.clone(), rank }).collect())
}
