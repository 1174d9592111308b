//! Hostile clients: each is refused or closed, and others are served meanwhile.
//!
//! The tests use real sockets and small limits. All but one wait for an action of the server, not
//! for a time.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower_eureka::server::{Limits, Listener};
use tower_eureka::{EurekaServer, Instance};

/// Timeout that a test waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

/// Timeout that must not end the connection of a test.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) registry: EurekaServer,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(limits: impl FnOnce(Listener) -> Listener) -> Self {
        Self::start_with(limits, Router::new()).await
    }

    pub(crate) async fn start_with(limits: impl FnOnce(Listener) -> Listener, app: Router) -> Self {
        Self::start_registry_with(EurekaServer::builder().build().unwrap(), limits, app).await
    }

    pub(crate) async fn start_registry(registry: EurekaServer, limits: impl FnOnce(Listener) -> Listener) -> Self {
        Self::start_registry_with(registry, limits, Router::new()).await
    }

    pub(crate) async fn start_registry_with(
        registry: EurekaServer,
        limits: impl FnOnce(Listener) -> Listener,
        app: Router,
    ) -> Self {
        let listener = limits(registry.listener(TcpListener::bind("127.0.0.1:0").await.unwrap()));
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let app = app.nest("/eureka", registry.router());
        let served = tokio::spawn(listener.serve(app, async { drop(stopped.await) }));
        Self { address, registry, stop: Some(stop), served }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request on a new connection and reads until the server closes it.
    pub(crate) async fn closes(&self, sent: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    pub(crate) async fn assert_serves(&self) {
        let response = self.closes("GET /eureka/apps HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    }

    fn assert_empty(&self) {
        assert!(self.registry.applications().applications.is_empty());
    }
}

/// Reads to the end of the stream, which may be a reset.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    String::from_utf8_lossy(&read).into_owned()
}

/// Sends a request and reads the response. The connection stays open.
pub(crate) async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"PUT /eureka/apps/X/y HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "closed");
    }
    assert!(read.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn connection_with_a_slow_head_is_closed() {
    let server = Running::start(|listener| listener.head_timeout(SHORT)).await;
    let mut loris = Vec::new();
    for _ in 0..50 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /eureka/apps HTTP/1.1\r\nx-a: ").await.unwrap();
        loris.push(stream);
    }
    server.assert_serves().await;
    // Further bytes do not extend the time.
    let mut dripping = server.connect().await;
    while dripping.write_all(b"G").await.is_ok() {
        tokio::task::yield_now().await;
    }
    for stream in &mut loris {
        assert_eq!(rest(stream).await, "");
    }
    server.assert_serves().await;
}

#[tokio::test]
async fn second_head_of_a_connection_is_timed_as_well() {
    let server = Running::start(|listener| listener.head_timeout(SHORT)).await;
    let mut stream = server.connect().await;
    ask(&mut stream).await;
    ask(&mut stream).await;
    stream.write_all(b"GET /eu").await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn idle_connections_are_closed_and_delay_no_other() {
    let server = Running::start(|listener| listener.idle_timeout(SHORT)).await;
    let mut idle = Vec::new();
    for i in 0..200 {
        let mut stream = server.connect().await;
        if i % 2 == 0 {
            ask(&mut stream).await;
        }
        idle.push(stream);
    }
    server.assert_serves().await;
    for stream in &mut idle {
        assert_eq!(rest(stream).await, "");
    }
}

#[tokio::test]
async fn idle_http2_connection_is_closed() {
    let server = Running::start(|listener| listener.idle_timeout(SHORT).head_timeout(SHORT)).await;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/eureka/apps", server.address);
    let response = client.get(uri.parse().unwrap()).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
    let mut preface = server.connect().await;
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    rest(&mut preface).await;
}

#[tokio::test]
async fn running_handler_keeps_its_connection_beyond_the_idle_timeout() {
    let (reached, mut reaches) = tokio::sync::mpsc::unbounded_channel::<oneshot::Sender<()>>();
    let handler = move || {
        let (release, released) = oneshot::channel();
        reached.send(release).unwrap();
        async { released.await.map_or("dropped", |()| "done") }
    };
    let app = Router::new().route("/slow", get(handler));
    let server = Running::start_with(|listener| listener.idle_timeout(SHORT), app).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let release = reaches.recv().await.unwrap();
    // An idle connection that was opened later is closed: this one would be closed by now.
    assert_eq!(rest(&mut server.connect().await).await, "");
    release.send(()).unwrap();
    assert!(rest(&mut slow).await.ends_with("done"));
}

#[tokio::test]
async fn client_that_does_not_read_responses_is_closed() {
    let app = Router::new().route("/large", get(|| async { vec![b'x'; 1 << 20] }));
    let server = Running::start_with(|listener| listener.idle_timeout(SHORT), app).await;
    let mut deaf = server.connect().await;
    while deaf.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {}
    server.assert_serves().await;
}

#[tokio::test]
async fn client_that_reads_a_long_response_too_slowly_is_closed() {
    // More than the system buffers for a connection whose peer does not read.
    let app = Router::new().route("/large", get(|| async { vec![b'x'; 64 << 20] }));
    let registry = EurekaServer::builder().limits(Limits::new().response_bytes(1 << 30)).build().unwrap();
    let limits = |listener: Listener| listener.response_timeout(SHORT).idle_timeout(HOUR);
    let server = Running::start_registry_with(registry, limits, app).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        slow.push(stream);
    }
    let mut h2 = server.connect().await;
    // An HTTP/2 client that never enlarges its window of 64 KiB, and keeps sending pings.
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // GET (static 2), http (static 6), path "/large" (literal, static name 4), authority "x"
    // (literal, static name 1).
    h2.write_all(b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x04\x06/large\x01\x01x").await.unwrap();
    // Enough pings that their responses would be a response's progress.
    let pings = b"\0\0\x08\x06\0\0\0\0\0........".repeat(200);
    let (mut from, mut to) = h2.into_split();
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all).await;
        all.len()
    });
    while to.write_all(&pings).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(reading.await.unwrap() > 0xffff, "it took what it said");
    for stream in &mut slow {
        assert!(rest(stream).await.len() < 64 << 20);
    }
    server.assert_serves().await;
}

#[tokio::test]
async fn client_that_reads_a_long_response_steadily_gets_all_of_it() {
    let app = Router::new().route("/large", get(|| async { vec![b'x'; 8 << 20] }));
    let server = Running::start_with(|listener| listener.response_timeout(Duration::from_secs(20)), app).await;
    let response = server.closes("GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(response.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(8 << 20));
}

#[tokio::test]
async fn client_that_reads_a_long_response_at_moderate_speed_is_not_closed() {
    let app = Router::new().route("/large", get(|| async { vec![b'x'; 8 << 20] }));
    let server = Running::start_with(|listener| listener.response_timeout(Duration::from_secs(1)), app).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    // The one test that lets time pass: 400 KiB a second, six times the required progress, for
    // longer than the timeout.
    let mut taken = [0; 8 * 1024];
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..100 {
        tick.tick().await;
        stream.read_exact(&mut taken).await.unwrap();
    }
    assert!(rest(&mut stream).await.len() > (8 << 20) - 100 * taken.len(), "all of it came");
}

#[tokio::test]
async fn endless_head_returns_431() {
    let server = Running::start(|listener| listener.max_head_bytes(8_192).max_headers(20)).await;
    let many: String = (0..21).map(|i| format!("x-{i}: 1\r\n")).collect();
    let response = server.closes(&format!("GET /eureka/apps HTTP/1.1\r\n{many}\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
    let response = server.closes(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(8_192))).await;
    assert!(response.starts_with("HTTP/1.1 431 ") || response.starts_with("HTTP/1.1 414 "), "{response}");

    let mut million = server.connect().await;
    million.write_all(b"GET /eureka/apps HTTP/1.1\r\n").await.unwrap();
    let mut sent = 0;
    while sent < 1_000_000 && million.write_all(b"x-header: with some value\r\n").await.is_ok() {
        sent += 1;
    }
    assert!(sent < 1_000_000, "all were taken");
    server.assert_serves().await;
}

#[tokio::test]
async fn http2_request_with_too_many_headers_returns_431() {
    let server = Running::start(|listener| listener.max_headers(20)).await;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (headers, expected) in [(20, StatusCode::OK), (21, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)] {
        let mut request = Request::get(format!("http://{}/eureka/apps", server.address));
        for i in 0..headers {
            request = request.header(format!("x-{i}"), "1");
        }
        let response = client.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!((response.status(), response.version()), (expected, http::Version::HTTP_2));
    }
}

#[tokio::test]
async fn body_that_is_too_long_is_refused_before_its_end() {
    let server = Running::start(|listener| listener).await;
    for framing in ["content-length: 104857600", "transfer-encoding: chunked"] {
        let stream = server.connect().await;
        let (mut read, mut write) = stream.into_split();
        let head =
            format!("POST /eureka/apps/X HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n");
        let sending = tokio::spawn(async move {
            write.write_all(head.as_bytes()).await.unwrap();
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            let mut sent = 0;
            while sent < 1_600 && write.write_all(chunk.as_bytes()).await.is_ok() {
                sent += 1;
            }
            sent
        });
        let mut status = [0; 12];
        read.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 413", "{framing}");
        drop(read);
        assert!(sending.await.unwrap() < 1_600, "all of it was taken");
    }
    server.assert_empty();
}

#[tokio::test]
async fn gzip_bomb_returns_413() {
    let server = Running::start_registry(
        EurekaServer::builder().limits(Limits::new().gzip_requests(true)).build().unwrap(),
        |listener| listener,
    )
    .await;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..100 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 200_000, "{} bytes", bomb.len());
    let head = "POST /eureka/apps/X HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let mut stream = server.connect().await;
    let head = format!("{head}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&bomb).await.unwrap();
    let response = rest(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    server.assert_empty();
}

#[tokio::test]
async fn body_that_does_not_arrive_returns_408() {
    let server = Running::start(|listener| listener.body_timeout(SHORT)).await;
    let head =
        "POST /eureka/apps/X HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    let mut stuck = server.connect().await;
    stuck.write_all(head.as_bytes()).await.unwrap();
    stuck.write_all(b"{\"instance\"").await.unwrap();
    server.assert_serves().await;
    let response = rest(&mut stuck).await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert!(response.ends_with("the body took too long"), "{response}");
    // A body that ends early is not a timeout.
    let (mut read, mut write) = server.connect().await.into_split();
    write.write_all(head.as_bytes()).await.unwrap();
    write.shutdown().await.unwrap();
    let mut response = String::new();
    read.read_to_string(&mut response).await.unwrap();
    assert!(!response.starts_with("HTTP/1.1 408 "), "{response}");
    server.assert_empty();
}

#[tokio::test]
async fn shutdown_responds_to_requests_in_flight_and_closes_idle_connections() {
    let (reached, mut reaches) = tokio::sync::mpsc::unbounded_channel::<oneshot::Sender<()>>();
    let handler = move || {
        let (release, released) = oneshot::channel();
        reached.send(release).unwrap();
        async { released.await.map_or("dropped", |()| "done") }
    };
    let app = Router::new().route("/slow", get(handler));
    let mut server = Running::start_with(|listener| listener, app).await;
    let (mut idle, mut slow) = (server.connect().await, server.connect().await);
    ask(&mut idle).await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let release = reaches.recv().await.unwrap();
    drop(server.stop.take());
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "nothing is accepted any more");
    release.send(()).unwrap();
    assert!(rest(&mut slow).await.ends_with("done"));
    server.served.await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_after_its_timeout() {
    let app = Router::new().route("/never", get(std::future::pending::<()>));
    let mut server = Running::start_with(|listener| listener.shutdown_timeout(SHORT), app).await;
    let (mut stuck, mut loris) = (server.connect().await, server.connect().await);
    stuck.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    loris.write_all(b"GET /never HT").await.unwrap();
    server.assert_serves().await;
    drop(server.stop.take());
    server.served.await.unwrap();
    assert_eq!(rest(&mut stuck).await, "");
}

fn document(id: &str, metadata: usize) -> Vec<u8> {
    let mut instance = Instance::builder("X").id(id).host_name("h").ip_addr("10.0.0.1").port(80);
    if metadata > 0 {
        instance = instance.metadata("k", "v".repeat(metadata - 1));
    }
    instance.build().unwrap().to_json()
}

#[tokio::test]
async fn limits_can_be_set_as_properties() {
    let property = |name: &str, value: &str| (format!("eureka.server.limits.{name}"), value.to_owned());
    let mut builder = EurekaServer::builder();
    for (name, value) in [
        property("head-read-time-ms", "100"),
        property("head-bytes", "9000"),
        property("headers", "5"),
        property("connections", "3"),
        property("registration-bytes", "100"),
    ] {
        builder = builder.property(&name, &value).unwrap();
    }
    let registry = builder.build().unwrap();
    let listener = registry.listener(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(listener.serve(registry.service("/eureka"), std::future::pending()));
    let closes = async |sent: String| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        rest(&mut stream).await
    };
    assert_eq!(closes("GET /eureka/apps HTTP/1.1\r\n".into()).await, "", "a head that does not end");
    let many: String = (0..6).map(|i| format!("x-{i}: 1\r\n")).collect();
    let response = closes(format!("GET /eureka/apps HTTP/1.1\r\n{many}\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
    let long = format!(
        "content-type: application/json\r\ncontent-length: 101\r\nconnection: close\r\n\r\n{}",
        " ".repeat(101)
    );
    let response = closes(format!("POST /eureka/apps/X HTTP/1.1\r\nhost: x\r\n{long}")).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

#[tokio::test]
async fn registry_has_its_own_limits() {
    let registry =
        EurekaServer::builder().limits(Limits::new().metadata_bytes(10).instances_per_application(2)).build().unwrap();
    let router = registry.router();
    let send = async |method: &str, path: &str, body: Vec<u8>| {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let response = router.clone().oneshot(request.body(axum::body::Body::from(body)).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap())
    };
    let metadata_text = (413, "the metadata is larger than 10 bytes".to_owned());
    assert_eq!(send("POST", "/apps/X", document("a", 11)).await, metadata_text);
    assert_eq!(send("POST", "/apps/X", document("a", 10)).await.0, 204);
    assert_eq!(send("PUT", "/apps/X/a/metadata?other=1", Vec::new()).await, metadata_text);
    assert_eq!(send("PUT", "/apps/X/a/metadata?k=other", Vec::new()).await.0, 200);
    assert_eq!(send("POST", "/apps/X", document("b", 0)).await.0, 204);
    let application_text = (429, "the application has 2 instances, which is the limit".to_owned());
    assert_eq!(send("POST", "/apps/X", document("c", 0)).await, application_text);
    assert_eq!(send("POST", "/apps/X", document("b", 1)).await.0, 204, "known instances may register again");
    assert_eq!(send("DELETE", "/apps/X/a", Vec::new()).await.0, 200);
    assert_eq!(send("POST", "/apps/X", document("c", 0)).await.0, 204);
}
