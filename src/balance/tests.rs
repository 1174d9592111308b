//! Tests of internals: pending calls, costs, and the picks of retries.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tower::discover::ServiceList;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::endpoint::Timestamp;
use super::*;
use crate::error::{Error, Kind};
use crate::sync::Mutex;

mod stalls;

type Respond = StreamBody<tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, BoxError>>>>;

/// Responds with its own number, or does what the request asks for.
#[derive(Clone)]
struct Endpoint(usize);

#[derive(Clone, Copy)]
enum Request {
    Respond,
    Fail,
    FailLate,
    Refuse,
    Hang,
    Panic,
}

impl Service<Request> for Endpoint {
    type Response = usize;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<usize, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let number = self.0;
        match request {
            Request::Panic => panic!("fails on purpose"),
            _ => Box::pin(async move {
                match request {
                    Request::Respond => Ok(number),
                    Request::Fail => Err("fails on purpose".into()),
                    Request::FailLate => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        Err("fails on purpose".into())
                    }
                    Request::Refuse => Err(Error::new(Kind::Connect, "connect to").instance("i").into()),
                    Request::Hang => std::future::pending().await,
                    Request::Panic => unreachable!("panicked before"),
                }
            }),
        }
    }
}

async fn endpoints(n: usize) -> Balance<Endpoint, PeakEwma, AnyResponse> {
    let endpoints: Vec<_> = (0..n).map(Endpoint).collect();
    let balance = Balance::builder(ServiceList::new::<Request>(endpoints)).observer(AnyResponse).build();
    assert!(balance.ready(None).await);
    balance
}

/// Balancer over one HTTP service that responds like this.
async fn responding<B>(response: impl Fn() -> Response<B> + Send + Sync + 'static) -> HttpBalance<B>
where
    B: Body + Send + 'static,
{
    let response = Arc::new(response);
    let service = BoxCloneSyncService::new(tower::service_fn(move |()| {
        let response = response();
        async move { Ok::<_, Infallible>(response) }
    }));
    let balance = Balance::builder(ServiceList::new(vec![service])).build();
    assert!(balance.ready(None).await);
    balance
}

type HttpBalance<B> = Balance<BoxCloneSyncService<(), Response<B>, Infallible>>;

fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Respond {
    StreamBody::new(tokio_stream::iter(frames))
}

fn grpc_status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))])
}

fn pending<S, P, O>(balance: &Balance<S, P, O>) -> usize {
    balance.shared.picker.load().stats().map(|stats| stats.load.pending()).sum()
}

/// Cost of a first failure among the last 64 calls, in milliseconds.
const PENALTY: f32 = 5_000.0 / 64.0;

/// Cost of the first endpoint, in milliseconds.
fn cost<S: Clone, P, O>(balance: &Balance<S, P, O>) -> f32 {
    let now = Timestamp::now().tick();
    let picker = balance.shared.picker.load();
    picker.stats().next().unwrap().load.cost(now) / 1e6
}

#[tokio::test(start_paused = true)]
async fn call_is_pending_until_it_ends_in_any_way() {
    let balance = endpoints(1).await;
    for request in [Request::Respond, Request::Fail, Request::Refuse] {
        let _ = balance.clone().oneshot(request).await;
        assert_eq!(pending(&balance), 0);
    }
    let mut hanging = balance.clone();
    let hanging = tokio::spawn(hanging.call(Request::Hang));
    tokio::task::yield_now().await;
    assert_eq!(pending(&balance), 1);
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    assert_eq!(pending(&balance), 0);

    drop(balance.clone().call(Request::Respond));
    assert_eq!(pending(&balance), 0, "dropped before its first poll");
    drop(balance.pick(&Request::Respond, &[]));
    assert_eq!(pending(&balance), 0, "picked for nothing");
    let panicking = balance.clone().oneshot(Request::Panic);
    assert!(tokio::spawn(panicking).await.unwrap_err().is_panic());
    assert_eq!(pending(&balance), 0, "panicked");
}

/// Is ready after a second, fails to get ready, or panics.
#[derive(Clone)]
struct SlowToBeReady {
    becomes: Result<(), &'static str>,
    sleep: Arc<Mutex<Pin<Box<tokio::time::Sleep>>>>,
}

impl Service<()> for SlowToBeReady {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        ready!(self.sleep.lock().as_mut().poll(cx));
        assert_ne!(self.becomes, Err("panics"));
        Poll::Ready(self.becomes.map_err(Into::into))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn excluded_readiness_wait_is_not_recorded() {
    for becomes in [Ok(()), Err("fails"), Err("panics"), Err("is given up")] {
        let sleep = Arc::new(Mutex::new(Box::pin(tokio::time::sleep(Duration::from_secs(1)))));
        let services = ServiceList::new::<()>(vec![SlowToBeReady { becomes, sleep }]);
        let balance = Balance::builder(services).observer(AnyResponse).build();
        assert!(balance.ready(None).await);
        let picked = balance.pick(&(), &[]).unwrap();
        assert_eq!(pending(&balance), 1);
        let mut call = picked.call(());
        call.exclude_readiness_wait();
        assert_eq!(pending(&balance), 0);
        let patience = Duration::from_millis(if becomes == Err("is given up") { 500 } else { 1_500 });
        let result = tokio::spawn(tokio::time::timeout(patience, call)).await;
        assert_eq!(matches!(result, Ok(Ok(Ok(())))), becomes.is_ok(), "{becomes:?}");
        assert_eq!((pending(&balance), cost(&balance)), (0, 1.0), "{becomes:?}");
        assert_eq!(balance.snapshot().endpoints()[0].failures(), 0, "{becomes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_keeps_the_cost_and_a_failed_one_costs_the_penalty() {
    let balance = endpoints(1).await;
    balance.clone().oneshot(Request::Respond).await.unwrap();
    let late = tokio::time::timeout(Duration::from_millis(700), balance.clone().call(Request::Hang));
    assert!(late.await.is_err());
    assert_eq!(cost(&balance), 1.0);
    let balance = endpoints(1).await;
    assert!(balance.clone().oneshot(Request::Fail).await.is_err());
    assert_eq!(cost(&balance), PENALTY);
    for _ in 1..64 {
        assert!(balance.clone().oneshot(Request::Fail).await.is_err());
    }
    assert_eq!(cost(&balance), 64.0 * PENALTY, "in proportion to the failures among the last 64 calls");
}

/// Calls this endpoint and cancels the call after some milliseconds.
async fn cancel_at(balance: &Balance<Endpoint, PeakEwma, AnyResponse>, number: usize, patience: u64) {
    let others: Vec<_> = (0..balance.len() as u64).filter(|id| *id != number as u64).map(EndpointId).collect();
    let call = balance.pick(&Request::Hang, &others).unwrap().call(Request::Hang);
    assert!(tokio::time::timeout(Duration::from_millis(patience), call).await.is_err());
}

async fn respond_at(balance: &Balance<Endpoint, PeakEwma, AnyResponse>, number: usize) {
    let others: Vec<_> = (0..balance.len() as u64).filter(|id| *id != number as u64).map(EndpointId).collect();
    balance.pick(&Request::Respond, &others).unwrap().call(Request::Respond).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn third_silent_call_in_a_row_ejects() {
    for (patience, at_third) in [(50, false), (250, false), (350, true), (60_000, true)] {
        let balance = endpoints(2).await;
        for call in 1..=3 {
            respond_at(&balance, 1).await;
            cancel_at(&balance, 0, patience).await;
            respond_at(&balance, 1).await;
            let out = call == 3 && at_third;
            let snapshot = balance.snapshot();
            assert_eq!(snapshot.count(EndpointState::Ejected) == 1, out, "{patience} ms, call {call}: {snapshot}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silent_calls_do_not_eject_after_a_response_or_while_others_are_silent() {
    let balance = endpoints(2).await;
    for _ in 0..10 {
        respond_at(&balance, 1).await;
        cancel_at(&balance, 0, 30_000).await;
        cancel_at(&balance, 0, 30_000).await;
        respond_at(&balance, 0).await;
    }
    for _ in 0..10 {
        cancel_at(&balance, 0, 30_000).await;
        cancel_at(&balance, 1, 30_000).await;
    }
    assert_eq!(balance.snapshot().count(EndpointState::Available), 2, "{}", balance.snapshot());
}

#[tokio::test(start_paused = true)]
async fn calls_that_began_or_ended_together_count_as_one() {
    let balance = endpoints(2).await;
    respond_at(&balance, 1).await;
    futures_of((0..8).map(|_| cancel_at(&balance, 0, 350))).await;
    respond_at(&balance, 1).await;
    // Ended together.
    let begun_at = async |ms| {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        cancel_at(&balance, 0, 1_000 - ms).await;
    };
    futures_of((0..8).map(|n| begun_at(50 * n))).await;
    assert_eq!(balance.snapshot().count(EndpointState::Available), 2, "{}", balance.snapshot());
    cancel_at(&balance, 0, 350).await;
    assert_eq!(balance.snapshot().count(EndpointState::Ejected), 1, "{}", balance.snapshot());
}

/// As those of a connection that ends with all its streams.
#[tokio::test(start_paused = true)]
async fn pending_calls_that_fail_together_count_as_one_failure() {
    let balance = endpoints(2).await;
    let fail = async || {
        let call = balance.pick(&Request::FailLate, &[EndpointId(1)]).unwrap().call(Request::FailLate);
        assert!(call.await.is_err());
    };
    for _ in 0..4 {
        futures_of((0..20).map(|_| fail())).await;
        assert_eq!(balance.snapshot().count(EndpointState::Available), 2, "{}", balance.snapshot());
    }
    // The fifth one in a row.
    fail().await;
    assert_eq!(balance.snapshot().count(EndpointState::Ejected), 1, "{}", balance.snapshot());
}

/// Awaits all futures at the same time.
async fn futures_of(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn lost_hedges_do_not_eject() {
    let balance = endpoints(2).await;
    for _ in 0..10 {
        respond_at(&balance, 1).await;
        let mut call = Box::pin(balance.pick(&Request::Hang, &[EndpointId(1)]).unwrap().call(Request::Hang));
        assert!(tokio::time::timeout(Duration::from_secs(1), call.as_mut()).await.is_err());
        call.as_mut().cancel_hedge();
    }
    let snapshot = balance.snapshot();
    assert_eq!((snapshot.count(EndpointState::Available), pending(&balance)), (2, 0), "{snapshot}");
}

#[tokio::test(start_paused = true)]
async fn long_calls_are_no_load_until_they_end() {
    let balance = endpoints(1).await;
    let metric = || {
        let picker = balance.shared.picker.load();
        picker.stats().next().unwrap().expected_cost(Timestamp::now().tick()) / 1e6
    };
    let mut polls = Vec::new();
    for _ in 0..3 {
        balance.clone().oneshot(Request::Respond).await.unwrap();
        polls.push(Box::pin(balance.clone().call(Request::Hang)));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((metric(), pending(&balance)), (1.0, 3), "nothing was called since");
    balance.clone().oneshot(Request::Respond).await.unwrap();
    assert_eq!((metric(), pending(&balance)), (1.0, 3));
    polls.push(Box::pin(balance.clone().call(Request::Hang)));
    assert_eq!((metric(), pending(&balance)), (2.0, 4));
    for left in (0..4).rev() {
        polls.pop();
        assert_eq!((metric(), pending(&balance)), (1.0, left));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_this_crate_pass_through() {
    let balance = endpoints(1).await;
    let error = balance.clone().oneshot(Request::Refuse).await.unwrap_err();
    assert!(error.is_connect(), "{error}");
    let error = balance.oneshot(Request::Fail).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Call);
    assert_eq!(error.instance_id(), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn retry_avoids_tried_endpoints() {
    fastrand::seed(3);
    let balance = endpoints(3).await;
    let mut tried = Vec::new();
    let mut numbers = Vec::new();
    while let Some(picked) = balance.pick(&Request::Respond, &tried) {
        tried.push(picked.id());
        numbers.push(picked.call(Request::Respond).await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn new_endpoint_is_assumed_to_be_as_fast_as_the_fastest() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let discover = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let builder = Balance::builder(discover).observer(AnyResponse).default_latency(Duration::from_millis(30));
    let balance = builder.build();
    let insert = |n| Ok::<_, Infallible>(tower::discover::Change::Insert(n, Endpoint(n)));
    sender.send(insert(0)).unwrap();
    assert!(balance.ready(None).await);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        balance.clone().oneshot(Request::Respond).await.unwrap();
    }
    let known = cost(&balance);
    assert!(known <= 1.0, "{known}");
    sender.send(insert(1)).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(balance.len(), 2);
    let picker = balance.shared.picker.load();
    let now = Timestamp::now().tick();
    assert_eq!(picker.stats().nth(1).unwrap().load.cost(now) / 1e6, known);
}

#[tokio::test(start_paused = true)]
async fn http_call_is_pending_until_its_body_ends() {
    let balance =
        responding(|| Response::new(frames(vec![Ok(Frame::data("a".into())), Ok(Frame::data("b".into()))]))).await;
    let mut body = balance.clone().oneshot(()).await.unwrap().into_body();
    assert_eq!(pending(&balance), 1);
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert_eq!(pending(&balance), 1);
    assert!(body.frame().await.is_none());
    assert_eq!(pending(&balance), 0);

    let response = balance.clone().oneshot(()).await.unwrap();
    assert_eq!(pending(&balance), 1);
    drop(response);
    assert_eq!(pending(&balance), 0);
}

#[tokio::test(start_paused = true)]
async fn body_of_known_length_ends_with_its_last_frame() {
    let balance = responding(|| Response::new(Full::<Bytes>::from("a"))).await;
    let mut body = balance.clone().oneshot(()).await.unwrap().into_body();
    assert_eq!(pending(&balance), 1);
    body.frame().await.unwrap().unwrap();
    assert_eq!(pending(&balance), 0);

    let balance = responding(|| Response::new(Empty::<Bytes>::new())).await;
    let _response = balance.clone().oneshot(()).await.unwrap();
    assert_eq!(pending(&balance), 0);
}

#[tokio::test(start_paused = true)]
async fn body_that_breaks_off_is_a_failure() {
    let balance =
        responding(|| Response::new(frames(vec![Ok(Frame::data("a".into())), Err("connection lost".into())]))).await;
    let response = balance.clone().oneshot(()).await.unwrap();
    assert!(cost(&balance) <= 1.0);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!((pending(&balance), cost(&balance)), (0, PENALTY));
}

/// Their connection ended, and their readers notice it one after the other.
#[tokio::test(start_paused = true)]
async fn pending_responses_that_break_off_count_as_one_failure() {
    let balance =
        responding(|| Response::new(frames(vec![Ok(Frame::data("a".into())), Err("connection lost".into())]))).await;
    let failures = || balance.snapshot().endpoints()[0].failures();
    for expected in [1, 2] {
        let mut bodies = Vec::new();
        for _ in 0..20 {
            bodies.push(balance.clone().oneshot(()).await.unwrap().into_body());
        }
        for mut body in bodies {
            body.frame().await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(body.frame().await.unwrap().is_err());
        }
        assert_eq!(failures(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn responses_that_report_a_failure_all_count() {
    let balance = responding(|| Response::builder().status(503).body(Empty::<Bytes>::new()).unwrap()).await;
    let mut responses = Vec::new();
    for _ in 0..20 {
        responses.push(balance.clone().oneshot(()).await.unwrap());
    }
    assert_eq!(balance.snapshot().endpoints()[0].failures(), 20);
}

#[tokio::test(start_paused = true)]
async fn server_errors_and_overload_raise_the_cost_and_client_errors_do_not() {
    for (status, failed) in [(200, false), (404, false), (429, true), (500, true), (503, true)] {
        let balance = responding(move || Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap()).await;
        balance.clone().oneshot(()).await.unwrap();
        assert_eq!(cost(&balance) == PENALTY, failed, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_is_classified_by_the_status_in_head_or_trailers() {
    let cases = [
        ("0", false),
        ("1", false),
        ("2", true),
        ("4", false),
        ("5", false),
        ("8", true),
        ("14", true),
        ("16", false),
        ("99", true),
    ];
    for (code, failed) in cases {
        let in_head = responding(move || {
            let mut response = Response::new(frames(vec![]));
            *response.headers_mut() = grpc_status(code);
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
            response
        });
        let in_trailers = responding(move || {
            let frames = frames(vec![Ok(Frame::data("a".into())), Ok(Frame::trailers(grpc_status(code)))]);
            Response::builder().header("content-type", "application/grpc").body(frames).unwrap()
        });
        for balance in [in_head.await, in_trailers.await] {
            let response = balance.clone().oneshot(()).await.unwrap();
            response.into_body().collect().await.unwrap();
            assert_eq!((pending(&balance), cost(&balance) == PENALTY), (0, failed), "grpc-status {code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_end_the_call_and_are_ignored_outside_grpc() {
    let balance =
        responding(|| Response::new(frames(vec![Ok(Frame::trailers(grpc_status("14"))), Ok(Frame::data("x".into()))])))
            .await;
    let mut body = balance.clone().oneshot(()).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(pending(&balance), 0);
    assert!(cost(&balance) <= 1.0);
}

#[tokio::test(start_paused = true)]
async fn retry_uses_ejected_endpoints_before_unreachable_ones() {
    fastrand::seed(3);
    let balance = endpoints(3).await;
    let change = |id, cause| balance.shared.change(|pool, now| pool.eject_suspect(EndpointId(id), cause, now));
    change(0, Cause::Unreachable);
    change(1, Cause::Consecutive);
    for _ in 0..20 {
        let mut tried = Vec::new();
        let mut picked = Vec::new();
        while let Some(next) = balance.pick(&Request::Respond, &tried) {
            tried.push(next.id());
            picked.push(next.completion.endpoint().to_owned());
        }
        assert_eq!(picked, ["2", "1", "0"]);
        assert!(balance.pick_available(&Request::Respond, &tried[..1]).is_none());
    }
    let snapshot = balance.snapshot();
    assert_eq!((snapshot.count(EndpointState::Ejected), pending(&balance)), (2, 0), "{snapshot}");
}

/// Balancer over two endpoints, of which the first is half-open after it was ejected for failures.
async fn half_open() -> Balance<Endpoint, PeakEwma, AnyResponse> {
    let balance = endpoints(2).await;
    respond_at(&balance, 0).await;
    respond_at(&balance, 1).await;
    balance.shared.change(|pool, now| pool.eject_suspect(EndpointId(0), Cause::Consecutive, now));
    tokio::time::sleep(Duration::from_secs(34)).await;
    let snapshot = balance.snapshot();
    assert_eq!(snapshot.count(EndpointState::HalfOpen), 1, "{snapshot}");
    balance
}

fn state(balance: &Balance<Endpoint, PeakEwma, AnyResponse>) -> EndpointState {
    balance.snapshot().endpoints()[0].state()
}

#[tokio::test(start_paused = true)]
async fn long_poll_with_the_probe_permit_neither_ejects_nor_delays_a_half_open_endpoint() {
    let balance = half_open().await;
    let poll = tokio::spawn(tokio::time::timeout(Duration::from_secs(30), balance.clone().call(Request::Hang)));
    tokio::task::yield_now().await;
    // The permit is issued again after a second.
    for _ in 0..10 {
        assert_eq!(balance.clone().oneshot(Request::Respond).await.unwrap(), 1);
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..3 {
        assert_eq!(balance.clone().oneshot(Request::Respond).await.unwrap(), 0);
    }
    assert_eq!(state(&balance), EndpointState::Available);
    assert!(poll.await.unwrap().is_err());
    assert_eq!(state(&balance), EndpointState::Available);

    let balance = half_open().await;
    for _ in 0..2 {
        let probe = tokio::time::timeout(Duration::from_millis(350), balance.clone().call(Request::Hang));
        assert!(probe.await.is_err());
        assert_eq!(state(&balance), EndpointState::HalfOpen);
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    for _ in 0..3 {
        assert_eq!(balance.clone().oneshot(Request::Respond).await.unwrap(), 0);
    }
    assert_eq!(state(&balance), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn silent_calls_with_the_probe_permit_eject_a_half_open_endpoint_again() {
    let balance = half_open().await;
    for probe in 1..=3 {
        assert_eq!(state(&balance), EndpointState::HalfOpen, "probe {probe}");
        cancel_at(&balance, 1, 0).await;
        let probe = tokio::time::timeout(Duration::from_millis(350), balance.clone().call(Request::Hang));
        assert!(probe.await.is_err());
        respond_at(&balance, 1).await;
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    assert_eq!(state(&balance), EndpointState::Ejected);
}

#[tokio::test(start_paused = true)]
async fn probe_permit_of_a_call_without_evidence_goes_to_the_next_call() {
    for outcome in [Outcome::Unprocessed, Outcome::Cancelled] {
        let balance = half_open().await;
        for _ in 0..10 {
            let mut picked = balance.pick(&Request::Respond, &[]).unwrap();
            assert_eq!(picked.completion.endpoint(), "0", "{outcome:?}");
            picked.completion.outcome(outcome);
        }
        for _ in 0..3 {
            assert_eq!(balance.clone().oneshot(Request::Respond).await.unwrap(), 0);
        }
        assert_eq!((state(&balance), pending(&balance)), (EndpointState::Available, 0), "{outcome:?}");
        assert_eq!(balance.snapshot().endpoints()[0].failures(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_call_starts_a_background_probe_and_its_failure_ejects() {
    for reachable in [true, false] {
        let probes = Arc::new(AtomicUsize::new(0));
        let counted = probes.clone();
        let services = ServiceList::new::<Request>(vec![Endpoint(0), Endpoint(1)]);
        let builder = Balance::builder(services).observer(AnyResponse);
        let balance = builder
            .probe(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::ready(reachable)
            })
            .build();
        assert!(balance.ready(None).await);
        respond_at(&balance, 0).await;
        respond_at(&balance, 1).await;
        assert_eq!(probes.load(Ordering::Relaxed), 0);
        for _ in 0..2 {
            respond_at(&balance, 0).await;
            cancel_at(&balance, 0, 350).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            let snapshot = balance.snapshot();
            assert_eq!(probes.load(Ordering::Relaxed), 1, "not for every one of them");
            assert_eq!(snapshot.count(EndpointState::Available), if reachable { 2 } else { 1 }, "{snapshot}");
            if !reachable {
                assert_eq!(snapshot.endpoints()[0].cause(), Some(Cause::Unreachable));
                break;
            }
        }
    }
}
