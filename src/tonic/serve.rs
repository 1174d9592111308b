use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use ::tonic::body::Body as GrpcBody;
use ::tonic::server::NamedService;
use ::tonic::service::Routes;
use ::tonic::transport::{Error as ServerError, Server};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tower::{BoxError, Service};

use crate::error::{Error, Kind};
use crate::eureka::Eureka;
use crate::eureka::bound::instance_at;
use crate::model::{GRPC_PORT_KEY, InstanceBuilder};
use crate::register::{HealthStatus, Registrar};
use crate::signal::shutdown_signal;

/// Name of the service that reports the health of the others.
const HEALTH_SERVICE: &str = "grpc.health.v1.Health";

/// gRPC services of one server, for [`serve_registered`] and [`serve`].
///
/// A single service is converted into it. Several ones are added one by one:
/// `Services::new().add_service(inventory).add_service(prices)`.
#[derive(Clone, Default)]
#[must_use = "services do nothing until they are served"]
pub struct Services {
    routes: Routes,
    names: Vec<Cow<'static, str>>,
    server: Server,
}

impl Services {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service that tonic generated.
    ///
    /// # Panics
    /// If a service of that name was added before.
    pub fn add_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<GrpcBody>, Response = Response<B>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.names.push(S::NAME.into());
        self.routes = self.routes.add_service(service);
        self
    }

    /// Adds a name that the health service reports like the name of a service, for clients that
    /// check an application by its own name.
    pub fn health_of(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Sets the settings of the server, such as time limits, keep-alive and TLS. Defaults to
    /// `Server::builder()`.
    ///
    /// HTTP/1.1 is accepted in any case, for the health and info pages.
    pub fn with_server(mut self, server: Server) -> Self {
        self.server = server;
        self
    }
}

impl<S, B> From<S> for Services
where
    S: Service<Request<GrpcBody>, Response = Response<B>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn from(service: S) -> Self {
        Self::new().add_service(service)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.names).finish()
    }
}

/// Runs gRPC services, registered as this instance, until SIGTERM or Ctrl-C.
///
/// The port of the instance is that of the listener, unless the instance has one, for example
/// because ports are mapped. The metadata has the registered port as `gRPC_port` too, where
/// [`Channel`](super::Channel) and Spring's gRPC starters look for it, unless the instance has that
/// key. Set the key if the port of the instance belongs to another server. Everything else is as
/// described at [`serve`].
///
/// ```no_run
/// # use tonic_health::pb::health_server::{Health, HealthServer};
/// use tower_eureka::{Eureka, Instance};
///
/// # async fn example<H: Health>(inventory: HealthServer<H>) -> Result<(), Box<dyn std::error::Error>> {
/// let eureka = Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
/// let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
/// tower_eureka::tonic::serve_registered(&eureka, Instance::builder("inventory"), listener, inventory).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the instance is invalid, the listener has no address, or the server fails.
///
/// # Panics
/// Outside a tokio runtime with time and IO enabled.
///
/// # Cancel safety
/// If the future is dropped, the server is dropped and the registration is deleted in the
/// background.
pub async fn serve_registered(
    eureka: &Eureka,
    instance: InstanceBuilder,
    listener: TcpListener,
    services: impl Into<Services>,
) -> Result<(), Error> {
    let mut instance = instance_at(instance, &listener)?;
    if instance.metadata().get(GRPC_PORT_KEY).is_none() {
        let port = if instance.port().enabled { instance.port() } else { instance.secure_port() };
        instance.metadata.insert(GRPC_PORT_KEY, port.number.to_string());
    }
    let served = serve(eureka.registrar(instance), shutdown_signal(), listener, services).await;
    served.map_err(|error| Error::new(Kind::Closed, "cannot serve").cause(error.to_string()).with_source(error))
}

/// Runs gRPC services, registered by this registrar, until `signal` completes.
///
/// The server has the registrar's layer, and accepts HTTP/1.1 as well, so that Java callers can
/// read the health and info pages at the same port. It also has the standard health service, unless
/// `services` contains one: each service and the server as a whole (`""`) are `SERVING` while the
/// instance is ready and its [health checks](Registrar::health) succeed. They are `NOT_SERVING`
/// from the signal on, before the drain begins. Once the server has to stop accepting, the streams
/// of the health service end.
///
/// # Errors
/// If the server fails.
///
/// # Panics
/// Outside a tokio runtime with time and IO enabled.
///
/// # Cancel safety
/// If the future is dropped, the server is dropped and the registration is deleted in the
/// background.
pub async fn serve(
    registrar: Registrar,
    signal: impl Future<Output = ()>,
    listener: TcpListener,
    services: impl Into<Services>,
) -> Result<(), ServerError> {
    let Services { mut routes, names, server } = services.into();
    let (reporter, health) = health_reporter();
    let reported = GrpcHealth { reporter, names };
    if !reported.names.iter().any(|name| name == HEALTH_SERVICE) {
        routes = routes.add_service(health);
    }
    let (left, mut changes) = (AtomicBool::new(false), registrar.health_changes());
    let (reported, left) = (&reported, &left);
    reported.set(reported.status(&registrar)).await;
    let signal = async {
        signal.await;
        left.store(true, Ordering::Relaxed);
        reported.set(ServingStatus::NotServing).await;
    };
    let (layer, health) = (registrar.layer(), registrar.clone());
    let follow_health = async move {
        while changes.changed().await.is_ok() && !left.load(Ordering::Relaxed) {
            reported.set(reported.status(&health)).await;
        }
    };
    let server = server.accept_http1(true).layer(layer).add_routes(routes);
    let serve = |stop| async move {
        let stop = async {
            let () = stop.await;
            // The server waits for its streams, and those of the health service never end.
            reported.clear().await;
        };
        let served = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop);
        let (mut served, mut follow_health) = (pin!(served), pin!(follow_health));
        tokio::select! {
            biased;
            output = &mut served => output,
            () = &mut follow_health => served.await,
        }
    };
    registrar.serve(signal, serve).await
}

/// Health of all services, as the health service reports it.
struct GrpcHealth {
    reporter: HealthReporter,
    names: Vec<Cow<'static, str>>,
}

impl GrpcHealth {
    /// Returns the names of the services and of the server as a whole.
    fn all(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name).chain([""])
    }

    /// Returns the status that follows from the readiness and the health checks.
    fn status(&self, registrar: &Registrar) -> ServingStatus {
        match registrar.health_report().readiness {
            HealthStatus::Up => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        }
    }

    async fn set(&self, status: ServingStatus) {
        for name in self.all() {
            self.reporter.set_service_status(name, status).await;
        }
    }

    async fn clear(&self) {
        let mut reporter = self.reporter.clone();
        for name in self.all() {
            reporter.clear_service_status(name).await;
        }
    }
}
