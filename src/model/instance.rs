use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::{ActionType, DataCenter, InstanceBuilder, InstanceStatus, LeaseInfo, LocalFacts, Metadata, Port};

/// Instance of an application: one process, with its address, status, lease and metadata.
///
/// A provider builds it with [`Instance::builder`]. A consumer receives it from the registry. Cheap
/// to clone, since strings are shared.
///
/// ```
/// use tower_eureka::Instance;
///
/// let builder = Instance::builder("orders").ip_addr("10.20.0.1").port(8080);
/// let instance = builder.metadata("zone", "rack-a").build()?;
/// assert_eq!(instance.app(), "ORDERS");
/// assert_eq!(instance.id(), "10.20.0.1:orders:8080");
/// # Ok::<(), tower_eureka::model::InvalidInstance>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) host_name: Option<Arc<str>>,
    pub(crate) app: Arc<str>,
    pub(crate) ip_addr: Option<Arc<str>>,
    pub(crate) sid: Option<Arc<str>>,
    pub(crate) status: InstanceStatus,
    pub(crate) overridden_status: InstanceStatus,
    pub(crate) port: Port,
    pub(crate) secure_port: Port,
    pub(crate) country_id: i32,
    pub(crate) data_center: Option<DataCenter>,
    pub(crate) lease: Option<LeaseInfo>,
    pub(crate) metadata: Metadata,
    pub(crate) app_group: Option<Arc<str>>,
    pub(crate) home_page_url: Option<Arc<str>>,
    pub(crate) status_page_url: Option<Arc<str>>,
    pub(crate) health_check_url: Option<Arc<str>>,
    pub(crate) secure_health_check_url: Option<Arc<str>>,
    pub(crate) vip_address: Option<Arc<str>>,
    pub(crate) secure_vip_address: Option<Arc<str>>,
    pub(crate) is_coordinating_discovery_server: bool,
    pub(crate) last_updated_timestamp: Option<i64>,
    pub(crate) last_dirty_timestamp: Option<i64>,
    pub(crate) action: Option<ActionType>,
    pub(crate) asg_name: Option<Arc<str>>,
    pub(crate) local: LocalFacts,
    /// Number of restarts that the discovery stream which inserted this record has seen.
    pub(crate) generation: u32,
    /// Hash of the bytes from which a list decoder read the instance.
    pub(crate) fingerprint: Fingerprint,
}

impl Instance {
    /// Returns a builder for an instance of this application. Everything but the port has a
    /// default.
    pub fn builder(app: impl AsRef<str>) -> InstanceBuilder {
        InstanceBuilder::new(app.as_ref())
    }

    /// Creates an instance with defaults for everything but its application, as a decoder does for
    /// absent members.
    pub(crate) fn bare(app: Arc<str>) -> Self {
        Self {
            instance_id: None,
            host_name: None,
            app,
            ip_addr: None,
            sid: None,
            status: InstanceStatus::Up,
            overridden_status: InstanceStatus::Unknown,
            port: Port::DEFAULT_PLAIN,
            secure_port: Port::DEFAULT_SECURE,
            country_id: 1,
            data_center: None,
            lease: None,
            metadata: Metadata::default(),
            app_group: None,
            home_page_url: None,
            status_page_url: None,
            health_check_url: None,
            secure_health_check_url: None,
            vip_address: None,
            secure_vip_address: None,
            is_coordinating_discovery_server: false,
            last_updated_timestamp: None,
            last_dirty_timestamp: None,
            action: None,
            asg_name: None,
            local: LocalFacts::default(),
            generation: 0,
            fingerprint: Fingerprint::default(),
        }
    }

    /// Returns the id, unique within the application: `instanceId`, else the id of the data center,
    /// else the host name. Empty if the instance has none of them.
    pub fn id(&self) -> &str {
        non_empty(&self.instance_id)
            .or_else(|| self.data_center.as_ref().and_then(DataCenter::instance_id))
            .or_else(|| non_empty(&self.host_name))
            .unwrap_or_default()
    }

    /// Returns the [id](Self::id). Shares the text of `instanceId` instead of copying it.
    #[cfg(feature = "server")]
    pub(crate) fn shared_id(&self) -> Arc<str> {
        match &self.instance_id {
            Some(id) if !id.is_empty() => id.clone(),
            _ => self.id().into(),
        }
    }

    /// Returns the name of the application in upper case.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Returns the group of applications, in upper case unless it was read from XML.
    pub fn app_group(&self) -> Option<&str> {
        non_empty(&self.app_group)
    }

    /// Returns the host name, which may be an IP address.
    pub fn host_name(&self) -> Option<&str> {
        non_empty(&self.host_name)
    }

    /// Returns the IP address as a string.
    pub fn ip_addr(&self) -> Option<&str> {
        non_empty(&self.ip_addr)
    }

    /// Returns the effective status: the override of an operator, else the instance's own status.
    pub fn status(&self) -> InstanceStatus {
        self.status
    }

    /// Returns the override of an operator, or [`Unknown`](InstanceStatus::Unknown) if there is
    /// none.
    pub fn overridden_status(&self) -> InstanceStatus {
        self.overridden_status
    }

    /// Returns the port for plain HTTP.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Returns the port for HTTPS.
    pub fn secure_port(&self) -> Port {
        self.secure_port
    }

    /// Returns the data center.
    pub fn data_center(&self) -> Option<&DataCenter> {
        self.data_center.as_ref()
    }

    /// Returns the heartbeat interval, the lease duration and the timestamps of the server.
    pub fn lease(&self) -> Option<&LeaseInfo> {
        self.lease.as_ref()
    }

    /// Returns the metadata: strings by key.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the absolute URL of the home page.
    pub fn home_page_url(&self) -> Option<&str> {
        non_empty(&self.home_page_url)
    }

    /// Returns the absolute URL of the status page.
    pub fn status_page_url(&self) -> Option<&str> {
        non_empty(&self.status_page_url)
    }

    /// Returns the absolute URL of the health check.
    pub fn health_check_url(&self) -> Option<&str> {
        non_empty(&self.health_check_url)
    }

    /// Returns the absolute URL of the health check over HTTPS.
    pub fn secure_health_check_url(&self) -> Option<&str> {
        non_empty(&self.secure_health_check_url)
    }

    /// Returns the logical names as sent, separated by commas. Spring callers look instances up by
    /// these.
    pub fn vip_address(&self) -> Option<&str> {
        non_empty(&self.vip_address)
    }

    /// Returns the logical names for HTTPS callers as sent, separated by commas.
    pub fn secure_vip_address(&self) -> Option<&str> {
        non_empty(&self.secure_vip_address)
    }

    /// Iterates over the logical names, trimmed.
    pub fn vips(&self) -> impl Iterator<Item = &str> {
        list(self.vip_address())
    }

    /// Iterates over the logical names for HTTPS callers, trimmed.
    pub fn secure_vips(&self) -> impl Iterator<Item = &str> {
        list(self.secure_vip_address())
    }

    /// Returns the weight: the metadata `weight`, trimmed. An instance of weight 3 receives three
    /// times the calls of one of weight 1.
    ///
    /// Defaults to 1 if the entry is missing or is not a whole number from 1 to 2,147,483,647, as
    /// with Spring callers. The balancer uses this value.
    pub fn weight(&self) -> u32 {
        self.explicit_weight().unwrap_or(1)
    }

    /// Returns the metadata `weight`, if it is a valid weight.
    pub(crate) fn explicit_weight(&self) -> Option<u32> {
        let weight: i32 = self.metadata.get("weight")?.trim().parse().ok()?;
        u32::try_from(weight).ok().filter(|&weight| weight > 0)
    }

    /// Returns the zone: the metadata `zone`, else the availability zone of Amazon, trimmed. A
    /// blank zone counts as none.
    ///
    /// The balancer uses this value.
    pub fn zone(&self) -> Option<&str> {
        let configured = self.metadata.get("zone").map(str::trim).filter(|zone| !zone.is_empty());
        configured.or_else(|| self.data_center.as_ref().and_then(DataCenter::zone))
    }

    /// Returns the time at which the responding server first saw the instance UP, in milliseconds
    /// since the epoch by its clock. `None` if it never was UP, or if the server did not send the
    /// time.
    ///
    /// A server keeps the time as long as the lease: if an instance crashed and restarted before
    /// its lease ended, the time is older than the process. Each server of a cluster has its own
    /// time.
    pub fn up_since_ms(&self) -> Option<i64> {
        self.lease.map(|lease| lease.service_up_timestamp).filter(|&at| at > 0)
    }

    /// Returns the auto scaling group.
    pub fn asg_name(&self) -> Option<&str> {
        non_empty(&self.asg_name)
    }

    /// Returns `true` if this is the registry server that sent the response.
    pub fn is_coordinating_discovery_server(&self) -> bool {
        self.is_coordinating_discovery_server
    }

    /// Returns the time of the last registration, cancellation or status change at the responding
    /// server, in milliseconds since the epoch.
    pub fn last_updated_timestamp(&self) -> Option<i64> {
        self.last_updated_timestamp
    }

    /// Returns the version of the data: the time at which the instance last changed its own data,
    /// in milliseconds since the epoch. Of two records, the one with the greater version counts.
    pub fn last_dirty_timestamp(&self) -> Option<i64> {
        self.last_dirty_timestamp
    }

    /// Returns the last change of the instance.
    pub fn action(&self) -> Option<ActionType> {
        self.action
    }

    /// Returns the host to connect to: the host name, else the IP address.
    pub fn host(&self) -> Option<&str> {
        self.host_name().or_else(|| self.ip_addr())
    }

    /// Returns the number of the plain port if both ports are disabled.
    #[cfg(feature = "client")]
    pub(crate) fn disabled_plain_port(&self) -> Option<u16> {
        let Port { number, enabled } = self.port;
        u16::try_from(number).ok().filter(|&number| number != 0 && !enabled && !self.secure_port.enabled)
    }

    /// Returns the IP address, without brackets and without the zone that Java adds to IPv6
    /// addresses. `None` if it is invalid or unspecified, such as `0.0.0.0`.
    #[cfg(feature = "client")]
    pub(crate) fn ip(&self) -> Option<std::net::IpAddr> {
        super::ip_of(self.ip_addr()?).filter(|ip| !ip.is_unspecified())
    }
}

fn non_empty(text: &Option<Arc<str>>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

fn list(names: Option<&str>) -> impl Iterator<Item = &str> {
    names.into_iter().flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty())
}
