//! Cost of balancing: one pick and call of an endpoint that is always ready and responds at once.
//!
//! Ours is measured with each policy and with ejection. It is compared with tower's balancer with
//! the metric of our default policy, bare (which cannot be cloned) and in the buffer that makes it
//! `Clone`. All of them get the same endpoints from the same kind of discovery and the same
//! requests, from one thread and, if they can be cloned, from two at once.
//! `tests/tower_pitfalls.rs` counts allocations.
#![allow(clippy::print_stdout, reason = "a benchmark prints a report")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Ready;
use std::hint::black_box;
use std::pin::Pin;
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
use tower_eureka::balance::{AnyResponse, Balance, LeastRequests, PeakEwma, Policy};

const SIZES: [usize; 4] = [2, 10, 100, 1000];
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

/// Reports `n` endpoints at once and no further change, as a registry without changes does.
fn discover(n: usize) -> Discovered {
    Box::pin(tokio_stream::iter((0..n).map(|i| Ok(Change::Insert(i, Endpoint(i))))).chain(tokio_stream::pending()))
}

type Discovered = Pin<Box<dyn Stream<Item = Result<Change<usize, Endpoint>, Infallible>> + Send>>;

/// Nanoseconds per call, by benchmark.
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

    fn measure_two<S>(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        runtime: &Runtime,
        (name, n): (&'static str, usize),
        service: S,
    ) where
        S: Service<u64, Response = u64> + Clone + Send + 'static,
        S::Error: std::fmt::Debug,
        S::Future: Send,
    {
        group.bench_function(format!("{name}/{n}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let elapsed = runtime.block_on(run_two(&service, iterations));
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

    /// Prints one line per benchmark that was not filtered out.
    fn summarize(&self) {
        println!("\nmedian ns per call, and how many times ours, for N = {SIZES:?}");
        let names: BTreeSet<_> = self.0.borrow().keys().map(|(name, _)| *name).collect();
        for name in names {
            let base = if name.ends_with(TWO) { "peak_ewma_2_threads" } else { "peak_ewma" };
            let cells = SIZES.iter().filter_map(|&n| {
                let (ns, ours) = (self.median(name, n)?, self.median(base, n)?);
                Some(format!("{ns:7.0} ({:4.1} x)", ns / ours))
            });
            println!("  {name:24}{}", cells.collect::<String>());
        }
        if let (Some(few), Some(many)) = (self.median("peak_ewma", 2), self.median("peak_ewma", 1000)) {
            println!("  peak_ewma, N = 1000 to N = 2: {:.2} x", many / few);
        }
    }
}

/// Suffix of benchmarks on two threads.
const TWO: &str = "_2_threads";

async fn run<S>(service: &mut S, iterations: u64) -> Duration
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    let start = Instant::now();
    for i in 0..iterations {
        let response = service.ready().await.expect("endpoint is always ready").call(i).await;
        black_box(response.expect("endpoint always responds"));
    }
    start.elapsed()
}

/// Two callers at once, each with half of the calls.
async fn run_two<S>(service: &S, iterations: u64) -> Duration
where
    S: Service<u64, Response = u64> + Clone + Send + 'static,
    S::Error: std::fmt::Debug,
    S::Future: Send,
{
    let start = Instant::now();
    let callers = [service.clone(), service.clone()].map(|mut service| {
        tokio::spawn(async move {
            run(&mut service, iterations / 2).await;
        })
    });
    for caller in callers {
        caller.await.expect("callers do not panic");
    }
    start.elapsed()
}

async fn ours<P: Policy<u64> + Clone>(n: usize, policy: P) -> Balance<Endpoint, P, AnyResponse> {
    let balance = Balance::builder(discover(n))
        .policy(policy)
        .observer(AnyResponse)
        .default_latency(DEFAULT_LATENCY)
        .decay(DECAY)
        .build();
    while balance.len() < n {
        tokio::task::yield_now().await;
    }
    balance
}

type Tower = tower::balance::p2c::Balance<PeakEwmaDiscover<Discovered>, u64>;

fn tower(n: usize) -> Tower {
    let completion = CompleteOnResponse::default();
    tower::balance::p2c::Balance::new(PeakEwmaDiscover::new::<u64>(discover(n), DEFAULT_LATENCY, DECAY, completion))
}

fn pick_and_call(criterion: &mut Criterion, samples: &Samples) {
    let one = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime is built");
    let two =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("runtime is built");
    let mut group = criterion.benchmark_group("pick_and_call");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(30);
    for n in SIZES {
        samples.measure(&mut group, &one, ("peak_ewma", n), one.block_on(ours(n, PeakEwma)));
        samples.measure(&mut group, &one, ("tower", n), tower(n));
        samples.measure(&mut group, &one, ("least_requests", n), one.block_on(ours(n, LeastRequests)));
        samples.measure(&mut group, &one, ("tower_buffer", n), one.block_on(async { Buffer::new(tower(n), 1024) }));
        samples.measure_two(&mut group, &two, ("peak_ewma_2_threads", n), two.block_on(ours(n, PeakEwma)));
        let buffer = two.block_on(async { Buffer::new(tower(n), 1024) });
        samples.measure_two(&mut group, &two, ("tower_buffer_2_threads", n), buffer);
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
