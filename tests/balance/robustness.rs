//! Panics and re-entrant calls in code of others: discovery, closures and services.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::discover::Change;
use tower::{BoxError, Service, ServiceExt};
use tower_eureka::balance::{Attributes, Balance, Ejection, LeastRequests};

use crate::endpoints::*;

const SEED: u64 = 17;

/// Discovery that reports these endpoints and then panics.
struct PanicsAtEnd(std::vec::IntoIter<Endpoint>, usize);

impl Stream for PanicsAtEnd {
    type Item = Result<Change<usize, Endpoint>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let endpoint = self.0.next().expect("discovery panics on purpose");
        self.1 += 1;
        Poll::Ready(Some(Ok(Change::Insert(self.1, endpoint))))
    }
}

#[tokio::test(start_paused = true)]
async fn panic_of_discovery_keeps_the_endpoints_and_the_clock() {
    fastrand::seed(SEED);
    let endpoints = one_of(3, Behaviour::Status(500, None));
    let discover = PanicsAtEnd(endpoints.clone().into_iter(), 0);
    let ejection = Ejection::new().consecutive_failures(1);
    let balance = Balance::builder(discover).ejection(ejection).build();
    until(|| balance.len() == 3).await;
    calls_for(&balance, 2, Duration::from_secs(5)).await;
    let ejected = endpoints[0].hits();
    endpoints[0].now(FAST);
    calls_for(&balance, 2, Duration::from_secs(60)).await;
    assert!(endpoints[0].hits() > ejected + 100, "seed {SEED}: it stayed ejected");
}

#[tokio::test(start_paused = true)]
async fn panic_while_an_endpoint_is_built_loses_that_endpoint_only() {
    let (sender, discover) = channel();
    let balance = Balance::builder(discover)
        .endpoint(|target: &Target| {
            assert!(target.attributes.weight.is_none(), "endpoint panics on purpose");
            target.endpoint.clone()
        })
        .build();
    let endpoints = one_of(3, FAST);
    sender.send(insert(0, &endpoints[0], Attributes::new())).unwrap();
    sender.send(insert(1, &endpoints[1], Attributes::new().with_weight(1.0))).unwrap();
    sender.send(insert(2, &endpoints[2], Attributes::new())).unwrap();
    until(|| balance.len() == 2).await;
    assert_eq!(calls(&balance, 2, 100).await, 100);
}

#[tokio::test(start_paused = true)]
async fn panicking_endpoint_fails_its_own_calls_and_is_ejected() {
    for behaviour in [Behaviour::Panics, Behaviour::PanicsWhenPolledReady] {
        fastrand::seed(SEED);
        let endpoints = one_of(3, behaviour);
        let balance = fixed(&endpoints, |builder| builder.policy(LeastRequests)).await;
        let mut panics = 0;
        for _ in 0..1_000 {
            let call = tokio::spawn(balance.clone().oneshot(())).await;
            panics += usize::from(call.is_err_and(|error| error.is_panic()));
        }
        assert_eq!(panics, endpoints[0].hits());
        assert!((1..=6).contains(&panics), "seed {SEED}: {panics} panics");
        drop(balance);
        until(|| endpoints.iter().all(|endpoint| endpoint.clones() == 1)).await;
    }
}

/// Calls its balancer when it is dropped, as a pool with pending calls might.
struct Reentrant {
    balance: Arc<std::sync::Mutex<Option<Balance<Holding>>>>,
    drops: Arc<AtomicUsize>,
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        let balance = self.balance.lock().unwrap().clone();
        if let Some(mut balance) = balance {
            // Refused, which the balancer records at once.
            let call = std::pin::pin!(balance.call(()));
            assert!(call.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready());
        }
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Holding {
    endpoint: Endpoint,
    _reentrant: Arc<Reentrant>,
}

impl Service<()> for Holding {
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = <Endpoint as Service<()>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.endpoint.poll_ready(cx)
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.endpoint.call(())
    }
}

#[tokio::test(start_paused = true)]
async fn endpoint_that_calls_its_balancer_when_dropped_does_not_deadlock() {
    let (sender, receiver) = mpsc::unbounded_channel::<Result<Change<usize, Holding>, Infallible>>();
    let balance = Balance::builder(UnboundedReceiverStream::new(receiver)).build();
    let (held, drops) = (Arc::new(std::sync::Mutex::new(Some(balance.clone()))), Arc::new(AtomicUsize::new(0)));
    for key in 0..10 {
        let reentrant = Arc::new(Reentrant { balance: held.clone(), drops: drops.clone() });
        let holding = Holding { endpoint: Endpoint::new(Behaviour::Refuses), _reentrant: reentrant };
        sender.send(Ok(Change::Insert(key, holding.clone()))).unwrap();
        // Replaces the endpoint before.
        sender.send(Ok(Change::Insert(key, holding))).unwrap();
    }
    until(|| balance.len() == 10).await;
    for key in 0..10 {
        assert!(balance.clone().oneshot(()).await.is_err());
        sender.send(Ok(Change::Remove(key))).unwrap();
    }
    until(|| drops.load(Ordering::SeqCst) == 10).await;
    held.lock().unwrap().take();
}

#[tokio::test(start_paused = true)]
async fn flapping_endpoint_leaves_nothing_behind() {
    fastrand::seed(SEED);
    let (sender, discover) = channel();
    let (steady, flapping) = (Endpoint::new(FAST), Endpoint::new(Behaviour::Responds(Duration::from_millis(50))));
    let balance = Balance::builder(discover).endpoint(|target: &Target| target.endpoint.clone()).build();
    sender.send(insert(0, &steady, Attributes::new())).unwrap();
    until(|| balance.len() == 1).await;
    let callers = tokio::spawn({
        let balance = balance.clone();
        async move { calls(&balance, 8, 8_000).await }
    });
    for _ in 0..1_000 {
        sender.send(insert(1, &flapping, Attributes::new())).unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        sender.send(Ok(Change::Remove(1))).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(callers.await.unwrap(), 8_000, "a removed endpoint finishes its calls");
    until(|| flapping.clones() == 1 && balance.len() == 1).await;
    assert!(flapping.hits() > 0, "seed {SEED}");
}
