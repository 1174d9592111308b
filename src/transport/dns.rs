//! Service URLs from DNS, in the records that Java's clients and servers read.
//!
//! ```text
//!  txt.us-east-1.example.com   "zone-b.example.com zone-a.example.com"     zones of a region
//!  txt.zone-a.example.com      "eureka1.example.com eureka2.example.com"   servers of a zone
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tower::BoxError;

use crate::untrusted::Quoted;

/// Location of the records, and the parts of the URLs that the records do not contain.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsUrls {
    pub(crate) region: String,
    /// Domain of the region's record, after the name of the region.
    pub(crate) domain: String,
    pub(crate) port: u16,
    /// Path on each server, without slashes around it.
    pub(crate) context: String,
    /// Zone of the caller.
    pub(crate) zone: String,
    /// Puts the servers of the caller's zone first if true, and those of another zone if false.
    pub(crate) prefer_same: bool,
    /// Host name of the caller. Its hash decides the order of the servers in a zone, so that
    /// callers are spread and each of them always gets the same order.
    pub(crate) own_host: String,
    /// Name server that is used instead of those of the system.
    pub(crate) server: Option<SocketAddr>,
}

impl DnsUrls {
    /// Looks up the URLs, and returns them separated by commas.
    ///
    /// # Errors
    /// When one of the records is not available. A partial list would look as if servers had been
    /// removed.
    pub(crate) async fn urls(&self) -> Result<String, BoxError> {
        // Created for each lookup, since the name servers of the system may have changed.
        let resolver = self.resolver()?;
        let zones = records(&resolver, &format!("{}.{}", self.region.to_lowercase(), self.domain)).await?;
        let mut hosts = Vec::new();
        for zone in self.in_order(zones)? {
            hosts.push(records(&resolver, &zone).await?);
        }
        let urls = self.rotated(hosts).into_iter();
        let path = self.context.trim_matches('/');
        Ok(urls.map(|host| format!("http://{host}:{}/{path}", self.port)).collect::<Vec<_>>().join(","))
    }

    fn resolver(&self) -> Result<TokioResolver, BoxError> {
        let Some(server) = self.server else { return Ok(TokioResolver::builder_tokio()?.build()?) };
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        let server = NameServerConfig::new(server.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        Ok(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()?)
    }

    /// Returns the names of the zones' records, those of the first zone first.
    fn in_order(&self, entries: Vec<String>) -> Result<Vec<String>, BoxError> {
        let mut zones: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for entry in &entries {
            if entry.starts_with("ec2") {
                return Err(format!(
                    "the record of the region {} contains servers, not zones: {}",
                    self.region,
                    Quoted(entry)
                )
                .into());
            }
            // Some records contain the full name of the zone's record.
            let entry = entry.strip_prefix("txt.").unwrap_or(entry);
            zones.entry(entry.split('.').next().unwrap_or(entry)).or_default().push(entry);
        }
        let first = zones.keys().position(|zone| zone.eq_ignore_ascii_case(&self.zone) == self.prefer_same);
        let names = zones.values().flatten();
        let before = zones.values().take(first.unwrap_or(0)).map(Vec::len).sum();
        Ok(names.clone().skip(before).chain(names.take(before)).map(|name| (*name).to_owned()).collect())
    }

    /// Returns all hosts, rotated by the hash of the caller's host name.
    fn rotated(&self, zones: Vec<Vec<String>>) -> Vec<String> {
        let rotate = |hosts: &mut [String]| {
            if !hosts.is_empty() {
                hosts.rotate_left(java_hash(&self.own_host) % hosts.len());
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
}

/// Returns the entries of a TXT record, sorted. A record may have several texts, and a text several
/// entries separated by spaces.
async fn records(resolver: &TokioResolver, name: &str) -> Result<Vec<String>, BoxError> {
    // The final dot makes the name absolute, so that the system's search domains are not tried.
    let name = format!("txt.{}.", name.trim_end_matches('.'));
    let response =
        resolver.txt_lookup(name.as_str()).await.map_err(|error| format!("look up {}: {error}", Quoted(&name)))?;
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
    if entries.is_empty() { Err(format!("look up {}: the record is empty", Quoted(&name)).into()) } else { Ok(entries) }
}

/// Returns the absolute value of Java's `String.hashCode`.
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
            let urls = DnsUrls { zone: zone.into(), prefer_same, ..DnsUrls::default() };
            assert_eq!(urls.in_order(texts(&zones)).unwrap(), expected, "{zone} {prefer_same}");
        }
        let error = DnsUrls::default().in_order(texts(&["ec2-1-2-3-4.example.com"])).unwrap_err();
        assert!(error.to_string().contains("not zones"), "{error}");
    }

    #[test]
    fn hosts_of_a_zone_are_rotated_by_the_hash_of_the_caller() {
        assert_eq!((java_hash(""), java_hash("ab")), (0, 3105));
        assert_eq!(java_hash("polygenelubricants"), 1 << 31, "the only hash without a positive counterpart");
        let hosts = || vec![texts(&["1", "2", "3"]), texts(&["4"])];
        let rotated = |host: &str| DnsUrls { own_host: host.into(), ..DnsUrls::default() }.rotated(hosts());
        assert_eq!(rotated("c"), ["1", "2", "3", "4"], "99 is three times 33");
        assert_eq!(rotated("d"), ["2", "1", "4", "3"], "100 rotates the zone by one, and then all but the first");
        assert!(DnsUrls::default().rotated(Vec::new()).is_empty());
    }
}
