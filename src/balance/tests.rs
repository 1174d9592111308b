//! What the outside does not see: pending calls, costs, and picks by those who retry.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use ::http::{HeaderMap, HeaderValue, Response};
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tower::ServiceExt;
use tower::discover::ServiceList;
use tower::util::BoxCloneSyncService;

use super::*;

type Answer = StreamBody<tokio_stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, BoxError>>>>;

/// Answers its own number, or does what the request tells it to do.
#[derive(Clone)]
struct Endpoint(usize);

#[derive(Clone, Copy)]
enum Request {
    Answer,
    Fail,
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
            Request::Panic => panic!("as asked"),
            _ => Box::pin(async move {
                match request {
                    Request::Answer => Ok(number),
                    Request::Fail => Err("as asked".into()),
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

/// A balancer over one HTTP service that answers like this.
async fn answering<B>(answer: impl Fn() -> Response<B> + Send + Sync + 'static) -> HttpBalance<B>
where
    B: Body + Send + 'static,
{
    let answer = Arc::new(answer);
    let service = BoxCloneSyncService::new(tower::service_fn(move |()| {
        let answer = answer();
        async move { Ok::<_, Infallible>(answer) }
    }));
    let balance = Balance::builder(ServiceList::new(vec![service])).build();
    assert!(balance.ready(None).await);
    balance
}

type HttpBalance<B> = Balance<BoxCloneSyncService<(), Response<B>, Infallible>>;

fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Answer {
    StreamBody::new(tokio_stream::iter(frames))
}

fn grpc_status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))])
}

fn pending<S, P, O>(balance: &Balance<S, P, O>) -> usize {
    balance.shared.set.load().stats().map(|stats| stats.load.pending()).sum()
}

/// What a first failure among the last 64 calls costs, in milliseconds.
const PENALTY: f32 = 5_000.0 / 64.0;

/// Milliseconds, of the first endpoint.
fn cost<S: Clone, P, O>(balance: &Balance<S, P, O>) -> f32 {
    let now = Moment::now().tick();
    let set = balance.shared.set.load();
    set.stats().next().unwrap().load.cost(now) / 1e6
}

#[tokio::test(start_paused = true)]
async fn pending_ends_with_the_call_however_it_ends() {
    let balance = endpoints(1).await;
    for request in [Request::Answer, Request::Fail, Request::Refuse] {
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

    drop(balance.clone().call(Request::Answer));
    assert_eq!(pending(&balance), 0, "dropped before its first poll");
    drop(balance.pick(&Request::Answer, &[]));
    assert_eq!(pending(&balance), 0, "picked for nothing");
    let panicking = balance.clone().oneshot(Request::Panic);
    assert!(tokio::spawn(panicking).await.unwrap_err().is_panic());
    assert_eq!(pending(&balance), 0, "panicked");
}

/// Is ready after a second, fails to get ready, or panics.
#[derive(Clone)]
struct Shy {
    becomes: Result<(), &'static str>,
    sleep: Arc<Mutex<Pin<Box<tokio::time::Sleep>>>>,
}

impl Service<()> for Shy {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        ready!(self.sleep.lock().unwrap().as_mut().poll(cx));
        assert_ne!(self.becomes, Err("panics"));
        Poll::Ready(self.becomes.map_err(Into::into))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_excused_counts_for_nothing_however_it_ends() {
    for becomes in [Ok(()), Err("fails"), Err("panics"), Err("is given up")] {
        let sleep = Arc::new(Mutex::new(Box::pin(tokio::time::sleep(Duration::from_secs(1)))));
        let services = ServiceList::new::<()>(vec![Shy { becomes, sleep }]);
        let balance = Balance::builder(services).observer(AnyResponse).build();
        assert!(balance.ready(None).await);
        let picked = balance.pick(&(), &[]).unwrap();
        assert_eq!(pending(&balance), 1);
        let mut call = picked.call(());
        call.excuse_wait();
        assert_eq!(pending(&balance), 0);
        let patience = Duration::from_millis(if becomes == Err("is given up") { 500 } else { 1_500 });
        let result = tokio::spawn(tokio::time::timeout(patience, call)).await;
        assert_eq!(matches!(result, Ok(Ok(Ok(())))), becomes.is_ok(), "{becomes:?}");
        assert_eq!((pending(&balance), cost(&balance)), (0, 1.0), "{becomes:?}");
        assert_eq!(balance.snapshot().endpoints()[0].failures(), 0, "{becomes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_given_up_counts_as_slow_and_a_failed_one_as_the_penalty() {
    let balance = endpoints(1).await;
    let late = tokio::time::timeout(Duration::from_millis(700), balance.clone().call(Request::Hang));
    assert!(late.await.is_err());
    assert!((699.0..=701.0).contains(&cost(&balance)), "{}", cost(&balance));
    let balance = endpoints(1).await;
    assert!(balance.clone().oneshot(Request::Fail).await.is_err());
    assert_eq!(cost(&balance), PENALTY);
    for _ in 1..64 {
        assert!(balance.clone().oneshot(Request::Fail).await.is_err());
    }
    assert_eq!(cost(&balance), 64.0 * PENALTY, "in proportion to the failures among the last 64 calls");
}

#[tokio::test(start_paused = true)]
async fn a_first_call_that_is_given_up_early_takes_nobody_out() {
    for (patience, out) in [(250, false), (350, true)] {
        let balance = endpoints(2).await;
        let late = tokio::time::timeout(Duration::from_millis(patience), balance.clone().call(Request::Hang));
        assert!(late.await.is_err());
        let snapshot = balance.snapshot();
        assert_eq!(snapshot.count(EndpointState::Out) == 1, out, "{snapshot}");
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_errors_pass_through() {
    let balance = endpoints(1).await;
    let error = balance.clone().oneshot(Request::Refuse).await.unwrap_err();
    assert!(error.is_connect(), "{error}");
    let error = balance.oneshot(Request::Fail).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Call);
    assert_eq!(error.instance_id(), Some("0"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_avoids_what_was_tried() {
    fastrand::seed(3);
    let balance = endpoints(3).await;
    let mut tried = Vec::new();
    let mut answers = Vec::new();
    while let Some(picked) = balance.pick(&Request::Answer, &tried) {
        tried.push(picked.id());
        answers.push(picked.call(Request::Answer).await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_assumed_to_be_as_fast_as_the_best() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let discover = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let builder = Balance::builder(discover).observer(AnyResponse).default_latency(Duration::from_millis(30));
    let balance = builder.build();
    let insert = |n| Ok::<_, Infallible>(tower::discover::Change::Insert(n, Endpoint(n)));
    sender.send(insert(0)).unwrap();
    assert!(balance.ready(None).await);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        balance.clone().oneshot(Request::Answer).await.unwrap();
    }
    let known = cost(&balance);
    assert!(known <= 1.0, "{known}");
    sender.send(insert(1)).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(balance.len(), 2);
    let set = balance.shared.set.load();
    let now = Moment::now().tick();
    assert_eq!(set.stats().nth(1).unwrap().load.cost(now) / 1e6, known);
}

#[tokio::test(start_paused = true)]
async fn an_http_call_is_pending_until_its_body_ends() {
    let balance =
        answering(|| Response::new(frames(vec![Ok(Frame::data("a".into())), Ok(Frame::data("b".into()))]))).await;
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
async fn a_body_with_a_known_end_is_over_with_its_last_frame() {
    let balance = answering(|| Response::new(Full::<Bytes>::from("a"))).await;
    let mut body = balance.clone().oneshot(()).await.unwrap().into_body();
    assert_eq!(pending(&balance), 1);
    body.frame().await.unwrap().unwrap();
    assert_eq!(pending(&balance), 0);

    let balance = answering(|| Response::new(Empty::<Bytes>::new())).await;
    let _response = balance.clone().oneshot(()).await.unwrap();
    assert_eq!(pending(&balance), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_a_failure() {
    let balance =
        answering(|| Response::new(frames(vec![Ok(Frame::data("a".into())), Err("connection lost".into())]))).await;
    let response = balance.clone().oneshot(()).await.unwrap();
    assert!(cost(&balance) <= 1.0);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!((pending(&balance), cost(&balance)), (0, PENALTY));
}

#[tokio::test(start_paused = true)]
async fn server_errors_and_overload_weigh_and_client_errors_do_not() {
    for (status, failed) in [(200, false), (404, false), (429, true), (500, true), (503, true)] {
        let balance = answering(move || Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap()).await;
        balance.clone().oneshot(()).await.unwrap();
        assert_eq!(cost(&balance) == PENALTY, failed, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_is_judged_by_its_status_in_head_or_trailers() {
    let cases =
        [("0", false), ("1", false), ("2", true), ("5", false), ("8", true), ("14", true), ("16", false), ("99", true)];
    for (code, failed) in cases {
        let in_head = answering(move || {
            let mut response = Response::new(frames(vec![]));
            *response.headers_mut() = grpc_status(code);
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
            response
        });
        let in_trailers = answering(move || {
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
async fn trailers_end_the_call_and_mean_nothing_outside_grpc() {
    let balance =
        answering(|| Response::new(frames(vec![Ok(Frame::trailers(grpc_status("14"))), Ok(Frame::data("x".into()))])))
            .await;
    let mut body = balance.clone().oneshot(()).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(pending(&balance), 0);
    assert!(cost(&balance) <= 1.0);
}
