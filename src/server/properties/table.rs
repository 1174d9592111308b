//! Table of the settings: name, unit, default, help and setter.

use std::time::Duration;

use super::access;
#[cfg(feature = "peers")]
use super::keyed;
use super::property::{Builder, Property};
#[cfg(feature = "tls")]
use super::ssl;
#[cfg(feature = "peers")]
use crate::config::TlsKeys;
#[cfg(any(feature = "peers", feature = "tls"))]
use crate::config::store_type;
use crate::config::{InvalidSetting, Key, Unit, Value};

macro_rules! property {
    ($name:literal, $unit:literal, $default:literal, $help:literal, With = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Text, $set)
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Flag = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Flag, |b, v| { let set: fn(Builder, bool) -> Builder = $set; Ok(set(b, v.flag()?)) })
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Millis = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Millis, |b, v| { let set: fn(Builder, Duration) -> Builder = $set; Ok(set(b, v.duration()?)) })
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Seconds = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Seconds, |b, v| { let set: fn(Builder, Duration) -> Builder = $set; Ok(set(b, v.duration()?)) })
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Share = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Share, |b, v| { let set: fn(Builder, f64) -> Builder = $set; Ok(set(b, v.number()?)) })
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Count = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Count, |b, v| { let set: fn(Builder, usize) -> Builder = $set; Ok(set(b, v.count()?)) })
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Port = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Port, |b, v| { let set: fn(Builder, u16) -> Builder = $set; Ok(set(b, v.port()?)) })
    };
    // A setter that takes the value itself.
    ($name:literal, $unit:literal, $default:literal, $help:literal, Path = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Path, $set)
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Secret = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Secret, $set)
    };
    ($name:literal, $unit:literal, $default:literal, $help:literal, Text = $set:expr) => {
        property!(@ $name, $unit, $default, $help, Text, |b, v| { let set: fn(Builder, &str) -> Builder = $set; Ok(set(b, v.text())) })
    };
    (@ $name:literal, $unit:literal, $default:literal, $help:literal, $kind:ident, $set:expr) => {
        Property { unit: $unit, help: $help, key: Key::new($name, Unit::$kind, $default, "EurekaServerBuilder::property", $set) }
    };
}

/// Returns a number as 32 bits, at most the greatest.
fn saturated(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// Sets the path of the page, with or without slashes around it. A page that is disabled stays
/// disabled.
fn dashboard_path(builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    let path = value.text().trim_matches('/');
    let is_plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~".contains(c));
    if !path.split('/').all(|part| is_plain(part) && (path.is_empty() || !part.is_empty() && part != "..")) {
        return Err(value.invalid("a path such as /dashboard, of letters, digits, slashes and -_.~"));
    }
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    Ok(builder.page_with(|page| page.map(|_| path)))
}

/// Changes the TLS stores of the peers.
#[cfg(feature = "peers")]
fn tls(
    builder: Builder,
    set: impl FnOnce(&mut TlsKeys) -> Result<(), InvalidSetting>,
) -> Result<Builder, InvalidSetting> {
    let mut result = Ok(());
    let builder = builder.peers_with(|peers| peers.tls_keys_with(|keys| result = set(keys)));
    result.map(|()| builder)
}

/// Sets the number of available peers of a healthy node. A negative number is Java's default.
fn min_available_peers(mut builder: Builder, value: &Value) -> Result<Builder, InvalidSetting> {
    let number: i64 = value.text().parse().map_err(|_| value.invalid("a whole number, or -1"))?;
    builder.about.min_available_peers = number.try_into().ok();
    Ok(builder)
}

#[rustfmt::skip]
pub(super) static PROPERTIES: &[Property] = &[
    property!("eureka.server.enable-self-preservation", "BOOL", "true", "stop evictions while too few heartbeats arrive", Flag = |b, v| b.eviction_with(|e| e.self_preservation(v))),
    property!("eureka.server.self-preservation-by-application", "BOOL", "false", "apply self-preservation to each application, with its instances' own intervals; not in Java", Flag = |b, v| b.eviction_with(|e| e.preservation_by_application(v))),
    property!("eureka.server.renewal-percent-threshold", "SHARE", "0.85", "share of the expected heartbeats below which evictions stop", Share = |b, v| b.eviction_with(|e| e.renewal_percent_threshold(v))),
    property!("eureka.server.expected-client-renewal-interval-seconds", "SECONDS", "30", "expected interval of heartbeats", Seconds = |b, v| b.eviction_with(|e| e.expected_renewal_interval(v))),
    property!("eureka.server.lease-doubling", "BOOL", "true", "give a lease twice its duration after a heartbeat, as Java does; false halves the time until a crashed instance is evicted; not in Java", Flag = |b, v| b.eviction_with(|e| e.lease_doubling(v))),
    property!("eureka.server.eviction-interval-timer-in-ms", "MS", "60000", "interval of the evictions of expired leases", Millis = |b, v| b.eviction_with(|e| e.interval(v))),
    property!("eureka.server.disable-delta", "BOOL", "false", "respond to delta requests with 403, so that clients fetch the full registry", Flag = |b, disabled| b.delta(!disabled)),
    property!("eureka.server.use-read-only-response-cache", "BOOL", "false", "respond with cached lists that may be out of date; on by default in Java", Flag = Builder::read_only_cache),
    property!("eureka.server.response-cache-update-interval-ms", "MS", "30000", "maximum age of these lists", Millis = Builder::read_only_cache_interval),
    property!("eureka.server.retention-time-in-m-s-in-delta-queue", "MS", "180000", "time for which a change is in the delta", Millis = Builder::delta_retention),
    property!("eureka.dashboard.enabled", "BOOL", "true", "serve the page for operators", Flag = |b, v| b.page_with(|page| if !v { None } else { page.or(Some(String::new())) })),
    property!("eureka.dashboard.path", "PATH", "/", "path of the page for operators", With = dashboard_path),
    property!("eureka.environment", "NAME", "test", "environment that the status shows", Text = |b, name| b.environment(name)),
    property!("eureka.datacenter", "NAME", "default", "data center that the page for operators shows", Text = |b, name| b.data_center(name)),
    property!("eureka.server.min-available-instances-for-peer-replication", "COUNT", "-1", "number of available peers from which on the status shows this node as healthy; -1 shows nothing", With = min_available_peers),
    #[cfg(feature = "prometheus")]
    property!("management.prometheus.metrics.export.enabled", "BOOL", "true", "measure the latency of requests, and show metrics at /metrics and /actuator/prometheus", Flag = Builder::metrics),
    #[cfg(feature = "prometheus")]
    property!("eureka.server.metrics.enabled", "BOOL", "false", "add the number of instances by application to the metrics, as eureka_server_instances", Flag = Builder::metrics_by_application),
    property!("eureka.server.limits.registration-bytes", "BYTES", "1048576", "maximum body of a registration, before and after decompression; the response to a longer one is 413", Count = |b, v| b.limits_with(|l| l.registration_bytes(v))),
    property!("eureka.server.limits.batch-bytes", "BYTES", "10485760", "maximum body of a replication batch, before and after decompression; the response to a longer one is 413", Count = |b, v| b.limits_with(|l| l.batch_bytes(v))),
    property!("eureka.server.limits.request-bytes-in-flight", "BYTES", "67108864", "maximum memory of all request bodies in flight; the response to a body without room is 503", Count = |b, v| b.limits_with(|l| l.request_bytes_in_flight(v))),
    property!("eureka.server.limits.gzip-requests", "BOOL", "false", "accept gzip registrations and batches, which Netflix 1.x peers send with enableReplicatedRequestCompression; else the response is 415", Flag = |b, v| b.limits_with(|l| l.gzip_requests(v))),
    property!("eureka.server.limits.metadata-bytes", "BYTES", "65536", "maximum metadata of an instance, keys and values together; the response to more is 413", Count = |b, v| b.limits_with(|l| l.metadata_bytes(v))),
    property!("eureka.server.limits.instances-per-application", "COUNT", "10000", "maximum number of instances of an application; the response to a further one is 429", Count = |b, v| b.limits_with(|l| l.instances_per_application(v))),
    property!("eureka.server.limits.connections", "COUNT", "20000, or what a third of the memory has room for", "maximum number of connections; beyond it, idle connections are closed for new ones", Count = |mut b, n| { b.connections.connections = Some(n); b }),
    property!("eureka.server.limits.connections-per-address", "COUNT", "", "maximum number of connections from one address, or one /64 of IPv6; beyond it, its idle connections are closed for new ones", Count = |mut b, n| { b.connections.connections_per_address = n; b }),
    property!("eureka.server.limits.http2-streams", "COUNT", "16", "maximum number of concurrent requests on one HTTP/2 connection; clients queue further ones", Count = |mut b, n| { b.connections.http2_streams = n; b }),
    #[cfg(feature = "tls")]
    property!("server.ssl.enabled", "BOOL", "", "serve HTTPS only; true by default if there is a certificate or key store", Flag = |b, v| b.ssl_with(|s| s.enabled = Some(v))),
    #[cfg(feature = "tls")]
    property!("server.ssl.certificate", "PATH", "", "PEM file with the certificate of the server, followed by those of its issuers; read again when it changes, like the other files", Path = |b, v| Ok(b.ssl_with(|s| s.certificate = Some(v.text().to_owned())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.certificate-private-key", "PATH", "", "PEM file with the unencrypted key of the certificate", Path = |b, v| Ok(b.ssl_with(|s| s.private_key = Some(v.text().to_owned())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.key-store", "PATH", "", "PKCS#12 or PEM file with the certificate and its key, instead of these two", Path = |b, v| Ok(b.ssl_with(|s| s.key_store.location = Some(v.text().to_owned())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.key-store-type", "TYPE", "by content", "PKCS12 or PEM", With = |b, v| { let store_type = store_type(v)?; Ok(b.ssl_with(|s| s.key_store.store_type = Some(store_type))) }),
    #[cfg(feature = "tls")]
    property!("server.ssl.key-store-password", "PASSWORD", "", "password of the key store", Secret = |b, v| Ok(b.ssl_with(|s| s.key_store.password = Some(v.secret())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.key-password", "PASSWORD", "", "password of the key; must be that of the store", Secret = |b, v| Ok(b.ssl_with(|s| s.key_password = Some(v.secret())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.client-auth", "none|want|need", "none", "client certificates: want requests one, need requires one", With = ssl::client_auth),
    #[cfg(feature = "tls")]
    property!("server.ssl.trust-certificate", "PATH", "", "PEM file with the CAs of client certificates", Path = |b, v| Ok(b.ssl_with(|s| s.trust_certificate = Some(v.text().to_owned())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.trust-store", "PATH", "", "PKCS#12 or PEM file with the CAs of client certificates", Path = |b, v| Ok(b.ssl_with(|s| s.trust_store.location = Some(v.text().to_owned())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.trust-store-type", "TYPE", "by content", "PKCS12 or PEM", With = |b, v| { let store_type = store_type(v)?; Ok(b.ssl_with(|s| s.trust_store.store_type = Some(store_type))) }),
    #[cfg(feature = "tls")]
    property!("server.ssl.trust-store-password", "PASSWORD", "", "password of the trust store", Secret = |b, v| Ok(b.ssl_with(|s| s.trust_store.password = Some(v.secret())))),
    #[cfg(feature = "tls")]
    property!("server.ssl.enabled-protocols", "VERSIONS", "TLSv1.3,TLSv1.2", "accepted versions of TLS", With = ssl::protocols),
    property!("eureka.server.limits.handshake-time-ms", "MS", "10000", "maximum time of a TLS handshake", Millis = |mut b, v| { b.connections.handshake_timeout = v; b }),
    property!("server.http2.enabled", "BOOL", "true", "accept HTTP/2 in addition to HTTP/1.1", Flag = |mut b, enabled| { b.connections.http2 = enabled; b }),
    property!("eureka.server.limits.response-bytes", "BYTES", "67108864", "maximum memory of responses for slow clients; beyond it, lists are up to 30 s old and slow connections are closed", Count = |b, v| b.limits_with(|l| l.response_bytes(v))),
    property!("eureka.server.limits.name-bytes", "BYTES", "1024", "maximum length of an instance's id, application, host name, IP address and each VIP address; the response to a longer one is 413", Count = |b, v| b.limits_with(|l| l.name_bytes(v))),
    property!("eureka.server.limits.instance-bytes", "BYTES", "65536", "maximum length of all texts of an instance together; the response to more is 413", Count = |b, v| b.limits_with(|l| l.instance_bytes(v))),
    property!("eureka.server.limits.instances", "COUNT", "500000", "maximum number of instances of the registry; the response to a further one is 429", Count = |b, v| b.limits_with(|l| l.instances(v))),
    property!("eureka.server.limits.applications", "COUNT", "100000", "maximum number of applications of the registry; the response to an instance of a further one is 429", Count = |b, v| b.limits_with(|l| l.applications(v))),
    property!("eureka.server.limits.instances-per-identity", "COUNT", "", "maximum number of instances that one authenticated identity registers; the response to a further one is 429", Count = |b, v| b.limits_with(|l| l.instances_per_identity(v))),
    property!("eureka.server.limits.applications-per-identity", "COUNT", "", "maximum number of applications that one authenticated identity registers instances of; the response to a further one is 429", Count = |b, v| b.limits_with(|l| l.applications_per_identity(v))),
    property!("eureka.server.limits.requests-per-address", "COUNT", "", "average number of requests per second from one address, or one /64 of IPv6; the response to more is 429", Count = |b, v| b.rate_limits_with(|r| r.per_address(saturated(v)))),
    property!("eureka.server.limits.request-burst-per-address", "COUNT", "10 seconds of requests-per-address", "number of requests from one address that may come at once", Count = |b, v| b.rate_limits_with(|r| r.address_burst(saturated(v)))),
    property!("eureka.server.rate-limiter-enabled", "BOOL", "false", "limit the rate of fetches of all clients together; the response to more is 503; no effect in Spring", Flag = |b, v| b.rate_limits_with(|r| r.enabled(v))),
    property!("eureka.server.rate-limiter-throttle-standard-clients", "BOOL", "false", "apply the limit on fetches to stock Java clients and servers as well", Flag = |b, v| b.rate_limits_with(|r| r.throttle_standard_clients(v))),
    property!("eureka.server.rate-limiter-privileged-clients", "NAMES", "", "names of clients (DiscoveryIdentity-Name) that are exempt from the limit on fetches, separated by commas", Text = |b, names| b.rate_limits_with(|r| r.privileged_clients(names.split(',').map(str::trim).filter(|name| !name.is_empty())))),
    property!("eureka.server.rate-limiter-burst-size", "COUNT", "10", "number of fetches that may come at once", Count = |b, v| b.rate_limits_with(|r| r.burst(saturated(v)))),
    property!("eureka.server.rate-limiter-registry-fetch-average-rate", "COUNT", "500", "average number of fetches per second: of the registry, its delta, or an application", Count = |b, v| b.rate_limits_with(|r| r.fetch_rate(saturated(v)))),
    property!("eureka.server.rate-limiter-full-fetch-average-rate", "COUNT", "100", "average number of fetches of the whole registry per second", Count = |b, v| b.rate_limits_with(|r| r.full_fetch_rate(saturated(v)))),
    property!("eureka.server.limits.registry-bytes", "BYTES", "a twentieth of the memory", "maximum memory of all instances, recently removed ones included; the response to more is 429", Count = |b, v| b.limits_with(|l| l.registry_bytes(v))),
    property!("eureka.server.limits.lease-seconds", "SECONDS", "86400", "maximum duration of a lease; a longer one is reduced to it", Seconds = |b, v| b.limits_with(|l| l.lease_duration(v))),
    property!("eureka.server.limits.head-bytes", "BYTES", "32768", "maximum size of a request's line and headers together, at least 8192; the response to more is 431", Count = |mut b, n| { b.connections.head_bytes = n; b }),
    property!("eureka.server.limits.headers", "COUNT", "100", "maximum number of headers of a request, 1 to 10000; the response to more is 431", Count = |mut b, n| { b.connections.headers = n; b }),
    property!("eureka.server.limits.head-read-time-ms", "MS", "10000", "maximum time from a request's first byte to the end of its headers; then the connection is closed", Millis = |mut b, time| { b.connections.head_timeout = time; b }),
    property!("eureka.server.limits.body-read-time-ms", "MS", "30000", "maximum time for the body of a request; then the response is 408", Millis = |mut b, time| { b.connections.body_timeout = time; b }),
    property!("eureka.server.limits.response-write-time-ms", "MS", "10000", "maximum time in which a client reads less than 64 KiB of its responses; then the connection is closed", Millis = |mut b, time| { b.connections.response_timeout = time; b }),
    property!("eureka.server.limits.idle-time-ms", "MS", "90000", "maximum time in which no byte moves on a connection; then it is closed", Millis = |mut b, time| { b.connections.idle_timeout = time; b }),
    property!("spring.security.user.name", "NAME", "user", "name of the user who may do everything, once there is a password", With = |b, v| access::spring(b, v, |user, name| user.name = Some(name))),
    property!("spring.security.user.password", "PASSWORD", "", "password of this user: plain text, or behind {noop}, {bcrypt} or {argon2} as in Spring", Secret = |b, v| access::spring(b, v, |user, password| user.password = Some(password))),
    property!("spring.security.user.roles", "NAMES", "*", "roles of this user: read, register, operate, peer; other names have no meaning", With = |b, v| access::spring(b, v, |user, roles| user.roles = roles)),
    property!("eureka.server.access.users-file", "PATH", "", "file with a table of users, read again when it changes", Path = access::users_file),
    property!("eureka.server.access.users.<name>.password", "PASSWORD", "", "password of one user: an Argon2 hash, or as that of spring.security.user", Secret = |b, v| access::user(b, v, |user, password| user.password = Some(password))),
    property!("eureka.server.access.users.<name>.token", "TOKEN", "", "bearer token of one user", Secret = |b, v| access::user(b, v, |user, token| user.token = Some(token))),
    #[cfg(feature = "access")]
    property!("eureka.server.access.users.<name>.certificate", "NAMES", "", "names in the client certificate of one user, such as CN=orders,O=Shop or DNS=orders.internal", With = |b, v| access::user(b, v, |user, names| user.certificate = Some(names))),
    #[cfg(feature = "access")]
    property!("eureka.server.access.users.<name>.subject", "TEXT", "", "subject of the JSON Web Tokens of one user", With = |b, v| access::user(b, v, |user, subject| user.subject = Some(subject))),
    property!("eureka.server.access.users.<name>.roles", "NAMES", "read,register", "roles of one user: read, register, operate, peer, or * for all", With = |b, v| access::user(b, v, |user, roles| user.roles = Some(roles))),
    property!("eureka.server.access.users.<name>.applications", "NAMES", "", "applications that only this user may register; any that nobody else has by default", With = |b, v| access::user(b, v, |user, applications| user.applications = applications)),
    property!("eureka.server.access.anonymous", "NAMES", "none with users, else all roles", "roles of callers without credentials: read, register, operate, peer, * or none", With = access::anonymous),
    property!("eureka.server.access.failed-attempts-per-minute", "COUNT", "10", "failed log-ins of one address, or one /64 of IPv6, with one user name within a minute, and ten times as many in all; the response to further ones is 429; 0 means no limit", With = access::attempts),
    #[cfg(feature = "access")]
    property!("eureka.server.access.jwt.keys-file", "PATH", "", "JSON Web Key Set with the keys of bearer tokens, read again when it changes", Path = |b, v| access::jwt(b, v, |jwt, file| jwt.keys_file = Some(access::path(&file)))),
    #[cfg(all(feature = "access", feature = "peers"))]
    property!("eureka.server.access.jwt.keys-url", "URL", "", "URL of this set, fetched every 5 minutes", With = |b, v| access::jwt(b, v, |jwt, url| jwt.keys_url = Some(url))),
    #[cfg(all(feature = "access", feature = "peers"))]
    property!("spring.security.oauth2.resourceserver.jwt.jwk-set-uri", "URL", "", "the same under Spring's name", With = |b, v| access::jwt(b, v, |jwt, url| jwt.keys_url = Some(url))),
    #[cfg(all(feature = "access", feature = "peers"))]
    property!(@ "eureka.server.access.jwt.allow-insecure-keys-url", "BOOL", "false", "fetch the keys over plain http:// from another machine as well; whoever can change the response may sign any token", Flag, access::insecure_keys_url),
    #[cfg(feature = "access")]
    property!("eureka.server.access.jwt.issuer", "URL", "", "issuer that tokens must have", With = |b, v| access::jwt(b, v, |jwt, issuer| jwt.issuer = Some(issuer))),
    #[cfg(feature = "access")]
    property!("spring.security.oauth2.resourceserver.jwt.issuer-uri", "URL", "", "the same under Spring's name; the keys are not looked up there", With = |b, v| access::jwt(b, v, |jwt, issuer| jwt.issuer = Some(issuer))),
    #[cfg(feature = "access")]
    property!("eureka.server.access.jwt.audience", "NAMES", "", "audiences for which tokens are accepted", With = access::audiences),
    #[cfg(feature = "access")]
    property!("spring.security.oauth2.resourceserver.jwt.audiences", "NAMES", "", "the same under Spring's name", With = access::audiences),
    #[cfg(feature = "access")]
    property!("eureka.server.access.jwt.roles-claim", "NAME", "roles", "claim with the roles, such as realm_access.roles", With = |b, v| access::jwt(b, v, |jwt, claim| jwt.roles_claim = Some(claim))),
    #[cfg(feature = "peers")]
    property!("eureka.server.wait-time-in-ms-when-sync-empty", "MS", "300000", "maximum time for which a starting node refuses lists with 403", Millis = |b, v| b.peers_with(|p| p.wait_when_empty(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.registry-sync-retries", "COUNT", "5", "number of times that a starting node tries to copy the registry of a peer", Count = |b, n| b.peers_with(|p| p.sync_up_attempts(n.try_into().unwrap_or(u32::MAX)))),
    #[cfg(feature = "peers")]
    property!("eureka.server.registry-sync-retry-wait-ms", "MS", "30000", "pause between two such attempts", Millis = |b, v| b.peers_with(|p| p.sync_up_pause(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-eureka-nodes-update-interval-ms", "MS", "600000", "interval at which a dynamic list of peers is read again; the one from settings is static", Millis = |b, v| b.peers_with(|p| p.refresh_interval(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.my-url", "URL", "", "URL of this node among the peers' URLs", Text = |b, url| b.peers_with(|p| p.my_url(url))),
    #[cfg(feature = "peers")]
    property!("eureka.server.sync-when-timestamp-differs", "BOOL", "true", "accept newer data of a peer", Flag = |b, v| b.peers_with(|p| p.take_newer_copies(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.max-elements-in-peer-replication-pool", "COUNT", "10000", "maximum number of changes in the replication queue of one peer", Count = |b, v| b.peers_with(|p| p.queue_capacity(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.max-threads-for-peer-replication", "COUNT", "20", "maximum number of batches in flight to one peer", Count = |b, v| b.peers_with(|p| p.batches_in_flight(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.max-time-for-replication", "MS", "30000", "time after which a queued change is no longer replicated", Millis = |b, v| b.peers_with(|p| p.replication_time(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-node-connect-timeout-ms", "MS", "1000", "connect timeout of peers", Millis = |b, v| b.peers_with(|p| p.connect_timeout(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-node-read-timeout-ms", "MS", "5000", "response timeout of peers", Millis = |b, v| b.peers_with(|p| p.read_timeout(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-comparison-interval-ms", "MS", "30000", "interval of the reconciliation with a peer, 0 disables it; not in Java", Millis = |b, v| b.peers_with(|p| p.reconcile_interval(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.peer-outage-limit-ms", "MS", "600000", "maximum time for which changes, except heartbeats, are kept for an unreachable peer; not in Java", Millis = |b, v| b.peers_with(|p| p.outage_limit(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-urls-with-name", "REGIONS", "", "remote regions by name and URL: eu;http://eu/eureka/,asia;http://asia/eureka/", Text = |b, list| b.regions_with(|r| r.list(list))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-urls-with-name.<region>", "URL", "", "URL of one remote region", With = keyed::region),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-app-whitelist", "NAMES", "", "applications of remote regions in lists; all of them by default", Text = |b, apps| if apps.is_empty() { b } else { b.regions_with(|r| r.whitelist("global", apps)) }),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-app-whitelist.<region>", "NAMES", "", "applications of one remote region; global is for regions without a list of their own", With = keyed::whitelist),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-registry-fetch-interval", "SECONDS", "30", "fetch interval of remote regions", Seconds = |b, v| b.regions_with(|r| r.interval(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.disable-transparent-fallback-to-other-region", "BOOL", "false", "include remote regions only in responses to requests that name them", Flag = |b, disabled| b.regions_with(|r| r.fallback(!disabled))),
    #[cfg(feature = "peers")]
    property!("eureka.server.disable-delta-for-remote-regions", "BOOL", "false", "fetch the full registry of remote regions each time", Flag = |b, disabled| b.regions_with(|r| r.delta(!disabled))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-connect-timeout-ms", "MS", "2000", "connect timeout of remote regions", Millis = |b, v| b.regions_with(|r| r.connect_timeout(v))),
    #[cfg(feature = "peers")]
    property!("eureka.server.remote-region-read-timeout-ms", "MS", "5000", "response timeout of remote regions", Millis = |b, v| b.regions_with(|r| r.read_timeout(v))),
    #[cfg(feature = "peers")]
    property!("eureka.client.region", "NAME", "us-east-1", "region of this node", Text = |b, name| b.peers_with(|p| p.region(name))),
    #[cfg(feature = "peers")]
    property!("eureka.client.availability-zones.<region>", "NAMES", "defaultZone", "zones of a region, the one of this node first", With = keyed::zones),
    #[cfg(feature = "peers")]
    property!("eureka.client.service-url.<zone>", "URLS", "", "URLs of the peers, separated by commas; <zone> is usually defaultZone; https certificates are verified with the CAs in eureka.client.tls.trust-store, else with the system's, or those in the PEM file that the variable SSL_CERT_FILE names", With = keyed::zone_urls),
    #[cfg(all(feature = "peers", feature = "dns"))]
    property!("eureka.client.use-dns-for-fetching-service-urls", "BOOL", "false", "look up the peers in DNS TXT records", Flag = |b, v| b.peers_with(|p| p.use_dns(v))),
    #[cfg(all(feature = "peers", feature = "dns"))]
    property!("eureka.client.eureka-server-d-n-s-name", "NAME", "", "domain of these records: txt.<region>.<domain>", Text = |b, name| b.peers_with(|p| p.with_dns(|dns| dns.domain = name.into()))),
    #[cfg(all(feature = "peers", feature = "dns"))]
    property!("eureka.client.eureka-server-port", "PORT", "", "port of the servers in these records", Port = |b, port| b.peers_with(|p| p.with_dns(|dns| dns.port = port))),
    #[cfg(all(feature = "peers", feature = "dns"))]
    property!("eureka.client.eureka-server-u-r-l-context", "PATH", "", "path on these servers", Text = |b, path| b.peers_with(|p| p.with_dns(|dns| dns.context = path.into()))),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.enabled", "BOOL", "false", "use the stores below for https requests to peers and regions", Flag = |b, v| b.peers_with(|p| p.tls_keys_with(|t| t.enabled = v))),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.key-store", "PATH", "", "PKCS#12 or PEM file with the certificate and key of this node as a client", Path = |b, v| tls(b, |t| { t.key_store.location = Some(v.text().to_owned()); Ok(()) })),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.key-store-type", "TYPE", "by content", "PKCS12 or PEM", With = |b, v| tls(b, |t| { t.key_store.store_type = Some(store_type(v)?); Ok(()) })),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.key-store-password", "PASSWORD", "", "password of the key store", Secret = |b, v| tls(b, |t| { t.key_store.password = Some(v.secret()); Ok(()) })),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.key-password", "PASSWORD", "", "password of the key; must be that of the store", Secret = |b, v| tls(b, |t| { t.key_password = Some(v.secret()); Ok(()) })),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.trust-store", "PATH", "", "PKCS#12 or PEM file with the trusted CAs, instead of the system's", Path = |b, v| tls(b, |t| { t.trust_store.location = Some(v.text().to_owned()); Ok(()) })),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.trust-store-type", "TYPE", "by content", "PKCS12 or PEM", With = |b, v| tls(b, |t| { t.trust_store.store_type = Some(store_type(v)?); Ok(()) })),
    #[cfg(feature = "peers")]
    property!("eureka.client.tls.trust-store-password", "PASSWORD", "", "password of the trust store", Secret = |b, v| tls(b, |t| { t.trust_store.password = Some(v.secret()); Ok(()) })),
    #[cfg(feature = "peers")]
    property!("eureka.client.prefer-same-zone-eureka", "BOOL", "true", "copy the registry of a peer in the same zone first", Flag = |b, v| b.peers_with(|p| p.prefer_same_zone(v))),
    #[cfg(feature = "peers")]
    property!("eureka.client.register-with-eureka", "BOOL", "true", "register this node at itself and its peers", Flag = |b, v| b.node_with(|n| n.register(v))),
    #[cfg(feature = "peers")]
    property!("eureka.client.fetch-registry", "BOOL", "true", "copy the registry of a peer at startup", Flag = |b, v| b.peers_with(|p| p.sync_up(v))),
    #[cfg(feature = "peers")]
    property!("eureka.client.should-unregister-on-shutdown", "BOOL", "true", "cancel the registration of this node when it stops", Flag = |b, v| b.node_with(|n| n.unregister(v))),
    #[cfg(feature = "peers")]
    property!("spring.application.name", "NAME", "UNKNOWN", "application name under which this node is registered", Text = |b, name| b.node_with(|n| n.app(name))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.appname", "NAME", "UNKNOWN", "application name under which this node is registered", Text = |b, name| b.node_with(|n| n.app(name))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.instance-id", "ID", "ip:port", "instance id of this node", Text = |b, id| b.node_with(|n| n.id(id))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.hostname", "NAME", "the IP address", "host name of this node", Text = |b, name| b.node_with(|n| n.host_name(name))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.ip-address", "IP", "that of the default route", "IP address of this node", Text = |b, ip| b.node_with(|n| n.ip_addr(ip))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.metadata-map.<key>", "TEXT", "", "entry of the metadata of this node", With = |b, v| Ok(b.node_with(|n| n.metadata(v.key(), v.text())))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.lease-renewal-interval-in-seconds", "SECONDS", "30", "interval of the heartbeats of this node", Seconds = |b, v| b.node_with(|n| n.renewal_interval(v))),
    #[cfg(feature = "peers")]
    property!("eureka.instance.lease-expiration-duration-in-seconds", "SECONDS", "90", "time after which the lease of this node expires without heartbeats", Seconds = |b, v| b.node_with(|n| n.lease_duration(v))),
];

/// Settings of a Spring server without a meaning here: Java does not read them, or they concern
/// AWS, or threads and caches that do not exist here. They are ignored, so that a command line of a
/// Spring server can be used. A name that ends in `*` stands for all names with this beginning.
pub(super) const WITHOUT_MEANING: &[&str] = &[
    "eureka.server.batch-replication",
    "eureka.server.number-of-replication-retries",
    "eureka.server.peer-eureka-status-refresh-time-interval-ms",
    "eureka.server.min-threads-for-peer-replication",
    "eureka.server.max-idle-thread-age-in-minutes-for-peer-replication",
    "eureka.server.min-threads-for-status-replication",
    "eureka.server.max-threads-for-status-replication",
    "eureka.server.max-elements-in-status-replication-pool",
    "eureka.server.max-idle-thread-age-in-minutes-for-status-replication",
    // Spelling of Spring Cloud.
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
    "eureka.server.experimental.*",
    #[cfg(not(feature = "prometheus"))]
    "eureka.server.metrics.enabled",
    "eureka.server.expected-number-of-renews-per-min",
    "eureka.server.default-open-for-traffic-count",
    "eureka.instance.registry.expected-number-of-clients-sending-renews",
    "eureka.instance.registry.default-open-for-traffic-count",
    // Responses of remote regions may always be gzip, their certificates are verified as those of
    // peers, and connections to them are few.
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
    #[cfg(not(feature = "peers"))]
    "eureka.client.tls.*",
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

/// Settings of a Spring server for features that do not exist here yet: the name, the value that
/// disables the feature, and the expectation that the error for other values states.
pub(super) const NOT_YET: &[(&str, &str, &str)] = &[
    #[cfg(not(all(feature = "peers", feature = "dns")))]
    ("eureka.client.use-dns-for-fetching-service-urls", "false", "false: this server cannot do it yet"),
    #[cfg(not(feature = "peers"))]
    ("eureka.server.remote-region-urls-with-name*", "", "nothing: remote regions need the feature peers"),
    ("server.servlet.context-path", "/", NO_CONTEXT),
    ("server.context-path", "/", NO_CONTEXT),
];

/// Settings that protect a Spring server, and the reason why this server does not start with them:
/// operators who set them rely on the protection.
pub(super) const UNPROTECTED: &[(&str, &str)] = &[
    ("spring.security.*", NO_ACCESS_CONTROL),
    ("security.user.*", OF_SPRING_BOOT_1),
    ("security.basic.*", OF_SPRING_BOOT_1),
    #[cfg(not(feature = "tls"))]
    (
        "server.ssl.*",
        "is set, but TLS is not built in: switch on the feature `tls` of tower-eureka, or put a proxy with TLS in front of it",
    ),
    #[cfg(feature = "tls")]
    (
        "server.ssl.bundle",
        "is set, but bundles are not supported: set server.ssl.certificate and server.ssl.certificate-private-key",
    ),
];

const NO_ACCESS_CONTROL: &str = "is set, but this server has no such access control: of spring.security it reads user.name, user.password, \
                                 user.roles and oauth2.resourceserver.jwt; set eureka.server.access.* and remove this setting";
const OF_SPRING_BOOT_1: &str =
    "is a setting of Spring Boot 1: use spring.security.user.name and spring.security.user.password";

/// Settings of `server.ssl` with the reason why they have no effect.
#[cfg(feature = "tls")]
pub(super) const OF_SSL: &[(&str, &str)] = &[
    ("server.ssl.key-alias", "has no effect: of several keys in a store, the first by alias is used"),
    ("server.ssl.ciphers", "has no effect: all cipher suites here are AEAD with forward secrecy"),
    ("server.ssl.protocol", "has no effect: server.ssl.enabled-protocols selects the versions"),
    ("server.ssl.key-store-provider", "has no effect: there are no providers as in Java"),
    ("server.ssl.trust-store-provider", "has no effect: there are no providers as in Java"),
    ("server.ssl.trust-certificate-private-key", "has no effect: a CA needs no key to verify certificates"),
    ("server.ssl.server-name-bundles", "has no effect: there is one certificate for all names"),
];
#[cfg(not(feature = "tls"))]
pub(super) const OF_SSL: &[(&str, &str)] = &[];

const NO_CONTEXT: &str = "/: this server responds below /eureka/ only, a proxy in front of it can add a path";

/// Settings of a Spring application's HTTP server without a meaning here.
pub(super) const OF_SPRING_SERVERS: &[&str] = &[
    "server.servlet.*",
    "server.tomcat.*",
    "server.jetty.*",
    "server.undertow.*",
    "server.netty.*",
    "server.reactive.*",
    "server.http2.*",
    "server.compression.*",
    "server.error.*",
    "server.mime-mappings.*",
    "server.session.*",
    "server.spring.*",
    "server.jsp-servlet.*",
    "server.shutdown",
    "server.forward-headers-strategy",
    "server.use-forward-headers",
    "server.server-header",
    "server.display-name",
    "server.max-http-header-size",
    "server.max-http-request-header-size",
    "server.max-http-post-size",
    "server.connection-timeout",
];
