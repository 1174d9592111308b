//! Simulates a fleet with a bad endpoint, and a healthy one with everyday events: `cargo run
//! --example balance_sim --all-features -- [FILE.svg]`.
//!
//! Time is tokio's paused clock, so minutes pass in seconds, and the seed is fixed. Sixteen callers
//! call the endpoints, each of which serves eight calls at a time in about 5 ms. In the first part,
//! one endpoint of five is bad from 20 s to 80 s. In the second part all endpoints are healthy, and
//! the events beside the calls should change nothing. Prints the results of the callers in that
//! minute, and draws the first part second by second if a file is named.
#![allow(clippy::print_stdout, reason = "an example prints to stdout")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
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
use tower_eureka::balance::{Balance, Completion, Ejection, EndpointState, LeastRequests, Observe, Outcome, Policy};

/// Endpoints of the first part.
const ENDPOINTS: usize = 5;
const CALLERS: usize = 16;
const BAD_FROM: Duration = Duration::from_secs(20);
const BAD_UNTIL: Duration = Duration::from_secs(80);
const END: Duration = Duration::from_secs(120);
/// Time after which a caller cancels its call.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two calls of a caller.
const PAUSE: Duration = Duration::from_millis(20);
/// Maximum number of times that a call is sent that no endpoint processed, as for calls by name.
const SENDS: usize = 5;

fn main() -> Result<(), BoxError> {
    let picture = std::env::args().nth(1);
    let mut drawn = Vec::new();
    for fault in [Fault::Fails, Fault::FailsPartly, Fault::Slow, Fault::Silent] {
        println!("\none of {ENDPOINTS} endpoints {} for a minute", fault.name());
        println!("{:<34} {:>8} {:>10} {:>8} {:>8} {:>8}", "balancer", "calls", "to it", "failed", "p50", "p99");
        for balancer in Balancer::ALL {
            let (calls, _) = run(balancer, Trouble::Fault(fault), ENDPOINTS)?;
            Row::of(&calls).print(balancer.name());
            drawn.push((fault, balancer, calls));
        }
    }
    for (event, endpoints) in Event::ALL.into_iter().flat_map(|event| [(event, 2), (event, 5)]) {
        println!("\n{} beside calls of {endpoints} healthy endpoints", event.name());
        let (least, most) = ("least", "most");
        println!(
            "{:<34} {:>8} {least:>8} {most:>8} {:>8} {:>8} {:>8}  ejected",
            "balancer", "calls", "failed", "p50", "p99"
        );
        for balancer in [Balancer::Ours, Balancer::LeastRequests, Balancer::Tower, Balancer::RoundRobin] {
            let (calls, ejected) = run(balancer, Trouble::Event(event), endpoints)?;
            let Row { calls: count, failed, p50, p99, .. } = Row::of(&calls);
            let (least, most) = shares(&calls, endpoints);
            let ejected = ejected.map_or("-", |ejected| if ejected { "yes" } else { "no" });
            let name = balancer.name();
            println!(
                "{name:<34} {count:>8} {least:>6.0} % {most:>6.0} % {failed:>6.2} % {p50:>8.1?} {p99:>8.1?}  {ejected}"
            );
        }
    }
    if let Some(file) = picture {
        draw(&file, &drawn)?;
        println!("\ndrawn into {file}");
    }
    println!("done");
    Ok(())
}

/// Simulates on its own runtime: the clock starts anew, and nothing of an earlier run is left.
fn run(balancer: Balancer, trouble: Trouble, endpoints: usize) -> Result<(Vec<Call>, Option<bool>), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    fastrand::seed(7);
    Ok(runtime.block_on(simulate(balancer, trouble, endpoints)))
}

/// Kind of a request.
#[derive(Clone, Copy, Debug)]
enum Request {
    Short,
    Lasts(Duration),
}

/// Trouble of a run: a fault or an event.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Fault(Fault),
    Event(Event),
}

/// Event beside the calls while all endpoints are healthy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    LongPolls,
    LateHeads,
    Disconnects,
    GoAway,
    TwoStreams,
}

impl Event {
    const ALL: [Self; 5] = [Self::LongPolls, Self::LateHeads, Self::Disconnects, Self::GoAway, Self::TwoStreams];

    fn name(self) -> &'static str {
        match self {
            Self::LongPolls => "four long polls that end at their deadline of 30 s",
            Self::LateHeads => "four streams whose heads come after 10 s",
            Self::Disconnects => "two callers a second that disconnect after 0.35 s",
            Self::GoAway => "connections that end every second (GOAWAY)",
            Self::TwoStreams => "two streams per connection, further calls wait",
        }
    }

    /// Calls that other callers make: how many at a time, their kind, timeout and pause.
    fn others(self) -> (usize, Request, Duration, Duration) {
        let forever = Duration::from_secs(1_000);
        match self {
            Self::LongPolls => (4, Request::Lasts(forever), Duration::from_secs(30), PAUSE),
            Self::LateHeads => (4, Request::Lasts(Duration::from_secs(10)), forever, PAUSE),
            Self::Disconnects => {
                (2, Request::Lasts(Duration::from_secs(60)), Duration::from_millis(350), Duration::from_millis(650))
            }
            Self::GoAway | Self::TwoStreams => (0, Request::Short, forever, PAUSE),
        }
    }
}

/// Error of a call that the endpoint did not process.
#[derive(Debug)]
struct Unprocessed;

impl std::fmt::Display for Unprocessed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not processed")
    }
}

impl std::error::Error for Unprocessed {}

/// Fault of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fails,
    FailsPartly,
    Slow,
    Silent,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Fails => "responds 500 at once",
            Self::FailsPartly => "fails 30 % of its calls",
            Self::Slow => "takes ten times as long",
            Self::Silent => "takes calls and never responds",
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

    /// Builds the balancer. Also returns a closure that returns `true` if it has ejected an
    /// endpoint, if it can.
    fn build(self, trouble: Trouble, endpoints: usize) -> (Boxed, Option<HasEjected>) {
        let start = Instant::now();
        let endpoints: Vec<_> = (0..endpoints).map(|number| Endpoint::new(number, trouble, start)).collect();
        match self {
            Self::Ours => watched(Balance::builder(discover(endpoints)).observer(StatusOnly).build()),
            Self::OursWithoutEjection => {
                watched(Balance::builder(discover(endpoints)).ejection(Ejection::off()).observer(StatusOnly).build())
            }
            Self::LeastRequests => {
                watched(Balance::builder(discover(endpoints)).policy(LeastRequests).observer(StatusOnly).build())
            }
            Self::Tower => {
                let (rtt, decay) = (Duration::from_millis(30), Duration::from_secs(10));
                let measured =
                    PeakEwmaDiscover::new::<Request>(discover(endpoints), rtt, decay, CompleteOnResponse::default());
                (boxed(Buffer::new(TowerBalance::new(measured), 1024)), None)
            }
            Self::RoundRobin => (boxed(RoundRobin { endpoints: endpoints.into(), next: Arc::default() }), None),
        }
    }
}

type Boxed = BoxCloneService<Request, Response<usize>, BoxError>;
type HasEjected = Box<dyn Fn() -> bool + Send>;

fn watched<P>(balance: Balance<Endpoint, P, StatusOnly>) -> (Boxed, Option<HasEjected>)
where
    P: Policy<Request> + Clone + Send + Sync + 'static,
{
    let observed = balance.clone();
    let has_ejected = move || observed.snapshot().count(EndpointState::Available) < observed.len();
    (boxed(balance), Some(Box::new(has_ejected)))
}

fn boxed<S>(service: S) -> Boxed
where
    S: Service<Request, Response = Response<usize>> + Clone + Send + 'static,
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

/// Classifies responses without a body by their status.
#[derive(Clone, Copy)]
struct StatusOnly;

impl Observe<Response<usize>> for StatusOnly {
    type Response = Response<usize>;

    fn observe(&self, mut call: Completion, response: Response<usize>) -> Response<usize> {
        if response.status().is_success() {
            call.success();
        } else {
            call.failure();
        }
        response
    }

    fn observe_error(&self, error: &(dyn std::error::Error + 'static)) -> Outcome {
        if error.is::<Unprocessed>() { Outcome::Unprocessed } else { Outcome::Failure { retry_after: None } }
    }
}

/// Serves eight calls at a time in 4 to 6 ms each, or two. The first endpoint has the fault for a
/// minute.
#[derive(Clone)]
struct Endpoint {
    number: usize,
    trouble: Trouble,
    start: Instant,
    room: Arc<Semaphore>,
    /// Second in which its connection ended last.
    ended: Arc<Mutex<u64>>,
}

impl Endpoint {
    fn new(number: usize, trouble: Trouble, start: Instant) -> Self {
        let room = if trouble == Trouble::Event(Event::TwoStreams) { 2 } else { 8 };
        Self { number, trouble, start, room: Arc::new(Semaphore::new(room)), ended: Arc::default() }
    }

    fn has(&self, fault: Fault) -> bool {
        self.trouble == Trouble::Fault(fault)
            && self.number == 0
            && (BAD_FROM..BAD_UNTIL).contains(&self.start.elapsed())
    }

    /// Returns `true` for the first call of a second, which meets the end of the connection.
    fn goes_away(&self) -> bool {
        let second = self.start.elapsed().as_secs();
        let mut ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.trouble == Trouble::Event(Event::GoAway) && std::mem::replace(&mut *ended, second) != second
    }
}

impl Service<Request> for Endpoint {
    type Response = Response<usize>;
    type Error = Unprocessed;
    type Future = Pin<Box<dyn Future<Output = Result<Response<usize>, Unprocessed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unprocessed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let this = self.clone();
        let work = Duration::from_micros(fastrand::u64(4_000..6_000));
        let unlucky = fastrand::f32() < 0.3;
        Box::pin(async move {
            let mut response = Response::new(this.number);
            if this.has(Fault::Fails) || this.has(Fault::FailsPartly) && unlucky {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(response);
            }
            if this.has(Fault::Silent) {
                std::future::pending::<()>().await;
            }
            if this.goes_away() {
                return Err(Unprocessed);
            }
            let factor = if this.has(Fault::Slow) { 10 } else { 1 };
            match request {
                Request::Short => {
                    let _place = this.room.acquire().await;
                    sleep(factor * work).await;
                }
                // Waits for an event, which takes no capacity.
                Request::Lasts(time) => sleep(time).await,
            }
            Ok(response)
        })
    }
}

#[derive(Clone)]
struct RoundRobin {
    endpoints: Arc<[Endpoint]>,
    next: Arc<std::sync::atomic::AtomicUsize>,
}

impl Service<Request> for RoundRobin {
    type Response = Response<usize>;
    type Error = Unprocessed;
    type Future = <Endpoint as Service<Request>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unprocessed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let next = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % self.endpoints.len();
        self.endpoints[next].clone().call(request)
    }
}

/// One call, as its caller saw it.
#[derive(Clone, Copy)]
struct Call {
    /// Begin of the call, since the start.
    at: Duration,
    took: Duration,
    /// Endpoint that responded.
    by: Option<usize>,
    failed: bool,
}

/// Returns the calls, and whether an endpoint was ejected, if the balancer can tell.
async fn simulate(balancer: Balancer, trouble: Trouble, endpoints: usize) -> (Vec<Call>, Option<bool>) {
    let (balance, has_ejected) = balancer.build(trouble, endpoints);
    let start = Instant::now();
    let end = if matches!(trouble, Trouble::Fault(_)) { END } else { BAD_UNTIL };
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(caller(balance.clone(), start, end))).collect();
    if let Trouble::Event(event) = trouble {
        (0..event.others().0).for_each(|_| drop(tokio::spawn(other(balance.clone(), event))));
    }
    let ejected = async {
        let has_ejected = has_ejected?;
        let mut ejected = false;
        while start.elapsed() < end {
            ejected |= has_ejected();
            sleep(Duration::from_millis(50)).await;
        }
        Some(ejected)
    };
    let ejected = ejected.await;
    let mut calls = Vec::new();
    for caller in callers {
        calls.extend(caller.await.expect("callers do not panic"));
    }
    calls.sort_by_key(|call| call.at);
    (calls, ejected)
}

/// Caller of other calls, until the runtime ends.
async fn other(mut balance: Boxed, event: Event) {
    let (_, request, timeout, pause) = event.others();
    loop {
        sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        let _ = tokio::time::timeout(timeout, async { balance.ready().await?.call(request).await }).await;
    }
}

async fn caller(mut balance: Boxed, start: Instant, end: Duration) -> Vec<Call> {
    let mut calls = Vec::new();
    while start.elapsed() < end {
        let at = start.elapsed();
        let send = async {
            let mut sends = 0;
            loop {
                sends += 1;
                match balance.ready().await?.call(Request::Short).await {
                    Err(_) if sends < SENDS => {}
                    result => return result,
                }
            }
        };
        let response = tokio::time::timeout(TIMEOUT, send).await;
        let took = start.elapsed() - at;
        let (by, failed) = match response {
            Ok(Ok(response)) => (Some(*response.body()), !response.status().is_success()),
            Ok(Err(_)) | Err(_) => (None, true),
        };
        calls.push(Call { at, took, by, failed });
        sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
    calls
}

/// Least and greatest share of the calls in that minute, in percent of the fair share.
fn shares(calls: &[Call], endpoints: usize) -> (f64, f64) {
    let mut counts = vec![0.0_f64; endpoints];
    let minute = calls.iter().filter(|call| (BAD_FROM..BAD_UNTIL).contains(&call.at));
    minute.filter_map(|call| call.by).for_each(|number| counts[number] += 1.0);
    let fair = counts.iter().sum::<f64>() / endpoints as f64;
    let of_fair = |count: f64| 100.0 * count / fair;
    (of_fair(counts.iter().copied().fold(f64::MAX, f64::min)), of_fair(counts.iter().copied().fold(0.0, f64::max)))
}

/// Results of a run in the minute in which the endpoint was bad.
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
            // Without a response, the endpoint can only have been the bad one.
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

/// Height of the legend.
const LEGEND: i32 = 40;

/// Draws one row per fault: the share of failed calls and the 99th percentile of their time, by
/// second. All rows share one legend.
fn draw(file: &str, runs: &[(Fault, Balancer, Vec<Call>)]) -> Result<(), BoxError> {
    let area = SVGBackend::new(file, (1200, 1200 + LEGEND as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let (legend, plots) = area.split_vertically(LEGEND);
    for ((balancer, colour), x) in Balancer::ALL.into_iter().zip(COLOURS).zip((60..).step_by(225)) {
        legend.draw(&PathElement::new(vec![(x, LEGEND / 2), (x + 24, LEGEND / 2)], colour.stroke_width(3)))?;
        legend.draw(&Text::new(balancer.name(), (x + 32, LEGEND / 2 - 7), ("sans-serif", 16)))?;
    }
    let rows = plots.split_evenly((4, 2));
    for (row, fault) in [Fault::Fails, Fault::FailsPartly, Fault::Slow, Fault::Silent].into_iter().enumerate() {
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
    for ((.., calls), colour) in runs.iter().zip(COLOURS).rev() {
        let at = |second: u64| -> Vec<&Call> { calls.iter().filter(|call| call.at.as_secs() == second).collect() };
        let line = LineSeries::new((0..seconds).map(|second| (second, value(&at(second)))), colour.stroke_width(2));
        chart.draw_series(line)?;
    }
    Ok(())
}
