use std::fmt;
use std::future::Future;
#[cfg(feature = "dns")]
use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
#[cfg(feature = "tls")]
use tokio_rustls::rustls;
use tower::{BoxError, Service};

use super::list::Zones;
use super::own::Own;
use super::queue::{BATCH_SIZE, Limits};
use crate::config::{ClientConfig, ServiceUrl};
use crate::connect::TlsSettings;
use crate::server::{Error, EurekaServerBuilder};
use crate::time::LONGEST_WAIT;
#[cfg(feature = "dns")]
use crate::transport::DnsUrls;
use crate::transport::{HttpStack, RequestBody};

/// What a node is told about its peers and about itself. The setters of [`EurekaServerBuilder`] document each.
#[derive(Clone, Debug)]
pub(crate) struct PeerSettings {
    pub(super) zones: Zones,
    pub(super) my_url: Option<String>,
    pub(super) own: Own,
    pub(super) register_own: bool,
    pub(super) unregister_own: bool,
    pub(super) limits: Limits,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(in crate::server) take_newer_copies: bool,
    pub(super) copy: bool,
    pub(super) copy_attempts: u32,
    pub(super) copy_pause: Duration,
    pub(super) wait_when_empty: Duration,
    /// Time between two heartbeats of an instance, as the registry expects it.
    pub(super) renewal_interval: Duration,
    pub(super) source: Option<Source>,
    #[cfg(feature = "dns")]
    use_dns: bool,
    /// What is to be asked for; who asks is filled in at the end.
    #[cfg(feature = "dns")]
    dns: DnsUrls,
    pub(super) refresh_interval: Duration,
    pub(super) comparison_interval: Duration,
    tls: TlsSettings,
    stack: Option<MakeStack>,
    /// What of the settings is unusable, and why.
    faulty: Option<(&'static str, Arc<crate::Error>)>,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            zones: Zones::default(),
            my_url: None,
            own: Own::default(),
            register_own: true,
            unregister_own: true,
            limits: Limits {
                capacity: 10_000,
                batch: BATCH_SIZE,
                workers: 20,
                life: Duration::from_secs(30),
                outage: Duration::from_secs(600),
            },
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(5),
            take_newer_copies: true,
            copy: true,
            copy_attempts: 5,
            copy_pause: Duration::from_secs(30),
            wait_when_empty: Duration::from_secs(300),
            renewal_interval: Duration::from_secs(30),
            source: None,
            #[cfg(feature = "dns")]
            use_dns: false,
            #[cfg(feature = "dns")]
            dns: DnsUrls::default(),
            refresh_interval: Duration::from_secs(600),
            comparison_interval: Duration::from_secs(30),
            tls: TlsSettings::default(),
            stack: None,
            faulty: None,
        }
    }
}

impl PeerSettings {
    /// What carries requests to other registry servers, within these bounds.
    pub(in crate::server) fn stack(&self, connect_timeout: Duration, read_timeout: Duration) -> HttpStack {
        let tls = self.tls.clone();
        let config = ClientConfig { connect_timeout, read_timeout, tls, ..ClientConfig::default() };
        self.stack.as_ref().map_or_else(|| HttpStack::hyper(&config), |make| (make.0)(&config))
    }

    pub(in crate::server) fn with_renewal_interval(self, renewal_interval: Duration) -> Self {
        Self { renewal_interval, ..self }
    }

    pub(crate) fn region(&self) -> &str {
        &self.zones.region
    }

    /// The names of the zones that have URLs or may get some.
    pub(crate) fn zones(&self) -> Vec<String> {
        self.zones.names()
    }

    /// Lets DNS tell the list of peers, if it is to.
    #[cfg(feature = "dns")]
    pub(super) fn settle_source(&mut self, own_host: &str) {
        if self.use_dns {
            let urls = DnsUrls {
                region: self.zones.region.clone(),
                zone: self.zones.own().to_owned(),
                prefer_same: self.zones.prefer_same,
                own_host: own_host.to_owned(),
                ..self.dns.clone()
            };
            self.source = Some(Source(Arc::new(move || {
                let urls = urls.clone();
                Box::pin(async move { urls.urls().await })
            })));
        }
    }

    /// How long cancellations are worth remembering: for longer than a peer may not know of them.
    pub(in crate::server) fn tombstone_retention(&self) -> Duration {
        self.limits.outage + Duration::from_secs(300)
    }

    /// Whether a peer at an `https` URL can be spoken to; what is missing otherwise.
    pub(in crate::server) fn can_tls(&self) -> Result<(), String> {
        if self.stack.is_some() { Ok(()) } else { self.tls.check() }
    }

    fn fault(&mut self, what: &'static str, error: crate::Error) {
        self.faulty.get_or_insert_with(|| (what, Arc::new(error)));
    }

    pub(in crate::server) fn check(&self) -> Result<(), Error> {
        if let Some((what, error)) = &self.faulty {
            return Err(Error::peers(what, error.clone()));
        }
        let Limits { capacity, workers, life, .. } = self.limits;
        for (is_zero, name, property) in [
            (capacity == 0, "peer_queue_capacity", "eureka.server.max-elements-in-peer-replication-pool"),
            (workers == 0, "peer_batches_in_flight", "eureka.server.max-threads-for-peer-replication"),
            (life.is_zero(), "replication_time", "eureka.server.max-time-for-replication"),
            (self.connect_timeout.is_zero(), "peer_connect_timeout", "eureka.server.peer-node-connect-timeout-ms"),
            (self.read_timeout.is_zero(), "peer_read_timeout", "eureka.server.peer-node-read-timeout-ms"),
            (
                self.refresh_interval.is_zero(),
                "peer_refresh_interval",
                "eureka.server.peer-eureka-nodes-update-interval-ms",
            ),
        ] {
            if is_zero {
                return Err(Error::setting_of(name, property, "must not be zero"));
            }
        }
        for zone in self.zones.unused() {
            let region = &self.zones.region;
            tracing::warn!(zone, region, "URLs of a zone have no effect: the zone is not among those of the region");
        }
        #[cfg(feature = "dns")]
        for (is_missing, name, property) in [
            (self.dns.domain.is_empty(), "dns_domain", "eureka.client.eureka-server-d-n-s-name"),
            (self.dns.port == 0, "dns_port", "eureka.client.eureka-server-port"),
        ] {
            if self.use_dns && is_missing {
                return Err(Error::setting_of(name, property, "must be given for peers from DNS"));
            }
        }
        Ok(())
    }
}

pub(super) const UNUSABLE_URL: &str = "a peer's URL is unusable";
#[cfg(feature = "tls")]
const UNUSABLE_TLS: &str = "the TLS settings for peers are unusable";

type Urls = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;

/// Where the list of peers comes from, if it changes.
#[derive(Clone)]
pub(super) struct Source(Arc<dyn Fn() -> Urls + Send + Sync>);

impl Source {
    pub(super) async fn urls(&self) -> Result<String, BoxError> {
        (self.0)().await
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// Made at the end, since it takes its bounds from the settings.
#[derive(Clone)]
struct MakeStack(Arc<dyn Fn(&ClientConfig) -> HttpStack + Send + Sync>);

impl fmt::Debug for MakeStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MakeStack")
    }
}

/// The cluster: who the peers are, what they are told and how this node begins.
///
/// A node without peers needs none of these.
#[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
impl EurekaServerBuilder {
    /// Adds registry servers that this one keeps in step with, separated by commas: `http://node2:8761/eureka/`. The cluster is a full
    /// mesh: each node names all others. A URL that leads to this node itself is left out, so all nodes may have the same list.
    /// Credentials go into the URL: `http://user:password@host/eureka/`. With `https` it takes the feature `tls`.
    ///
    /// Spring `eureka.client.service-url.defaultZone`, Netflix `eureka.serviceUrl.default`.
    pub fn peer_url(self, urls: impl AsRef<str>) -> Self {
        self.zone_url("defaultZone", urls)
    }

    /// Adds the registry servers of one zone. They are peers if the zone belongs to the [`region`](Self::region).
    ///
    /// Spring `eureka.client.service-url.<zone>`, Netflix `eureka.serviceUrl.<zone>`.
    pub fn zone_url(mut self, zone: impl Into<String>, urls: impl AsRef<str>) -> Self {
        match ServiceUrl::parse_list(urls.as_ref()) {
            Ok(urls) => self.peers.zones.add_urls(zone.into(), urls),
            Err(error) => self.peers.fault(UNUSABLE_URL, error),
        }
        self
    }

    /// A property that is set again has the last value only.
    pub(crate) fn replace_zone_urls(mut self, zone: &str, urls: &str) -> Self {
        // The one zone that every node has, however it is spelt.
        let zone = if zone.replace('-', "").eq_ignore_ascii_case("defaultzone") { "defaultZone" } else { zone };
        self.peers.zones.remove_urls(zone);
        self.zone_url(zone, urls)
    }

    /// The region of this node. Default `us-east-1`.
    ///
    /// Spring `eureka.client.region`, Netflix `eureka.region`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.peers.zones.region = region.into();
        self
    }

    /// The zones of a region, the one of this node first, separated by commas. Default one, `defaultZone`.
    ///
    /// A zone without URLs of its own has those of `defaultZone`. Spring `eureka.client.availability-zones.<region>`, Netflix
    /// `eureka.<region>.availabilityZones`.
    pub fn availability_zones(mut self, region: impl Into<String>, zones: impl AsRef<str>) -> Self {
        self.peers.zones.set_zones(region.into(), zones.as_ref());
        self
    }

    /// Whether the start-up copy asks the peers of this node's own zone first, rather than those of the next. Default true.
    ///
    /// Spring `eureka.client.prefer-same-zone-eureka`, Netflix `eureka.preferSameZone`.
    pub fn prefer_same_zone(mut self, prefer: bool) -> Self {
        self.peers.zones.prefer_same = prefer;
        self
    }

    /// Asks for the peers instead, at the start and then again and again: DNS, an orchestrator, a file.
    ///
    /// It gives URLs as [`peer_url`](Self::peer_url) takes them. An error or an empty list leaves the last one in use. Peers that stay keep
    /// what is queued for them.
    pub fn peer_source<F, Fut, E>(mut self, source: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let urls = move || -> Urls {
            let urls = source();
            Box::pin(async move { urls.await.map_err(Into::into) })
        };
        self.peers.source = Some(Source(Arc::new(urls)));
        self
    }

    /// Whether DNS tells the peers instead, at the start and then again and again. Default false.
    ///
    /// The TXT record `txt.<region>.<domain>` holds the names of zones, `<zone>.<anything>`; the record `txt.` before such a name holds the hosts of
    /// the zone's servers. They all have the same [port](Self::dns_port) and [context](Self::dns_context). A record that cannot be had leaves the
    /// last list in use. Spring `eureka.client.use-dns-for-fetching-service-urls`, Netflix `eureka.shouldUseDns`.
    #[cfg(feature = "dns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
    pub fn peers_from_dns(mut self, use_dns: bool) -> Self {
        self.peers.use_dns = use_dns;
        self
    }

    /// The domain below which the records of regions are.
    ///
    /// Spring `eureka.client.eureka-server-d-n-s-name`, Netflix `eureka.eurekaServer.domainName`.
    #[cfg(feature = "dns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
    pub fn dns_domain(mut self, domain: impl Into<String>) -> Self {
        self.peers.dns.domain = domain.into();
        self
    }

    /// The port of the servers that DNS tells.
    ///
    /// Spring `eureka.client.eureka-server-port`, Netflix `eureka.eurekaServer.port`.
    #[cfg(feature = "dns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
    pub fn dns_port(mut self, port: u16) -> Self {
        self.peers.dns.port = port;
        self
    }

    /// The path on the servers that DNS tells: `eureka`. Default none.
    ///
    /// Spring `eureka.client.eureka-server-u-r-l-context`, Netflix `eureka.eurekaServer.context`.
    #[cfg(feature = "dns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
    pub fn dns_context(mut self, path: impl Into<String>) -> Self {
        self.peers.dns.context = path.into();
        self
    }

    /// The name server to ask, instead of those of the system.
    #[cfg(feature = "dns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
    pub fn dns_server(mut self, server: SocketAddr) -> Self {
        self.peers.dns.server = Some(server);
        self
    }

    /// Time between two looks at the [`peer_source`](Self::peer_source), give or take a tenth. Default 10 minutes.
    /// One that has never answered is asked again after 1 s, and ever later up to 60 s. Each time it gets 30 s.
    ///
    /// Spring `eureka.server.peer-eureka-nodes-update-interval-ms`, Netflix `eureka.peerEurekaNodesUpdateIntervalMs`.
    pub fn peer_refresh_interval(mut self, interval: Duration) -> Self {
        self.peers.refresh_interval = interval;
        self
    }

    /// The one among the peers' URLs that leads to this node. Default: the one with its host name and port.
    ///
    /// Where neither tells, as behind a load balancer, a node finds out by itself when it first meets its own batches. Spring
    /// `eureka.server.my-url`, Netflix `eureka.myUrl`.
    pub fn my_url(mut self, url: impl Into<String>) -> Self {
        match ServiceUrl::parse_list(&url.into()) {
            // Without credentials, which are no part of what is compared.
            Ok(urls) => self.peers.my_url = urls.first().map(|url| url.as_str().as_ref().to_owned()),
            Err(error) => self.peers.fault("my_url is unusable", error),
        }
        self
    }

    /// Speaks TLS with peers at `https` URLs as this configuration (of rustls 0.23) says: with one's own CA, with a client certificate,
    /// with another provider of cryptography. Only its list of ALPN protocols is replaced.
    ///
    /// Default: TLS 1.2 and 1.3; the CAs that the operating system trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name; no
    /// client certificate; the process's default provider of cryptography, else ring. Java takes key stores instead, `eureka.client.tls.*`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn peer_tls_config(mut self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        match std::mem::take(&mut self.peers.tls).with_config(config.into()) {
            Ok(tls) => self.peers.tls = tls,
            Err(error) => self.peers.fault(UNUSABLE_TLS, error),
        }
        self
    }

    /// Trusts peers by the CAs in this PEM file instead of those that the operating system trusts. Several files add up. The file is read
    /// now, and a fault in it is the error of [`build`](Self::build).
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn peer_tls_ca_file(mut self, path: impl AsRef<Path>) -> Self {
        match std::mem::take(&mut self.peers.tls).add_ca_file(path.as_ref()) {
            Ok(tls) => self.peers.tls = tls,
            Err(error) => self.peers.fault(UNUSABLE_TLS, error),
        }
        self
    }

    /// Sends what is for peers and [other regions](Self::remote_region) through this service instead of the built-in one: through a proxy,
    /// with other credentials. Unpacking and the bounds of size and time stay above it; the connect timeout and TLS are its own affair.
    pub fn peer_http_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        self.peers.stack = Some(MakeStack(Arc::new(move |config| HttpStack::over(service.clone(), config))));
        self
    }

    /// How long a connection to a peer may take. Default 1 s, as in Netflix' server; Spring's has 200 ms.
    ///
    /// Spring `eureka.server.peer-node-connect-timeout-ms`, Netflix `eureka.peerNodeConnectTimeoutMs`.
    pub fn peer_connect_timeout(mut self, timeout: Duration) -> Self {
        self.peers.connect_timeout = timeout;
        self
    }

    /// How long a peer may take to answer. Default 5 s, as in Netflix' server; Spring's has 200 ms, after which a peer that is merely slow
    /// gets everything twice.
    ///
    /// Spring `eureka.server.peer-node-read-timeout-ms`, Netflix `eureka.peerNodeReadTimeoutMs`.
    pub fn peer_read_timeout(mut self, timeout: Duration) -> Self {
        self.peers.read_timeout = timeout;
        self
    }

    /// How many changes may wait for one peer; the oldest heartbeat is dropped for one more, or the oldest change. Default 10,000, at some 200 bytes each.
    ///
    /// Spring `eureka.server.max-elements-in-peer-replication-pool`, Netflix `eureka.maxElementsInPeerReplicationPool`.
    pub fn peer_queue_capacity(mut self, changes: usize) -> Self {
        self.peers.limits.capacity = changes;
        self
    }

    /// How many batches may be on their way to one peer at the same time. Default 20.
    ///
    /// Spring `eureka.server.max-threads-for-peer-replication`, Netflix `eureka.maxThreadsForPeerReplication`.
    pub fn peer_batches_in_flight(mut self, batches: usize) -> Self {
        self.peers.limits.workers = batches;
        self
    }

    /// How long a change is worth telling to a peer that answers. Default 30 s.
    ///
    /// Spring `eureka.server.max-time-for-replication`, Netflix `eureka.maxTimeForReplication`. Java gives registrations and heartbeats
    /// the renewal interval of the instance instead.
    pub fn replication_time(mut self, time: Duration) -> Self {
        self.peers.limits.life = time.min(LONGEST_WAIT);
        self
    }

    /// How long changes (not heartbeats) are kept for a peer that can't be reached. Default 10 minutes.
    ///
    /// Java drops them after the [`replication_time`](Self::replication_time), and nodes that were apart for longer then disagree about
    /// overrides and metadata for good. There is no property for it in Java.
    pub fn peer_outage_limit(mut self, limit: Duration) -> Self {
        self.peers.limits.outage = limit.min(LONGEST_WAIT);
        self
    }

    /// Time between two looks at what each peer has, give or take a tenth; zero for none. Default 30 s, and a third of it after a look that
    /// failed.
    ///
    /// A look costs the peer's delta, or its registry after a gap of two minutes or where the apps hash stays another. What a peer has
    /// differently is settled by the newer version, here or there; so nodes agree again also where a peer lost what it had to tell, as Java
    /// ones do after 30 s. There is no property for it in Java; here it is `eureka.server.peer-comparison-interval-ms`.
    pub fn peer_comparison_interval(mut self, interval: Duration) -> Self {
        self.peers.comparison_interval = interval.min(LONGEST_WAIT);
        self
    }

    /// Whether versions of an instance's data count: a peer that has newer data is believed, and a heartbeat of a version that is not
    /// this node's is answered by that (404, to a peer 409). Default true.
    ///
    /// Spring `eureka.server.sync-when-timestamp-differs`, Netflix `eureka.syncWhenTimestampDiffers`.
    pub fn take_newer_copies(mut self, take: bool) -> Self {
        self.peers.take_newer_copies = take;
        self
    }

    /// Sets whether a starting node copies the registries of its peers. Defaults to true. Without a
    /// copy it serves lists at once.
    ///
    /// Spring `eureka.client.fetch-registry`, Netflix `eureka.shouldFetchRegistry`.
    pub fn copy_from_peers(mut self, copy: bool) -> Self {
        self.peers.copy = copy;
        self
    }

    /// Number of times that a starting node asks its peers for something to copy. Defaults to 5. It
    /// asks once more right before it opens without a copy; with zero it never asks.
    ///
    /// Spring `eureka.server.registry-sync-retries`, Netflix `eureka.numberRegistrySyncRetries`.
    pub fn copy_attempts(mut self, attempts: u32) -> Self {
        self.peers.copy_attempts = attempts;
        self
    }

    /// Pause between two of these attempts. Defaults to 30 seconds.
    ///
    /// Spring `eureka.server.registry-sync-retry-wait-ms`, Netflix `eureka.registrySyncRetryWaitMs`.
    pub fn copy_pause(mut self, pause: Duration) -> Self {
        self.peers.copy_pause = pause;
        self
    }

    /// Maximum time for which a starting node refuses lists with 403, while it copies the registries
    /// of its peers and collects heartbeats. Defaults to 5 minutes.
    ///
    /// Clients then ask another server. The node opens earlier: once it has copied a peer that knows
    /// more, or once it has collected heartbeats for two [renewal
    /// intervals](Self::expected_renewal_interval) and no peer knows more, be it that none responds or
    /// that all are as new as this node. Only a node at which nothing registers waits for the whole
    /// time. With zero it serves lists at once, and copies meanwhile. A node without peers always
    /// serves them at once. Spring `eureka.server.wait-time-in-ms-when-sync-empty`, Netflix
    /// `eureka.waitTimeInMsWhenSyncEmpty`.
    pub fn wait_when_empty(mut self, wait: Duration) -> Self {
        self.peers.wait_when_empty = wait.min(LONGEST_WAIT);
        self
    }

    /// Whether this node registers itself, so that its peers show it. Default true; without [`own_port`](Self::own_port) or without
    /// peers it does not.
    ///
    /// Spring `eureka.client.register-with-eureka`, Netflix `eureka.registration.enabled`.
    pub fn register_own(mut self, register: bool) -> Self {
        self.peers.register_own = register;
        self
    }

    /// Whether it takes itself out when it [leaves](crate::EurekaServer::leave). Default true.
    ///
    /// Spring `eureka.client.should-unregister-on-shutdown`, Netflix `eureka.shouldUnregisterOnShutdown`.
    pub fn unregister_own(mut self, unregister: bool) -> Self {
        self.peers.unregister_own = unregister;
        self
    }

    /// The port at which this node answers: the one the listener got. It tells its own URL from those of its peers, and is what it
    /// registers.
    ///
    /// Spring `server.port`.
    pub fn own_port(mut self, port: u16) -> Self {
        self.peers.own.port = Some(port);
        self
    }

    /// The application name under which this node registers itself. Default `UNKNOWN`, which is what Spring servers without a name have.
    ///
    /// Spring `spring.application.name` or `eureka.instance.appname`.
    pub fn own_app(mut self, name: impl Into<String>) -> Self {
        self.peers.own.app = name.into();
        self
    }

    /// The id of this node. Default `ip:port`, or `ip:name:port` with an application name.
    ///
    /// Spring `eureka.instance.instance-id`.
    pub fn own_id(mut self, id: impl Into<String>) -> Self {
        self.peers.own.id = Some(id.into());
        self
    }

    /// The host name of this node, by which its peers reach it. Default its IP address.
    ///
    /// Spring `eureka.instance.hostname`.
    pub fn own_host_name(mut self, name: impl Into<String>) -> Self {
        self.peers.own.host_name = Some(name.into());
        self
    }

    /// The IP address of this node. Default that of the interface that leads out.
    ///
    /// Spring `eureka.instance.ip-address`.
    pub fn own_ip_addr(mut self, address: impl Into<String>) -> Self {
        self.peers.own.ip_addr = Some(address.into());
        self
    }

    /// Time between two heartbeats of this node: whole seconds. Default 30 s.
    ///
    /// Spring `eureka.instance.lease-renewal-interval-in-seconds`.
    pub fn own_renewal_interval(mut self, interval: Duration) -> Self {
        self.peers.own.renewal_interval = interval;
        self
    }

    /// How long peers keep this node after its last heartbeat: whole seconds. Default 90 s.
    ///
    /// Spring `eureka.instance.lease-expiration-duration-in-seconds`.
    pub fn own_lease_duration(mut self, duration: Duration) -> Self {
        self.peers.own.lease_duration = duration;
        self
    }
}
