mod build;
mod check;
mod error;
mod network;
mod pages;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "client")]
pub(crate) use check::{check_address, check_app};
pub use error::InvalidInstance;
pub(crate) use pages::HOST_PLACEHOLDER;

use super::{AddressRules, DataCenter, LeaseInfo, Metadata};

/// Builder of an [`Instance`](super::Instance), created by [`Instance::builder`](super::Instance::builder).
///
/// Only a port is required. The defaults are those of a Spring application that prefers its IP
/// address:
///
/// | field | default |
/// |---|---|
/// | IP address | address of the listener if it accepts connections at one address only, else source address of connections to the registry, else that of the default route, else that of an interface, else `127.0.0.1` with a warning |
/// | host name | the IP address, which works where names do not resolve |
/// | id | `host:application:port` |
/// | VIP, secure VIP | the name of the application as passed to the builder, which Spring callers look up |
/// | heartbeat interval, lease duration | 30 seconds, 90 seconds |
/// | data center | `MyOwn` |
/// | home page | `http://host:port/` |
/// | status page, health check | `http://host:port/actuator/info` and `/actuator/health`, if the registrar's layer serves them |
///
/// # Host name
///
/// [`build`](Self::build) never waits: it reads the routes and interfaces of the machine, but sends
/// nothing. A reverse look-up can take seconds, so it is not a default. With
/// [`prefer_ip_address(false)`](Self::prefer_ip_address) and no host name, the registrar looks the
/// name up before its first registration, off the runtime and for at most one second. Until then
/// the instance has the IP address as its host name.
///
/// # Several networks
///
/// An address is detected among those that `preferred_networks`, `ignored_interfaces` and
/// [`site_local_only`](Self::site_local_only) allow. IPv6 is used on a machine without IPv4, or if
/// the preferred networks require it. URLs then have the address in brackets.
///
/// # Amazon
///
/// With [`DataCenter::Amazon`], the id defaults to its `instance-id`, the IP address to its
/// `local-ipv4` (see [`public_ipv4`](Self::public_ipv4)), and the host name to the first entry of the
/// [`address_resolution_order`](Self::address_resolution_order) that is not empty, as in the Java
/// client.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct InstanceBuilder {
    app: String,
    /// Name of the application in the default id, if it differs from `app`.
    id_app: Option<String>,
    id: Option<String>,
    /// Host name in the default id, if it differs from that of the instance.
    id_host: Option<String>,
    /// True if that host name is a setting, and not that of this machine.
    is_id_host_set: bool,
    /// Replaces the port at the end of the default id.
    id_suffix: Option<String>,
    host_name: Option<String>,
    ip_addr: Option<String>,
    prefer_ip_address: Option<bool>,
    rules: AddressRules,
    /// First rule that is unusable: its field, its text and the reason.
    unusable_rule: Option<(&'static str, String, &'static str)>,
    default_host_name: Option<String>,
    default_ip_addr: Option<String>,
    host_name_timeout: Duration,
    resolution_order: Option<Vec<String>>,
    /// Takes the IP address from the public one of Amazon.
    public_ipv4: bool,
    port: Option<u16>,
    port_enabled: Option<bool>,
    secure_port: Option<u16>,
    secure_port_enabled: Option<bool>,
    /// True if the code has set the secure port.
    has_secure_port: bool,
    bound: Option<SocketAddr>,
    secure_bound: Option<SocketAddr>,
    /// Port of the setting `server.port`.
    server_port: Option<u16>,
    renewal_interval: Duration,
    lease_duration: Duration,
    vip_address: Option<String>,
    secure_vip_address: Option<String>,
    app_group: Option<String>,
    asg_name: Option<String>,
    home_page_url: Option<String>,
    home_page_path: Option<String>,
    status_page_url: Option<String>,
    status_page_path: Option<String>,
    health_check_url: Option<String>,
    health_check_path: Option<String>,
    secure_health_check_url: Option<String>,
    context_path: Option<String>,
    management_port: Option<u16>,
    management_context_path: Option<String>,
    data_center: DataCenter,
    metadata: Metadata,
}

impl InstanceBuilder {
    pub(super) fn new(app: &str) -> Self {
        Self {
            app: app.into(),
            id_app: None,
            id: None,
            id_host: None,
            is_id_host_set: false,
            id_suffix: None,
            host_name: None,
            ip_addr: None,
            prefer_ip_address: None,
            rules: AddressRules::default(),
            unusable_rule: None,
            default_host_name: None,
            default_ip_addr: None,
            host_name_timeout: Duration::from_secs(1),
            resolution_order: None,
            public_ipv4: false,
            port: None,
            port_enabled: None,
            secure_port: None,
            secure_port_enabled: None,
            has_secure_port: false,
            bound: None,
            secure_bound: None,
            server_port: None,
            renewal_interval: Duration::from_secs(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64),
            lease_duration: Duration::from_secs(LeaseInfo::DEFAULT_DURATION_SECS as u64),
            vip_address: None,
            secure_vip_address: None,
            app_group: None,
            asg_name: None,
            home_page_url: None,
            home_page_path: None,
            status_page_url: None,
            status_page_path: None,
            health_check_url: None,
            health_check_path: None,
            secure_health_check_url: None,
            context_path: None,
            management_port: None,
            management_context_path: None,
            data_center: DataCenter::MyOwn,
            metadata: Metadata::default(),
        }
    }

    /// Sets the port for plain HTTP that callers connect to. Defaults to the port of the
    /// `listener`.
    ///
    /// It differs from the port of the listener where ports are mapped, as in containers.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets whether the port for plain HTTP is enabled. Defaults to `true` if there is one.
    ///
    /// For a server that accepts HTTPS only and has one port, set this to `false` and
    /// [`secure_port_enabled`](Self::secure_port_enabled) to `true`.
    pub fn port_enabled(mut self, enabled: bool) -> Self {
        self.port_enabled = Some(enabled);
        self
    }

    /// Sets the port for HTTPS, and enables it unless
    /// [`secure_port_enabled`](Self::secure_port_enabled) says otherwise. Spring callers prefer it
    /// to the plain port.
    pub fn secure_port(mut self, port: u16) -> Self {
        self.secure_port_enabled.get_or_insert(true);
        self.has_secure_port = true;
        self.secure_port_number(port)
    }

    /// Sets whether the port for HTTPS is enabled. Defaults to `true` if there is one.
    ///
    /// Without [`secure_port`](Self::secure_port), the number is that of the plain port, as in
    /// Spring applications.
    pub fn secure_port_enabled(mut self, enabled: bool) -> Self {
        self.secure_port_enabled = Some(enabled);
        self
    }

    /// Sets the port for HTTPS without enabling it, as the property of Spring does.
    pub(crate) fn secure_port_number(mut self, port: u16) -> Self {
        self.secure_port = Some(port);
        self
    }

    /// Sets the local address of the listener for plain HTTP.
    #[cfg(feature = "client")]
    pub(crate) fn bound_to(mut self, address: SocketAddr) -> Self {
        self.bound = Some(address);
        self
    }

    /// Sets the local address of the listener for HTTPS.
    #[cfg(feature = "client")]
    pub(crate) fn secure_bound_to(mut self, address: SocketAddr) -> Self {
        self.secure_port_enabled.get_or_insert(true);
        self.secure_bound = Some(address);
        self
    }

    /// Sets the port of the setting `server.port`, which counts unless a port is set otherwise.
    pub(crate) fn port_if_unset(mut self, port: u16) -> Self {
        self.server_port = Some(port);
        self
    }

    /// Sets the id, unique among the instances of the application. Defaults to
    /// `host:application:port`, and on Amazon to its instance id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Returns `true` if the user or the data center has set the id.
    pub(crate) fn has_id(&self) -> bool {
        self.id.is_some() || self.data_center.instance_id().is_some()
    }

    /// Sets the host name in the default id, in place of that of the instance. `is_set` is true if
    /// it is a setting, and not the host name or address of this machine.
    pub(crate) fn id_host(mut self, host: Option<String>, is_set: bool) -> Self {
        (self.id_host, self.is_id_host_set) = (host, is_set);
        self
    }

    /// Sets the end of the default id, in place of the port.
    pub(crate) fn id_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.id_suffix = Some(suffix.into());
        self
    }

    /// Sets the host name that callers connect to. Defaults to the IP address.
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_name = Some(name.into());
        self
    }

    /// Sets the IP address that callers connect to. Defaults to the detected address of this
    /// machine. An address that no instance can have, such as `0.0.0.0`, fails at
    /// [`build`](Self::build).
    pub fn ip_addr(mut self, address: impl Into<String>) -> Self {
        self.ip_addr = Some(address.into());
        self
    }

    /// Sets whether the IP address is registered as the host name, in place of
    /// [`host_name`](Self::host_name).
    ///
    /// With `false` and no host name, the registrar finds the name of the IP address by a reverse
    /// look-up before the first registration. If the address has no name, or the look-up takes
    /// longer than the [`host_name_timeout`](Self::host_name_timeout), the
    /// [`default_host_name`](Self::default_host_name) is registered, else the address. Defaults to
    /// `true` if there is no host name, so that nothing is looked up.
    pub fn prefer_ip_address(mut self, prefer: bool) -> Self {
        self.prefer_ip_address = Some(prefer);
        self
    }

    /// Sets whether only addresses of private networks are detected: 10/8, 172.16/12, 192.168/16
    /// and fc00::/7. Defaults to `false`.
    ///
    /// Other rules have to allow the address as well.
    pub fn site_local_only(mut self, only: bool) -> Self {
        self.rules.only_site_local(only);
        self
    }

    /// Sets the host name that is registered if none is found by a reverse look-up. Defaults to the
    /// IP address. See [`prefer_ip_address`](Self::prefer_ip_address).
    pub fn default_host_name(mut self, name: impl Into<String>) -> Self {
        self.default_host_name = Some(name.into());
        self
    }

    /// Sets the IP address that is registered, with a warning, if none is detected. Defaults to an
    /// address that the rules do not allow, else to `127.0.0.1`.
    ///
    /// An address that is found before the first registration succeeds replaces it.
    pub fn default_ip_addr(mut self, address: impl Into<String>) -> Self {
        self.default_ip_addr = Some(address.into());
        self
    }

    /// Sets the time limit of the reverse look-up of the host name. Defaults to 1 second. See
    /// [`prefer_ip_address`](Self::prefer_ip_address).
    pub fn host_name_timeout(mut self, limit: Duration) -> Self {
        self.host_name_timeout = limit;
        self
    }

    /// Sets the entries of the Amazon metadata that are tried as host name, such as
    /// `public-hostname` or `publicHostname`. Defaults to `public-hostname` and `local-ipv4`.
    ///
    /// Applies to [`DataCenter::Amazon`] only, and only without a host name and a preferred IP
    /// address.
    pub fn address_resolution_order(mut self, entries: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.resolution_order = Some(entries.into_iter().map(Into::into).collect());
        self
    }

    /// Replaces the name of the application.
    pub(crate) fn rename(mut self, app: String) -> Self {
        self.app = app;
        self
    }

    /// Replaces the name of the application, but not the VIP addresses and the id that default to
    /// it.
    pub(crate) fn rename_app_only(mut self, app: String) -> Self {
        let before = std::mem::replace(&mut self.app, app);
        self.vip_address.get_or_insert_with(|| before.clone());
        self.secure_vip_address.get_or_insert_with(|| before.clone());
        self.id_app.get_or_insert(before);
        self
    }

    /// Sets the time between two heartbeats, at least one second and in whole seconds. Defaults to
    /// 30 seconds.
    pub fn renewal_interval(mut self, interval: Duration) -> Self {
        self.renewal_interval = interval;
        self
    }

    /// Sets the time without a heartbeat after which the registry evicts the instance, in whole
    /// seconds and longer than the heartbeat interval. Defaults to 90 seconds.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.lease_duration = duration;
        self
    }

    /// Sets the logical names, separated by commas. Defaults to the name of the application.
    ///
    /// Blanks around a name are removed, since servers compare names with them.
    pub fn vip_address(mut self, names: impl Into<String>) -> Self {
        self.vip_address = Some(names.into());
        self
    }

    /// Sets the logical names for HTTPS callers, separated by commas. Defaults to the name of the
    /// application.
    pub fn secure_vip_address(mut self, names: impl Into<String>) -> Self {
        self.secure_vip_address = Some(names.into());
        self
    }

    /// Sets the group of applications.
    pub fn app_group(mut self, group: impl Into<String>) -> Self {
        self.app_group = Some(group.into());
        self
    }

    /// Sets the auto scaling group of Amazon.
    pub fn asg_name(mut self, name: impl Into<String>) -> Self {
        self.asg_name = Some(name.into());
        self
    }

    /// Sets the data center. Defaults to [`DataCenter::MyOwn`].
    pub fn data_center(mut self, data_center: DataCenter) -> Self {
        self.data_center = data_center;
        self
    }

    /// Adds a metadata entry.
    pub fn metadata(mut self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.metadata.insert(key, value);
        self
    }

    /// Adds metadata entries.
    pub fn metadata_all(
        mut self,
        entries: impl IntoIterator<Item = (impl Into<Arc<str>>, impl Into<Arc<str>>)>,
    ) -> Self {
        for (key, value) in entries {
            self.metadata.insert(key, value);
        }
        self
    }
}
