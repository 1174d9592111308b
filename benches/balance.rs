//! What balancing costs: one pick and call of an endpoint that is always ready and answers at once.
//!
//! Ours is measured against tower's balancer with the same metric, bare (which cannot be cloned) and in the buffer that makes
//! it `Clone`. All three get the same endpoints from the same kind of discovery and answer the same requests.
#![allow(clippy::print_stdout, reason = "a bench reports to a person")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Ready;
use std::hint::black_box;
use std::task::{Context, Poll};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tower::buffer::Buffer;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover};
use tower::{Service, ServiceExt};
use tower_eureka::balance::{AnyResponse, Balance};

const SIZES: [usize; 3] = [2, 100, 1000];
const DEFAULT_LATENCY: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct Endpoint(usize);

impl Service<u64> for Endpoint {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        std::future::ready(Ok(request + self.0 as u64))
    }
}

/// Reports `n` endpoints at once, then nothing any more, as a registry does that does not change.
fn discover(n: usize) -> impl Stream<Item = Result<Change<usize, Endpoint>, Infallible>> + Send + Unpin + 'static {
    tokio_stream::iter((0..n).map(|i| Ok(Change::Insert(i, Endpoint(i))))).chain(tokio_stream::pending())
}

/// Nanoseconds per call, by what was measured.
#[derive(Default)]
struct Samples(RefCell<BTreeMap<(&'static str, usize), Vec<f64>>>);

impl Samples {
    fn measure<S>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        runtime: &Runtime,
        (name, n): (&'static str, usize),
        mut service: S,
    ) where
        S: Service<u64, Response = u64>,
        S::Error: std::fmt::Debug,
    {
        group.bench_function(format!("{name}/{n}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let elapsed = runtime.block_on(run(&mut service, iterations));
                let per_call = elapsed.as_nanos() as f64 / iterations as f64;
                self.0.borrow_mut().entry((name, n)).or_default().push(per_call);
                elapsed
            });
        });
    }

    fn median(&self, name: &'static str, n: usize) -> Option<f64> {
        let mut samples = self.0.borrow().get(&(name, n))?.clone();
        samples.sort_by(f64::total_cmp);
        Some(samples[samples.len() / 2])
    }

    /// Nothing where a filter left something out.
    fn summarize(&self) -> Option<()> {
        println!("\nmedian ns per call, and how many times ours");
        for n in SIZES {
            let ours = self.median("ours", n)?;
            let (tower, buffer) = (self.median("tower", n)?, self.median("tower_buffer", n)?);
            println!(
                "  N = {n:4}: ours {ours:4.0}, tower {tower:5.0} ({:.1} x), tower in a buffer {buffer:5.0} ({:.1} x)",
                tower / ours,
                buffer / ours
            );
        }
        println!("  ours, N = 1000 to N = 2: {:.2} x", self.median("ours", 1000)? / self.median("ours", 2)?);
        Some(())
    }
}

async fn run<S>(service: &mut S, iterations: u64) -> Duration
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    let start = Instant::now();
    for i in 0..iterations {
        let answer = service.ready().await.expect("always ready").call(i).await;
        black_box(answer.expect("always answers"));
    }
    start.elapsed()
}

fn pick_and_call(criterion: &mut Criterion, samples: &Samples) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut group = criterion.benchmark_group("pick_and_call");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(50);
    for n in SIZES {
        let ours = runtime.block_on(async {
            let mut balance = Balance::builder(discover(n))
                .observer(AnyResponse)
                .default_latency(DEFAULT_LATENCY)
                .decay(DECAY)
                .build();
            while balance.len() < n {
                balance.ready().await.expect("never fails");
                tokio::task::yield_now().await;
            }
            balance
        });
        samples.measure(&mut group, &runtime, ("ours", n), ours);

        let tower = || {
            let completion = CompleteOnResponse::default();
            tower::balance::p2c::Balance::new(PeakEwmaDiscover::new::<u64>(
                discover(n),
                DEFAULT_LATENCY,
                DECAY,
                completion,
            ))
        };
        samples.measure(&mut group, &runtime, ("tower", n), tower());
        let buffer = runtime.block_on(async { Buffer::new(tower(), 1024) });
        samples.measure(&mut group, &runtime, ("tower_buffer", n), buffer);
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let samples = Samples::default();
    pick_and_call(&mut criterion, &samples);
    criterion.final_summary();
    samples.summarize();
}
