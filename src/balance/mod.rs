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
//! What a policy chooses among is settled before, when the endpoints change: a [`Subset`] of many, the [zone](ZoneAware) that a call
//! stays in, who is [out](Ejection), and by [`SlowStart`] the weight of who just came up. [`Balance::snapshot`] shows it all.
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

mod ages;
mod attributes;
mod builder;
mod cells;
mod connect;
mod driver;
mod eject;
mod endpoint;
mod future;
mod http;
mod load;
mod observe;
mod policy;
mod roster;
mod set;
mod slow_start;
mod snapshot;
mod subset;
#[cfg(test)]
mod tests;
mod weights;
mod zone;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tower::discover::Discover;
use tower::{BoxError, Service};

pub use self::attributes::Attributes;
pub use self::builder::Builder;
pub use self::eject::{Cause, Ejection};
pub use self::future::ResponseFuture;
pub use self::http::{ClassifyHttp, DefaultClassifier, HttpCompletion, HttpResponses, ResponseBody};
pub use self::observe::{AnyResponse, Completion, Observe, Outcome};
pub use self::policy::{
    ByLabel, FromCookie, FromHeader, HashKey, Label, LeastRequests, PeakEwma, Policy, Random, RendezvousHash, Sticky,
    WeightedRoundRobin,
};
pub use self::set::Candidates;
pub use self::slow_start::SlowStart;
pub use self::snapshot::{EndpointSnapshot, EndpointState, Snapshot, ZoneSnapshot};
pub use self::subset::{Peers, Subset};
pub use self::zone::ZoneAware;

pub(crate) use self::connect::{CallerFault, is_callers_fault, is_overload, is_unprocessed};
pub(crate) use self::endpoint::EndpointId;
pub(crate) use self::future::{CallFuture, Picked};
pub(crate) use self::http::is_grpc;

use self::cells::Ticket;
use self::eject::Control;
use self::load::Moment;
use self::roster::{Due, Roster};
use self::set::{Chosen, EndpointSet};
use crate::error::{Error, Kind};
use crate::metrics::{Event, Metrics};
use crate::sync::{Mutex, MutexGuard};

/// Sends each request to one of the endpoints that are known at that moment.
///
/// Cheap to clone; all clones share the endpoints and what is known about them. `S` is the service of one endpoint: it is
/// cloned for every call, so clones should share their connections, as those of HTTP clients do. `Balance` is [`Sync`] if
/// `S` is.
///
/// `poll_ready` is ready as soon as there is an endpoint and waits for one at most the
/// [ready timeout](Builder::ready_timeout). It never fails; `call` does when there is still none, and from then on at once until
/// there is one. The endpoint's own
/// `poll_ready` is part of the call, and an error of it fails that one call only.
///
/// `P` chooses the endpoint of each call, `O` judges how it went.
pub struct Balance<S, P = PeakEwma, O = HttpResponses> {
    shared: Arc<Shared<S>>,
    policy: P,
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
    roster: Mutex<Roster<S>>,
    /// Tells the driver that its next deadline may have moved.
    wake: Arc<Notify>,
    name: Option<Arc<str>>,
    explain: Option<Explain>,
    ready_timeout: Duration,
    /// Set once a wait for a first endpoint was in vain, until there is one: further calls do not wait as well.
    fail_fast: AtomicBool,
    /// Since when calls wait for a first endpoint.
    waiting_since: Mutex<Option<Instant>>,
    metrics: Metrics,
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

impl<S, P, O> Balance<S, P, O> {
    fn new(shared: Arc<Shared<S>>, policy: P, observer: O) -> Self {
        Self { shared, policy, observer, patience: Patience::Fresh }
    }

    /// How many endpoints there are now, in the [subset](Subset) if there is one.
    pub fn len(&self) -> usize {
        self.shared.len.load(Ordering::Acquire)
    }

    /// Whether there is no endpoint now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is known of the endpoints now: for people, who get it as a table, and for a page of an operator.
    ///
    /// Looks at every endpoint under a lock that changes of the endpoints take as well; calls do not.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.roster().snapshot(Instant::now())
    }

    /// Waits for an endpoint and tells whether there is one: at most as long as `patience` says or else the ready timeout, which is
    /// not spent again where it was spent in vain already.
    ///
    /// # Cancel safety
    ///
    /// It only waits.
    pub(crate) fn ready(
        &self,
        patience: Option<Duration>,
    ) -> impl Future<Output = bool> + Send + Sync + 'static + use<S, P, O>
    where
        S: Send + Sync + 'static,
    {
        let shared = self.shared.clone();
        async move {
            let timeout = match patience {
                Some(patience) => patience,
                None if shared.fail_fast.load(Ordering::Relaxed) => Duration::ZERO,
                // Counted from when the first one began to wait: one who gave up before the end has waited for the others, too.
                None => {
                    let since = *shared.waiting_since().get_or_insert_with(Instant::now);
                    shared.ready_timeout.saturating_sub(since.elapsed())
                }
            };
            let mut count = shared.count.subscribe();
            let found = async { count.wait_for(|count| *count > 0).await.is_ok() };
            let found = tokio::time::timeout(timeout, found).await.unwrap_or(false);
            if !found && patience.is_none() && !shared.fail_fast.swap(true, Ordering::Relaxed) {
                shared.metrics.record(Event::FailFastEntered);
                let (application, waited) = (shared.name.as_deref(), shared.ready_timeout);
                tracing::warn!(application, ?waited, "no endpoint: calls fail at once until there is one");
                if shared.len.load(Ordering::Acquire) > 0 {
                    // One came at this very moment, before the flag was up.
                    shared.leave_fail_fast(1);
                }
            }
            found
        }
    }

    /// Picks an endpoint that is not among the tried ones. From now on the call counts as pending there.
    ///
    /// A retry that finds no other endpoint gets one that takes no calls otherwise: one that was ejected for how calls
    /// ended, then an unhealthy one, then an unreachable one.
    pub(crate) fn pick<Req: ?Sized>(&self, request: &Req, tried: &[EndpointId]) -> Option<Picked<S, O>>
    where
        S: Clone,
        P: Policy<Req>,
        O: Clone,
    {
        let (set, label) = self.set_for(request);
        let picked = self.pick_from(&set, label, request, tried);
        if picked.is_some() || tried.is_empty() {
            return picked;
        }
        let at = Instant::now();
        Some(self.picked(at, Moment::of(at), set.last_resort(label, tried)?))
    }

    /// The same, of the endpoints that take calls alone.
    pub(crate) fn pick_available<Req: ?Sized>(&self, request: &Req, tried: &[EndpointId]) -> Option<Picked<S, O>>
    where
        S: Clone,
        P: Policy<Req>,
        O: Clone,
    {
        let (set, label) = self.set_for(request);
        self.pick_from(&set, label, request, tried)
    }

    /// Picks the endpoint with this id again, if it still takes calls.
    pub(crate) fn pick_again(&self, id: EndpointId) -> Option<Picked<S, O>>
    where
        S: Clone,
        O: Clone,
    {
        let set = self.shared.set.load();
        let at = Instant::now();
        Some(self.picked(at, Moment::of(at), set.find(id)?))
    }

    #[inline]
    fn pick_from<Req: ?Sized>(
        &self,
        set: &EndpointSet<S>,
        label: Option<Label<'_>>,
        request: &Req,
        tried: &[EndpointId],
    ) -> Option<Picked<S, O>>
    where
        S: Clone,
        P: Policy<Req>,
        O: Clone,
    {
        let at = Instant::now();
        let now = Moment::of(at);
        Some(self.picked(at, now, set.choose(now, request, &self.policy, label, tried)?))
    }

    #[inline]
    fn picked(&self, at: Instant, now: Moment, chosen: Chosen<'_, S>) -> Picked<S, O>
    where
        S: Clone,
        O: Clone,
    {
        // Read before the counts are written, as that holds up all reading after it.
        let service = S::clone(chosen.service);
        let completion = Completion::begin(chosen.stats.clone(), now, chosen.ticket);
        Picked { at, completion, service, observer: self.observer.clone() }
    }

    /// The endpoints now, and what the request asks for, by which they are kept apart.
    #[inline]
    fn set_for<'r, Req: ?Sized>(&'r self, request: &'r Req) -> (Guard<Arc<EndpointSet<S>>>, Option<Label<'r>>)
    where
        S: Clone,
        P: Policy<Req>,
    {
        let (mut set, label) = (self.shared.set.load(), self.policy.label(request));
        if let Some(label) = label
            && !set.keeps_apart(label.key)
        {
            self.shared.change(|roster, _| roster.keep_apart(label.key));
            set = self.shared.set.load();
        }
        (set, label)
    }

    /// The error of a call while there is no endpoint at all.
    pub(crate) fn no_endpoints(&self) -> Error {
        self.refuse(
            match &self.shared.explain {
                Some(explain) => format!("there is no endpoint, {}", explain()),
                None => "there is no endpoint".to_owned(),
            },
            "check the name, and that an instance of it is registered and UP",
        )
    }

    /// The error of a call for which there is no endpoint: there is none at all, or none that this request may go to.
    pub(crate) fn no_endpoints_for<Req: ?Sized>(&self, request: &Req) -> Error
    where
        P: Policy<Req>,
    {
        match (self.len(), self.policy.label(request)) {
            (0, _) => self.no_endpoints(),
            (_, Some(label)) if label.required && !self.shared.set.load().has(label) => self.refuse(
                self.shared.roster().explain(label),
                "register an instance with this metadata, or do not require it",
            ),
            (count, _) => {
                self.refuse(format!("the policy chose no endpoint of {count}"), "see what it asks of an endpoint")
            }
        }
    }

    fn refuse(&self, cause: String, advice: &'static str) -> Error {
        let error = Error::new(Kind::NoEndpoints, "call to").cause(cause).advice(advice);
        match &self.shared.name {
            Some(name) => error.app(name.clone()),
            None => error,
        }
    }
}

impl<S, P, O, Req> Service<Req> for Balance<S, P, O>
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    P: Policy<Req>,
    O: Observe<S::Response> + Clone,
{
    type Response = O::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, O>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_empty() {
            if let Patience::Fresh = self.patience {
                self.patience = Patience::Waiting(Box::pin(self.ready(None)));
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
        // Let go of after the future is made, as that stores what was written: see `Completion`.
        let (set, label) = self.set_for(&request);
        match self.pick_from(&set, label, &request, &[]) {
            Some(picked) => ResponseFuture::call(picked.call(request)),
            None => ResponseFuture::no_endpoints(self.no_endpoints_for(&request)),
        }
    }
}

/// A clone starts to wait anew.
impl<S, P: Clone, O: Clone> Clone for Balance<S, P, O> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.policy.clone(), self.observer.clone())
    }
}

impl<S, P, O> fmt::Debug for Balance<S, P, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("name", &self.shared.name)
            .field("endpoints", &self.len())
            .finish_non_exhaustive()
    }
}

impl<S> Shared<S> {
    /// Lets calls wait again the next time that there is no endpoint.
    fn leave_fail_fast(&self, endpoints: usize) {
        let since = self.waiting_since().take();
        if self.fail_fast.swap(false, Ordering::Relaxed) {
            let elapsed = since.map_or(Duration::ZERO, |since| since.elapsed().saturating_sub(self.ready_timeout));
            self.metrics.record(Event::FailFastLeft { elapsed });
            tracing::info!(application = self.name.as_deref(), endpoints, ?elapsed, "calls are made again");
        }
    }

    fn waiting_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waiting_since.lock()
    }

    fn roster(&self) -> MutexGuard<'_, Roster<S>> {
        self.roster.lock()
    }

    fn new(
        roster: Roster<S>,
        explain: Option<Explain>,
        ready_timeout: Duration,
        alive: oneshot::Sender<Infallible>,
    ) -> Self {
        let name = roster.settings().name.clone();
        let metrics = roster.settings().metrics.clone();
        Self {
            set: ArcSwap::from_pointee(EndpointSet::empty()),
            len: AtomicUsize::new(0),
            count: watch::Sender::new(0),
            roster: Mutex::new(roster),
            wake: Arc::default(),
            name,
            explain,
            ready_timeout,
            fail_fast: AtomicBool::new(false),
            waiting_since: Mutex::default(),
            metrics,
            _alive: alive,
        }
    }
}

impl<S: Clone> Shared<S> {
    /// Makes the roster's state the one that picks go by, and returns how many endpoints there were.
    fn publish(&self) -> usize {
        self.publish_locked(self.roster())
    }

    /// Takes the lock over, since services and wakers are others' code that may come back here: it runs when the lock is free.
    fn publish_locked(&self, mut roster: MutexGuard<'_, Roster<S>>) -> usize {
        let set = roster.set(Instant::now());
        drop(roster);
        let set = Arc::new(set.map(|service| S::clone(&service)));
        let before = self.replace(set);
        let len = self.len.load(Ordering::Acquire);
        if len > 0 {
            self.leave_fail_fast(len);
        }
        self.count.send_if_modified(|count| {
            // Read here: another thread's newer length may have been told already.
            let len = self.len.load(Ordering::Acquire);
            std::mem::replace(count, len) != len
        });
        before.len()
    }

    /// Replaces the set by this one, unless another thread had a newer one ready before. Returns what is not in use any more.
    fn replace(&self, set: Arc<EndpointSet<S>>) -> Arc<EndpointSet<S>> {
        let _alone = self.roster();
        if self.set.load().number > set.number {
            return set;
        }
        // The set first: who sees the new length must find the endpoints.
        let len = set.len();
        let before = self.set.swap(set);
        self.len.store(len, Ordering::Release);
        before
    }

    /// Does what the clock calls for, and returns what is left to do: endpoints to be probed, and at most so many to be checked.
    fn advance(&self, now: Instant, most_checks: usize) -> Due<S> {
        let mut roster = self.roster();
        let due = roster.advance(now, most_checks);
        if due.changed {
            self.publish_locked(roster);
        }
        due
    }

    fn change(&self, change: impl FnOnce(&mut Roster<S>, Instant) -> bool) {
        let mut roster = self.roster();
        if change(&mut roster, Instant::now()) {
            self.publish_locked(roster);
            self.wake.notify_one();
        }
    }

    /// Whether a connection came about in the background.
    fn probed(&self, id: EndpointId, success: bool) {
        self.change(|roster, now| roster.probed(id, success, now));
    }

    /// Whether an endpoint was healthy when it was checked, since then.
    fn checked(&self, id: EndpointId, since: Instant, healthy: bool) {
        self.change(|roster, now| roster.checked(id, since, healthy, now));
    }
}

impl<S: Clone + Send + Sync> Control for Shared<S> {
    fn doubted(&self, id: EndpointId) {
        self.change(|roster, now| roster.doubt(id, now));
    }

    fn suspected(&self, id: EndpointId, cause: Cause) {
        self.change(|roster, now| roster.suspect(id, cause, now));
    }

    fn tried(&self, id: EndpointId, ticket: Ticket, result: Result<(), Cause>) {
        self.change(|roster, now| roster.tried(id, ticket, result, now));
    }
}
