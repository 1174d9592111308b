mod address;
mod ask;
pub(crate) mod balancing;
#[cfg(any(feature = "axum", feature = "tonic-server"))]
pub(crate) mod bound;
mod choose;
mod close;
mod instance_service;
mod interest;
pub(crate) mod keys;
mod offline;
mod security;
mod servers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use crate::cache::{RegistryCache, Snapshot};
use crate::client::{CallOptions, Chooser, Clients, HttpClient, InstanceService};
use crate::config::{ClientConfig, ServerSettings, ServiceUrl, Settings};
use crate::discover::{EurekaDiscover, Selection};
use crate::error::{Error, Kind};
use crate::model::Instance;
use crate::register::{Registrar, Registrars};
use crate::sync::Mutex;
#[cfg(feature = "tonic")]
use crate::tonic::Channel;
use crate::transport::{HttpStack, RequestBody, Transport};

use balancing::Balancing;
#[cfg(feature = "server")]
pub(crate) use keys::spring_properties;
use security::Security;

/// Client of a Eureka registry, for providers and consumers.
///
/// Create one per process; clones are cheap and share everything. From it you get a
/// [`registrar`](Self::registrar) to register a server, an [`http_client`](Self::http_client) to
/// call applications by name, and a [`discover`](Self::discover) stream for a stack of your own.
///
/// The first consumer of the registry starts its refresh: an HTTP client, a channel, a layer, a
/// discovery stream or [`snapshot`](Self::snapshot). A process that only provides never fetches the
/// registry. Background tasks run on the runtime that first needed them.
#[derive(Clone)]
pub struct Eureka(Arc<Inner>);

struct Inner {
    transport: Transport,
    /// Transport of the fetches of the registry, if they have servers of their own.
    for_fetches: Option<Transport>,
    config: ClientConfig,
    registry: Mutex<Option<Arc<RegistryCache>>>,
    /// Options of calls by name without options of their own.
    options: CallOptions,
    /// Takes the place of connections to instances.
    instance_service: Option<InstanceService>,
    /// Made by the first choice.
    chooser: Mutex<Option<Chooser>>,
    /// HTTP clients, channels and layers.
    clients: Arc<Clients>,
    registrars: Registrars,
}

impl Eureka {
    /// Creates a builder with the default settings.
    pub fn builder() -> EurekaBuilder {
        EurekaBuilder {
            config: ClientConfig::default(),
            stack: None,
            error: None,
            default_url: false,
            urls_from_settings: false,
            security: Security::default(),
            balancing: Balancing::default(),
            simple: offline::SimpleInstances::new(),
            instance_service: None,
        }
    }

    /// Creates a client from the environment variables that Spring applications use, as
    /// [`from_settings`](Self::from_settings) does. Files are not read.
    ///
    /// # Errors
    /// If a variable has an invalid value. A client that the environment switches off accepts other
    /// invalid values.
    pub fn from_env() -> Result<Self, Error> {
        EurekaBuilder::from_env()?.build()
    }

    /// Creates the handle that registers an instance and keeps it registered. Nothing is sent until
    /// one of its methods is called.
    ///
    /// If registration is switched off (see [`EurekaBuilder::register_with_eureka`]), the handle
    /// serves and drains, but sends nothing.
    pub fn registrar(&self, instance: Instance) -> Registrar {
        let off = self.0.config.switches.registration_off().cloned();
        let registrar = Registrar::new(self.0.transport.clone(), instance, off, self.0.config.registrar.clone());
        self.0.registrars.add(&registrar);
        registrar
    }

    /// Returns the instances of an application as a stream of changes.
    ///
    /// A plain text is looked up like the host of a call by name; see [`Selection::name`]. Pass a
    /// [`Selection`] to look up only an application or only a VIP address, to accept other statuses
    /// than UP, or to filter instances.
    ///
    /// # Errors
    /// If the selection can never match an instance, for example because no application can have
    /// the name.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn discover(&self, selection: impl Into<Selection>) -> Result<EurekaDiscover, Error> {
        let selection = selection.into();
        selection.check()?;
        Ok(EurekaDiscover::new(self.registry(), selection))
    }

    /// Creates an HTTP client that calls applications by name, with the options of the settings;
    /// see [`call_options`](Self::call_options).
    ///
    /// Each client has its own connections and measurements, so create one and clone it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn http_client<B>(&self) -> HttpClient<B>
    where
        B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.http_client_with(self.call_options())
    }

    /// Creates an HTTP client as [`http_client`](Self::http_client) does, with these options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn http_client_with<B>(&self, options: CallOptions) -> HttpClient<B>
    where
        B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
    {
        let (registry, ready_timeout) = self.call_registry();
        let client = HttpClient::new(registry, self.with_own_zone(options), ready_timeout, self.instance_transport());
        self.0.clients.add(client.as_client());
        client
    }

    /// Creates a channel to an application for generated gRPC clients, with the options of the
    /// settings; see [`call_options`](Self::call_options).
    ///
    /// Each channel has its own connections and measurements, so create one and clone it. The name
    /// is looked up as described at [`Selection::name`]. If no application can have the name, each
    /// call fails with `INVALID_ARGUMENT`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(feature = "tonic")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
    pub fn channel(&self, name: impl AsRef<str>) -> Channel {
        self.channel_with(name, self.call_options())
    }

    /// Creates a channel as [`channel`](Self::channel) does, with these options.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(feature = "tonic")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
    pub fn channel_with(&self, name: impl AsRef<str>, options: CallOptions) -> Channel {
        let (registry, ready_timeout) = self.call_registry();
        let options = self.with_own_zone(options);
        let channel = Channel::new(name.as_ref(), registry, options, ready_timeout, self.instance_transport());
        self.0.clients.add(channel.as_client());
        channel
    }

    /// Returns the options of calls by name that the settings describe: those below
    /// `spring.cloud.loadbalancer`. They are the default options without such settings.
    pub fn call_options(&self) -> CallOptions {
        self.0.options.clone()
    }

    /// Adds the zone of this process to options that the user made.
    fn with_own_zone(&self, options: CallOptions) -> CallOptions {
        options.or_own_zone_of(&self.0.options)
    }

    /// Returns the cache and the ready timeout of calls by name.
    pub(crate) fn call_registry(&self) -> (Arc<RegistryCache>, Duration) {
        let config = &self.0.config;
        // Without fetches no further instance can ever appear.
        let is_off = config.switches.fetch_off().is_some() && config.offline.instances.is_empty();
        let timeout = if is_off { Duration::ZERO } else { config.ready_timeout };
        (self.registry(), timeout)
    }

    /// Returns the registry as it was last fetched. It is empty until the first fetch has
    /// succeeded.
    ///
    /// Never waits. Starts the refresh if nothing else has started it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.registry().snapshot()
    }

    /// Returns the operations of the registry servers as typed calls, for tasks that the rest of
    /// the client does not cover.
    pub fn transport(&self) -> &Transport {
        &self.0.transport
    }

    /// Returns the list of the clients, to which others are added.
    pub(crate) fn clients(&self) -> Arc<Clients> {
        self.0.clients.clone()
    }

    fn registry(&self) -> Arc<RegistryCache> {
        let mut registry = self.0.registry.lock();
        match &*registry {
            Some(running) if running.is_running() || running.is_closed() => running.clone(),
            _ => match self.0.config.switches.fetch_off() {
                None => {
                    let transport = self.0.for_fetches.as_ref().unwrap_or(&self.0.transport);
                    let started = RegistryCache::start(transport.clone(), &self.0.config);
                    let clients = self.0.clients.clone();
                    for name in clients.preloaded() {
                        Selection::name(&name).lookups().iter().for_each(|lookup| started.keep(lookup));
                    }
                    started.on_idle(move |idle| clients.drop_idle(idle));
                    registry.insert(started).clone()
                }
                Some(setting) => {
                    let cause = format!("fetching is disabled by {setting}");
                    let reason = Error::new(Kind::Config, "fetch registry").cause(cause);
                    registry.insert(RegistryCache::without_fetches(reason, &self.0.config)).clone()
                }
            },
        }
    }
}

impl fmt::Debug for Eureka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eureka").field("transport", &self.0.transport).finish()
    }
}

type BuildStack = Box<dyn FnOnce(&ClientConfig) -> HttpStack + Send>;

/// Builder of a [`Eureka`] client. Created by [`Eureka::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct EurekaBuilder {
    config: ClientConfig,
    /// Called by `build`, since the stack takes its limits from the settings.
    stack: Option<BuildStack>,
    /// First error of a setting. Returned by `build`.
    error: Option<Error>,
    /// True if the default URL is used when no service URL is set.
    default_url: bool,
    /// True while the service URLs come from settings.
    urls_from_settings: bool,
    security: Security,
    /// Settings of calls by name.
    balancing: Balancing,
    /// Static instances of the settings.
    simple: offline::SimpleInstances,
    /// Takes the place of connections to instances.
    instance_service: Option<InstanceService>,
}

impl EurekaBuilder {
    /// Creates a builder with the settings of the environment variables that Spring applications
    /// use, as [`Eureka::builder_from`] does. Later calls of the builder override them. Files are
    /// not read.
    ///
    /// # Errors
    /// If a variable has an invalid value. If the environment switches the client off, another
    /// invalid value is an error of [`build`](Self::build) instead, and only if the code switches
    /// the client on again.
    pub fn from_env() -> Result<Self, Error> {
        let settings =
            Settings::from_env().map_err(|error| Error::new(Kind::Config, "read settings").cause(error.to_string()))?;
        Eureka::builder_from(&settings)
    }

    /// Adds a registry server, such as `http://localhost:8761/eureka/`, or several, separated by
    /// commas. [`build`](Self::build) returns the error of an invalid URL.
    ///
    /// An operation tries at most three servers, beginning with the one that responded last. The
    /// order of the servers is random, so that many clients spread over them, unless
    /// [`shuffle_servers`](Self::shuffle_servers) is `false`. About every 20 minutes another server
    /// is preferred; see [`session_duration`](Self::session_duration). The servers are those of the
    /// zone `defaultZone`; see [`zone_url`](Self::zone_url).
    ///
    /// Credentials are part of the URL: `http://user:password@host/eureka/`. Percent-encode each of
    /// their characters that is not a letter or digit.
    ///
    /// The first call replaces the servers of the settings. Further calls add servers.
    pub fn service_url(mut self, urls: impl AsRef<str>) -> Self {
        self.replace_settings();
        match ServiceUrl::parse_list(urls.as_ref()) {
            Ok(urls) => ServiceUrl::merge(&mut self.config.service_urls, urls),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// Switches the whole client on or off. Defaults to `true`.
    ///
    /// A client that is off sends nothing: its registrars only serve and drain, its registry stays
    /// empty, and calls by name fail at once with an error that names the setting. Service URLs are
    /// not checked. [`Eureka::transport`] still works.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.config.switches.client = (!enabled).then_some("enabled(false)".into());
        self
    }

    /// Switches the registration of instances on or off. Defaults to `true`.
    ///
    /// If it is off, registrars serve and drain, but send nothing.
    pub fn register_with_eureka(mut self, register: bool) -> Self {
        self.config.switches.registration = (!register).then_some("register_with_eureka(false)".into());
        self
    }

    /// Switches fetches of the registry on or off. Defaults to `true`.
    ///
    /// If they are off, only [static instances](Self::static_instances) are known. Calls to other
    /// names fail at once with an error that names the setting.
    pub fn fetch_registry(mut self, fetch: bool) -> Self {
        self.config.switches.fetch = (!fetch).then_some("fetch_registry(false)".into());
        self
    }

    /// Sets the time between two fetches of the registry, which varies by up to a tenth. Defaults
    /// to 30 seconds.
    ///
    /// With more than 90 seconds each fetch is a full one, unless the server sends digests.
    pub fn fetch_interval(mut self, interval: Duration) -> Self {
        self.config.fetch_interval = interval;
        self
    }

    /// Sets whether deltas are fetched instead of the full registry where possible. Defaults to
    /// `true`.
    pub fn delta(mut self, delta: bool) -> Self {
        self.config.delta = delta;
        self
    }

    /// Sets the maximum time to connect to a registry server, including the TLS handshake. Defaults
    /// to 5 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// Sets the maximum time that a registry server may take to respond once connected, and the
    /// maximum pause within its response. A whole body may take eight times as long. Defaults to 8
    /// seconds.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.config.read_timeout = timeout;
        self
    }

    /// Sets the time after which an idle connection to a registry server is closed. Defaults to 45
    /// seconds. Each connection is closed after about five minutes in any case.
    ///
    /// Spring `eureka.client.eureka-connection-idle-timeout-seconds`.
    pub fn connection_idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = timeout;
        self
    }

    /// Sets the maximum size of a response of a registry server, in bytes after decompression.
    /// Defaults to 256 MiB.
    ///
    /// A list of instances is decoded while it arrives. What is decoded may take seven sixteenths
    /// of this limit in memory (112 MiB by default), or 4 KiB for each instance that was known
    /// before if that is more, but not more than the limit. Other responses are limited to 64 MiB.
    /// A response that exceeds a limit counts as failed, and the next server is tried.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.config.body_limit = bytes;
        self
    }

    /// Sets the maximum time that a call waits for an application without instances. Defaults to 3
    /// seconds.
    ///
    /// If it passes without an instance, the call fails, and later calls fail at once until there
    /// is an instance. Zero fails at once.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.config.ready_timeout = timeout;
        self
    }

    /// Sets the maximum time to connect to an instance, including the TLS handshake, before another
    /// instance is tried. Defaults to 2 seconds.
    pub fn instance_connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.instance_connect_timeout = timeout;
        self
    }

    /// Replaces the HTTP service that sends requests to registry servers, for example to use
    /// another kind of proxy.
    ///
    /// Decompression, credentials, redirects and the limits of size and time stay in effect above
    /// the service. The service itself is responsible for the connect timeout, for TLS, for
    /// proxies, and for the age of its connections, which the built-in service closes after about
    /// five minutes. If it panics, the operation fails.
    ///
    /// A request that follows a redirect reaches the service as well, with the URI of the other
    /// host and without the credentials of this builder. A service that adds credentials of its own
    /// must compare the host.
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

    /// Builds the client. Nothing is sent yet.
    ///
    /// Does not wait for a [required](Self::require_registry) registry, as [`start`](Self::start)
    /// does.
    ///
    /// # Errors
    /// If a setting is invalid, no service URL was set, or an interval or timeout is zero. Only the
    /// [`ready_timeout`](Self::ready_timeout) may be zero.
    pub fn build(self) -> Result<Eureka, Error> {
        if self.config.offline.required_within.is_some() && self.config.switches.fetch_off().is_none() {
            tracing::warn!("the registry is required, but build() does not wait for it: call start() instead");
        }
        self.build_client()
    }

    fn build_client(self) -> Result<Eureka, Error> {
        let mut config = self.config;
        let enabled = config.switches.client.is_none();
        if let Some(error) = self.error.filter(|_| enabled) {
            return Err(error);
        }
        if !enabled {
            config.servers = ServerSettings::default();
        }
        config.servers.check()?;
        config.offline.check()?;
        offline::add_simple_instances(&mut config, &self.simple)?;
        let servers = servers::list(&config, self.default_url || !enabled)?;
        config.service_urls = servers.iter().map(|server| server.url.clone()).collect();
        let invalid = |cause: &str, advice| Err(Error::new(Kind::Config, "build client").cause(cause).advice(advice));
        let times =
            [config.fetch_interval, config.connect_timeout, config.read_timeout, config.instance_connect_timeout];
        if times.contains(&Duration::ZERO) {
            return invalid("an interval or timeout is zero", "set each to a positive duration");
        }
        if enabled {
            interest::prepare(&mut config)?;
            self.security.apply(&mut config, self.stack.is_some())?;
        }
        if self.stack.is_none()
            && enabled
            && let Some(secure) = config.service_urls.iter().find(|url| url.is_secure())
        {
            config.tls.check().map_err(|why| {
                Error::new(Kind::Config, "build client")
                    .server(secure.as_str().clone())
                    .cause(format!("HTTPS is not available: {why}"))
                    .advice("or pass an HTTP service with TLS to http_service()")
            })?;
        }
        let stack = self.stack.map_or_else(|| HttpStack::hyper(&config), |build| build(&config));
        let (transport, for_fetches) = servers::transports(&config.servers, servers, &stack);
        let regions = config.regions.names();
        let (transport, for_fetches) =
            (transport.with_regions(regions), for_fetches.map(|transport| transport.with_regions(regions)));
        let mut balancing = self.balancing;
        let eager = std::mem::take(&mut balancing.eager);
        balancing.or_own_zone(config.servers.zones.configured_zone());
        if enabled && balancing.lacks_zone() {
            tracing::warn!(
                "zone-preference has no effect: the own zone is unknown (set eureka.instance.metadata-map.zone or \
                spring.cloud.loadbalancer.zone, or pass the instance to CallOptions::caller)"
            );
        }
        let options = balancing.options();
        let (registry, chooser, instance_service) = (Mutex::default(), Mutex::default(), self.instance_service);
        let (clients, registrars) = (Arc::<Clients>::default(), Registrars::default());
        clients.preload(eager);
        Ok(Eureka(Arc::new(Inner {
            transport,
            for_fetches,
            config,
            registry,
            options,
            instance_service,
            chooser,
            clients,
            registrars,
        })))
    }
}

impl fmt::Debug for EurekaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, error, security, .. } = self;
        f.debug_struct("EurekaBuilder")
            .field("config", config)
            .field("security", security)
            .field("error", error)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the servers of a client that is built from this variable and these calls.
    fn servers(variable: Option<&str>, calls: &[&str]) -> String {
        let variables = variable.map(|urls| ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", urls));
        let settings = Settings::builder().environment(variables).without_files().load().unwrap();
        let builder = Eureka::builder_from(&settings).unwrap();
        let eureka = calls.iter().fold(builder, |builder, url| builder.service_url(url)).build().unwrap();
        let servers = eureka.registry_servers();
        servers
            .iter()
            .map(|server| server.url().to_owned())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn service_url_in_code_replaces_those_of_the_environment() {
        for variable in [None, Some("http://env/eureka/"), Some("http://a/,http://env/")] {
            assert_eq!(servers(variable, &["http://a/"]), "http://a/");
            assert_eq!(servers(variable, &["http://a/", "http://b/,http://a/"]), "http://a/, http://b/");
        }
        assert_eq!(servers(None, &[]), "http://localhost:8761/eureka/");
        assert_eq!(servers(Some("http://env/eureka"), &[]), "http://env/eureka/");
    }
}
