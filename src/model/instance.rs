use std::sync::Arc;

#[cfg(feature = "client")]
use super::host_in_url;
use super::{
    ActionType, AddressOrigin, DataCenter, DecodeError, InstanceBuilder, InstanceStatus, LeaseInfo, Metadata, Port,
};

/// One running copy of an application: where it listens, what it is worth, how long it lives without a heartbeat.
///
/// Built by a provider with [`Instance::builder`], received by a consumer from the registry. Cheap to clone: texts are shared.
///
/// ```
/// use tower_eureka::Instance;
///
/// let instance = Instance::builder("orders").ip_addr("10.20.0.1").port(8080).metadata("zone", "rack-a").build()?;
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
    pub(crate) address: AddressOrigin,
    /// Number of restarts that the discovery stream which inserted this record has seen.
    pub(crate) generation: u32,
}

impl Instance {
    /// Starts an instance of this application. Everything but the port has a default.
    pub fn builder(app: impl AsRef<str>) -> InstanceBuilder {
        InstanceBuilder::new(app.as_ref())
    }

    /// Returns `true` if the address was found rather than given by the user.
    #[cfg(feature = "client")]
    pub(crate) fn is_address_detected(&self) -> bool {
        matches!(self.address, AddressOrigin::Detected)
    }

    /// The same at another address, which takes the place of the old one in the host name, the id and the URLs.
    #[cfg(feature = "client")]
    pub(crate) fn with_address(&self, ip: &str) -> Self {
        let before = self.ip_addr.clone().unwrap_or_default();
        let [old, new] = [&*before, ip].map(host_in_url);
        let in_url = |url: &Option<Arc<str>>| {
            url.as_ref().map(|url| {
                let (scheme, rest) = url.split_once("://").unwrap_or_default();
                match rest.strip_prefix(&*old) {
                    Some(rest) if rest.is_empty() || rest.starts_with([':', '/', '?']) => {
                        format!("{scheme}://{new}{rest}").into()
                    }
                    _ => url.clone(),
                }
            })
        };
        let is_host = self.host_name.as_deref() == Some(&*before);
        let id = self.instance_id.as_ref().map(|id| match id.strip_prefix(&*before) {
            Some(rest) if is_host && rest.starts_with(':') => format!("{ip}{rest}").into(),
            _ => id.clone(),
        });
        Self {
            instance_id: id,
            host_name: if is_host { Some(ip.into()) } else { self.host_name.clone() },
            ip_addr: Some(ip.into()),
            home_page_url: in_url(&self.home_page_url),
            status_page_url: in_url(&self.status_page_url),
            health_check_url: in_url(&self.health_check_url),
            secure_health_check_url: in_url(&self.secure_health_check_url),
            ..self.clone()
        }
    }

    /// An instance with nothing but its application, as a body that names nothing else decodes.
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
            address: AddressOrigin::Configured,
            generation: 0,
        }
    }

    /// Reads one from its JSON document, `{"instance": {...}}`.
    ///
    /// # Errors
    /// When the bytes are not JSON, the wrapper is missing, or no application is named.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        super::decode::instance_document(body)
    }

    /// Its JSON document, `{"instance": {...}}`, exactly as a Java client sends it.
    pub fn to_json(&self) -> Vec<u8> {
        super::encode::instance_document(self)
    }

    /// The id under which the registry keeps it, unique within its application: `instanceId`, else the data centre's own id,
    /// else the host name; empty if it has none of them.
    pub fn id(&self) -> &str {
        non_empty(&self.instance_id)
            .or_else(|| self.data_center.as_ref().and_then(DataCenter::instance_id))
            .or_else(|| non_empty(&self.host_name))
            .unwrap_or_default()
    }

    /// Application name, upper case.
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Group of applications, upper case.
    pub fn app_group(&self) -> Option<&str> {
        non_empty(&self.app_group)
    }

    /// The name, or address, by which callers reach it.
    pub fn host_name(&self) -> Option<&str> {
        non_empty(&self.host_name)
    }

    /// IP address, as text.
    pub fn ip_addr(&self) -> Option<&str> {
        non_empty(&self.ip_addr)
    }

    /// Its effective status: its own, or the one an operator put over it.
    pub fn status(&self) -> InstanceStatus {
        self.status
    }

    /// The status that an operator put over its own; [`Unknown`](InstanceStatus::Unknown) where there is none.
    pub fn overridden_status(&self) -> InstanceStatus {
        self.overridden_status
    }

    /// The port for plain HTTP.
    pub fn port(&self) -> Port {
        self.port
    }

    /// The port for HTTPS.
    pub fn secure_port(&self) -> Port {
        self.secure_port
    }

    /// Where it runs.
    pub fn data_center(&self) -> Option<&DataCenter> {
        self.data_center.as_ref()
    }

    /// Heartbeat interval, lease duration, and what the server noted.
    pub fn lease(&self) -> Option<&LeaseInfo> {
        self.lease.as_ref()
    }

    /// Free text entries.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Absolute URL of its home page.
    pub fn home_page_url(&self) -> Option<&str> {
        non_empty(&self.home_page_url)
    }

    /// Absolute URL of its status page.
    pub fn status_page_url(&self) -> Option<&str> {
        non_empty(&self.status_page_url)
    }

    /// Absolute URL of its health check.
    pub fn health_check_url(&self) -> Option<&str> {
        non_empty(&self.health_check_url)
    }

    /// Absolute URL of its health check over HTTPS.
    pub fn secure_health_check_url(&self) -> Option<&str> {
        non_empty(&self.secure_health_check_url)
    }

    /// Its logical names, as sent: separated by commas. Stock Spring callers look instances up by these.
    pub fn vip_address(&self) -> Option<&str> {
        non_empty(&self.vip_address)
    }

    /// Its logical names for HTTPS callers, as sent: separated by commas.
    pub fn secure_vip_address(&self) -> Option<&str> {
        non_empty(&self.secure_vip_address)
    }

    /// Its logical names one by one, without the spaces around them.
    pub fn vips(&self) -> impl Iterator<Item = &str> {
        list(self.vip_address())
    }

    /// Its logical names for HTTPS callers one by one, without the spaces around them.
    pub fn secure_vips(&self) -> impl Iterator<Item = &str> {
        list(self.secure_vip_address())
    }

    /// Share of the calls in relation to instances of weight 1: the metadata `weight`, without the blanks
    /// around it. 1 where that is missing or is no whole number from 1 to 2,147,483,647, as for Spring callers.
    ///
    /// The balancer uses this value.
    pub fn weight(&self) -> u32 {
        self.explicit_weight().unwrap_or(1)
    }

    /// The metadata `weight`, if it is a number that counts.
    pub(crate) fn explicit_weight(&self) -> Option<u32> {
        let weight: i32 = self.metadata.get("weight")?.trim().parse().ok()?;
        u32::try_from(weight).ok().filter(|&weight| weight > 0)
    }

    /// Zone that the instance runs in, without the blanks around it: the metadata `zone`, else the
    /// availability zone of Amazon. A blank zone is none.
    ///
    /// The balancer uses this value.
    pub fn zone(&self) -> Option<&str> {
        let given = self.metadata.get("zone").map(str::trim).filter(|zone| !zone.is_empty());
        given.or_else(|| self.data_center.as_ref().and_then(DataCenter::zone))
    }

    /// Milliseconds since the epoch when it was first seen UP, by the clock of the server that answered. `None` if it never was,
    /// or the server did not say.
    ///
    /// A server keeps it for as long as it keeps the lease: of an instance that crashed and was back before its lease ended, it is
    /// older than the process. Each server of a cluster has its own.
    pub fn up_since_ms(&self) -> Option<i64> {
        self.lease.map(|lease| lease.service_up_timestamp).filter(|&at| at > 0)
    }

    /// Auto scaling group.
    pub fn asg_name(&self) -> Option<&str> {
        non_empty(&self.asg_name)
    }

    /// Whether this is the registry server that answered.
    pub fn is_coordinating_discovery_server(&self) -> bool {
        self.is_coordinating_discovery_server
    }

    /// Milliseconds since the epoch when the answering server last saw a registration, cancellation or status change of it.
    pub fn last_updated_timestamp(&self) -> Option<i64> {
        self.last_updated_timestamp
    }

    /// Milliseconds since the epoch when the instance last changed its own data. The version that settles conflicts.
    pub fn last_dirty_timestamp(&self) -> Option<i64> {
        self.last_dirty_timestamp
    }

    /// What happened to it last.
    pub fn action(&self) -> Option<ActionType> {
        self.action
    }

    /// The host to connect to: the host name, else the IP address.
    pub fn host(&self) -> Option<&str> {
        self.host_name().or_else(|| self.ip_addr())
    }

    /// Host and port for plain HTTP, as a URI has them; `None` if that port is disabled.
    #[cfg(feature = "client")]
    pub(crate) fn http_authority(&self) -> Option<http::uri::Authority> {
        self.authority_at(self.port.usable()?)
    }

    /// Host and port for HTTPS, as a URI has them; `None` if that port is disabled.
    #[cfg(feature = "client")]
    pub(crate) fn https_authority(&self) -> Option<http::uri::Authority> {
        self.authority_at(self.secure_port.usable()?)
    }

    /// Number of the plain port of a record that marks both ports as disabled.
    #[cfg(feature = "client")]
    pub(crate) fn disabled_plain_port(&self) -> Option<u16> {
        let Port { number, enabled } = self.port;
        u16::try_from(number).ok().filter(|&number| number != 0 && !enabled && !self.secure_port.enabled)
    }

    /// Host and `port`, as a URI has them.
    #[cfg(feature = "client")]
    pub(crate) fn authority_at(&self, port: u16) -> Option<http::uri::Authority> {
        format!("{}:{port}", super::host_in_url(self.host()?)).parse().ok()
    }
}

fn non_empty(text: &Option<Arc<str>>) -> Option<&str> {
    text.as_deref().filter(|t| !t.is_empty())
}

fn list(names: Option<&str>) -> impl Iterator<Item = &str> {
    names.into_iter().flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty())
}
