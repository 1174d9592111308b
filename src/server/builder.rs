use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::http::Intake;
use super::node::Node;
#[cfg(feature = "peers")]
use super::peers::Peers;
#[cfg(feature = "peers")]
use super::regions::Regions;
use super::registry::{Registry, Settings};
use super::response_cache::ResponseCache;
use super::timers::Timers;
use super::unsent::Unsent;
use super::{Error, EurekaServer, Inner, Limits, memory};
use crate::time::Clock;

/// Settings of a registry server. Made by [`EurekaServer::builder`]; the defaults are those of a stock Spring Cloud server.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct EurekaServerBuilder {
    settings: Settings,
    /// Derived from the memory if it is not set.
    registry_size_limit: Option<usize>,
    registration_limit: usize,
    batch_limit: usize,
    bytes_in_flight: usize,
    response_limit: usize,
    gzip_requests: bool,
    deltas: bool,
    read_only_cache: bool,
    read_only_cache_interval: Duration,
    /// Of the connections that the server's own listener takes.
    pub(crate) limits: Limits,
    #[cfg(feature = "peers")]
    pub(crate) peers: super::peers::PeerSettings,
    #[cfg(feature = "peers")]
    pub(crate) regions: super::regions::RegionSettings,
}

impl EurekaServerBuilder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings::default(),
            registry_size_limit: None,
            registration_limit: 1024 * 1024,
            batch_limit: 10 * 1024 * 1024,
            bytes_in_flight: Intake::DEFAULT_BUDGET,
            response_limit: 64 * 1024 * 1024,
            gzip_requests: false,
            deltas: true,
            read_only_cache: false,
            read_only_cache_interval: Duration::from_secs(30),
            limits: Limits::default(),
            #[cfg(feature = "peers")]
            peers: super::peers::PeerSettings::default(),
            #[cfg(feature = "peers")]
            regions: super::regions::RegionSettings::default(),
        }
    }

    /// Whether a silent instance lives for two lease durations after its last heartbeat, as on a Java server, instead of one.
    ///
    /// Default true. Java adds the duration twice, which became the protocol: without it this server evicts an instance one lease
    /// earlier than its Java peers do, and `lastRenewalTimestamp` is when the heartbeat came, not one duration later. There is no
    /// property for it in Java.
    pub fn lease_doubling(mut self, doubling: bool) -> Self {
        self.settings.lease_doubling = doubling;
        self
    }

    /// Time between two runs that remove expired leases. Default 60 s.
    ///
    /// Spring `eureka.server.eviction-interval-timer-in-ms`, Netflix `eureka.evictionIntervalTimerInMs`.
    pub fn eviction_interval(mut self, interval: Duration) -> Self {
        self.settings.eviction_interval = interval;
        self
    }

    /// Whether evictions stop while too few heartbeats come. Default true.
    ///
    /// Then the fault is more likely the network's than the instances'. Without it, an eviction run still takes at most the share
    /// of the registry that [`renewal_percent_threshold`](Self::renewal_percent_threshold) leaves.
    ///
    /// Spring `eureka.server.enable-self-preservation`, Netflix `eureka.enableSelfPreservation`.
    pub fn self_preservation(mut self, enabled: bool) -> Self {
        self.settings.self_preservation = enabled;
        self
    }

    /// Whether self-preservation looks at each application by itself, and at the interval that each of its instances announced. Default
    /// false: it looks at all together, as a Java server does.
    ///
    /// Each instance is expected to be heard within two of its own intervals (`leaseInfo.renewalIntervalInSecs`, 30 s if it named none);
    /// if it is not, or its lease has expired, it is silent. At the beginning of each eviction run:
    ///
    /// * An application of which more instances are silent than a run may take of so many is preserved: it loses nothing in this run,
    ///   and what expired of it goes on being shown. With a [share](Self::renewal_percent_threshold) of 0.85 that is more than one
    ///   of up to six, more than two of ten, more than fifteen of a hundred.
    /// * All other applications are judged together in the same way, and lose nothing if too many of their instances are silent, or all.
    ///   If this server was cut off, or an application has one instance only, its own count says too little.
    /// * Those that were replaced do not count as silent: as many as are heard that came UP for the first time after the first of the silent
    ///   was last heard. So instances that were killed and came back under other ids are evicted, however many they were.
    ///
    /// So one that lost its network does not stop the eviction of what died elsewhere; one of two instances can be evicted, which takes
    /// seven in all by Java's count; and an instance with a heartbeat every five minutes does not make the others look silent. Of no use
    /// without [`self_preservation`](Self::self_preservation); [`expected_renewal_interval`](Self::expected_renewal_interval) does not
    /// matter then.
    ///
    /// Spring has no such setting; here it is `eureka.server.self-preservation-by-application`.
    pub fn preservation_by_application(mut self, enabled: bool) -> Self {
        self.settings.preservation_by_application = enabled;
        self
    }

    /// Share of the expected heartbeats that must have come in the last minute for evictions to go on, and of the registry that one
    /// eviction run leaves alone. Above 0, at most 1. Default 0.85.
    ///
    /// Spring `eureka.server.renewal-percent-threshold`, Netflix `eureka.renewalPercentThreshold`.
    pub fn renewal_percent_threshold(mut self, share: f64) -> Self {
        self.settings.renewal_percent_threshold = share;
        self
    }

    /// How often instances are expected to send heartbeats. Default 30 s.
    ///
    /// One number for all; what the instances announce in their leases is looked at only
    /// [by application](Self::preservation_by_application). Spring
    /// `eureka.server.expected-client-renewal-interval-seconds`, Netflix `eureka.expectedClientRenewalIntervalSeconds`.
    pub fn expected_renewal_interval(mut self, interval: Duration) -> Self {
        self.settings.expected_renewal_interval = interval;
        self
    }

    /// How long the delta tells a change. Default 180 s.
    ///
    /// A client that asks less often than this misses changes, notices by the hash, and fetches everything. Spring
    /// `eureka.server.retention-time-in-m-s-in-delta-queue`, Netflix `eureka.retentionTimeInMSInDeltaQueue`.
    pub fn delta_retention(mut self, retention: Duration) -> Self {
        self.settings.delta_retention = retention;
        self
    }

    /// Whether there are deltas. Default true. Without them `GET apps/delta` is a 403, with which Java clients fetch everything, in the same
    /// cycle; others may take it for a failure.
    ///
    /// Spring `eureka.server.disable-delta`, Netflix `eureka.disableDelta`, which say the opposite.
    pub fn delta(mut self, delta: bool) -> Self {
        self.deltas = delta;
        self
    }

    /// Whether lists stay as they are for [a while](Self::read_only_cache_interval), as on a Java server, instead of showing each change
    /// at once. Default false, unlike there.
    ///
    /// Answers are made once per change anyway, and only if somebody asks; the cache bounds what many changes cost. An instance that is
    /// asked for by its id is never answered from it.
    ///
    /// Spring `eureka.server.use-read-only-response-cache`, Netflix `eureka.shouldUseReadOnlyResponseCache`.
    pub fn read_only_cache(mut self, enabled: bool) -> Self {
        self.read_only_cache = enabled;
        self
    }

    /// How old an answer of the [read-only cache](Self::read_only_cache) can get. Default 30 s.
    ///
    /// Spring `eureka.server.response-cache-update-interval-ms`, Netflix `eureka.responseCacheUpdateIntervalMs`.
    pub fn read_only_cache_interval(mut self, interval: Duration) -> Self {
        self.read_only_cache_interval = interval;
        self
    }

    /// Most bytes that the keys and values of an instance's metadata have together. Default 64 KiB. A registration with more is
    /// answered with 413, and so is a change that would make it more.
    pub fn metadata_limit(mut self, bytes: usize) -> Self {
        self.settings.metadata_limit = bytes;
        self
    }

    /// Most instances of one application, at least one. Default 10,000. The registration of one more is answered with 400.
    pub fn application_limit(mut self, instances: usize) -> Self {
        self.settings.application_limit = instances;
        self
    }

    /// Maximum number of bytes of each name of an instance: its id, application, host name, IP address, each of its VIP addresses, and the
    /// names of its groups. Defaults to 1 KiB. A registration with a longer one gets 413.
    pub fn name_limit(mut self, bytes: usize) -> Self {
        self.settings.name_limit = bytes;
        self
    }

    /// Maximum size of an instance in bytes: all its texts, and 96 bytes for each entry of its metadata. Defaults to 64 KiB. A
    /// registration of a larger one gets 413, and so does a change of metadata that would make it larger.
    pub fn instance_size_limit(mut self, bytes: usize) -> Self {
        self.settings.instance_size_limit = bytes;
        self
    }

    /// Maximum number of instances in the registry. Defaults to 500,000. The registration of one more gets 507.
    pub fn registry_limit(mut self, instances: usize) -> Self {
        self.settings.registry_limit = instances;
        self
    }

    /// Maximum size of the registry in bytes. Defaults to a twentieth of the memory that this process may use, by its cgroup or by the
    /// size of the machine, at least 16 MiB, and to 256 MiB where neither is known.
    ///
    /// An instance counts as its texts and about 1 KiB. Characters that JSON or XML escapes count six times, and an application counts
    /// as 1 KiB. All lists together, in every form and encoding, take up to about twelve times as much memory as the instances that
    /// they show.
    ///
    /// New instances may take 15/16 of the size; the registration of a further one gets 507. Known instances may grow within half of the
    /// rest. The registration of one that grows beyond gets 507, too, but its lease, status and version are taken. Heartbeats,
    /// cancellations, and registrations that do not grow need no room.
    ///
    /// In a full registry, silent instances give way to new ones, also under self-preservation: those whose lease has expired, and those
    /// without a heartbeat for a third of their lease, which counts as at least 90 seconds and at most 10 minutes.
    ///
    /// Instances that left stay in the delta within a quarter of the limit, as long as the others leave room, and not
    /// more of them than are registered or than 16 MiB; clients that miss one of them find another apps hash, and fetch everything.
    pub fn registry_size_limit(mut self, bytes: usize) -> Self {
        self.registry_size_limit = Some(bytes);
        self
    }

    /// Maximum duration of a lease, at least a second. Defaults to a day. A longer one is cut to it.
    pub fn lease_limit(mut self, duration: Duration) -> Self {
        self.settings.lease_limit_secs = duration.as_secs().try_into().unwrap_or(i32::MAX);
        self
    }

    /// Maximum length of a registration's body in bytes, before and after decompression. Defaults to 1 MiB. A longer one
    /// gets 413.
    pub fn registration_limit(mut self, bytes: usize) -> Self {
        self.registration_limit = bytes;
        self
    }

    /// Maximum length of a replication batch's body in bytes, before and after decompression. Defaults to 10 MiB. A longer
    /// one gets 413.
    pub fn batch_limit(mut self, bytes: usize) -> Self {
        self.batch_limit = bytes;
        self
    }

    /// Sets the maximum number of response bytes that are in memory only because clients have not
    /// taken them yet. Defaults to 64 MiB.
    ///
    /// They are older lists, which no cache holds any more, and bodies of single responses; of the latter
    /// only those count that a [`Listener`](super::Listener) of this server sends. Beyond it, no new
    /// list is made: clients get the latest one for up to 30 seconds, and 503 with `Retry-After` for an application or a VIP without
    /// one. The listener closes connections that take less than 1 MB a second, see
    /// [`response_timeout`](super::Listener::response_timeout). A list that is larger is still sent, and so is every response to a write.
    ///
    /// Without a listener of this server, as under `axum::serve`, nobody closes such connections:
    /// then nothing is refused, and a warning is logged.
    pub fn response_limit(mut self, bytes: usize) -> Self {
        self.response_limit = bytes;
        self
    }

    /// Maximum number of bytes that the bodies of all requests in flight hold together. Defaults to 64 MiB.
    ///
    /// A body counts with the bytes that arrived, until its changes are applied. Bodies above 64 KiB leave a quarter of the
    /// budget to shorter ones. While there is no room for more, a body that has been arriving for more than 2 seconds gets
    /// 503 and `Retry-After`: the oldest of the address that holds most. If there is no such body, the one that needs room
    /// does; for 10 seconds, an address with several bodies then gets at most half. Addresses are known where
    /// [`Listener`](super::Listener) or `ConnectInfo` tells them. Requests without a body, as heartbeats are, need no room.
    ///
    /// Must be large enough that three quarters of it hold the longest body, see [`batch_limit`](Self::batch_limit).
    pub fn request_bytes_in_flight(mut self, bytes: usize) -> Self {
        self.bytes_in_flight = bytes;
        self
    }

    /// Allows registrations and replication batches with `Content-Encoding: gzip`. Defaults to false: they get 415.
    ///
    /// A few bytes of gzip unfold to many, and no client and no Spring server sends it. Netflix servers of the 1.x line do
    /// with `eureka.enableReplicatedRequestCompression`, which is off by default. A body may unfold to 100 times its length at
    /// most, and within the limits of other bodies; one that is longer gets 413.
    pub fn gzip_requests(mut self, allowed: bool) -> Self {
        self.gzip_requests = allowed;
        self
    }

    /// Makes the registry, empty, and starts its timers.
    ///
    /// # Errors
    /// When a setting can't work, or when it is called outside of a tokio runtime, which the timers need.
    ///
    /// # Panics
    /// When the tokio runtime was built without its timer.
    pub fn build(self) -> Result<EurekaServer, Error> {
        #[cfg(feature = "peers")]
        let peers = self.peers;
        let (settings, registration_limit, batch_limit) = (self.settings, self.registration_limit, self.batch_limit);
        let Settings { eviction_interval, expected_renewal_interval, renewal_percent_threshold: share, .. } = settings;
        if eviction_interval < Duration::from_millis(1) {
            return Err(Error::setting_of(
                "eviction_interval",
                "eureka.server.eviction-interval-timer-in-ms",
                "must be at least a millisecond",
            ));
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::setting_of(
                "renewal_percent_threshold",
                "eureka.server.renewal-percent-threshold",
                "must be above 0 and at most 1",
            ));
        }
        for (limit, name, property) in [
            (batch_limit, "batch_limit", "eureka.server.limits.batch-bytes"),
            (registration_limit, "registration_limit", "eureka.server.limits.registration-bytes"),
        ] {
            if limit > Intake::longest_body(self.bytes_in_flight) {
                return Err(Error::setting_of(
                    name,
                    property,
                    "must be at most three quarters of request_bytes_in_flight, eureka.server.limits.request-bytes-in-flight",
                ));
            }
        }
        if self.read_only_cache_interval < Duration::from_millis(1) {
            return Err(Error::setting_of(
                "read_only_cache_interval",
                "eureka.server.response-cache-update-interval-ms",
                "must be at least a millisecond",
            ));
        }
        for (is_zero, name, property) in [
            (
                expected_renewal_interval.is_zero(),
                "expected_renewal_interval",
                "eureka.server.expected-client-renewal-interval-seconds",
            ),
            (settings.application_limit == 0, "application_limit", "eureka.server.limits.instances-per-application"),
            (registration_limit == 0, "registration_limit", "eureka.server.limits.registration-bytes"),
            (batch_limit == 0, "batch_limit", "eureka.server.limits.batch-bytes"),
            (settings.lease_limit_secs == 0, "lease_limit", "eureka.server.limits.lease-seconds"),
            (settings.name_limit == 0, "name_limit", "eureka.server.limits.name-bytes"),
            (settings.instance_size_limit == 0, "instance_size_limit", "eureka.server.limits.instance-bytes"),
            (settings.registry_limit == 0, "registry_limit", "eureka.server.limits.instances"),
            (self.registry_size_limit == Some(0), "registry_size_limit", "eureka.server.limits.registry-bytes"),
        ] {
            if is_zero {
                return Err(Error::setting_of(name, property, "must not be zero"));
            }
        }
        self.limits.check()?;
        #[cfg(feature = "peers")]
        peers.check()?;
        Handle::try_current().map_err(Error::no_runtime)?;

        let settings = Settings {
            registry_size_limit: self.registry_size_limit.unwrap_or_else(default_registry_size),
            ..settings
        };
        let clock = Clock::start();
        #[cfg(feature = "peers")]
        let compare_versions = peers.take_newer_copies;
        #[cfg(feature = "peers")]
        let tombstone_retention = peers.tombstone_retention();
        #[cfg(feature = "peers")]
        let regions = Regions::new(&self.regions, &peers)?;
        #[cfg(feature = "peers")]
        let peers = peers.with_renewal_interval(expected_renewal_interval);
        #[cfg(feature = "peers")]
        let peers = Peers::new(peers, regions.clone(), clock)?;
        #[cfg(feature = "peers")]
        let settings = Settings {
            own_id: peers.own_id(),
            compare_versions,
            tombstone_retention: if peers.has_cluster() { tombstone_retention } else { Duration::ZERO },
            ..settings
        };
        let registry = Arc::new(Registry::new(settings.clone()));
        let refusals = Arc::<super::http::Refusals>::default();
        let timers = Timers::start(&registry, refusals.clone(), &settings, clock);
        let node = Node::new(
            registry,
            clock,
            #[cfg(feature = "peers")]
            peers,
        );
        let node = Arc::new(node);
        let unsent = Arc::new(Unsent::new(self.response_limit));
        let responses =
            ResponseCache::new(self.read_only_cache.then_some(self.read_only_cache_interval), clock, unsent.clone());
        Ok(EurekaServer(Arc::new(Inner {
            #[cfg(feature = "peers")]
            _peers: Peers::start(&node),
            #[cfg(feature = "peers")]
            _copies: regions
                .as_ref()
                .map(|regions| regions.start(node.registry(), clock, settings.delta_retention_ms())),
            node,
            #[cfg(feature = "peers")]
            responses: match &regions {
                Some(regions) => responses.with_regions(regions.clone()),
                None => responses,
            },
            #[cfg(not(feature = "peers"))]
            responses,
            unsent,
            #[cfg(feature = "peers")]
            regions,
            intake: Intake::new(self.bytes_in_flight, self.gzip_requests),
            registration_limit,
            batch_limit,
            deltas: self.deltas,
            limits: self.limits,
            refusals,
            _timers: timers,
        })))
    }
}

/// Share of the memory that the registry may take by default, without the lists that are made of it.
const REGISTRY_SHARE: usize = 20;
const MIN_REGISTRY_SIZE: usize = 16 * 1024 * 1024;

fn default_registry_size() -> usize {
    let Some((memory, source)) = memory::limit() else { return Settings::default().registry_size_limit };
    let bytes = (memory / REGISTRY_SHARE).max(MIN_REGISTRY_SIZE);
    tracing::debug!(bytes, memory, source, "size of the registry is limited by the memory");
    bytes
}
