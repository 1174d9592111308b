use super::check_not_zero;
use crate::server::Error;

/// Rate limits of requests. All are off by default.
///
/// ```
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::RateLimits;
///
/// let limits = RateLimits::new().per_address(50);
/// let builder = EurekaServer::builder().rate_limits(limits);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RateLimits {
    pub(in crate::server) enabled: bool,
    pub(in crate::server) throttles_standard_clients: bool,
    pub(in crate::server) privileged: Vec<String>,
    pub(in crate::server) burst: u32,
    pub(in crate::server) fetch_rate: u32,
    pub(in crate::server) full_fetch_rate: u32,
    pub(in crate::server) per_address: Option<u32>,
    pub(in crate::server) address_burst: Option<u32>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            enabled: false,
            throttles_standard_clients: false,
            privileged: Vec::new(),
            burst: 10,
            fetch_rate: 500,
            full_fetch_rate: 100,
            per_address: None,
            address_burst: None,
        }
    }
}

impl RateLimits {
    /// Seconds whose requests an address may send at once by default.
    pub(in crate::server) const BURST_SECS: u32 = 10;

    /// Creates the settings with their defaults: nothing is limited.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enables Java's limit on fetches of the registry, of its delta and of single applications,
    /// of all clients together. Defaults to false.
    ///
    /// A fetch beyond [`fetch_rate`](Self::fetch_rate), or a full fetch beyond
    /// [`full_fetch_rate`](Self::full_fetch_rate), gets 503 with `Retry-After`. Stock Java clients
    /// and servers are exempt, see [`throttle_standard_clients`](Self::throttle_standard_clients).
    ///
    /// Spring `eureka.server.rate-limiter-enabled`, Netflix `eureka.rateLimiter.enabled`.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets whether the limit on fetches applies to all clients. Defaults to false: clients that
    /// send `DefaultClient` or `DefaultServer` as `DiscoveryIdentity-Name`, as stock ones do, or a
    /// [privileged](Self::privileged_clients) name are exempt.
    ///
    /// The header is not verified. Spring `eureka.server.rate-limiter-throttle-standard-clients`,
    /// Netflix `eureka.rateLimiter.throttleStandardClients`.
    pub fn throttle_standard_clients(mut self, throttle: bool) -> Self {
        self.throttles_standard_clients = throttle;
        self
    }

    /// Sets further names of clients that are exempt from the limit on fetches. Defaults to none.
    ///
    /// Spring `eureka.server.rate-limiter-privileged-clients`, Netflix
    /// `eureka.rateLimiter.privilegedClients`.
    pub fn privileged_clients<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.privileged = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the number of fetches that may come at once. Defaults to 10. As in Java, zero admits
    /// everything.
    ///
    /// Spring `eureka.server.rate-limiter-burst-size`, Netflix `eureka.rateLimiter.burstSize`.
    pub fn burst(mut self, fetches: u32) -> Self {
        self.burst = fetches;
        self
    }

    /// Sets the average number of fetches per second. Defaults to 500. As in Java, zero admits
    /// everything.
    ///
    /// Spring `eureka.server.rate-limiter-registry-fetch-average-rate`, Netflix
    /// `eureka.rateLimiter.registryFetchAverageRate`.
    pub fn fetch_rate(mut self, per_second: u32) -> Self {
        self.fetch_rate = per_second;
        self
    }

    /// Sets the average number of fetches of the whole registry per second. Defaults to 100. As in
    /// Java, zero admits everything.
    ///
    /// Spring `eureka.server.rate-limiter-full-fetch-average-rate`, Netflix
    /// `eureka.rateLimiter.fullFetchAverageRate`.
    pub fn full_fetch_rate(mut self, per_second: u32) -> Self {
        self.full_fetch_rate = per_second;
        self
    }

    /// Sets the average number of requests per second from one address, whatever their kind.
    /// Defaults to no limit. A request beyond it gets 429 with `Retry-After`. Others are not
    /// affected.
    ///
    /// An IPv6 address counts by its first 64 bits. All clients behind one proxy or NAT share one
    /// address. Peers are limited, too: a node of a large cluster sends hundreds of requests in a
    /// second after an outage. Addresses are known where a [`Listener`](crate::server::Listener) or
    /// `ConnectInfo` provides them; others are not limited. At most 50,000 addresses are
    /// remembered; while so many are active, further ones are not limited.
    pub fn per_address(mut self, per_second: u32) -> Self {
        self.per_address = Some(per_second);
        self
    }

    /// Sets the number of requests from one address that may come at once. Defaults to the number
    /// of [`per_address`](Self::per_address) in ten seconds.
    pub fn address_burst(mut self, requests: u32) -> Self {
        self.address_burst = Some(requests);
        self
    }

    pub(in crate::server) fn check(&self) -> Result<(), Error> {
        check_not_zero(&[
            (self.per_address == Some(0), "RateLimits::per_address", "eureka.server.limits.requests-per-address"),
            (
                self.address_burst == Some(0),
                "RateLimits::address_burst",
                "eureka.server.limits.request-burst-per-address",
            ),
        ])
    }
}
