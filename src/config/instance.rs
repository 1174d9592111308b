//! Settings of an instance.

use std::cell::Cell;

use super::key::{Key, apply, names_of, netflix_names_of};
use super::{InvalidSetting, Known, Settings, Unit, Value};
use crate::model::{Instance, InstanceBuilder};

impl Instance {
    /// Creates a builder with the settings of an instance, as a Spring application has them. Later
    /// calls of the builder override them.
    ///
    /// `docs/settings.md` lists the settings: the name of the application, `eureka.instance.*`,
    /// `server.port` and others. Settings below `eureka.instance` without an effect are logged.
    ///
    /// The id defaults to `host:application:port` with the host name of this machine, even if the
    /// IP address is registered as the host name. The name is found by a reverse look-up, unless
    /// `spring.cloud.client.hostname` or `eureka.instance.instance-id` is set. The look-up blocks
    /// for at most `spring.cloud.inetutils.timeout-seconds`, 1 second by default. Without a name,
    /// the id has the address, also a better one that is found before the first registration.
    ///
    /// # Errors
    /// If a value is invalid, or neither `spring.application.name` nor `eureka.instance.appname` is
    /// set.
    pub fn from_settings(settings: &Settings) -> Result<InstanceBuilder, InvalidSetting> {
        let names = ["spring.application.name", "eureka.instance.appname"];
        for name in names {
            if let Some(app) = settings.find(name, Unit::Text)? {
                let builder = Self::builder(app.text()).from_settings(settings)?;
                if builder.has_id() {
                    return Ok(builder);
                }
                // The host name in the default id, as Spring computes it.
                return Ok(match settings.find("spring.cloud.client.hostname", Unit::Text)? {
                    Some(own) => builder.id_host(Some(own.text().to_owned()), true),
                    None => builder.id_host(settings.host_name(), false),
                });
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
        // Read by the registrars of a client.
        #[cfg(feature = "client")]
        read.extend(names_of(super::REGISTRAR));
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
        if let Some(id) = id_of_any_free_port(settings)? {
            tracing::warn!(
                "replicas share the id of {}, since server.port is 0 (without the setting, the id has the port of the \
                 listener; or add ${{random.value}})",
                id.shown_as(id.text())
            );
        }
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
    Row::new("vcap.application.instance_id", Unit::Text, "", "InstanceBuilder::id",
        |b, v| Ok(b.id(v.text()))),
    Row::new("spring.application.instance_id", Unit::Text, "the port", "InstanceBuilder::id",
        |b, v| Ok(b.id_suffix(v.text()))),
    Row::new("eureka.instance.instance-id", Unit::Text, "host:application:port", "InstanceBuilder::id",
        |b, v| Ok(b.id(v.text())))
        .netflix(&[("eureka.instanceId", Unit::Text)]),
    Row::new("eureka.instance.hostname", Unit::Text, "the IP address", "InstanceBuilder::host_name",
        |b, v| Ok(b.host_name(v.text()))),
    Row::new("eureka.instance.ip-address", Unit::Text, "detected", "InstanceBuilder::ip_addr",
        |b, v| Ok(b.ip_addr(v.text()))),
    Row::new("eureka.instance.prefer-ip-address", Unit::Flag, "true without a host name", "InstanceBuilder::prefer_ip_address",
        |b, v| Ok(b.prefer_ip_address(v.flag()?))),
    Row::new("eureka.instance.non-secure-port", Unit::Port, "server.port", "InstanceBuilder::port",
        |b, v| Ok(b.port(v.port()?)))
        .netflix(&[("eureka.port", Unit::Port)]),
    Row::new("eureka.instance.non-secure-port-enabled", Unit::Flag, "true with a port", "InstanceBuilder::port_enabled",
        |b, v| Ok(b.port_enabled(v.flag()?)))
        .netflix(&[("eureka.port.enabled", Unit::Flag)]),
    Row::new("eureka.instance.secure-port", Unit::Port, "server.port if enabled", "InstanceBuilder::secure_port",
        |b, v| Ok(b.secure_port_number(v.port()?)))
        .netflix(&[("eureka.securePort", Unit::Port)]),
    Row::new("eureka.instance.secure-port-enabled", Unit::Flag, "false", "InstanceBuilder::secure_port_enabled",
        |b, v| Ok(b.secure_port_enabled(v.flag()?)))
        .netflix(&[("eureka.securePort.enabled", Unit::Flag)]),
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
    // Read with the placeholders in these URLs.
    Row::new("eureka.instance.namespace", Unit::Text, "eureka", "InstanceBuilder::home_page_url",
        |b, _| Ok(b)),
    Row::new("eureka.instance.home-page-url-path", Unit::Text, "/", "InstanceBuilder::home_page_path",
        |b, v| Ok(b.home_page_path(v.text())))
        .netflix(&[("eureka.homePageUrlPath", Unit::Text)]),
    Row::new("eureka.instance.status-page-url-path", Unit::Text, "/actuator/info, if the layer serves it", "InstanceBuilder::status_page_path",
        |b, v| Ok(b.status_page_path(v.text())))
        .netflix(&[("eureka.statusPageUrlPath", Unit::Text)]),
    Row::new("eureka.instance.health-check-url-path", Unit::Text, "/actuator/health, if the layer serves it", "InstanceBuilder::health_check_path",
        |b, v| Ok(b.health_check_path(v.text())))
        .netflix(&[("eureka.healthCheckUrlPath", Unit::Text)]),
    Row::new("server.servlet.context-path", Unit::Text, "/", "InstanceBuilder::context_path",
        |b, v| Ok(b.context_path(v.text()))),
    Row::new("management.server.port", Unit::Port, "the port of the instance", "InstanceBuilder::management_port",
        management_port),
    Row::new("management.server.base-path", Unit::Text, "", "InstanceBuilder::management_context_path",
        |b, v| Ok(b.management_context_path(v.text()))),
    Row::new("management.server.servlet.context-path", Unit::Text, "", "InstanceBuilder::management_context_path",
        |b, v| Ok(b.management_context_path(v.text()))),
    Row::new("eureka.instance.a-s-g-name", Unit::Text, "", "InstanceBuilder::asg_name",
        |b, v| Ok(b.asg_name(v.text())))
        .netflix(&[("eureka.asgName", Unit::Text)]),
    Row::new("eureka.instance.default-address-resolution-order", Unit::List, "publicHostname,localIpv4", "InstanceBuilder::address_resolution_order",
        |b, v| Ok(b.address_resolution_order(v.list())))
        .netflix(&[("eureka.defaultAddressResolutionOrder", Unit::List)]),
    // Spring has no key for it.
    Row::new("eureka.broadcast-public-ipv4", Unit::Flag, "false", "InstanceBuilder::public_ipv4",
        |b, v| Ok(b.public_ipv4(v.flag()?))),
    #[cfg(feature = "client")]
    Row::new("spring.cloud.inetutils.preferred-networks", Unit::List, "all", "InstanceBuilder::preferred_networks",
        |b, v| Ok(b.preferred_networks(v.list()))),
    #[cfg(feature = "client")]
    Row::new("spring.cloud.inetutils.ignored-interfaces", Unit::List, "none", "InstanceBuilder::ignored_interfaces",
        |b, v| Ok(b.ignored_interfaces(v.list()))),
    Row::new("spring.cloud.inetutils.use-only-site-local-interfaces", Unit::Flag, "false", "InstanceBuilder::site_local_only",
        |b, v| Ok(b.site_local_only(v.flag()?))),
    Row::new("spring.cloud.inetutils.default-hostname", Unit::Text, "the IP address", "InstanceBuilder::default_host_name",
        |b, v| Ok(b.default_host_name(v.text()))),
    Row::new("spring.cloud.inetutils.default-ip-address", Unit::Text, "127.0.0.1", "InstanceBuilder::default_ip_addr",
        |b, v| Ok(b.default_ip_addr(v.text()))),
    Row::new("spring.cloud.inetutils.timeout-seconds", Unit::Seconds, "1", "InstanceBuilder::host_name_timeout",
        |b, v| Ok(b.host_name_timeout(v.positive_duration()?))),
    Row::new("eureka.instance.metadata-map.<key>", Unit::Text, "", "InstanceBuilder::metadata",
        |b, v| Ok(match v.elements() {
            // Java has an entry per element.
            Some(elements) => elements.iter().enumerate().fold(b, |b, (index, text)| b.metadata(format!("{}.{index}", v.key()), &**text)),
            None => b.metadata(v.key(), v.text()),
        }))
        .netflix(&[("eureka.metadata.<key>", Unit::Text)]),
];

/// Returns the setting of the id if it has `${server.port}` while that is 0, which means any free
/// port. A random part keeps such ids apart.
fn id_of_any_free_port(settings: &Settings) -> Result<Option<Value>, InvalidSetting> {
    if settings.find("server.port", Unit::Port)?.is_none_or(|port| port.text() != "0") {
        return Ok(None);
    }
    let is_shared = |text: &str| text.contains("${server.port") && !text.contains("${random.");
    for name in ["eureka.instance.instance-id", "spring.application.instance_id"] {
        if let Some(id) = settings.find(name, Unit::Text)? {
            return Ok(settings.entry(name).filter(|entry| is_shared(&entry.text)).map(|_| id));
        }
    }
    Ok(None)
}

/// Sets the port of the pages. In a Spring application, 0 is a random port, which it does not
/// register, and -1 switches the pages off.
fn management_port(builder: InstanceBuilder, value: &Value) -> Result<InstanceBuilder, InvalidSetting> {
    match value.text() {
        "0" | "-1" => {
            tracing::info!("{} has no effect on the registration", value.shown_as(value.text()));
            Ok(builder)
        }
        _ => Ok(builder.management_port(value.port()?)),
    }
}

/// Settings of a Spring instance without a meaning here, each with the reason.
pub(crate) const INSTANCE_WITHOUT_MEANING: &[(&str, &str)] = &[
    ("eureka.instance.async-client-initialization", "the start of a client never blocks"),
    ("eureka.instance.environment", "Spring registers it nowhere"),
    ("eureka.validateInstanceId", NO_EC2),
    ("eureka.mt.*", NO_EC2),
];

const NO_EC2: &str = "the metadata of EC2 is not read (pass it to InstanceBuilder::data_center())";

/// Settings of a Spring instance that have no effect yet, each with the remedy.
pub(crate) const INSTANCE_UNSUPPORTED: &[(&str, &str)] =
    &[("eureka.instance.data-center-info.*", "pass it to InstanceBuilder::data_center()")];

/// Names of the settings by which the address of this machine is chosen.
const ADDRESS: &str = "spring.cloud.inetutils.";

thread_local! {
    /// True while a value is computed that a placeholder stands for. The settings that it depends
    /// on cannot have such a placeholder.
    static IS_COMPUTING: Cell<bool> = const { Cell::new(false) };
}

/// Returns the host name of this machine, for `${spring.cloud.client.hostname}`.
///
/// Blocks for at most `spring.cloud.inetutils.timeout-seconds`.
pub(super) fn host_name(settings: &Settings) -> Option<String> {
    from_address(settings, |builder| builder.local_host_name())
}

/// Returns the IP address of this machine, for `${spring.cloud.client.ip-address}`.
pub(super) fn ip_address(settings: &Settings) -> Option<String> {
    from_address(settings, |builder| builder.local_address().to_string())
}

/// Computes a value from the settings of the address.
fn from_address(settings: &Settings, compute: impl FnOnce(InstanceBuilder) -> String) -> Option<String> {
    if IS_COMPUTING.replace(true) {
        return None;
    }
    let rows = INSTANCE.iter().filter(|row| row.name.starts_with(ADDRESS));
    let builder = rows.into_iter().try_fold(Instance::builder("this machine"), |b, row| row.apply(settings, b));
    IS_COMPUTING.set(false);
    // An invalid setting is an error where the instance is built.
    builder.ok().map(compute)
}

#[cfg(test)]
mod tests;
