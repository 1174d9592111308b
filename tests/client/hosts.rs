//! Host name and IP address of an instance: which one is called, and what happens if the name does
//! not resolve, changes, or has several addresses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::server::conn::http1;
use hyper::service::service_fn as hyper_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower::BoxError;
use tower_eureka::client::{CallOptions, HttpClient, InstanceAddress, Resolve, Resolved, Resolving, RetryPolicy};
use tower_eureka::{Error, Eureka, Instance};

use crate::captured_log::Log;
use crate::common::{Memory, edited, instance, list, listen};
use crate::own_address::own_address;

type Calls = HttpClient<Full<Bytes>>;

const SECOND: Duration = Duration::from_secs(1);

/// Name server of one test. Names that it does not have do not resolve.
#[derive(Clone, Default)]
struct Hosts {
    addresses: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
    lookups: Arc<AtomicUsize>,
}

impl Hosts {
    fn set(&self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.addresses.lock().unwrap().insert(host.to_owned(), addresses);
    }

    /// Client of a registry with the instances in `memory`, which looks names up here.
    fn eureka(&self, memory: &Memory) -> Eureka {
        let builder = memory.serve().client().delta(false).fetch_interval(SECOND);
        builder.resolver(self.clone()).build().unwrap()
    }
}

impl Resolve for Hosts {
    fn resolve(&self, host: &str) -> Resolving {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let found = self.addresses.lock().unwrap().get(host).cloned();
        Box::pin(async move { found.map(Resolved::new).ok_or_else(|| BoxError::from("no such name")) })
    }
}

/// Serves requests at this address with its IP address and the `host` header as the body.
async fn serve(address: SocketAddr) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let ip = address.ip();
            let respond = move |request: Request<hyper::body::Incoming>| async move {
                let host = request.headers()[HOST].to_str().unwrap().to_owned();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("{ip} {host}"))))
            };
            connections.spawn(async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), hyper_fn(respond)).await;
            });
        }
    });
    (port, server)
}

async fn serve_at(ip: &str, port: u16) -> (u16, JoinHandle<()>) {
    serve(SocketAddr::new(ip.parse().unwrap(), port)).await
}

/// Registers an instance with this host name and IP address.
fn register(host: &str, ip: &str, port: u16) -> Memory {
    Memory::of([Instance::builder("orders").id("a").host_name(host).ip_addr(ip).port(port).build().unwrap()])
}

async fn call(client: &Calls) -> Result<String, Error> {
    let response = client.request(Request::get("http://orders/").body(Full::default()).unwrap()).await?;
    Ok(String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

fn options(address: InstanceAddress) -> CallOptions {
    CallOptions::new().address(address)
}

#[tokio::test]
async fn instance_with_an_unresolvable_host_name_is_called_at_its_ip_address() {
    let (log, _logging) = Log::start(tracing::Level::WARN);
    let ip = own_address().to_string();
    let (port, _server) = serve_at(&ip, 0).await;
    let memory = register("5f2a9c", &ip, port);
    let second = Instance::builder("orders").id("b").host_name("77aa01").ip_addr(&ip).port(port);
    memory.put(second.build().unwrap());
    let client: Calls = Hosts::default().eureka(&memory).http_client();
    let mut hosts = std::collections::BTreeSet::new();
    for _ in 0..40 {
        hosts.insert(call(&client).await.unwrap());
    }
    let expected = ["5f2a9c", "77aa01"].map(|host| format!("{ip} {host}:{port}"));
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), expected);
    let text = log.text();
    assert_eq!(text.matches("host name does not resolve, calling the IP address").count(), 1, "{text}");
    assert!(text.contains("app=ORDERS") && text.contains("no such name") && text.contains(&ip), "{text}");
}

#[tokio::test]
async fn unresolvable_host_name_with_a_loopback_address_is_not_called() {
    let (port, _server) = serve_at("127.0.0.1", 0).await;
    let options = CallOptions::new().wait_for_ready(Duration::ZERO).timeout(SECOND);
    let client: Calls = Hosts::default().eureka(&register("5f2a9c", "127.0.0.1", port)).http_client_with(options);
    let error = call(&client).await.unwrap_err().to_string();
    assert!(error.contains("the host name 5f2a9c does not resolve: no such name"), "{error}");
}

#[tokio::test]
async fn host_name_that_resolves_and_refuses_is_not_called_at_the_ip_address() {
    let (port, _server) = serve_at("127.0.0.1", 0).await;
    let hosts = Hosts::default();
    hosts.set("orders-1", &["127.0.0.2"]);
    let options = CallOptions::new().wait_for_ready(Duration::ZERO).timeout(SECOND);
    let client: Calls = hosts.eureka(&register("orders-1", "127.0.0.1", port)).http_client_with(options);
    let error = call(&client).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn address_rule_selects_the_host_name_or_the_ip_address() {
    let (port, _server) = serve_at("127.0.0.1", 0).await;
    let memory = register("orders-1", "127.0.0.1", port);
    let hosts = Hosts::default();
    let client: Calls = hosts.eureka(&memory).http_client_with(options(InstanceAddress::Ip));
    assert_eq!(call(&client).await.unwrap(), format!("127.0.0.1 127.0.0.1:{port}"));
    assert_eq!(hosts.lookups.load(Ordering::SeqCst), 0);

    let client: Calls = hosts.eureka(&memory).http_client_with(options(InstanceAddress::Host).timeout(SECOND));
    let error = call(&client).await.unwrap_err().to_string();
    assert!(error.contains("the host name orders-1 does not resolve: no such name"), "{error}");
    hosts.set("orders-1", &["127.0.0.1"]);
    let client: Calls = hosts.eureka(&memory).http_client_with(options(InstanceAddress::Host));
    assert_eq!(call(&client).await.unwrap(), format!("127.0.0.1 orders-1:{port}"));
}

#[tokio::test]
async fn address_with_a_zone_or_brackets_is_called() {
    let (port, _server) = serve_at("::1", 0).await;
    for (host, ip) in [("0:0:0:0:0:0:0:1%lo", "0:0:0:0:0:0:0:1%lo"), ("[::1]", "::1"), ("::1", "::1")] {
        // A provider that does not check its address, as in Java.
        let instance = Instance::builder("orders").id("a").ip_addr("::1").port(port).build().unwrap();
        let memory = Memory::of([edited(&instance, |json| {
            json["hostName"] = host.into();
            json["ipAddr"] = ip.into();
        })]);
        let client: Calls = Hosts::default().eureka(&memory).http_client();
        assert_eq!(call(&client).await.unwrap(), format!("::1 [::1]:{port}"), "{host}");
    }
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    let (port, _server) = serve_at("127.0.0.1", 0).await;
    let hosts = Hosts::default();
    hosts.set("orders-1", &["127.0.0.2", "::1", "127.0.0.3", "127.0.0.1"]);
    let client: Calls = hosts.eureka(&register("orders-1", "127.0.0.9", port)).http_client();
    assert_eq!(call(&client).await.unwrap(), format!("127.0.0.1 orders-1:{port}"));
}

#[tokio::test]
async fn preferred_family_is_tried_first() {
    let (port, _v6) = serve_at("::1", 0).await;
    let (_, _v4) = serve_at("127.0.0.1", port).await;
    let hosts = Hosts::default();
    hosts.set("orders-1", &["127.0.0.1", "::1"]);
    for (options, ip) in [
        (CallOptions::new(), "127.0.0.1"),
        (CallOptions::new().prefer_ipv6(true), "::1"),
        (CallOptions::new().prefer_ipv6(false), "127.0.0.1"),
    ] {
        let client: Calls = hosts.eureka(&register("orders-1", "127.0.0.9", port)).http_client_with(options);
        assert_eq!(call(&client).await.unwrap(), format!("{ip} orders-1:{port}"));
    }
}

#[tokio::test]
async fn name_that_moved_is_looked_up_again_after_a_failed_connection() {
    let (port, server) = serve_at("127.0.0.1", 0).await;
    let hosts = Hosts::default();
    hosts.set("orders-1", &["127.0.0.1"]);
    let client: Calls = hosts.eureka(&register("orders-1", "127.0.0.9", port)).http_client();
    assert_eq!(call(&client).await.unwrap(), format!("127.0.0.1 orders-1:{port}"));
    server.abort();
    let _ = server.await;
    hosts.set("orders-1", &["127.0.0.3"]);
    let (_, _server) = serve_at("127.0.0.3", port).await;
    // A name is looked up at most once a second.
    sleep(SECOND).await;
    assert_eq!(call(&client).await.unwrap(), format!("127.0.0.3 orders-1:{port}"));
    assert_eq!(hosts.lookups.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn open_connection_is_replaced_once_its_name_has_another_address() {
    let (port, _old) = serve_at("127.0.0.1", 0).await;
    let (_, _new) = serve_at("127.0.0.3", port).await;
    let hosts = Hosts::default();
    hosts.set("orders-1", &["127.0.0.1"]);
    let client: Calls = hosts.eureka(&register("orders-1", "127.0.0.9", port)).http_client();
    assert_eq!(call(&client).await.unwrap(), format!("127.0.0.1 orders-1:{port}"));
    hosts.set("orders-1", &["127.0.0.3"]);
    let mut answered = Vec::new();
    for _ in 0..15 {
        sleep(10 * SECOND).await;
        answered.push(call(&client).await.unwrap());
    }
    assert_eq!(answered[0], format!("127.0.0.1 orders-1:{port}"));
    assert_eq!(answered[14], format!("127.0.0.3 orders-1:{port}"));
    // A failed lookup changes nothing.
    hosts.addresses.lock().unwrap().clear();
    sleep(200 * SECOND).await;
    assert_eq!(call(&client).await.unwrap(), format!("127.0.0.3 orders-1:{port}"));
}

#[tokio::test(start_paused = true)]
async fn resolver_that_hangs_delays_a_connection_to_the_ip_address_by_one_second() {
    let ip = own_address().to_string();
    let (port, _server) = serve_at(&ip, 0).await;
    let memory = register("orders-1", &ip, port);
    let hangs = |_: &str| std::future::pending::<Result<Resolved, BoxError>>();
    let client: Calls = memory.serve().client().resolver(hangs).build().unwrap().http_client();
    let start = Instant::now();
    assert_eq!(call(&client).await.unwrap(), format!("{ip} orders-1:{port}"));
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!(call(&client).await.unwrap(), format!("{ip} orders-1:{port}"));
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn health_check_of_an_unresolvable_host_name_uses_the_ip_address() {
    let ip = own_address().to_string();
    let (port, _server) = serve_at(&ip, 0).await;
    let url = format!("http://5f2a9c:{port}/health");
    let instance = Instance::builder("orders").id("a").host_name("5f2a9c").ip_addr(ip).port(port);
    let memory = Memory::of([instance.health_check_url(url).build().unwrap()]);
    for address in [InstanceAddress::HostOrIp, InstanceAddress::Ip] {
        let options = options(address).health_check(Duration::from_millis(20));
        let client: Calls = Hosts::default().eureka(&memory).http_client_with(options);
        call(&client).await.unwrap();
        // Instances start as healthy. An unhealthy one is ejected after some checks.
        sleep(Duration::from_millis(300)).await;
        assert_eq!(client.snapshots()[0].count(tower_eureka::balance::EndpointState::Available), 1, "{address:?}");
    }
}

#[tokio::test]
async fn host_name_of_a_registry_server_is_looked_up_there_too() {
    let (listener, port) = listen().await;
    let json = list(&[instance("orders", "a")]);
    let router = axum::Router::new().fallback(async move || ([(CONTENT_TYPE, "application/json")], json));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let hosts = Hosts::default();
    hosts.set("registry.test", &["127.0.0.1"]);
    let url = format!("http://registry.test:{port}/eureka/");
    let eureka = Eureka::builder().service_url(url).resolver(hosts).build().unwrap();
    let applications = eureka.transport().applications().await.unwrap();
    assert_eq!(applications.applications.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn response_body_without_progress_fails_after_the_body_timeout() {
    let (listener, port) = listen().await;
    let respond = async |uri: Uri| axum::body::Body::new(StreamBody::new(async_frames(uri.path() == "/stalls")));
    let router = axum::Router::new().fallback(respond);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let memory = register("127.0.0.1", "127.0.0.1", port);
    let options = CallOptions::new().body_timeout(5 * SECOND).retry(RetryPolicy::unsent_only());
    let client: Calls = Hosts::default().eureka(&memory).http_client_with(options);
    let get = |path: &str| Request::get(format!("http://orders{path}")).body(Full::default()).unwrap();
    // Slow, and always with progress.
    let response = client.request(get("/slow")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 10);
    let response = client.request(get("/stalls")).await.unwrap();
    let start = Instant::now();
    let error = response.into_body().collect().await.unwrap_err().to_string();
    assert!(error.contains("read the response of ORDERS (a)"), "{error}");
    assert!(error.contains("no progress within 5s"), "{error}");
    assert!((5..30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

/// Ten frames of one byte, two seconds apart. The stream stalls after five of them, or ends.
fn async_frames(stalls: bool) -> impl tokio_stream::Stream<Item = Result<http_body::Frame<Bytes>, Infallible>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for number in 0..10 {
            if stalls && number == 5 {
                std::future::pending::<()>().await;
            }
            sleep(2 * SECOND).await;
            let _ = sender.send(Ok(http_body::Frame::data(Bytes::from_static(b".")))).await;
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}
