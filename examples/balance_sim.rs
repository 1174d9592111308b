//! Simulates a fleet on a bad day under several balancers: `cargo run --example balance_sim --all-features -- [FILE.svg]`.
//!
//! Time is tokio's paused clock, so minutes pass in seconds and the same seed gives the same numbers. Sixteen callers call five
//! endpoints, each of which serves eight calls at a time in 5 ms or so. At 20 s one of them goes bad, at 80 s it is well again.
//! Printed is what the callers saw while it was bad; drawn, if a file is named, is what they saw second by second.
#![allow(clippy::print_stdout, reason = "an example talks on stdout")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Response, StatusCode};
use plotters::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_stream::{Stream, StreamExt};
use tower::balance::p2c::Balance as TowerBalance;
use tower::buffer::Buffer;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, PeakEwmaDiscover};
use tower::util::BoxCloneService;
use tower::{BoxError, Service, ServiceExt};
use tower_eureka::balance::{Balance, Ejection, LeastRequests};

const ENDPOINTS: usize = 5;
const CALLERS: usize = 16;
const BAD_FROM: Duration = Duration::from_secs(20);
const BAD_UNTIL: Duration = Duration::from_secs(80);
const END: Duration = Duration::from_secs(120);
/// A caller gives up after this time.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> Result<(), BoxError> {
    let picture = std::env::args().nth(1);
    let mut drawn = Vec::new();
    for fault in [Fault::Fails, Fault::Gray, Fault::Slow, Fault::Silent] {
        println!("\none of {ENDPOINTS} endpoints {} for a minute", fault.name());
        println!("{:<34} {:>8} {:>10} {:>8} {:>8} {:>8}", "balancer", "calls", "to it", "failed", "p50", "p99");
        for balancer in Balancer::ALL {
            // A runtime each: the clock starts anew, and nothing of the one before is left.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            fastrand::seed(7);
            let calls = runtime.block_on(simulate(balancer, fault));
            Row::of(&calls).print(balancer.name());
            drawn.push((fault, balancer, calls));
        }
    }
    if let Some(file) = picture {
        draw(&file, &drawn)?;
        println!("\ndrawn into {file}");
    }
    println!("done");
    Ok(())
}

/// What is wrong with one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fails,
    Gray,
    Slow,
    Silent,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Fails => "answers 500 at once",
            Self::Gray => "fails 30 % of its calls",
            Self::Slow => "takes ten times as long",
            Self::Silent => "takes calls and answers none",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Balancer {
    Ours,
    OursWithoutEjection,
    LeastRequests,
    Tower,
    RoundRobin,
}

impl Balancer {
    const ALL: [Self; 5] = [Self::Ours, Self::OursWithoutEjection, Self::LeastRequests, Self::Tower, Self::RoundRobin];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "this crate's default",
            Self::OursWithoutEjection => "this crate's, no ejection",
            Self::LeastRequests => "this crate's, least requests",
            Self::Tower => "tower's p2c with PeakEwma",
            Self::RoundRobin => "round robin",
        }
    }

    fn build(self, fault: Fault) -> BoxCloneService<(), Response<usize>, BoxError> {
        let start = Instant::now();
        let endpoints: Vec<_> = (0..ENDPOINTS).map(|number| Endpoint::new(number, fault, start)).collect();
        match self {
            Self::Ours => boxed(Balance::builder(discover(endpoints)).observer(Whole).build()),
            Self::OursWithoutEjection => {
                boxed(Balance::builder(discover(endpoints)).ejection(Ejection::off()).observer(Whole).build())
            }
            Self::LeastRequests => {
                boxed(Balance::builder(discover(endpoints)).policy(LeastRequests).observer(Whole).build())
            }
            Self::Tower => {
                let (rtt, decay) = (Duration::from_millis(30), Duration::from_secs(10));
                let measured =
                    PeakEwmaDiscover::new::<()>(discover(endpoints), rtt, decay, CompleteOnResponse::default());
                boxed(Buffer::new(TowerBalance::new(measured), 1024))
            }
            Self::RoundRobin => boxed(RoundRobin { endpoints: endpoints.into(), next: Arc::default() }),
        }
    }
}

fn boxed<S>(service: S) -> BoxCloneService<(), Response<usize>, BoxError>
where
    S: Service<(), Response = Response<usize>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    BoxCloneService::new(service.map_err(Into::into))
}

fn discover(
    endpoints: Vec<Endpoint>,
) -> impl Stream<Item = Result<Change<usize, Endpoint>, Infallible>> + Send + Unpin + 'static {
    tokio_stream::iter(endpoints.into_iter().map(|endpoint| Ok(Change::Insert(endpoint.number, endpoint))))
        .chain(tokio_stream::pending())
}

/// Judges answers that have no body by their status.
#[derive(Clone, Copy)]
struct Whole;

impl tower_eureka::balance::Observe<Response<usize>> for Whole {
    type Response = Response<usize>;

    fn observe(&self, mut call: tower_eureka::balance::Completion, response: Response<usize>) -> Response<usize> {
        if response.status().is_success() {
            call.success();
        } else {
            call.failure();
        }
        response
    }
}

/// Serves eight calls at a time in 4 to 6 ms each; the first one has the fault, for a while.
#[derive(Clone)]
struct Endpoint {
    number: usize,
    fault: Fault,
    start: Instant,
    room: Arc<Semaphore>,
}

impl Endpoint {
    fn new(number: usize, fault: Fault, start: Instant) -> Self {
        Self { number, fault, start, room: Arc::new(Semaphore::new(8)) }
    }
}

impl Service<()> for Endpoint {
    type Response = Response<usize>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<usize>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let this = self.clone();
        let work = Duration::from_micros(fastrand::u64(4_000..6_000));
        let unlucky = fastrand::f32() < 0.3;
        Box::pin(async move {
            let bad = this.number == 0 && (BAD_FROM..BAD_UNTIL).contains(&this.start.elapsed());
            let failed = match this.fault {
                Fault::Fails => bad,
                Fault::Gray => bad && unlucky,
                Fault::Slow | Fault::Silent => false,
            };
            let mut response = Response::new(this.number);
            if failed {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(response);
            }
            if bad && this.fault == Fault::Silent {
                std::future::pending::<()>().await;
            }
            let _place = this.room.acquire().await;
            sleep(if bad && this.fault == Fault::Slow { 10 * work } else { work }).await;
            Ok(response)
        })
    }
}

#[derive(Clone)]
struct RoundRobin {
    endpoints: Arc<[Endpoint]>,
    next: Arc<std::sync::atomic::AtomicUsize>,
}

impl Service<()> for RoundRobin {
    type Response = Response<usize>;
    type Error = Infallible;
    type Future = <Endpoint as Service<()>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ()) -> Self::Future {
        let next = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % self.endpoints.len();
        self.endpoints[next].clone().call(request)
    }
}

/// One call, as its caller saw it.
#[derive(Clone, Copy)]
struct Call {
    /// When it began, since the start.
    at: Duration,
    took: Duration,
    /// Who answered, if anybody did.
    by: Option<usize>,
    failed: bool,
}

async fn simulate(balancer: Balancer, fault: Fault) -> Vec<Call> {
    let balance = balancer.build(fault);
    let start = Instant::now();
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(caller(balance.clone(), start))).collect();
    let mut calls = Vec::new();
    for caller in callers {
        calls.extend(caller.await.expect("a caller does not panic"));
    }
    calls.sort_by_key(|call| call.at);
    calls
}

async fn caller(mut balance: BoxCloneService<(), Response<usize>, BoxError>, start: Instant) -> Vec<Call> {
    let mut calls = Vec::new();
    while start.elapsed() < END {
        let at = start.elapsed();
        let answer = tokio::time::timeout(PATIENCE, async { balance.ready().await?.call(()).await }).await;
        let took = start.elapsed() - at;
        let (by, failed) = match answer {
            Ok(Ok(response)) => (Some(*response.body()), !response.status().is_success()),
            Ok(Err(_)) | Err(_) => (None, true),
        };
        calls.push(Call { at, took, by, failed });
        sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
    calls
}

/// What is printed of a run: the minute in which the endpoint was bad.
struct Row {
    calls: usize,
    to_it: f64,
    failed: f64,
    p50: Duration,
    p99: Duration,
}

impl Row {
    fn of(calls: &[Call]) -> Self {
        let bad: Vec<_> = calls.iter().filter(|call| (BAD_FROM..BAD_UNTIL).contains(&call.at)).collect();
        let share = |count: usize| 100.0 * count as f64 / bad.len() as f64;
        let mut times: Vec<_> = bad.iter().map(|call| call.took).collect();
        times.sort();
        Self {
            calls: bad.len(),
            // Who did not answer a caller can only have been the one that does not.
            to_it: share(bad.iter().filter(|call| call.by.unwrap_or(0) == 0).count()),
            failed: share(bad.iter().filter(|call| call.failed).count()),
            p50: times[times.len() / 2],
            p99: times[times.len() * 99 / 100],
        }
    }

    fn print(&self, name: &str) {
        let Self { calls, to_it, failed, p50, p99 } = self;
        println!("{name:<34} {calls:>8} {to_it:>8.2} % {failed:>6.2} % {p50:>8.1?} {p99:>8.1?}");
    }
}

const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 110, 60),
    RGBColor(110, 190, 90),
    RGBColor(60, 110, 200),
    RGBColor(200, 60, 40),
    RGBColor(150, 150, 150),
];

/// One row per fault: the share of failed calls and the 99th percentile of their time, by second.
fn draw(file: &str, runs: &[(Fault, Balancer, Vec<Call>)]) -> Result<(), BoxError> {
    let area = SVGBackend::new(file, (1200, 1200)).into_drawing_area();
    area.fill(&WHITE)?;
    let rows = area.split_evenly((4, 2));
    for (row, fault) in [Fault::Fails, Fault::Gray, Fault::Slow, Fault::Silent].into_iter().enumerate() {
        let runs: Vec<_> = runs.iter().filter(|(of, ..)| *of == fault).collect();
        let failed = |calls: &[&Call]| {
            100.0 * calls.iter().filter(|call| call.failed).count() as f64 / calls.len().max(1) as f64
        };
        let p99 = |calls: &[&Call]| {
            let mut times: Vec<_> = calls.iter().map(|call| call.took.as_secs_f64() * 1e3).collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() * 99 / 100).copied().unwrap_or(0.0).max(1.0)
        };
        chart(&rows[2 * row], &format!("{}: failed calls, %", fault.name()), &runs, failed, 0.0..50.0)?;
        chart(&rows[2 * row + 1], "99th percentile, ms", &runs, p99, (1.0..2_000.0).log_scale())?;
    }
    area.present()?;
    Ok(())
}

fn chart<Y>(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    runs: &[&(Fault, Balancer, Vec<Call>)],
    value: impl Fn(&[&Call]) -> f64,
    y: Y,
) -> Result<(), BoxError>
where
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y::CoordDescType: plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let seconds = END.as_secs();
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(48)
        .build_cartesian_2d(0..seconds, y)?;
    chart.configure_mesh().x_desc("seconds").light_line_style(TRANSPARENT).draw()?;
    // Ours last, on top of the others.
    for ((_, balancer, calls), colour) in runs.iter().zip(COLOURS).rev() {
        let at = |second: u64| -> Vec<&Call> { calls.iter().filter(|call| call.at.as_secs() == second).collect() };
        let line = LineSeries::new((0..seconds).map(|second| (second, value(&at(second)))), colour.stroke_width(2));
        let legend = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(balancer.name()).legend(legend);
    }
    let place = SeriesLabelPosition::UpperRight;
    chart
        .configure_series_labels()
        .position(place)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
