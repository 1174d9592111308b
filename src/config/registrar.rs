//! Settings of a registration.

use std::time::Duration;

use super::{InvalidSetting, Key, Unit, Value};
use crate::model::InstanceStatus;

/// Settings of a registration. Each is documented at the setter on
/// [`Registrar`](crate::register::Registrar).
#[derive(Clone, Debug)]
pub(crate) struct RegistrarConfig {
    pub(crate) initial_status: Option<InstanceStatus>,
    pub(crate) enabled_on_start: bool,
    pub(crate) health_sets_status: bool,
    /// True if `eureka.client.healthcheck.enabled` is set to true.
    pub(crate) expects_health: bool,
    pub(crate) update_interval: Duration,
    pub(crate) enforce_registration: bool,
    pub(crate) unregister_on_shutdown: bool,
    /// Time of the requests in flight during the shutdown.
    pub(crate) grace: Option<Duration>,
    /// False if the requests in flight end with the server.
    pub(crate) is_graceful: bool,
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            initial_status: None,
            enabled_on_start: false,
            health_sets_status: true,
            expects_health: false,
            update_interval: Duration::from_secs(30),
            enforce_registration: false,
            unregister_on_shutdown: true,
            grace: None,
            is_graceful: true,
        }
    }
}

type Row = Key<RegistrarConfig>;

/// Settings of the registrars of a client, in the order in which they are applied.
#[rustfmt::skip]
pub(crate) static REGISTRAR: &[Row] = &[
    Row::new("eureka.instance.initial-status", Unit::Text, "UP", "Registrar::initial_status",
        |c, v| Ok(RegistrarConfig { initial_status: Some(status(v)?), ..c })),
    Row::new("eureka.instance.instance-enabled-onit", Unit::Flag, "false", "Registrar::enabled_on_start",
        |c, v| Ok(RegistrarConfig { enabled_on_start: v.flag()?, ..c }))
        .netflix(&[("eureka.traffic.enabled", Unit::Flag)]),
    Row::new("eureka.client.healthcheck.enabled", Unit::Flag, "true", "Registrar::health_sets_status",
        |c, v| { let on = v.flag()?; Ok(RegistrarConfig { health_sets_status: on, expects_health: on, ..c }) }),
    Row::new("eureka.client.instance-info-replication-interval-seconds", Unit::Seconds, "30", "Registrar::update_interval",
        |c, v| Ok(RegistrarConfig { update_interval: v.positive_duration()?, ..c }))
        .netflix(&[("eureka.appinfo.replicate.interval", Unit::Seconds)]),
    Row::new("eureka.client.should-enforce-registration-at-init", Unit::Flag, "false", "Registrar::enforce_registration",
        |c, v| Ok(RegistrarConfig { enforce_registration: v.flag()?, ..c }))
        .netflix(&[("eureka.shouldEnforceRegistrationAtInit", Unit::Flag)]),
    Row::new("eureka.client.should-unregister-on-shutdown", Unit::Flag, "true", "Registrar::unregister_on_shutdown",
        |c, v| Ok(RegistrarConfig { unregister_on_shutdown: v.flag()?, ..c }))
        .netflix(&[("eureka.shouldUnregisterOnShutdown", Unit::Flag)]),
    Row::new("server.shutdown", Unit::Text, "graceful", "Registrar::grace",
        |c, v| Ok(RegistrarConfig { is_graceful: is_graceful(v)?, ..c })),
    Row::new("spring.lifecycle.timeout-per-shutdown-phase", Unit::Millis, "20000", "Registrar::grace",
        |c, v| Ok(RegistrarConfig { grace: Some(v.duration()?), ..c })),
];

/// Parses whether the requests in flight have time to finish during the shutdown.
fn is_graceful(value: &Value) -> Result<bool, InvalidSetting> {
    match &*value.text().to_ascii_lowercase() {
        "graceful" => Ok(true),
        "immediate" => Ok(false),
        _ => Err(value.invalid("graceful or immediate")),
    }
}

/// Parses the status of an instance at its start, in any case and with dashes or underscores.
fn status(value: &Value) -> Result<InstanceStatus, InvalidSetting> {
    let word = value.text().to_ascii_uppercase().replace('-', "_");
    let status = word.parse().ok().filter(|status| *status != InstanceStatus::Unknown);
    status.ok_or_else(|| value.invalid("UP, DOWN, STARTING or OUT_OF_SERVICE, which a registry accepts"))
}
