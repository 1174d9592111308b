//! Settings of calls by name: those of Spring Cloud LoadBalancer.

use std::time::Duration;

use super::EurekaBuilder;
use crate::balance::{Sticky, Subset, ZoneAware};
use crate::client::{CallOptions, RetryPolicy};
use crate::config::{InvalidSetting, Key, Unit, Value};

/// Interval of Spring's health checks.
const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(25);
/// Size of Spring's subsets.
const SUBSET_SIZE: usize = 100;
/// Name of Spring's cookie with the id of an instance.
const COOKIE: &str = "sc-lb-instance-id";

/// Settings of calls by name. `None` is the default of [`CallOptions`].
#[derive(Clone, Debug, Default)]
pub(super) struct Balancing {
    configurations: Vec<String>,
    zone: Option<String>,
    health_check_interval: Option<Duration>,
    cookie: Option<String>,
    subset_size: Option<usize>,
    never_retry: bool,
    retries: Option<usize>,
    all_methods: bool,
    statuses: Vec<u16>,
}

impl Balancing {
    /// Returns the options that the settings describe.
    pub(super) fn options(&self) -> CallOptions {
        let mut options = CallOptions::new();
        for configuration in &self.configurations {
            options = match &**configuration {
                "health-check" => options.health_check(self.health_check_interval.unwrap_or(HEALTH_CHECK_INTERVAL)),
                "zone-preference" => match &self.zone {
                    Some(zone) => options.zone_aware(ZoneAware::new(&**zone)),
                    None => options,
                },
                "request-based-sticky-session" => {
                    options.policy(Sticky::by_cookie(self.cookie.as_deref().unwrap_or(COOKIE)))
                }
                "subset" => options.subset(Subset::rendezvous(self.subset_size.unwrap_or(SUBSET_SIZE))),
                _ => options,
            };
        }
        let mut retry = RetryPolicy::new();
        if self.never_retry {
            retry = retry.attempts(1);
        } else if let Some(retries) = self.retries {
            retry = retry.attempts(retries.saturating_add(1));
        }
        if self.all_methods {
            retry = retry.all_methods();
        }
        if !self.statuses.is_empty() {
            retry = retry.statuses(self.statuses.iter().copied());
        }
        options.retry(retry)
    }
}

type Row = Key<EurekaBuilder>;

/// Settings of calls by name.
#[rustfmt::skip]
pub(crate) static LOADBALANCER: &[Row] = &[
    Row::new("spring.cloud.loadbalancer.configurations", Unit::List, "default", "CallOptions::policy", configurations),
    Row::new("spring.cloud.loadbalancer.zone", Unit::Text, "", "CallOptions::zone_aware",
        |mut b, v| { b.balancing.zone = Some(v.text().into()); Ok(b) }),
    Row::new("spring.cloud.loadbalancer.health-check.interval", Unit::Millis, "25000", "CallOptions::health_check",
        |mut b, v| { b.balancing.health_check_interval = Some(v.positive_duration()?); Ok(b) }),
    Row::new("spring.cloud.loadbalancer.sticky-session.instance-id-cookie-name", Unit::Text, "sc-lb-instance-id", "Sticky::by_cookie",
        |mut b, v| { b.balancing.cookie = Some(v.text().into()); Ok(b) }),
    Row::new("spring.cloud.loadbalancer.subset.size", Unit::Count, "100", "Subset::rendezvous",
        |mut b, v| { b.balancing.subset_size = Some(v.count()?.max(1)); Ok(b) }),
    Row::new("spring.cloud.loadbalancer.retry.enabled", Unit::Flag, "true", "RetryPolicy::attempts",
        |mut b, v| { b.balancing.never_retry = !v.flag()?; Ok(b) }),
    Row::new("spring.cloud.loadbalancer.retry.max-retries-on-next-service-instance", Unit::Count, "2", "RetryPolicy::attempts",
        |mut b, v| { b.balancing.retries = Some(v.count()?); Ok(b) }),
    Row::new("spring.cloud.loadbalancer.retry.retry-on-all-operations", Unit::Flag, "false", "RetryPolicy::all_methods",
        |mut b, v| { b.balancing.all_methods = v.flag()?; Ok(b) }),
    Row::new("spring.cloud.loadbalancer.retry.retryable-status-codes", Unit::List, "", "RetryPolicy::statuses", statuses),
    Row::new("spring.cloud.loadbalancer.service-discovery.timeout", Unit::Millis, "3000", "EurekaBuilder::ready_timeout",
        |b, v| Ok(b.ready_timeout(v.duration()?))),
];

/// Sets the parts of the pipeline that Spring builds for each application.
fn configurations(mut builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    const KNOWN: [&str; 6] =
        ["default", "health-check", "zone-preference", "request-based-sticky-session", "subset", "weighted"];
    let configurations: Vec<String> = value.list().into_iter().map(str::to_owned).collect();
    if let Some(unknown) = configurations.iter().find(|name| !KNOWN.contains(&&***name)) {
        tracing::warn!(
            "setting without effect: {}: {unknown} is not supported: set CallOptions in code",
            value.place()
        );
    }
    builder.balancing.configurations = configurations;
    Ok(builder)
}

fn statuses(mut builder: EurekaBuilder, value: &Value) -> Result<EurekaBuilder, InvalidSetting> {
    let is_status = |status: &u16| (100..1000).contains(status);
    let statuses = value.list().into_iter().map(|status| status.parse().ok().filter(is_status));
    builder.balancing.statuses =
        statuses.collect::<Option<_>>().ok_or_else(|| value.invalid("HTTP statuses, such as 502,503"))?;
    Ok(builder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Eureka, Settings};

    fn options(properties: &[(&str, &str)]) -> Result<String, String> {
        let properties = properties.iter().map(|(name, value)| format!("--spring.cloud.loadbalancer.{name}={value}"));
        let settings = Settings::builder().environment([("", ""); 0]).without_files().arguments(properties).load();
        let builder = Eureka::builder_from(&settings.unwrap()).map_err(|error| error.to_string())?;
        Ok(format!("{:?}", builder.build().unwrap().call_options()))
    }

    #[test]
    fn settings_of_the_load_balancer_are_options_of_calls() {
        let default = format!("{:?}", CallOptions::new());
        assert_eq!(options(&[]), Ok(default.clone()));
        for properties in [
            &[("configurations", "health-check")][..],
            &[("configurations", "request-based-sticky-session")],
            &[("retry.enabled", "false")],
            &[("retry.max-retries-on-next-service-instance", "5")],
            &[("retry.retry-on-all-operations", "true")],
            &[("retry.retryable-status-codes", "502,503")],
        ] {
            assert_ne!(options(properties), Ok(default.clone()), "{properties:?}");
        }
        let checked = options(&[("configurations", "health-check"), ("health-check.interval", "10s")]).unwrap();
        assert!(checked.contains("health_check: Some(10s)"), "{checked}");
        assert_eq!(options(&[("health-check.interval", "10s")]), Ok(default.clone()));
        assert_eq!(options(&[("configurations", "weighted")]), Ok(default));
        for (name, value) in [("retry.retryable-status-codes", "x"), ("subset.size", "many"), ("retry.enabled", "2")] {
            assert!(options(&[(name, value)]).unwrap_err().contains(name));
        }
    }
}
