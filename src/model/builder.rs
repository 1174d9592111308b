use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::{AddressOrigin, DataCenter, Instance, InstanceStatus, LeaseInfo, Metadata, Port, address, app_name};

/// Builder of an [`Instance`], created by [`Instance::builder`].
///
/// Only a port is required. The defaults are those of a Spring application that prefers its IP
/// address:
///
/// | field | default |
/// |---|---|
/// | IP address | source address of connections to the registry, else that of the default route, else that of an interface, else `127.0.0.1` with a warning |
/// | host name | the IP address, which works where names do not resolve |
/// | id | `host:application:port` |
/// | VIP, secure VIP | the name of the application as passed to the builder, which Spring callers look up |
/// | heartbeat interval, lease duration | 30 seconds, 90 seconds |
/// | data center | `MyOwn` |
/// | home page | `http://host:port/` |
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct InstanceBuilder {
    app: String,
    id: Option<String>,
    host_name: Option<String>,
    ip_addr: Option<String>,
    prefer_ip_address: Option<bool>,
    port: Option<u16>,
    secure_port: Option<u16>,
    renewal_interval: Duration,
    lease_duration: Duration,
    vip_address: Option<String>,
    secure_vip_address: Option<String>,
    app_group: Option<String>,
    home_page_url: Option<String>,
    status_page_url: Option<String>,
    health_check_url: Option<String>,
    secure_health_check_url: Option<String>,
    data_center: DataCenter,
    metadata: Metadata,
}

impl InstanceBuilder {
    pub(super) fn new(app: &str) -> Self {
        Self {
            app: app.into(),
            id: None,
            host_name: None,
            ip_addr: None,
            prefer_ip_address: None,
            port: None,
            secure_port: None,
            renewal_interval: Duration::from_secs(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64),
            lease_duration: Duration::from_secs(LeaseInfo::DEFAULT_DURATION_SECS as u64),
            vip_address: None,
            secure_vip_address: None,
            app_group: None,
            home_page_url: None,
            status_page_url: None,
            health_check_url: None,
            secure_health_check_url: None,
            data_center: DataCenter::MyOwn,
            metadata: Metadata::default(),
        }
    }

    /// Sets the port for plain HTTP: the port that the listener is bound to.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the port for HTTPS. Spring callers prefer it to the plain port.
    pub fn secure_port(mut self, port: u16) -> Self {
        self.secure_port = Some(port);
        self
    }

    /// Sets the id, unique among the instances of the application. Defaults to
    /// `host:application:port`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the host name that callers connect to. Defaults to the IP address.
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_name = Some(name.into());
        self
    }

    /// Sets the IP address that callers connect to. Defaults to the detected address of this
    /// machine.
    pub fn ip_addr(mut self, address: impl Into<String>) -> Self {
        self.ip_addr = Some(address.into());
        self
    }

    /// Sets whether the IP address is registered as the host name, in place of
    /// [`host_name`](Self::host_name). Defaults to `false`. Without a host name the address is used
    /// in any case.
    pub fn prefer_ip_address(mut self, prefer: bool) -> Self {
        self.prefer_ip_address = Some(prefer);
        self
    }

    /// Replaces the name of the application.
    pub(crate) fn rename(mut self, app: String) -> Self {
        self.app = app;
        self
    }

    /// Replaces the name of the application, but not the VIP addresses that default to it.
    pub(crate) fn rename_app_only(mut self, app: String) -> Self {
        let before = std::mem::replace(&mut self.app, app);
        self.vip_address.get_or_insert_with(|| before.clone());
        self.secure_vip_address.get_or_insert(before);
        self
    }

    /// Sets the port of the environment variable `SERVER_PORT`, unless the code has set a port.
    pub(crate) fn port_if_unset(self, port: u16) -> Self {
        match self.port.or(self.secure_port) {
            None => self.port(port),
            Some(set) => {
                if set != port {
                    tracing::warn!(
                        app = self.app,
                        port = set,
                        "environment variable without effect: SERVER_PORT={port}"
                    );
                }
                self
            }
        }
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

    /// Sets the absolute URL of the home page. Defaults to `http://host:port/`.
    pub fn home_page_url(mut self, url: impl Into<String>) -> Self {
        self.home_page_url = Some(url.into());
        self
    }

    /// Sets the absolute URL of the status page.
    pub fn status_page_url(mut self, url: impl Into<String>) -> Self {
        self.status_page_url = Some(url.into());
        self
    }

    /// Sets the absolute URL of the health check.
    pub fn health_check_url(mut self, url: impl Into<String>) -> Self {
        self.health_check_url = Some(url.into());
        self
    }

    /// Sets the absolute URL of the health check for HTTPS callers. Without it they use
    /// [`health_check_url`](Self::health_check_url).
    pub fn secure_health_check_url(mut self, url: impl Into<String>) -> Self {
        self.secure_health_check_url = Some(url.into());
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

    /// Builds the instance.
    ///
    /// # Errors
    /// Fails if the name or id is reserved or unfit for a URL path, no port is set, an address or
    /// URL is malformed, a value has a placeholder (`${...}`), or a duration is not in whole
    /// seconds.
    pub fn build(self) -> Result<Instance, InvalidInstance> {
        self.check_texts()?;
        check_app(&self.app)?;
        let (port, lease) = (self.any_port()?, self.lease()?);
        let configured = self.ip_addr.filter(|address| !address.is_empty());
        let origin = if configured.is_some() { AddressOrigin::Configured } else { AddressOrigin::Detected };
        let ip_addr = configured.unwrap_or_else(|| address::detect_ip_or_loopback().to_string());
        let host_name = self.host_name.filter(|host| !host.is_empty());
        if host_name.is_none() && self.prefer_ip_address == Some(false) {
            tracing::warn!(app = self.app, "no host name is set, registering the IP address");
        }
        let host_name = host_name.filter(|_| self.prefer_ip_address != Some(true));
        let host = host_name.unwrap_or_else(|| ip_addr.clone());
        let id = self.id.unwrap_or_else(|| format!("{host}:{}:{port}", self.app));
        if !is_usable_id(&id) {
            return Err(InvalidInstance::new(&self.app, Fault::BadId(id)));
        }
        let (scheme, authority) = (if self.port.is_some() { "http" } else { "https" }, host_in_url(&host));
        let shared = |text: Option<String>| text.map(Arc::<str>::from);
        Ok(Instance {
            instance_id: Some(id.into()),
            host_name: Some(host.as_str().into()),
            ip_addr: Some(ip_addr.into()),
            status: InstanceStatus::Up,
            port: Port { number: self.port.unwrap_or(80).into(), enabled: self.port.is_some() },
            secure_port: Port { number: self.secure_port.unwrap_or(443).into(), enabled: self.secure_port.is_some() },
            data_center: Some(self.data_center),
            lease: Some(lease),
            metadata: self.metadata,
            app_group: self.app_group.map(|group| app_name(&group)),
            home_page_url: Some(self.home_page_url.unwrap_or_else(|| format!("{scheme}://{authority}:{port}/")).into()),
            status_page_url: shared(self.status_page_url),
            health_check_url: shared(self.health_check_url),
            secure_health_check_url: shared(self.secure_health_check_url),
            vip_address: Some(self.vip_address.unwrap_or_else(|| self.app.clone()).into()),
            secure_vip_address: Some(self.secure_vip_address.unwrap_or_else(|| self.app.clone()).into()),
            address: origin,
            ..Instance::bare(app_name(&self.app))
        })
    }

    /// Checks all strings. An empty string counts as not set.
    fn check_texts(&self) -> Result<(), InvalidInstance> {
        let fault = |fault| Err(InvalidInstance::new(&self.app, fault));
        let urls = [
            ("home page URL", &self.home_page_url),
            ("status page URL", &self.status_page_url),
            ("health check URL", &self.health_check_url),
            ("secure health check URL", &self.secure_health_check_url),
        ];
        let names = [
            ("id", &self.id),
            ("host name", &self.host_name),
            ("IP address", &self.ip_addr),
            ("VIP address", &self.vip_address),
            ("secure VIP address", &self.secure_vip_address),
            ("application group", &self.app_group),
        ];
        let non_empty = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        if self.app.contains("${") {
            return fault(Fault::Placeholder("name"));
        }
        for (field, text) in urls.into_iter().chain(names) {
            if text.as_deref().is_some_and(|text| text.contains("${")) {
                return fault(Fault::Placeholder(field));
            }
        }
        for (field, url) in urls {
            if let Some(url) = non_empty(url)
                && let Err(why) = check_url(&url)
            {
                let shown = if url.contains('@') { "...".into() } else { url };
                return fault(Fault::Unusable(field, shown, why));
            }
        }
        if let Some(address) = non_empty(&self.ip_addr)
            && address.parse::<IpAddr>().is_err()
        {
            return fault(Fault::Unusable("IP address", address, "it is neither IPv4 nor IPv6"));
        }
        match non_empty(&self.host_name) {
            Some(host) => check_host(&host).or_else(|why| fault(Fault::Unusable("host name", host, why))),
            None => Ok(()),
        }
    }

    /// Returns the plain port, else the secure port.
    fn any_port(&self) -> Result<u16, InvalidInstance> {
        if self.port == Some(0) || self.secure_port == Some(0) {
            return Err(InvalidInstance::new(&self.app, Fault::PortZero));
        }
        self.port.or(self.secure_port).ok_or_else(|| InvalidInstance::new(&self.app, Fault::NoPort))
    }

    fn lease(&self) -> Result<LeaseInfo, InvalidInstance> {
        let lease = LeaseInfo {
            renewal_interval_secs: self.whole_seconds("renewal interval", self.renewal_interval)?,
            duration_secs: self.whole_seconds("lease duration", self.lease_duration)?,
            ..LeaseInfo::default()
        };
        if lease.duration_secs <= lease.renewal_interval_secs {
            return Err(InvalidInstance::new(&self.app, Fault::LeaseTooShort(lease)));
        }
        Ok(lease)
    }

    fn whole_seconds(&self, name: &'static str, duration: Duration) -> Result<i32, InvalidInstance> {
        let seconds = i32::try_from(duration.as_secs()).unwrap_or(0);
        if seconds == 0 || duration.subsec_nanos() != 0 {
            return Err(InvalidInstance::new(&self.app, Fault::NotWholeSeconds(name, duration)));
        }
        Ok(seconds)
    }
}

/// Refuses the name of an application that is reserved or unfit for a URL path.
pub(crate) fn check_app(app: &str) -> Result<(), InvalidInstance> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if app.is_empty() || !app.chars().all(is_allowed) {
        return Err(InvalidInstance::new(app, Fault::BadName));
    }
    // These are paths and cache keys of the Java server, which registers no application of that
    // name.
    if ["DELTA", "ALL_APPS", "ALL_APPS_DELTA"].iter().any(|reserved| app.eq_ignore_ascii_case(reserved)) {
        return Err(InvalidInstance::new(app, Fault::ReservedName));
    }
    Ok(())
}

/// Returns `true` if an id is fit for a URL path.
fn is_usable_id(id: &str) -> bool {
    !(id.is_empty() || id.contains(['/', '\\']) || id.chars().any(char::is_control))
}

/// Puts an IPv6 address into brackets, which URLs require and the fields of an instance lack.
pub(crate) fn host_in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() }
}

/// Refuses a host that is unfit for a URL.
fn check_host(host: &str) -> Result<(), &'static str> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<Ipv6Addr>().is_ok() {
        return Ok(());
    }
    if host.contains("://") {
        return Err("it is a URL, use the host name alone");
    }
    if host.contains(':') {
        return Err("it has a port, pass that to port()");
    }
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@[]\\".contains(c)) {
        return Err("it is not a host name");
    }
    Ok(())
}

/// Refuses a URL that is not absolute or has an invalid port.
fn check_url(url: &str) -> Result<(), &'static str> {
    let unusable = "it is not an absolute URL like http://host:8080/health";
    let uri: Uri = url.parse().map_err(|_| unusable)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(unusable);
    }
    let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(unusable)?;
    let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    match host.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') && !port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Err("its port is not a number from 1 to 65535")
        }
        _ => Ok(()),
    }
}

/// Error of [`InstanceBuilder::build`]: an instance that cannot be registered.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidInstance {
    app: String,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    BadName,
    ReservedName,
    NoPort,
    PortZero,
    BadId(String),
    /// Name of a field whose value contains `${`.
    Placeholder(&'static str),
    /// A field, its value and the reason why it is unusable.
    Unusable(&'static str, String, &'static str),
    NotWholeSeconds(&'static str, Duration),
    LeaseTooShort(LeaseInfo),
}

impl InvalidInstance {
    fn new(app: &str, fault: Fault) -> Self {
        Self { app: app.into(), fault }
    }
}

impl fmt::Display for InvalidInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let app = &self.app;
        match &self.fault {
            Fault::BadName => {
                write!(f, "application name '{app}' is unusable: use ASCII letters, digits, '-', '_' and '.'")
            }
            Fault::ReservedName => {
                write!(f, "application name '{app}' is reserved by the protocol: choose another")
            }
            Fault::NoPort => write!(f, "instance of '{app}' has no port: use that of its listener"),
            Fault::PortZero => {
                write!(f, "instance of '{app}' has port 0: bind first, then use the port of local_addr()")
            }
            Fault::BadId(id) => {
                write!(
                    f,
                    "instance id '{id}' of '{app}' is unusable: it must not be empty or contain a slash or control character"
                )
            }
            Fault::Placeholder(field) => {
                write!(f, "{field} of '{app}' contains ${{...}}: placeholders are not resolved, write out the value")
            }
            Fault::Unusable(field, value, why) => write!(f, "{field} '{value}' of '{app}' is unusable: {why}"),
            Fault::NotWholeSeconds(name, duration) => {
                write!(f, "{name} {duration:?} of '{app}' is unusable: use whole seconds, at least 1 s")
            }
            Fault::LeaseTooShort(lease) => write!(
                f,
                "lease of '{app}' would end before its next heartbeat ({} s, heartbeat every {} s): make it longer",
                lease.duration_secs, lease.renewal_interval_secs
            ),
        }
    }
}

/// Shows the message, since a `main` that returns the error prints its `Debug` form.
impl fmt::Debug for InvalidInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidInstance({self})")
    }
}

impl std::error::Error for InvalidInstance {}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> InstanceBuilder {
        Instance::builder("orders").port(80).ip_addr("10.0.0.1")
    }

    #[test]
    fn text_that_is_no_address_or_url_fails_at_build() {
        for (builder, part) in [
            (orders().ip_addr("999.1.1.1"), "999.1.1.1"),
            (orders().ip_addr("1.1.1"), "neither IPv4 nor IPv6"),
            (orders().ip_addr("10.0.0.1:80"), "neither IPv4 nor IPv6"),
            (orders().ip_addr("[::1]"), "neither IPv4 nor IPv6"),
            (orders().ip_addr("fe80::zz"), "neither IPv4 nor IPv6"),
            (orders().host_name("http://h"), "it is a URL"),
            (orders().host_name("h:80"), "it has a port"),
            (orders().host_name("my host"), "it is not a host name"),
            (orders().host_name("h/path"), "it is not a host name"),
            (orders().health_check_url("not a url"), "health check URL 'not a url'"),
            (orders().health_check_url("/health"), "not an absolute URL"),
            (orders().health_check_url("h:80/health"), "not an absolute URL"),
            (orders().status_page_url("ftp://h/"), "status page URL"),
            (orders().home_page_url("http://"), "home page URL"),
            (orders().home_page_url("http://h:99999/"), "its port"),
            (orders().home_page_url("http://h:0/"), "its port"),
            (orders().home_page_url("http://h:x/"), "its port"),
            (orders().secure_health_check_url("https:///health"), "secure health check URL"),
        ] {
            let error = builder.build().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("orders"), "{error}");
        }
        for builder in [
            orders().ip_addr("::1"),
            orders().ip_addr(""),
            orders().host_name("[::1]"),
            orders().host_name("::1"),
            orders().host_name("under_score.example.com"),
            orders().health_check_url("https://[::1]:8443/health?deep=true"),
            orders().status_page_url(""),
        ] {
            builder.build().unwrap();
        }
    }

    #[test]
    fn placeholder_fails_at_build() {
        let text = "${spring.application.name}";
        for (builder, field) in [
            (Instance::builder(text).port(80), "name"),
            (orders().id(format!("{text}:1")), "id"),
            (orders().host_name("${HOSTNAME}"), "host name"),
            (orders().ip_addr(text), "IP address"),
            (orders().vip_address(text), "VIP address"),
            (orders().secure_vip_address(text), "secure VIP address"),
            (orders().home_page_url("http://${HOSTNAME}/"), "home page URL"),
            (orders().health_check_url("http://${HOSTNAME}/"), "health check URL"),
        ] {
            let error = builder.build().unwrap_err().to_string();
            assert!(error.starts_with(field) && error.contains("not resolved"), "{error}");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn new_address_replaces_the_detected_one() {
        let detected = orders().health_check_url("http://10.0.0.1:80/up").status_page_url("http://10.0.0.10/s");
        let moved = detected.clone().build().unwrap().with_address("fd00::2");
        assert_eq!((moved.ip_addr(), moved.host_name()), (Some("fd00::2"), Some("fd00::2")));
        assert_eq!(moved.id(), "fd00::2:orders:80");
        assert_eq!(moved.home_page_url(), Some("http://[fd00::2]:80/"));
        assert_eq!(moved.health_check_url(), Some("http://[fd00::2]:80/up"));
        assert_eq!(moved.status_page_url(), Some("http://10.0.0.10/s"));
        let named = detected.host_name("h").id("10.0.0.1").build().unwrap().with_address("10.0.0.2");
        assert_eq!((named.ip_addr(), named.host_name(), named.id()), (Some("10.0.0.2"), Some("h"), "10.0.0.1"));
    }
}
