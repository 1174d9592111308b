//! What the registry's operations cost, in process: requests to the router, without a connection.
//!
//! Each is measured on registries of three sizes, by one thread and by two that share the registry.
//! With two, the time is that in which both finish their half: half of one thread's where nothing
//! is shared.
#![allow(clippy::unwrap_used, reason = "a bench is a test")]

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use criterion::{BenchmarkId, Criterion};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_eureka::{EurekaServer, Instance};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const THREADS: [u64; 2] = [1, 2];
const APPS: usize = 100;

fn names(i: usize) -> (String, String) {
    (format!("APP{:03}", i % APPS), format!("host-{i:05}:app{:03}:8080", i % APPS))
}

/// Builds a registration from a text, so that its client's part takes little of the measured time.
fn registration(i: usize, version: u64) -> Request<Body> {
    static TEMPLATE: LazyLock<String> = LazyLock::new(|| {
        let instance = Instance::builder("APP-NAME").id("INSTANCE-ID").host_name("HOST.prod.example.com");
        let instance = instance.ip_addr("10.0.0.1").port(8080).metadata("zone", "zone-a").metadata("version", "NUMBER");
        String::from_utf8(instance.build().unwrap().to_json()).unwrap()
    });
    let (app, id) = names(i);
    let body = TEMPLATE.replace("HOST", &format!("host-{i:05}")).replace("INSTANCE-ID", &id).replace("APP-NAME", &app);
    let body = body.replace("app-name", &app.to_lowercase()).replace("NUMBER", &version.to_string());
    let request = Request::post(format!("/apps/{app}")).header(CONTENT_TYPE, "application/json");
    request.body(body.into()).unwrap()
}

fn heartbeat(i: usize) -> Request<Body> {
    let (app, id) = names(i);
    Request::put(format!("/apps/{app}/{id}?status=UP")).body(Body::empty()).unwrap()
}

fn get(path: &str) -> Request<Body> {
    let request = Request::get(path).header(ACCEPT, "application/json").header(ACCEPT_ENCODING, "gzip");
    request.body(Body::empty()).unwrap()
}

async fn send(router: &Router, request: Request<Body>) {
    let response = router.clone().oneshot(request).await.unwrap();
    assert!(matches!(response.status(), StatusCode::OK | StatusCode::NO_CONTENT), "{}", response.status());
    response.into_body().collect().await.unwrap();
}

#[derive(Clone, Copy)]
enum Operation {
    Heartbeat,
    Register,
    ChangeThenAll,
    ChangeThenDelta,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Heartbeat, Self::Register, Self::ChangeThenAll, Self::ChangeThenDelta];

    fn name(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Register => "register",
            Self::ChangeThenAll => "change, then all",
            Self::ChangeThenDelta => "change, then delta",
        }
    }

    async fn run(self, router: &Router, i: usize, version: u64) {
        if let Self::Heartbeat = self {
            return send(router, heartbeat(i)).await;
        }
        send(router, registration(i, version)).await;
        match self {
            Self::ChangeThenAll => send(router, get("/apps")).await,
            Self::ChangeThenDelta => send(router, get("/apps/delta")).await,
            Self::Heartbeat | Self::Register => {}
        }
    }
}

/// Spreads `count` rounds over threads; a round knows its number, so that no two do the same.
fn rounds<F: Future<Output = ()>>(
    runtime: &Runtime,
    threads: u64,
    count: u64,
    round: impl Fn(usize) -> F + Sync,
) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let round = &round;
            scope.spawn(move || {
                runtime.block_on(async {
                    for number in (thread..count).step_by(threads as usize) {
                        // A stride without a common divisor, so that neighbours are not neighbours
                        // in memory.
                        round(number as usize * 7_919).await;
                    }
                });
            });
        }
    });
    start.elapsed()
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    // `cargo bench -- --test` and `cargo test --benches` only check that the bench works.
    let quick = std::env::args().any(|arg| arg == "--test");
    for size in if quick { &SIZES[..1] } else { &SIZES }.iter().copied() {
        let server = EurekaServer::builder().build().unwrap();
        let router = server.router();
        runtime.block_on(async {
            for i in 0..size {
                send(&router, registration(i, 0)).await;
            }
            send(&router, get("/apps")).await;
        });
        let mut group = criterion.benchmark_group(format!("{size} instances"));
        for operation in Operation::ALL {
            for threads in THREADS {
                let id = BenchmarkId::new(operation.name(), format!("{threads} threads"));
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|count| {
                        rounds(&runtime, threads, count, |i| operation.run(&router, i % size, i as u64))
                    });
                });
            }
        }
        group.finish();
    }
    criterion.final_summary();
}
