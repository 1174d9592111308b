//! Settings of calls by name: those of Spring Cloud LoadBalancer, for all applications
//! ([`LOADBALANCER`]) and for single ones ([`BY_SERVICE`]).

mod api_version;
mod own_zone;
mod pipeline;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use self::api_version::{ApiVersion, MediaType};
use self::pipeline::Pipeline;
use super::{Eureka, EurekaBuilder};
use crate::client::{Backoff, CallOptions, RetryPolicy};
use crate::config::{InvalidSetting, Key, Settings, Unit, Value, names};
use crate::discover::Selection;
use crate::error::Error;
use crate::model::InstanceStatus;

/// First pause of Spring's back-off.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Part of a pause that is random in Spring.
const JITTER: f64 = 0.5;

/// Settings of calls by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Balancing {
    all: Balanced,
    services: Vec<Service>,
    pub(super) own_zone: Option<Arc<str>>,
    approximates_zone: bool,
    /// Calls instances of any status, as Java does without its filter.
    pub(super) any_status: bool,
    /// Applications whose calls are prepared in each client.
    pub(super) eager: Vec<Box<str>>,
}

/// Settings of one application.
#[derive(Clone, Debug)]
struct Service {
    name: String,
    /// True if the name is part of a variable's, so that dashes are missing.
    is_relaxed: bool,
    set: Balanced,
}

/// Settings of calls to all applications or to one. `None` is the default.
#[derive(Clone, Debug, Default)]
struct Balanced {
    pipeline: Pipeline,
    health_check_path: ByName,
    health_check_port: Option<u16>,
    hint: ByName,
    hint_header: Option<HeaderName>,
    adds_cookie: Option<bool>,
    x_forwarded: Option<bool>,
    retries_enabled: Option<bool>,
    retries: Option<usize>,
    all_methods: Option<bool>,
    statuses: Option<Vec<u16>>,
    backoff: BackoffSettings,
    ready_timeout: Option<Duration>,
}

/// Value of a setting that is a map of applications in Spring.
#[derive(Clone, Debug, Default)]
struct ByName {
    any: Option<Arc<str>>,
    /// Value for the application itself, within the settings of that application.
    own: Option<Arc<str>>,
}

impl ByName {
    fn get(&self) -> Option<&Arc<str>> {
        self.own.as_ref().or(self.any.as_ref())
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct BackoffSettings {
    enabled: Option<bool>,
    min: Option<Duration>,
    max: Option<Duration>,
    jitter: Option<f64>,
}

impl Balancing {
    /// Returns the options that the settings describe.
    pub(super) fn options(&self) -> CallOptions {
        let mut options = CallOptions::new();
        if self.any_status {
            options = options.selection(|name| Selection::name(name).statuses(InstanceStatus::ALL));
        }
        options = self.all.apply(&Balanced::default(), options);
        for Service { name, is_relaxed, set } in &self.services {
            let (set, all) = (set.clone(), self.all.clone());
            options = options.with_application(name, *is_relaxed, move |options| set.apply(&all, options));
        }
        options.or_own_zone(self.own_zone.as_ref())
    }

    /// Returns the settings of the application that a key names.
    fn service(&mut self, value: &Value) -> &mut Balanced {
        let (name, is_relaxed) = (value.key().trim(), value.has_variable_key());
        let is_it = |service: &Service| match is_relaxed || service.is_relaxed {
            true => names::relaxed(&service.name) == names::relaxed(name),
            false => service.name.eq_ignore_ascii_case(name),
        };
        let at = self.services.iter().position(is_it).unwrap_or_else(|| {
            self.services.push(Service { name: name.to_owned(), is_relaxed, set: Balanced::default() });
            self.services.len() - 1
        });
        let service = &mut self.services[at];
        if service.is_relaxed && !is_relaxed {
            (service.name, service.is_relaxed) = (name.to_owned(), false);
        }
        &mut service.set
    }

    /// Checks the settings that depend on each other.
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        let has_conflict = |set: &Balanced| set.pipeline.over(&self.all.pipeline).has_version_conflict();
        if has_conflict(&self.all) || self.services.iter().any(|service| has_conflict(&service.set)) {
            return Err(InvalidSetting::other(
                "spring.cloud.loadbalancer.api-version.required: expected false, since api-version.default is the \
                 version of requests without one (remove one of them)",
            ));
        }
        let lacks_place = |set: &Balanced| set.pipeline.over(&self.all.pipeline).lacks_version();
        if lacks_place(&self.all) || self.services.iter().any(|service| lacks_place(&service.set)) {
            tracing::warn!(
                "api-version has no effect: set spring.cloud.loadbalancer.api-version.header, query-parameter, \
                 path-segment, media-type-parameters or default"
            );
        }
        Ok(())
    }

    /// Returns `true` if calls prefer a zone that is unknown.
    pub(super) fn lacks_zone(&self) -> bool {
        let lacks = |set: &Balanced| set.pipeline.over(&self.all.pipeline).lacks_zone();
        self.own_zone.is_none() && (lacks(&self.all) || self.services.iter().any(|service| lacks(&service.set)))
    }
}

impl Balanced {
    /// Sets the options that these settings describe. Where a setting depends on others, those of
    /// all applications count as well.
    fn apply(&self, all: &Self, mut options: CallOptions) -> CallOptions {
        options = self.pipeline.apply(&all.pipeline, options);
        if let Some(path) = self.health_check_path.get() {
            options = options.health_check_path(path.clone());
        }
        if let Some(port) = self.health_check_port {
            options = options.health_check_port(port);
        }
        if let Some(hint) = self.hint.get() {
            options = options.hint(hint.clone());
        }
        if let Some(header) = &self.hint_header {
            options = options.hint_header(header.clone());
        }
        if let Some(timeout) = self.ready_timeout {
            options = options.ready_timeout(timeout);
        }
        if let Some(enabled) = self.x_forwarded {
            options = options.x_forwarded(enabled);
        }
        if let Some(enabled) = self.adds_cookie {
            options = options.instance_cookie(enabled);
        }
        if self.adds_cookie.or(all.adds_cookie) == Some(true)
            && let Some(name) = self.pipeline.cookie.as_deref().or(all.pipeline.cookie.as_deref())
        {
            options = options.instance_cookie_name(name);
        }
        options.map_retry(|retry| self.retry(all, retry))
    }

    fn retry(&self, all: &Self, mut retry: RetryPolicy) -> RetryPolicy {
        if self.retries_enabled.is_some() || self.retries.is_some() {
            let attempts = match self.retries_enabled.or(all.retries_enabled) {
                Some(false) => 1,
                _ => self.retries.or(all.retries).map_or(RetryPolicy::ATTEMPTS, |retries| retries.saturating_add(1)),
            };
            retry = retry.attempts(attempts);
        }
        if let Some(all_methods) = self.all_methods {
            retry = retry.set_all_methods(all_methods);
        }
        if let Some(statuses) = &self.statuses {
            retry = retry.statuses(statuses.iter().copied());
        }
        if self.backoff != BackoffSettings::default() {
            let (own, all) = (&self.backoff, &all.backoff);
            retry = match own.enabled.or(all.enabled) {
                Some(true) => {
                    let first = own.min.or(all.min).unwrap_or(FIRST_PAUSE);
                    let max = own.max.or(all.max).unwrap_or(Duration::MAX);
                    retry.backoff(Backoff::new(first, max).jitter(own.jitter.or(all.jitter).unwrap_or(JITTER)))
                }
                Some(false) => retry.without_backoff(),
                None => retry,
            };
        }
        retry
    }
}

impl CallOptions {
    /// Creates the options that these settings describe: those below `spring.cloud.loadbalancer`.
    ///
    /// [`Eureka::call_options`] returns those of the settings with which a client was built. Use
    /// this to read the settings again, for
    /// [`HttpClient::set_options`](crate::client::HttpClient::set_options). The ready timeout of
    /// all applications is not part of them.
    ///
    /// # Errors
    /// If a value is invalid.
    pub fn from_settings(settings: &Settings) -> Result<Self, Error> {
        let mut builder = Eureka::builder();
        builder = super::keys::apply_balancing(settings, builder).map_err(super::keys::invalid)?;
        Ok(builder.balancing.options())
    }
}

type Row = Key<EurekaBuilder>;

/// Sets a setting of all applications.
fn for_all(
    mut builder: EurekaBuilder,
    value: &Value,
    set: impl Fn(&mut Balanced, &Value) -> Result<(), InvalidSetting>,
) -> Result<EurekaBuilder, InvalidSetting> {
    set(&mut builder.balancing.all, value)?;
    Ok(builder)
}

/// Sets a setting of the application that the key names.
fn for_service(
    mut builder: EurekaBuilder,
    value: &Value,
    set: impl Fn(&mut Balanced, &Value) -> Result<(), InvalidSetting>,
) -> Result<EurekaBuilder, InvalidSetting> {
    set(builder.balancing.service(value), value)?;
    Ok(builder)
}

/// Sets a setting of the application that the key names, or of all if it is `default`.
fn for_key(
    builder: EurekaBuilder,
    value: &Value,
    set: impl Fn(&mut Balanced, &Value) -> Result<(), InvalidSetting>,
) -> Result<EurekaBuilder, InvalidSetting> {
    if is_default(value.key()) { for_all(builder, value, set) } else { for_service(builder, value, set) }
}

fn is_default(key: &str) -> bool {
    key.eq_ignore_ascii_case("default")
}

/// Sets a value within the settings of one application, which has it as a map of applications: the
/// entry of the application itself takes precedence over `default`, and others have no meaning.
fn for_own_key(
    builder: EurekaBuilder,
    value: &Value,
    map: fn(&mut Balanced) -> &mut ByName,
) -> Result<EurekaBuilder, InvalidSetting> {
    let (service, name) = value.key().split_once('/').unwrap_or((value.key(), "default"));
    let set = |builder, set: fn(&mut ByName, Arc<str>)| {
        for_service(builder, &value.with_key(service), |balanced, value| {
            set(map(balanced), value.text().into());
            Ok(())
        })
    };
    if is_default(name) {
        set(builder, |map, text| map.any = Some(text))
    } else if names::relaxed(name) == names::relaxed(service) {
        set(builder, |map, text| map.own = Some(text))
    } else {
        tracing::warn!("setting without effect: {}: {name} is another application than {service}", value.place());
        Ok(builder)
    }
}

/// Makes both tables: `both` has the settings of all applications, which
/// `spring.cloud.loadbalancer.clients.<service>` has for each. `maps` has those of single
/// applications that end in a second key.
macro_rules! tables {
    (
        both: { $($name:literal, $unit:ident, $default:literal, $method:literal, $set:expr;)* }
        all: { $($all_name:literal, $all_unit:ident, $all_default:literal, $all_method:literal, $all_set:expr;)* }
        service: { $($own_name:literal, $own_unit:ident, $own_method:literal, $own_set:expr;)* }
        maps: { $($map_name:literal, $map_unit:ident, $map_method:literal, $map_set:expr;)* }
    ) => {
        /// Settings of calls by name.
        pub(crate) static LOADBALANCER: &[Row] = &[
            $(Row::new(
                concat!("spring.cloud.loadbalancer.", $name), Unit::$unit, $default, $method,
                |b, v| for_all(b, v, $set),
            ),)*
            $(Row::new(
                concat!("spring.cloud.loadbalancer.", $all_name), Unit::$all_unit, $all_default, $all_method, $all_set,
            ),)*
        ];

        /// Settings of calls to one application. They are applied after those of all applications.
        pub(crate) static BY_SERVICE: &[Row] = &[
            $(Row::new(
                concat!("spring.cloud.loadbalancer.clients.<service>.", $name), Unit::$unit, "", $method,
                |b, v| for_service(b, v, $set),
            ),)*
            $(Row::new(
                concat!("spring.cloud.loadbalancer.clients.<service>.", $own_name), Unit::$own_unit, "", $own_method,
                |b, v| for_service(b, v, $own_set),
            ),)*
            $(Row::new(
                concat!("spring.cloud.loadbalancer.clients.<service>.", $map_name), Unit::$map_unit, "", $map_method,
                $map_set,
            ),)*
        ];
    };
}

tables! {
    both: {
        "configurations", List, "default", "CallOptions::policy",
            |s, v| { s.pipeline.configurations = Some(pipeline::configurations(v)); Ok(()) };
        "zone", Text, "that of the instance", "CallOptions::zone_aware",
            |s, v| { s.pipeline.zone = Some(v.text().into()); Ok(()) };
        "health-check.interval", Millis, "25000", "CallOptions::health_check",
            |s, v| { s.pipeline.health_check_interval = Some(v.positive_duration()?); Ok(()) };
        "health-check.port", Port, "the port of calls", "CallOptions::health_check_port",
            |s, v| { s.health_check_port = Some(v.port()?); Ok(()) };
        "hint-header-name", Text, "X-SC-LB-Hint", "CallOptions::hint_header",
            |s, v| { s.hint_header = Some(header(v)?); Ok(()) };
        "sticky-session.instance-id-cookie-name", Text, "sc-lb-instance-id", "Sticky::by_cookie",
            |s, v| { s.pipeline.cookie = Some(v.text().into()); Ok(()) };
        "sticky-session.add-service-instance-cookie", Flag, "false", "CallOptions::instance_cookie",
            |s, v| { s.adds_cookie = Some(v.flag()?); Ok(()) };
        "x-forwarded.enabled", Flag, "false", "CallOptions::x_forwarded",
            |s, v| { s.x_forwarded = Some(v.flag()?); Ok(()) };
        "subset.size", Count, "100", "Subset::rendezvous",
            |s, v| { s.pipeline.subset_size = Some(v.count()?.max(1)); Ok(()) };
        "subset.instance-id", Text, "random", "Subset::seed",
            |s, v| { s.pipeline.subset_id = Some(v.text().into()); Ok(()) };
        "api-version.header", Text, "none", "ByLabel::by_header",
            |s, v| { api_version(s).header = Some(header(v)?); Ok(()) };
        "api-version.query-parameter", Text, "none", "ByLabel::by",
            |s, v| { api_version(s).query_parameter = Some(v.text().into()); Ok(()) };
        "api-version.path-segment", Count, "none", "ByLabel::by",
            |s, v| { api_version(s).path_segment = Some(v.count()?); Ok(()) };
        "api-version.default", Text, "none", "ByLabel::default_value",
            |s, v| { api_version(s).default = Some(v.text().into()); Ok(()) };
        "api-version.required", Flag, "false", "ByLabel::required",
            |s, v| { api_version(s).required = Some(v.flag()?); Ok(()) };
        "api-version.fallback-to-available-instances", Flag, "false", "ByLabel::required, reversed",
            |s, v| { api_version(s).falls_back = Some(v.flag()?); Ok(()) };
        "retry.enabled", Flag, "true", "RetryPolicy::attempts",
            |s, v| { s.retries_enabled = Some(v.flag()?); Ok(()) };
        "retry.max-retries-on-next-service-instance", Count, "2", "RetryPolicy::attempts",
            |s, v| { s.retries = Some(v.count()?); Ok(()) };
        "retry.retry-on-all-operations", Flag, "false", "RetryPolicy::all_methods",
            |s, v| { s.all_methods = Some(v.flag()?); Ok(()) };
        "retry.retryable-status-codes", List, "", "RetryPolicy::statuses",
            |s, v| { s.statuses = Some(statuses(v)?); Ok(()) };
        "retry.backoff.enabled", Flag, "false", "RetryPolicy::backoff",
            |s, v| { s.backoff.enabled = Some(v.flag()?); Ok(()) };
        "retry.backoff.min-backoff", Millis, "5", "Backoff::new",
            |s, v| { s.backoff.min = Some(v.duration()?); Ok(()) };
        "retry.backoff.max-backoff", Millis, "unlimited", "Backoff::new",
            |s, v| { s.backoff.max = Some(v.positive_duration()?); Ok(()) };
        "retry.backoff.jitter", Share, "0.5", "Backoff::jitter",
            |s, v| { s.backoff.jitter = Some(v.share()?); Ok(()) };
    }
    all: {
        "eureka.approximate-zone-from-hostname", Flag, "false", "ZoneAware::new",
            |mut b, v| { b.balancing.approximates_zone = v.flag()?; Ok(b) };
        "health-check.path.<service>", TextOrNothing, "the registered URL", "CallOptions::health_check_path",
            |b, v| for_key(b, v, |s, v| { s.health_check_path.any = Some(v.text().into()); Ok(()) });
        "hint.<service>", Text, "default", "CallOptions::hint", hint;
        "api-version.media-type-parameters.<type>", Text, "none", "ByLabel::by",
            |b, v| for_all(b, v, media_type);
        "service-discovery.timeout", Millis, "3000", "EurekaBuilder::ready_timeout",
            |b, v| Ok(b.ready_timeout(v.duration()?));
        "eager-load.clients", List, "none", "Eureka::preload", eager_load;
    }
    service: {
        "service-discovery.timeout", Millis, "CallOptions::ready_timeout",
            |s, v| { s.ready_timeout = Some(v.duration()?); Ok(()) };
    }
    maps: {
        "health-check.path.<name>", TextOrNothing, "CallOptions::health_check_path",
            |b, v| for_own_key(b, v, |s| &mut s.health_check_path);
        "hint.<name>", Text, "CallOptions::hint", own_hint;
        "api-version.media-type-parameters.<type>", Text, "ByLabel::by",
            |b, v| {
                let (service, kind) = v.key().split_once('/').unwrap_or((v.key(), ""));
                for_service(b, &v.with_key(service), |s, _| media_type(s, &v.with_key(kind)))
            };
    }
}

/// Sets the hint of one application or of all.
fn hint(builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    if is_header_name(value, value.key()) {
        return Ok(builder);
    }
    for_key(builder, value, |set, value| {
        set.hint.any = Some(value.text().into());
        Ok(())
    })
}

/// Sets the hint within the settings of one application.
fn own_hint(builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    match value.key().split_once('/') {
        Some((_, name)) if is_header_name(value, name) => Ok(builder),
        _ => for_own_key(builder, value, |set| &mut set.hint),
    }
}

/// Returns `true` for the variable of `hint-header-name` with underscores for the dashes, which has
/// the form of a hint.
fn is_header_name(value: &Value, key: &str) -> bool {
    value.has_variable_key() && names::relaxed(key) == "headername"
}

/// Sets the parameter of a media type, which is the user's key.
fn media_type(set: &mut Balanced, value: &Value) -> Result<(), InvalidSetting> {
    // The name of a variable has no slash.
    let name = match value.has_variable_key() {
        true => value.key().replacen('.', "/", 1),
        false => value.key().to_owned(),
    };
    let wanted = MediaType::new(&name, value.text());
    let wanted = wanted.ok_or_else(|| value.refused("the key is no media type (write it like application/json)"))?;
    let known = api_version(set).media_types.get_or_insert_default();
    known.retain(|known| !known.is_same(&wanted));
    known.push(wanted);
    Ok(())
}

/// Sets the applications whose calls are prepared.
fn eager_load(mut builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    for name in value.list() {
        Selection::name(name).check().map_err(|error| value.refused(error))?;
        builder.balancing.eager.push(name.into());
    }
    Ok(builder)
}

fn api_version(set: &mut Balanced) -> &mut ApiVersion {
    set.pipeline.api_version.get_or_insert_default()
}

fn header(value: &Value) -> Result<HeaderName, InvalidSetting> {
    value.text().parse().map_err(|_| value.invalid("the name of a header"))
}

fn statuses(value: &Value) -> Result<Vec<u16>, InvalidSetting> {
    let is_status = |status: &u16| (100..1000).contains(status);
    let statuses = value.list().into_iter().map(|status| status.parse().ok().filter(is_status));
    statuses.collect::<Option<_>>().ok_or_else(|| value.invalid("HTTP statuses, such as 502,503"))
}
