//! Health and info pages of the registration layer, and the phases of a drain as callers see them.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_eureka::Instance;
use tower_eureka::register::{Registrar, RegistrarState, RegistrationLayer, Shutdown};

use crate::common::{Scripted, listen};
use crate::provider::{accepting, registrar, stop_on_shutdown};

/// Response with its body.
pub(crate) type Reply = Response<Bytes>;

async fn own_page<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("own")))
}

/// Sends a request through the layer to a server that responds with "own" at every path.
pub(crate) async fn send(layer: &RegistrationLayer, request: Request<()>) -> Reply {
    let service = layer.layer(service_fn(own_page));
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

async fn get(layer: &RegistrationLayer, path: &str) -> Reply {
    send(layer, Request::get(path).body(()).unwrap()).await
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(reply.body()).unwrap()
}

/// Returns the first record that the registry received.
async fn registered(registry: &Scripted, handle: &Registrar) -> Instance {
    handle.register().await.unwrap();
    Instance::from_json(&registry.first_registration()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn layer_responds_before_the_server_unless_its_pages_are_off() {
    let handle = registrar(&accepting());
    let layer = handle.layer().info(json!({"app": {"name": "orders"}}));
    let health = get(&layer, "/actuator/health").await;
    assert_eq!(health.status(), 200);
    assert_eq!(health.headers()["content-type"], "application/vnd.spring-boot.actuator.v3+json");
    assert_eq!(json_of(&health)["status"], "UP");
    assert_eq!(json_of(&health)["groups"], json!(["liveness", "readiness"]));
    assert_eq!(json_of(&get(&layer, "/actuator/info").await), json!({"app": {"name": "orders"}}));
    assert_eq!(get(&layer, "/orders").await.body(), "own");

    let layer = handle.layer().without_pages();
    for path in ["/actuator", "/actuator/health", "/actuator/health/readiness", "/actuator/info"] {
        assert_eq!(get(&layer, path).await.body(), "own", "{path}");
    }
    let layer = handle.layer().health_path("/up").info_path(None);
    assert_eq!(json_of(&get(&layer, "/up/liveness").await)["status"], "UP");
    assert_eq!(get(&layer, "/actuator/info").await.body(), "own");
}

#[tokio::test(start_paused = true)]
async fn registered_urls_point_at_the_pages_of_the_layer() {
    let registry = accepting();
    let handle = registrar(&registry);
    let _layer = handle.layer();
    let instance = registered(&registry, &handle).await;
    assert_eq!(instance.health_check_url(), Some("http://127.0.0.1:1/actuator/health"));
    assert_eq!(instance.status_page_url(), Some("http://127.0.0.1:1/actuator/info"));

    let registry = accepting();
    let handle = registrar(&registry);
    let _layer = handle.layer().health_path("up").info_path("/about");
    let instance = registered(&registry, &handle).await;
    assert_eq!(instance.health_check_url(), Some("http://127.0.0.1:1/up"));
    assert_eq!(instance.status_page_url(), Some("http://127.0.0.1:1/about"));

    for with_layer in [true, false] {
        let registry = accepting();
        let handle = registrar(&registry);
        let _layer = with_layer.then(|| handle.layer().without_pages());
        let instance = registered(&registry, &handle).await;
        assert_eq!((instance.health_check_url(), instance.status_page_url()), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn registered_urls_of_the_instance_itself_are_kept() {
    let registry = accepting();
    let own = Instance::builder("orders").id("a").ip_addr("10.0.0.1").port(80).secure_port(443);
    let own = own.health_check_url("http://10.0.0.1:81/up");
    let handle = registry.client().build().unwrap().registrar(own.build().unwrap());
    let _layer = handle.layer();
    let instance = registered(&registry, &handle).await;
    assert_eq!(instance.health_check_url(), Some("http://10.0.0.1:81/up"));
    assert_eq!(instance.status_page_url(), Some("http://10.0.0.1:80/actuator/info"));
}

#[tokio::test(start_paused = true)]
async fn pages_follow_the_context_path_and_the_paths_of_the_instance() {
    for (builder, health, info) in [
        (Instance::builder("orders").context_path("/orders"), "/orders/actuator/health", "/orders/actuator/info"),
        (Instance::builder("orders").health_check_path("/up").status_page_path("about"), "/up", "/about"),
    ] {
        let registry = accepting();
        let instance = builder.id("a").ip_addr("10.0.0.1").port(80).build().unwrap();
        let handle = registry.client().build().unwrap().registrar(instance);
        let layer = handle.layer();
        let instance = registered(&registry, &handle).await;
        assert_eq!(instance.health_check_url(), Some(&*format!("http://10.0.0.1:80{health}")));
        assert_eq!(instance.status_page_url(), Some(&*format!("http://10.0.0.1:80{info}")));
        assert_eq!(json_of(&get(&layer, health).await)["status"], "UP");
        assert_eq!(get(&layer, info).await.body(), "{}");
        assert_eq!(get(&layer, "/actuator/health").await.body(), "own");
    }
}

#[tokio::test(start_paused = true)]
async fn page_that_the_layer_cannot_serve_is_left_to_the_server_and_its_url_is_registered() {
    for path in ["/", "/health?deep=true"] {
        let registry = accepting();
        let instance = Instance::builder("orders").id("a").ip_addr("10.0.0.1").port(80).health_check_path(path);
        let handle = registry.client().build().unwrap().registrar(instance.build().unwrap());
        let layer = handle.layer();
        let instance = registered(&registry, &handle).await;
        assert_eq!(instance.health_check_url(), Some(&*format!("http://10.0.0.1:80{path}")));
        assert_eq!(instance.status_page_url(), Some("http://10.0.0.1:80/actuator/info"));
        assert_eq!(get(&layer, path).await.body(), "own");
        assert_eq!(get(&layer, "/actuator/info").await.body(), "{}");
    }
}

/// Phase of a server, each with the responses to some requests.
#[derive(Debug, PartialEq)]
struct Phase {
    name: &'static str,
    health: u16,
    readiness: u16,
    liveness: u16,
    call: u16,
    /// The response to a call closes its HTTP/1 connection.
    closes: bool,
    retry_after: bool,
    grpc_status: Option<String>,
}

async fn phase(layer: &RegistrationLayer, name: &'static str) -> Phase {
    let status = async |path| get(layer, path).await.status().as_u16();
    let call = get(layer, "/orders").await;
    let grpc = Request::post("/inventory.Inventory/Get").version(Version::HTTP_2);
    let grpc = send(layer, grpc.header("content-type", "application/grpc").body(()).unwrap()).await;
    assert!(!grpc.headers().contains_key("connection"), "HTTP/2 has no such header");
    Phase {
        name,
        health: status("/actuator/health").await,
        readiness: status("/actuator/health/readiness").await,
        liveness: status("/actuator/health/liveness").await,
        call: call.status().as_u16(),
        closes: call.headers().get("connection").is_some_and(|value| value == "close"),
        retry_after: call.headers().contains_key("retry-after"),
        grpc_status: grpc.headers().get("grpc-status").map(|value| value.to_str().unwrap().to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn health_is_503_from_the_signal_and_calls_are_refused_in_the_last_phase_only() {
    let handle = registrar(&accepting());
    let (layer, phases) = (handle.layer(), Arc::new(Mutex::new(Vec::new())));
    let (observed, seen) = (layer.clone(), phases.clone());
    let observer = tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        let serving = phase(&observed, "serving").await;
        sleep(Duration::from_secs(11)).await;
        let draining = phase(&observed, "draining").await;
        seen.lock().unwrap().extend([serving, draining]);
    });
    let seen = phases.clone();
    let server = |stop: Shutdown| async move {
        stop.await;
        let stopped = phase(&layer, "stopped").await;
        sleep(Duration::from_secs(1)).await;
        let last = phase(&layer, "last").await;
        seen.lock().unwrap().extend([stopped, last]);
    };
    handle.serve(sleep(Duration::from_secs(10)), server).await;
    observer.await.unwrap();
    let expected = |name, healthy: bool, refuses: bool| Phase {
        name,
        health: if healthy { 200 } else { 503 },
        readiness: if healthy { 200 } else { 503 },
        liveness: 200,
        call: if refuses { 503 } else { 200 },
        closes: !healthy,
        retry_after: refuses,
        grpc_status: refuses.then(|| "14".to_owned()),
    };
    let expected = [
        expected("serving", true, false),
        expected("draining", false, false),
        expected("stopped", false, false),
        expected("last", false, true),
    ];
    assert_eq!(*phases.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn requests_for_pages_do_not_prolong_the_drain() {
    let handle = registrar(&accepting()).uncounted_paths(["/nothing"]);
    let layer = handle.layer().health_path("/orders/up");
    let probes = tokio::spawn(async move {
        loop {
            assert!(get(&layer, "/orders/up/readiness").await.headers().contains_key("content-type"));
            sleep(Duration::from_secs(1)).await;
        }
    });
    let start = tokio::time::Instant::now();
    handle.serve(sleep(Duration::from_secs(10)), stop_on_shutdown).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 15);
    probes.abort();
}

/// A server over real connections, which has received no signal yet.
struct Server {
    port: u16,
    handle: Registrar,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// Creates a registrar with this quiet time, and no other limit that matters.
fn drained_after(quiet: Duration) -> Registrar {
    let hour = Duration::from_secs(3600);
    registrar(&accepting()).quiet_time(quiet).max_drain(hour).shutdown_timeout(2 * hour)
}

/// Handler of `/slow` that begins with the first permit and ends with the second one.
#[derive(Clone, Default)]
struct Slow {
    begun: Arc<Notify>,
    end: Arc<Notify>,
}

impl Slow {
    async fn handle(self) -> &'static str {
        self.begun.notify_one();
        self.end.notified().await;
        "slow"
    }
}

impl Server {
    fn new(
        port: u16,
        handle: Registrar,
        run: impl FnOnce(Registrar, oneshot::Receiver<()>) -> JoinHandle<std::io::Result<()>>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let serving = run(handle.clone(), stopped);
        Self { port, handle, stop: Some(stop), serving }
    }

    async fn axum(quiet: Duration, slow: Slow) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let handle = drained_after(quiet);
        let app = axum::Router::new()
            .route("/slow", axum::routing::get(|| slow.handle()))
            .fallback(|| async { "own" })
            .layer(handle.layer());
        Self::new(listener.local_addr().unwrap().port(), handle, |handle, stopped| {
            tokio::spawn(
                handle.serve(async { drop(stopped.await) }, |stop| {
                    axum::serve(listener, app).with_graceful_shutdown(stop)
                }),
            )
        })
    }

    async fn hyper(quiet: Duration, slow: Slow) -> Self {
        let (listener, port) = listen().await;
        let handle = drained_after(quiet);
        let own = service_fn(move |request: Request<hyper::body::Incoming>| {
            let slow = slow.clone();
            async move {
                let text = if request.uri().path() == "/slow" { slow.handle().await } else { "own" };
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
            }
        });
        let service = TowerToHyperService::new(handle.layer().layer(own));
        let server = |mut stop: Shutdown| async move {
            let connections = GracefulShutdown::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted?.0,
                    () = &mut stop => break,
                };
                let builder = auto::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
                tokio::spawn(connections.watch(connection));
            }
            drop(listener);
            connections.shutdown().await;
            Ok(())
        };
        Self::new(port, handle, |handle, stopped| tokio::spawn(handle.serve(async { drop(stopped.await) }, server)))
    }

    async fn send(&self, http2: bool, method: Method, path: &str) -> Reply {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let request = Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.port));
        let (head, body) = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn reaches(&self, wanted: RegistrarState) {
        self.handle.state().wait_for(|state| *state == wanted).await.unwrap();
    }
}

/// Requests the pages of a server that runs, and once it drains.
async fn pages_over(mut server: Server) {
    server.reaches(RegistrarState::Registered).await;
    server.send(false, Method::GET, "/orders").await;
    for http2 in [false, true] {
        let health = server.send(http2, Method::GET, "/actuator/health").await;
        assert_eq!((health.status().as_u16(), &json_of(&health)["status"]), (200, &json!("UP")));
        let head = server.send(http2, Method::HEAD, "/actuator/health").await;
        assert_eq!((head.status().as_u16(), head.body().len()), (200, 0));
        assert_eq!(head.headers()["content-length"], health.body().len().to_string().as_str());
        let post = server.send(http2, Method::POST, "/actuator/health").await;
        assert_eq!((post.status().as_u16(), &post.headers()["allow"]), (405, &"GET,HEAD".parse().unwrap()));
        assert_eq!(server.send(http2, Method::GET, "/actuator/info").await.body(), "{}");
        let index = server.send(http2, Method::GET, "/actuator").await;
        let url = format!("http://127.0.0.1:{}/actuator/health", server.port);
        assert_eq!(json_of(&index)["_links"]["health"]["href"], url);
    }
    drop(server.stop.take());
    server.reaches(RegistrarState::Draining).await;
    for http2 in [false, true] {
        let health = server.send(http2, Method::GET, "/actuator/health").await;
        assert_eq!((health.status().as_u16(), &json_of(&health)["status"]), (503, &json!("OUT_OF_SERVICE")));
        assert_eq!(server.send(http2, Method::GET, "/actuator/health/liveness").await.status(), 200);
        let call = server.send(http2, Method::GET, "/orders").await;
        assert!(call.status() != 503 && call.headers().contains_key("connection") != http2);
    }
    server.serving.abort();
}

#[tokio::test]
async fn pages_are_served_by_axum_and_hyper_over_both_versions_of_http() {
    // The drain does not end during the test.
    let quiet = Duration::from_secs(600);
    for server in [Server::axum(quiet, Slow::default()).await, Server::hyper(quiet, Slow::default()).await] {
        pages_over(server).await;
    }
}

/// Ends a server while a call over HTTP/2 is in flight.
async fn goaway_of(mut server: Server, slow: Slow) {
    server.reaches(RegistrarState::Registered).await;
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://127.0.0.1:{}/slow", server.port)).body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    slow.begun.notified().await;
    drop(server.stop.take());
    while send.clone().ready().await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    slow.end.notify_one();
    assert_eq!(response.await.unwrap().status(), 200, "the call in flight is finished");
    drop(send);
    connection.await.unwrap().unwrap();
    server.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn server_that_stops_sends_goaway_and_finishes_calls_over_http_2() {
    // The call began before the signal, so the drain ends after the quiet time.
    let (quiet, slow) = (Duration::from_millis(1), Slow::default());
    goaway_of(Server::axum(quiet, slow.clone()).await, slow.clone()).await;
    goaway_of(Server::hyper(quiet, slow.clone()).await, slow).await;
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_application_is_served_with_pages_and_connect_info() {
    use axum::extract::ConnectInfo;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handle = drained_after(Duration::from_secs(600));
    let address = async |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| peer.ip().to_string();
    let app = axum::Router::new().route("/peer", axum::routing::get(address));
    let server = Server::new(listener.local_addr().unwrap().port(), handle, |handle, stopped| {
        tokio::spawn(tower_eureka::axum::serve(handle, async { drop(stopped.await) }, listener, app))
    });
    assert_eq!(server.send(false, Method::GET, "/peer").await.body(), "127.0.0.1");
    pages_over(server).await;
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_application_is_registered_in_one_call_with_the_port_of_its_listener() {
    let registry = accepting();
    let eureka = registry.client().build().unwrap();
    let (listener, port) = listen().await;
    let instance = Instance::builder("orders").ip_addr("127.0.0.1");
    let serving = tokio::spawn(async move {
        tower_eureka::axum::serve_registered(&eureka, instance, listener, axum::Router::new()).await
    });
    registry.wait_for(2).await;
    let instance = Instance::from_json(&registry.first_registration()).unwrap();
    assert_eq!(instance.port().number, i32::from(port));
    assert_eq!(instance.health_check_url().unwrap(), format!("http://127.0.0.1:{port}/actuator/health"));
    serving.abort();
}
