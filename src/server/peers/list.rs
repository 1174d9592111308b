//! Who the peers are: URLs by region and zone, without the node's own. `server-behaviour` 8.2, 10.1, 10.2.

use std::collections::BTreeMap;

use http::Uri;

use crate::config::ServiceUrl;

/// The zone whose URLs serve for every zone that has none.
const DEFAULT_ZONE: &str = "defaultZone";

/// Where registry servers are, by region and zone. Names are compared without case, which environment variables can't spell.
#[derive(Clone, Debug)]
pub(super) struct Zones {
    pub(super) region: String,
    pub(super) prefer_same: bool,
    zones: BTreeMap<String, Vec<String>>,
    urls: BTreeMap<String, Vec<ServiceUrl>>,
}

impl Default for Zones {
    fn default() -> Self {
        Self { region: "us-east-1".into(), prefer_same: true, zones: BTreeMap::new(), urls: BTreeMap::new() }
    }
}

impl Zones {
    pub(super) fn set_zones(&mut self, region: String, zones: &str) {
        let zones = zones.split(',').map(|zone| zone.trim().to_lowercase()).filter(|zone| !zone.is_empty());
        self.zones.insert(region.to_lowercase(), zones.collect());
    }

    pub(super) fn add_urls(&mut self, zone: String, urls: Vec<ServiceUrl>) {
        self.urls.entry(zone.to_lowercase()).or_default().extend(urls);
    }

    pub(super) fn remove_urls(&mut self, zone: &str) {
        self.urls.remove(&zone.to_lowercase());
    }

    /// The zones of the region, and the one that serves for all.
    pub(super) fn names(&self) -> Vec<String> {
        let zones = self.zones.get(&self.region.to_lowercase()).into_iter().flatten().cloned();
        let default = DEFAULT_ZONE.to_lowercase();
        std::iter::once(default.clone()).chain(zones.filter(move |zone| *zone != default)).collect()
    }

    /// The zones that have URLs and are not zones of the region.
    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        let used = self.names();
        self.urls.keys().filter(move |zone| !used.contains(zone)).map(String::as_str)
    }

    /// The zone of this node: the first.
    #[cfg(feature = "dns")]
    pub(super) fn own(&self) -> &str {
        let zones = self.zones.get(&self.region.to_lowercase()).and_then(|zones| zones.first());
        zones.map_or(DEFAULT_ZONE, String::as_str)
    }

    /// All URLs of the region, each once, those of the zone to begin with first.
    pub(super) fn urls(&self) -> Vec<ServiceUrl> {
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

/// How a node knows its own URL.
#[derive(Clone, Debug)]
pub(super) struct Me<'a> {
    pub(super) url: Option<&'a str>,
    /// Host name and IP address.
    pub(super) hosts: [&'a str; 2],
    pub(super) port: Option<u16>,
}

impl Me<'_> {
    /// Java compares the host alone, so two nodes on one host lose each other; here the port has to be the same as well.
    pub(super) fn is(&self, url: &ServiceUrl) -> bool {
        if let Some(mine) = self.url {
            return mine.trim_end_matches('/') == url.as_str().trim_end_matches('/');
        }
        let Ok(uri) = url.as_str().parse::<Uri>() else { return false };
        let port = uri.port_u16().unwrap_or(if url.is_secure() { 443 } else { 80 });
        uri.host().is_some_and(|host| self.hosts.contains(&host)) && self.port.is_none_or(|own| own == port)
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
    fn the_zones_of_the_region_in_their_order() {
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
    fn a_node_knows_its_own_url() {
        let url = |text: &str| ServiceUrl::parse_list(text).unwrap().remove(0);
        let me = Me { url: None, hosts: ["node1", "10.0.0.1"], port: Some(8761) };
        for (text, expected) in [
            ("http://node1:8761/eureka/", true),
            ("http://user:password@node1:8761/eureka", true),
            ("http://10.0.0.1:8761/eureka", true),
            ("http://node1:8762/eureka/", false),
            ("http://node1/eureka/", false),
            ("http://Node1:8761/eureka/", false),
            ("http://node2:8761/eureka/", false),
        ] {
            assert_eq!(me.is(&url(text)), expected, "{text}");
        }
        assert!(Me { port: None, ..me.clone() }.is(&url("http://node1:8762/")), "without a port the host decides");
        let named = Me { url: Some("http://lb/eureka"), ..me };
        assert!(named.is(&url("http://lb/eureka/")) && !named.is(&url("http://node1:8761/eureka/")));
    }
}
