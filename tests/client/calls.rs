//! Calls by name over real connections, to instances that refuse, die, leave or never existed.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower_eureka::balance::{Cause, Ejection, EndpointState};
use tower_eureka::client::{CallOptions, HttpClient, WaitForReady};
use tower_eureka::{Error, Eureka, EurekaServer, Instance};

use crate::common::listen;

type Client = HttpClient<Full<Bytes>>;

/// An embedded registry and a client of it.
struct World {
    eureka: Eureka,
    client: Client,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/eureka/", listener.local_addr().unwrap());
        let router = Router::new().nest("/eureka", EurekaServer::builder().build().unwrap().router());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let eureka = Eureka::builder()
            .service_url(url)
            .fetch_interval(Duration::from_millis(50))
            .ready_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let client = eureka.http_client();
        Self { eureka, client }
    }

    async fn register(&self, app: &str, id: &str, port: u16) {
        let instance = Instance::builder(app).id(id).ip_addr("127.0.0.1").port(port).build().unwrap();
        self.eureka.transport().register(&instance).await.unwrap();
    }

    /// Waits until the client's cache has this number of instances.
    async fn sees(&self, count: usize) {
        while self.eureka.snapshot().instance_count() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Registers a server that responds with its id and the request body.
    async fn instance(&self, app: &str, id: &'static str) -> JoinHandle<()> {
        let (listener, port) = listen().await;
        let router = Router::new().fallback(any(async move |body: Bytes| [Bytes::from(id), body].concat()));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        self.register(app, id, port).await;
        server
    }

    async fn call(&self, method: Method, uri: &str, body: &'static str) -> Result<String, Error> {
        let request = Request::builder().method(method).uri(uri).body(Full::from(body)).unwrap();
        let response = self.client.clone().oneshot(request).await?;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }
}

async fn refusing_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn calls_with_refusing_instances_succeed_at_another() {
    let world = World::new().await;
    let _a = world.instance("orders", "a").await;
    for id in ["dead-1", "dead-2"] {
        world.register("orders", id, refusing_port().await).await;
    }
    world.sees(3).await;
    for _ in 0..100 {
        assert_eq!(world.call(Method::GET, "http://orders/x?y=1", "").await.unwrap(), "a");
        // Nothing was sent, so a POST is sent to another instance as well, with its body.
        assert_eq!(world.call(Method::POST, "http://Orders/", "-body").await.unwrap(), "a-body");
    }
}

#[tokio::test]
async fn call_with_all_instances_refusing_fails_with_instance_and_address() {
    let world = World::new().await;
    let port = refusing_port().await;
    world.register("orders", "dead", port).await;
    let error = world.call(Method::GET, "http://orders/", "").await.unwrap_err();
    assert!(error.is_connect() && error.instance_id() == Some("dead"), "{error}");
    let text = error.to_string();
    assert!(text.contains("ORDERS (dead)") && text.contains(&port.to_string()) && text.contains("refused"), "{text}");
}

#[tokio::test]
async fn request_whose_body_fails_ejects_no_instance() {
    let world = World::new().await;
    let _a = world.instance("orders", "a").await;
    world.sees(1).await;
    let options = CallOptions::new().ejection(Ejection::new().consecutive_failures(1));
    let client = world.eureka.http_client_with(options);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let frames = [Ok(Frame::data(Bytes::from("half"))), Err(io::Error::other("the disk is gone"))];
        let body = StreamBody::new(tokio_stream::iter(frames));
        let request = Request::post("http://orders/").version(version).body(body).unwrap();
        let error = client.request(request).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the body of the request failed") && !error.is_unavailable(), "{version:?}: {text}");
        assert_eq!(
            text.contains("the disk is gone"),
            version == Version::HTTP_11,
            "only hyper's HTTP/1.1 keeps the body's error: {text}"
        );
        let snapshot = &client.snapshots()[0];
        assert_eq!(snapshot.count(EndpointState::Available), 1, "{version:?}: {snapshot}");
    }
}

#[tokio::test]
async fn upgraded_connection_carries_another_protocol() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register("orders", "a", listener.local_addr().unwrap().port()).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let response = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(response.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    });
    let request = Request::get("http://orders/").header("connection", "upgrade").header("upgrade", "echo");
    let response = world.client.request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn call_of_an_unknown_application_fails_with_similar_names() {
    let world = World::new().await;
    let _a = world.instance("orders", "a").await;
    world.sees(1).await;
    let error = world.call(Method::GET, "http://ordres/", "").await.unwrap_err();
    assert!(error.is_no_endpoints() && error.is_unavailable());
    let text = error.to_string();
    assert!(text.contains("ORDRES") && text.contains("ORDERS"), "{text}");
}

#[tokio::test]
async fn call_before_the_first_instance_waits_for_it() {
    let world = World::new().await;
    let waiting = world.call(Method::GET, "http://orders/", "");
    let (response, _server) = tokio::join!(waiting, world.instance("orders", "late"));
    assert_eq!(response.unwrap(), "late");
}

#[tokio::test]
async fn call_without_instances_fails_until_one_registers() {
    let world = World::new().await;
    let _a = world.instance("orders", "a").await;
    assert_eq!(world.call(Method::GET, "http://orders/", "").await.unwrap(), "a");
    world.eureka.transport().cancel("orders", "a").await.unwrap();
    world.sees(0).await;
    assert!(world.call(Method::GET, "http://orders/", "").await.unwrap_err().is_no_endpoints());
    assert!(world.call(Method::GET, "http://orders/", "").await.unwrap_err().is_no_endpoints());
    // Other calls fail fast by now. A call with `WaitForReady` still waits.
    let waiting = Request::get("http://orders/").extension(WaitForReady(Duration::from_secs(30))).body(Full::default());
    let (response, _b) = tokio::join!(world.client.clone().oneshot(waiting.unwrap()), world.instance("orders", "b"));
    assert_eq!(response.unwrap().into_body().collect().await.unwrap().to_bytes(), "b");
    assert_eq!(world.call(Method::GET, "http://orders/", "").await.unwrap(), "b");
}

#[tokio::test]
async fn calls_after_an_instance_died_succeed_at_another() {
    let world = Arc::new(World::new().await);
    let _b = world.instance("orders", "b").await;
    // On a runtime of its own, so that its connections close with it.
    let mortal = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let registered = world.clone();
    mortal.spawn(async move { drop(registered.instance("orders", "a").await) }).await.unwrap();
    world.sees(2).await;
    for _ in 0..50 {
        world.call(Method::GET, "http://orders/", "").await.unwrap();
    }
    mortal.shutdown_background();
    for _ in 0..100 {
        world.call(Method::GET, "http://orders/", "").await.unwrap();
    }
}

/// Registers a server that reads each request and closes the connection. Returns the number of
/// requests.
async fn closing(world: &World, app: &str) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register(app, "closing", listener.local_addr().unwrap().port()).await;
    let received = Arc::<AtomicUsize>::default();
    let count = received.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            if socket.read(&mut buffer).await.unwrap() > 0 {
                count.fetch_add(1, Ordering::Relaxed);
            }
            socket.shutdown().await.unwrap();
        }
    });
    received
}

#[tokio::test]
async fn request_that_may_have_been_received_is_repeated_only_if_idempotent() {
    let world = World::new().await;
    let received = closing(&world, "orders").await;
    let error = world.call(Method::POST, "http://orders/", "pay").await.unwrap_err();
    assert!(!error.is_connect() && error.to_string().contains("connection was lost"), "{error}");
    assert_eq!(received.load(Ordering::Relaxed), 1, "a POST is sent once");

    let _good = world.instance("orders", "good").await;
    world.sees(2).await;
    for _ in 0..20 {
        assert_eq!(world.call(Method::GET, "http://orders/", "").await.unwrap(), "good");
    }
}

/// As of many connections that an instance, or a proxy before it, closes at one time.
#[tokio::test]
async fn call_that_lost_a_reused_connection_is_repeated_over_a_new_one() {
    const CONNECTIONS: usize = 5;
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register("orders", "closing", listener.local_addr().unwrap().port()).await;
    // Each connection responds to one request once all are open, and ends with the next one.
    let all_open = Arc::new(Barrier::new(CONNECTIONS));
    tokio::spawn(async move {
        for number in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let all_open = all_open.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                assert_ne!(socket.read(&mut buffer).await.unwrap(), 0);
                if number < CONNECTIONS {
                    all_open.wait().await;
                }
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                let _next = socket.read(&mut buffer).await;
            });
        }
    });
    world.sees(1).await;
    let call = || world.call(Method::GET, "http://orders/", "");
    for response in join_all((0..CONNECTIONS).map(|_| call())).await {
        assert_eq!(response.unwrap(), "ok");
    }
    assert_eq!(call().await.unwrap(), "ok");
}

/// HTTP/2 instances, of which the connections of some end with all their streams on demand.
#[derive(Default)]
struct Streams {
    /// Ends the connections that are open.
    cut: watch::Sender<()>,
    /// Number of requests to `/held`. They get no response before `released`.
    held: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Streams {
    async fn serve(self: Arc<Self>, listener: TcpListener, ends: bool) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut cut, streams) = (self.cut.subscribe(), self.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let streams = streams.clone();
                    async move {
                        if request.uri().path() == "/held" {
                            streams.held.send_modify(|held| *held += 1);
                            streams.released.subscribe().wait_for(|released| *released).await.unwrap();
                        }
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
                    }
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::select! {
                    biased;
                    _ = cut.changed(), if ends => {}
                    _ = http.serve_connection(TokioIo::new(stream), service) => {}
                }
            });
        }
    }
}

#[tokio::test]
async fn connection_that_ends_with_many_streams_ejects_no_instance() {
    const CALLS: usize = 40;
    let world = World::new().await;
    let streams = Arc::new(Streams::default());
    for (id, ends) in [("a", true), ("b", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.register("orders", id, listener.local_addr().unwrap().port()).await;
        tokio::spawn(streams.clone().serve(listener, ends));
    }
    world.sees(2).await;
    let call = |path: &str| {
        let request = Request::get(format!("http://orders{path}")).version(Version::HTTP_2).body(Full::default());
        world.client.request(request.unwrap())
    };
    for _ in 0..20 {
        call("/").await.unwrap().into_body().collect().await.unwrap();
    }
    let calls: Vec<_> = (0..CALLS).map(|_| tokio::spawn(call("/held"))).collect();
    streams.held.subscribe().wait_for(|held| *held == CALLS).await.unwrap();
    streams.cut.send_replace(());
    streams.released.send_replace(true);
    for response in join_all(calls).await {
        response.unwrap().unwrap();
    }
    let snapshot = world.client.snapshots().remove(0);
    assert_eq!(snapshot.count(EndpointState::Available), 2, "{snapshot}");
}

#[tokio::test]
async fn call_uses_the_version_of_its_request() {
    let world = World::new().await;
    let _a = world.instance("orders", "a").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let request = Request::get("http://orders/").version(version).body(Full::default()).unwrap();
        let response = world.client.clone().oneshot(request).await.unwrap();
        assert_eq!((response.version(), response.status()), (version, StatusCode::OK));
    }
}

#[tokio::test]
async fn instance_with_a_failing_health_check_gets_no_call_until_it_passes() {
    let world = World::new().await;
    let status = Arc::new(AtomicUsize::new(503));
    for id in ["unchecked", "checked"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, status) = (listener.local_addr().unwrap().port(), status.clone());
        let health = async move || StatusCode::from_u16(status.load(Ordering::Relaxed) as u16).unwrap();
        let router = Router::new().route("/health", any(health)).fallback(any(async move || id));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut instance = Instance::builder("orders").id(id).ip_addr("127.0.0.1").port(port);
        if id == "checked" {
            instance = instance.health_check_url(format!("http://127.0.0.1:{port}/health"));
        }
        world.eureka.transport().register(&instance.build().unwrap()).await.unwrap();
    }
    world.sees(2).await;
    let options = CallOptions::new().health_check(Duration::from_millis(100));
    let client: Client = world.eureka.http_client_with(options);
    let call = async || {
        let response = client.clone().oneshot(Request::get("http://orders/").body(Full::default()).unwrap()).await;
        response.unwrap().into_body().collect().await.unwrap().to_bytes()
    };
    call().await;
    let states =
        || client.snapshots()[0].endpoints().iter().map(|e| (e.id().to_owned(), e.cause())).collect::<Vec<_>>();
    let unhealthy = [("checked".to_owned(), Some(Cause::HealthCheck)), ("unchecked".to_owned(), None)];
    while states() != unhealthy {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..50 {
        assert_eq!(call().await, "unchecked");
    }
    status.store(204, Ordering::Relaxed);
    while call().await != "checked" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn unusable_request_fails_with_advice() {
    let world = World::new().await;
    for (uri, reason) in [
        ("/path", "has no host"),
        ("orders:80", "not absolute"),
        ("ftp://orders/", "only http://"),
        ("http://a$b/", "not an application name"),
    ] {
        let error = world.call(Method::GET, uri, "").await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains(reason), "{uri}: {error}");
    }
}

#[tokio::test]
async fn calls_to_a_single_instance_that_closes_connections_succeed() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register("orders", "closing", listener.local_addr().unwrap().port()).await;
    // Responds once per connection without announcing its end, and closes it at the second request.
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if socket.read(&mut buffer).await.unwrap() > 0 {
                    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    let _ = socket.read(&mut buffer).await;
                }
            });
        }
    });
    for _ in 0..20 {
        assert_eq!(world.call(Method::GET, "http://orders/", "").await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn error_of_a_refused_uri_contains_no_secrets() {
    let world = World::new().await;
    let error = world.call(Method::GET, "https://bob:hunter2@orders/x?token=abc", "").await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("abc"), "{shown}");
}

#[tokio::test]
async fn close_waits_for_calls_in_flight_and_then_closes_their_connections() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (release, released) = tokio::sync::oneshot::channel();
    world.register("orders", "a", listener.local_addr().unwrap().port()).await;
    // Ends when the client closes the connection.
    let server = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        assert!(connection.read(&mut buffer).await.unwrap() > 0);
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await.unwrap();
        released.await.unwrap();
        connection.write_all(b"b").await.unwrap();
        assert_eq!(connection.read(&mut buffer).await.unwrap(), 0);
    });
    world.sees(1).await;
    let request = || Request::get("http://orders/").body(Full::default()).unwrap();
    let response = world.client.request(request()).await.unwrap();
    let error = world.eureka.close_within(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("still in flight"), "{error}");

    let eureka = world.eureka.clone();
    let error = world.client.request(request()).await.unwrap_err();
    assert!(error.to_string().contains("the client was closed"), "{error}");
    assert!(error.is_unavailable() && error.http_status() == StatusCode::SERVICE_UNAVAILABLE, "{error}");
    release.send(()).unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ab");
    eureka.close().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), server).await.expect("the connection is closed").unwrap();
}
