//! Servers that are registered in one call.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;
use tower_eureka::Instance;
use tower_eureka::register::Registrar;
use tower_eureka::tonic::{Services, serve, serve_registered};

use crate::world::World;

/// Generated service that responds to each call without a message.
#[derive(Clone)]
struct Inventory;

impl NamedService for Inventory {
    const NAME: &'static str = "inventory.Inventory";
}

impl Service<http::Request<Body>> for Inventory {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let response = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
        ready(Ok(response.body(Body::empty()).unwrap()))
    }
}

/// Server that runs until `stop` is dropped.
struct Running {
    port: u16,
    health: HealthClient<tonic::transport::Channel>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    async fn start(world: &World) -> Self {
        Self::start_with(world, |registrar| registrar).await
    }

    async fn start_with(world: &World, set: impl FnOnce(Registrar) -> Registrar) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hour = Duration::from_secs(3600);
        let registrar = world.registrar("grpc-1", port).quiet_time(hour).max_drain(hour).shutdown_timeout(2 * hour);
        let registrar = set(registrar);
        let (stop, stopped) = oneshot::channel::<()>();
        let services = Services::from(Inventory).health_of("inventory");
        let serving = tokio::spawn(serve(registrar, async { drop(stopped.await) }, listener, services));
        let endpoint = tonic::transport::Endpoint::try_from(format!("http://127.0.0.1:{port}")).unwrap();
        let health = HealthClient::new(endpoint.connect().await.unwrap());
        Self { port, health, stop: Some(stop), serving }
    }

    async fn check(&mut self, service: &str) -> Result<ServingStatus, Code> {
        let request = HealthCheckRequest { service: service.into() };
        self.health.check(request).await.map(|response| response.get_ref().status()).map_err(|status| status.code())
    }

    /// Returns the status and the content of a page.
    async fn page(&self, path: &str) -> (u16, String) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let response = client.get(format!("http://127.0.0.1:{}{path}", self.port).parse().unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap())
    }

    async fn call(&self) {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Empty<Bytes>>();
        let request = http::Request::post(format!("http://127.0.0.1:{}/inventory.Inventory/Get", self.port));
        let response = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "0");
    }

    async fn watch(&mut self) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
        let request = HealthCheckRequest { service: Inventory::NAME.into() };
        self.health.watch(request).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn services_are_not_serving_from_the_signal_on_while_calls_are_still_served() {
    let world = World::new().await;
    let mut server = Running::start(&world).await;
    for service in ["", "inventory", Inventory::NAME] {
        assert_eq!(server.check(service).await, Ok(ServingStatus::Serving), "{service}");
    }
    assert_eq!(server.check("prices").await, Err(Code::NotFound));
    assert_eq!(server.page("/actuator/health/liveness").await.0, 200, "over HTTP/1.1 at the same port");
    let (status, health) = server.page("/actuator/health").await;
    assert!(status == 200 && health.starts_with(r#"{"status":"UP","#), "{status} {health}");
    server.call().await;
    world.sees(1).await;

    let mut watch = server.watch().await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    drop(server.stop.take());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    for service in ["", "inventory", Inventory::NAME] {
        assert_eq!(server.check(service).await, Ok(ServingStatus::NotServing), "{service}");
    }
    world.sees_no_up().await;
    assert_eq!(server.page("/actuator/health").await.0, 503);
    server.call().await;
    assert!(!server.serving.is_finished());
    server.serving.abort();
}

#[tokio::test]
async fn services_are_serving_once_the_instance_is_ready() {
    let world = World::new().await;
    let (ready, is_ready) = oneshot::channel::<()>();
    let mut server = Running::start_with(&world, |registrar| {
        registrar.ready_when(async { is_ready.await.map_err(|_| "the sender was dropped") })
    })
    .await;
    let mut watch = server.watch().await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(server.page("/actuator/health/readiness").await.0, 503);
    ready.send(()).unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(server.page("/actuator/health/readiness").await.0, 200);
    server.serving.abort();
}

#[tokio::test]
async fn streams_of_the_health_service_end_with_the_server() {
    let world = World::new().await;
    let mut server = Running::start(&world).await;
    let mut watch = server.watch().await;
    // Only the health service was called, so nothing is drained.
    drop(server.stop.take());
    while watch.message().await.unwrap().is_some() {}
    server.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn server_is_registered_in_one_call_with_the_port_for_grpc() {
    let world = World::new().await;
    for (published, own, expected) in
        [(None, None, None), (None, Some("9090"), Some("9090")), (Some(8443), None, Some("8443"))]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut instance = Instance::builder("inventory").ip_addr("127.0.0.1");
        if let Some(own) = own {
            instance = instance.metadata("gRPC_port", own);
        }
        if let Some(published) = published {
            instance = instance.port(published);
        }
        let port = published.unwrap_or(port);
        let eureka = world.eureka.clone();
        let serving = tokio::spawn(async move { serve_registered(&eureka, instance, listener, Inventory).await });
        world.sees(1).await;
        let snapshot = world.eureka.snapshot();
        let instance = &snapshot.application("inventory").unwrap().instances[0];
        assert_eq!(instance.port().number, i32::from(port));
        let port = port.to_string();
        assert_eq!(instance.metadata().get("gRPC_port"), Some(expected.unwrap_or(&port)));
        assert!(instance.health_check_url().is_some_and(|url| url.ends_with(&format!(":{port}/actuator/health"))));
        serving.abort();
        world.sees(0).await;
    }
}

#[tokio::test]
async fn invalid_instance_is_an_error_that_names_the_cause() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = serve_registered(&world.eureka, Instance::builder("all apps"), listener, Inventory).await.unwrap_err();
    assert!(error.is_config() && error.to_string().starts_with("cannot register the server: "), "{error}");
}
