use std::fmt;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::{DataCenter, Instance, InstanceStatus, LeaseInfo, Metadata, Port, app_name};

/// Describes an instance before it registers. Made by [`Instance::builder`].
///
/// Only a port is required. The defaults are those of a Spring application that prefers its IP address:
///
/// | field | default |
/// |---|---|
/// | IP address | the address of the interface that leads out, else `127.0.0.1` |
/// | host name | the IP address, which works where names do not resolve |
/// | id | `host:application:port` |
/// | VIP, secure VIP | the application's name as given: what Spring callers look up |
/// | heartbeat, lease | 30 s, 90 s |
/// | data centre | `MyOwn` |
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

    /// The port for plain HTTP: the one the listener got.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The port for HTTPS. Spring callers prefer it to the plain one.
    pub fn secure_port(mut self, port: u16) -> Self {
        self.secure_port = Some(port);
        self
    }

    /// The id, unique among the instances of the application.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The name by which callers reach the instance.
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_name = Some(name.into());
        self
    }

    /// The address by which callers reach the instance.
    pub fn ip_addr(mut self, address: impl Into<String>) -> Self {
        self.ip_addr = Some(address.into());
        self
    }

    /// Registers the IP address as the host name too, whatever [`host_name`](Self::host_name) says. Defaults to false; without a
    /// host name the address takes its place anyway.
    pub fn prefer_ip_address(mut self, prefer: bool) -> Self {
        self.prefer_ip_address = Some(prefer);
        self
    }

    /// Replaces the name of the application.
    pub(crate) fn rename(mut self, app: String) -> Self {
        self.app = app;
        self
    }

    /// Replaces the name of the application, but not the VIP addresses that follow from it.
    pub(crate) fn rename_app_only(mut self, app: String) -> Self {
        let before = std::mem::replace(&mut self.app, app);
        self.vip_address.get_or_insert_with(|| before.clone());
        self.secure_vip_address.get_or_insert(before);
        self
    }

    /// Sets the port that the environment gives the server, unless the code has given one.
    pub(crate) fn port_if_none(self, port: u16) -> Self {
        match self.port.or(self.secure_port) {
            None => self.port(port),
            Some(given) => {
                if given != port {
                    tracing::warn!(app = self.app, given, "environment variable without effect: SERVER_PORT is {port}");
                }
                self
            }
        }
    }

    /// Time between two heartbeats: whole seconds, at least one. Default 30 s.
    pub fn renewal_interval(mut self, interval: Duration) -> Self {
        self.renewal_interval = interval;
        self
    }

    /// Time after which a silent instance counts as gone: whole seconds, longer than the heartbeat interval. Default 90 s.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.lease_duration = duration;
        self
    }

    /// Logical names, separated by commas.
    pub fn vip_address(mut self, names: impl Into<String>) -> Self {
        self.vip_address = Some(names.into());
        self
    }

    /// Logical names for HTTPS callers, separated by commas.
    pub fn secure_vip_address(mut self, names: impl Into<String>) -> Self {
        self.secure_vip_address = Some(names.into());
        self
    }

    /// Group of applications.
    pub fn app_group(mut self, group: impl Into<String>) -> Self {
        self.app_group = Some(group.into());
        self
    }

    /// Absolute URL of the home page.
    pub fn home_page_url(mut self, url: impl Into<String>) -> Self {
        self.home_page_url = Some(url.into());
        self
    }

    /// Absolute URL of the status page.
    pub fn status_page_url(mut self, url: impl Into<String>) -> Self {
        self.status_page_url = Some(url.into());
        self
    }

    /// Absolute URL of the health check.
    pub fn health_check_url(mut self, url: impl Into<String>) -> Self {
        self.health_check_url = Some(url.into());
        self
    }

    /// Absolute URL of the health check for those who call the secure port. Default none; they ask the other one then.
    pub fn secure_health_check_url(mut self, url: impl Into<String>) -> Self {
        self.secure_health_check_url = Some(url.into());
        self
    }

    /// Where the instance runs.
    pub fn data_center(mut self, data_center: DataCenter) -> Self {
        self.data_center = data_center;
        self
    }

    /// Adds a metadata entry.
    pub fn metadata(mut self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        self.metadata.insert(key, value);
        self
    }

    /// Finishes the instance.
    ///
    /// # Errors
    /// When the name or id cannot stand in a URL path or is reserved, no port was given, or a duration is not whole seconds.
    pub fn build(self) -> Result<Instance, InvalidInstance> {
        check_app(&self.app)?;
        let port = self.port.or(self.secure_port).ok_or(InvalidInstance::new(&self.app, Fault::NoPort))?;
        if self.port == Some(0) || self.secure_port == Some(0) {
            return Err(InvalidInstance::new(&self.app, Fault::PortZero));
        }
        let lease = LeaseInfo {
            renewal_interval_secs: self.whole_seconds("renewal interval", self.renewal_interval)?,
            duration_secs: self.whole_seconds("lease duration", self.lease_duration)?,
            ..LeaseInfo::default()
        };
        if lease.duration_secs <= lease.renewal_interval_secs {
            return Err(InvalidInstance::new(&self.app, Fault::LeaseTooShort(lease)));
        }
        let ip_addr = self.ip_addr.filter(|a| !a.is_empty()).unwrap_or_else(|| outward_address().to_string());
        let named = self.host_name.filter(|host| !host.is_empty());
        if named.is_none() && self.prefer_ip_address == Some(false) {
            tracing::warn!(app = self.app, "no host name is given, registering the IP address");
        }
        let named = named.filter(|_| self.prefer_ip_address != Some(true));
        let host = named.unwrap_or_else(|| ip_addr.clone());
        let id = self.id.unwrap_or_else(|| format!("{host}:{}:{port}", self.app));
        if id.is_empty() || id.contains(['/', '\\']) || id.chars().any(char::is_control) {
            return Err(InvalidInstance::new(&self.app, Fault::BadId(id)));
        }
        let (scheme, authority) = (if self.port.is_some() { "http" } else { "https" }, host_in_url(&host));
        let text = |text: Option<String>| text.map(Arc::<str>::from);
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
            status_page_url: text(self.status_page_url),
            health_check_url: text(self.health_check_url),
            secure_health_check_url: text(self.secure_health_check_url),
            vip_address: Some(self.vip_address.unwrap_or_else(|| self.app.clone()).into()),
            secure_vip_address: Some(self.secure_vip_address.unwrap_or_else(|| self.app.clone()).into()),
            ..Instance::bare(app_name(&self.app))
        })
    }

    fn whole_seconds(&self, what: &'static str, duration: Duration) -> Result<i32, InvalidInstance> {
        let seconds = i32::try_from(duration.as_secs()).unwrap_or(0);
        if seconds == 0 || duration.subsec_nanos() != 0 {
            return Err(InvalidInstance::new(&self.app, Fault::NotWholeSeconds(what, duration)));
        }
        Ok(seconds)
    }
}

/// Refuses a name that the registry could not keep or a URL could not carry.
pub(crate) fn check_app(app: &str) -> Result<(), InvalidInstance> {
    let carried = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if app.is_empty() || !app.chars().all(carried) {
        return Err(InvalidInstance::new(app, Fault::BadName));
    }
    // Paths and cache keys of the server: an application of that name can be registered on none and read on few.
    if ["DELTA", "ALL_APPS", "ALL_APPS_DELTA"].iter().any(|reserved| app.eq_ignore_ascii_case(reserved)) {
        return Err(InvalidInstance::new(app, Fault::ReservedName));
    }
    Ok(())
}

/// Brackets around an IPv6 address, which URLs ask for and the registry's fields do not have.
pub(crate) fn host_in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() }
}

/// The address of the interface by which packets would leave. Connecting a UDP socket sends none; the target is a documentation
/// address (RFC 5737) that is never routed.
fn outward_address() -> IpAddr {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr()))
        .map(|address| address.ip())
        .ok()
        .filter(|ip| !ip.is_unspecified())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// An instance that cannot be registered as described.
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
            Fault::NoPort => write!(f, "instance of '{app}' has no port: give the one its listener got"),
            Fault::PortZero => {
                write!(f, "instance of '{app}' has port 0: bind first, then give the port of local_addr()")
            }
            Fault::BadId(id) => {
                write!(
                    f,
                    "instance id '{id}' of '{app}' is unusable: it must not be empty nor hold a slash or control character"
                )
            }
            Fault::NotWholeSeconds(what, duration) => {
                write!(f, "{what} {duration:?} of '{app}' cannot travel: use whole seconds, at least 1 s")
            }
            Fault::LeaseTooShort(lease) => write!(
                f,
                "lease of '{app}' would end before its next heartbeat ({} s, heartbeat every {} s): make it longer",
                lease.duration_secs, lease.renewal_interval_secs
            ),
        }
    }
}

/// The sentence, because a `main` that returns errors shows them so.
impl fmt::Debug for InvalidInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidInstance({self})")
    }
}

impl std::error::Error for InvalidInstance {}
