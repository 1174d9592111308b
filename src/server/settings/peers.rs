use std::future::Future;
#[cfg(feature = "tls")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
#[cfg(feature = "tls")]
use tokio_rustls::rustls;
use tower::{BoxError, Service};

use super::check_not_zero;
#[cfg(feature = "dns")]
use crate::config::DnsServers;
use crate::config::{ServerSource, ServiceUrl, TlsKeys, Zones};
#[cfg(feature = "tls")]
use crate::connect::{Store, TlsSettings};
#[cfg(feature = "tls")]
use crate::secret::Secret;
use crate::server::Error;
use crate::server::outbound::Outbound;
use crate::time::LONGEST_WAIT;
#[cfg(feature = "dns")]
use crate::transport::DnsLookup;
use crate::transport::RequestBody;

/// The other registry servers of the cluster: where they are, how changes are replicated to them,
/// and how this node starts.
///
/// Java servers and tower-eureka servers can be peers of each other.
///
/// ```
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::Peers;
///
/// let peers = Peers::new().url("http://node2:8761/eureka/,http://node3:8761/eureka/");
/// let builder = EurekaServer::builder().port(8761).peers(peers);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
#[must_use]
pub struct Peers {
    pub(in crate::server) zones: Zones,
    pub(in crate::server) my_url: Option<String>,
    pub(in crate::server) queue_capacity: usize,
    pub(in crate::server) batches_in_flight: usize,
    pub(in crate::server) replication_time: Duration,
    pub(in crate::server) outage_limit: Duration,
    pub(in crate::server) connect_timeout: Duration,
    pub(in crate::server) read_timeout: Duration,
    pub(in crate::server) take_newer_copies: bool,
    pub(in crate::server) sync_up: bool,
    pub(in crate::server) sync_up_attempts: u32,
    pub(in crate::server) sync_up_pause: Duration,
    pub(in crate::server) wait_when_empty: Duration,
    source: Option<ServerSource>,
    #[cfg(feature = "dns")]
    uses_dns: bool,
    /// Without the region and the zones, which [`list_source`](Self::list_source) fills in.
    #[cfg(feature = "dns")]
    dns: DnsServers,
    pub(in crate::server) refresh_interval: Duration,
    pub(in crate::server) reconcile_interval: Duration,
    pub(in crate::server) outbound: Outbound,
    /// The first unusable setting, and the reason.
    fault: Option<(&'static str, Arc<crate::Error>)>,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            zones: Zones::default(),
            my_url: None,
            queue_capacity: 10_000,
            batches_in_flight: 20,
            replication_time: Duration::from_secs(30),
            outage_limit: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(5),
            take_newer_copies: true,
            sync_up: true,
            sync_up_attempts: 5,
            sync_up_pause: Duration::from_secs(30),
            wait_when_empty: Duration::from_secs(300),
            source: None,
            #[cfg(feature = "dns")]
            uses_dns: false,
            #[cfg(feature = "dns")]
            dns: DnsServers::new("", 0),
            refresh_interval: Duration::from_secs(600),
            reconcile_interval: Duration::from_secs(30),
            outbound: Outbound::default(),
            fault: None,
        }
    }
}

/// URLs, and the requests to them.
impl Peers {
    /// Creates the settings with their defaults: no peers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds peers by their URLs, separated by commas: `http://node2:8761/eureka/`.
    ///
    /// The cluster is a full mesh: each node names all others. A URL of this node itself is
    /// skipped, so all nodes may have the same list. Credentials are part of the URL:
    /// `http://user:password@host/eureka/`. URLs with `https` need the feature `tls`.
    ///
    /// Spring `eureka.client.service-url.defaultZone`, Netflix `eureka.serviceUrl.default`.
    pub fn url(self, urls: impl AsRef<str>) -> Self {
        self.zone_url("defaultZone", urls)
    }

    /// Adds the registry servers of one zone. They are peers if the zone belongs to the
    /// [`region`](Self::region).
    ///
    /// Spring `eureka.client.service-url.<zone>`, Netflix `eureka.serviceUrl.<zone>`.
    pub fn zone_url(mut self, zone: impl Into<String>, urls: impl AsRef<str>) -> Self {
        match ServiceUrl::parse_list(urls.as_ref()) {
            Ok(urls) => self.zones.add_urls(&zone.into(), urls),
            Err(error) => self.set_fault(UNUSABLE_URL, error),
        }
        self
    }

    /// Replaces the URLs of a zone: the last value of a property counts.
    pub(crate) fn replace_zone_urls(mut self, zone: &str, urls: &str) -> Self {
        self.zones.remove_urls(zone);
        self.zone_url(zone, urls)
    }

    /// Sets the region of this node. Defaults to `us-east-1`.
    ///
    /// Spring `eureka.client.region`, Netflix `eureka.region`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.zones.region = region.into();
        self
    }

    /// Sets the zones of a region, separated by commas, the zone of this node first. Defaults to
    /// `defaultZone`.
    ///
    /// A zone without URLs of its own has those of `defaultZone`. Spring
    /// `eureka.client.availability-zones.<region>`, Netflix `eureka.<region>.availabilityZones`.
    pub fn availability_zones(mut self, region: impl Into<String>, zones: impl AsRef<str>) -> Self {
        self.zones.set_zones(region.into(), zones.as_ref());
        self
    }

    /// Prefers the peers of this node's own zone at the start, rather than those of the next.
    /// Defaults to true.
    ///
    /// Spring `eureka.client.prefer-same-zone-eureka`, Netflix `eureka.preferSameZone`.
    pub fn prefer_same_zone(mut self, prefer: bool) -> Self {
        self.zones.prefer_same = prefer;
        self
    }

    /// Gets the list of peers from a function, at the start and then repeatedly: from an
    /// orchestrator or a file, for example. It replaces the URLs.
    ///
    /// The function returns URLs as [`url`](Self::url) takes them. After an error or an empty list,
    /// the last list remains in use. Peers that stay in the list keep their queued changes.
    pub fn source<F, Fut, E>(mut self, source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.source = Some(ServerSource::new(source));
        self
    }

    /// Gets the list of peers from DNS, at the start and then repeatedly. It replaces the URLs and
    /// the [source](Self::source).
    ///
    /// Spring `eureka.client.use-dns-for-fetching-service-urls`, Netflix `eureka.shouldUseDns`.
    #[cfg(feature = "dns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
    pub fn dns(mut self, dns: DnsServers) -> Self {
        (self.dns, self.uses_dns) = (dns, true);
        self
    }

    #[cfg(feature = "dns")]
    pub(crate) fn use_dns(mut self, uses_dns: bool) -> Self {
        self.uses_dns = uses_dns;
        self
    }

    /// Changes a setting of DNS, used or not.
    #[cfg(feature = "dns")]
    pub(crate) fn with_dns(mut self, change: impl FnOnce(&mut DnsServers)) -> Self {
        change(&mut self.dns);
        self
    }

    /// Sets the time between two calls of the [source](Self::source), varied by up to a tenth.
    /// Defaults to 10 minutes.
    ///
    /// Until the source has returned a list, it is called again after 1 second, and then after ever
    /// longer pauses up to 60 seconds. Each call is limited to 30 seconds. Spring
    /// `eureka.server.peer-eureka-nodes-update-interval-ms`, Netflix
    /// `eureka.peerEurekaNodesUpdateIntervalMs`.
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// Sets the URL of this node among the URLs of the peers. Defaults to the URL with its host
    /// name and port.
    ///
    /// Behind a load balancer neither matches. Then the node recognises its own batches when it
    /// first receives them. Spring `eureka.server.my-url`, Netflix `eureka.myUrl`.
    pub fn my_url(mut self, url: impl Into<String>) -> Self {
        match ServiceUrl::parse_list(&url.into()) {
            // Without credentials, which are not compared.
            Ok(urls) => self.my_url = urls.first().map(|url| url.as_str().as_ref().to_owned()),
            Err(error) => self.set_fault("my_url is unusable", error),
        }
        self
    }

    /// Sets the TLS configuration (of rustls 0.23) for `https` URLs of peers and regions: with CAs,
    /// a client certificate, or another provider of cryptography. Its list of ALPN protocols is
    /// replaced.
    ///
    /// Defaults to TLS 1.2 and 1.3, the CAs that the operating system trusts, or those that
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name, no client certificate, and the process's default
    /// provider of cryptography, or ring. Spring has key stores, `eureka.client.tls.*`, which are
    /// read as [`tls_key_store`](Self::tls_key_store) and
    /// [`tls_trust_store`](Self::tls_trust_store) do.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_config(self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        self.with_tls(|tls| tls.with_config(config.into()))
    }

    /// Trusts the CAs in a PEM file instead of those that the operating system trusts. Several
    /// files add up.
    ///
    /// [`build`](crate::server::EurekaServerBuilder::build) reads the file, and returns the error
    /// of a fault in it. A new connection reads it again if it was not read for 5 seconds. If a
    /// changed file is unusable, its previous content stays in effect, and a warning is logged.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_ca_file(self, path: impl AsRef<Path>) -> Self {
        self.with_tls(|tls| tls.add_ca_file(path.as_ref()))
    }

    /// Sets the PEM files with the certificate chain of this registry, as a client of its peers and
    /// regions, and with its private key. Defaults to no certificate.
    ///
    /// The files are read as those of [CAs](Self::tls_ca_file), also again after a change.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_identity_file(self, certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.with_tls(|tls| tls.with_identity_file(certificates.as_ref(), key.as_ref()))
    }

    /// Sets the key store with the certificate chain and private key of this registry: a PKCS#12
    /// file (feature `pkcs12`) or a PEM file with both.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_key_store(self, path: impl AsRef<Path>, password: impl Into<String>) -> Self {
        self.with_tls(|tls| tls.with_key_store(Store::new(path.as_ref(), Secret::new(password))))
    }

    /// Trusts the CAs in a store, as [`tls_ca_file`](Self::tls_ca_file) does: a PKCS#12 file
    /// (feature `pkcs12`) or a PEM file.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_trust_store(self, path: impl AsRef<Path>, password: impl Into<String>) -> Self {
        self.with_tls(|tls| tls.add_trust_store(Store::new(path.as_ref(), Secret::new(password))))
    }

    #[cfg(feature = "tls")]
    fn with_tls(mut self, change: impl FnOnce(TlsSettings) -> Result<TlsSettings, crate::Error>) -> Self {
        if let Err(error) = self.outbound.change_tls(change) {
            self.set_fault(UNUSABLE_TLS, error);
        }
        self
    }

    /// Replaces the built-in HTTP client for requests to peers and [regions](super::Regions), to
    /// use a proxy or other credentials, for example.
    ///
    /// Decompression, size limits and the read timeout apply above the service. The connect timeout
    /// and TLS are up to the service.
    pub fn http_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        self.outbound.set_service(service);
        self
    }

    /// Sets the connect timeout of requests to peers. Defaults to 1 second, as in Netflix's server.
    /// Spring's server has 200 ms.
    ///
    /// Spring `eureka.server.peer-node-connect-timeout-ms`, Netflix
    /// `eureka.peerNodeConnectTimeoutMs`.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the maximum time in which a peer responds. Defaults to 5 seconds, as in Netflix's
    /// server.
    ///
    /// Spring's server has 200 ms, after which a peer that is merely slow receives everything
    /// twice. Spring `eureka.server.peer-node-read-timeout-ms`, Netflix
    /// `eureka.peerNodeReadTimeoutMs`.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }
}

/// Replication and reconciliation.
impl Peers {
    /// Sets the maximum number of changes that wait for one peer. Defaults to 10,000, of about 200
    /// bytes each.
    ///
    /// One more change drops the oldest heartbeat, or the oldest change if no heartbeat waits.
    /// Spring `eureka.server.max-elements-in-peer-replication-pool`, Netflix
    /// `eureka.maxElementsInPeerReplicationPool`.
    pub fn queue_capacity(mut self, changes: usize) -> Self {
        self.queue_capacity = changes;
        self
    }

    /// Sets the maximum number of batches in flight to one peer. Defaults to 20.
    ///
    /// Spring `eureka.server.max-threads-for-peer-replication`, Netflix
    /// `eureka.maxThreadsForPeerReplication`.
    pub fn batches_in_flight(mut self, batches: usize) -> Self {
        self.batches_in_flight = batches;
        self
    }

    /// Sets the maximum time for which a change waits for a peer that responds. Defaults to 30
    /// seconds.
    ///
    /// Java uses the renewal interval of the instance for registrations and heartbeats. Spring
    /// `eureka.server.max-time-for-replication`, Netflix `eureka.maxTimeForReplication`.
    pub fn replication_time(mut self, time: Duration) -> Self {
        self.replication_time = time.min(LONGEST_WAIT);
        self
    }

    /// Sets the maximum time for which changes, except heartbeats, are kept for an unreachable
    /// peer. Defaults to 10 minutes.
    ///
    /// Java drops them after [`replication_time`](Self::replication_time). Nodes that were apart
    /// for longer then disagree about overrides and metadata for good. Java has no property for it.
    pub fn outage_limit(mut self, limit: Duration) -> Self {
        self.outage_limit = limit.min(LONGEST_WAIT);
        self
    }

    /// Sets the time between two comparisons with each peer, varied by up to a tenth. Zero disables
    /// them. Defaults to 30 seconds, and to a third of it after a comparison that failed.
    ///
    /// A comparison fetches the peer's delta, or its registry after a gap of two minutes or while
    /// the apps hash stays different. Of two different states of an instance the newer one is kept,
    /// at both nodes. So nodes agree again even if a peer dropped its changes, as Java servers do
    /// after 30 seconds. Java has no property for it; here it is
    /// `eureka.server.peer-comparison-interval-ms`.
    pub fn reconcile_interval(mut self, interval: Duration) -> Self {
        self.reconcile_interval = interval.min(LONGEST_WAIT);
        self
    }

    /// Adopts the newer data of a peer, and compares the version in a heartbeat with the registry:
    /// if they differ, the response is 404, or 409 to a peer. Defaults to true.
    ///
    /// Spring `eureka.server.sync-when-timestamp-differs`, Netflix
    /// `eureka.syncWhenTimestampDiffers`.
    pub fn take_newer_copies(mut self, take: bool) -> Self {
        self.take_newer_copies = take;
        self
    }
}

/// Start of a node.
impl Peers {
    /// Copies the registries of the peers at the start. Defaults to true. Otherwise the node serves
    /// lists at once.
    ///
    /// Spring `eureka.client.fetch-registry`, Netflix `eureka.shouldFetchRegistry`.
    pub fn sync_up(mut self, sync_up: bool) -> Self {
        self.sync_up = sync_up;
        self
    }

    /// Sets the number of attempts to copy the registries of the peers. Defaults to 5.
    ///
    /// One more attempt is made right before the node opens without a copy. With zero no attempt is
    /// made. Spring `eureka.server.registry-sync-retries`, Netflix
    /// `eureka.numberRegistrySyncRetries`.
    pub fn sync_up_attempts(mut self, attempts: u32) -> Self {
        self.sync_up_attempts = attempts;
        self
    }

    /// Sets the pause between two of these attempts. Defaults to 30 seconds.
    ///
    /// Spring `eureka.server.registry-sync-retry-wait-ms`, Netflix
    /// `eureka.registrySyncRetryWaitMs`.
    pub fn sync_up_pause(mut self, pause: Duration) -> Self {
        self.sync_up_pause = pause;
        self
    }

    /// Sets the maximum time for which a starting node refuses lists with 403, while it copies the
    /// registries of its peers and collects heartbeats. Defaults to 5 minutes.
    ///
    /// Clients then fetch from another server. The node opens earlier: once it has copied a peer
    /// that has more instances, or once it has collected heartbeats for two [renewal
    /// intervals](super::Eviction::expected_renewal_interval) and no peer has more, either because
    /// none responds or because all are as new as this node. Only a node at which nothing registers
    /// waits for the whole time. With zero it serves lists at once, and copies meanwhile. A node
    /// without peers always serves them at once. Spring
    /// `eureka.server.wait-time-in-ms-when-sync-empty`, Netflix `eureka.waitTimeInMsWhenSyncEmpty`.
    pub fn wait_when_empty(mut self, wait: Duration) -> Self {
        self.wait_when_empty = wait.min(LONGEST_WAIT);
        self
    }
}

impl Peers {
    pub(crate) fn region_name(&self) -> &str {
        &self.zones.region
    }

    /// Returns the names of the zones that may have URLs.
    pub(crate) fn zone_names(&self) -> Vec<String> {
        self.zones.names()
    }

    /// Returns the source of the list of peers, if the list may change.
    pub(in crate::server) fn list_source(&self, own_host: &str) -> Option<ServerSource> {
        #[cfg(feature = "dns")]
        if self.uses_dns {
            let (lookup, own_host) = (DnsLookup::new(&self.dns, &self.zones), own_host.to_owned());
            return Some(ServerSource::new(move || {
                let (lookup, own_host) = (lookup.clone(), own_host.clone());
                async move { lookup.rotated_urls(&own_host).await }
            }));
        }
        let _ = own_host;
        self.source.clone()
    }

    /// Returns the time for which tombstones are kept: longer than a peer may miss a cancellation.
    pub(in crate::server) fn tombstone_retention(&self) -> Duration {
        self.outage_limit + Duration::from_secs(300)
    }

    /// Takes the place of other settings, whose fault remains.
    pub(in crate::server) fn replacing(self, earlier: Self) -> Self {
        Self { fault: earlier.fault.or(self.fault), ..self }
    }

    fn set_fault(&mut self, what: &'static str, error: crate::Error) {
        self.fault.get_or_insert_with(|| (what, Arc::new(error)));
    }

    /// Changes the values of Spring's `eureka.client.tls.*`.
    pub(crate) fn tls_keys_with(mut self, change: impl FnOnce(&mut TlsKeys)) -> Self {
        change(&mut self.outbound.tls_keys);
        self
    }

    /// Returns the settings with the stores that Spring's `eureka.client.tls.*` name. Reads the
    /// files.
    pub(in crate::server) fn with_stores(&self) -> Result<Self, Error> {
        let mut peers = self.clone();
        peers.outbound.add_stores().map_err(|error| Error::peers(UNUSABLE_TLS, Arc::new(error)))?;
        Ok(peers)
    }

    pub(in crate::server) fn check(&self) -> Result<(), Error> {
        if let Some((what, error)) = &self.fault {
            return Err(Error::peers(what, error.clone()));
        }
        check_not_zero(&[
            (self.queue_capacity == 0, "Peers::queue_capacity", "eureka.server.max-elements-in-peer-replication-pool"),
            (self.batches_in_flight == 0, "Peers::batches_in_flight", "eureka.server.max-threads-for-peer-replication"),
            (self.replication_time.is_zero(), "Peers::replication_time", "eureka.server.max-time-for-replication"),
            (self.connect_timeout.is_zero(), "Peers::connect_timeout", "eureka.server.peer-node-connect-timeout-ms"),
            (self.read_timeout.is_zero(), "Peers::read_timeout", "eureka.server.peer-node-read-timeout-ms"),
            (
                self.refresh_interval.is_zero(),
                "Peers::refresh_interval",
                "eureka.server.peer-eureka-nodes-update-interval-ms",
            ),
        ])?;
        for zone in self.zones.unused() {
            let region = &self.zones.region;
            tracing::warn!(zone, region, "URLs of a zone have no effect: the zone is not among those of the region");
        }
        #[cfg(feature = "dns")]
        for (is_missing, name, property) in [
            (self.dns.domain.is_empty(), "the domain of Dns::new", "eureka.client.eureka-server-d-n-s-name"),
            (self.dns.port == 0 && !self.dns.is_srv, "the port of Dns::new", "eureka.client.eureka-server-port"),
        ] {
            if self.uses_dns && is_missing {
                return Err(Error::setting_of(name, property, "must be set for peers from DNS"));
            }
        }
        Ok(())
    }
}

pub(in crate::server) const UNUSABLE_URL: &str = "a peer's URL is unusable";
const UNUSABLE_TLS: &str = "the TLS settings for peers are unusable";
