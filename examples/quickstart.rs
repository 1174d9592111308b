//! The whole story in one process, in about 20 seconds: `cargo run --example quickstart --all-features`.
//!
//! An embedded registry; three instances of `orders` register; a client calls `http://orders/` by name all the while. One
//! instance leaves gracefully, one is killed without a word, a fourth joins. No call fails.
#![allow(clippy::print_stdout, reason = "an example that narrates")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
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
use tower_eureka::route::HttpClient;
use tower_eureka::{Eureka, EurekaServer, Instance};

/// Everything happens within seconds here; in production each of these is 30 s or more.
const SECOND: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let story = Story { start: Instant::now() };

    // The registry, inside this process.
    let registry =
        EurekaServer::builder().eviction_interval(SECOND).lease_doubling(false).self_preservation(false).build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/eureka/", listener.local_addr()?);
    let router = Router::new().nest("/eureka", registry.router());
    tokio::spawn(async move { axum::serve(listener, router).await });
    story.tell(format!("registry listens on {url}"));

    // Three providers.
    let mut orders_1 = Provider::start(&url, "orders-1").await?;
    let mut orders_2 = Provider::start(&url, "orders-2").await?;
    let mut orders_3 = Provider::start(&url, "orders-3").await?;
    story.tell("orders-1, orders-2 and orders-3 serve and register");

    // A consumer that calls by name, and somebody who watches what it sees.
    let eureka = Eureka::builder().service_url(&url).fetch_interval(SECOND).build()?;
    tokio::spawn(watch(eureka.clone(), story));
    let (stop_calls, stopped) = oneshot::channel();
    let caller = tokio::spawn(call(eureka.http_client(), stopped, story));

    sleep(4 * SECOND).await;
    story.tell("orders-1 is asked to leave");
    orders_1.leave().await;
    story.tell("orders-1 has left: DOWN, drained, finished, deleted");

    sleep(2 * SECOND).await;
    story.tell("orders-2 is killed without a word");
    orders_2.kill();

    sleep(5 * SECOND).await;
    let mut orders_4 = Provider::start(&url, "orders-4").await?;
    story.tell("orders-4 serves and registers");

    sleep(5 * SECOND).await;
    let _ = stop_calls.send(());
    let tally = caller.await??;
    orders_3.leave().await;
    orders_4.leave().await;
    story.tell("the others have left");

    println!("calls: {}, failed: {}", tally.answered.values().sum::<u64>() + tally.failed, tally.failed);
    if tally.failed > 0 { Err("calls failed".into()) } else { Ok(()) }
}

/// One instance of `orders`, on a runtime of its own, so that it can die as a process dies: with everything at once.
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
            let app = Router::new().route("/", get(async move || name)).layer(registrar.layer());
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

    /// Closes its sockets and stops its heartbeats, and tells nobody.
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

/// Tells each change that the consumer sees.
async fn watch(eureka: Eureka, story: Story) -> Result<(), BoxError> {
    let mut orders = eureka.discover("orders")?;
    while let Some(Ok(change)) = orders.next().await {
        match change {
            Change::Insert(id, instance) => {
                story.tell(format!(
                    "the consumer sees {id} at {}:{}",
                    instance.host().unwrap_or("?"),
                    instance.port().number
                ));
            }
            Change::Remove(id) => story.tell(format!("the consumer sees {id} no more")),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    answered: BTreeMap<Arc<str>, u64>,
    failed: u64,
}

/// Calls `http://orders/` without a break until told to stop, one call every few milliseconds.
async fn call(
    client: HttpClient<Empty<Bytes>>,
    mut stopped: oneshot::Receiver<()>,
    story: Story,
) -> Result<Tally, BoxError> {
    let mut tally = Tally::default();
    let mut told = Instant::now();
    let mut since = BTreeMap::<Arc<str>, u64>::new();
    while stopped.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Empty) {
        match client.clone().oneshot(Request::get("http://orders/").body(Empty::new())?).await {
            Ok(response) if response.status().is_success() => {
                let body = response.into_body().collect().await?.to_bytes();
                let name: Arc<str> = String::from_utf8_lossy(&body).into();
                *since.entry(name.clone()).or_default() += 1;
                *tally.answered.entry(name).or_default() += 1;
            }
            Ok(response) => {
                tally.failed += 1;
                story.tell(format!("a call failed: {}", response.status()));
            }
            Err(error) => {
                tally.failed += 1;
                story.tell(format!("a call failed: {error}"));
            }
        }
        if told.elapsed() > 2 * SECOND {
            let spread: Vec<_> = since.iter().map(|(name, calls)| format!("{name} {calls}")).collect();
            story.tell(format!("calls of the last two seconds: {}", spread.join(", ")));
            (told, since) = (Instant::now(), BTreeMap::new());
        }
        sleep(Duration::from_millis(3)).await;
    }
    Ok(tally)
}

#[derive(Clone, Copy)]
struct Story {
    start: Instant,
}

impl Story {
    fn tell(self, what: impl std::fmt::Display) {
        println!("{:5.1} s  {what}", self.start.elapsed().as_secs_f32());
    }
}
