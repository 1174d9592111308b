//! Real servers as instances, each with a habit of ending connections or refusing streams: mostly 10,000 calls by name, 32 at a time.
//!
//! None of these habits is a fault of the instance: no call may fail, and no instance may be ejected.

mod hyper;
mod nginx;
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
/// Calls of scenarios that differ little from others.
const FEWER_CALLS: usize = 3_000;
const CONCURRENCY: usize = 32;
/// Bound of one call. Calls without a deadline would hide an endless wait until the bound of the scenario.
const CALL: Duration = Duration::from_secs(10);
/// Bound of all calls of a scenario. They take a few seconds.
const RUN: Duration = Duration::from_secs(90);

/// A registry in this process, and a client of it.
struct World {
    /// Service URL of the registry.
    url: String,
    eureka: Eureka,
}

impl World {
    async fn new() -> Self {
        let registry = EurekaServer::builder().build().expect("the defaults are valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}/eureka/", listener.local_addr().expect("it is bound"));
        let router = Router::new().nest("/eureka", registry.router());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let builder = Eureka::builder().service_url(&url).fetch_interval(Duration::from_millis(100));
        let eureka = builder.ready_timeout(Duration::from_secs(20)).build().expect("the URL is valid");
        Self { url, eureka }
    }

    async fn register(&self, app: &str, id: &str, port: u16) {
        let instance = Instance::builder(app).id(id).ip_addr("127.0.0.1").port(port).build().expect("it is valid");
        self.eureka.transport().register(&instance).await.expect("the registry is there");
    }
}

/// Outcome of a run.
#[derive(Default)]
struct Run {
    succeeded: AtomicUsize,
    /// Failed calls, by the text of their error.
    failures: Mutex<BTreeMap<String, usize>>,
    /// Endpoints that were not available at some moment, with state and cause.
    ejected: Mutex<BTreeMap<String, usize>>,
}

impl Run {
    fn fail(&self, error: String) {
        *self.failures.lock().expect("no holder panics").entry(error).or_default() += 1;
    }

    fn look(&self, snapshots: &[Snapshot]) {
        for endpoint in snapshots.iter().flat_map(Snapshot::endpoints) {
            if endpoint.state() != EndpointState::Available {
                let line = format!("{} {:?} {:?}", endpoint.id(), endpoint.state(), endpoint.cause());
                *self.ejected.lock().expect("no holder panics").entry(line).or_default() += 1;
            }
        }
    }

    /// Prints the outcome, and fails unless all calls succeeded and no endpoint was ever ejected.
    fn assert_flawless(&self, name: &str, calls: usize, start: Instant) {
        let (succeeded, took) = (self.succeeded.load(Relaxed), start.elapsed());
        let failures = self.failures.lock().expect("no holder panics");
        let ejected = self.ejected.lock().expect("no holder panics");
        let failed: usize = failures.values().sum();
        eprintln!("{name}: {succeeded} succeeded, {failed} failed, {} ejections seen, {took:.1?}", ejected.len());
        assert!(failures.is_empty() && ejected.is_empty(), "{name}: failed: {failures:#?}, ejected: {ejected:#?}");
        assert_eq!(succeeded, calls, "{name}");
    }
}

/// Makes all calls, and looks at the endpoints meanwhile.
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
    let looks = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            run.look(&snapshots());
        }
    };
    let done = async { while callers.join_next().await.transpose().expect("no caller panics").is_some() {} };
    tokio::select! {
        () = done => {}
        () = looks => {}
        () = tokio::time::sleep(RUN) => run.fail(format!("the run is not over within {RUN:?}")),
    }
    run.look(&snapshots());
    run.assert_flawless(name, calls, start);
}

/// Methods of the calls.
#[derive(Clone, Copy, PartialEq)]
enum Methods {
    Get,
    /// GET and POST in turn.
    GetAndPost,
}

/// Calls an application by name over this version of HTTP.
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

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Says on the standard error, past the capture of the test harness, that a scenario is skipped.
fn skip(name: &str, reason: &str) {
    let line = format!("!!! SKIPPED: {name}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("the standard error takes text");
}
