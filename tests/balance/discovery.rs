//! Discovery, readiness and replacement: over any discovery, with any service, on tokio's paused
//! clock.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::discover::{Change, ServiceList};
use tower::{BoxError, Service, ServiceExt};
use tower_eureka::balance::{AnyResponse, Balance, HttpResponses, PeakEwma};

const SEED: u64 = 20;

type Update = Result<Change<&'static str, Mock>, BoxError>;

#[derive(Clone)]
enum Behaviour {
    RespondsAfter(Duration),
    Fails,
    FailsToGetReady(Arc<AtomicUsize>),
    WaitsFor(Arc<Notify>),
}

/// Responds with its own name. Requires `poll_ready` before each call, as the contract of `Service`
/// allows.
struct Mock {
    name: &'static str,
    behaviour: Behaviour,
    calls: Arc<AtomicUsize>,
    ready: bool,
}

impl Mock {
    fn new(name: &'static str, behaviour: Behaviour) -> Self {
        Self { name, behaviour, calls: Arc::default(), ready: false }
    }

    fn fast(name: &'static str) -> Self {
        Self::new(name, Behaviour::RespondsAfter(Duration::from_millis(5)))
    }
}

impl Clone for Mock {
    fn clone(&self) -> Self {
        Self { behaviour: self.behaviour.clone(), calls: self.calls.clone(), name: self.name, ready: false }
    }
}

impl Service<()> for Mock {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<&'static str, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if let Behaviour::FailsToGetReady(times) = &self.behaviour
            && times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            return Poll::Ready(Err("not now".into()));
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(mem::take(&mut self.ready), "called without being ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        let this = self.clone();
        Box::pin(async move {
            // Holds all of it until the response, as a client holds its connection.
            let this = this;
            match &this.behaviour {
                Behaviour::RespondsAfter(latency) => tokio::time::sleep(*latency).await,
                Behaviour::Fails => return Err("broken".into()),
                Behaviour::FailsToGetReady(_) => {}
                Behaviour::WaitsFor(notify) => notify.notified().await,
            }
            Ok(this.name)
        })
    }
}

fn channel() -> (mpsc::UnboundedSender<Update>, UnboundedReceiverStream<Update>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, receiver.into())
}

fn balance(discover: impl Stream<Item = Update> + Send + 'static) -> Balance<Mock, PeakEwma, AnyResponse> {
    Balance::builder(discover).name("ORDERS").observer(AnyResponse).build()
}

/// Balancer over endpoints that never change.
async fn fixed(endpoints: &[Mock]) -> Balance<Mock, PeakEwma, AnyResponse> {
    let balance = balance(tokio_stream::iter(
        endpoints.iter().map(|mock| Ok(Change::Insert(mock.name, mock.clone()))).collect::<Vec<_>>(),
    ));
    until(|| balance.len() == endpoints.len()).await;
    balance
}

fn insert(mock: &Mock) -> Update {
    Ok(Change::Insert(mock.name, mock.clone()))
}

/// Lets other tasks run until the condition holds.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("did not come about");
}

async fn call(balance: &Balance<Mock, PeakEwma, AnyResponse>) -> Result<&'static str, tower_eureka::Error> {
    balance.clone().oneshot(()).await
}

#[test]
fn balance_is_clone_send_sync_and_debug() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>() {}
    /// Has none of the traits that a derive would require.
    #[derive(Clone)]
    struct Opaque;
    check::<Balance<Opaque>>();
    check::<Balance<Opaque, AnyResponse>>();
    check::<Balance<Opaque, HttpResponses>>();
}

#[tokio::test(start_paused = true)]
async fn call_without_endpoints_fails_after_the_ready_timeout_with_the_reason() {
    let (_sender, discover) = channel();
    let balance = Balance::builder(discover)
        .name("ORDERS")
        .observer(AnyResponse)
        .explain(|| "the registry has 2 instances, none of them UP".to_owned())
        .build();
    let start = Instant::now();
    let error = call(&balance).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(error.is_no_endpoints());
    assert!(error.is_unavailable());
    assert_eq!(
        error.to_string(),
        "call to ORDERS: there is no endpoint, the registry has 2 instances, none of them UP; \
         check the name, and that an instance of it is registered and UP"
    );
}

#[tokio::test(start_paused = true)]
async fn call_without_poll_ready_fails_at_once_without_endpoints() {
    let (sender, discover) = channel();
    let mut balance = balance(discover);
    let start = Instant::now();
    assert!(balance.call(()).await.unwrap_err().is_no_endpoints());
    assert_eq!(start.elapsed(), Duration::ZERO);
    sender.send(insert(&Mock::fast("a"))).unwrap();
    until(|| !balance.is_empty()).await;
    assert_eq!(balance.call(()).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn call_after_a_ready_timeout_fails_at_once_until_an_endpoint_is_found() {
    let (sender, discover) = channel();
    let mut balance = balance(discover);
    balance.ready().await.unwrap();
    let start = Instant::now();
    balance.ready().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(balance.call(()).await.unwrap_err().is_no_endpoints());
    balance.ready().await.unwrap();
    assert!(balance.call(()).await.unwrap_err().is_no_endpoints());
    assert_eq!(start.elapsed(), Duration::ZERO);
    for change in [insert(&Mock::fast("a")), Ok(Change::Remove("a"))] {
        sender.send(change).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    balance.ready().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn first_endpoint_wakes_all_waiting_callers() {
    let (sender, discover) = channel();
    let balance = balance(discover);
    let start = Instant::now();
    let insert_later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        sender.send(insert(&Mock::fast("a"))).unwrap();
    };
    let (first, second, ()) = tokio::join!(call(&balance), call(&balance), insert_later);
    assert_eq!((first.unwrap(), second.unwrap()), ("a", "a"));
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn error_of_discovery_keeps_endpoints_and_later_changes_are_applied() {
    let (sender, discover) = channel();
    let balance = balance(discover);
    sender.send(insert(&Mock::fast("a"))).unwrap();
    for _ in 0..3 {
        sender.send(Err("registry unreachable".into())).unwrap();
    }
    sender.send(insert(&Mock::fast("b"))).unwrap();
    assert_eq!(call(&balance).await.unwrap(), "a");
    assert_eq!(balance.len(), 1, "the driver backs off");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(balance.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn end_of_discovery_keeps_endpoints_and_stops_polling() {
    let (sender, discover) = channel();
    let mut ended = false;
    let mut discover = Box::pin(discover);
    let balance = balance(poll_fn_stream(move |cx| {
        assert!(!ended, "polled after its end");
        let polled = discover.as_mut().poll_next(cx);
        ended = matches!(polled, Poll::Ready(None));
        polled
    }));
    sender.send(insert(&Mock::fast("a"))).unwrap();
    drop(sender);
    for _ in 0..3 {
        assert_eq!(call(&balance).await.unwrap(), "a");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(balance.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn endpoint_whose_poll_ready_failed_once_stays() {
    let balance = fixed(&[Mock::new("a", Behaviour::FailsToGetReady(Arc::new(AtomicUsize::new(1))))]).await;
    let error = call(&balance).await.unwrap_err();
    assert_eq!(error.to_string(), "call to ORDERS (a): the endpoint failed");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "not now");
    assert_eq!(error.instance_id(), Some("a"));
    assert_eq!(balance.len(), 1);
    assert_eq!(call(&balance).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn idle_balancer_follows_discovery() {
    let (sender, receiver) = mpsc::channel::<Result<Change<usize, Mock>, Infallible>>(4);
    let balance = Balance::builder(tokio_stream::wrappers::ReceiverStream::new(receiver)).build();
    for i in 0..1_000 {
        sender.send(Ok(Change::Insert(i, Mock::fast("a")))).await.unwrap();
    }
    until(|| balance.len() == 1_000).await;
    for i in (0..1_000).filter(|i| i % 100 != 0) {
        sender.send(Ok(Change::Remove(i))).await.unwrap();
        sender.send(Ok(Change::Remove(1_000_000))).await.unwrap();
    }
    until(|| balance.len() == 10).await;
}

#[tokio::test(start_paused = true)]
async fn discovery_that_is_always_ready_does_not_block_the_runtime() {
    // Responds at once: the paused clock does not advance while a task is always busy.
    let mock = Mock::new("a", Behaviour::FailsToGetReady(Arc::default()));
    let balance = balance(poll_fn_stream(move |_| Poll::Ready(Some(insert(&mock)))));
    for _ in 0..10 {
        assert_eq!(call(&balance).await.unwrap(), "a");
    }
}

#[tokio::test(start_paused = true)]
async fn removed_endpoint_is_dropped_after_its_last_call() {
    let (sender, discover) = channel();
    let balance = balance(discover);
    let finish = Arc::new(Notify::new());
    let mock = Mock::new("a", Behaviour::WaitsFor(finish.clone()));
    sender.send(insert(&mock)).unwrap();
    let in_flight = tokio::spawn(balance.clone().oneshot(()));
    until(|| mock.calls.load(Ordering::SeqCst) == 1).await;

    sender.send(Ok(Change::Remove("a"))).unwrap();
    until(|| balance.is_empty()).await;
    assert!(Arc::strong_count(&mock.calls) > 1, "the call in flight has lost its service");
    finish.notify_one();
    assert_eq!(in_flight.await.unwrap().unwrap(), "a");
    until(|| Arc::strong_count(&mock.calls) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_is_inserted_again_is_replaced() {
    let (sender, discover) = channel();
    let balance = balance(discover);
    let (old, new) = (Mock::new("a", Behaviour::Fails), Mock::fast("a"));
    sender.send(insert(&old)).unwrap();
    assert!(call(&balance).await.is_err());
    sender.send(insert(&new)).unwrap();
    until(|| Arc::strong_count(&old.calls) == 1).await;
    assert_eq!(balance.len(), 1);
    assert_eq!(call(&balance).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_fails_fast_gets_less_than_one_percent_of_calls() {
    fastrand::seed(SEED);
    let failing = Mock::new("failing", Behaviour::Fails);
    let balance = fixed(&[failing.clone(), Mock::fast("healthy")]).await;
    for _ in 0..10_000 {
        let _ = call(&balance).await;
    }
    let calls = failing.calls.load(Ordering::SeqCst);
    assert!((1..100).contains(&calls), "seed {SEED}: {calls} of 10000 calls");
}

#[tokio::test(start_paused = true)]
async fn slow_endpoint_gets_a_small_share() {
    fastrand::seed(SEED);
    let slow = Mock::new("slow", Behaviour::RespondsAfter(Duration::from_millis(200)));
    let balance = fixed(&[slow.clone(), Mock::fast("b"), Mock::fast("c")]).await;
    let callers = (0..8).map(|_| {
        let balance = balance.clone();
        async move {
            for _ in 0..1_000 {
                call(&balance).await.unwrap();
            }
        }
    });
    let mut callers: tokio::task::JoinSet<()> = callers.collect();
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let calls = slow.calls.load(Ordering::SeqCst);
    assert!((1..400).contains(&calls), "seed {SEED}: {calls} of 8000 calls");
}

#[tokio::test(start_paused = true)]
async fn equal_endpoints_get_equal_shares_of_concurrent_calls() {
    fastrand::seed(SEED);
    let mocks = ["a", "b", "c", "d"].map(Mock::fast);
    let balance = fixed(&mocks).await;
    for _ in 0..100 {
        let mut calls: tokio::task::JoinSet<_> = (0..40).map(|_| balance.clone().oneshot(())).collect();
        while calls.join_next().await.is_some() {}
    }
    for mock in &mocks {
        let calls = mock.calls.load(Ordering::SeqCst);
        assert!((900..1_100).contains(&calls), "seed {SEED}: {calls} of 4000 calls");
    }
}

#[tokio::test(start_paused = true)]
async fn balance_accepts_a_service_list_and_targets_other_than_services() {
    let list = ServiceList::new(vec![Mock::fast("a"), Mock::fast("b")]);
    let balance = Balance::builder(list).observer(AnyResponse).build();
    assert!(["a", "b"].contains(&balance.oneshot(()).await.unwrap()));

    let targets = tokio_stream::iter([Ok::<_, Infallible>(Change::Insert(8080_u16, "c"))]);
    let balance = Balance::builder(targets).endpoint(|name| Mock::fast(name)).observer(AnyResponse).build();
    assert_eq!(balance.oneshot(()).await.unwrap(), "c");
}

#[tokio::test(start_paused = true)]
async fn drop_of_the_last_clone_ends_the_driver() {
    let (sender, discover) = channel();
    let mock = Mock::fast("a");
    let balance = balance(discover);
    let clone = balance.clone();
    sender.send(insert(&mock)).unwrap();
    until(|| clone.len() == 1).await;
    drop(balance);
    assert_eq!(call(&clone).await.unwrap(), "a");
    assert!(!sender.is_closed());
    drop(clone);
    sender.closed().await;
    until(|| Arc::strong_count(&mock.calls) == 1).await;
}

/// Reads its balancer whenever it is cloned or dropped.
struct Curious(Arc<OnceLock<Balance<Self, PeakEwma, AnyResponse>>>);

impl Curious {
    fn read_len(&self) -> Option<usize> {
        self.0.get().map(|balance| balance.snapshot().endpoints().len())
    }
}

impl Clone for Curious {
    fn clone(&self) -> Self {
        self.read_len();
        Self(self.0.clone())
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        self.read_len();
    }
}

impl Service<()> for Curious {
    type Response = Option<usize>;
    type Error = Infallible;
    type Future = Ready<Result<Option<usize>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.read_len()))
    }
}

/// Without the fix it hangs.
#[tokio::test]
async fn service_is_cloned_dropped_and_called_without_a_lock() {
    let (sender, receiver) = mpsc::unbounded_channel::<Result<Change<u8, Curious>, Infallible>>();
    let balance = Balance::builder(UnboundedReceiverStream::from(receiver)).observer(AnyResponse).build();
    let curious = Curious(Arc::default());
    assert!(curious.0.set(balance.clone()).is_ok());
    for key in 0..3 {
        sender.send(Ok(Change::Insert(key, curious.clone()))).unwrap();
    }
    until(|| balance.len() == 3).await;
    assert_eq!(balance.clone().oneshot(()).await.unwrap(), Some(3));
    sender.send(Ok(Change::Insert(0, curious.clone()))).unwrap();
    sender.send(Ok(Change::Remove(1))).unwrap();
    until(|| balance.len() == 2).await;
    assert_eq!(balance.clone().oneshot(()).await.unwrap(), Some(2));
}

struct PollFn<F>(F);

fn poll_fn_stream<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin>(poll: F) -> PollFn<F> {
    PollFn(poll)
}

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for PollFn<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}
