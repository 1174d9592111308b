//! The settings of a Spring Cloud Eureka server, under the names that it has for them.
//!
//! One table says what each is called, what it takes and where it goes; command line, environment and help are made from it. Names are
//! compared as Spring does, without dashes and case: `peer-node-read-timeout-ms` is `peerNodeReadTimeoutMs`. What Java has no name for is
//! called `eureka.server.limits.*`.

use std::fmt;
use std::time::Duration;

use super::Env;
use crate::server::{Error, EurekaServerBuilder};

type Builder = EurekaServerBuilder;

/// A setting of a registry server under its Spring name.
///
/// Its `Display` is a line of a help text: name, unit, default, meaning.
#[derive(Clone, Copy)]
pub struct Property {
    name: &'static str,
    unit: &'static str,
    default: &'static str,
    help: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Flag(fn(Builder, bool) -> Builder),
    Millis(fn(Builder, Duration) -> Builder),
    Seconds(fn(Builder, Duration) -> Builder),
    Share(fn(Builder, f64) -> Builder),
    Count(fn(Builder, usize) -> Builder),
    #[cfg(feature = "peers")]
    Text(fn(Builder, &str) -> Builder),
    /// The name ends in a key of the user's.
    #[cfg(feature = "peers")]
    Keyed(fn(Builder, &str, &str) -> Builder),
}

macro_rules! property {
    ($name:literal, $unit:literal, $default:literal, $help:literal, $kind:expr) => {
        Property { name: $name, unit: $unit, default: $default, help: $help, kind: $kind }
    };
}

#[rustfmt::skip]
const PROPERTIES: &[Property] = &[
    property!("eureka.server.enable-self-preservation", "BOOL", "true", "stop evictions while too few heartbeats come", Kind::Flag(Builder::self_preservation)),
    property!("eureka.server.self-preservation-by-application", "BOOL", "false", "look at each application by itself then, and at its instances' own intervals; not in Java", Kind::Flag(Builder::preservation_by_application)),
    property!("eureka.server.renewal-percent-threshold", "SHARE", "0.85", "how many of the expected heartbeats are enough", Kind::Share(Builder::renewal_percent_threshold)),
    property!("eureka.server.expected-client-renewal-interval-seconds", "SECONDS", "30", "how often heartbeats are expected", Kind::Seconds(Builder::expected_renewal_interval)),
    property!("eureka.server.eviction-interval-timer-in-ms", "MS", "60000", "time between two runs that remove expired leases", Kind::Millis(Builder::eviction_interval)),
    property!("eureka.server.disable-delta", "BOOL", "false", "answer deltas with 403, so that clients fetch everything", Kind::Flag(|b, disabled| b.delta(!disabled))),
    property!("eureka.server.use-read-only-response-cache", "BOOL", "false", "answer lists that are up to some time old; on by default in Java", Kind::Flag(Builder::read_only_cache)),
    property!("eureka.server.response-cache-update-interval-ms", "MS", "30000", "how old they can be then", Kind::Millis(Builder::read_only_cache_interval)),
    property!("eureka.server.retention-time-in-m-s-in-delta-queue", "MS", "180000", "how long the delta tells a change", Kind::Millis(Builder::delta_retention)),
    property!("eureka.server.limits.registration-bytes", "BYTES", "1048576", "longest body of a registration, before and after decompression; more is a 413", Kind::Count(Builder::registration_limit)),
    property!("eureka.server.limits.batch-bytes", "BYTES", "10485760", "the same of a replication batch", Kind::Count(Builder::batch_limit)),
    property!("eureka.server.limits.metadata-bytes", "BYTES", "65536", "most metadata of an instance, keys and values together; more is a 413", Kind::Count(Builder::metadata_limit)),
    property!("eureka.server.limits.instances-per-application", "COUNT", "10000", "most instances of an application; one more is a 400", Kind::Count(Builder::application_limit)),
    property!("eureka.server.limits.connections", "COUNT", "20000", "most connections at a time; further ones wait", Kind::Count(|mut b, n| { b.limits.connections = n; b })),
    property!("eureka.server.limits.head-bytes", "BYTES", "32768", "longest line and headers of a request together, at least 8192; more is a 431", Kind::Count(|mut b, n| { b.limits.head_bytes = n; b })),
    property!("eureka.server.limits.headers", "COUNT", "100", "most headers of a request; more is a 431", Kind::Count(|mut b, n| { b.limits.headers = n; b })),
    property!("eureka.server.limits.head-read-time-ms", "MS", "10000", "longest time from a request's first byte to the end of its headers; then the connection is closed", Kind::Millis(|mut b, time| { b.limits.head_timeout = time; b })),
    property!("eureka.server.limits.body-read-time-ms", "MS", "30000", "longest time for the body of a request; more is a 408", Kind::Millis(|mut b, time| { b.limits.body_timeout = time; b })),
    property!("eureka.server.limits.answer-write-time-ms", "MS", "10000", "longest time in which a client takes less than 64 KiB of a longer answer; then the connection is closed", Kind::Millis(|mut b, time| { b.limits.answer_timeout = time; b })),
    property!("eureka.server.limits.idle-time-ms", "MS", "90000", "longest time in which a connection moves no byte; then it is closed", Kind::Millis(|mut b, time| { b.limits.idle_timeout = time; b })),
    #[cfg(feature = "peers")]
    property!("eureka.server.wait-time-in-ms-when-sync-empty", "MS", "300000", "how long a node that found nothing to copy answers lists with 403", Kind::Millis(Builder::wait_when_empty)),
    #[cfg(feature = "peers")]
    property!("eureka.server.registry-sync-retries", "COUNT", "5", "how often a starting node asks its peers for a copy", Kind::Count(|b, n| b.copy_attempts(n.try_into().unwrap_or(u32::MAX)))),
    #[cfg(feature = "peers")]
    property!("eureka.server.registry-sync-retry-wait-ms", "MS", "30000", "the pause between two such attempts", Kind::Millis(Builder::copy_pause)),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-eureka-nodes-update-interval-ms", "MS", "600000", "time between two looks at a list of peers that can change; the one from settings does not", Kind::Millis(Builder::peer_refresh_interval)),
    #[cfg(feature = "peers")]
    property!("eureka.server.my-url", "URL", "", "which of the peers' URLs is this node's", Kind::Text(|b, url| b.my_url(url))),
    #[cfg(feature = "peers")]
    property!("eureka.server.sync-when-timestamp-differs", "BOOL", "true", "believe a peer that has newer data", Kind::Flag(Builder::take_newer_copies)),
    #[cfg(feature = "peers")]
    property!("eureka.server.max-elements-in-peer-replication-pool", "COUNT", "10000", "changes that may wait for one peer", Kind::Count(Builder::peer_queue_capacity)),
    #[cfg(feature = "peers")]
    property!("eureka.server.max-threads-for-peer-replication", "COUNT", "20", "batches on their way to one peer", Kind::Count(Builder::peer_batches_in_flight)),
    #[cfg(feature = "peers")]
    property!("eureka.server.max-time-for-replication", "MS", "30000", "how long a change is worth telling a peer", Kind::Millis(Builder::replication_time)),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-node-connect-timeout-ms", "MS", "1000", "how long a connection to a peer may take", Kind::Millis(Builder::peer_connect_timeout)),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-node-read-timeout-ms", "MS", "5000", "how long a peer may take to answer", Kind::Millis(Builder::peer_read_timeout)),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-comparison-interval-ms", "MS", "30000", "time between two looks at what a peer has differently, 0 for none; Java has none", Kind::Millis(Builder::peer_comparison_interval)),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-urls-with-name", "REGIONS", "", "other regions to show, by name and URL: eu;http://eu/eureka/,asia;http://asia/eureka/", Kind::Text(|b, list| b.remote_regions(list))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-urls-with-name.<region>", "URL", "", "one of them", Kind::Keyed(|b, region, url| b.remote_region(region, url))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-app-whitelist", "NAMES", "", "the applications that lists show of other regions, all if not given", Kind::Text(|b, apps| if apps.is_empty() { b } else { b.remote_region_whitelist("global", apps) })),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-app-whitelist.<region>", "NAMES", "", "the same of one region; global is for those that have none of their own", Kind::Keyed(|b, region, apps| b.remote_region_whitelist(region, apps))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-registry-fetch-interval", "SECONDS", "30", "time between two looks at another region", Kind::Seconds(Builder::remote_region_interval)),
    #[cfg(feature = "peers")]
    property!("eureka.server.disable-transparent-fallback-to-other-region", "BOOL", "false", "show other regions to those only who name them", Kind::Flag(|b, disabled| b.remote_region_fallback(!disabled))),
    #[cfg(feature = "peers")]
    property!("eureka.server.disable-delta-for-remote-regions", "BOOL", "false", "fetch everything from other regions each time", Kind::Flag(|b, disabled| b.remote_region_delta(!disabled))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-connect-timeout-ms", "MS", "2000", "how long a connection to another region may take", Kind::Millis(Builder::remote_region_connect_timeout)),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-read-timeout-ms", "MS", "5000", "how long another region may take to answer", Kind::Millis(Builder::remote_region_read_timeout)),
    #[cfg(feature = "peers")]
    property!("eureka.client.service-url.<zone>", "URLS", "", "the peers, separated by commas; <zone> is mostly defaultZone; at https they are trusted by the system's CAs, or by those in the PEM file that the variable SSL_CERT_FILE names", Kind::Keyed(Builder::replace_zone_urls)),
    #[cfg(feature = "peers")]
    property!("eureka.client.region", "NAME", "us-east-1", "the region of this node", Kind::Text(|b, name| b.region(name))),
    #[cfg(feature = "peers")]
    property!("eureka.client.availability-zones.<region>", "NAMES", "defaultZone", "the zones of a region, this node's first", Kind::Keyed(|b, region, zones| b.availability_zones(region, zones))),
    #[cfg(feature = "dns")]
    property!("eureka.client.use-dns-for-fetching-service-urls", "BOOL", "false", "look the peers up in DNS, by TXT records", Kind::Flag(Builder::peers_from_dns)),
    #[cfg(feature = "dns")]
    property!("eureka.client.eureka-server-d-n-s-name", "NAME", "", "the domain of these records: txt.<region>.<domain>", Kind::Text(|b, name| b.dns_domain(name))),
    #[cfg(feature = "dns")]
    property!("eureka.client.eureka-server-port", "PORT", "", "the port of the servers that they name", Kind::Count(|b, port| b.dns_port(port.try_into().unwrap_or(0)))),
    #[cfg(feature = "dns")]
    property!("eureka.client.eureka-server-u-r-l-context", "PATH", "", "the path on them", Kind::Text(|b, path| b.dns_context(path))),
    #[cfg(feature = "peers")]
    property!("eureka.client.prefer-same-zone-eureka", "BOOL", "true", "copy from a peer of the same zone first", Kind::Flag(Builder::prefer_same_zone)),
    #[cfg(feature = "peers")]
    property!("eureka.client.register-with-eureka", "BOOL", "true", "register this node, so that its peers show it", Kind::Flag(Builder::register_own)),
    #[cfg(feature = "peers")]
    property!("eureka.client.fetch-registry", "BOOL", "true", "copy the registry of a peer at the start", Kind::Flag(Builder::copy_from_peers)),
    #[cfg(feature = "peers")]
    property!("eureka.client.should-unregister-on-shutdown", "BOOL", "true", "take this node out when it stops", Kind::Flag(Builder::unregister_own)),
    #[cfg(feature = "peers")]
    property!("spring.application.name", "NAME", "UNKNOWN", "the name under which this node registers itself", Kind::Text(|b, name| b.own_app(name))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.appname", "NAME", "UNKNOWN", "the same", Kind::Text(|b, name| b.own_app(name))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.instance-id", "ID", "ip:port", "the id of this node", Kind::Text(|b, id| b.own_id(id))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.hostname", "NAME", "the IP address", "the host name by which peers reach this node", Kind::Text(|b, name| b.own_host_name(name))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.ip-address", "IP", "that of the way out", "the address of this node", Kind::Text(|b, ip| b.own_ip_addr(ip))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.lease-renewal-interval-in-seconds", "SECONDS", "30", "time between two heartbeats of this node", Kind::Seconds(Builder::own_renewal_interval)),
    #[cfg(feature = "peers")]
    property!("eureka.instance.lease-expiration-duration-in-seconds", "SECONDS", "90", "how long peers keep this node without them", Kind::Seconds(Builder::own_lease_duration)),
];

/// What a Spring server takes and this one has no use for: no code of Java reads it, it is about AWS or about threads and caches that do
/// not exist here. Taken and ignored, so that a command line can be kept. One that ends in `*` stands for all that begin like it.
const WITHOUT_MEANING: &[&str] = &[
    "eureka.server.batch-replication",
    "eureka.server.number-of-replication-retries",
    "eureka.server.peer-eureka-status-refresh-time-interval-ms",
    "eureka.server.min-threads-for-peer-replication",
    "eureka.server.max-idle-thread-age-in-minutes-for-peer-replication",
    "eureka.server.min-threads-for-status-replication",
    "eureka.server.max-threads-for-status-replication",
    "eureka.server.max-elements-in-status-replication-pool",
    "eureka.server.max-idle-thread-age-in-minutes-for-status-replication",
    // Spelled as Spring Cloud has it, too.
    "eureka.server.max-idle-thread-in-minutes-age-for-status-replication",
    "eureka.server.peer-node-total-connections",
    "eureka.server.peer-node-total-connections-per-host",
    "eureka.server.peer-node-connection-idle-timeout-seconds",
    "eureka.server.enable-replicated-request-compression",
    "eureka.server.prime-aws-replica-connections",
    "eureka.server.use-aws-asg-api",
    "eureka.server.a-s-g-*",
    "eureka.server.list-auto-scaling-groups-role-name",
    "eureka.server.binding-strategy",
    "eureka.server.e-i-p-*",
    "eureka.server.route53-*",
    "eureka.server.a-w-s-*",
    "eureka.server.renewal-threshold-update-interval-ms",
    "eureka.server.delta-retention-timer-interval-in-ms",
    "eureka.server.initial-capacity-of-response-cache",
    "eureka.server.response-cache-auto-expiration-in-seconds",
    "eureka.server.log-identity-headers",
    "eureka.server.json-codec-name",
    "eureka.server.xml-codec-name",
    "eureka.server.rate-limiter-*",
    "eureka.server.experimental.*",
    "eureka.server.metrics.enabled",
    "eureka.server.min-available-instances-for-peer-replication",
    "eureka.server.expected-number-of-renews-per-min",
    "eureka.server.default-open-for-traffic-count",
    "eureka.instance.registry.expected-number-of-clients-sending-renews",
    "eureka.instance.registry.default-open-for-traffic-count",
    // Gzip is always taken from them, their certificates are judged as those of peers, and their connections are few.
    "eureka.server.g-zip-content-from-remote-region",
    "eureka.server.remote-region-trust-store",
    "eureka.server.remote-region-trust-store-password",
    "eureka.server.remote-region-fetch-thread-pool-size",
    "eureka.server.remote-region-total-connections",
    "eureka.server.remote-region-total-connections-per-host",
    "eureka.server.remote-region-connection-idle-timeout-seconds",
    "eureka.server.remote-region-urls",
    #[cfg(not(feature = "peers"))]
    "eureka.server.disable-delta-for-remote-regions",
    #[cfg(not(feature = "peers"))]
    "eureka.server.disable-transparent-fallback-to-other-region",
    #[cfg(not(feature = "peers"))]
    "eureka.server.remote-region-*",
    "eureka.dashboard.enabled",
    "eureka.dashboard.path",
    "eureka.environment",
    "eureka.datacenter",
    "eureka.client.transport.applications-resolver-use-ip",
    "eureka.client.registry-fetch-interval-seconds",
    "eureka.client.filter-only-up-instances",
    "eureka.client.on-demand-update-status-change",
    "eureka.client.allow-redirects",
    "eureka.client.dollar-replacement",
    "eureka.client.escape-char-replacement",
    "eureka.client.eureka-service-url-poll-interval-seconds",
    "eureka.instance.prefer-ip-address",
];

/// What a Spring server can do and this one can not yet, the value that asks for nothing, and what to say to others.
const NOT_YET: &[(&str, &str, &str)] = &[
    #[cfg(not(feature = "dns"))]
    ("eureka.client.use-dns-for-fetching-service-urls", "false", "false: this server can do no more yet"),
    #[cfg(not(feature = "peers"))]
    ("eureka.server.remote-region-urls-with-name*", "", "nothing: remote regions need the feature peers"),
    // Key stores of Java. Only `enabled` decides whether Spring reads the others.
    ("eureka.client.tls.enabled", "false", NO_KEY_STORES),
    ("eureka.client.tls.*", "", NO_KEY_STORES),
];

const NO_KEY_STORES: &str = "none of Java's key stores, which cannot be read here: put the CAs by which peers are trusted into a PEM \
                             file that the variable SSL_CERT_FILE names";

impl Property {
    /// The name, dashes and all: `eureka.server.eviction-interval-timer-in-ms`. One that ends in `<...>` stands for many.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// All of them.
    pub fn all() -> &'static [Self] {
        PROPERTIES
    }

    /// The user's part of a name, if this is the property that it names: behind a dot or in brackets.
    fn matches<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self.name.split_once(".<") {
            None => (relaxed(self.name) == relaxed(name)).then_some(""),
            Some((fixed, _)) => {
                // The user's part keeps its dots.
                let dots = fixed.matches('.').count();
                let behind_dot = || name.match_indices('.').nth(dots).map(|(at, _)| (&name[..at], &name[at + 1..]));
                let in_brackets = name.strip_suffix(']').and_then(|name| name.split_once('['));
                let (given, key) = in_brackets.or_else(behind_dot)?;
                (relaxed(fixed) == relaxed(given) && !key.is_empty() && !key.contains(['[', ']'])).then_some(key)
            }
        }
    }

    fn apply(&self, builder: Builder, name: &str, key: &str, value: &str) -> Result<Builder, Error> {
        let value = value.trim();
        let invalid = |expected| Error::property(name, value, expected);
        let _ = key;
        Ok(match self.kind {
            Kind::Flag(set) => set(builder, value.to_ascii_lowercase().parse().map_err(|_| invalid("true or false"))?),
            Kind::Millis(set) => {
                set(builder, Duration::from_millis(value.parse().map_err(|_| invalid("whole milliseconds"))?))
            }
            Kind::Seconds(set) => {
                set(builder, Duration::from_secs(value.parse().map_err(|_| invalid("whole seconds"))?))
            }
            Kind::Share(set) => set(builder, value.parse().map_err(|_| invalid("a number like 0.85"))?),
            Kind::Count(set) => set(builder, value.parse().map_err(|_| invalid("a whole number"))?),
            #[cfg(feature = "peers")]
            Kind::Text(set) => set(builder, value),
            #[cfg(feature = "peers")]
            Kind::Keyed(set) => set(builder, key, value),
        })
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, default, help, .. } = self;
        write!(f, "--{name} <{unit}>\n          {help}")?;
        if !default.is_empty() {
            write!(f, " [default: {default}]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property").field("name", &self.name).field("default", &self.default).finish_non_exhaustive()
    }
}

impl EurekaServerBuilder {
    /// Sets what a Spring server calls by this name, such as `eureka.server.eviction-interval-timer-in-ms`; see [`Property::all`].
    ///
    /// What it has no name for begins with `eureka.server.limits`; of these, the limits of connections count for
    /// [`EurekaServer::listener`](crate::EurekaServer::listener).
    ///
    /// Dashes and case do not matter. What has no meaning here is ignored with a warning.
    ///
    /// # Errors
    /// When there is no such property, or its value is not what it takes.
    pub fn property(self, name: &str, value: &str) -> Result<Self, Error> {
        for property in PROPERTIES {
            if let Some(key) = property.matches(name) {
                return property.apply(self, name, key, value);
            }
        }
        if let Some((_, nothing, expected)) = NOT_YET.iter().find(|(known, ..)| is_called(known, name)) {
            if value.trim().eq_ignore_ascii_case(nothing) {
                return Ok(self);
            }
            // Those of key stores, which are no business of an error's readers.
            let shown = if relaxed(name).contains("password") { "..." } else { value };
            return Err(Error::property(name, shown, expected));
        }
        if WITHOUT_MEANING.iter().any(|known| is_called(known, name)) {
            tracing::warn!(name, "this setting has no meaning here, it is ignored");
            return Ok(self);
        }
        Err(Error::unknown_property(name, nearest(name)))
    }

    /// Takes what the environment says under the Spring names, `EUREKA_SERVER_EVICTIONINTERVALTIMERINMS`, and keeps the rest.
    ///
    /// Of the properties with a name of the user's at the end it reads those of the zones in use, and `defaultZone`; the remote regions whose
    /// names have no dash, as `EUREKA_SERVER_REMOTEREGIONURLSWITHNAME_EU`; and the white lists of these, of the others in
    /// `EUREKA_SERVER_REMOTEREGIONURLSWITHNAME`, and `global`.
    ///
    /// # Errors
    /// When a variable holds something else than it must.
    pub fn from_env(self) -> Result<Self, Error> {
        self.from(&Env::process())
    }

    fn from(mut self, env: &Env<'_>) -> Result<Self, Error> {
        // The region first: the names of its zones are parts of other names.
        for property in PROPERTIES.iter().filter(|property| !property.name.contains('<')) {
            if let Some(value) = env.text(property.name) {
                self = property.apply(self, property.name, "", &value)?;
            }
        }
        #[cfg(feature = "peers")]
        {
            let region = self.peers.region().to_owned();
            if let Some(zones) = env.text(&format!("eureka.client.availability-zones.{region}")) {
                self = self.availability_zones(region, zones);
            }
            for zone in self.peers.zones() {
                if let Some(urls) = env.text(&format!("eureka.client.service-url.{zone}")) {
                    self = self.replace_zone_urls(&zone, &urls);
                }
            }
            let regions = "eureka.server.remote-region-urls-with-name";
            for region in env.keys(regions) {
                let name = format!("{regions}.{region}");
                // A variable's name has no dashes, so that `US_EAST_1` may be any of several.
                if region.contains('_') {
                    return Err(Error::property(
                        &name,
                        "",
                        "no variable for it: write REGION;URL,REGION;URL into that of the whole property",
                    ));
                }
                if let Some(url) = env.text(&name) {
                    self = self.remote_region(&region, &url);
                }
            }
            for region in self.regions.names().into_iter().chain(["global".to_owned()]) {
                if let Some(apps) = env.text(&format!("eureka.server.remote-region-app-whitelist.{region}")) {
                    self = self.remote_region_whitelist(region, apps);
                }
            }
            // As often written: a dash in it, or the dashes of the first part kept.
            for name in ["eureka.client.service-url.default-zone", "eureka.client.serviceurl.default-zone"] {
                if let Some(urls) = env.text(name) {
                    self = self.replace_zone_urls("defaultZone", &urls);
                }
            }
        }
        Ok(self)
    }
}

/// A name as Spring compares it.
fn relaxed(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether it is this known name, or begins like one that ends in `*`.
fn is_called(known: &str, name: &str) -> bool {
    match known.strip_suffix('*') {
        Some(start) => relaxed(name).starts_with(&relaxed(start)),
        None => relaxed(known) == relaxed(name),
    }
}

/// The known name that takes the fewest strokes to get to.
fn nearest(name: &str) -> &'static str {
    let name = relaxed(name);
    PROPERTIES.iter().map(|p| p.name).min_by_key(|known| distance(&name, &relaxed(known))).unwrap_or_default()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EurekaServer;

    fn set(name: &str, value: &str) -> Result<String, String> {
        EurekaServer::builder().property(name, value).map(|b| format!("{b:?}")).map_err(|e| e.to_string())
    }

    #[test]
    fn dashes_and_case_do_not_matter() {
        for name in [
            "eureka.server.eviction-interval-timer-in-ms",
            "eureka.server.evictionIntervalTimerInMs",
            "eureka.server.EVICTION_INTERVAL_TIMER_IN_MS",
        ] {
            assert!(set(name, "1500").unwrap().contains("eviction_interval: 1.5s"), "{name}");
        }
    }

    #[test]
    fn each_property_takes_a_value_of_its_kind() {
        for property in Property::all() {
            let name = property.name.replace("<zone>", "defaultZone").replace("<region>", "here");
            let value = match property.unit {
                "BOOL" if property.default == "false" => "True",
                "BOOL" => "False",
                "SHARE" => "0.5",
                "MS" | "SECONDS" | "COUNT" | "BYTES" | "PORT" => "7",
                "REGIONS" => "here;http://node/",
                _ => "http://node/",
            };
            assert_ne!(set(&name, value), Ok(format!("{:?}", EurekaServer::builder())), "{name} sets something");
        }
    }

    #[test]
    fn a_bad_value_is_told_with_what_was_expected() {
        assert_eq!(
            set("eureka.server.eviction-interval-timer-in-ms", "1 s"),
            Err("eureka.server.eviction-interval-timer-in-ms is '1 s': expected whole milliseconds".into())
        );
    }

    #[test]
    fn an_unknown_name_brings_the_nearest() {
        let error = set("eureka.server.eviction-interval-in-ms", "1").unwrap_err();
        assert!(error.ends_with("did you mean eureka.server.eviction-interval-timer-in-ms?"), "{error}");
        let error = set("eureka.sever.enable-selfpreservation", "true").unwrap_err();
        assert!(error.ends_with("did you mean eureka.server.enable-self-preservation?"), "{error}");
        assert!(set("eureka.server.batchReplication", "true").is_ok(), "known to Java, ignored here");
        let dns = "eureka.client.useDnsForFetchingServiceUrls";
        assert!(set(dns, "false").is_ok());
        let as_built = set(dns, "true").is_ok();
        assert_eq!(as_built, cfg!(feature = "dns"), "what can't be done is not ignored");
    }

    /// What a Spring server and the client in it read, names as in `server-behaviour` 12.1 and 12.2.
    #[cfg(feature = "dns")]
    const OF_SPRING: &str = "
        eureka.server.enable-self-preservation eureka.server.renewal-percent-threshold
        eureka.server.renewal-threshold-update-interval-ms eureka.server.expected-client-renewal-interval-seconds
        eureka.server.eviction-interval-timer-in-ms eureka.server.wait-time-in-ms-when-sync-empty
        eureka.server.registry-sync-retries eureka.server.registry-sync-retry-wait-ms
        eureka.instance.registry.expected-number-of-clients-sending-renews eureka.server.expectedNumberOfRenewsPerMin
        eureka.instance.registry.default-open-for-traffic-count eureka.server.defaultOpenForTrafficCount
        eureka.server.retention-time-in-m-s-in-delta-queue eureka.server.delta-retention-timer-interval-in-ms
        eureka.server.disable-delta eureka.server.response-cache-auto-expiration-in-seconds
        eureka.server.response-cache-update-interval-ms eureka.server.use-read-only-response-cache
        eureka.server.initial-capacity-of-response-cache eureka.server.peer-eureka-nodes-update-interval-ms
        eureka.server.my-url eureka.server.sync-when-timestamp-differs
        eureka.server.max-elements-in-peer-replication-pool eureka.server.max-threads-for-peer-replication
        eureka.server.max-elements-in-status-replication-pool eureka.server.max-threads-for-status-replication
        eureka.server.max-time-for-replication eureka.server.peer-node-connect-timeout-ms
        eureka.server.peer-node-read-timeout-ms eureka.server.peer-node-total-connections
        eureka.server.peer-node-total-connections-per-host eureka.server.peer-node-connection-idle-timeout-seconds
        eureka.server.enable-replicated-request-compression
        eureka.server.min-available-instances-for-peer-replication
        eureka.server.remote-region-app-whitelist eureka.server.remote-region-app-whitelist.global
        eureka.server.remote-region-app-whitelist[global] eureka.server.remote-region-registry-fetch-interval
        eureka.server.remote-region-fetch-thread-pool-size eureka.server.disable-transparent-fallback-to-other-region
        eureka.server.g-zip-content-from-remote-region eureka.server.remote-region-trust-store
        eureka.server.remote-region-trust-store-password eureka.server.disable-delta-for-remote-regions
        eureka.server.remote-region-connect-timeout-ms eureka.server.remote-region-read-timeout-ms
        eureka.server.remote-region-total-connections eureka.server.remote-region-total-connections-per-host
        eureka.server.remote-region-connection-idle-timeout-seconds eureka.server.remote-region-urls
        eureka.server.rate-limiter-enabled eureka.server.rate-limiter-throttle-standard-clients
        eureka.server.rate-limiter-privileged-clients eureka.server.rate-limiter-burst-size
        eureka.server.rate-limiter-registry-fetch-average-rate eureka.server.rate-limiter-full-fetch-average-rate
        eureka.server.log-identity-headers eureka.server.json-codec-name eureka.server.xml-codec-name
        eureka.server.experimental.registration.validation.dataCenterInfoId eureka.server.experimental.bugfix.934
        eureka.server.experimental.transport.enabled eureka.dashboard.enabled eureka.dashboard.path
        eureka.environment eureka.datacenter eureka.server.metrics.enabled eureka.server.prime-aws-replica-connections
        eureka.server.use-aws-asg-api eureka.server.a-s-g-query-timeout-ms eureka.server.a-s-g-update-interval-ms
        eureka.server.a-s-g-cache-expiry-timeout-ms eureka.server.list-auto-scaling-groups-role-name
        eureka.server.binding-strategy eureka.server.e-i-p-bind-rebind-retries
        eureka.server.e-i-p-binding-retry-interval-ms eureka.server.e-i-p-binding-retry-interval-ms-when-unbound
        eureka.server.route53-bind-rebind-retries eureka.server.route53-binding-retry-interval-ms
        eureka.server.route53-domain-t-t-l eureka.server.a-w-s-access-id eureka.server.a-w-s-secret-key
        eureka.server.batch-replication eureka.server.number-of-replication-retries
        eureka.server.peer-eureka-status-refresh-time-interval-ms eureka.server.min-threads-for-peer-replication
        eureka.server.max-idle-thread-age-in-minutes-for-peer-replication
        eureka.server.min-threads-for-status-replication
        eureka.server.max-idle-thread-age-in-minutes-for-status-replication
        eureka.client.region eureka.client.availability-zones.us-east-1 eureka.client.service-url.defaultZone
        eureka.client.prefer-same-zone-eureka eureka.client.use-dns-for-fetching-service-urls
        eureka.client.eureka-server-d-n-s-name eureka.client.eureka-server-port
        eureka.client.eureka-server-u-r-l-context eureka.client.eureka-service-url-poll-interval-seconds
        eureka.client.register-with-eureka eureka.client.fetch-registry eureka.client.registry-fetch-interval-seconds
        eureka.client.filter-only-up-instances eureka.client.transport.applications-resolver-use-ip
        eureka.client.on-demand-update-status-change eureka.client.should-unregister-on-shutdown
        eureka.client.allow-redirects eureka.client.dollar-replacement eureka.client.escape-char-replacement
        eureka.instance.lease-renewal-interval-in-seconds eureka.instance.lease-expiration-duration-in-seconds
        eureka.instance.hostname eureka.instance.prefer-ip-address eureka.instance.appname";

    #[cfg(feature = "dns")]
    #[test]
    fn a_command_line_of_spring_can_be_kept() {
        for name in OF_SPRING.split_whitespace() {
            let taken = ["true", "7", "0.5", "http://node/"].map(|value| set(name, value));
            assert!(taken.iter().any(Result::is_ok), "{name}: {taken:?}");
        }
    }

    #[test]
    fn key_stores_of_java_are_refused_with_what_to_do() {
        assert!(set("eureka.client.tls.enabled", "false").is_ok());
        for (name, value) in [("eureka.client.tls.enabled", "true"), ("eureka.client.tls.trust-store", "file:/ca.p12")]
        {
            let error = set(name, value).unwrap_err();
            assert!(error.contains("SSL_CERT_FILE"), "{error}");
        }
        let error = set("eureka.client.tls.trustStorePassword", "changeit").unwrap_err();
        assert!(!error.contains("changeit"), "{error}");
    }

    #[cfg(not(feature = "peers"))]
    #[test]
    fn remote_regions_are_refused_without_peers() {
        let regions = "eureka.server.remote-region-urls-with-name";
        assert!(set(regions, " ").is_ok());
        for name in [format!("{regions}.eu"), format!("{regions}[eu]"), regions.to_owned()] {
            let error = format!("{name} is 'http://eu/': expected nothing: remote regions need the feature peers");
            assert_eq!(set(&name, "http://eu/"), Err(error));
        }
    }

    #[cfg(feature = "peers")]
    #[test]
    fn remote_regions_have_two_spellings() {
        let regions = "eureka.server.remote-region-urls-with-name";
        let lists = "eureka.server.remoteRegionAppWhitelist";
        for (name, value, expected) in [
            (format!("{regions}.EU"), "http://eu/", r#"urls: {"eu": [http://eu/]}"#),
            (format!("{regions}[eu]"), "http://eu/,http://eu2/", r#"urls: {"eu": [http://eu/, http://eu2/]}"#),
            (format!("{regions}.eu.west"), "http://eu/", r#"urls: {"eu.west": [http://eu/]}"#),
            (regions.to_owned(), "a;http://a/, b;http://b/", r#"urls: {"a": [http://a/], "b": [http://b/]}"#),
            (format!("{lists}.eu"), "orders", r#"whitelists: {"eu": {"ORDERS"}}"#),
            (format!("{lists}[global]"), "orders", r#"whitelists: {"global": {"ORDERS"}}"#),
            (lists.to_owned(), "orders", r#"whitelists: {"global": {"ORDERS"}}"#),
        ] {
            let builder = set(&name, value).unwrap();
            assert!(builder.contains(expected), "{name}={value}: {builder}");
        }
    }

    #[cfg(feature = "peers")]
    #[tokio::test]
    async fn a_remote_region_that_is_none_is_told_when_the_server_is_built() {
        for (value, why) in [
            ("eu", "'eu' has no URL"),
            (";http://eu/", "'' is no name for a region"),
            ("none;http://eu/", "'none' is no name for a region"),
            ("eu;registry:8761", "registry:8761"),
        ] {
            let builder =
                EurekaServer::builder().property("eureka.server.remote-region-urls-with-name", value).unwrap();
            let error = builder.build().unwrap_err();
            assert!(error.is_config() && error.to_string().contains(why), "{value}: {error}");
        }
        let many = (0..33).fold(EurekaServer::builder(), |b, n| b.remote_region(n.to_string(), "http://eu/"));
        assert!(many.build().unwrap_err().to_string().contains("at most 32"));
    }

    #[cfg(feature = "peers")]
    #[test]
    fn the_environment_speaks_upper_case() {
        let lookup = |name: &str| {
            let value = match name {
                "EUREKA_CLIENT_REGION" => "eu",
                "EUREKA_CLIENT_AVAILABILITYZONES_EU" => "A,B",
                "EUREKA_CLIENT_SERVICEURL_A" => "http://a/",
                "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE" => "http://d/",
                "EUREKA_SERVER_MYURL" => "http://a/",
                "EUREKA_SERVER_REMOTEREGIONURLSWITHNAME" => "Asia;http://asia/",
                "EUREKA_SERVER_REMOTEREGIONAPPWHITELIST_ASIA" => "orders",
                "EUREKA_SERVER_PEERNODEREADTIMEOUTMS" => "300",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let builder = format!("{:?}", EurekaServer::builder().from(&Env::table(&lookup)).unwrap());
        for part in [
            r#""a": [http://a/]"#,
            r#""defaultzone": [http://d/]"#,
            "read_timeout: 300ms",
            "my_url: Some",
            r#""asia": [http://asia/]"#,
            r#""asia": {"ORDERS"}"#,
        ] {
            assert!(builder.contains(part), "{part} in {builder}");
        }
        let lookup = |name: &str| (name == "EUREKA_SERVER_PEERNODEREADTIMEOUTMS").then(|| "soon".to_owned());
        assert!(EurekaServer::builder().from(&Env::table(&lookup)).is_err());
    }

    #[cfg(feature = "peers")]
    #[test]
    fn variables_may_be_a_map() {
        let region = "EUREKA_SERVER_REMOTEREGIONURLSWITHNAME_";
        let lookup = |name: &str| name.starts_with(region).then(|| "http://there/".to_owned());
        let from = |key: &str| {
            let names = || vec!["HOME".to_owned(), format!("{region}{key}")];
            EurekaServer::builder().from(&Env::table(&lookup).with_names(&names)).map(|builder| format!("{builder:?}"))
        };
        assert!(from("EU").unwrap().contains(r#"urls: {"eu": [http://there/]}"#));
        let error = from("US_EAST_1").map_err(|error| error.to_string()).unwrap_err();
        assert!(error.contains("us_east_1") && error.contains("REGION;URL"), "{error}");
    }

    #[cfg(feature = "peers")]
    #[test]
    fn what_is_in_two_brackets_is_no_region() {
        for name in ["remote-region-app-whitelist[eu][0]", "remote-region-app-whitelist.eu[0]"] {
            assert!(set(&format!("eureka.server.{name}"), "orders").is_err(), "{name}");
        }
    }
}
