//! HTTP endpoints with scripted behaviour, a scripted discovery, and callers, on tokio's paused
//! clock.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::discover::Change;
use tower::{BoxError, Service, ServiceExt};
use tower_eureka::balance::{Attributes, Balance, Builder, Policy};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    /// Responds 200 after a time.
    Responds(Duration),
    /// Responds at once with this status, and possibly a `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// Responds 500 with this probability, and 200 otherwise, after a time.
    FailsSometimes(f64, Duration),
    Refuses,
    /// Accepts calls and never responds.
    Hangs,
    Panics,
    PanicsWhenPolledReady,
}

/// Result of an endpoint's health check.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Health {
    Good,
    Bad,
    /// The check never ends.
    Unknown,
    /// The check panics.
    Broken,
}

pub(crate) const FAST: Behaviour = Behaviour::Responds(Duration::from_millis(5));

/// Requires `poll_ready` before each call, as the contract of `Service` allows.
pub(crate) struct Endpoint {
    state: Arc<State>,
    ready: bool,
}

struct State {
    behaviour: Mutex<Behaviour>,
    hits: AtomicUsize,
    times: Mutex<Vec<Instant>>,
    health: Mutex<Health>,
    checks: Mutex<Vec<Instant>>,
}

pub(crate) type HttpResponse = Response<Empty<Bytes>>;

impl Endpoint {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        let state = State {
            behaviour: Mutex::new(behaviour),
            hits: AtomicUsize::new(0),
            times: Mutex::default(),
            health: Mutex::new(Health::Good),
            checks: Mutex::default(),
        };
        Self { state: Arc::new(state), ready: false }
    }

    pub(crate) fn now(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// Number of calls.
    pub(crate) fn hits(&self) -> usize {
        self.state.hits.load(Ordering::SeqCst)
    }

    /// Times of the calls.
    pub(crate) fn times(&self) -> Vec<Instant> {
        self.state.times.lock().unwrap().clone()
    }

    pub(crate) fn feels(&self, health: Health) {
        *self.state.health.lock().unwrap() = health;
    }

    /// Times of the health checks.
    pub(crate) fn checks(&self) -> Vec<Instant> {
        self.state.checks.lock().unwrap().clone()
    }

    /// Result of a health check, after a millisecond.
    pub(crate) async fn check(self) -> bool {
        self.state.checks.lock().unwrap().push(Instant::now());
        let health = *self.state.health.lock().unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        match health {
            Health::Good => true,
            Health::Bad => false,
            Health::Unknown => std::future::pending().await,
            Health::Broken => panic!("panics on purpose"),
        }
    }

    /// Number of clones, including those of calls in flight.
    pub(crate) fn clones(&self) -> usize {
        Arc::strong_count(&self.state)
    }
}

impl Clone for Endpoint {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), ready: false }
    }
}

impl Service<()> for Endpoint {
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let behaviour = *self.state.behaviour.lock().unwrap();
        if matches!(behaviour, Behaviour::PanicsWhenPolledReady) {
            self.state.hits.fetch_add(1, Ordering::SeqCst);
            panic!("panics on purpose");
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.state.hits.fetch_add(1, Ordering::SeqCst);
        self.state.times.lock().unwrap().push(Instant::now());
        let behaviour = *self.state.behaviour.lock().unwrap();
        assert!(!matches!(behaviour, Behaviour::Panics), "panics on purpose");
        // Holds itself until the response, as a client holds its connection.
        let this = self.clone();
        Box::pin(async move {
            let _this = this;
            let (status, retry_after) = match behaviour {
                Behaviour::Responds(latency) => {
                    tokio::time::sleep(latency).await;
                    (200, None)
                }
                Behaviour::FailsSometimes(share, latency) => {
                    tokio::time::sleep(latency).await;
                    (if fastrand::f64() < share { 500 } else { 200 }, None)
                }
                Behaviour::Status(status, retry_after) => (status, retry_after),
                Behaviour::Refuses => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()),
                _ => std::future::pending().await,
            };
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            Ok(response.body(Empty::new())?)
        })
    }
}

/// Value that discovery reports.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    pub(crate) attributes: Attributes,
}

pub(crate) type Update = Result<Change<usize, Target>, Infallible>;
pub(crate) type Updates = UnboundedReceiverStream<Update>;

pub(crate) fn channel() -> (mpsc::UnboundedSender<Update>, Updates) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, receiver.into())
}

pub(crate) fn insert(key: usize, endpoint: &Endpoint, attributes: Attributes) -> Update {
    Ok(Change::Insert(key, Target { endpoint: endpoint.clone(), attributes }))
}

/// One endpoint with this behaviour, the others fast.
pub(crate) fn one_of(n: usize, behaviour: Behaviour) -> Vec<Endpoint> {
    one_among(n, behaviour, FAST)
}

/// One endpoint with this behaviour, the others with the other one.
pub(crate) fn one_among(n: usize, behaviour: Behaviour, others: Behaviour) -> Vec<Endpoint> {
    (0..n).map(|i| Endpoint::new(if i == 0 { behaviour } else { others })).collect()
}

/// Balancer over endpoints that never change.
pub(crate) async fn fixed<P>(
    endpoints: &[Endpoint],
    configure: impl FnOnce(Builder<Fixed, Endpoint>) -> Builder<Fixed, Endpoint, P>,
) -> Balance<Endpoint, P>
where
    P: Policy<()>,
{
    let changes: Vec<_> = endpoints.iter().cloned().enumerate().map(|(i, e)| Ok(Change::Insert(i, e))).collect();
    let balance = configure(Balance::builder(tokio_stream::iter(changes))).build();
    until(|| balance.len() == endpoints.len()).await;
    balance
}

pub(crate) type Fixed = tokio_stream::Iter<std::vec::IntoIter<Result<Change<usize, Endpoint>, Infallible>>>;

/// Balancer with all defaults.
pub(crate) async fn default(endpoints: &[Endpoint]) -> Balance<Endpoint> {
    fixed(endpoints, |builder| builder).await
}

/// Lets other tasks run until the condition holds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("did not come about");
}

/// Status, if there is a response within a second.
pub(crate) async fn call<P>(balance: &Balance<Endpoint, P>) -> Option<u16>
where
    P: Policy<()> + Clone,
{
    let response = tokio::time::timeout(Duration::from_secs(1), balance.clone().oneshot(())).await;
    Some(response.ok()?.ok()?.status().as_u16())
}

/// Calls by this many callers at the same time, in equal shares. Returns the number of 200.
pub(crate) async fn calls<P>(balance: &Balance<Endpoint, P>, callers: usize, calls: usize) -> usize
where
    P: Policy<()> + Clone + Send + Sync + 'static,
{
    let mut set = JoinSet::new();
    for _ in 0..callers {
        let balance = balance.clone();
        set.spawn(async move {
            let mut succeeded = 0;
            for _ in 0..calls / callers {
                succeeded += usize::from(call(&balance).await == Some(200));
            }
            succeeded
        });
    }
    set.join_all().await.into_iter().sum()
}

/// Calls by this many callers at the same time, for a while.
pub(crate) async fn calls_for<P>(balance: &Balance<Endpoint, P>, callers: usize, time: Duration)
where
    P: Policy<()> + Clone + Send + Sync + 'static,
{
    let end = Instant::now() + time;
    let mut set = JoinSet::new();
    for _ in 0..callers {
        let balance = balance.clone();
        set.spawn(async move {
            while Instant::now() < end {
                // A call that fails at once must not stop the clock.
                if call(&balance).await != Some(200) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    set.join_all().await;
}
