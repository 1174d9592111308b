//! The stream of instances under tower's own balancer, compared with `Balance`: `cargo run
//! --example tower_balance --all-features`.
//!
//! `EurekaDiscover` implements `Discover`, so tower's balancer takes it. But without an instance
//! that balancer waits for ever, and an instance that responds with errors at once looks fast to it
//! and attracts calls.
#![allow(clippy::print_stdout, reason = "an example prints to stdout")]

mod world;

use std::convert::Infallible;
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tower::balance::p2c::Balance as TowerBalance;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_eureka::Instance;
use tower_eureka::balance::Balance;

const CALLS: usize = 2_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let url = world::registry().await?;
    let eureka = world::eureka(&url)?;
    for (id, port) in [("orders-1", 1), ("orders-2", 2)] {
        let instance = Instance::builder("orders").id(id).ip_addr("127.0.0.1").port(port).build()?;
        eureka.transport().register(&instance).await?;
    }

    let services = eureka.discover("orders")?.map(|change| {
        Ok::<_, Infallible>(match change? {
            Change::Insert(id, instance) => Change::Insert(id, service(&instance)),
            Change::Remove(id) => Change::Remove(id),
        })
    });
    let measured = PeakEwmaDiscover::new::<()>(
        services,
        Duration::from_millis(30),
        Duration::from_secs(10),
        CompleteOnResponse::default(),
    );
    let tower = TowerBalance::new(measured);
    let ours = Balance::builder(eureka.discover("orders")?).endpoint(|instance| service(instance)).build();

    println!(
        "of {CALLS} calls to an application of which one of two instances responds with 500 at once, these failed:"
    );
    println!("  tower's balancer  {:5}", failures(tower).await?);
    println!("  this crate's      {:5}", failures(ours).await?);

    let nobody = eureka.discover("nobody")?.map(|change| {
        Ok::<_, Infallible>(match change? {
            Change::Insert(id, instance) => Change::Insert(id, service(&instance)),
            Change::Remove(id) => Change::Remove(id),
        })
    });
    let measured = PeakEwmaDiscover::new::<()>(
        nobody,
        Duration::from_millis(30),
        Duration::from_secs(10),
        CompleteOnResponse::default(),
    );
    let waited = timeout(Duration::from_secs(5), TowerBalance::new(measured).ready_oneshot()).await;
    println!("an application without an instance:");
    println!("  tower's balancer  {}", if waited.is_err() { "still waiting after 5 s" } else { "responded" });
    let discover = eureka.discover("nobody")?;
    let explainer = discover.explainer();
    let explain = move || explainer.explain().to_string();
    let mut ours = Balance::builder(discover).name("NOBODY").explain(explain).endpoint(|i| service(i)).build();
    let error = ServiceExt::<()>::ready(&mut ours).await?.call(()).await.expect_err("no instance exists");
    println!("  this crate's      {error}");
    println!("done");
    Ok(())
}

type Endpoint = BoxCloneSyncService<(), Response<String>, Infallible>;

/// One instance responds after two milliseconds, the other fails at once.
fn service(instance: &Instance) -> Endpoint {
    let fails = instance.id() == "orders-2";
    BoxCloneSyncService::new(service_fn(move |()| async move {
        let mut response = Response::new(String::new());
        if fails {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        } else {
            sleep(Duration::from_millis(2)).await;
        }
        Ok(response)
    }))
}

async fn failures<S, B>(mut balance: S) -> Result<usize, BoxError>
where
    S: Service<(), Response = Response<B>>,
    S::Error: Into<BoxError>,
{
    let mut failures = 0;
    for _ in 0..CALLS {
        let response = balance.ready().await.map_err(Into::into)?.call(()).await.map_err(Into::into)?;
        failures += usize::from(response.status().is_server_error());
    }
    Ok(failures)
}
