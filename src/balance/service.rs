//! The balancer as a [`Service`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::Guard;
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::classify::{HttpResponses, Observe};
use super::endpoint::{Completion, EndpointId, Timestamp};
use super::future::{Picked, ResponseFuture};
use super::policy::{Label, PeakEwma, Policy};
use super::pool::{Chosen, Picker, Reconfiguration, Snapshot};
use super::shared::Shared;
use crate::error::{Error, Kind};

/// Sends each request to one of the endpoints that discovery reported.
///
/// Built with [`Balance::builder`]. Cheap to clone: all clones share the endpoints and their
/// measurements. `S` is the service of one endpoint. It is cloned for every call, so its clones
/// should share their connections, as those of HTTP clients do. `Balance` is [`Sync`] if `S` is.
///
/// `poll_ready` returns ready as soon as there is an endpoint. It waits for one for at most the
/// [ready timeout](super::Builder::ready_timeout) and never fails. If there is still no endpoint,
/// `call` fails, and later calls fail at once until an endpoint is found. The `poll_ready` of the
/// endpoint's service is part of the call: an error of it fails that call only.
///
/// `P` picks the endpoint of each call, `O` classifies its result.
///
/// # Errors
///
/// A call without an endpoint fails with an [`Error`] whose
/// [`is_no_endpoints`](Error::is_no_endpoints) is true. If the endpoint's service fails, the error
/// names the endpoint, has the service's error as its source, and its predicates follow the
/// [`Outcome`](super::Outcome). An error of this crate is returned unchanged.
///
/// # Example
///
/// Over the instances of a registry:
///
/// ```no_run
/// # use std::convert::Infallible;
/// # use tower::service_fn;
/// # use tower_eureka::{Error, Eureka, Instance};
/// use tower_eureka::balance::{Attributes, Balance, SlowStart};
///
/// # fn example(eureka: &Eureka) -> Result<(), Error> {
/// # type Client = tower::util::BoxCloneSyncService<(), http::Response<String>, Infallible>;
/// # fn client_of(_: &Instance) -> Client {
/// #     Client::new(service_fn(|()| async { Ok(http::Response::new(String::new())) }))
/// # }
/// let orders = Balance::builder(eureka.discover("orders")?)
///     .name("ORDERS")
///     .attributes(|instance| Attributes::of(instance))
///     .endpoint(|instance| client_of(instance))
///     .slow_start(SlowStart::new(std::time::Duration::from_secs(60)))
///     .build();
/// # let _ = orders;
/// # Ok(())
/// # }
/// ```
pub struct Balance<S, P = PeakEwma, O = HttpResponses> {
    pub(super) shared: Arc<Shared<S>>,
    policy: P,
    observer: O,
    readiness: Readiness,
}

/// Progress of one clone in waiting for a first endpoint.
enum Readiness {
    NotPolled,
    Waiting(Pin<Box<dyn Future<Output = bool> + Send + Sync>>),
    /// `poll_ready` has returned ready. The next call fails unless an endpoint is found before.
    TimedOut,
}

impl<S, P, O> Balance<S, P, O> {
    pub(super) fn new(shared: Arc<Shared<S>>, policy: P, observer: O) -> Self {
        Self { shared, policy, observer, readiness: Readiness::NotPolled }
    }

    /// Returns the number of endpoints, including ejected ones. With a [subset](super::Subset), the
    /// endpoints outside do not count.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Returns `true` if there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the state of all endpoints, which prints as a table.
    ///
    /// Reads every endpoint under a lock. Changes of the endpoints take the same lock, calls do
    /// not.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.pool().snapshot(Instant::now())
    }

    /// Returns `true` while a call is pending at an endpoint, until the end of its response body.
    pub(crate) fn has_pending(&self) -> bool {
        self.shared.pool().has_pending()
    }

    /// Replaces settings. Endpoints and their measurements are kept.
    pub(crate) fn reconfigure(&self, change: &Reconfiguration)
    where
        S: Clone,
    {
        self.shared.fail_fast.set_ready_timeout(change.ready_timeout);
        self.shared.change(|pool, now| {
            pool.reconfigure(change, now);
            true
        });
    }

    /// Returns a balancer with another policy and observer over the same endpoints.
    pub(crate) fn with<Q, R>(&self, policy: Q, observer: R) -> Balance<S, Q, R> {
        Balance::new(self.shared.clone(), policy, observer)
    }

    /// Waits for an endpoint. Returns `false` if there is none after `timeout`, or else after what
    /// is left of the ready timeout.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) fn ready(
        &self,
        timeout: Option<Duration>,
    ) -> impl Future<Output = bool> + Send + Sync + 'static + use<S, P, O>
    where
        S: Send + Sync + 'static,
    {
        let shared = self.shared.clone();
        async move {
            let is_own = timeout.is_some();
            let timeout = timeout.unwrap_or_else(|| shared.fail_fast.wait());
            let found = shared.wait_for_endpoint(timeout).await;
            if !found && !is_own && shared.fail_fast.enter() && shared.len() > 0 {
                // An endpoint was published after the timeout and before the state had changed.
                shared.fail_fast.leave(1);
            }
            found
        }
    }

    /// Picks an endpoint that is not in `tried`. The call counts as pending there from now on.
    ///
    /// A retry for which no other endpoint is left gets one that takes no calls: one that was
    /// ejected for the outcome of its calls, then an unhealthy one, then an unreachable one.
    pub(crate) fn pick<Req: ?Sized>(&self, request: &Req, tried: &[EndpointId]) -> Option<Picked<S, O>>
    where
        S: Clone,
        P: Policy<Req>,
        O: Clone,
    {
        let (picker, label) = self.picker_for(request);
        let picked = self.pick_from(&picker, label, request, tried);
        if picked.is_some() || tried.is_empty() {
            return picked;
        }
        let at = Instant::now();
        Some(self.picked(at, Timestamp::of(at), picker.fallback(label, tried)?))
    }

    /// Picks an endpoint that takes calls and is not in `tried`.
    pub(crate) fn pick_available<Req: ?Sized>(&self, request: &Req, tried: &[EndpointId]) -> Option<Picked<S, O>>
    where
        S: Clone,
        P: Policy<Req>,
        O: Clone,
    {
        let (picker, label) = self.picker_for(request);
        self.pick_from(&picker, label, request, tried)
    }

    /// Picks the endpoint with this id again, if it still takes calls.
    pub(crate) fn pick_again(&self, id: EndpointId) -> Option<Picked<S, O>>
    where
        S: Clone,
        O: Clone,
    {
        let picker = self.shared.picker.load();
        let at = Instant::now();
        Some(self.picked(at, Timestamp::of(at), picker.find(id)?))
    }

    #[inline]
    fn pick_from<Req: ?Sized>(
        &self,
        picker: &Picker<S>,
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
        let now = Timestamp::of(at);
        Some(self.picked(at, now, picker.pick(now, request, &self.policy, label, tried)?))
    }

    #[inline]
    fn picked(&self, at: Instant, now: Timestamp, chosen: Chosen<'_, S>) -> Picked<S, O>
    where
        S: Clone,
        O: Clone,
    {
        // Read before the counters are written, since that write delays all reads after it.
        let service = S::clone(chosen.service);
        let completion = Completion::begin(chosen.stats.clone(), now, chosen.permit);
        Picked { at, completion, service, observer: self.observer.clone() }
    }

    /// Returns the current picker and the label that the request asks for, which the picker
    /// indexes.
    #[inline]
    fn picker_for<'r, Req: ?Sized>(&'r self, request: &'r Req) -> (Guard<Arc<Picker<S>>>, Option<Label<'r>>)
    where
        S: Clone,
        P: Policy<Req>,
    {
        let (mut picker, label) = (self.shared.picker.load(), self.policy.label(request));
        if let Some(label) = label
            && !picker.indexes_label(label.key)
        {
            self.shared.change(|pool, _| pool.index_label(label.key));
            picker = self.shared.picker.load();
        }
        (picker, label)
    }

    /// Error of a call while there is no endpoint at all.
    pub(crate) fn no_endpoints(&self) -> Error {
        self.no_endpoints_error(
            match &self.shared.explain {
                Some(explain) => format!("there is no endpoint, {}", explain()),
                None => "there is no endpoint".to_owned(),
            },
            "check the name, and that an instance of it is registered and UP",
        )
    }

    /// Error of a call for which there is no endpoint: none at all, or none for this request.
    pub(crate) fn no_endpoints_for<Req: ?Sized>(&self, request: &Req) -> Error
    where
        P: Policy<Req>,
    {
        match (self.len(), self.policy.label(request)) {
            (0, _) => self.no_endpoints(),
            (_, Some(label)) if label.required && !self.shared.picker.load().has(label) => self.no_endpoints_error(
                self.shared.pool().explain(label),
                "register an instance with this metadata, or do not require it",
            ),
            (count, _) => self.no_endpoints_error(
                format!("the policy picked none of {count} endpoints"),
                "check what the policy requires of an endpoint",
            ),
        }
    }

    fn no_endpoints_error(&self, cause: String, advice: &'static str) -> Error {
        let error = Error::new(Kind::NoEndpoints, "call to").cause(cause).advice(advice);
        match &self.shared.app {
            Some(app) => error.app(app.clone()),
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
            if let Readiness::NotPolled = self.readiness {
                self.readiness = Readiness::Waiting(Box::pin(self.ready(None)));
            }
            if let Readiness::Waiting(ready) = &mut self.readiness {
                ready!(ready.as_mut().poll(cx));
                self.readiness = Readiness::TimedOut;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> ResponseFuture<S, Req, O> {
        self.readiness = Readiness::NotPolled;
        // The guard is dropped after the future is built, since a drop in between would read back
        // what was just written: see `Completion`.
        let (picker, label) = self.picker_for(&request);
        match self.pick_from(&picker, label, &request, &[]) {
            Some(picked) => ResponseFuture::call(picked.call(request)),
            None => ResponseFuture::no_endpoints(self.no_endpoints_for(&request)),
        }
    }
}

/// The clone starts to wait for an endpoint anew.
impl<S, P: Clone, O: Clone> Clone for Balance<S, P, O> {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.policy.clone(), self.observer.clone())
    }
}

impl<S, P, O> fmt::Debug for Balance<S, P, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("name", &self.shared.app)
            .field("endpoints", &self.len())
            .finish_non_exhaustive()
    }
}
