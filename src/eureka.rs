use std::fmt;
#[cfg(feature = "tls")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
#[cfg(feature = "tls")]
use tokio_rustls::rustls;
use tower::{BoxError, Service};

use crate::cache::{Registry, Snapshot};
use crate::client::{CallOptions, HttpClient};
use crate::config::{ClientConfig, Env, ServiceUrl};
use crate::discover::{EurekaDiscover, Selection};
use crate::error::{Error, Kind};
use crate::model::Instance;
use crate::register::Registrar;
use crate::sync::Mutex;
#[cfg(feature = "tonic")]
use crate::tonic::Channel;
use crate::transport::{Connector, HttpStack, RequestBody, Transport};

/// The client of a Eureka registry: what a provider registers with and a consumer finds its instances by.
///
/// Cheap to clone, and meant to be made once per process. The registry is fetched, and then kept fresh, from the first time
/// somebody asks for an application; a process that only provides never fetches it. The tasks behind it run on the runtime on
/// which they were first needed.
#[derive(Clone)]
pub struct Eureka(Arc<Inner>);

struct Inner {
    transport: Transport,
    config: ClientConfig,
    registry: Mutex<Option<Arc<Registry>>>,
}

impl Eureka {
    /// Starts a client with the defaults.
    pub fn builder() -> EurekaBuilder {
        EurekaBuilder {
            config: ClientConfig::default(),
            stack: None,
            faulty: None,
            default_url: false,
            urls_from_env: false,
        }
    }

    /// A client set up by the variables that Spring applications use; see [`EurekaBuilder::from_env`].
    ///
    /// # Errors
    /// When a variable holds something else than it must.
    pub fn from_env() -> Result<Self, Error> {
        EurekaBuilder::from_env()?.build()
    }

    /// Creates the handle that keeps this instance in the registry. Nothing is sent before it is asked to.
    ///
    /// With registration switched off (see [`EurekaBuilder::register_with_eureka`]) it serves and drains, and sends nothing.
    pub fn registrar(&self, instance: Instance) -> Registrar {
        let off = self.0.config.switches.registration_off().cloned();
        Registrar::new(self.0.transport.clone(), instance, off)
    }

    /// The instances of an application, as a stream of changes.
    ///
    /// A text is looked up as calls by name are: see [`Selection::name`]. Give a [`Selection`] to look up an application or a VIP
    /// address and nothing else, for other statuses than UP, or to filter.
    ///
    /// # Errors
    /// When the selection can never mean an instance, such as a name that no application can have.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn discover(&self, selection: impl Into<Selection>) -> Result<EurekaDiscover, Error> {
        let selection = selection.into();
        selection.check()?;
        Ok(EurekaDiscover::new(self.registry(), selection))
    }

    /// A client that calls applications by name, with the default [`CallOptions`]. Each call of this makes one with its own
    /// connections and measurements: keep it and clone it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn http_client<B>(&self) -> HttpClient<B>
    where
        B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.http_client_with(CallOptions::default())
    }

    /// The same with other options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn http_client_with<B>(&self, options: CallOptions) -> HttpClient<B>
    where
        B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
    {
        let (registry, ready_timeout) = self.calling();
        HttpClient::new(registry, options, ready_timeout, self.connector())
    }

    /// A channel for generated gRPC clients, which calls this application, with the default [`CallOptions`]. Each call of this
    /// makes one with its own connections and measurements: keep it and clone it.
    ///
    /// The name is looked up as [`Selection::name`] says. With one that no application can have, each call on the channel
    /// fails with `INVALID_ARGUMENT`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(feature = "tonic")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
    pub fn channel(&self, name: impl AsRef<str>) -> Channel {
        self.channel_with(name, CallOptions::default())
    }

    /// The same with other options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(feature = "tonic")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
    pub fn channel_with(&self, name: impl AsRef<str>, options: CallOptions) -> Channel {
        let (registry, ready_timeout) = self.calling();
        Channel::new(name.as_ref(), registry, options, ready_timeout, self.connector())
    }

    /// The registry and the ready timeout of calls by name.
    pub(crate) fn calling(&self) -> (Arc<Registry>, Duration) {
        let config = &self.0.config;
        // Nothing to wait for where nothing is fetched.
        let timeout = if config.switches.fetch_off().is_some() { Duration::ZERO } else { config.ready_timeout };
        (self.registry(), timeout)
    }

    fn connector(&self) -> Connector {
        Connector::new(self.0.config.instance_connect_timeout, &self.0.config.tls)
    }

    /// The registry as it was last fetched: empty until the first answer has come.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.registry().snapshot()
    }

    /// The operations of the registry server as typed calls, for what the rest of this client does not do.
    pub fn transport(&self) -> &Transport {
        &self.0.transport
    }

    fn registry(&self) -> Arc<Registry> {
        let mut registry = self.0.registry.lock();
        match &*registry {
            Some(running) if running.is_running() => running.clone(),
            _ => match self.0.config.switches.fetch_off() {
                None => registry.insert(Registry::start(self.0.transport.clone(), &self.0.config)).clone(),
                Some(setting) => registry.insert(Registry::off(setting)).clone(),
            },
        }
    }
}

impl fmt::Debug for Eureka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eureka").field("service_urls", &self.0.config.service_urls).finish()
    }
}

type MakeStack = Box<dyn FnOnce(&ClientConfig) -> HttpStack + Send>;

/// Settings of a client. Made by [`Eureka::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct EurekaBuilder {
    config: ClientConfig,
    /// Made at the end, since it takes its bounds from the settings.
    stack: Option<MakeStack>,
    faulty: Option<Error>,
    /// True if the usual address is used without a service URL.
    default_url: bool,
    /// True while the service URLs are those of the environment.
    urls_from_env: bool,
}

impl EurekaBuilder {
    /// Starts with the defaults, and over them the values that the environment has under the Spring names. Calls of this builder
    /// replace them.
    ///
    /// | variable | sets |
    /// |---|---|
    /// | `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` | [`service_url`](Self::service_url), `http://localhost:8761/eureka/` if unset |
    /// | `EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS` | [`fetch_interval`](Self::fetch_interval) |
    /// | `EUREKA_CLIENT_DISABLEDELTA` | [`delta`](Self::delta), reversed |
    /// | `EUREKA_CLIENT_ENABLED`, `SPRING_CLOUD_DISCOVERY_ENABLED` | [`enabled`](Self::enabled) |
    /// | `EUREKA_CLIENT_REGISTERWITHEUREKA`, `SPRING_CLOUD_SERVICEREGISTRY_AUTOREGISTRATION_ENABLED` | [`register_with_eureka`](Self::register_with_eureka) |
    /// | `EUREKA_CLIENT_FETCHREGISTRY` | [`fetch_registry`](Self::fetch_registry) |
    ///
    /// A placeholder (`${...}`) is an error. Other variables that begin with `EUREKA_` have no effect and are named in a warning.
    ///
    /// # Errors
    /// When the value of a variable is unusable.
    pub fn from_env() -> Result<Self, Error> {
        Self::from(&Env::process())
    }

    fn from(env: &Env<'_>) -> Result<Self, Error> {
        let (config, faulty) = ClientConfig::from_env(env)?;
        Ok(Self { config, stack: None, faulty, default_url: true, urls_from_env: true })
    }

    /// Adds a registry server, such as `http://localhost:8761/eureka/`, or several, separated by commas. They are tried in this
    /// order, beginning with the one that responded last. Credentials go into the URL: `http://user:password@host/eureka/`, with
    /// each character but letters and digits percent-encoded.
    ///
    /// The first call replaces the servers of the environment, further calls add.
    pub fn service_url(mut self, urls: impl AsRef<str>) -> Self {
        if std::mem::take(&mut self.urls_from_env) {
            self.config.service_urls.clear();
        }
        match ServiceUrl::parse_list(urls.as_ref()) {
            Ok(urls) => ServiceUrl::merge(&mut self.config.service_urls, urls),
            Err(error) => self.faulty = self.faulty.or(Some(error)),
        }
        self
    }

    /// Switches the whole client on or off. Defaults to true.
    ///
    /// A client that is off sends nothing: its registrars serve and drain, its registry stays empty, and calls by name fail at
    /// once with an error that says why. Service URLs are not checked then. [`Eureka::transport`] still works.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.config.switches.client = (!enabled).then_some("enabled(false)".into());
        self
    }

    /// Switches the registration of instances on or off. Defaults to true.
    ///
    /// When off, registrars serve and drain, and send nothing.
    pub fn register_with_eureka(mut self, register: bool) -> Self {
        self.config.switches.registration = (!register).then_some("register_with_eureka(false)".into());
        self
    }

    /// Switches fetching the registry on or off. Defaults to true.
    ///
    /// When off, the registry stays empty, and calls by name fail at once with an error that says why.
    pub fn fetch_registry(mut self, fetch: bool) -> Self {
        self.config.switches.fetch = (!fetch).then_some("fetch_registry(false)".into());
        self
    }

    /// Time between two fetches of the registry, up to a tenth shorter or longer. With more than 90 seconds each fetch is a
    /// full one, unless the server sends digests. Defaults to 30 seconds.
    pub fn fetch_interval(mut self, interval: Duration) -> Self {
        self.config.fetch_interval = interval;
        self
    }

    /// Whether to ask for changes only, where that is possible. Default true.
    pub fn delta(mut self, delta: bool) -> Self {
        self.config.delta = delta;
        self
    }

    /// How long a connection to a registry server may take. Default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long a registry server may take to answer once connected, or pause within an answer. A whole body may take eight times
    /// as long. Default 8 s.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.config.read_timeout = timeout;
        self
    }

    /// How large an answer of a registry server may be, in bytes when unpacked. Default 256 MiB.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.config.body_limit = bytes;
        self
    }

    /// How long a call waits for an application that has no instance. Default 3 s.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.config.ready_timeout = timeout;
        self
    }

    /// How long a connection to an instance may take before another instance is tried. Default 2 s.
    pub fn instance_connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.instance_connect_timeout = timeout;
        self
    }

    /// Speaks TLS as this configuration (of rustls 0.23) says, to registry servers and to instances: with one's own CA, with a
    /// client certificate, with another provider of cryptography. Only its list of ALPN protocols is replaced, by the version
    /// that each call asks for.
    ///
    /// Default: TLS 1.2 and 1.3; the CAs that the operating system trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// name; no client certificate; the process's default provider of cryptography, else ring.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_config(mut self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        match std::mem::take(&mut self.config.tls).own(config.into()) {
            Ok(tls) => self.config.tls = tls,
            Err(error) => self.faulty = self.faulty.or(Some(error)),
        }
        self
    }

    /// Trusts the CAs in this PEM file instead of those that the operating system trusts, for registry servers and for instances.
    /// Several files add up. The file is read now, and a fault in it is the error of [`build`](Self::build).
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls_ca_file(mut self, path: impl AsRef<Path>) -> Self {
        match std::mem::take(&mut self.config.tls).trust_file(path.as_ref()) {
            Ok(tls) => self.config.tls = tls,
            Err(error) => self.faulty = self.faulty.or(Some(error)),
        }
        self
    }

    /// Sends requests to registry servers through this service instead of the built-in one: through a proxy, with other
    /// credentials. Unpacking, redirects and the bounds of size and time stay above it; the connect timeout, the age of
    /// connections (about five minutes in the built-in one) and TLS are its own affair. Its panics are errors of the
    /// operation.
    pub fn http_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        self.stack = Some(Box::new(|config| HttpStack::over(service, config)));
        self
    }

    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// When a service URL is unusable or none was given, or a time is 0.
    pub fn build(self) -> Result<Eureka, Error> {
        let mut config = self.config;
        let enabled = config.switches.client.is_none();
        if let Some(faulty) = self.faulty.filter(|_| enabled) {
            return Err(faulty);
        }
        if config.service_urls.is_empty() && (self.default_url || !enabled) {
            config.service_urls = ServiceUrl::parse_list(ClientConfig::DEFAULT_SERVICE_URL)?;
        }
        let unusable = |cause: &str, advice| Err(Error::new(Kind::Config, "build client").cause(cause).advice(advice));
        if config.service_urls.is_empty() {
            return unusable("no service URL was given", "add one like http://localhost:8761/eureka/");
        }
        let times =
            [config.fetch_interval, config.connect_timeout, config.read_timeout, config.instance_connect_timeout];
        if times.contains(&Duration::ZERO) {
            return unusable("an interval or timeout is 0", "give each some time");
        }
        if self.stack.is_none()
            && enabled
            && let Some(secure) = config.service_urls.iter().find(|url| url.is_secure())
        {
            config.tls.usable().map_err(|why| {
                Error::new(Kind::Config, "build client")
                    .server(secure.as_str().clone())
                    .cause(format!("HTTPS cannot be spoken: {why}"))
                    .advice("or give an HTTP service that speaks it to http_service()")
            })?;
        }
        let stack = self.stack.map_or_else(|| HttpStack::hyper(&config), |make| make(&config));
        let transport = Transport::new(config.service_urls.clone(), stack);
        Ok(Eureka(Arc::new(Inner { transport, config, registry: Mutex::default() })))
    }
}

impl fmt::Debug for EurekaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaBuilder").field("config", &self.config).field("faulty", &self.faulty).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The servers of a client that this variable and these calls set up.
    fn servers(variable: Option<&str>, calls: &[&str]) -> String {
        let lookup =
            |name: &str| variable.filter(|_| name == "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE").map(str::to_owned);
        let builder = EurekaBuilder::from(&Env::table(&lookup)).unwrap();
        let eureka = calls.iter().fold(builder, |builder, url| builder.service_url(url)).build().unwrap();
        format!("{:?}", eureka.0.config.service_urls)
    }

    #[test]
    fn service_url_in_code_means_the_same_whether_or_not_the_environment_has_one() {
        for variable in [None, Some("http://env/eureka/"), Some("http://a/,http://env/")] {
            assert_eq!(servers(variable, &["http://a/"]), "[http://a/]");
            assert_eq!(servers(variable, &["http://a/", "http://b/,http://a/"]), "[http://a/, http://b/]");
        }
        assert_eq!(servers(None, &[]), "[http://localhost:8761/eureka/]");
        assert_eq!(servers(Some("http://env/eureka"), &[]), "[http://env/eureka/]");
    }
}
