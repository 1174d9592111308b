//! URLs of registry servers by region and zone.

use std::collections::BTreeMap;

use crate::config::ServiceUrl;

/// Zone whose URLs are used for each zone without URLs of its own.
const DEFAULT_ZONE: &str = "defaultZone";

/// URLs of registry servers, by region and zone. Names are compared without case, since names of
/// environment variables have none.
#[derive(Clone, Debug)]
pub(in crate::server) struct Zones {
    pub(in crate::server) region: String,
    pub(in crate::server) prefer_same: bool,
    zones: BTreeMap<String, Vec<String>>,
    urls: BTreeMap<String, Vec<ServiceUrl>>,
}

impl Default for Zones {
    fn default() -> Self {
        Self { region: "us-east-1".into(), prefer_same: true, zones: BTreeMap::new(), urls: BTreeMap::new() }
    }
}

impl Zones {
    pub(in crate::server) fn set_zones(&mut self, region: String, zones: &str) {
        let zones = zones.split(',').map(|zone| zone.trim().to_lowercase()).filter(|zone| !zone.is_empty());
        self.zones.insert(region.to_lowercase(), zones.collect());
    }

    pub(in crate::server) fn add_urls(&mut self, zone: String, urls: Vec<ServiceUrl>) {
        self.urls.entry(zone.to_lowercase()).or_default().extend(urls);
    }

    pub(in crate::server) fn remove_urls(&mut self, zone: &str) {
        self.urls.remove(&zone.to_lowercase());
    }

    /// Returns the zones of the region and the default zone.
    pub(in crate::server) fn names(&self) -> Vec<String> {
        let zones = self.zones.get(&self.region.to_lowercase()).into_iter().flatten().cloned();
        let default = DEFAULT_ZONE.to_lowercase();
        std::iter::once(default.clone()).chain(zones.filter(move |zone| *zone != default)).collect()
    }

    /// Returns the zones with URLs that are not zones of the region.
    pub(in crate::server) fn unused(&self) -> impl Iterator<Item = &str> {
        let used = self.names();
        self.urls.keys().filter(move |zone| !used.contains(zone)).map(String::as_str)
    }

    /// Returns the zone of this node: the first of its region.
    #[cfg(feature = "dns")]
    pub(in crate::server) fn own(&self) -> &str {
        let zones = self.zones.get(&self.region.to_lowercase()).and_then(|zones| zones.first());
        zones.map_or(DEFAULT_ZONE, String::as_str)
    }

    /// Returns each URL of the region once, those of the preferred zone first.
    pub(in crate::server) fn urls(&self) -> Vec<ServiceUrl> {
        let default = [DEFAULT_ZONE.to_lowercase()];
        let zones = self.zones.get(&self.region.to_lowercase()).filter(|zones| !zones.is_empty());
        let zones = zones.map_or(&default[..], Vec::as_slice);
        // The node's own zone is the first.
        let first = if self.prefer_same { 0 } else { zones.iter().position(|zone| *zone != zones[0]).unwrap_or(0) };
        let mut urls: Vec<ServiceUrl> = Vec::new();
        for zone in zones.iter().cycle().skip(first).take(zones.len()) {
            let of_zone = self.urls.get(zone).filter(|urls| !urls.is_empty()).or_else(|| self.urls.get(&default[0]));
            for url in of_zone.into_iter().flatten() {
                if urls.iter().all(|known| known.as_str() != url.as_str()) {
                    urls.push(url.clone());
                }
            }
        }
        urls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(configure: impl FnOnce(&mut Zones)) -> Vec<String> {
        let mut zones = Zones::default();
        for (zone, urls) in
            [("defaultZone", "http://d/"), ("b", "http://b1/,http://b2/"), ("c", "http://c/,http://b1/")]
        {
            zones.add_urls(zone.into(), ServiceUrl::parse_list(urls).unwrap());
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
}
