use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body as ServerBody;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower::{BoxError, Service, ServiceExt};

use super::Fault;
use super::fault::{self, Body};
use crate::model::{Instance, InstanceStatus};
use crate::server::{Eviction, RegistryService};
use crate::sync::Mutex;
use crate::transport::RequestBody;
use crate::{Eureka, EurekaBuilder, EurekaServer};

const URL: &str = "http://registry.test/eureka/";
const MOUNT: &str = "/eureka";
const FETCH_INTERVAL: Duration = Duration::from_secs(1);
/// Leases do not expire during a test.
const EVICTION_INTERVAL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Registry for tests: an [`EurekaServer`] that its clients reach without a socket.
///
/// It works on paused time (`#[tokio::test(start_paused = true)]`), so that a test of an outage of
/// ten minutes takes milliseconds. Clones share the registry. A client sees a change at its next
/// fetch: within about a second, or at once with [`Eureka::refresh`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use tower_eureka::{Instance, testing::TestRegistry};
/// let registry = TestRegistry::new();
/// let eureka = registry.client().build()?;
/// registry.insert(Instance::builder("orders").id("orders-1").ip_addr("10.0.0.1").port(80).build()?);
/// eureka.refresh().await?;
/// assert_eq!(eureka.instances("orders")[0].id(), "orders-1");
/// # Ok(())
/// # }
/// ```
///
/// Leases do not expire: an instance is listed until it is [removed](Self::remove), or until its
/// [`Registrar`](crate::register::Registrar) deletes it.
#[derive(Clone)]
pub struct TestRegistry(Arc<Inner>);

struct Inner {
    server: EurekaServer,
    service: RegistryService,
    /// Responds to fetches during [`Fault::Empty`].
    empty: RegistryService,
    fault: Mutex<Fault>,
    requests: Mutex<Vec<(Method, Uri)>>,
}

impl TestRegistry {
    /// Creates a registry without instances.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[allow(clippy::new_without_default, reason = "it needs a runtime")]
    pub fn new() -> Self {
        let server = || {
            let builder = EurekaServer::builder().eviction(Eviction::new().interval(EVICTION_INTERVAL));
            builder.build().expect("the settings are valid, and a tokio runtime runs")
        };
        let (server, empty) = (server(), server().service(MOUNT));
        let service = server.service(MOUNT);
        Self(Arc::new(Inner { server, service, empty, fault: Mutex::default(), requests: Mutex::default() }))
    }

    /// Returns the builder of a client of this registry, which fetches it every second.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_eureka::{Instance, testing::TestRegistry};
    /// let registry = TestRegistry::new();
    /// let eureka = registry.client().build()?;
    /// let orders = Instance::builder("orders").id("orders-1").ip_addr("10.0.0.1").port(80).build()?;
    /// let registrar = eureka.registrar(orders);
    /// registrar.register().await?;
    /// assert_eq!(eureka.ready_for("orders").await?[0].id(), "orders-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn client(&self) -> EurekaBuilder {
        let transport = InProcess(self.0.clone());
        Eureka::builder().service_url(URL).fetch_interval(FETCH_INTERVAL).http_service(transport)
    }

    /// Registers an instance, or replaces the one with the same id.
    ///
    /// Its `lastDirtyTimestamp` becomes the present time, so clients take a replacement for a
    /// restart. A status of [`set_status`](Self::set_status) stays in force.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_eureka::{Instance, testing::TestRegistry};
    /// let registry = TestRegistry::new();
    /// registry.insert(Instance::builder("orders").ip_addr("10.0.0.1").port(80).build()?);
    /// registry.insert(Instance::builder("orders").ip_addr("10.0.0.2").port(80).build()?);
    /// assert_eq!(registry.client().build()?.ready_for("orders").await?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the instance exceeds a limit of the registry, such as 1,000 instances of an application.
    pub fn insert(&self, instance: Instance) {
        if let Err(cause) = self.0.server.insert(instance) {
            panic!("{cause}");
        }
    }

    /// Deletes an instance. Does nothing if there is none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_eureka::{Instance, testing::TestRegistry};
    /// # let registry = TestRegistry::new();
    /// # let eureka = registry.client().build()?;
    /// registry.insert(Instance::builder("orders").id("orders-1").ip_addr("10.0.0.1").port(80).build()?);
    /// assert_eq!(eureka.ready_for("orders").await?.len(), 1);
    /// registry.remove("orders", "orders-1");
    /// eureka.refresh().await?;
    /// assert!(eureka.instances("orders").is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove(&self, app: &str, id: &str) {
        self.0.server.remove(app, id);
    }

    /// Sets the status of an instance, as an operator does by an override. Does nothing if there is
    /// no such instance.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_eureka::{Instance, model::InstanceStatus, testing::TestRegistry};
    /// # let registry = TestRegistry::new();
    /// # let eureka = registry.client().build()?;
    /// registry.insert(Instance::builder("orders").id("orders-1").ip_addr("10.0.0.1").port(80).build()?);
    /// registry.set_status("orders", "orders-1", InstanceStatus::OutOfService);
    /// eureka.refresh().await?;
    /// assert!(eureka.instances("orders").is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_status(&self, app: &str, id: &str, status: InstanceStatus) {
        self.0.server.set_status(app, id, status);
    }

    /// Sets the fault of all requests from now on, until another one is set.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_eureka::testing::{Fault, TestRegistry};
    /// let registry = TestRegistry::new();
    /// let eureka = registry.client().build()?;
    /// registry.fault(Fault::Down);
    /// assert!(eureka.refresh().await.unwrap_err().is_connect());
    /// registry.fault(Fault::None);
    /// assert!(eureka.refresh().await.is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the status of [`Fault::Status`] is not between 100 and 999.
    pub fn fault(&self, fault: Fault) {
        if let Fault::Status(status) = fault {
            StatusCode::from_u16(status).expect("the status is between 100 and 999");
        }
        *self.0.fault.lock() = fault;
    }

    /// Returns the requests so far, also those that met a fault.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_eureka::testing::TestRegistry;
    /// let registry = TestRegistry::new();
    /// registry.client().build()?.refresh().await?;
    /// let (method, uri) = &registry.requests()[0];
    /// assert_eq!((method.as_str(), uri.path()), ("GET", "/eureka/apps/"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn requests(&self) -> Vec<(Method, Uri)> {
        self.0.requests.lock().clone()
    }
}

impl fmt::Debug for TestRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { server, fault, .. } = &*self.0;
        f.debug_struct("TestRegistry").field("server", server).field("fault", &fault.lock()).finish()
    }
}

impl Inner {
    async fn respond(&self, request: Request<RequestBody>) -> Result<Response<Body>, BoxError> {
        self.requests.lock().push((request.method().clone(), request.uri().clone()));
        let fault = *self.fault.lock();
        match fault {
            Fault::None => {}
            Fault::Down => return Err(fault::refused()),
            Fault::Hang => pending().await,
            Fault::Status(status) => return Ok(fault::status(StatusCode::from_u16(status)?)),
            Fault::Garbage => return Ok(fault::page()),
            Fault::Empty if request.method() == Method::GET => return Ok(unchanged(send(&self.empty, request).await?)),
            Fault::Empty => {}
            Fault::Half => return Ok(fault::half(read(send(&self.service, request).await?).await?)),
            Fault::WrongHash => return Ok(fault::wrong_hash(self.readable(request).await?)),
            Fault::Delay(time) => sleep(time).await,
        }
        Ok(unchanged(send(&self.service, request).await?))
    }

    /// Returns the complete response, not compressed.
    async fn readable(&self, mut request: Request<RequestBody>) -> Result<Response<Bytes>, BoxError> {
        request.headers_mut().remove(header::ACCEPT_ENCODING);
        request.headers_mut().remove(header::IF_NONE_MATCH);
        read(send(&self.service, request).await?).await
    }
}

async fn send(service: &RegistryService, request: Request<RequestBody>) -> Result<Response<ServerBody>, BoxError> {
    Ok(service.clone().oneshot(request.map(ServerBody::new)).await?)
}

async fn read(response: Response<ServerBody>) -> Result<Response<Bytes>, BoxError> {
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
}

fn unchanged(response: Response<ServerBody>) -> Response<Body> {
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Transport to the registry in this process.
#[derive(Clone)]
struct InProcess(Arc<Inner>);

impl Service<Request<RequestBody>> for InProcess {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move { inner.respond(request).await })
    }
}
