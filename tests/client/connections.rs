//! Connections to instances: graceful shutdown, refused streams, stream limits, and instances that
//! hang or leave.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn as hyper_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_eureka::balance::{EndpointState, Snapshot};
use tower_eureka::client::{AttemptBody, CallOptions, EurekaLayer, HttpClient, WaitForReady};
use tower_eureka::model::InstanceStatus;
use tower_eureka::{Error, Eureka, Instance};

use crate::common::{Memory, Reply, Scripted, at, edited, list, listen, with_status};
use crate::raw_http2::{raw, reset};

type Calls = HttpClient<Full<Bytes>>;

/// Client of a registry with the instances in `memory`.
fn eureka(memory: &Memory) -> Eureka {
    memory.serve().client().delta(false).fetch_interval(Duration::from_secs(1)).build().unwrap()
}

fn eureka_of(instances: impl IntoIterator<Item = Instance>) -> Eureka {
    eureka(&Memory::of(instances))
}

fn request(method: Method, version: Version) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri("http://orders/").version(version).body(Full::from("pay")).unwrap()
}

async fn call(client: &Calls, method: Method, version: Version) -> Result<Bytes, Error> {
    let response = client.request(request(method, version)).await?;
    Ok(response.into_body().collect().await.unwrap().to_bytes())
}

fn available(snapshot: &Snapshot) -> usize {
    snapshot.count(EndpointState::Available)
}

const NO_ERROR: u8 = 0;
const INTERNAL_ERROR: u8 = 2;
const REFUSED_STREAM: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

/// Frames of a response 200 without a body.
fn ok([a, b, c, d]: [u8; 4]) -> Vec<u8> {
    vec![0, 0, 1, 1, 5, a, b, c, d, 0x88]
}

/// GOAWAY frame that excludes this stream.
fn go_away(stream: [u8; 4], reason: u8) -> Vec<u8> {
    let last = u32::from_be_bytes(stream).saturating_sub(2).to_be_bytes();
    [&[0, 0, 8, 7, 0, 0, 0, 0, 0], &last[..], &[0, 0, 0, reason]].concat()
}

type Refuse = fn([u8; 4]) -> Vec<u8>;

const REFUSALS: [(&str, Refuse); 3] = [
    ("REFUSED_STREAM", |stream| reset(stream, REFUSED_STREAM)),
    ("GOAWAY", |stream| go_away(stream, NO_ERROR)),
    ("GOAWAY(INTERNAL_ERROR)", |stream| go_away(stream, INTERNAL_ERROR)),
];

#[tokio::test]
async fn unprocessed_call_is_sent_again_to_the_same_instance() {
    for (name, refuse) in REFUSALS {
        for instances in [1, 3] {
            let mut list = Vec::new();
            for id in 0..instances {
                let respond = move |n, stream| if n % 10 == 9 { refuse(stream) } else { ok(stream) };
                list.push(at(&id.to_string(), raw(respond).await.0));
            }
            let client: Calls = eureka_of(list).http_client();
            for _ in 0..100 {
                call(&client, Method::POST, Version::HTTP_2).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(available(&client.snapshots()[0]), instances, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn call_to_an_instance_that_processes_nothing_succeeds_at_another_without_ejection() {
    for (name, refuse) in REFUSALS {
        let (refusing, _) = raw(move |_, stream| refuse(stream)).await;
        let client: Calls = eureka_of([at("a", refusing), at("b", raw(|_, stream| ok(stream)).await.0)]).http_client();
        for _ in 0..20 {
            call(&client, Method::POST, Version::HTTP_2).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(available(&client.snapshots()[0]), 2, "{name}");
    }
}

#[tokio::test]
async fn call_to_a_single_instance_that_processes_nothing_fails_as_unprocessed() {
    for (name, refuse) in REFUSALS {
        let (port, requests) = raw(move |_, stream| refuse(stream)).await;
        let client: Calls = eureka_of([at("a", port)]).http_client();
        let error = call(&client, Method::POST, Version::HTTP_2).await.unwrap_err();
        assert!(error.is_unprocessed() && error.is_unavailable() && !error.is_connect(), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("did not process the request") && !text.contains("cannot connect"), "{name}: {text}");
        assert!(!text.contains("not a result of an error"), "{name}: {text}");
        assert!((3..10).contains(&requests.load(Ordering::SeqCst)), "{name}: {requests:?}");
        assert_eq!(available(&client.snapshots()[0]), 1, "{name}");
    }
}

#[tokio::test]
async fn instance_that_sends_enhance_your_calm_gets_no_further_attempt() {
    let (port, requests) = raw(|_, stream| go_away(stream, ENHANCE_YOUR_CALM)).await;
    let client: Calls = eureka_of([at("a", port)]).http_client();
    let error = call(&client, Method::GET, Version::HTTP_2).await.unwrap_err();
    assert!(error.to_string().contains("ENHANCE_YOUR_CALM"), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let client: Calls = eureka_of([at("a", port), at("b", raw(|_, stream| ok(stream)).await.0)]).http_client();
    for _ in 0..10 {
        call(&client, Method::POST, Version::HTTP_2).await.unwrap();
    }
}

/// Starts a stock HTTP/2 server that echoes, and shuts each connection down gracefully after this
/// number of requests.
async fn ending(requests: usize) -> u16 {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (count, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
                let reached = enough.clone();
                let service = hyper_fn(move |request: Request<hyper::body::Incoming>| {
                    if count.fetch_add(1, Ordering::SeqCst) + 1 == requests {
                        reached.notify_one();
                    }
                    async move {
                        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        Ok::<_, Infallible>(Response::new(Full::new(body)))
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
                tokio::select! {
                    _ = serving.as_mut() => return,
                    () = enough.notified() => {}
                }
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_connections_that_end_gracefully_succeed_without_ejection() {
    for instances in [1, 3] {
        let mut list = Vec::new();
        for id in 0..instances {
            list.push(at(&id.to_string(), ending(20).await));
        }
        let client: Calls = eureka_of(list).http_client();
        let mut tasks = JoinSet::new();
        for _ in 0..16 {
            let client = client.clone();
            tasks.spawn(async move {
                for _ in 0..100 {
                    assert_eq!(call(&client, Method::POST, Version::HTTP_2).await.unwrap(), "pay");
                    assert_eq!(available(&client.snapshots()[0]), instances);
                }
            });
        }
        tasks.join_all().await;
    }
}

#[tokio::test]
async fn unprocessed_call_of_the_service_below_is_sent_again() {
    for (name, refuse) in REFUSALS {
        let (port, _) = raw(move |n, stream| if n % 10 == 9 { refuse(stream) } else { ok(stream) }).await;
        let below = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<AttemptBody<Full<Bytes>>>();
        let client = EurekaLayer::new(&eureka_of([at("a", port)])).layer(below);
        for _ in 0..50 {
            let sent = client.clone().oneshot(request(Method::POST, Version::HTTP_11)).await;
            sent.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(available(&client.snapshots()[0]), 1, "{name}");
        }
    }
}

/// Starts a server that accepts connections and sends nothing.
async fn frozen() -> u16 {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            kept.push(listener.accept().await.unwrap());
        }
    });
    port
}

#[tokio::test(start_paused = true)]
async fn call_over_http2_to_a_frozen_instance_succeeds_at_another() {
    let client: Calls = eureka_of([at("a", frozen().await), at("b", ending(usize::MAX).await)]).http_client();
    for _ in 0..10 {
        assert_eq!(call(&client, Method::POST, Version::HTTP_2).await.unwrap(), "pay");
    }
    assert_eq!(available(&client.snapshots()[0]), 1);
}

#[tokio::test(start_paused = true)]
async fn pending_call_at_an_instance_that_left_fails_or_is_repeated_at_another() {
    let memory = Memory::of([at("a", frozen().await)]);
    let eureka = eureka(&memory);
    let client: Calls = eureka.http_client();
    let waiting = |method| {
        let client = client.clone();
        tokio::spawn(async move { call(&client, method, Version::HTTP_11).await })
    };
    let (post, get) = (waiting(Method::POST), waiting(Method::GET));
    sleep(Duration::from_secs(600)).await;
    assert!(!post.is_finished() && !get.is_finished(), "a long poll has no time limit");
    let left = Instant::now();
    memory.remove("a");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    memory.put(at("b", listener.local_addr().unwrap().port()));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let error = post.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("left the registry and did not respond within 30s"), "{error}");
    assert!((30..35).contains(&left.elapsed().as_secs()), "{:?}", left.elapsed());
    assert_eq!(get.await.unwrap().unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn pending_call_over_http2_at_an_instance_that_left_fails() {
    let memory = Memory::of([at("a", raw(|_, _| Vec::new()).await.0)]);
    let eureka = eureka(&memory);
    let client: Calls = eureka.http_client();
    let waiting = tokio::spawn(async move { call(&client, Method::POST, Version::HTTP_2).await });
    sleep(Duration::from_secs(60)).await;
    let left = Instant::now();
    replace(&memory, "a", "b");
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("left the registry and did not respond within 30s"), "{error}");
    assert!((30..35).contains(&left.elapsed().as_secs()), "{:?}", left.elapsed());
}

/// Replaces an instance by another one. An empty list would look like a restarted registry.
fn replace(memory: &Memory, old: &str, new: &str) {
    memory.remove(old);
    memory.put(at(new, 1));
}

#[tokio::test(start_paused = true)]
async fn pending_call_of_a_layer_at_an_instance_that_left_fails() {
    let seconds = Duration::from_secs;
    for (grace, is_drained, ends) in [
        (seconds(100), false, 100..105),
        (Duration::ZERO, false, 0..5),
        // The grace time starts with the removal, or up to one grace time after it.
        (seconds(100), true, 100..205),
        (Duration::ZERO, true, 0..5),
    ] {
        let memory = Memory::of([at("a", 1)]);
        let service = service_fn(|_: Request<AttemptBody<Full<Bytes>>>| {
            std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
        });
        let options = CallOptions::new().removal_grace(grace);
        let client = EurekaLayer::new(&eureka(&memory)).options(options).layer(service);
        let waiting = tokio::spawn(client.oneshot(request(Method::POST, Version::HTTP_11)));
        sleep(seconds(600)).await;
        if is_drained {
            memory.put(with_status(&at("a", 1), InstanceStatus::OutOfService));
            sleep(seconds(250)).await;
            assert!(!waiting.is_finished(), "{grace:?}");
        }
        let left = Instant::now();
        replace(&memory, "a", "b");
        let error = waiting.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("call ORDERS (a): the instance left the registry"), "{error}");
        assert!(ends.contains(&left.elapsed().as_secs()), "{grace:?} {is_drained}: {:?}", left.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn pending_call_with_unlimited_removal_grace_continues_after_the_instance_left() {
    let memory = Memory::of([at("a", frozen().await)]);
    let client: Calls = eureka(&memory).http_client_with(CallOptions::new().removal_grace(Duration::MAX));
    let waiting = tokio::spawn(async move { call(&client, Method::POST, Version::HTTP_11).await });
    sleep(Duration::from_secs(60)).await;
    replace(&memory, "a", "b");
    sleep(Duration::from_secs(600)).await;
    assert!(!waiting.is_finished());
}

/// Starts a server that responds after five minutes.
async fn slow() -> u16 {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                sleep(Duration::from_secs(300)).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ns").await;
            });
        }
    });
    port
}

/// Returns the instance as registered at this time, in milliseconds since the epoch.
fn registered_at(instance: &Instance, time: i64) -> Instance {
    edited(instance, |json| {
        json["lastDirtyTimestamp"] = time.to_string().into();
        json["leaseInfo"] = serde_json::json!({
            "renewalIntervalInSecs": 30, "durationInSecs": 90, "registrationTimestamp": time,
            "lastRenewalTimestamp": time, "evictionTimestamp": 0, "serviceUpTimestamp": time,
        });
    })
}

#[tokio::test(start_paused = true)]
async fn pending_call_at_an_instance_that_stays_registered_gets_its_response() {
    for event in ["out of service", "down for five seconds", "registered again", "moved to another VIP address"] {
        for is_layer in [false, true] {
            let start = Instant::now();
            let instance = registered_at(&at("a", slow().await), 1_760_000_000_000);
            let memory = Memory::of([instance.clone()]);
            let eureka = eureka(&memory);
            let waiting = tokio::spawn(async move {
                if !is_layer {
                    return call(&eureka.http_client(), Method::POST, Version::HTTP_11).await;
                }
                let below = Client::builder(TokioExecutor::new()).build_http::<AttemptBody<Full<Bytes>>>();
                let layer = EurekaLayer::new(&eureka).layer(below);
                let response = layer.oneshot(request(Method::POST, Version::HTTP_11)).await?;
                Ok(response.into_body().collect().await.unwrap().to_bytes())
            });
            sleep(Duration::from_secs(10)).await;
            match event {
                "out of service" => memory.put(with_status(&instance, InstanceStatus::OutOfService)),
                "down for five seconds" => {
                    memory.put(with_status(&instance, InstanceStatus::Down));
                    sleep(Duration::from_secs(5)).await;
                    memory.put(instance);
                }
                "registered again" => memory.put(registered_at(&instance, 1_760_000_300_000)),
                _ => {
                    memory.put(at("b", 1));
                    memory.put(edited(&instance, |json| json["vipAddress"] = "other-vip".into()));
                }
            }
            let response = waiting.await.unwrap();
            assert_eq!(response.unwrap_or_else(|error| panic!("{event}, {is_layer}: {error}")), "s");
            assert!((300..310).contains(&start.elapsed().as_secs()), "{event}, {is_layer}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_clients_leave_no_task() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    {
        let eureka = eureka_of((0..50).map(|id| at(&id.to_string(), 1)));
        assert!(call(&eureka.http_client(), Method::POST, Version::HTTP_11).await.is_err());
        let below = service_fn(|_: Request<AttemptBody<Full<Bytes>>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let layer = EurekaLayer::new(&eureka).layer(below);
        layer.oneshot(request(Method::POST, Version::HTTP_11)).await.unwrap();
        assert!(metrics.num_alive_tasks() > before);
    }
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(metrics.num_alive_tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn response_whose_head_has_come_is_read_to_its_end_after_the_instance_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let memory = Memory::of([at("a", listener.local_addr().unwrap().port())]);
    let eureka = eureka(&memory);
    let client: Calls = eureka.http_client();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await.unwrap();
        sleep(Duration::from_secs(300)).await;
        stream.write_all(b"b").await.unwrap();
    });
    let response = client.request(request(Method::GET, Version::HTTP_11)).await.unwrap();
    replace(&memory, "a", "b");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ab");
}

#[tokio::test(start_paused = true)]
async fn calls_refused_by_all_instances_stay_within_the_cap_and_the_budget() {
    let eureka = eureka_of((1..=500).map(|port| at(&port.to_string(), port)));
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let service = service_fn(move |_: Request<AttemptBody<Full<Bytes>>>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Err::<Response<Full<Bytes>>, BoxError>(io::Error::from(io::ErrorKind::ConnectionRefused).into()) }
    });
    let client = EurekaLayer::new(&eureka).options(CallOptions::new()).layer(service);
    for calls in 1..=100 {
        assert!(client.clone().oneshot(request(Method::POST, Version::HTTP_11)).await.is_err());
        assert!(attempts.load(Ordering::SeqCst) <= calls * 11);
    }
    // Four attempts each, a fifth of the calls, and 10 per second for ten seconds.
    let attempts = attempts.load(Ordering::SeqCst);
    assert!((400..=400 + 20 + 100).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn call_that_waits_for_ready_continues_while_there_is_no_instance() {
    let start = Instant::now();
    let other = Instance::builder("other").id("x").ip_addr("127.0.0.1").port(1).build().unwrap();
    let registry = Scripted::new(move |_| {
        let orders = match start.elapsed().as_secs() {
            0..5 => at("old", 1),
            5..8 => with_status(&at("old", 1), InstanceStatus::Down),
            _ => at("new", 2),
        };
        Reply::Json(list(&[other.clone(), orders]))
    });
    let eureka = registry.client().delta(false).fetch_interval(Duration::from_secs(1)).build().unwrap();
    let service = service_fn(|request: Request<AttemptBody<Full<Bytes>>>| async move {
        match request.uri().port_u16() {
            Some(1) => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            _ => Ok(Response::new(Full::<Bytes>::default())),
        }
    });
    let client = EurekaLayer::new(&eureka).layer(service);
    let mut waiting = request(Method::GET, Version::HTTP_11);
    waiting.extensions_mut().insert(WaitForReady(Duration::from_secs(60)));
    client.clone().oneshot(waiting).await.unwrap();
    assert!((8..12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());

    // It waits no longer than `WaitForReady`.
    let mut waiting = request(Method::GET, Version::HTTP_11);
    *waiting.uri_mut() = "http://other/".parse().unwrap();
    waiting.extensions_mut().insert(WaitForReady(Duration::from_secs(60)));
    let start = Instant::now();
    assert!(client.clone().oneshot(waiting).await.unwrap_err().is_connect());
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn call_with_zero_wait_finds_the_instances_of_a_loaded_cache() {
    let eureka = eureka_of([at("a", 1)]);
    while eureka.snapshot().instance_count() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let service = service_fn(|_: Request<AttemptBody<Full<Bytes>>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let client = EurekaLayer::new(&eureka).layer(service);
    let mut request = request(Method::GET, Version::HTTP_11);
    request.extensions_mut().insert(WaitForReady(Duration::ZERO));
    let start = Instant::now();
    client.oneshot(request).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn http2_request_to_an_http1_instance_falls_back_except_for_grpc() {
    let (listener, port) = listen().await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let service = hyper_fn(|request: Request<hyper::body::Incoming>| async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let client: Calls = eureka_of([at("a", port)]).http_client();
    let mut grpc = request(Method::POST, Version::HTTP_2);
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let error = client.request(grpc).await.unwrap_err();
    assert!(error.is_connect() && error.to_string().contains("HTTP/2"), "{error}");
    let client: Calls = eureka_of([at("a", port)]).http_client();
    for _ in 0..5 {
        assert_eq!(call(&client, Method::POST, Version::HTTP_2).await.unwrap(), "pay");
    }
    assert!(accepted.load(Ordering::SeqCst) < 6, "HTTP/2 is tried once only");
    let mut grpc = request(Method::POST, Version::HTTP_2);
    grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    assert!(client.request(grpc).await.unwrap_err().is_connect(), "gRPC is never sent over HTTP/1.1");
}

#[tokio::test]
async fn call_to_an_instance_whose_ports_are_both_disabled_uses_the_plain_one() {
    let port = ending(usize::MAX).await;
    for (plain, secure, reason) in [
        (port, 0, None),
        (port, 8443, None),
        (0, 8443, Some("a without a usable address (both its ports are disabled)")),
        (0, 0, Some("a without a usable address (both its ports are disabled)")),
    ] {
        let json = format!(
            r#"{{"instance":{{"instanceId":"a","app":"ORDERS","hostName":"127.0.0.1","ipAddr":"127.0.0.1","status":"UP",
            "vipAddress":"orders","port":{{"$":{plain},"@enabled":"false"}},"securePort":{{"$":{secure},"@enabled":"false"}},
            "dataCenterInfo":{{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"}}}}}}"#
        );
        let eureka = eureka_of([Instance::from_json(json.as_bytes()).unwrap()]);
        while eureka.snapshot().instance_count() == 0 {
            tokio::task::yield_now().await;
        }
        let mut request = request(Method::POST, Version::HTTP_2);
        request.extensions_mut().insert(WaitForReady(Duration::ZERO));
        let called = eureka.http_client().request(request).await;
        match reason {
            None => assert!(called.is_ok(), "{plain} {secure}: {called:?}"),
            Some(reason) => assert!(called.unwrap_err().to_string().contains(reason), "{plain} {secure}"),
        }
    }
}

#[tokio::test]
async fn connections_that_end_at_once_are_few_while_another_has_no_free_stream() {
    let (listener, port) = listen().await;
    let connects = Arc::new(AtomicUsize::new(0));
    let count = connects.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            // The first connection has one stream. The others end after their SETTINGS.
            let limit = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
            let rest = if is_first { Vec::new() } else { go_away([0, 0, 0, 1], NO_ERROR) };
            tokio::spawn(async move {
                socket.write_all(&[&limit[..], &rest].concat()).await?;
                tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
            });
        }
    });
    let client: Calls = eureka_of([at("a", port)]).http_client();
    let first = tokio::spawn(client.request(request(Method::GET, Version::HTTP_2)));
    while connects.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let error = call(&client, Method::GET, Version::HTTP_2).await.unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(connects.load(Ordering::SeqCst) < 20, "{connects:?}");
    first.abort();
}
