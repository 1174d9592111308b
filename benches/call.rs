//! Compares a call by name with the same call to a fixed address, over real connections on
//! loopback.
//!
//! Both clients call the same server, which responds at once, with the same number of tasks. Runs
//! alternate, and the medians of the runs are compared. tonic's balanced channel is measured with
//! the same bytes, over HTTP/2 only.
//!
//! A number as argument limits the run to this number of tasks:
//! `cargo bench --features client,server --bench call -- 64`.
#![allow(clippy::print_stdout, reason = "a bench reports to a person")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_eureka::{Eureka, EurekaServer, Instance};

/// Number of runs for each client.
const RUNS: usize = 20;
/// Length of one run.
const RUN: Duration = Duration::from_millis(500);

type Call = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn main() {
    // `cargo bench -- --test` and `cargo test --benches` only check that the bench works.
    let quick = std::env::args().any(|arg| arg == "--test");
    // The server has a runtime of its own, so that its work does not interleave with the client's.
    let server =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime starts");
    let client =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime starts");
    let port = server.block_on(serve());
    let url = server.block_on(registry());
    let tasks = std::env::args().find_map(|arg| arg.parse().ok()).map_or(vec![1, 16, 64], |tasks| vec![tasks]);
    client.block_on(measure(port, url, &tasks, if quick { (1, Duration::from_millis(20)) } else { (RUNS, RUN) }));
}

async fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is bindable");
    let port = listener.local_addr().expect("listener is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello")))) });
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    port
}

async fn registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is bindable");
    let url = format!("http://{}/eureka/", listener.local_addr().expect("listener is bound"));
    let router = EurekaServer::builder().build().expect("defaults are valid").router();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().nest("/eureka", router)).await });
    url
}

async fn measure(port: u16, url: String, tasks: &[usize], (runs, run): (usize, Duration)) {
    let eureka = Eureka::builder().service_url(url).build().expect("client settings are valid");
    let instance = Instance::builder("orders").ip_addr("127.0.0.1").port(port).build().expect("instance is valid");
    eureka.transport().register(&instance).await.expect("registry accepts the instance");

    println!("call by name compared with a call to a fixed address, medians of {runs} alternating runs of {run:?}");
    println!(
        "{:>9} {:>6} {:>14} {:>14} {:>7} {:>22}",
        "version", "tasks", "fixed, us", "by name, us", "ratio", "tonic's channel, us"
    );
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let fixed = fixed(port, version);
        let named = named(&eureka, version);
        let tonic = (version == Version::HTTP_2).then(|| tonic(port));
        for &tasks in tasks {
            let mut calls = vec![fixed.clone(), named.clone()];
            calls.extend(tonic.clone());
            let mut times = vec![Vec::new(); calls.len()];
            for number in 0..=runs {
                // Rotates the order.
                for at in 0..calls.len() {
                    let which = (at + number) % calls.len();
                    let time = time_per_call(calls[which].clone(), tasks, run).await;
                    // The first round is the warm-up.
                    if number > 0 || runs == 1 {
                        times[which].push(time);
                    }
                }
            }
            let medians: Vec<f64> = times.iter().map(|times| median(times)).collect();
            let ratios: Vec<f64> = times[1].iter().zip(&times[0]).map(|(named, fixed)| named / fixed).collect();
            let tonic = medians.get(2).map_or_else(String::new, |time| format!("{time:.2}"));
            println!(
                "{:>9} {tasks:>6} {:>14.2} {:>14.2} {:>7.3} {tonic:>22}",
                format!("{version:?}"),
                medians[0],
                medians[1],
                median(&ratios)
            );
        }
    }
}

fn fixed(port: u16, version: Version) -> Call {
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .http2_only(version == Version::HTTP_2)
        .build_http::<Full<Bytes>>();
    let uri: http::Uri = format!("http://127.0.0.1:{port}/v1/42").parse().expect("URI is valid");
    Arc::new(move || {
        let request = Request::get(uri.clone()).version(version).body(Full::default()).expect("request is valid");
        let response = client.request(request);
        Box::pin(async move {
            let response = response.await.expect("call succeeds");
            assert_eq!(response.into_body().collect().await.expect("body is complete").to_bytes(), "hello");
        })
    })
}

fn named(eureka: &Eureka, version: Version) -> Call {
    let client = eureka.http_client::<Full<Bytes>>();
    let uri = http::Uri::from_static("http://orders/v1/42");
    Arc::new(move || {
        let request = Request::get(uri.clone()).version(version).body(Full::default()).expect("request is valid");
        let response = client.request(request);
        Box::pin(async move {
            let response = response.await.expect("call succeeds");
            assert_eq!(response.into_body().collect().await.expect("body is complete").to_bytes(), "hello");
        })
    })
}

/// Calls through tonic's balanced channel with one endpoint.
fn tonic(port: u16) -> Call {
    let (channel, endpoints) = tonic::transport::Channel::balance_channel::<u16>(16);
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("endpoint is valid");
    endpoints.try_send(tonic::transport::channel::Change::Insert(port, endpoint)).expect("channel has capacity");
    // Dropping the sender would end discovery.
    let endpoints = Arc::new(endpoints);
    Arc::new(move || {
        let (channel, endpoints) = (channel.clone(), endpoints.clone());
        Box::pin(async move {
            let request = Request::get("/v1/42").version(Version::HTTP_2).body(tonic::body::Body::empty());
            let response = channel.oneshot(request.expect("request is valid")).await.expect("call succeeds");
            assert_eq!(response.into_body().collect().await.expect("body is complete").to_bytes(), "hello");
            drop(endpoints);
        })
    })
}

/// Microseconds per call, across all tasks.
async fn time_per_call(call: Call, tasks: usize, run: Duration) -> f64 {
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut calls = 0_u64;
                while start.elapsed() < run {
                    call().await;
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let mut calls = 0;
    for task in tasks {
        calls += task.await.expect("task does not panic");
    }
    start.elapsed().as_secs_f64() * 1e6 / calls as f64
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
