use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::region::Region;
use crate::config::{ClientConfig, ServiceUrl};
use crate::error::Kind;
use crate::model::app_name;
use crate::server::peers::PeerSettings;
use crate::server::view::RegionSet;
use crate::server::{Error, EurekaServerBuilder};
use crate::transport::Transport;

/// The white list of the regions that have none.
const GLOBAL: &str = "global";
/// What servers are asked for that are to leave out all other regions.
const NONE: &str = "none";

/// What a server is told about other regions. The setters of [`EurekaServerBuilder`] document each.
#[derive(Clone, Debug)]
pub(crate) struct RegionSettings {
    urls: BTreeMap<String, Vec<ServiceUrl>>,
    /// By region, names in upper case.
    whitelists: BTreeMap<String, HashSet<Arc<str>>>,
    interval: Duration,
    delta: bool,
    pub(super) fallback: bool,
    connect_timeout: Duration,
    read_timeout: Duration,
    faulty: Option<Arc<crate::Error>>,
}

impl Default for RegionSettings {
    fn default() -> Self {
        Self {
            urls: BTreeMap::new(),
            whitelists: BTreeMap::new(),
            interval: Duration::from_secs(30),
            delta: true,
            fallback: true,
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(5),
            faulty: None,
        }
    }
}

impl RegionSettings {
    pub(crate) fn names(&self) -> Vec<String> {
        self.urls.keys().cloned().collect()
    }

    pub(super) fn regions(&self, peers: &PeerSettings) -> Result<Vec<Arc<Region>>, Error> {
        if let Some(faulty) = self.faulty.clone() {
            return Err(Error::region(faulty));
        }
        for region in self.whitelists.keys().filter(|name| *name != GLOBAL && !self.urls.contains_key(*name)) {
            tracing::warn!(region, "white list has no effect: there is no remote region of this name");
        }
        if self.urls.is_empty() {
            return Ok(Vec::new());
        }
        for (time, name, property) in [
            (self.interval, "remote_region_interval", "eureka.server.remote-region-registry-fetch-interval"),
            (self.connect_timeout, "remote_region_connect_timeout", "eureka.server.remote-region-connect-timeout-ms"),
            (self.read_timeout, "remote_region_read_timeout", "eureka.server.remote-region-read-timeout-ms"),
        ] {
            if time.is_zero() {
                return Err(Error::setting_of(name, property, "must not be zero"));
            }
        }
        if self.urls.len() > RegionSet::MAX {
            return Err(Error::setting("remote_region", "is for at most 32 regions"));
        }
        let secure = self.urls.values().flatten().find(|url| url.is_secure());
        if let Some(url) = secure {
            peers.can_tls().map_err(|why| Error::no_tls(url.as_str(), &why))?;
        }
        let stack = peers.stack(self.connect_timeout, self.read_timeout);
        let config = ClientConfig { fetch_interval: self.interval, delta: self.delta, ..ClientConfig::default() };
        let region = |(name, urls): (&String, &Vec<ServiceUrl>)| {
            let whitelist = self.whitelists.get(name).or_else(|| self.whitelists.get(GLOBAL)).cloned();
            let transport = Transport::new(urls.clone(), stack.clone()).for_server();
            let transport = transport.without_other_regions().with_unfiltered_fallback();
            Arc::new(Region::new(name.as_str().into(), whitelist, transport, config.clone()))
        };
        Ok(self.urls.iter().map(region).collect())
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

/// Other regions: read-only copies of their registries, shown beside what is registered here.
///
/// Nothing of them is replicated, leased, evicted or counted. What was last known of a region that does not answer stays, as in Java. What
/// one that answers has no more without saying that it left, as after a restart, stays for its lease, at least 90 s; an empty answer alone
/// takes nothing away.
#[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
impl EurekaServerBuilder {
    /// Adds a region, by its name in any case and the URL of a registry server there: `http://registry.eu:8761/eureka/`. Of several with
    /// commas between them the one is asked that answered last, then the others. The same name again replaces the URLs. At most 32.
    ///
    /// `GET apps` and `GET apps/delta` show what is registered here and in the regions that the parameter `regions` names, in all regions
    /// without it; VIPs are looked up in all, applications and instances in the regions if they are not here. Of two instances of one
    /// application with one id the one here counts, then that of the first region by name.
    ///
    /// Of a region it copies what is registered there, not what that knows of others; to a registry server that asks (a header tells it) it
    /// shows the same. So two regions can be copies of each other. Until each region was asked once, lists are a 403, for at most
    /// 10 s; with the parameter `regions`, until each was fetched.
    ///
    /// Spring `eureka.server.remote-region-urls-with-name.<region>`, Netflix `eureka.remoteRegionUrlsWithName`.
    ///
    /// # Memory
    /// The registry of each region, and the answers: as for the registry alone once more for the regions of those who name none, and
    /// for eight other choices of regions, those that were asked for last and within some minutes. Answers about these are made one at a time, so
    /// that whoever names ever other regions takes no more than one core; others who name regions wait for their turn then.
    pub fn remote_region(mut self, name: impl AsRef<str>, urls: impl AsRef<str>) -> Self {
        if let Err(error) = self.regions.set(name.as_ref(), urls.as_ref()) {
            self.regions.faulty = self.regions.faulty.take().or(Some(Arc::new(error)));
        }
        self
    }

    /// Several at once, as Netflix has them: `eu;http://eu/eureka/,asia;http://asia/eureka/`.
    pub(crate) fn remote_regions(mut self, list: &str) -> Self {
        for region in list.split(',').map(str::trim).filter(|region| !region.is_empty()) {
            let (name, url) = region.split_once(';').unwrap_or((region, ""));
            self = self.remote_region(name, url);
        }
        self
    }

    /// The applications that lists show of a region, with commas between them; none, if it is empty. Default all. Those of the region `global`
    /// are for all regions that have none of their own.
    ///
    /// Names in any case. As in Java, an application or instance that is looked up by its name is found all the same. Spring
    /// `eureka.server.remote-region-app-whitelist.<region>`, Netflix `eureka.remoteRegion.<region>.appWhiteList`.
    pub fn remote_region_whitelist(mut self, region: impl AsRef<str>, apps: impl AsRef<str>) -> Self {
        let apps = apps.as_ref().split(',').map(str::trim).filter(|app| !app.is_empty()).map(app_name);
        self.regions.whitelists.insert(region.as_ref().trim().to_lowercase(), apps.collect());
        self
    }

    /// Whether those who name no regions see all of them. Default true. Else lists show what is registered here, and applications are looked up
    /// here alone; instances are looked up in all regions in any case.
    ///
    /// Spring `eureka.server.disable-transparent-fallback-to-other-region`, Netflix `eureka.remoteRegion.disable.transparent.fallback`,
    /// which say the opposite.
    pub fn remote_region_fallback(mut self, enabled: bool) -> Self {
        self.regions.fallback = enabled;
        self
    }

    /// Time between two looks at a region, give or take a tenth. Default 30 s. One that does not answer is asked again after 1 s, and ever
    /// later up to this.
    ///
    /// Spring `eureka.server.remote-region-registry-fetch-interval`, Netflix `eureka.remoteRegion.registryFetchIntervalInSeconds`.
    pub fn remote_region_interval(mut self, interval: Duration) -> Self {
        self.regions.interval = interval;
        self
    }

    /// Whether regions are asked for what changed, instead of everything each time. Default true.
    ///
    /// Spring `eureka.server.disable-delta-for-remote-regions`, Netflix `eureka.disableDeltaForRemoteRegions`, which say the opposite.
    pub fn remote_region_delta(mut self, delta: bool) -> Self {
        self.regions.delta = delta;
        self
    }

    /// How long a connection to a region may take. Default 2 s, as in Netflix' server; Spring's has 1 s.
    ///
    /// Spring `eureka.server.remote-region-connect-timeout-ms`, Netflix `eureka.remoteRegionConnectTimeoutMs`.
    pub fn remote_region_connect_timeout(mut self, timeout: Duration) -> Self {
        self.regions.connect_timeout = timeout;
        self
    }

    /// How long a region may take to begin an answer, and to go on with it. Default 5 s, as in Netflix' server; Spring's has 1 s.
    ///
    /// Spring `eureka.server.remote-region-read-timeout-ms`, Netflix `eureka.remoteRegionReadTimeoutMs`.
    pub fn remote_region_read_timeout(mut self, timeout: Duration) -> Self {
        self.regions.read_timeout = timeout;
        self
    }
}
