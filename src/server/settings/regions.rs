use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::check_not_zero;
use crate::config::ServiceUrl;
use crate::error::Kind;
use crate::model::app_name;
use crate::server::Error;

/// Name under which the white list of regions without their own is set.
const GLOBAL: &str = "global";
/// Value of the parameter `regions` that excludes all other regions.
const NONE: &str = "none";

/// Other regions: read-only copies of their registries, shown beside the instances of this
/// registry.
///
/// Their instances are not replicated, leased, evicted or counted here. If a region does not
/// respond, its last copy remains, as in Java. An instance that disappears from a region without a
/// cancellation, as after a restart of its registry, remains for its lease, and for at least 90
/// seconds. An empty response alone removes nothing.
///
/// TLS and the HTTP service for requests to regions are those of the [peers](super::Peers).
///
/// ```
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::Regions;
///
/// let regions = Regions::new().region("eu", "http://registry.eu:8761/eureka/");
/// let builder = EurekaServer::builder().regions(regions);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
#[must_use]
pub struct Regions {
    pub(in crate::server) urls: BTreeMap<String, Vec<ServiceUrl>>,
    /// By region. Application names are in upper case.
    whitelists: BTreeMap<String, HashSet<Arc<str>>>,
    pub(in crate::server) interval: Duration,
    pub(in crate::server) delta: bool,
    pub(in crate::server) fallback: bool,
    pub(in crate::server) connect_timeout: Duration,
    pub(in crate::server) read_timeout: Duration,
    /// The first unusable setting.
    fault: Option<Arc<crate::Error>>,
}

impl Default for Regions {
    fn default() -> Self {
        Self {
            urls: BTreeMap::new(),
            whitelists: BTreeMap::new(),
            interval: Duration::from_secs(30),
            delta: true,
            fallback: true,
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(5),
            fault: None,
        }
    }
}

impl Regions {
    /// Creates the settings with their defaults: no other regions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a region by its name, in any case, and the URLs of registry servers there:
    /// `http://registry.eu:8761/eureka/`. At most 32 regions can be added.
    ///
    /// Of several URLs, separated by commas, the server that responded last is asked first. The
    /// same name again replaces the URLs.
    ///
    /// `GET apps` and `GET apps/delta` show the instances of this registry and of the regions in
    /// the parameter `regions`, or of all regions without the parameter. VIPs are looked up in all
    /// regions, applications and instances in other regions if they are not here. Of two instances
    /// of one application with the same id, the one of this registry is shown, then the one of the
    /// first region by name.
    ///
    /// The copy of a region contains its own instances only, not its copies of others. A registry
    /// server that asks for a copy, which a header shows, receives the same. So two regions can be
    /// copies of each other. Lists get 403 until each region was asked once, for at most 10
    /// seconds; with the parameter `regions`, until each was fetched.
    ///
    /// Spring `eureka.server.remote-region-urls-with-name.<region>`, Netflix
    /// `eureka.remoteRegionUrlsWithName`.
    ///
    /// # Memory
    /// Each region takes the memory of its registry. The cached lists of all regions together take
    /// as much as those of a single registry of that size, and so do the lists of each of eight
    /// other sets of regions, those that were requested last and within some minutes. Lists of
    /// these sets are built one at a time, so requests for ever new sets take no more than one
    /// core; meanwhile other requests with regions wait.
    pub fn region(mut self, name: impl AsRef<str>, urls: impl AsRef<str>) -> Self {
        if let Err(error) = self.set(name.as_ref(), urls.as_ref()) {
            self.fault = self.fault.take().or(Some(Arc::new(error)));
        }
        self
    }

    /// Adds several regions in the form of Netflix:
    /// `eu;http://eu/eureka/,asia;http://asia/eureka/`.
    pub(crate) fn list(mut self, list: &str) -> Self {
        for region in list.split(',').map(str::trim).filter(|region| !region.is_empty()) {
            let (name, url) = region.split_once(';').unwrap_or((region, ""));
            self = self.region(name, url);
        }
        self
    }

    /// Sets the applications of a region that lists show, separated by commas. An empty list shows
    /// none. Defaults to all. The list of the region `global` is for all regions without a list of
    /// their own.
    ///
    /// Names may be in any case. As in Java, the list does not apply to an application or an
    /// instance that is looked up by its name. Spring
    /// `eureka.server.remote-region-app-whitelist.<region>`, Netflix
    /// `eureka.remoteRegion.<region>.appWhiteList`.
    pub fn whitelist(mut self, region: impl AsRef<str>, apps: impl AsRef<str>) -> Self {
        let apps = apps.as_ref().split(',').map(str::trim).filter(|app| !app.is_empty()).map(app_name);
        self.whitelists.insert(region.as_ref().trim().to_lowercase(), apps.collect());
        self
    }

    /// Shows all regions to clients that name none. Defaults to true.
    ///
    /// Otherwise lists show this registry only, and applications are looked up in this registry
    /// only. Instances are looked up in all regions in any case. Spring
    /// `eureka.server.disable-transparent-fallback-to-other-region`, Netflix
    /// `eureka.remoteRegion.disable.transparent.fallback`, which have the opposite meaning.
    pub fn fallback(mut self, enabled: bool) -> Self {
        self.fallback = enabled;
        self
    }

    /// Sets the time between two fetches of a region, varied by up to a tenth. Defaults to 30
    /// seconds.
    ///
    /// A region that does not respond is fetched again after 1 second, and then after ever longer
    /// pauses up to this time. Spring `eureka.server.remote-region-registry-fetch-interval`,
    /// Netflix `eureka.remoteRegion.registryFetchIntervalInSeconds`.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Fetches the delta of a region instead of everything each time. Defaults to true.
    ///
    /// Spring `eureka.server.disable-delta-for-remote-regions`, Netflix
    /// `eureka.disableDeltaForRemoteRegions`, which have the opposite meaning.
    pub fn delta(mut self, delta: bool) -> Self {
        self.delta = delta;
        self
    }

    /// Sets the connect timeout of requests to other regions. Defaults to 2 seconds, as in
    /// Netflix's server. Spring's server has 1 second.
    ///
    /// Spring `eureka.server.remote-region-connect-timeout-ms`, Netflix
    /// `eureka.remoteRegionConnectTimeoutMs`.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the maximum time until a region begins its response, and between two parts of it.
    /// Defaults to 5 seconds, as in Netflix's server. Spring's server has 1 second.
    ///
    /// Spring `eureka.server.remote-region-read-timeout-ms`, Netflix
    /// `eureka.remoteRegionReadTimeoutMs`.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.urls.keys().cloned().collect()
    }

    /// Returns the applications of a region that lists show, or `None` for all.
    pub(in crate::server) fn whitelist_of(&self, region: &str) -> Option<HashSet<Arc<str>>> {
        self.whitelists.get(region).or_else(|| self.whitelists.get(GLOBAL)).cloned()
    }

    /// Checks the settings. At most `max` regions may be set.
    pub(in crate::server) fn check(&self, max: usize) -> Result<(), Error> {
        if let Some(fault) = self.fault.clone() {
            return Err(Error::region(fault));
        }
        for region in self.whitelists.keys().filter(|name| *name != GLOBAL && !self.urls.contains_key(*name)) {
            tracing::warn!(region, "white list has no effect: there is no remote region of this name");
        }
        if self.urls.is_empty() {
            return Ok(());
        }
        if self.urls.len() > max {
            return Err(Error::setting("Regions::region", "is for at most 32 regions"));
        }
        check_not_zero(&[
            (self.interval.is_zero(), "Regions::interval", "eureka.server.remote-region-registry-fetch-interval"),
            (
                self.connect_timeout.is_zero(),
                "Regions::connect_timeout",
                "eureka.server.remote-region-connect-timeout-ms",
            ),
            (self.read_timeout.is_zero(), "Regions::read_timeout", "eureka.server.remote-region-read-timeout-ms"),
        ])
    }

    fn set(&mut self, name: &str, urls: &str) -> Result<(), crate::Error> {
        let unusable = |cause: &str| {
            // A URL in the place of a name may hold a password.
            let shown = if name.contains(['/', '@', ':']) { "..." } else { name };
            crate::Error::new(Kind::Config, "read remote regions")
                .cause(format!("'{shown}' {cause}"))
                .advice("write them like eu;http://registry.eu:8761/eureka/")
        };
        let name = name.trim().to_lowercase();
        if name.is_empty() || name == NONE || name.contains([',', ';', '/', '@', ':']) {
            return Err(unusable("is no name for a region"));
        }
        let urls = ServiceUrl::parse_list(urls)?;
        if urls.is_empty() {
            return Err(unusable("has no URL"));
        }
        self.urls.insert(name, urls);
        Ok(())
    }
}
