//! Restarts four instances of `orders` one after the other under load: `cargo run --release
//! --example rolling_restart --all-features`.
//!
//! Two callers share the load of 2,000 requests per second: the client of this crate, and a plain
//! HTTP client that reads the registry every second and calls each instance in turn, without any
//! retry. The example ends after 100,000 calls with `calls: N, failed: 0`, and with an error if a
//! call failed. The argument `short` makes 10,000 calls at 500 per second. Two numbers set the rate
//! and the number of calls. A machine that is too slow for the rate makes the calls more slowly.
#![allow(clippy::print_stdout, reason = "an example that narrates")]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tower::{BoxError, ServiceExt};
use tower_eureka::client::HttpClient;
use tower_eureka::register::RegistrarState;
use tower_eureka::{Eureka, EurekaServer, Instance};

/// Number of instances.
const INSTANCES: usize = 4;
/// Maximum number of calls in flight. More of them would only wait for each other.
const MAX_IN_FLIGHT: usize = 256;
/// Maximum time of a call, after which it counts as failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (rate, calls, quiet) = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (2_000, 100_000, Duration::from_secs(5)),
        ["short"] => (500, 10_000, Duration::from_secs(2)),
        [rate, calls] => (rate.parse()?, calls.parse()?, Duration::from_secs(5)),
        _ => return Err("usage: rolling_restart [short | RATE CALLS]".into()),
    };
    let router = Router::new().nest("/eureka", EurekaServer::builder().build()?.router());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/eureka/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let eureka = Eureka::builder().service_url(&url).fetch_interval(Duration::from_secs(1)).build()?;
    let mut fleet = Vec::new();
    for number in 0..INSTANCES {
        fleet.push(Running::start(&eureka, number, 0, quiet).await?);
    }
    let plain = Plain::start(&url).await?;
    let load = tokio::spawn(load(rate, calls, eureka.http_client(), plain));
    let start = Instant::now();
    // The callers start first.
    sleep(Duration::from_secs(2)).await;
    let mut restarts = 0;
    while restarts < INSTANCES || !load.is_finished() {
        let number = restarts % INSTANCES;
        let port = fleet[number].port;
        let stopping = Instant::now();
        fleet[number].stop().await?;
        println!("{:5.1} s  orders-{number} has stopped after {:?}", start.elapsed().as_secs_f32(), stopping.elapsed());
        // A process needs some time to start.
        sleep(Duration::from_millis(500)).await;
        fleet[number] = Running::start(&eureka, number, port, quiet).await?;
        restarts += 1;
    }
    let tally = load.await?;
    for mut instance in fleet {
        instance.stop().await?;
    }
    println!("restarts: {restarts}, calls by name: {}, plain calls: {}", tally.by_name, tally.plain);
    for failure in tally.failures.iter().take(20) {
        println!("failed: {failure}");
    }
    println!("calls: {}, failed: {}", tally.by_name + tally.plain, tally.failures.len());
    if tally.failures.is_empty() { Ok(()) } else { Err("calls failed".into()) }
}

/// A registered server of `orders`.
struct Running {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Starts a server and waits until it is registered.
    async fn start(eureka: &Eureka, number: usize, port: u16, quiet: Duration) -> Result<Self, BoxError> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let id = format!("orders-{number}");
        let instance = Instance::builder("orders").id(id.as_str()).ip_addr("127.0.0.1").port(port).build()?;
        let registrar = eureka.registrar(instance).quiet_time(quiet);
        let mut state = registrar.state();
        let app = Router::new().route("/", get(async move || work(id).await)).layer(registrar.layer());
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = async { drop(stopped.await) };
        let serving =
            tokio::spawn(registrar.serve(signal, |stop| axum::serve(listener, app).with_graceful_shutdown(stop)));
        state.wait_for(|state| *state == RegistrarState::Registered).await?;
        Ok(Self { port, stop: Some(stop), serving })
    }

    /// Sends the signal and waits until the server has left.
    async fn stop(&mut self) -> Result<(), BoxError> {
        drop(self.stop.take());
        Ok((&mut self.serving).await??)
    }
}

/// Handles a call in 5 milliseconds.
async fn work(id: String) -> String {
    sleep(Duration::from_millis(5)).await;
    id
}

/// Caller without this crate: it reads the registry every second, and calls each UP instance in
/// turn.
#[derive(Clone)]
struct Plain {
    client: Client<HttpConnector, Empty<Bytes>>,
    urls: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicUsize>,
}

impl Plain {
    async fn start(registry: &str) -> Result<Self, BoxError> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let this = Self { client, urls: Arc::default(), next: Arc::default() };
        let (polling, list) = (this.clone(), format!("{registry}apps/ORDERS"));
        polling.poll(&list).await?;
        tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(1)).await;
                if let Err(error) = polling.poll(&list).await {
                    println!("cannot read the registry: {error}");
                }
            }
        });
        Ok(this)
    }

    /// Reads the registry once.
    async fn poll(&self, list: &str) -> Result<(), BoxError> {
        let request = Request::get(list).header("accept", "application/json").body(Empty::new())?;
        let body = self.client.request(request).await?.into_body().collect().await?.to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body)?;
        let instances = json["application"]["instance"].as_array().ok_or("no list of instances")?;
        let up = instances.iter().filter(|instance| instance["status"] == "UP");
        *self.urls.lock().expect("no user of the lock panics") =
            up.map(|instance| format!("http://{}:{}/", text(&instance["ipAddr"]), instance["port"]["$"])).collect();
        Ok(())
    }

    async fn call(&self) -> Result<(), BoxError> {
        let url = {
            let urls = self.urls.lock().expect("no user of the lock panics");
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            urls.get(next % urls.len().max(1)).cloned().ok_or("the registry has no instance")?
        };
        let response = self.client.request(Request::get(&url).body(Empty::new())?).await?;
        let status = response.status();
        response.into_body().collect().await?;
        checked(status)
    }
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn checked(status: StatusCode) -> Result<(), BoxError> {
    if status.is_success() { Ok(()) } else { Err(status.to_string().into()) }
}

async fn call_by_name(client: HttpClient<Empty<Bytes>>) -> Result<(), BoxError> {
    let response = client.oneshot(Request::get("http://orders/").body(Empty::new())?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    checked(status)
}

/// Number of calls of each caller, and the errors of both.
#[derive(Default)]
struct Tally {
    by_name: usize,
    plain: usize,
    failures: Vec<String>,
}

/// Makes calls at a constant rate, half of them by each caller.
async fn load(rate: u32, calls: usize, client: HttpClient<Empty<Bytes>>, plain: Plain) -> Tally {
    let (mut ticks, mut running, mut tally) =
        (interval(Duration::from_secs(2) / rate), JoinSet::new(), Tally::default());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..calls.div_ceil(2) {
        ticks.tick().await;
        let (client, plain) = (client.clone(), plain.clone());
        running.spawn(async move { ("by name", limited(call_by_name(client)).await) });
        running.spawn(async move { ("plain", limited(plain.call()).await) });
        while let Some(ended) = running.try_join_next() {
            tally.add(ended.expect("a call does not panic"));
        }
        while running.len() >= MAX_IN_FLIGHT {
            tally.add(running.join_next().await.expect("calls are running").expect("a call does not panic"));
        }
    }
    while let Some(ended) = running.join_next().await {
        tally.add(ended.expect("a call does not panic"));
    }
    tally
}

async fn limited(call: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    timeout(CALL_TIMEOUT, call).await.map_err(|_| "no response in time")?
}

impl Tally {
    fn add(&mut self, (caller, result): (&'static str, Result<(), BoxError>)) {
        *(if caller == "plain" { &mut self.plain } else { &mut self.by_name }) += 1;
        if let Err(error) = result {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            self.failures.push(format!("{caller}: {error}{source}"));
        }
    }
}
