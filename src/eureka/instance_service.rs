//! A service in the place of connections to instances.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::{BoxError, Service};

use super::{Eureka, EurekaBuilder};
use crate::client::{InstanceRequestBody, InstanceService, InstanceTransport};
use crate::connect::Connector;

impl EurekaBuilder {
    /// Sends the calls of HTTP clients, gRPC channels and `reqwest::Client` through this service
    /// instead of connections, so that tests need no socket and run on paused time.
    ///
    /// The service receives the request of each attempt, with the URI of the instance, as a server
    /// would. Balancing, retries, ejection and deadlines stay in effect above it. A router of axum
    /// or tonic is such a service, and so is a function:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// use std::convert::Infallible;
    ///
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::{BodyExt, Full};
    /// use tower_eureka::Eureka;
    /// use tower_eureka::client::InstanceRequestBody;
    ///
    /// let orders = tower::service_fn(async |request: Request<InstanceRequestBody>| {
    ///     Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(request.uri().to_string())))
    /// });
    /// let eureka = Eureka::builder()
    ///     .service_url("http://registry.test/eureka/")
    ///     .fetch_registry(false)
    ///     .static_instances("orders", ["http://10.0.0.1:8080"])
    ///     .instance_service(orders)
    ///     .build()?;
    /// let client = eureka.http_client::<Full<Bytes>>();
    /// let response = client.request(Request::get("http://orders/v1/42").body(Full::default())?).await?;
    /// assert_eq!(response.into_body().collect().await?.to_bytes(), "http://10.0.0.1:8080/v1/42");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// An [`io::Error`](std::io::Error) of the kind `ConnectionRefused`, returned before the body is
    /// read, stands for an instance that cannot be reached, and any other error for a lost
    /// connection. Probes of unreachable instances succeed at once. Health checks are sent through
    /// the service. Hosts that are not applications are called through it as well.
    ///
    /// It has no effect on the service below an [`EurekaLayer`](crate::client::EurekaLayer).
    pub fn instance_service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<InstanceRequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.instance_service = Some(InstanceService::new(service));
        self
    }
}

impl Eureka {
    /// Returns the way to the instances.
    pub(super) fn instance_transport(&self) -> InstanceTransport {
        let config = &self.0.config;
        let connector = Connector::new(config.instance_connect_timeout, &config.tls).names(&config.names);
        InstanceTransport { connector, service: self.0.instance_service.clone() }
    }

    /// Returns the service in the place of connections to instances.
    #[cfg(feature = "reqwest")]
    pub(crate) fn instance_service(&self) -> Option<InstanceService> {
        self.0.instance_service.clone()
    }
}
