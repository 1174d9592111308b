//! Comparison with tower's balancer: one test for each known pitfall of tower 0.5.3.
//!
//! Each test shows the fault with tower's own types first, so that a version of tower without it is
//! noticed.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

#[path = "balance/endpoints.rs"]
mod endpoints;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tower::balance::p2c::Balance as TowerBalance;
use tower::buffer::Buffer;
use tower::discover::{Change, ServiceList};
use tower::load::{CompleteOnResponse, Constant, Load, PeakEwma, PeakEwmaDiscover, PendingRequestsDiscover};
use tower::reconnect::Reconnect;
use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_eureka::balance::{AnyResponse, Attributes, Balance, Candidates, Policy};

use endpoints::*;

const SEED: u64 = 17;
const HOUR: Duration = Duration::from_secs(3600);
const RTT: Duration = Duration::from_millis(30);
const DECAY: Duration = Duration::from_secs(10);

type TowerPeakEwma<D> = TowerBalance<PeakEwmaDiscover<D>, ()>;

/// Tower's balancer with the metric of our default policy.
fn tower<D>(discover: D) -> TowerPeakEwma<D>
where
    D: tower::discover::Discover + Unpin,
    D::Key: std::hash::Hash + Clone,
    D::Service: Service<()>,
    D::Error: Into<BoxError>,
    <D::Service as Service<()>>::Error: Into<BoxError>,
{
    TowerBalance::new(PeakEwmaDiscover::new::<()>(discover, RTT, DECAY, CompleteOnResponse::default()))
}

fn inserts<S: Clone>(endpoints: &[S]) -> Vec<Result<Change<usize, S>, BoxError>> {
    endpoints.iter().cloned().enumerate().map(|(i, endpoint)| Ok(Change::Insert(i, endpoint))).collect()
}

/// These endpoints, and no further change.
fn fixed_stream<S: Clone + Unpin>(
    endpoints: &[S],
) -> impl Stream<Item = Result<Change<usize, S>, BoxError>> + Unpin + use<S> {
    tokio_stream::iter(inserts(endpoints)).chain(tokio_stream::pending())
}

struct PollFn<F>(F);

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for PollFn<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}

/// Responds with its name, and counts its `poll_ready` calls.
#[derive(Clone)]
struct Named {
    name: &'static str,
    polls: Arc<AtomicUsize>,
    /// Number of `poll_ready` calls that return an error.
    errors: Arc<AtomicUsize>,
}

fn named(name: &'static str) -> Named {
    Named { name, polls: Arc::default(), errors: Arc::default() }
}

impl<Req> Service<Req> for Named {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Ready<Result<&'static str, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        let fails = self.errors.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        Poll::Ready(if fails { Err("not now".into()) } else { Ok(()) })
    }

    fn call(&mut self, _: Req) -> Self::Future {
        ready(Ok(self.name))
    }
}

async fn ours(services: &[Named]) -> Balance<Named, tower_eureka::balance::PeakEwma, AnyResponse> {
    let balance = Balance::builder(fixed_stream(services)).observer(AnyResponse).build();
    until(|| balance.len() == services.len()).await;
    balance
}

#[tokio::test(start_paused = true)]
async fn p1_call_without_endpoints_hangs_in_tower_and_fails_in_time_in_ours() {
    let mut tower = tower(fixed_stream::<Named>(&[]));
    assert!(timeout(HOUR, tower.ready()).await.is_err());

    let start = Instant::now();
    let error = Balance::builder(fixed_stream::<Named>(&[])).observer(AnyResponse).build().oneshot(()).await;
    assert!(error.unwrap_err().is_no_endpoints());
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn p2_one_readiness_error_loses_the_endpoint_in_tower_and_not_in_ours() {
    let endpoint = named("a");
    endpoint.errors.store(1, Ordering::SeqCst);
    let mut tower = tower(fixed_stream(std::slice::from_ref(&endpoint)));
    assert!(timeout(HOUR, tower.ready()).await.is_err());
    assert_eq!(tower.len(), 0);

    endpoint.errors.store(1, Ordering::SeqCst);
    let ours = ours(&[endpoint]).await;
    assert!(ours.clone().oneshot(()).await.is_err());
    assert_eq!(ours.oneshot(()).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn p3_error_of_discovery_poisons_the_buffer_of_tower_and_not_ours() {
    let changes = || {
        let error = Err(BoxError::from("registry unreachable"));
        tokio_stream::iter(inserts(&[named("a")]).into_iter().chain([error]).chain(inserts(&[named("b")])))
            .chain(tokio_stream::pending())
    };
    let buffer = Buffer::new(tower(changes()), 8);
    for _ in 0..3 {
        let error = buffer.clone().oneshot(()).await.unwrap_err();
        assert!(error.to_string().contains("buffered service failed"), "{error}");
    }

    let ours = Balance::builder(changes()).observer(AnyResponse).build();
    assert_eq!(ours.clone().oneshot(()).await.unwrap(), "a");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ours.oneshot(()).await.unwrap(), "b", "what discovery reported later replaced it");
}

#[tokio::test(start_paused = true)]
async fn p4_discovery_is_polled_past_its_end_by_tower_and_not_by_ours() {
    let ending = || {
        let mut changes = inserts(&[named("a")]).into_iter();
        let mut ended = false;
        PollFn(move |_: &mut Context<'_>| {
            assert!(!ended, "polled past its end");
            let next = changes.next();
            ended = next.is_none();
            Poll::Ready(next)
        })
    };
    let mut tower = tower(ending());
    let called = tokio::spawn(async move {
        for _ in 0..2 {
            tower.ready().await.unwrap().call(()).await.unwrap();
        }
    });
    assert!(called.await.unwrap_err().is_panic());

    let ours = Balance::builder(ending()).observer(AnyResponse).build();
    for _ in 0..3 {
        assert_eq!(ours.clone().oneshot(()).await.unwrap(), "a");
        tokio::time::sleep(HOUR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p5_idle_balancer_ignores_discovery_in_tower_and_follows_it_in_ours() {
    let (sender, receiver) = mpsc::channel::<Result<Change<usize, Named>, BoxError>>(4);
    let _buffer = Buffer::new(tower(ReceiverStream::new(receiver)), 8);
    let mut accepted = 0;
    while let Ok(sent) = timeout(HOUR, sender.send(Ok(Change::Insert(accepted, named("a"))))).await {
        sent.unwrap();
        accepted += 1;
    }
    assert_eq!(accepted, 4);

    let (sender, receiver) = mpsc::channel::<Result<Change<usize, Named>, BoxError>>(4);
    let ours = Balance::builder(ReceiverStream::new(receiver)).observer(AnyResponse).build();
    for i in 0..1_000 {
        sender.send(Ok(Change::Insert(i, named("a")))).await.unwrap();
    }
    until(|| ours.len() == 1_000).await;
}

/// Number of 10,000 calls that tower sends to the first endpoint.
async fn tower_hits(endpoints: &[Endpoint]) -> usize {
    let buffer = Buffer::new(tower(fixed_stream(endpoints)), 64);
    let callers = tokio::task::LocalSet::new();
    for _ in 0..8 {
        let buffer = buffer.clone();
        callers.spawn_local(async move {
            for _ in 0..1_250 {
                let _ = buffer.clone().oneshot(()).await;
            }
        });
    }
    callers.await;
    endpoints[0].hits()
}

#[tokio::test(start_paused = true)]
async fn p6_failing_fast_attracts_calls_in_tower_and_repels_them_in_ours() {
    println!("share of 10,000 calls by 8 callers that hit the one that fails at once (seed {SEED})");
    for n in [3, 5, 10] {
        fastrand::seed(SEED);
        let fair = 10_000 / n;
        let tower = tower_hits(&one_of(n, Behaviour::Status(500, None))).await;
        let endpoints = one_of(n, Behaviour::Status(500, None));
        calls(&default(&endpoints).await, 8, 10_000).await;
        let ours = endpoints[0].hits();
        println!("  1 of {n}: tower {} %, ours {} %", tower as f64 / 100.0, ours as f64 / 100.0);
        assert!(tower > fair && ours <= 30, "seed {SEED}: {tower} and {ours} of 10000, {fair} would be fair");
    }
}

/// Connects if `works` is set, and counts the attempts.
fn connector(
    attempts: Arc<AtomicUsize>,
    works: Arc<AtomicBool>,
) -> impl Service<(), Response = Named, Error = io::Error, Future = Ready<io::Result<Named>>> {
    service_fn(move |()| {
        attempts.fetch_add(1, Ordering::SeqCst);
        ready(if works.load(Ordering::SeqCst) { Ok(named("a")) } else { Err(io::ErrorKind::ConnectionRefused.into()) })
    })
}

#[tokio::test(start_paused = true)]
async fn p7_reconnects_have_no_pause_in_tower_and_back_off_in_ours() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let reconnect = Reconnect::new(connector(attempts.clone(), Arc::default()), ());
    let mut tower = tower(ServiceList::new::<()>(vec![reconnect]));
    let start = Instant::now();
    for _ in 0..1_000 {
        tower.ready().await.unwrap().call(()).await.unwrap_err();
    }
    assert!(attempts.load(Ordering::SeqCst) >= 1_000);
    assert_eq!(start.elapsed(), Duration::ZERO);

    let probes = Arc::new(AtomicUsize::new(0));
    let (counted, endpoints) = (probes.clone(), one_of(2, Behaviour::Refuses));
    let balance = fixed(&endpoints, |builder| {
        builder.probe(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            ready(false)
        })
    })
    .await;
    calls_for(&balance, 2, HOUR / 10).await;
    let connects = endpoints[0].hits() + probes.load(Ordering::SeqCst);
    assert!((10..=20).contains(&connects), "{connects} attempts in six minutes");
}

#[tokio::test(start_paused = true)]
async fn p8_reconnect_returns_an_old_error_in_tower_and_the_current_one_in_ours() {
    let works = Arc::new(AtomicBool::new(false));
    let mut reconnect = Reconnect::new(connector(Arc::default(), works.clone()), ());
    ServiceExt::<()>::ready(&mut reconnect).await.unwrap();
    works.store(true, Ordering::SeqCst);
    ServiceExt::<()>::ready(&mut reconnect).await.unwrap();
    let error: Result<_, BoxError> = Service::<()>::call(&mut reconnect, ()).await;
    assert!(error.is_err(), "though it is connected");

    let endpoints = [Endpoint::new(Behaviour::Refuses)];
    let mut ours = default(&endpoints).await;
    ours.ready().await.unwrap();
    endpoints[0].now(FAST);
    assert!(ours.ready().await.unwrap().call(()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn p9_call_after_a_removal_goes_to_any_endpoint_in_tower_and_to_the_best_in_ours() {
    // The picked endpoint is removed: the better one that is left should be called, never the
    // worst.
    let mut calls_to_the_worst = 0;
    for _ in 0..20 {
        let (sender, receiver) = mpsc::unbounded_channel();
        let loads = [("good", 1), ("better", 0), ("worst", 100)];
        for (name, load) in loads {
            sender.send(Ok::<_, Infallible>(Change::Insert(name, Constant::new(named(name), load)))).unwrap();
        }
        let mut tower = TowerBalance::<_, ()>::new(tokio_stream::wrappers::UnboundedReceiverStream::new(receiver));
        tower.ready().await.unwrap();
        sender.send(Ok(Change::Remove("better"))).unwrap();
        let called = tower.ready().await.unwrap().call(()).await.unwrap();
        calls_to_the_worst += usize::from(called == "worst");
    }
    assert!(calls_to_the_worst > 0);

    fastrand::seed(SEED);
    let (sender, discover) = channel();
    let endpoints = [FAST, FAST, Behaviour::Responds(Duration::from_millis(500))].map(Endpoint::new);
    let mut ours = Balance::builder(discover).endpoint(|target: &Target| target.endpoint.clone()).build();
    for (key, endpoint) in endpoints.iter().enumerate() {
        sender.send(insert(key, endpoint, Attributes::new())).unwrap();
    }
    until(|| ours.len() == 3).await;
    calls(&ours, 8, 800).await;
    ours.ready().await.unwrap();
    let before = endpoints.each_ref().map(Endpoint::hits);
    sender.send(Ok(Change::Remove(0))).unwrap();
    until(|| ours.len() == 2).await;
    ours.call(()).await.unwrap();
    let after = endpoints.each_ref().map(Endpoint::hits);
    assert_eq!(after, [before[0], before[1] + 1, before[2]]);
}

#[derive(Clone)]
struct ByName;

impl Policy<&'static str> for ByName {
    fn pick(&self, request: &&'static str, candidates: &Candidates<'_>) -> Option<usize> {
        (0..candidates.len()).find(|&position| candidates.id(position) == *request)
    }
}

#[tokio::test(start_paused = true)]
async fn p10_pick_ignores_the_request_in_tower_and_uses_it_in_ours() {
    let keyed = || tokio_stream::iter(["a", "b"].map(|name| Ok::<_, Infallible>(Change::Insert(name, named(name)))));
    let discover = PendingRequestsDiscover::new::<&'static str>(
        keyed().chain(tokio_stream::pending()),
        CompleteOnResponse::default(),
    );
    let mut tower = TowerBalance::<_, &'static str>::new(discover);
    let mut elsewhere = 0;
    for _ in 0..100 {
        elsewhere += usize::from(tower.ready().await.unwrap().call("a").await.unwrap() != "a");
    }
    assert!(elsewhere > 0);

    let ours = Balance::builder(keyed()).observer(AnyResponse).policy(ByName).build();
    until(|| ours.len() == 2).await;
    for request in ["a", "b"].repeat(50) {
        assert_eq!(ours.clone().oneshot(request).await.unwrap(), request);
    }
    assert!(ours.oneshot("c").await.unwrap_err().is_no_endpoints(), "a policy may refuse");
}

#[tokio::test(start_paused = true)]
async fn p11_weights_are_unknown_to_tower_and_kept_by_ours() {
    let weights = [0.99, 0.005, 0.005];
    let endpoints = [FAST; 3].map(Endpoint::new);
    let discover = PendingRequestsDiscover::new::<()>(fixed_stream(&endpoints), CompleteOnResponse::default());
    let mut tower = TowerBalance::<_, ()>::new(discover);
    for _ in 0..3_000 {
        tower.ready().await.unwrap().call(()).await.unwrap();
    }
    assert!(endpoints.iter().all(|endpoint| endpoint.hits() > 800), "a third each: it cannot be told");

    fastrand::seed(SEED);
    let (sender, discover) = channel();
    let endpoints = [FAST; 3].map(Endpoint::new);
    let ours = Balance::builder(discover)
        .attributes(|target: &Target| target.attributes.clone())
        .endpoint(|target| target.endpoint.clone())
        .build();
    for (key, endpoint) in endpoints.iter().enumerate() {
        sender.send(insert(key, endpoint, Attributes::new().with_weight(weights[key]))).unwrap();
    }
    until(|| ours.len() == 3).await;
    calls(&ours, 1, 100_000).await;
    for (endpoint, weight) in endpoints.iter().zip(weights) {
        let (hits, expected) = (endpoint.hits() as f32, weight * 100_000.0);
        assert!((hits / expected - 1.0).abs() < 0.15, "seed {SEED}: {hits} instead of {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn p12_ready_caller_blocks_others_and_its_clone_panics_in_tower_and_neither_in_ours() {
    let mut first = Buffer::new(tower(fixed_stream(&[named("a")])), 1);
    let mut second = first.clone();
    first.ready().await.unwrap();
    assert!(timeout(HOUR, second.ready()).await.is_err());
    let mut clone = first.clone();
    let called = tokio::spawn(async move { clone.call(()).await.map(drop) }).await;
    assert!(called.unwrap_err().is_panic());

    let mut first = ours(&[named("a")]).await;
    let mut second = first.clone();
    ServiceExt::<()>::ready(&mut first).await.unwrap();
    ServiceExt::<()>::ready(&mut second).await.unwrap();
    assert_eq!(first.clone().call(()).await.unwrap(), "a");
    assert_eq!(second.call(()).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn p13_biased_metric_of_two_endpoints_decides_every_call_in_tower_and_few_in_ours() {
    fastrand::seed(SEED);
    let tower = tower_hits(&one_of(2, Behaviour::Status(500, None))).await;
    let endpoints = one_of(2, Behaviour::Status(500, None));
    calls(&default(&endpoints).await, 8, 10_000).await;
    println!("1 of 2: tower {} %, ours {} %", tower as f64 / 100.0, endpoints[0].hits() as f64 / 100.0);
    assert!(tower > 7_000 && endpoints[0].hits() <= 30, "seed {SEED}: {tower} and {}", endpoints[0].hits());
}

#[tokio::test(start_paused = true)]
async fn p14_discovery_that_is_always_ready_blocks_tower_and_not_ours() {
    let endless = |end: usize| {
        let (polls, endpoint) = (Arc::new(AtomicUsize::new(0)), named("a"));
        let counted = polls.clone();
        let discover = PollFn(move |_: &mut Context<'_>| match counted.fetch_add(1, Ordering::SeqCst) {
            poll if poll < end => Poll::Ready(Some(Ok::<_, Infallible>(Change::Insert(0, endpoint.clone())))),
            _ => Poll::Pending,
        });
        (polls, discover)
    };
    let (polls, discover) = endless(10_000);
    let mut tower = tower(discover);
    let _ = std::pin::pin!(tower.ready()).as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(polls.load(Ordering::SeqCst) > 10_000, "it returned only when there was nothing more");

    let (polls, discover) = endless(usize::MAX);
    let ours = Balance::builder(discover).observer(AnyResponse).build();
    for _ in 0..10 {
        assert_eq!(ours.clone().oneshot(()).await.unwrap(), "a");
    }
    assert!(polls.load(Ordering::SeqCst) < 10_000);
}

/// Records the latency of the first endpoint.
#[derive(Clone, Default)]
struct Reads(Arc<std::sync::Mutex<Duration>>);

impl Policy<()> for Reads {
    fn pick(&self, (): &(), candidates: &Candidates<'_>) -> Option<usize> {
        *self.0.lock().unwrap() = candidates.latency(0);
        Some(0)
    }
}

#[tokio::test(start_paused = true)]
async fn p15_reading_the_metric_changes_it_in_tower_and_not_in_ours() {
    let slow = || Endpoint::new(Behaviour::Responds(Duration::from_millis(100)));
    let decay = Duration::from_secs(1);
    let mut measured = Vec::new();
    for reads in [false, true] {
        let endpoint = slow();
        let mut tower = PeakEwma::new(endpoint.clone(), RTT, 1e9, CompleteOnResponse::default());
        tower.ready().await.unwrap().call(()).await.unwrap();
        endpoint.now(Behaviour::Responds(Duration::from_millis(20)));
        for _ in 0..980 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if reads {
                tower.load();
            }
        }
        tower.ready().await.unwrap().call(()).await.unwrap();
        measured.push(format!("{:?}", tower.load()));
    }
    assert_ne!(measured[0], measured[1]);

    let mut measured = Vec::new();
    for reads in [false, true] {
        let endpoint = slow();
        let policy = Reads::default();
        let mut ours =
            fixed(std::slice::from_ref(&endpoint), |builder| builder.policy(policy.clone()).decay(decay)).await;
        // One slow response alone may have been a long poll.
        ours.call(()).await.unwrap();
        ours.call(()).await.unwrap();
        endpoint.now(Behaviour::Responds(Duration::from_millis(20)));
        for _ in 0..980 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if reads {
                drop(ours.call(()));
            }
        }
        ours.call(()).await.unwrap();
        drop(ours.call(()));
        measured.push(*policy.0.lock().unwrap());
        // 16,384 ms in all: a whole number of the ticks (2^20 ns) of the average.
        tokio::time::sleep(Duration::from_millis(15_184)).await;
    }
    assert_eq!(measured[0], measured[1]);
    // 100 ms × 1/e + 20 ms × (1 - 1/e)
    assert!((48..=51).contains(&measured[0].as_millis()), "{measured:?}");
}

#[tokio::test(start_paused = true)]
async fn p16_first_calls_poll_every_endpoint_in_tower_and_the_picked_ones_in_ours() {
    let endpoints: Vec<_> = (0..1_000).map(|_| named("a")).collect();
    let polls = || endpoints.iter().map(|endpoint| endpoint.polls.swap(0, Ordering::SeqCst)).sum::<usize>();
    let mut tower = tower(fixed_stream(&endpoints));
    for _ in 0..100 {
        tower.ready().await.unwrap().call(()).await.unwrap();
    }
    assert!(polls() >= 1_000);

    let ours = ours(&endpoints).await;
    assert_eq!(polls(), 0);
    for _ in 0..100 {
        ours.clone().oneshot(()).await.unwrap();
    }
    assert_eq!(polls(), 100);
}

#[tokio::test(start_paused = true)]
async fn p17_each_call_allocates_and_logs_in_tower_and_not_in_ours() {
    for n in [2, 100] {
        let endpoints: Vec<_> = (0..n).map(|_| named("a")).collect();
        let mut tower = tower(fixed_stream(&endpoints));
        let mut ours = ours(&endpoints).await;
        // The first calls differ: they build what later ones use.
        for _ in 0..10 {
            tower.ready().await.unwrap().call(()).await.unwrap();
            ours.clone().oneshot(()).await.unwrap();
        }
        let (allocated_tower, logged_tower) = cost_of_100_calls(&mut tower);
        let (allocated_ours, logged_ours) = cost_of_100_calls(&mut ours);
        assert!(allocated_tower >= 100 && logged_tower >= 100, "{allocated_tower} allocations, {logged_tower} lines");
        assert_eq!((allocated_ours, logged_ours), (0, 0));
    }
}

/// Number of allocations and of log lines.
fn cost_of_100_calls(service: &mut impl Service<(), Response = &'static str>) -> (u64, usize) {
    let lines = Arc::new(AtomicUsize::new(0));
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    let mut calls = || {
        for _ in 0..100 {
            assert!(matches!(service.poll_ready(cx), Poll::Ready(Ok(()))));
            let mut call = std::pin::pin!(service.call(()));
            assert!(matches!(call.as_mut().poll(cx), Poll::Ready(Ok("a"))));
        }
    };
    let allocated = allocation_counter::measure(&mut calls).count_total;
    tracing::subscriber::with_default(Lines(lines.clone()), calls);
    (allocated, lines.load(Ordering::SeqCst))
}

/// Counts log lines of level debug and above.
struct Lines(Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::DEBUG
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
