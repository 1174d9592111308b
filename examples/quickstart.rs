//! The whole story in one process, in about 20 seconds: `cargo run --example quickstart
//! --all-features`.
//!
//! Starts a registry and three instances of `orders`, and calls `http://orders/` by name all the
//! time. One instance leaves gracefully, one is killed, and a fourth one joins. No call fails.
#![allow(clippy::print_stdout, reason = "an example that narrates")]

use std::collections::BTreeMap;
use std::time::Duration;

use axum::{Router, routing};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tower::discover::Change;
use tower::{BoxError, ServiceExt};
use tower_eureka::client::HttpClient;
use tower_eureka::server::Eviction;
use tower_eureka::{Eureka, EurekaServer, Instance};

/// Interval of everything in this example. In production each interval is 30 seconds or more.
const SECOND: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let story = Story { start: Instant::now() };

    // The registry, inside this process.
    let registry = EurekaServer::builder()
        .eviction(Eviction::new().interval(SECOND).lease_doubling(false).self_preservation(false))
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/eureka/", listener.local_addr()?);
    let router = Router::new().nest("/eureka", registry.router());
    tokio::spawn(async move { axum::serve(listener, router).await });
    story.print(format!("registry listens on {url}"));

    // Three providers.
    let mut orders_1 = Provider::start(&url, "orders-1").await?;
    let mut orders_2 = Provider::start(&url, "orders-2").await?;
    let mut orders_3 = Provider::start(&url, "orders-3").await?;
    story.print("orders-1, orders-2 and orders-3 serve and register");

    // A consumer that calls by name, and a task that prints the changes that it discovers.
    let eureka = Eureka::builder().service_url(&url).fetch_interval(SECOND).build()?;
    tokio::spawn(watch(eureka.clone(), story));
    let (stop_calls, stopped) = oneshot::channel();
    let caller = tokio::spawn(call(eureka.http_client(), stopped, story));

    sleep(4 * SECOND).await;
    story.print("orders-1 is asked to leave");
    orders_1.leave().await;
    story.print("orders-1 has left: DOWN, drained, finished, deleted");

    sleep(2 * SECOND).await;
    story.print("orders-2 is killed");
    orders_2.kill();

    sleep(5 * SECOND).await;
    let mut orders_4 = Provider::start(&url, "orders-4").await?;
    story.print("orders-4 serves and registers");

    sleep(5 * SECOND).await;
    let _ = stop_calls.send(());
    let tally = caller.await?;
    orders_3.leave().await;
    orders_4.leave().await;
    story.print("the others have left");

    println!("calls: {}, failed: {}", tally.total(), tally.failed);
    if tally.failed > 0 { Err("calls failed".into()) } else { Ok(()) }
}

/// One instance of `orders`, on its own runtime, so that it can be killed like a process.
struct Provider {
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Provider {
    async fn start(registry: &str, name: &str) -> Result<Self, BoxError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (registry, name) = (registry.to_owned(), name.to_owned());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = runtime.spawn(async move {
            let eureka = Eureka::builder().service_url(registry).build().map_err(std::io::Error::other)?;
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let instance = Instance::builder("orders")
                .id(name.as_str())
                .ip_addr("127.0.0.1")
                .port(listener.local_addr()?.port())
                .renewal_interval(SECOND)
                .lease_duration(3 * SECOND)
                .build()
                .map_err(std::io::Error::other)?;
            let registrar = eureka.registrar(instance).quiet_time(SECOND);
            let app = Router::new().route("/", routing::get(async move || work(name).await)).layer(registrar.layer());
            let signal = async { drop(stopped.await) };
            registrar.serve(signal, |stop| axum::serve(listener, app).with_graceful_shutdown(stop)).await
        });
        Ok(Self { runtime: Some(runtime), stop: Some(stop), serving })
    }

    async fn leave(&mut self) {
        drop(self.stop.take());
        let _ = (&mut self.serving).await;
        self.kill();
    }

    /// Closes its sockets and stops its heartbeats without deregistering it.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Handles a call in 5 milliseconds.
async fn work(name: String) -> String {
    sleep(Duration::from_millis(5)).await;
    name
}

/// Prints each change that the consumer discovers.
async fn watch(eureka: Eureka, story: Story) -> Result<(), BoxError> {
    let mut orders = eureka.discover("orders")?;
    while let Some(Ok(change)) = orders.next().await {
        match change {
            Change::Insert(id, instance) => {
                story.print(format!(
                    "the consumer sees {id} at {}:{}",
                    instance.host().unwrap_or("?"),
                    instance.port().number
                ));
            }
            Change::Remove(id) => story.print(format!("the consumer no longer sees {id}")),
        }
    }
    Ok(())
}

/// Number of responses of each instance, and of failed calls.
#[derive(Default)]
struct Tally {
    responses: BTreeMap<String, u64>,
    failed: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.failed += other.failed;
        for (name, calls) in other.responses {
            *self.responses.entry(name).or_default() += calls;
        }
    }

    fn total(&self) -> u64 {
        self.responses.values().sum::<u64>() + self.failed
    }
}

/// Calls `http://orders/` with four callers until stopped, and prints the responses of each
/// instance every two seconds.
async fn call(client: HttpClient<Empty<Bytes>>, mut stopped: oneshot::Receiver<()>, story: Story) -> Tally {
    let mut tally = Tally::default();
    while stopped.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty) {
        let until = Instant::now() + 2 * SECOND;
        let callers: Vec<_> = (0..4).map(|_| tokio::spawn(call_until(client.clone(), until, story))).collect();
        let mut latest = Tally::default();
        for caller in callers {
            latest.add(caller.await.expect("caller does not panic"));
        }
        let spread: Vec<_> = latest.responses.iter().map(|(name, calls)| format!("{name} {calls}")).collect();
        story.print(format!("calls of the last two seconds: {}", spread.join(", ")));
        tally.add(latest);
    }
    tally
}

async fn call_until(client: HttpClient<Empty<Bytes>>, until: Instant, story: Story) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        match get(&client).await {
            Ok(name) => *tally.responses.entry(name).or_default() += 1,
            Err(error) => {
                tally.failed += 1;
                story.print(format!("a call failed: {error}"));
            }
        }
    }
    tally
}

async fn get(client: &HttpClient<Empty<Bytes>>) -> Result<String, BoxError> {
    let response = client.clone().oneshot(Request::get("http://orders/").body(Empty::new())?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status.is_success() { Ok(String::from_utf8(body.to_vec())?) } else { Err(status.to_string().into()) }
}

#[derive(Clone, Copy)]
struct Story {
    start: Instant,
}

impl Story {
    fn print(self, event: impl std::fmt::Display) {
        println!("{:5.1} s  {event}", self.start.elapsed().as_secs_f32());
    }
}
