use std::time::Duration;

use crate::model::{Instance, InvalidInstance, LeaseInfo, Metadata, app_name};
use crate::server::Error;

/// Name of a Spring application without a name.
const NO_NAME: &str = "UNKNOWN";
/// Names with another meaning in the paths and caches of a registry.
const RESERVED: [&str; 3] = ["DELTA", "ALL_APPS", "ALL_APPS_DELTA"];

/// Registration of this server in its own registry, so that its peers show it.
///
/// A server without [`port`](crate::server::EurekaServerBuilder::port), or without peers, does not
/// register itself.
///
/// ```
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::{Node, Peers};
///
/// let builder = EurekaServer::builder()
///     .port(8761)
///     .peers(Peers::new().url("http://node2:8761/eureka/"))
///     .node(Node::new().app("registry").host_name("node1"));
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
#[must_use]
pub struct Node {
    pub(in crate::server) app: String,
    id: Option<String>,
    host_name: Option<String>,
    ip_addr: Option<String>,
    renewal_interval: Duration,
    lease_duration: Duration,
    metadata: Metadata,
    pub(in crate::server) register: bool,
    pub(in crate::server) unregister: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            app: NO_NAME.into(),
            id: None,
            host_name: None,
            ip_addr: None,
            renewal_interval: Duration::from_secs(LeaseInfo::DEFAULT_RENEWAL_INTERVAL_SECS as u64),
            lease_duration: Duration::from_secs(LeaseInfo::DEFAULT_DURATION_SECS as u64),
            metadata: Metadata::default(),
            register: true,
            unregister: true,
        }
    }
}

impl Node {
    /// Creates the settings with their defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the application name. Defaults to `UNKNOWN`, the name of Spring servers without one.
    ///
    /// Spring `spring.application.name` or `eureka.instance.appname`.
    pub fn app(mut self, name: impl Into<String>) -> Self {
        self.app = name.into();
        self
    }

    /// Sets the id. Defaults to `ip:port`, or to `ip:name:port` with an application name.
    ///
    /// Spring `eureka.instance.instance-id`.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the host name by which peers reach this node. Defaults to its IP address.
    ///
    /// Spring `eureka.instance.hostname`.
    pub fn host_name(mut self, name: impl Into<String>) -> Self {
        self.host_name = Some(name.into());
        self
    }

    /// Sets the IP address. Defaults to the address of the interface of the default route.
    ///
    /// Spring `eureka.instance.ip-address`.
    pub fn ip_addr(mut self, address: impl Into<String>) -> Self {
        self.ip_addr = Some(address.into());
        self
    }

    /// Sets the time between two heartbeats of this node, in whole seconds. Defaults to 30 seconds.
    ///
    /// Spring `eureka.instance.lease-renewal-interval-in-seconds`.
    pub fn renewal_interval(mut self, interval: Duration) -> Self {
        self.renewal_interval = interval;
        self
    }

    /// Sets the time for which peers keep this node after its last heartbeat, in whole seconds.
    /// Defaults to 90 seconds.
    ///
    /// Spring `eureka.instance.lease-expiration-duration-in-seconds`.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.lease_duration = duration;
        self
    }

    /// Adds an entry to the metadata of this node, such as its `zone`.
    ///
    /// Spring `eureka.instance.metadata-map.<key>`, Netflix `eureka.metadata.<key>`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Makes this node register itself. Defaults to true.
    ///
    /// Spring `eureka.client.register-with-eureka`, Netflix `eureka.registration.enabled`.
    pub fn register(mut self, register: bool) -> Self {
        self.register = register;
        self
    }

    /// Makes this node cancel its registration when it [leaves](crate::EurekaServer::leave).
    /// Defaults to true.
    ///
    /// Spring `eureka.client.should-unregister-on-shutdown`, Netflix
    /// `eureka.shouldUnregisterOnShutdown`.
    pub fn unregister(mut self, unregister: bool) -> Self {
        self.unregister = unregister;
        self
    }

    /// Returns the node as an instance, whose port is that of HTTP or HTTPS.
    pub(in crate::server) fn instance(&self, port: u16, is_https: bool, now: i64) -> Result<Instance, Error> {
        if !is_usable(&self.app) {
            return Err(Error::setting("Node::app", "must be a name without slashes and control characters"));
        }
        self.described(port, is_https, now).map_err(Error::own_instance)
    }

    /// Returns the host name and the IP address of the node, as far as they are known.
    pub(in crate::server) fn hosts(&self, instance: Option<&Instance>) -> [String; 2] {
        match instance {
            Some(instance) => {
                [instance.host_name(), instance.ip_addr()].map(|host| host.unwrap_or_default().to_owned())
            }
            None => [&self.host_name, &self.ip_addr].map(|host| host.clone().unwrap_or_default()),
        }
    }

    fn described(&self, port: u16, is_https: bool, now: i64) -> Result<Instance, InvalidInstance> {
        let mut builder = Instance::builder(NO_NAME)
            .port(port)
            .renewal_interval(self.renewal_interval)
            .lease_duration(self.lease_duration)
            .vip_address(self.app.to_lowercase())
            .secure_vip_address(self.app.to_lowercase());
        if is_https {
            builder = builder.port_enabled(false).secure_port(port);
        }
        if let Some(name) = &self.host_name {
            builder = builder.host_name(name);
        }
        if let Some(address) = &self.ip_addr {
            builder = builder.ip_addr(address);
        }
        let builder = builder.metadata_all(self.metadata.iter());
        let described = builder.clone().build()?;
        let ip = described.ip_addr().unwrap_or_default();
        let id = self.id.clone().unwrap_or_else(|| match &*self.app {
            NO_NAME => format!("{ip}:{port}"),
            app => format!("{ip}:{}:{port}", app.to_lowercase()),
        });
        let mut instance = builder.id(id).build()?;
        // Set directly: the builder refuses names with blanks, which Spring servers have.
        instance.app = app_name(&self.app);
        instance.last_dirty_timestamp = Some(now);
        instance.last_updated_timestamp = Some(now);
        Ok(instance)
    }
}

/// Returns true if a registry can keep an application of this name and a path can carry it.
fn is_usable(app: &str) -> bool {
    !app.trim().is_empty()
        && !app.contains(['/', '\\'])
        && !app.chars().any(char::is_control)
        && !RESERVED.iter().any(|reserved| app.eq_ignore_ascii_case(reserved))
}
