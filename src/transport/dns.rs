//! Service URLs from TXT records. `server-behaviour` 10.3.
//!
//! ```text
//!  txt.us-east-1.example.com   "zone-b.example.com zone-a.example.com"     the zones of a region
//!  txt.zone-a.example.com      "eureka1.example.com eureka2.example.com"   the servers of a zone
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use tower::BoxError;

use crate::shown::Shown;

/// Where the records are, and what they do not say.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsUrls {
    pub(crate) region: String,
    /// What follows the region in the name of its record.
    pub(crate) domain: String,
    pub(crate) port: u16,
    /// The path on each server, without slashes around it.
    pub(crate) context: String,
    /// The zone to begin with, or the one not to begin with.
    pub(crate) zone: String,
    pub(crate) prefer_same: bool,
    /// By which the servers asking are spread: always the same list for the same host.
    pub(crate) own_host: String,
    /// The name server to ask instead of the system's.
    pub(crate) server: Option<SocketAddr>,
}

impl DnsUrls {
    /// The URLs as they are now, separated by commas.
    ///
    /// # Errors
    /// When one of the records cannot be had: what is left would look as if servers had been taken away.
    pub(crate) async fn urls(&self) -> Result<String, BoxError> {
        // Made anew each time, as the system's name servers may have changed.
        let resolver = self.resolver()?;
        let zones = records(&resolver, &format!("{}.{}", self.region.to_lowercase(), self.domain)).await?;
        let mut hosts = Vec::new();
        for zone in self.in_order(zones)? {
            hosts.push(records(&resolver, &zone).await?);
        }
        let urls = self.spread(hosts).into_iter();
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

    /// The names of the zones' records, those of the zone to begin with first.
    fn in_order(&self, entries: Vec<String>) -> Result<Vec<String>, BoxError> {
        let mut zones: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for entry in &entries {
            if entry.starts_with("ec2") {
                return Err(format!(
                    "the record of the region {} has servers, not zones: {}",
                    self.region,
                    Shown(entry)
                )
                .into());
            }
            // Some write it as it is looked up.
            let entry = entry.strip_prefix("txt.").unwrap_or(entry);
            zones.entry(entry.split('.').next().unwrap_or(entry)).or_default().push(entry);
        }
        let first = zones.keys().position(|zone| zone.eq_ignore_ascii_case(&self.zone) == self.prefer_same);
        let names = zones.values().flatten();
        let before = zones.values().take(first.unwrap_or(0)).map(Vec::len).sum();
        Ok(names.clone().skip(before).chain(names.take(before)).map(|name| (*name).to_owned()).collect())
    }

    /// All hosts, turned so that not every node begins with the same one.
    fn spread(&self, zones: Vec<Vec<String>>) -> Vec<String> {
        let turn = |hosts: &mut [String]| {
            if !hosts.is_empty() {
                hosts.rotate_left(java_hash(&self.own_host) % hosts.len());
            }
        };
        let mut all = Vec::new();
        for mut hosts in zones {
            turn(&mut hosts);
            all.extend(hosts);
        }
        if let Some((_, others)) = all.split_first_mut() {
            turn(others);
        }
        all
    }
}

/// The entries of a TXT record, sorted; in one text or in several.
async fn records(resolver: &TokioResolver, name: &str) -> Result<Vec<String>, BoxError> {
    // With the dot at its end the search domains of the system stay out of it.
    let name = format!("txt.{}.", name.trim_end_matches('.'));
    let answer =
        resolver.txt_lookup(name.as_str()).await.map_err(|error| format!("look up {}: {error}", Shown(&name)))?;
    let mut entries = Vec::new();
    for record in answer.answers() {
        let RData::TXT(txt) = &record.data else { continue };
        for text in txt.txt_data.iter().map(|bytes| String::from_utf8_lossy(bytes)) {
            entries.extend(text.split_whitespace().map(|entry| entry.trim_matches(['"', '.']).to_owned()));
        }
    }
    entries.retain(|entry| !entry.is_empty());
    entries.sort();
    entries.dedup();
    if entries.is_empty() { Err(format!("look up {}: the record is empty", Shown(&name)).into()) } else { Ok(entries) }
}

/// `String.hashCode`, without its sign.
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
    fn zones_begin_with_ones_own_or_with_another() {
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
    fn each_host_begins_elsewhere() {
        assert_eq!((java_hash(""), java_hash("ab")), (0, 3105));
        assert_eq!(java_hash("polygenelubricants"), 1 << 31, "the one number that has no positive twin");
        let hosts = || vec![texts(&["1", "2", "3"]), texts(&["4"])];
        let spread = |host: &str| DnsUrls { own_host: host.into(), ..DnsUrls::default() }.spread(hosts());
        assert_eq!(spread("c"), ["1", "2", "3", "4"], "99 is three times 33");
        assert_eq!(spread("d"), ["2", "1", "4", "3"], "100 turns the zone by one, and then all but the first");
        assert!(DnsUrls::default().spread(Vec::new()).is_empty());
    }
}
