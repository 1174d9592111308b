use std::time::Duration;

use tower::BoxError;

use super::{Eureka, EurekaBuilder};
#[cfg(feature = "dns")]
use crate::config::DnsServers;
use crate::config::{
    ClientConfig, Cluster, DEFAULT_ZONE, ListedServer, Members, ServerSettings, ServerSource, ServiceUrl,
};
use crate::error::{Error, Kind};
use crate::model::{InstanceStatus, host_in_url};
use crate::transport::{HttpStack, RegistryServer, Transport};

impl Eureka {
    /// Returns the registry servers with their states, in the order in which they are tried.
    ///
    /// The result is empty before the first request if the servers are looked up. It contains no
    /// credentials. Servers that are only used for fetches come last.
    pub fn registry_servers(&self) -> Vec<RegistryServer> {
        let mut servers = self.0.transport.registry_servers();
        let for_fetches = self.0.for_fetches.iter().flat_map(Transport::registry_servers);
        for server in for_fetches {
            if !servers.iter().any(|known| known.url() == server.url()) {
                servers.push(server);
            }
        }
        servers
    }
}

/// Registry servers: their list or its source, and the order in which they are tried.
impl EurekaBuilder {
    /// Sets the region of this process. Defaults to `us-east-1`.
    ///
    /// Its [zones](Self::availability_zones) determine which registry servers are used. Spring
    /// `eureka.client.region`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.config.servers.zones.region = region.into();
        self
    }

    /// Sets the zones of a region, separated by commas, the zone of this process first. Defaults to
    /// `defaultZone`.
    ///
    /// A zone without [URLs](Self::zone_url) of its own has those of `defaultZone`. Names of
    /// regions and zones are compared without case. Spring
    /// `eureka.client.availability-zones.<region>`.
    pub fn availability_zones(mut self, region: impl Into<String>, zones: impl AsRef<str>) -> Self {
        self.config.servers.zones.set_zones(region.into(), zones.as_ref());
        self
    }

    /// Adds registry servers of one zone, separated by commas. They are used if the zone is one of
    /// the [region](Self::region). [`build`](Self::build) returns the error of an invalid URL.
    ///
    /// The first call of this method or of [`service_url`](Self::service_url) replaces all servers
    /// of the settings. Spring `eureka.client.service-url.<zone>`.
    pub fn zone_url(mut self, zone: impl AsRef<str>, urls: impl AsRef<str>) -> Self {
        self.replace_settings();
        self.add_zone_urls(zone.as_ref(), urls.as_ref());
        self
    }

    /// Sets whether the servers of the own zone are tried first, and then those of the other zones
    /// in their order. Defaults to `true`.
    ///
    /// If it is `false`, the servers of all zones are one list in random order. Java clients ignore
    /// the setting. Spring `eureka.client.prefer-same-zone-eureka`.
    pub fn prefer_same_zone(mut self, prefer: bool) -> Self {
        self.config.servers.zones.prefer_same = prefer;
        self
    }

    /// Looks up the registry servers in DNS. Replaces the URLs and the
    /// [function](Self::server_source).
    ///
    /// The look-up is repeated as described at [`server_source`](Self::server_source). Spring
    /// `eureka.client.use-dns-for-fetching-service-urls`.
    #[cfg(feature = "dns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
    pub fn dns(mut self, servers: DnsServers) -> Self {
        self.replace_settings();
        self.config.servers.dns = servers;
        self.config.servers.uses_dns = true;
        self
    }

    /// Gets the registry servers from a function: from an orchestrator or a file, for example. It
    /// replaces the URLs. Java has the method `getEurekaServerServiceUrls` that can be overridden.
    ///
    /// The function returns URLs as [`service_url`](Self::service_url) takes them. It is called at
    /// the first request, and then at the first request after each
    /// [poll interval](Self::server_poll_interval), in a task of its own. Each call is limited to
    /// 30 seconds. Only requests before the first list wait for it. It is called earlier, but at
    /// most every 10 seconds, while no server of the list is available.
    ///
    /// If the function fails, panics or returns an empty list or more than 256 servers, the last
    /// list remains in use, and a warning is logged once. It is then called again after 1 second,
    /// and after ever longer pauses up to 30 seconds. A server that is in the new list as well
    /// remains in use.
    pub fn server_source<F, Fut, U, E>(mut self, source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
        U: Into<String>,
        E: Into<BoxError>,
    {
        self.replace_settings();
        self.config.servers.source = Some(ServerSource::new(source));
        self
    }

    /// Looks up the registry servers as the instances with this VIP address at the servers of the
    /// URLs, or of DNS or the [function](Self::server_source), which are used for nothing else.
    ///
    /// Instances that are UP are called at their plain port, else at their secure one, and at the
    /// path of `eureka.client.eureka-server-u-r-l-context`, which `DnsServers::context` sets in
    /// code. Those in the own zone come first, by their metadata. The look-up is repeated as
    /// described at [`server_source`](Self::server_source). Spring
    /// `eureka.client.transport.write-cluster-vip`, with the `bootstrap-resolver-strategy`
    /// `composite`.
    pub fn server_vip(mut self, vip: impl Into<String>) -> Self {
        self.config.servers.cluster = Cluster { is_used: true, vip: vip.into() };
        self
    }

    /// Fetches the registry from other servers than those to which instances are registered: the
    /// instances with this VIP address, which those servers know. Defaults to the same servers.
    ///
    /// They are called and looked up as described at [`server_vip`](Self::server_vip). Until one is
    /// known, fetches fail. Spring `eureka.client.transport.read-cluster-vip`, with
    /// `bootstrap-resolver-for-query` false.
    pub fn read_server_vip(mut self, vip: impl Into<String>) -> Self {
        self.config.servers.read_cluster = Cluster { is_used: true, vip: vip.into() };
        self
    }

    /// Sets the time between two look-ups of the registry servers, which varies by up to a tenth.
    /// Defaults to 5 minutes. Without a [function](Self::server_source) or DNS it has no effect.
    ///
    /// Spring `eureka.client.eureka-service-url-poll-interval-seconds`.
    pub fn server_poll_interval(mut self, interval: Duration) -> Self {
        self.config.servers.poll_interval = interval;
        self
    }

    /// Sets the mean time after which requests begin at another registry server, chosen at random.
    /// It varies by up to a half. Defaults to 20 minutes.
    ///
    /// After an outage, the clients spread over all servers again within this time. Spring
    /// `eureka.client.transport.sessioned-client-reconnect-interval-seconds`.
    pub fn session_duration(mut self, duration: Duration) -> Self {
        self.config.servers.session = duration;
        self
    }

    /// Sets the share of the registry servers that may be left out after a failure. Defaults to
    /// 0.66. Values above 1 count as 1.
    ///
    /// A server that failed is left out for five minutes. Once as many servers as this share of the
    /// list, rounded down, are left out, all of them are used again. With up to three servers and
    /// the default, a server that failed may be tried again at once. Spring
    /// `eureka.client.transport.retryable-client-quarantine-refresh-percentage`.
    pub fn quarantine_threshold(mut self, share: f64) -> Self {
        self.config.servers.quarantine_threshold = share;
        self
    }

    /// Sets whether each address that the DNS has for the host of an `http` URL is a registry server
    /// of its own, with failover between them. Defaults to `false`: connections are established to
    /// the first address that accepts them.
    ///
    /// For a headless service of Kubernetes, whose name stands for all nodes of a cluster. The
    /// requests have the address as their host. Names are looked up again after each
    /// [poll interval](Self::server_poll_interval), and earlier while no server is available.
    pub fn expand_hosts(mut self, expand: bool) -> Self {
        self.config.servers.expand_hosts = expand;
        self
    }

    /// Sets whether the servers of a zone are tried in random order, so that many clients spread
    /// over them. Defaults to `true`, as in Java.
    ///
    /// If it is `false`, they are tried in their configured order. Each session begins at the first
    /// one.
    pub fn shuffle_servers(mut self, shuffle: bool) -> Self {
        self.config.servers.shuffle = shuffle;
        self
    }
}

impl EurekaBuilder {
    /// Removes the servers of the settings, before code sets others.
    pub(super) fn replace_settings(&mut self) {
        if std::mem::take(&mut self.urls_from_settings) {
            self.config.service_urls.clear();
            self.config.servers.zones.clear_urls();
            self.config.servers.source = None;
            self.config.servers.uses_dns = false;
        }
    }

    pub(super) fn add_zone_urls(&mut self, zone: &str, urls: &str) {
        match ServiceUrl::parse_list(urls) {
            Ok(urls) => self.config.servers.zones.add_urls(zone, urls),
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }
}

/// Creates the transport over these servers, or over those that are looked up with them, and the
/// one of fetches of the registry if they have servers of their own.
pub(super) fn transports(
    settings: &ServerSettings,
    servers: Vec<ListedServer>,
    stack: &HttpStack,
) -> (Transport, Option<Transport>) {
    let ServerSettings { cluster, read_cluster, .. } = settings;
    let known = Transport::with_servers(settings, servers, stack.clone());
    let transport = if cluster.is_used { over(&known, cluster, settings, stack) } else { known };
    let for_fetches = read_cluster.is_used.then(|| over(&transport, read_cluster, settings, stack));
    (transport, for_fetches)
}

/// Creates the transport over the members of a cluster, which the servers of another one know.
fn over(known: &Transport, cluster: &Cluster, settings: &ServerSettings, stack: &HttpStack) -> Transport {
    let (known, vip, of_members) = (known.clone(), cluster.vip.clone(), settings.clone());
    let members = Members::new(move || {
        let (known, vip, settings) = (known.clone(), vip.clone(), of_members.clone());
        async move { members(&known, &vip, &settings).await }
    });
    let settings = ServerSettings { members: Some(members), ..settings.clone() };
    Transport::with_servers(&settings, Vec::new(), stack.clone())
}

/// Returns the registry servers that are instances of a cluster. One without a plain port is called
/// at its secure port.
async fn members(known: &Transport, vip: &str, settings: &ServerSettings) -> Result<Vec<ListedServer>, Error> {
    let context = settings.dns.context.trim_matches('/');
    let applications = known.vip(vip).await?;
    let instances = applications.applications.iter().flat_map(|application| &application.instances);
    let mut servers: Vec<ListedServer> = Vec::new();
    for instance in instances.filter(|instance| instance.status() == InstanceStatus::Up) {
        let Some(host) = (if settings.by_ip { instance.ip_addr() } else { instance.host_name() }) else { continue };
        let plain = instance.port().usable().map(|port| ("http", port));
        let Some((scheme, port)) = plain.or_else(|| Some(("https", instance.secure_port().usable()?))) else {
            continue;
        };
        let zone = instance.zone();
        for url in ServiceUrl::parse_list(&format!("{scheme}://{}:{port}/{context}", host_in_url(host)))? {
            if !servers.iter().any(|known| known.url.as_str() == url.as_str()) {
                let rank = settings.zones.rank(zone);
                servers.push(ListedServer { url, zone: zone.unwrap_or_default().into(), rank });
            }
        }
    }
    Ok(servers)
}

/// Returns the list of servers of checked settings. It is empty if the servers are looked up.
///
/// With `default_url`, an empty list is replaced by the default URL.
pub(super) fn list(config: &ClientConfig, default_url: bool) -> Result<Vec<ListedServer>, Error> {
    if config.servers.is_looked_up() {
        return Ok(Vec::new());
    }
    let mut zones = config.servers.zones.clone();
    zones.add_urls(DEFAULT_ZONE, config.service_urls.clone());
    let mut list = zones.servers();
    let unused: Vec<_> = zones.unused().map(str::to_owned).collect();
    let region = zones.region.clone();
    if list.is_empty() && default_url && unused.is_empty() {
        zones.add_urls(DEFAULT_ZONE, ServiceUrl::parse_list(ClientConfig::DEFAULT_SERVICE_URL)?);
        list = zones.servers();
    }
    if list.is_empty() && unused.is_empty() {
        return Err(Error::new(Kind::Config, "build client")
            .cause("no service URL is set")
            .advice("add one like http://localhost:8761/eureka/"));
    }
    if list.is_empty() {
        return Err(Error::new(Kind::Config, "build client")
            .cause(format!("no zone of the region {region} has a service URL, but {} has", unused.join(", ")))
            .advice(
                "add the zone to eureka.client.availability-zones.<region>, or name the region in eureka.client.region",
            ));
    }
    for zone in unused {
        tracing::warn!(zone, region, "URLs of a zone have no effect: the zone is not among those of the region");
    }
    Ok(list)
}
