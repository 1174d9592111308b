//! Settings of an instance.

use std::net::Ipv4Addr;

use super::key::{Key, apply, names_of, netflix_names_of};
use super::{InvalidSetting, Known, Settings, Unit};
use crate::model::{AddressRules, Instance, InstanceBuilder};

impl Instance {
    /// Creates a builder with the settings of an instance, as a Spring application has them. Later
    /// calls of the builder override them.
    ///
    /// `docs/settings.md` lists the settings: the name of the application, `eureka.instance.*`,
    /// `server.port` and others. Settings below `eureka.instance` without an effect are logged.
    ///
    /// # Errors
    /// If a value is invalid, or neither `spring.application.name` nor `eureka.instance.appname` is
    /// set.
    pub fn from_settings(settings: &Settings) -> Result<InstanceBuilder, InvalidSetting> {
        let names = ["spring.application.name", "eureka.instance.appname"];
        for name in names {
            if let Some(app) = settings.find(name, Unit::Text)? {
                return Self::builder(app.text()).from_settings(settings);
            }
        }
        Err(InvalidSetting::other(
            "cannot build an instance: spring.application.name is not set (set it, or the variable \
             SPRING_APPLICATION_NAME)",
        ))
    }
}

impl InstanceBuilder {
    /// Overrides the builder with the settings of an instance; see [`Instance::from_settings`].
    /// Settings without a value change nothing. The port of `server.port` is used only if the code
    /// sets none.
    ///
    /// # Errors
    /// If a value is invalid.
    pub fn from_settings(self, settings: &Settings) -> Result<Self, InvalidSetting> {
        let builder = apply(settings, INSTANCE, self)?;
        let mut read: Vec<_> = names_of(INSTANCE).collect();
        // Read by a registry server.
        if cfg!(feature = "server") {
            read.push("eureka.instance.registry.*");
        }
        let known = Known {
            read: &read,
            netflix: &netflix_names_of(INSTANCE).collect::<Vec<_>>(),
            without_meaning: INSTANCE_WITHOUT_MEANING,
            unsupported: INSTANCE_UNSUPPORTED,
        };
        settings.report(&["eureka.instance", "spring.cloud.inetutils"], &known);
        Ok(builder)
    }

    /// Overrides the builder with the environment variables of an instance, as
    /// [`from_settings`](Self::from_settings) does. Files are not read.
    ///
    /// # Errors
    /// If a variable has an invalid value.
    pub fn from_env(self) -> Result<Self, InvalidSetting> {
        self.from_settings(&Settings::from_env()?)
    }
}

type Row = Key<InstanceBuilder>;

/// Settings of an instance, in the order in which they are applied.
#[rustfmt::skip]
pub(crate) static INSTANCE: &[Row] = &[
    Row::new("spring.application.name", Unit::Text, "", "Instance::builder",
        |b, v| Ok(b.rename(v.text().into()))),
    Row::new("eureka.instance.appname", Unit::Text, "the name of the application", "Instance::builder",
        |b, v| Ok(b.rename_app_only(v.text().into())))
        .netflix(&[("eureka.name", Unit::Text)]),
    Row::new("eureka.instance.app-group-name", Unit::Text, "", "InstanceBuilder::app_group",
        |b, v| Ok(b.app_group(v.text())))
        .netflix(&[("eureka.appGroup", Unit::Text)]),
    Row::new("eureka.instance.instance-id", Unit::Text, "host:application:port", "InstanceBuilder::id",
        |b, v| Ok(b.id(v.text())))
        .netflix(&[("eureka.instanceId", Unit::Text)]),
    Row::new("eureka.instance.hostname", Unit::Text, "the IP address", "InstanceBuilder::host_name",
        |b, v| Ok(b.host_name(v.text()))),
    Row::new("eureka.instance.ip-address", Unit::Text, "detected", "InstanceBuilder::ip_addr",
        |b, v| Ok(b.ip_addr(v.text()))),
    Row::new("eureka.instance.prefer-ip-address", Unit::Flag, "false", "InstanceBuilder::prefer_ip_address",
        |b, v| Ok(b.prefer_ip_address(v.flag()?))),
    Row::new("eureka.instance.non-secure-port", Unit::Port, "server.port", "InstanceBuilder::port",
        |b, v| Ok(b.port(v.port()?)))
        .netflix(&[("eureka.port", Unit::Port)]),
    Row::new("eureka.instance.secure-port", Unit::Port, "", "InstanceBuilder::secure_port",
        |b, v| Ok(b.secure_port(v.port()?)))
        .netflix(&[("eureka.securePort", Unit::Port)]),
    // 0 means any free port, which the listener knows.
    Row::new("server.port", Unit::Port, "8080", "Settings::listen_address",
        |b, v| if v.text() == "0" { Ok(b) } else { Ok(b.port_if_unset(v.port()?)) }),
    Row::new("eureka.instance.virtual-host-name", Unit::Text, "the name of the application", "InstanceBuilder::vip_address",
        |b, v| Ok(b.vip_address(v.text())))
        .netflix(&[("eureka.vipAddress", Unit::Text)]),
    Row::new("eureka.instance.secure-virtual-host-name", Unit::Text, "the name of the application", "InstanceBuilder::secure_vip_address",
        |b, v| Ok(b.secure_vip_address(v.text())))
        .netflix(&[("eureka.secureVipAddress", Unit::Text)]),
    Row::new("eureka.instance.lease-renewal-interval-in-seconds", Unit::Seconds, "30", "InstanceBuilder::renewal_interval",
        |b, v| Ok(b.renewal_interval(v.whole_seconds()?)))
        .netflix(&[("eureka.lease.renewalInterval", Unit::Seconds)]),
    Row::new("eureka.instance.lease-expiration-duration-in-seconds", Unit::Seconds, "90", "InstanceBuilder::lease_duration",
        |b, v| Ok(b.lease_duration(v.whole_seconds()?)))
        .netflix(&[("eureka.lease.duration", Unit::Seconds)]),
    Row::new("eureka.instance.home-page-url", Unit::Text, "http://host:port/", "InstanceBuilder::home_page_url",
        |b, v| Ok(b.home_page_url(v.text())))
        .netflix(&[("eureka.homePageUrl", Unit::Text)]),
    Row::new("eureka.instance.status-page-url", Unit::Text, "", "InstanceBuilder::status_page_url",
        |b, v| Ok(b.status_page_url(v.text())))
        .netflix(&[("eureka.statusPageUrl", Unit::Text)]),
    Row::new("eureka.instance.health-check-url", Unit::Text, "", "InstanceBuilder::health_check_url",
        |b, v| Ok(b.health_check_url(v.text())))
        .netflix(&[("eureka.healthCheckUrl", Unit::Text)]),
    Row::new("eureka.instance.secure-health-check-url", Unit::Text, "", "InstanceBuilder::secure_health_check_url",
        |b, v| Ok(b.secure_health_check_url(v.text())))
        .netflix(&[("eureka.secureHealthCheckUrl", Unit::Text)]),
    Row::new("eureka.instance.metadata-map.<key>", Unit::Text, "", "InstanceBuilder::metadata",
        |b, v| Ok(b.metadata(v.key(), v.text())))
        .netflix(&[("eureka.metadata.<key>", Unit::Text)]),
];

/// Settings of a Spring instance without a meaning here, each with the reason.
pub(crate) const INSTANCE_WITHOUT_MEANING: &[(&str, &str)] = &[
    ("eureka.instance.async-client-initialization", "the start of a client never blocks"),
    ("eureka.instance.namespace", "it is the prefix of the Netflix client's properties"),
    ("eureka.instance.environment", "Spring registers it nowhere"),
    ("eureka.instance.default-address-resolution-order", NO_EC2),
    ("eureka.defaultAddressResolutionOrder", NO_EC2),
    ("eureka.broadcastPublicIpv4", NO_EC2),
    ("eureka.validateInstanceId", NO_EC2),
    ("eureka.mt.*", NO_EC2),
    ("spring.cloud.inetutils.timeout-seconds", "host names are looked up within the connect timeout"),
];

const NO_EC2: &str = "the metadata of EC2 is not read (pass it to InstanceBuilder::data_center())";

/// Settings of a Spring instance that have no effect yet, each with the remedy.
pub(crate) const INSTANCE_UNSUPPORTED: &[(&str, &str)] = &[
    ("eureka.instance.non-secure-port-enabled", NOT_YET),
    ("eureka.port.enabled", NOT_YET),
    ("eureka.instance.secure-port-enabled", NOT_YET),
    ("eureka.securePort.enabled", NOT_YET),
    ("eureka.instance.home-page-url-path", NOT_YET),
    ("eureka.homePageUrlPath", NOT_YET),
    ("eureka.instance.status-page-url-path", NOT_YET),
    ("eureka.statusPageUrlPath", NOT_YET),
    ("eureka.instance.health-check-url-path", NOT_YET),
    ("eureka.healthCheckUrlPath", NOT_YET),
    ("eureka.instance.initial-status", NOT_YET),
    ("eureka.instance.instance-enabled-onit", NOT_YET),
    ("eureka.traffic.enabled", NOT_YET),
    ("eureka.instance.a-s-g-name", NOT_YET),
    ("eureka.asgName", NOT_YET),
    ("eureka.instance.data-center-info.*", "pass it to InstanceBuilder::data_center()"),
    ("spring.cloud.inetutils.*", NOT_YET),
];

const NOT_YET: &str = "it is a setting of Spring that is not supported";

/// Returns the host name of this machine, for `${spring.cloud.client.hostname}`.
pub(super) fn host_name(settings: &Settings) -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| ip_address(settings))
}

/// Returns the IP address of this machine, for `${spring.cloud.client.ip-address}`.
pub(super) fn ip_address(_: &Settings) -> String {
    AddressRules::default().detect().unwrap_or(Ipv4Addr::LOCALHOST.into()).to_string()
}
