//! URLs of registry servers by region and zone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ServiceUrl;

/// Zone whose URLs are used for each zone without URLs of its own.
pub(crate) const DEFAULT_ZONE: &str = "defaultZone";

/// URLs of registry servers, by region and zone. Names are compared without case, since names of
/// environment variables have none.
#[derive(Clone, Debug)]
pub(crate) struct Zones {
    pub(crate) region: String,
    pub(crate) prefer_same: bool,
    zones: BTreeMap<String, Vec<String>>,
    urls: BTreeMap<String, Vec<ServiceUrl>>,
}

/// Registry server in a list, with its zone.
#[derive(Clone, Debug)]
pub(crate) struct ListedServer {
    pub(crate) url: ServiceUrl,
    pub(crate) zone: Arc<str>,
    /// Position of the zone in the order of preference. Servers with the same rank are equally
    /// good.
    pub(crate) rank: usize,
}

impl Default for Zones {
    fn default() -> Self {
        Self { region: "us-east-1".into(), prefer_same: true, zones: BTreeMap::new(), urls: BTreeMap::new() }
    }
}

impl Zones {
    pub(crate) fn set_zones(&mut self, region: String, zones: &str) {
        let zones = zones.split(',').map(str::trim).filter(|zone| !zone.is_empty()).map(str::to_owned);
        self.zones.insert(key(&region), zones.collect());
    }

    pub(crate) fn add_urls(&mut self, zone: &str, urls: Vec<ServiceUrl>) {
        ServiceUrl::merge(self.urls.entry(key(zone)).or_default(), urls);
    }

    pub(crate) fn remove_urls(&mut self, zone: &str) {
        self.urls.remove(&key(zone));
    }

    pub(crate) fn clear_urls(&mut self) {
        self.urls.clear();
    }

    /// Returns the zones of the region and the default zone, in lower case.
    #[cfg(feature = "peers")]
    pub(crate) fn names(&self) -> Vec<String> {
        let zones = self.zones.get(&key(&self.region)).into_iter().flatten().map(|zone| zone.to_lowercase());
        let default = key(DEFAULT_ZONE);
        std::iter::once(default.clone()).chain(zones.filter(move |zone| *zone != default)).collect()
    }

    /// Returns the zones that are configured for a region, without the default zone.
    pub(crate) fn of(&self, region: &str) -> impl Iterator<Item = &str> {
        let zones = self.zones.get(&key(region)).into_iter().flatten().map(String::as_str);
        zones.filter(|zone| key(zone) != key(DEFAULT_ZONE))
    }

    /// Returns the zones with URLs that are used in no zone of the region.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &str> {
        let (zones, default) = (self.of_region(), key(DEFAULT_ZONE));
        let is_used = move |zone: &String| *zone == default || zones.iter().any(|known| key(known) == *zone);
        self.urls.keys().filter(move |zone| !is_used(zone)).map(String::as_str)
    }

    /// Returns the zone of this process: the first of its region.
    #[cfg(feature = "dns")]
    pub(crate) fn own(&self) -> &str {
        let zones = self.zones.get(&key(&self.region)).and_then(|zones| zones.first());
        zones.map_or(DEFAULT_ZONE, String::as_str)
    }

    /// Returns the zone of this process as it was configured: the first of its region.
    pub(crate) fn configured_zone(&self) -> Option<&str> {
        let zone = self.zones.get(&key(&self.region))?.first()?;
        Some(zone.as_str()).filter(|zone| key(zone) != key(DEFAULT_ZONE))
    }

    /// Returns the rank of a server in this zone: those of the region in their order, then all
    /// others. If the own zone is not preferred, all have the same rank.
    pub(crate) fn rank(&self, zone: Option<&str>) -> usize {
        let zones = self.of_region();
        let position = || zones.iter().position(|known| zone.is_some_and(|zone| key(zone) == key(known)));
        if self.prefer_same { position().unwrap_or(zones.len()) } else { 0 }
    }

    /// Returns each URL of the region once, those of the preferred zone first.
    #[cfg(feature = "peers")]
    pub(crate) fn urls(&self) -> Vec<ServiceUrl> {
        self.servers().into_iter().map(|server| server.url).collect()
    }

    /// Returns each server of the region once, those of the preferred zone first.
    ///
    /// The zones after the preferred one keep their order. If the own zone is not preferred, all
    /// servers have the same rank.
    pub(crate) fn servers(&self) -> Vec<ListedServer> {
        let (zones, default) = (self.of_region(), key(DEFAULT_ZONE));
        // The own zone is the first.
        let first =
            if self.prefer_same { 0 } else { zones.iter().position(|zone| key(zone) != key(&zones[0])).unwrap_or(0) };
        let mut servers: Vec<ListedServer> = Vec::new();
        for (rank, name) in zones.iter().cycle().skip(first).take(zones.len()).enumerate() {
            let of_zone = self.urls.get(&key(name)).filter(|urls| !urls.is_empty()).or_else(|| self.urls.get(&default));
            let zone: Arc<str> = name.as_str().into();
            let rank = if self.prefer_same { rank } else { 0 };
            for url in of_zone.into_iter().flatten() {
                if !servers.iter().any(|known| known.url.as_str() == url.as_str()) {
                    servers.push(ListedServer { url: url.clone(), zone: zone.clone(), rank });
                }
            }
        }
        servers
    }

    /// Returns the zones of the region, in the configured order.
    fn of_region(&self) -> Vec<String> {
        let zones = self.zones.get(&key(&self.region)).filter(|zones| !zones.is_empty());
        zones.cloned().unwrap_or_else(|| vec![DEFAULT_ZONE.to_owned()])
    }
}

/// Returns the name of a region or zone as it is compared: without case, and with dashes, since
/// names of environment variables have underscores. The default zone is also known with a dash, the
/// form that other settings have.
fn key(zone: &str) -> String {
    let zone = zone.trim().to_lowercase().replace(['.', '_'], "-");
    if zone == "default-zone" || zone == "default" { DEFAULT_ZONE.to_lowercase() } else { zone }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(configure: impl FnOnce(&mut Zones)) -> Vec<String> {
        let mut zones = Zones::default();
        for (zone, urls) in
            [("defaultZone", "http://d/"), ("b", "http://b1/,http://b2/"), ("c", "http://c/,http://b1/")]
        {
            zones.add_urls(zone, ServiceUrl::parse_list(urls).unwrap());
        }
        configure(&mut zones);
        let urls = zones.urls();
        urls.iter().map(|url| url.as_str().trim_matches('/').trim_start_matches("http://").to_owned()).collect()
    }

    #[test]
    fn urls_of_a_region_follow_the_order_of_its_zones() {
        assert_eq!(zones(|_| {}), ["d"]);
        assert_eq!(zones(|z| z.set_zones("us-east-1".into(), "B, c")), ["b1", "b2", "c"]);
        assert_eq!(zones(|z| z.set_zones("us-east-1".into(), "a,b")), ["d", "b1", "b2"], "a has none of its own");
        assert_eq!(zones(|z| z.set_zones("elsewhere".into(), "b,c")), ["d"]);
        let elsewhere = zones(|z| {
            z.region = "Elsewhere".into();
            z.prefer_same = false;
            z.set_zones("elsewhere".into(), "a,b,c");
        });
        assert_eq!(elsewhere, ["b1", "b2", "c", "d"]);
    }

    #[test]
    fn servers_of_the_own_zone_have_the_first_rank_unless_no_zone_is_preferred() {
        let mut zones = Zones::default();
        for (zone, urls) in [("a", "http://a1/,http://a2/"), ("B", "http://b/,http://a1:80"), ("d", "http://d/")] {
            zones.add_urls(zone, ServiceUrl::parse_list(urls).unwrap());
        }
        zones.set_zones("us-east-1".into(), "b,a,c");
        let ranks = |zones: &Zones| -> Vec<String> {
            let line = |server: &ListedServer| format!("{} {} {}", server.url.as_str(), server.zone, server.rank);
            zones.servers().iter().map(line).collect()
        };
        assert_eq!(ranks(&zones), ["http://b/ b 0", "http://a1/ b 0", "http://a2/ a 1"]);
        assert_eq!(zones.unused().collect::<Vec<_>>(), ["d"]);
        zones.prefer_same = false;
        assert_eq!(ranks(&zones), ["http://a1/ a 0", "http://a2/ a 0", "http://b/ b 0"]);
    }
}
