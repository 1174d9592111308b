//! Balancing: calls go to one of the endpoints that a [`Discover`] reports.
//!
//! ```text
//! Discover ── polled by a task, also when nobody calls ──▶ endpoint set, immutable, swapped whole
//!                                                              │ pick: inside `call`, without a lock
//! request ──▶ Balance::call ─────────────────────────────▶ endpoint service ──▶ answer ──▶ Observe
//!                                  ▲                                                          │
//!                                  └────────── latency, failures, pending calls ◀─────────────┘
//! ```
//!
//! [`Balance`] differs from tower's in what it does on a bad day. Without an endpoint it waits for a bounded time and then
//! fails with an error that says why. An endpoint stays until discovery removes it, whatever its service answers. An error
//! of discovery, or its end, keeps the endpoints there are. An endpoint that fails fast counts as slow, not as fast.
//!
//! A pick draws two endpoints and takes the one whose next call is expected to cost less: its latency (a moving average that
//! follows peaks at once) times the calls pending there. That needs no look at the others, so its cost does not grow with
//! their number, and it keeps many callers from running to the same endpoint at the same time.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use tower::discover::ServiceList;
//! use tower::{ServiceExt, service_fn};
//! use tower_eureka::balance::{AnyResponse, Balance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_eureka::Error> {
//! let double = service_fn(|n: u32| async move { Ok::<_, Infallible>(2 * n) });
//! let balance = Balance::builder(ServiceList::new(vec![double, double])).observer(AnyResponse).build();
//!
//! assert_eq!(balance.oneshot(21).await?, 42);
//! # Ok(())
//! # }
//! ```

mod builder;
mod driver;
mod endpoint;
mod future;
mod http;
mod load;
mod observe;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tower::discover::Discover;
use tower::{BoxError, Service};

pub use self::builder::Builder;
pub use self::future::ResponseFuture;
pub use self::http::{HttpCompletion, HttpResponses, ResponseBody};
pub use self::observe::{AnyResponse, Completion, Observe};

pub(crate) use self::endpoint::EndpointId;
pub(crate) use self::future::Picked;

use self::endpoint::{Endpoint, EndpointSet};
use crate::error::{Error, Kind};

/// Sends each request to one of the endpoints that are known at that moment.
///
/// Cheap to clone; all clones share the endpoints and what is known about them. `S` is the service of one endpoint: it is
/// cloned for every call, so clones should share their connections, as those of HTTP clients do. `Balance` is [`Sync`] if
/// `S` is.
///
/// `poll_ready` is ready as soon as there is an endpoint and waits for one at most the
/// [ready timeout](Builder::ready_timeout). It never fails; `call` does when there is still none. The endpoint's own
/// `poll_ready` is part of the call, and an error of it fails that one call only.
pub struct Balance<S, O = HttpResponses> {
    shared: Arc<Shared<S>>,
    observer: O,
    patience: Patience,
}

/// What the clones of a balancer and its driver share.
struct Shared<S> {
    set: ArcSwap<EndpointSet<S>>,
    /// The size of the set, for the hot path.
    len: AtomicUsize,
    /// The same, for those who wait for it to change.
    count: watch::Sender<usize>,
    name: Option<Arc<str>>,
    explain: Option<Explain>,
    ready_timeout: Duration,
    base: Instant,
    /// Dropped with the last clone, which ends the driver.
    _alive: oneshot::Sender<Infallible>,
}

type Explain = Box<dyn Fn() -> String + Send + Sync>;

/// How far one clone has come in waiting for a first endpoint.
enum Patience {
    Fresh,
    Waiting(Pin<Box<dyn Future<Output = bool> + Send + Sync>>),
    /// `poll_ready` answered; the next `call` fails unless an endpoint came meanwhile.
    Exhausted,
}

impl Balance<()> {
    /// Begins a balancer over what `discover` reports.
    ///
    /// Unless told otherwise, what is discovered is the service of an endpoint, and it answers HTTP: see
    /// [`endpoint`](Builder::endpoint) and [`observer`](Builder::observer).
    pub fn builder<D: Discover>(discover: D) -> Builder<D> {
        Builder::new(discover)
    }
}

impl<S, O> Balance<S, O> {
    fn new(shared: Arc<Shared<S>>, observer: O) -> Self {
        Self { shared, observer, patience: Patience::Fresh }
    }

    /// How many endpoints there are now.
    pub fn len(&self) -> usize {
        self.shared.len.load(Ordering::Acquire)
    }

    /// Whether there is no endpoint now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for an endpoint, at most the ready timeout, and tells whether there is one.
    ///
    /// # Cancel safety
    ///
    /// It only waits.
    pub(crate) fn ready(&self) -> impl Future<Output = bool> + Send + Sync + 'static + use<S, O> {
        let mut count = self.shared.count.subscribe();
        let timeout = self.shared.ready_timeout;
        async move { matches!(tokio::time::timeout(timeout, count.wait_for(|count| *count > 0)).await, Ok(Ok(_))) }
    }

    /// Picks an endpoint that is not among the tried ones. From now on the call counts as pending there.
    pub(crate) fn pick(&self, tried: &[EndpointId]) -> Option<Picked<S, O>>
    where
        S: Clone,
        O: Clone,
    {
        let now = Instant::now();
        let set = self.shared.set.load();
        let chosen = set.choose(now, tried)?;
        Some(Picked {
            id: chosen.id,
            completion: Completion::begin(chosen.stats.clone(), now),
            service: chosen.service.clone(),
            observer: self.observer.clone(),
        })
    }

    /// The error of a call for which there is no endpoint.
    pub(crate) fn no_endpoints(&self) -> Error {
        let mut error = Error::new(Kind::NoEndpoints, "call to").cause(match &self.shared.explain {
            Some(explain) => format!("there is no endpoint, {}", explain()),
            None => "there is no endpoint".to_owned(),
        });
        error = error.advice("check the name, and that an instance of it is registered and UP");
        if let Some(name) = &self.shared.name {
            error = error.app(name.clone());
        }
        error
    }
}

impl<S, O, Req> Service<Req> for Balance<S, O>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    O: Observe<S::Response> + Clone,
{
    type Response = O::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, O>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_empty() {
            if let Patience::Fresh = self.patience {
                self.patience = Patience::Waiting(Box::pin(self.ready()));
            }
            if let Patience::Waiting(ready) = &mut self.patience {
                ready!(ready.as_mut().poll(cx));
                self.patience = Patience::Exhausted;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> ResponseFuture<S, Req, O> {
        self.patience = Patience::Fresh;
        match self.pick(&[]) {
            Some(picked) => ResponseFuture::call(picked.call(request)),
            None => ResponseFuture::no_endpoints(self.no_endpoints()),
        }
    }
}

/// A clone starts to wait anew.
impl<S, O: Clone> Clone for Balance<S, O> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.observer.clone())
    }
}

impl<S, O> fmt::Debug for Balance<S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("name", &self.shared.name)
            .field("endpoints", &self.len())
            .finish_non_exhaustive()
    }
}

impl<S> Shared<S> {
    fn new(
        base: Instant,
        name: Option<Arc<str>>,
        explain: Option<Explain>,
        ready_timeout: Duration,
        alive: oneshot::Sender<Infallible>,
    ) -> Self {
        Self {
            set: ArcSwap::from_pointee(EndpointSet::new(base, Vec::new())),
            len: AtomicUsize::new(0),
            count: watch::Sender::new(0),
            name,
            explain,
            ready_timeout,
            base,
            _alive: alive,
        }
    }

    /// Replaces the set and returns how many endpoints there were.
    fn publish(&self, endpoints: Vec<Endpoint<S>>) -> usize {
        let set = EndpointSet::new(self.base, endpoints);
        let len = set.len();
        // The set first: who sees the new length must find the endpoints.
        self.set.store(Arc::new(set));
        self.len.store(len, Ordering::Release);
        self.count.send_replace(len)
    }
}
