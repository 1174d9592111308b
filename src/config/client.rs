use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Credentials, Interest, OfflineConfig, RegistrarConfig, RemoteRegions, ServerSettings, ServiceUrl};
use crate::connect::{Names, Proxies, TlsSettings};

/// Settings of a client. Each is documented at the setter on
/// [`EurekaBuilder`](crate::EurekaBuilder).
#[derive(Clone, Debug)]
pub(crate) struct ClientConfig {
    /// Servers of the default zone. `build` replaces them by those of all zones in use.
    pub(crate) service_urls: Vec<ServiceUrl>,
    pub(crate) servers: ServerSettings,
    pub(crate) fetch_interval: Duration,
    pub(crate) delta: bool,
    pub(crate) interest: Interest,
    /// Remote regions whose instances are fetched as well.
    pub(crate) regions: RemoteRegions,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    /// Time after which an idle connection to a registry server is closed.
    pub(crate) idle_timeout: Duration,
    pub(crate) body_limit: usize,
    /// Follows redirects to other hosts and schemes.
    pub(crate) leaves_host: bool,
    pub(crate) ready_timeout: Duration,
    pub(crate) instance_connect_timeout: Duration,
    /// Lookups of host names. Clones share them.
    pub(crate) names: Arc<Names>,
    pub(crate) tls: TlsSettings,
    pub(crate) proxies: Proxies,
    pub(crate) credentials: Option<Credentials>,
    /// Further headers of requests to registry servers. Their values are secrets.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) switches: Switches,
    pub(crate) registrar: RegistrarConfig,
    pub(crate) offline: OfflineConfig,
}

/// Parts of the client that are switched off, each with the setting that does it:
/// `EUREKA_CLIENT_ENABLED=false`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches {
    pub(crate) client: Option<Cow<'static, str>>,
    pub(crate) registration: Option<Cow<'static, str>>,
    pub(crate) fetch: Option<Cow<'static, str>>,
}

impl Switches {
    /// Returns the setting that switches registration off, if there is one.
    pub(crate) fn registration_off(&self) -> Option<&Cow<'static, str>> {
        self.client.as_ref().or(self.registration.as_ref())
    }

    /// Returns the setting that switches fetches of the registry off, if there is one.
    pub(crate) fn fetch_off(&self) -> Option<&Cow<'static, str>> {
        self.client.as_ref().or(self.fetch.as_ref())
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            service_urls: Vec::new(),
            servers: ServerSettings::default(),
            fetch_interval: Duration::from_secs(30),
            delta: true,
            interest: Interest::default(),
            regions: RemoteRegions::default(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(8),
            idle_timeout: Duration::from_secs(45),
            body_limit: 256 << 20,
            leaves_host: true,
            ready_timeout: Duration::from_secs(3),
            instance_connect_timeout: Duration::from_secs(2),
            names: Arc::default(),
            tls: TlsSettings::default(),
            proxies: Proxies::default(),
            credentials: None,
            headers: Vec::new(),
            switches: Switches::default(),
            registrar: RegistrarConfig::default(),
            offline: OfflineConfig::default(),
        }
    }
}

impl ClientConfig {
    pub(crate) const DEFAULT_SERVICE_URL: &str = "http://localhost:8761/eureka/";
}
