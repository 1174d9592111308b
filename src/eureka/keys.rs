//! Settings of a client.

use std::borrow::Cow;

use super::balancing::{BY_SERVICE, LOADBALANCER};
use super::interest::single_vip;
use super::{Eureka, EurekaBuilder, offline};
use crate::config::{
    INSTANCE, INSTANCE_UNSUPPORTED, INSTANCE_WITHOUT_MEANING, InvalidSetting, Key, Known, REGISTRAR, ServiceUrl,
    Settings, Switches, Unit, Value, apply, names, names_of, netflix_names_of, store_type,
};
use crate::connect::Proxies;
use crate::error::{Error, Kind};

impl Eureka {
    /// Creates a client with the settings of a Spring application. `docs/settings.md` lists them.
    ///
    /// Settings without an effect are logged: at info if they have no meaning here, and as a
    /// warning otherwise.
    ///
    /// # Errors
    /// If a value is invalid. A client that the settings switch off accepts other invalid values.
    pub fn from_settings(settings: &Settings) -> Result<Self, Error> {
        Self::builder_from(settings)?.build()
    }

    /// Creates a builder with the settings of a Spring application. Later calls of the builder
    /// override them.
    ///
    /// # Errors
    /// If a value is invalid. If the settings switch the client off, another invalid value is an
    /// error of [`build`](EurekaBuilder::build) instead, and only if the code switches the client
    /// on again.
    pub fn builder_from(settings: &Settings) -> Result<EurekaBuilder, Error> {
        let start = || {
            let mut builder = EurekaBuilder { default_url: true, urls_from_settings: true, ..Self::builder() };
            builder.config.proxies = Proxies::from_env(&|name| settings.variable(name).map(str::to_owned));
            apply(settings, SWITCHES, builder).map_err(invalid)
        };
        let switches = start()?;
        let is_off = switches.config.switches.client.is_some();
        let apply_all = |builder: EurekaBuilder| {
            let mut builder = apply(settings, CLIENT, builder)?;
            builder = apply_balancing(settings, builder)?;
            builder.config.registrar = apply(settings, REGISTRAR, builder.config.registrar)?;
            Ok(builder)
        };
        let builder = match apply_all(switches) {
            Ok(builder) => builder,
            // The error is kept in case the code switches the client on again.
            Err(error) if is_off => EurekaBuilder { error: Some(invalid(error)), ..start()? },
            Err(error) => return Err(invalid(error)),
        };
        report(settings);
        Ok(builder)
    }
}

/// Applies the settings of calls by name.
pub(super) fn apply_balancing(settings: &Settings, builder: EurekaBuilder) -> Result<EurekaBuilder, InvalidSetting> {
    let mut builder = apply(settings, BY_SERVICE, apply(settings, LOADBALANCER, builder)?)?;
    builder = apply(settings, STATUSES, builder)?;
    builder.balancing.check()?;
    builder.balancing.read_own_zone(settings)?;
    Ok(builder)
}

pub(super) fn invalid(setting: InvalidSetting) -> Error {
    Error::new(Kind::Config, "read settings").cause(setting.to_string())
}

/// Beginnings of the names that concern a client.
const FAMILIES: &[&str] = &[
    "eureka",
    "spring.cloud.discovery",
    "spring.cloud.inetutils",
    "spring.cloud.loadbalancer",
    "spring.cloud.service-registry",
    "spring.lifecycle",
];

/// Logs the settings without an effect.
fn report(settings: &Settings) {
    let read = read_names().chain(names_of(LOADBALANCER)).chain(names_of(BY_SERVICE));
    // Settings of a registry server in the same process. Its `eureka.client.*` are those of a peer.
    #[cfg(feature = "server")]
    let read = read.chain(crate::server::property_names());
    let netflix = netflix_names_of(SWITCHES)
        .chain(netflix_names_of(CLIENT))
        .chain(netflix_names_of(STATUSES))
        .chain(netflix_names_of(INSTANCE));
    let netflix = netflix.chain(netflix_names_of(REGISTRAR));
    let known = Known {
        read: &read.collect::<Vec<_>>(),
        netflix: &netflix.collect::<Vec<_>>(),
        without_meaning: &[WITHOUT_MEANING, INSTANCE_WITHOUT_MEANING].concat(),
        unsupported: INSTANCE_UNSUPPORTED,
    };
    settings.report(FAMILIES, &known);
}

/// Returns the names of the settings that a Spring client reads, including those without an effect
/// here.
#[cfg(feature = "server")]
pub(crate) fn spring_properties() -> impl Iterator<Item = &'static str> {
    let others = [WITHOUT_MEANING, INSTANCE_WITHOUT_MEANING, INSTANCE_UNSUPPORTED];
    read_names().chain(others.into_iter().flatten().map(|(name, _)| *name))
}

/// Returns the names of the settings that a client and its instances read.
fn read_names() -> impl Iterator<Item = &'static str> {
    names_of(SWITCHES)
        .chain(names_of(CLIENT))
        .chain(names_of(STATUSES))
        .chain(names_of(INSTANCE))
        .chain(names_of(REGISTRAR))
}

/// Switches a part of the client off if the value is false.
fn switch(
    mut builder: EurekaBuilder,
    value: &Value,
    part: fn(&mut Switches) -> &mut Option<Cow<'static, str>>,
) -> Result<EurekaBuilder, InvalidSetting> {
    if !value.flag()? {
        part(&mut builder.config.switches).get_or_insert(value.shown_as("false").into());
    }
    Ok(builder)
}

type Row = Key<EurekaBuilder>;

/// Settings that switch parts of the client off. They are read first.
#[rustfmt::skip]
pub(crate) static SWITCHES: &[Row] = &[
    Row::new("eureka.client.enabled", Unit::Flag, "true", "EurekaBuilder::enabled",
        |b, v| switch(b, v, |s| &mut s.client)),
    Row::new("spring.cloud.discovery.enabled", Unit::Flag, "true", "EurekaBuilder::enabled",
        |b, v| switch(b, v, |s| &mut s.client)),
    Row::new("eureka.client.register-with-eureka", Unit::Flag, "true", "EurekaBuilder::register_with_eureka",
        |b, v| switch(b, v, |s| &mut s.registration))
        .netflix(&[("eureka.registration.enabled", Unit::Flag)]),
    Row::new("spring.cloud.service-registry.auto-registration.enabled", Unit::Flag, "true", "EurekaBuilder::register_with_eureka",
        |b, v| switch(b, v, |s| &mut s.registration)),
    Row::new("eureka.client.fetch-registry", Unit::Flag, "true", "EurekaBuilder::fetch_registry",
        |b, v| switch(b, v, |s| &mut s.fetch))
        .netflix(&[("eureka.shouldFetchRegistry", Unit::Flag)]),
];

/// Other settings of a client, in the order in which they are applied.
#[rustfmt::skip]
pub(crate) static CLIENT: &[Row] = &[
    Row::new("eureka.client.service-url.<zone>", Unit::Urls, "http://localhost:8761/eureka/", "EurekaBuilder::zone_url", service_url)
        .netflix(&[("eureka.serviceUrl.<zone>", Unit::Urls)]),
    Row::new("eureka.client.region", Unit::Text, "us-east-1", "EurekaBuilder::region",
        |b, v| Ok(b.region(v.text())))
        .netflix(&[("eureka.region", Unit::Text)]),
    Row::new("eureka.client.availability-zones.<region>", Unit::List, "defaultZone", "EurekaBuilder::availability_zones",
        availability_zones)
        .netflix(&[("eureka.<region>.availabilityZones", Unit::List)]),
    Row::new("eureka.client.prefer-same-zone-eureka", Unit::Flag, "true", "EurekaBuilder::prefer_same_zone",
        |b, v| Ok(b.prefer_same_zone(v.flag()?)))
        .netflix(&[("eureka.preferSameZone", Unit::Flag)]),
    Row::new("eureka.client.use-dns-for-fetching-service-urls", Unit::Flag, "false", "EurekaBuilder::dns",
        |mut b, v| { b.config.servers.uses_dns = v.flag()?; Ok(b) })
        .netflix(&[("eureka.shouldUseDns", Unit::Flag)]),
    Row::new("eureka.client.eureka-server-d-n-s-name", Unit::Text, "none", "DnsServers::new",
        |mut b, v| { b.config.servers.dns.domain = v.text().to_owned(); Ok(b) })
        .netflix(&[("eureka.eurekaServer.domainName", Unit::Text), ("eureka.domainName", Unit::Text)]),
    Row::new("eureka.client.eureka-server-port", Unit::Port, "none", "DnsServers::new",
        |mut b, v| { b.config.servers.dns.port = v.port()?; Ok(b) })
        .netflix(&[("eureka.eurekaServer.port", Unit::Port)]),
    Row::new("eureka.client.eureka-server-u-r-l-context", Unit::Text, "none", "DnsServers::context",
        |mut b, v| { b.config.servers.dns.context = v.text().to_owned(); Ok(b) })
        .netflix(&[("eureka.eurekaServer.context", Unit::Text), ("eureka.context", Unit::Text)]),
    Row::new("eureka.client.eureka-service-url-poll-interval-seconds", Unit::Seconds, "300", "EurekaBuilder::server_poll_interval",
        |b, v| Ok(b.server_poll_interval(v.positive_duration()?)))
        .netflix(&[("eureka.serviceUrlPollIntervalMs", Unit::Millis)]),
    Row::new("eureka.client.transport.bootstrap-resolver-strategy", Unit::Text, "none", "EurekaBuilder::server_vip",
        |mut b, v| { b.config.servers.cluster.is_used = v.text().eq_ignore_ascii_case("composite"); Ok(b) })
        .netflix(&[("eureka.transport.bootstrapResolverStrategy", Unit::Text)]),
    Row::new("eureka.client.transport.write-cluster-vip", Unit::Text, "none", "EurekaBuilder::server_vip",
        |mut b, v| { b.config.servers.cluster.vip = v.text().to_owned(); Ok(b) })
        .netflix(&[("eureka.transport.writeClusterVip", Unit::Text)]),
    Row::new("eureka.client.transport.applications-resolver-use-ip", Unit::Flag, "false", "EurekaBuilder::server_vip",
        |mut b, v| { b.config.servers.by_ip = v.flag()?; Ok(b) })
        .netflix(&[("eureka.transport.applicationsResolverUseIp", Unit::Flag)]),
    Row::new("eureka.client.transport.bootstrap-resolver-for-query", Unit::Flag, "true", "EurekaBuilder::read_server_vip",
        |mut b, v| { b.config.servers.read_cluster.is_used = !v.flag()?; Ok(b) })
        .netflix(&[("eureka.transport.useBootstrapResolverForQuery", Unit::Flag)]),
    Row::new("eureka.client.transport.read-cluster-vip", Unit::Text, "none", "EurekaBuilder::read_server_vip",
        |mut b, v| { b.config.servers.read_cluster.vip = v.text().to_owned(); Ok(b) })
        .netflix(&[("eureka.transport.readClusterVip", Unit::Text)]),
    Row::new("eureka.client.transport.sessioned-client-reconnect-interval-seconds", Unit::Seconds, "1200", "EurekaBuilder::session_duration",
        |b, v| Ok(b.session_duration(v.positive_duration()?)))
        .netflix(&[("eureka.transport.sessionedClientReconnectIntervalSeconds", Unit::Seconds)]),
    Row::new("eureka.client.transport.retryable-client-quarantine-refresh-percentage", Unit::Share, "0.66", "EurekaBuilder::quarantine_threshold",
        |b, v| Ok(b.quarantine_threshold(v.share()?)))
        .netflix(&[("eureka.transport.retryableClientQuarantineRefreshPercentage", Unit::Share)]),
    Row::new("eureka.client.registry-fetch-interval-seconds", Unit::Seconds, "30", "EurekaBuilder::fetch_interval",
        |b, v| Ok(b.fetch_interval(v.positive_duration()?)))
        .netflix(&[("eureka.client.refresh.interval", Unit::Seconds)]),
    Row::new("eureka.client.disable-delta", Unit::Flag, "false", "EurekaBuilder::delta, reversed",
        |b, v| Ok(b.delta(!v.flag()?)))
        .netflix(&[("eureka.disableDelta", Unit::Flag)]),
    Row::new("eureka.client.registry-refresh-single-vip-address", Unit::Text, "none", "EurekaBuilder::interest", single_vip)
        .netflix(&[("eureka.registryRefreshSingleVipAddress", Unit::Text)]),
    Row::new("eureka.client.fetch-remote-regions-registry", Unit::List, "none", "EurekaBuilder::regions",
        |b, v| Ok(b.regions(v.list())))
        .netflix(&[("eureka.fetchRemoteRegionsRegistry", Unit::List)]),
    Row::new("eureka.client.should-enforce-fetch-registry-at-init", Unit::Flag, "false", "EurekaBuilder::require_registry",
        offline::enforce_fetch)
        .netflix(&[("eureka.shouldEnforceFetchRegistryAtInit", Unit::Flag)]),
    Row::new("eureka.client.backup-registry-impl", Unit::Path, "none", "EurekaBuilder::registry_file", offline::backup_registry)
        .netflix(&[("eureka.backupregistry", Unit::Path)]),
    Row::new("spring.cloud.discovery.client.simple.instances.<service[n].uri>", Unit::Text, "none", "EurekaBuilder::static_instances",
        offline::simple_instance),
    Row::new("eureka.client.eureka-server-connect-timeout-seconds", Unit::Seconds, "5", "EurekaBuilder::connect_timeout",
        |b, v| Ok(b.connect_timeout(v.positive_duration()?)))
        .netflix(&[("eureka.eurekaServer.connectTimeout", Unit::Seconds)]),
    Row::new("eureka.client.eureka-server-read-timeout-seconds", Unit::Seconds, "8", "EurekaBuilder::read_timeout",
        |b, v| Ok(b.read_timeout(v.positive_duration()?)))
        .netflix(&[("eureka.eurekaServer.readTimeout", Unit::Seconds)]),
    // Timeouts of Spring's default transport, which take precedence over those of Jersey.
    Row::new("eureka.client.timeout.connect-timeout", Unit::Millis, "5000", "EurekaBuilder::connect_timeout",
        |b, v| Ok(b.connect_timeout(v.positive_duration()?))),
    Row::new("eureka.client.timeout.socket-timeout", Unit::Millis, "8000", "EurekaBuilder::read_timeout",
        |b, v| Ok(b.read_timeout(v.positive_duration()?))),
    Row::new("eureka.client.eureka-connection-idle-timeout-seconds", Unit::Seconds, "45", "EurekaBuilder::connection_idle_timeout",
        |b, v| Ok(b.connection_idle_timeout(v.positive_duration()?)))
        .netflix(&[("eureka.eurekaserver.connectionIdleTimeoutInSeconds", Unit::Seconds)]),
    Row::new("eureka.client.proxy-host", Unit::Text, "none", "EurekaBuilder::proxy",
        |mut b, v| { b.security.proxy_host = Some(v.text().to_owned()); Ok(b) })
        .netflix(&[("eureka.eurekaServer.proxyHost", Unit::Text)]),
    Row::new("eureka.client.proxy-port", Unit::Port, "none", "EurekaBuilder::proxy",
        |mut b, v| { b.security.proxy_port = Some(v.port()?); Ok(b) })
        .netflix(&[("eureka.eurekaServer.proxyPort", Unit::Port)]),
    Row::new("eureka.client.proxy-user-name", Unit::Text, "none", "EurekaBuilder::proxy",
        |mut b, v| { b.security.proxy_user = Some(v.text().to_owned()); Ok(b) })
        .netflix(&[("eureka.eurekaServer.proxyUserName", Unit::Text)]),
    Row::new("eureka.client.proxy-password", Unit::Secret, "none", "EurekaBuilder::proxy",
        |mut b, v| { b.security.proxy_password = Some(v.secret()); Ok(b) })
        .netflix(&[("eureka.eurekaServer.proxyPassword", Unit::Secret)]),
    Row::new("eureka.client.tls.enabled", Unit::Flag, "false", "EurekaBuilder::tls_key_store",
        |mut b, v| { b.security.tls.enabled = v.flag()?; Ok(b) }),
    Row::new("eureka.client.tls.key-store", Unit::Path, "none", "EurekaBuilder::tls_key_store",
        |mut b, v| { b.security.tls.key_store.location = Some(v.text().to_owned()); Ok(b) }),
    Row::new("eureka.client.tls.key-store-type", Unit::Text, "by content", "EurekaBuilder::tls_key_store",
        |mut b, v| { b.security.tls.key_store.store_type = Some(store_type(v)?); Ok(b) }),
    Row::new("eureka.client.tls.key-store-password", Unit::Secret, "empty", "EurekaBuilder::tls_key_store",
        |mut b, v| { b.security.tls.key_store.password = Some(v.secret()); Ok(b) }),
    Row::new("eureka.client.tls.key-password", Unit::Secret, "that of the key store", "EurekaBuilder::tls_key_store",
        |mut b, v| { b.security.tls.key_password = Some(v.secret()); Ok(b) }),
    Row::new("eureka.client.tls.trust-store", Unit::Path, "CAs of the system", "EurekaBuilder::tls_trust_store",
        |mut b, v| { b.security.tls.trust_store.location = Some(v.text().to_owned()); Ok(b) }),
    Row::new("eureka.client.tls.trust-store-type", Unit::Text, "by content", "EurekaBuilder::tls_trust_store",
        |mut b, v| { b.security.tls.trust_store.store_type = Some(store_type(v)?); Ok(b) }),
    Row::new("eureka.client.tls.trust-store-password", Unit::Secret, "empty", "EurekaBuilder::tls_trust_store",
        |mut b, v| { b.security.tls.trust_store.password = Some(v.secret()); Ok(b) }),
];

/// Statuses of the instances that receive calls by name.
#[rustfmt::skip]
pub(crate) static STATUSES: &[Row] = &[
    Row::new("eureka.client.filter-only-up-instances", Unit::Flag, "true", "CallOptions::selection",
        |mut b, v| { b.balancing.any_status = !v.flag()?; Ok(b) })
        .netflix(&[("eureka.shouldFilterOnlyUpInstances", Unit::Flag)]),
];

/// Sets the zones of a region.
fn availability_zones(builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    const NAME: &str = "eureka.client.availability-zones";
    // Without a region, the name has the form of a Netflix name with the region `client`.
    let is_without_region = value.key() == "client" && names::uniform(value.place().name) == names::uniform(NAME);
    if is_without_region || value.key().parse::<usize>().is_ok() {
        return Err(value.refused("zones belong to a region (write eureka.client.availability-zones.REGION)"));
    }
    Ok(builder.availability_zones(value.key(), value.list().join(",")))
}

/// Sets the registry servers of a zone.
fn service_url(mut builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    let urls = ServiceUrl::parse_list(value.text()).map_err(|error| value.refused(error))?;
    if matches!(&*names::relaxed(value.key()), "defaultzone" | "default") {
        builder.config.service_urls = urls;
    } else {
        builder.config.servers.zones.remove_urls(value.key());
        builder.config.servers.zones.add_urls(value.key(), urls);
    }
    Ok(builder)
}

const ONE_TASK: &str = "each client has one task, which needs no pool of threads";
const CODEC: &str = "there is one codec for each format";
const BACKOFF: &str = "requests are repeated after 1 second, doubling up to the interval";
const JAVA_HTTP: &str = "there is one HTTP client";
const EXPERIMENTAL: &str = "it is an experiment of the Netflix client";
const MEMBERS: &str = "the instances of a cluster are always looked up at a registry server";
const WARM_UP: &str = "the first request waits for the list of servers";
const POLL: &str = "set eureka.client.eureka-service-url-poll-interval-seconds";
const CHECKS: &str = "current instances are checked at the interval, the first time within one";
const NEXT_INSTANCE: &str = "a retry picks another instance if there is one";
const UNSENT: &str = "calls that were not sent are always repeated";
const JAVA_CLASSES: &str = "they are classes of Java";
const WITH_REQUEST: &str = "policies always see the request";
const METRICS: &str = "enable the feature metrics of tower-eureka";
const AT_INSTANCES: &str = "picks read the current instances, without a cache";

/// Settings of a Spring client without a meaning here, each with the reason.
pub(crate) const WITHOUT_MEANING: &[(&str, &str)] = &[
    ("eureka.client.on-demand-update-status-change", "changes of the status are always registered at once"),
    ("eureka.shouldOnDemandUpdateStatusChange", "changes of the status are always registered at once"),
    ("eureka.client.heartbeat-executor-thread-pool-size", ONE_TASK),
    ("eureka.client.heartbeat.threadPoolSize", ONE_TASK),
    ("eureka.client.cache-refresh-executor-thread-pool-size", ONE_TASK),
    ("eureka.client.cacheRefresh.threadPoolSize", ONE_TASK),
    ("eureka.client.heartbeat-executor-exponential-back-off-bound", BACKOFF),
    ("eureka.client.heartbeat.exponentialBackOffBound", BACKOFF),
    ("eureka.client.cache-refresh-executor-exponential-back-off-bound", BACKOFF),
    ("eureka.client.cacheRefresh.exponentialBackOffBound", BACKOFF),
    (
        "eureka.client.initial-instance-info-replication-interval-seconds",
        "an instance is registered once its server listens",
    ),
    ("eureka.appinfo.initial.replicate.time", "an instance is registered once its server listens"),
    ("eureka.client.log-delta-diff", "differences after a delta are logged at debug"),
    ("eureka.printDeltaFullDiff", "differences after a delta are logged at debug"),
    ("eureka.client.encoder-name", CODEC),
    ("eureka.encoderName", CODEC),
    ("eureka.client.decoder-name", CODEC),
    ("eureka.decoderName", CODEC),
    ("eureka.client.dollar-replacement", CODEC),
    ("eureka.dollarReplacement", CODEC),
    ("eureka.client.escape-char-replacement", CODEC),
    ("eureka.escapeCharReplacement", CODEC),
    ("eureka.client.client-data-accept", "instances are always fetched with their metadata"),
    ("eureka.clientDataAccept", "instances are always fetched with their metadata"),
    ("eureka.client.allow-redirects", "redirects are always followed"),
    ("eureka.allowRedirects", "redirects are always followed"),
    ("eureka.client.g-zip-content", "compressed responses are always accepted"),
    ("eureka.eurekaServer.gzipContent", "compressed responses are always accepted"),
    ("eureka.client.eureka-server-total-connections", JAVA_HTTP),
    ("eureka.eurekaServer.maxTotalConnections", JAVA_HTTP),
    ("eureka.client.eureka-server-total-connections-per-host", JAVA_HTTP),
    ("eureka.eurekaServer.maxConnectionsPerHost", JAVA_HTTP),
    ("eureka.client.timeout.connect-request-timeout", "requests never wait for a connection of the pool"),
    ("eureka.client.webclient.enabled", JAVA_HTTP),
    ("eureka.client.restclient.enabled", JAVA_HTTP),
    ("eureka.client.resttemplate.enabled", JAVA_HTTP),
    ("eureka.client.jersey.enabled", JAVA_HTTP),
    ("eureka.client.refresh.enable", "settings are read once, at the start"),
    ("eureka.client.order", "a process has one client"),
    ("eureka.client.property-resolver", "it is a class of Java"),
    ("eureka.experimental.*", EXPERIMENTAL),
    (
        "spring.cloud.discovery.client.simple.order",
        "static instances are those of applications that the registry does not have",
    ),
    ("eureka.client.transport.bootstrap-resolver-refresh-interval-seconds", POLL),
    ("eureka.client.transport.applications-resolver-data-staleness-threshold-seconds", MEMBERS),
    ("eureka.transport.applicationsResolverDataStalenessThresholdSeconds", MEMBERS),
    ("eureka.client.transport.async-resolver-refresh-interval-ms", POLL),
    ("eureka.transport.asyncResolverRefreshIntervalMs", POLL),
    ("eureka.client.transport.async-resolver-warm-up-timeout-ms", WARM_UP),
    ("eureka.transport.asyncResolverWarmupTimeoutMs", WARM_UP),
    ("eureka.client.transport.async-executor-thread-pool-size", ONE_TASK),
    ("eureka.transport.asyncExecutorThreadPoolSize", ONE_TASK),
    ("eureka.environment", "it selects a file of the Netflix client"),
    ("eureka.datacenter", "it is displayed by Spring's dashboard"),
    ("eureka.client.props", "it selects a file of the Netflix client"),
    ("spring.cloud.discovery.client.health-indicator.*", "it belongs to the pages of Spring Boot"),
    ("spring.cloud.discovery.client.composite-indicator.*", "it belongs to the pages of Spring Boot"),
    ("spring.cloud.service-registry.auto-registration.fail-fast", "it is about a missing class of Java"),
    (
        "spring.cloud.service-registry.auto-registration.register-management",
        "the port of the management is part of the instance",
    ),
    ("spring.cloud.discovery.blocking.enabled", "there is one client"),
    ("spring.cloud.discovery.reactive.enabled", "there is one client"),
    ("spring.cloud.discovery.client.simple.local.*", "the own instance is that of eureka.instance"),
    ("spring.cloud.loadbalancer.retry.max-retries-on-same-service-instance", NEXT_INSTANCE),
    ("spring.cloud.loadbalancer.retry.avoid-previous-instance", NEXT_INSTANCE),
    ("spring.cloud.loadbalancer.retry.retry-on-all-exceptions", UNSENT),
    ("spring.cloud.loadbalancer.retry.retryable-exceptions", JAVA_CLASSES),
    ("spring.cloud.loadbalancer.health-check.initial-delay", CHECKS),
    ("spring.cloud.loadbalancer.health-check.refetch-*", CHECKS),
    ("spring.cloud.loadbalancer.health-check.repeat-health-check", CHECKS),
    ("spring.cloud.loadbalancer.health-check.update-results-list", CHECKS),
    ("spring.cloud.loadbalancer.call-get-with-request-on-delegates", WITH_REQUEST),
    ("spring.cloud.loadbalancer.enabled", "calls by name are always balanced"),
    ("spring.cloud.loadbalancer.cache.*", AT_INSTANCES),
    ("spring.cloud.loadbalancer.stats.*", METRICS),
    ("spring.cloud.loadbalancer.ribbon.enabled", "there is no Ribbon here"),
    ("spring.cloud.loadbalancer.clients.<service>.retry.max-retries-on-same-service-instance", NEXT_INSTANCE),
    ("spring.cloud.loadbalancer.clients.<service>.retry.avoid-previous-instance", NEXT_INSTANCE),
    ("spring.cloud.loadbalancer.clients.<service>.retry.retry-on-all-exceptions", UNSENT),
    ("spring.cloud.loadbalancer.clients.<service>.retry.retryable-exceptions", JAVA_CLASSES),
    ("spring.cloud.loadbalancer.clients.<service>.health-check.initial-delay", CHECKS),
    ("spring.cloud.loadbalancer.clients.<service>.health-check.refetch-instances", CHECKS),
    ("spring.cloud.loadbalancer.clients.<service>.health-check.refetch-instances-interval", CHECKS),
    ("spring.cloud.loadbalancer.clients.<service>.health-check.repeat-health-check", CHECKS),
    ("spring.cloud.loadbalancer.clients.<service>.health-check.update-results-list", CHECKS),
    ("spring.cloud.loadbalancer.clients.<service>.call-get-with-request-on-delegates", WITH_REQUEST),
    ("spring.cloud.loadbalancer.clients.<service>.stats.include-path", METRICS),
    ("spring.cloud.loadbalancer.clients.<service>.enabled", "calls by name are always balanced"),
];

#[cfg(test)]
mod tests;
