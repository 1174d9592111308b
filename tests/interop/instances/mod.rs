//! Calls by name to real servers that close connections or refuse streams: up to 10,000 calls, 32
//! at a time. None of this is a fault of the instance: no call may fail, and no instance may be
//! ejected.
//!
//! `spring_addresses` calls Spring applications that are hard to reach.

mod hyper;
mod nginx;
#[cfg(feature = "tls")]
mod spring_addresses;
mod tomcat;
#[cfg(feature = "tonic")]
mod tonic;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_eureka::balance::{EndpointState, Snapshot};
use tower_eureka::client::HttpClient;
use tower_eureka::{Eureka, EurekaServer, Instance};

const CALLS: usize = 10_000;
/// Number of calls of tests that differ little from others.
const FEWER_CALLS: usize = 3_000;
const CONCURRENCY: usize = 32;
/// Time limit of one call. Without it, a call that hangs would show only at the limit of the run.
const CALL: Duration = Duration::from_secs(10);
/// Time limit of all calls of a test. They take a few seconds.
const RUN: Duration = Duration::from_secs(90);

/// Registry in this process, and a client of it.
struct Fixture {
    /// Service URL of the registry.
    url: String,
    eureka: Eureka,
}

impl Fixture {
    async fn new() -> Self {
        let registry = EurekaServer::builder().build().expect("the defaults are valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}/eureka/", listener.local_addr().expect("listener is bound"));
        let router = Router::new().nest("/eureka", registry.router());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let builder = Eureka::builder().service_url(&url).fetch_interval(Duration::from_millis(100));
        let eureka = builder.ready_timeout(Duration::from_secs(20)).build().expect("the URL is valid");
        Self { url, eureka }
    }

    async fn register(&self, app: &str, id: &str, port: u16) {
        let instance =
            Instance::builder(app).id(id).ip_addr("127.0.0.1").port(port).build().expect("instance is valid");
        self.eureka.transport().register(&instance).await.expect("registration succeeds");
    }
}

/// Result of a run.
#[derive(Default)]
struct Run {
    succeeded: AtomicUsize,
    /// Failed calls, by the text of their error.
    failures: Mutex<BTreeMap<String, usize>>,
    /// Endpoints that were unavailable at some time, with state and cause.
    ejected: Mutex<BTreeMap<String, usize>>,
}

impl Run {
    fn fail(&self, error: String) {
        *self.failures.lock().expect("mutex is not poisoned").entry(error).or_default() += 1;
    }

    fn observe(&self, snapshots: &[Snapshot]) {
        for endpoint in snapshots.iter().flat_map(Snapshot::endpoints) {
            if endpoint.state() != EndpointState::Available {
                let line = format!("{} {:?} {:?}", endpoint.id(), endpoint.state(), endpoint.cause());
                *self.ejected.lock().expect("mutex is not poisoned").entry(line).or_default() += 1;
            }
        }
    }

    /// Prints the result. Panics unless all calls succeeded and no endpoint was ejected.
    fn assert_flawless(&self, name: &str, calls: usize, start: Instant) {
        let (succeeded, took) = (self.succeeded.load(Relaxed), start.elapsed());
        let failures = self.failures.lock().expect("mutex is not poisoned");
        let ejected = self.ejected.lock().expect("mutex is not poisoned");
        let failed: usize = failures.values().sum();
        eprintln!("{name}: {succeeded} succeeded, {failed} failed, {} ejections seen, {took:.1?}", ejected.len());
        assert!(failures.is_empty() && ejected.is_empty(), "{name}: failed: {failures:#?}, ejected: {ejected:#?}");
        assert_eq!(succeeded, calls, "{name}");
    }
}

/// Makes all calls, and observes the endpoints during the run.
async fn run<C, F>(name: &str, calls: usize, snapshots: impl Fn() -> Vec<Snapshot>, call: C)
where
    C: Fn(usize) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), String>> + Send,
{
    let (run, next, start) = (Arc::new(Run::default()), Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (run, next, call) = (run.clone(), next.clone(), call.clone());
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= calls {
                    return;
                }
                match tokio::time::timeout(CALL, call(number)).await {
                    Ok(Ok(())) => drop(run.succeeded.fetch_add(1, Relaxed)),
                    Ok(Err(error)) => run.fail(error),
                    Err(_) => run.fail(format!("no response within {CALL:?}")),
                }
            }
        });
    }
    let observer = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            run.observe(&snapshots());
        }
    };
    let done = async { while callers.join_next().await.transpose().expect("no caller panics").is_some() {} };
    tokio::select! {
        () = done => {}
        () = observer => {}
        () = tokio::time::sleep(RUN) => run.fail(format!("the run is not over within {RUN:?}")),
    }
    run.observe(&snapshots());
    run.assert_flawless(name, calls, start);
}

/// Methods of the calls.
#[derive(Clone, Copy, PartialEq)]
enum Methods {
    Get,
    /// GET and POST alternately.
    GetAndPost,
}

/// Calls an application by name with this version of HTTP.
async fn call_by_name(
    name: &str,
    calls: usize,
    client: HttpClient<Full<Bytes>>,
    uri: &'static str,
    version: Version,
    methods: Methods,
) {
    let snapshots = {
        let client = client.clone();
        move || client.snapshots()
    };
    run(name, calls, snapshots, move |number| {
        let client = client.clone();
        let builder = Request::builder().uri(uri).version(version);
        let request = if methods == Methods::GetAndPost && number % 2 == 1 {
            builder.method(Method::POST).body(Full::from("body"))
        } else {
            builder.body(Full::default())
        };
        async move {
            let response = client.request(request.expect("the URI is valid")).await.map_err(|error| chain(&error))?;
            let status = response.status();
            response.into_body().collect().await.map_err(|error| format!("body: {error}"))?;
            if status.is_success() { Ok(()) } else { Err(status.to_string()) }
        }
    })
    .await;
}

/// Formats an error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Reports a skipped test on the standard error, past the capture of the test harness.
fn skip(name: &str, reason: &str) {
    let line = format!("!!! SKIPPED: {name}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is writable");
}
