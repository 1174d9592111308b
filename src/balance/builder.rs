//! Settings of a balancer.

use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_stream::Stream;
use tower::BoxError;
use tower::discover::Discover;

use super::attributes::Attributes;
use super::classify::HttpResponses;
use super::driver::{Describe, Discovery, Driver, MakeEndpoint, Probe, SiblingStream};
use super::outlier::{Ejection, MIN_INTERVAL};
use super::policy::PeakEwma;
use super::pool::{Pool, Settings};
use super::service::Balance;
use super::shared::{Explain, Shared};
use super::slow_start::SlowStart;
use super::subset::{Siblings, Subset};
use super::zone::ZoneAware;
use crate::metrics::Metrics;
use crate::time::LONGEST_WAIT;

impl Balance<()> {
    /// Creates a builder for a balancer over the endpoints that `discover` reports.
    ///
    /// By default, each discovered value is the service of an endpoint, and its responses are HTTP.
    /// See [`endpoint`](Builder::endpoint) and [`observer`](Builder::observer).
    pub fn builder<D: Discover>(discover: D) -> Builder<D> {
        Builder::new(discover)
    }
}

/// Settings of a [`Balance`], created by [`Balance::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<D: Discover, S = <D as Discover>::Service, P = PeakEwma, O = HttpResponses> {
    discover: D,
    make: MakeEndpoint<D::Service, S>,
    describe: Describe<D::Service>,
    probe: Option<Probe<S>>,
    check: Option<Probe<S>>,
    siblings: Option<SiblingStream>,
    policy: P,
    observer: O,
    settings: Settings,
    explain: Option<Explain>,
    ready_timeout: Duration,
}

impl<D: Discover> Builder<D> {
    pub(super) fn new(discover: D) -> Self {
        Self {
            discover,
            make: Box::new(|service| service),
            describe: Box::new(|_| Attributes::default()),
            probe: None,
            check: None,
            siblings: None,
            policy: PeakEwma,
            observer: HttpResponses::default(),
            settings: Settings {
                app: None,
                failure_penalty: Duration::from_secs(5),
                default_latency: Duration::from_millis(1),
                decay: Duration::from_secs(10),
                ejection: Ejection::default(),
                labels: Vec::new(),
                probes: false,
                checks: None,
                zones: None,
                slow_start: None,
                subset: None,
                base: Instant::now(),
                metrics: Metrics::new(None),
            },
            explain: None,
            ready_timeout: Duration::from_secs(3),
        }
    }
}

impl<D: Discover, S, P, O> Builder<D, S, P, O> {
    /// Sets the closure that builds an endpoint's service from a discovered value. By default, the
    /// discovered value is the service.
    ///
    /// It is called once per discovered endpoint, and again if discovery inserts the endpoint with
    /// another [address](Attributes::address). The service is cloned for every call.
    pub fn endpoint<T>(self, mut make: impl FnMut(&D::Service) -> T + Send + 'static) -> Builder<D, T, P, O> {
        let Self { discover, describe, siblings, policy, observer, settings, explain, ready_timeout, .. } = self;
        let make = Box::new(move |target| make(&target));
        Builder {
            discover,
            make,
            describe,
            probe: None,
            check: None,
            siblings,
            policy,
            observer,
            settings,
            explain,
            ready_timeout,
        }
    }

    /// Sets the closure that returns the attributes of a discovered value: weight, zone, labels. By
    /// default, endpoints have none.
    ///
    /// For the instances of a registry, use [`Attributes::of`].
    pub fn attributes(mut self, describe: impl Fn(&D::Service) -> Attributes + Send + 'static) -> Self {
        self.describe = Box::new(describe);
        self
    }

    /// Sets a background probe for unreachable endpoints. An endpoint is used again once its probe
    /// returns `true`. By default, calls are the probes, one at a time.
    ///
    /// Also probes an endpoint after a first [silent call](Ejection::silent_calls). If that probe
    /// fails, the endpoint is ejected as unreachable. Each probe is limited to 10 seconds.
    ///
    /// Call it after [`endpoint`](Self::endpoint), which removes the probe.
    pub fn probe<F>(mut self, probe: impl Fn(S) -> F + Send + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.probe = Some(Box::new(move |service| Box::pin(probe(service))));
        self
    }

    /// Checks the health of every endpoint in the background, whether or not it is called. By
    /// default, nothing is checked.
    ///
    /// Each endpoint is checked about once per interval, with a jitter of 10 %. Its first check is
    /// at a random time within the first interval. The interval is at least 100 milliseconds.
    ///
    /// A check fails if it returns `false`, or returns nothing within the interval or 10 seconds.
    /// Three failures in a row ([`Ejection::failed_checks`]) [eject](super::Cause::HealthCheck) the
    /// endpoint until a check succeeds. This holds even if [ejection](Self::ejection) is off and no
    /// matter how many endpoints are ejected. Calls do not restore the endpoint, but it gets calls
    /// while no other endpoint can be reached. At most 16 checks run at a time, one per endpoint.
    /// Endpoints outside the [subset](Self::subset) are not checked.
    ///
    /// Call it after [`endpoint`](Self::endpoint), which removes the check.
    pub fn health_check<F>(mut self, interval: Duration, check: impl Fn(S) -> F + Send + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.settings.checks = Some(limited_interval(interval));
        self.checker(check)
    }

    /// Sets the closure that checks the health of an endpoint, without an interval. Checks begin
    /// once [`Balance::reconfigure`] sets one.
    pub(crate) fn checker<F>(mut self, check: impl Fn(S) -> F + Send + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.check = Some(Box::new(move |service| Box::pin(check(service))));
        self
    }

    /// Sets the policy that picks an endpoint for each call. Defaults to [`PeakEwma`].
    pub fn policy<Q>(self, policy: Q) -> Builder<D, S, Q, O> {
        let Self {
            discover, make, describe, probe, check, siblings, observer, settings, explain, ready_timeout, ..
        } = self;
        Builder { discover, make, describe, probe, check, siblings, policy, observer, settings, explain, ready_timeout }
    }

    /// Sets the observer that classifies responses. Defaults to [`HttpResponses`].
    pub fn observer<Q>(self, observer: Q) -> Builder<D, S, P, Q> {
        let Self { discover, make, describe, probe, check, siblings, policy, settings, explain, ready_timeout, .. } =
            self;
        Builder { discover, make, describe, probe, check, siblings, policy, observer, settings, explain, ready_timeout }
    }

    /// Sets the rules for the ejection of failing endpoints. Defaults to [`Ejection::default`].
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.settings.ejection = ejection;
        self
    }

    /// Keeps calls in the caller's zone as far as that zone has the capacity. By default, zones are
    /// ignored.
    pub fn zone_aware(mut self, zones: ZoneAware) -> Self {
        self.settings.zones = Some(zones);
        self
    }

    /// Reduces the weight of endpoints that have just come up. By default, they get their full
    /// weight at once.
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.settings.slow_start = Some(slow_start).filter(SlowStart::is_enabled);
        self
    }

    /// Limits the number of endpoints that this caller uses. By default, it uses all of them.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.settings.subset = Some(subset);
        self
    }

    /// Sets the fleet that this caller belongs to, as a stream that has an item for each change. It
    /// is used for [zones](ZoneAware) and [apertures](Subset::aperture). By default, no siblings
    /// are known.
    ///
    /// The latest item counts, also after the end of the stream.
    pub fn siblings(mut self, siblings: impl Stream<Item = Siblings> + Send + 'static) -> Self {
        self.siblings = Some(Box::pin(siblings));
        self
    }

    /// Sets the labels that requests choose endpoints by, see
    /// [`Policy::label`](super::Policy::label). Endpoints are then indexed by these labels from the
    /// start.
    ///
    /// A label that is not listed here is indexed by the first request that asks for it, which
    /// waits meanwhile, unless 16 labels are indexed already. A label that is not indexed counts as
    /// one that no endpoint has. Each label needs some memory per endpoint and value.
    pub fn labels<K: Into<Arc<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.settings.labels = keys.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the application's name for errors, logs and metrics. By default, there is none.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.app = Some(name.into());
        self
    }

    /// Sets the closure that explains why there is no endpoint, for the error of a call. It returns
    /// a clause that follows "there is no endpoint," and is called once per error.
    pub fn explain(mut self, explain: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.explain = Some(Box::new(explain));
        self
    }

    /// Sets the maximum time that a call waits for a first endpoint. Defaults to 3 seconds.
    ///
    /// After it the call fails, and later calls fail at once until an endpoint is found. Zero fails
    /// at once.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// Sets the latency charged for a failed call. It is scaled by the share of the endpoint's last
    /// 64 calls that failed, and is never less than the call's own duration. Defaults to 5 seconds.
    ///
    /// Without it, an endpoint that fails fast would look like the fastest one, before it is
    /// ejected and where ejection is off.
    pub fn failure_penalty(mut self, penalty: Duration) -> Self {
        self.settings.failure_penalty = penalty;
        self
    }

    /// Sets the latency assumed of an endpoint that has not been called. Defaults to 1 millisecond,
    /// below which latencies are not distinguished.
    ///
    /// With the default, the first calls measure the endpoint. Until one of them has a response,
    /// the time that they have waited counts as its latency. A higher value decays only as fast as
    /// a measured latency. Until then it hides that one endpoint is slower than another. An
    /// endpoint that is added later is assumed to be as fast as the fastest of the others, but
    /// never slower than this value.
    pub fn default_latency(mut self, latency: Duration) -> Self {
        self.settings.default_latency = latency;
        self
    }

    /// Sets the time constant of the latency average: the weight of a sample falls to 1/e after
    /// this time. Defaults to 10 seconds.
    ///
    /// A shorter time forgets slow responses and failures sooner. A longer one smooths bursts.
    pub fn decay(mut self, decay: Duration) -> Self {
        self.settings.decay = decay;
        self
    }

    /// Spawns a task that follows discovery, and returns the balancer. Endpoints that discovery has
    /// ready are available at once.
    ///
    /// The task ends when the last clone of the balancer is dropped.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn build(mut self) -> Balance<S, P, O>
    where
        D: Discover + Send + 'static,
        D::Key: Hash + Debug + Send + 'static,
        D::Service: Send + 'static,
        D::Error: Into<BoxError> + Send,
        S: Clone + Send + Sync + 'static,
    {
        let (alive, closed) = oneshot::channel::<Infallible>();
        self.settings.base = Instant::now();
        self.settings.metrics = Metrics::new(self.settings.app.as_ref());
        self.settings.probes = self.probe.is_some();
        if self.check.is_none() {
            self.settings.checks = None;
        }
        let app = self.settings.app.clone();
        let shared = Arc::new(Shared::new(Pool::new(self.settings), self.explain, self.ready_timeout, alive));
        let mut driver = Driver {
            discovery: Discovery::new(self.discover, self.make, self.describe, &shared),
            siblings: self.siblings,
            probe: self.probe,
            check: self.check,
            shared: Arc::downgrade(&shared),
            app,
        };
        driver.apply_ready();
        tokio::spawn(driver.run(closed));
        Balance::new(shared, self.policy, self.observer)
    }
}

/// Limits the interval of health checks.
pub(super) fn limited_interval(interval: Duration) -> Duration {
    interval.clamp(MIN_INTERVAL, LONGEST_WAIT)
}

impl<D: Discover, S, P, O> fmt::Debug for Builder<D, S, P, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.settings.app)
            .field("ready_timeout", &self.ready_timeout)
            .field("failure_penalty", &self.settings.failure_penalty)
            .field("default_latency", &self.settings.default_latency)
            .field("decay", &self.settings.decay)
            .field("ejection", &self.settings.ejection)
            .field("zone_aware", &self.settings.zones)
            .field("slow_start", &self.settings.slow_start)
            .field("subset", &self.settings.subset)
            .finish_non_exhaustive()
    }
}
