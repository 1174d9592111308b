//! A registry, a client of it, and scripted gRPC servers.

use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{IntervalStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_eureka::client::CallOptions;
use tower_eureka::register::Registrar;
use tower_eureka::tonic::Channel;
use tower_eureka::{Error, Eureka, EurekaServer, Instance};

pub(crate) const TICK: Duration = Duration::from_millis(5);

/// An embedded registry and a client of it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) registry: EurekaServer,
    pub(crate) eureka: Eureka,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_ready_timeout(Duration::from_secs(20)).await
    }

    pub(crate) async fn with_ready_timeout(timeout: Duration) -> Self {
        let registry = EurekaServer::builder().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/eureka/", listener.local_addr().unwrap());
        let router = Router::new().nest("/eureka", registry.router());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let builder = Eureka::builder().service_url(url).fetch_interval(Duration::from_millis(50));
        Self { registry, eureka: builder.ready_timeout(timeout).build().unwrap() }
    }

    pub(crate) fn client(&self) -> HealthClient<Channel> {
        HealthClient::new(self.eureka.channel("inventory"))
    }

    pub(crate) fn client_with(&self, options: CallOptions) -> HealthClient<Channel> {
        HealthClient::new(self.eureka.channel_with("inventory", options))
    }

    /// Waits until the client's cache has this number of instances.
    pub(crate) async fn sees(&self, count: usize) {
        while self.eureka.snapshot().instance_count() != count {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Waits until the client's cache has instances, but none that is UP.
    #[cfg(feature = "tonic-server")]
    pub(crate) async fn sees_no_up(&self) {
        let is_up = |instance: &Arc<Instance>| instance.status() == tower_eureka::model::InstanceStatus::Up;
        loop {
            let snapshot = self.eureka.snapshot();
            if snapshot.instance_count() > 0 && !snapshot.applications().flat_map(|app| &app.instances).any(is_up) {
                return;
            }
            tokio::time::sleep(TICK).await;
        }
    }

    pub(crate) fn registrar(&self, id: &str, port: u16) -> Registrar {
        let instance = Instance::builder("inventory").id(id).ip_addr("127.0.0.1").port(port).build().unwrap();
        self.eureka.registrar(instance).quiet_time(Duration::from_millis(300))
    }

    pub(crate) async fn register(&self, id: &str, port: u16) {
        self.eureka.transport().register(&self.registrar(id, port).instance()).await.unwrap();
    }

    /// Starts and registers a server. It stops when the returned sender is dropped.
    pub(crate) async fn serve(
        &self,
        stub: Stub,
    ) -> (oneshot::Sender<()>, JoinHandle<Result<(), tonic::transport::Error>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registrar = self.registrar(stub.id, listener.local_addr().unwrap().port());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder().layer(registrar.layer()).add_service(HealthServer::new(stub));
        let serving = tokio::spawn(registrar.serve(async { drop(stopped.await) }, |shutdown| {
            server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown)
        }));
        (stop, serving)
    }
}

/// Behaviour of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Does {
    /// Responds to checks, and to watches with an endless stream.
    Serve,
    /// Sends no response, or nothing after the first message of a stream.
    Hang,
    /// Fails checks in the head, and watches in the trailers.
    Fail,
    /// Ends watches after one message.
    End,
}

/// Health service that names its instance in the response metadata.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) id: &'static str,
    pub(crate) does: Does,
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) timeouts: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    pub(crate) fn new(id: &'static str, does: Does) -> Self {
        Self { id, does, calls: Arc::default(), timeouts: Arc::default() }
    }

    pub(crate) fn called(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn record(&self, request: &Request<HealthCheckRequest>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(timeout) = request.metadata().get("grpc-timeout") {
            self.timeouts.lock().unwrap().push(timeout.to_str().unwrap().to_owned());
        }
    }

    pub(crate) fn response<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        response.metadata_mut().insert("instance", self.id.parse().unwrap());
        response
    }
}

pub(crate) fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: ServingStatus::Serving as i32 }
}

#[tonic::async_trait]
impl Health for Stub {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.record(&request);
        match self.does {
            Does::Hang => pending().await,
            Does::Fail => Err(Status::unavailable("scripted failure")),
            Does::Serve | Does::End => Ok(self.response(serving())),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.record(&request);
        let one = tokio_stream::once(Ok(serving()));
        Ok(self.response(match self.does {
            Does::Hang => Box::pin(one.chain(tokio_stream::pending())),
            Does::Fail => Box::pin(one.chain(tokio_stream::once(Err(Status::unavailable("scripted failure"))))),
            Does::End => Box::pin(one),
            Does::Serve => Box::pin(IntervalStream::new(tokio::time::interval(TICK)).map(|_| Ok(serving()))),
        }))
    }
}

pub(crate) fn instance_of<T>(response: &Response<T>) -> String {
    response.metadata().get("instance").unwrap().to_str().unwrap().to_owned()
}

pub(crate) async fn check(client: &mut HealthClient<Channel>) -> Result<String, Status> {
    client.check(HealthCheckRequest::default()).await.map(|response| instance_of(&response))
}

/// Reads a stream to its end. Returns the number of messages.
pub(crate) async fn watch(client: &mut HealthClient<Channel>) -> Result<usize, Status> {
    let mut stream = client.watch(HealthCheckRequest::default()).await?.into_inner();
    let mut messages = 0;
    while stream.message().await?.is_some() {
        messages += 1;
    }
    Ok(messages)
}

/// Returns the crate's error behind a status.
pub(crate) fn source(status: &Status) -> &Error {
    std::error::Error::source(status).and_then(|source| source.downcast_ref()).unwrap()
}

pub(crate) async fn refusing_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}
