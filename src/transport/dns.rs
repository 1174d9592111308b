//! Service URLs from DNS, in the records that Java's clients and servers read.
//!
//! ```text
//!  txt.us-east-1.example.com   "zone-b.example.com zone-a.example.com"     zones of a region
//!  txt.zone-a.example.com      "eureka1.example.com eureka2.example.com"   servers of a zone
//! ```
//!
//! If a zone has no such record, that of its plain name is read: `zone-a.example.com`.

use std::net::Ipv6Addr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tower::BoxError;

use crate::config::{DnsServers, ListedServer, Zones, listed};
use crate::untrusted::Quoted;

/// Look-up of the servers of a region.
#[derive(Clone, Debug)]
pub(crate) struct DnsLookup {
    records: DnsServers,
    region: String,
    /// Zone of the caller.
    zone: String,
    /// Puts the servers of the caller's zone first if true, and those of another zone if false.
    prefer_same: bool,
}

impl DnsLookup {
    pub(crate) fn new(records: &DnsServers, zones: &Zones) -> Self {
        let (region, zone) = (zones.region.clone(), zones.own().to_owned());
        Self { records: records.clone(), region, zone, prefer_same: zones.prefer_same }
    }

    /// Looks up the servers, those of the preferred zone first.
    ///
    /// # Errors
    /// When one of the records is not available. A partial list would look as if servers had been
    /// removed.
    pub(crate) async fn servers(&self) -> Result<Vec<ListedServer>, BoxError> {
        if self.records.is_srv {
            return self.servers_of_srv().await;
        }
        let mut servers: Vec<ListedServer> = Vec::new();
        for (rank, zone) in self.zones().await?.into_iter().enumerate() {
            let rank = if self.prefer_same { rank } else { 0 };
            for server in listed(&self.urls(&zone.hosts), &zone.name.into(), rank)? {
                if !servers.iter().any(|known| known.url.as_str() == server.url.as_str()) {
                    servers.push(server);
                }
            }
        }
        Ok(servers)
    }

    /// Looks up the URLs in the order of a server, and returns them separated by commas. The hash
    /// of the server's host name decides the order in a zone, so that servers are spread and each
    /// of them always gets the same order.
    #[cfg(feature = "peers")]
    pub(crate) async fn rotated_urls(&self, own_host: &str) -> Result<String, BoxError> {
        if self.records.is_srv {
            let servers = self.servers_of_srv().await?;
            return Ok(servers.iter().map(|server| &**server.url.as_str()).collect::<Vec<_>>().join(","));
        }
        let zones = self.zones().await?.into_iter().map(|zone| zone.hosts).collect();
        Ok(self.urls(&rotated(zones, own_host)))
    }

    /// Returns the servers in an SRV record, those with the lowest priority number first.
    async fn servers_of_srv(&self) -> Result<Vec<ListedServer>, BoxError> {
        let name = format!("{}.", self.records.domain.trim_matches('.'));
        let response = self.resolver()?.srv_lookup(name.as_str()).await;
        let response = response.map_err(|error| format!("look up {}: {error}", Quoted(&name)))?;
        let mut found: Vec<_> = response
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => {
                    Some((srv.priority, srv.target.to_ascii().trim_end_matches('.').to_owned(), srv.port))
                }
                _ => None,
            })
            .collect();
        found.sort();
        let mut priorities: Vec<_> = found.iter().map(|(priority, ..)| *priority).collect();
        priorities.dedup();
        let mut servers: Vec<ListedServer> = Vec::new();
        for (priority, host, port) in found.iter().filter(|(_, host, _)| !host.is_empty()) {
            let rank = priorities.iter().position(|known| known == priority).unwrap_or(0);
            let server = listed(&self.url(host, *port), &self.zone.as_str().into(), rank);
            servers.extend(server.map_err(|error| format!("look up {}: {error}", Quoted(&name)))?);
        }
        Ok(servers)
    }

    fn urls(&self, hosts: &[String]) -> String {
        hosts.iter().map(|host| self.url(host, self.records.port)).collect::<Vec<_>>().join(",")
    }

    fn url(&self, host: &str, port: u16) -> String {
        let DnsServers { context, https, .. } = &self.records;
        let (scheme, path) = (if *https { "https" } else { "http" }, context.trim_matches('/'));
        match host.parse::<Ipv6Addr>() {
            Ok(ip) => format!("{scheme}://[{ip}]:{port}/{path}"),
            Err(_) => format!("{scheme}://{host}:{port}/{path}"),
        }
    }

    async fn zones(&self) -> Result<Vec<Zone>, BoxError> {
        // Created for each lookup, since the name servers of the system may have changed.
        let resolver = self.resolver()?;
        let region = format!("{}.{}", self.region.to_lowercase(), self.records.domain.trim_matches('.'));
        let mut zones = self.in_order(records(&resolver, &format!("txt.{region}")).await.map_err(|it| it.error)?)?;
        for zone in &mut zones {
            for name in std::mem::take(&mut zone.hosts) {
                zone.hosts.extend(records_of_zone(&resolver, &name).await?);
            }
        }
        Ok(zones)
    }

    fn resolver(&self) -> Result<TokioResolver, BoxError> {
        let Some(server) = self.records.name_server else { return Ok(TokioResolver::builder_tokio()?.build()?) };
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        let server = NameServerConfig::new(server.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()?)
    }

    /// Returns the zones with the names of their records, the first zone first.
    fn in_order(&self, entries: Vec<String>) -> Result<Vec<Zone>, BoxError> {
        let mut zones: Vec<Zone> = Vec::new();
        for entry in entries {
            if entry.starts_with("ec2") {
                let (region, entry) = (&self.region, Quoted(&entry));
                return Err(format!("the record of the region {region} contains servers, not zones: {entry}").into());
            }
            // Some records contain the full name of the zone's record.
            let record = entry.strip_prefix("txt.").unwrap_or(&entry).to_owned();
            let name = record.split('.').next().unwrap_or_default().to_owned();
            match zones.iter_mut().find(|zone| zone.name == name) {
                Some(zone) => zone.hosts.push(record),
                None => zones.push(Zone { name, hosts: vec![record] }),
            }
        }
        zones.sort_by(|a, b| a.name.cmp(&b.name));
        let is_first = |zone: &Zone| zone.name.eq_ignore_ascii_case(&self.zone) == self.prefer_same;
        let first = zones.iter().position(is_first).unwrap_or(0);
        zones.rotate_left(first);
        Ok(zones)
    }
}

/// Zone with the names of its records, and later with the hosts in them.
#[derive(Debug, PartialEq, Eq)]
struct Zone {
    name: String,
    hosts: Vec<String>,
}

/// Returns all hosts, rotated by the hash of the caller's host name.
#[cfg(feature = "peers")]
fn rotated(zones: Vec<Vec<String>>, own_host: &str) -> Vec<String> {
    let rotate = |hosts: &mut [String]| {
        if !hosts.is_empty() {
            hosts.rotate_left(java_hash(own_host) % hosts.len());
        }
    };
    let mut all = Vec::new();
    for mut hosts in zones {
        rotate(&mut hosts);
        all.extend(hosts);
    }
    if let Some((_, others)) = all.split_first_mut() {
        rotate(others);
    }
    all
}

/// Error of a look-up.
struct Unresolved {
    error: BoxError,
    /// The DNS has no such record.
    is_missing: bool,
}

impl Unresolved {
    fn record(name: &str, cause: impl std::fmt::Display) -> Self {
        Self { error: format!("look up {}: {cause}", Quoted(name)).into(), is_missing: false }
    }
}

/// Returns the hosts in the record of a zone: the one with the prefix `txt.`, else the one with the
/// name itself.
async fn records_of_zone(resolver: &TokioResolver, name: &str) -> Result<Vec<String>, BoxError> {
    match records(resolver, &format!("txt.{name}")).await {
        Err(missing) if missing.is_missing => records(resolver, name).await.map_err(|_| missing.error),
        result => result.map_err(|unresolved| unresolved.error),
    }
}

/// Returns the entries of a TXT record, sorted. A record may have several texts, and a text several
/// entries separated by spaces.
async fn records(resolver: &TokioResolver, name: &str) -> Result<Vec<String>, Unresolved> {
    // The final dot makes the name absolute, so that the system's search domains are not tried.
    let name = format!("{}.", name.trim_end_matches('.'));
    let response = resolver.txt_lookup(name.as_str()).await.map_err(|error| {
        let is_missing = error.is_no_records_found();
        Unresolved { is_missing, ..Unresolved::record(&name, error) }
    })?;
    let mut entries = Vec::new();
    for record in response.answers() {
        let RData::TXT(txt) = &record.data else { continue };
        for text in txt.txt_data.iter().map(|bytes| String::from_utf8_lossy(bytes)) {
            entries.extend(text.split_whitespace().map(|entry| entry.trim_matches(['"', '.']).to_owned()));
        }
    }
    entries.retain(|entry| !entry.is_empty());
    entries.sort();
    entries.dedup();
    if entries.is_empty() {
        return Err(Unresolved::record(&name, "the record is empty"));
    }
    let is_host = |entry: &String| entry.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    match entries.iter().find(|entry| !is_host(entry)) {
        Some(entry) => Err(Unresolved::record(&name, format_args!("{} is not a host name", Quoted(entry)))),
        None => Ok(entries),
    }
}

/// Returns the absolute value of Java's `String.hashCode`.
#[cfg(feature = "peers")]
fn java_hash(text: &str) -> usize {
    let hash = text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    hash.unsigned_abs() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn lookup(zone: &str, prefer_same: bool) -> DnsLookup {
        let records = DnsServers::new("example.com", 7001).context("/eureka/v2/");
        DnsLookup { records, region: "us-east-1".into(), zone: zone.into(), prefer_same }
    }

    #[test]
    fn zones_with_prefer_same_start_with_the_callers_zone() {
        let zones = ["b.x", "a.x", "txt.c.x", "b.y"];
        for (zone, prefer_same, expected) in [
            ("b", true, ["b.x", "b.y", "c.x", "a.x"]),
            ("B", true, ["b.x", "b.y", "c.x", "a.x"]),
            ("a", false, ["b.x", "b.y", "c.x", "a.x"]),
            ("b", false, ["a.x", "b.x", "b.y", "c.x"]),
            ("nowhere", true, ["a.x", "b.x", "b.y", "c.x"]),
        ] {
            let zones = lookup(zone, prefer_same).in_order(texts(&zones)).unwrap();
            let names: Vec<_> = zones.into_iter().flat_map(|zone| zone.hosts).collect();
            assert_eq!(names, expected, "{zone} {prefer_same}");
        }
        let error = lookup("", true).in_order(texts(&["ec2-1-2-3-4.example.com"])).unwrap_err();
        assert!(error.to_string().contains("not zones"), "{error}");
    }

    #[test]
    fn urls_have_the_scheme_port_and_path_of_the_settings() {
        let mut lookup = lookup("a", true);
        assert_eq!(lookup.urls(&texts(&["h1.example.net"])), "http://h1.example.net:7001/eureka/v2");
        lookup.records = DnsServers::new("example.com", 8443).https(true);
        assert_eq!(lookup.urls(&texts(&["a", "::1"])), "https://a:8443/,https://[::1]:8443/");
    }

    #[cfg(feature = "peers")]
    #[test]
    fn hosts_of_a_zone_are_rotated_by_the_hash_of_the_caller() {
        assert_eq!((java_hash(""), java_hash("ab")), (0, 3105));
        assert_eq!([2, 3, 4].map(|servers| java_hash("host-a") % servers), [0, 1, 0]);
        assert_eq!(java_hash("polygenelubricants"), 1 << 31, "the only hash without a positive counterpart");
        let hosts = || vec![texts(&["1", "2", "3"]), texts(&["4"])];
        assert_eq!(rotated(hosts(), "c"), ["1", "2", "3", "4"], "99 is three times 33");
        let by_one = "100 rotates the zone by one, and then all but the first";
        assert_eq!(rotated(hosts(), "d"), ["2", "1", "4", "3"], "{by_one}");
        assert!(rotated(Vec::new(), "").is_empty());
    }
}
