//! The settings of a balancer.

use std::collections::HashMap;
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
use super::driver::{Describe, Driver, Fleet, MakeEndpoint, Probe};
use super::eject::{Ejection, LEAST_INTERVAL};
use super::http::HttpResponses;
use super::policy::PeakEwma;
use super::roster::{Roster, Settings};
use super::slow_start::SlowStart;
use super::subset::{Peers, Subset};
use super::zone::ZoneAware;
use super::{Balance, Explain, Shared};
use crate::metrics::Metrics;
use crate::time::LONGEST_WAIT;

/// Settings of a [`Balance`], begun with [`Balance::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<D: Discover, S = <D as Discover>::Service, P = PeakEwma, O = HttpResponses> {
    discover: D,
    make: MakeEndpoint<D::Service, S>,
    describe: Describe<D::Service>,
    probe: Option<Probe<S>>,
    check: Option<(Duration, Probe<S>)>,
    peers: Option<Fleet>,
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
            peers: None,
            policy: PeakEwma,
            observer: HttpResponses::default(),
            settings: Settings {
                name: None,
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
    /// How an endpoint's service is made from what was discovered. By default, what is discovered is the service.
    ///
    /// Called once per discovered endpoint, and again when discovery inserts it anew with another
    /// [address](Attributes::address). The service is cloned for every call.
    pub fn endpoint<T>(self, mut make: impl FnMut(&D::Service) -> T + Send + 'static) -> Builder<D, T, P, O> {
        let Self { discover, describe, peers, policy, observer, settings, explain, ready_timeout, .. } = self;
        let make = Box::new(move |target| make(&target));
        Builder {
            discover,
            make,
            describe,
            probe: None,
            check: None,
            peers,
            policy,
            observer,
            settings,
            explain,
            ready_timeout,
        }
    }

    /// What is known of an endpoint beside its service: weight, zone, labels. By default nothing.
    pub fn attributes(mut self, describe: impl Fn(&D::Service) -> Attributes + Send + 'static) -> Self {
        self.describe = Box::new(describe);
        self
    }

    /// Sets a background probe for unreachable endpoints. An endpoint is used again once its probe returns `true`. It also probes
    /// an endpoint of which a first [silent call](Ejection::silent_calls) casts doubt: if it fails, the endpoint counts as
    /// unreachable. Each probe is limited to 10 seconds. By default the calls of callers probe, one at a time.
    ///
    /// Call after [`endpoint`](Self::endpoint), which forgets it.
    pub fn probe<F>(mut self, probe: impl Fn(S) -> F + Send + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.probe = Some(Box::new(move |service| Box::pin(probe(service))));
        self
    }

    /// Checks the health of every endpoint in the background, whether or not it is called: each about once per interval, a tenth more
    /// or less, for the first time within the first one. By default nothing is checked.
    ///
    /// A check fails if it returns `false`, or nothing within the interval or 10 seconds. Three failures in a row
    /// ([`Ejection::failed_checks`]) [eject](super::Cause::HealthCheck) the endpoint until a check succeeds, also where
    /// [ejection](Self::ejection) is off and however many are out already: calls do not restore it. Where nothing else can be
    /// reached it gets calls all the same. One check of an endpoint runs at a time, and at most 16 in all; endpoints outside the
    /// [subset](Self::subset) are not checked. The interval is at least 100 milliseconds.
    ///
    /// Call after [`endpoint`](Self::endpoint), which forgets it.
    pub fn health_check<F>(mut self, interval: Duration, check: impl Fn(S) -> F + Send + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let interval = interval.clamp(LEAST_INTERVAL, LONGEST_WAIT);
        self.check = Some((interval, Box::new(move |service| Box::pin(check(service)))));
        self
    }

    /// How an endpoint is chosen. By default [`PeakEwma`].
    pub fn policy<Q>(self, policy: Q) -> Builder<D, S, Q, O> {
        let Self { discover, make, describe, probe, check, peers, observer, settings, explain, ready_timeout, .. } =
            self;
        Builder { discover, make, describe, probe, check, peers, policy, observer, settings, explain, ready_timeout }
    }

    /// How answers are judged. By default [`HttpResponses`].
    pub fn observer<Q>(self, observer: Q) -> Builder<D, S, P, Q> {
        let Self { discover, make, describe, probe, check, peers, policy, settings, explain, ready_timeout, .. } = self;
        Builder { discover, make, describe, probe, check, peers, policy, observer, settings, explain, ready_timeout }
    }

    /// When endpoints that fail are taken out, and for how long. By default [`Ejection::default`].
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.settings.ejection = ejection;
        self
    }

    /// Keeps calls in the caller's zone as far as it has endpoints for them. By default zones do not matter.
    pub fn zone_aware(mut self, zones: ZoneAware) -> Self {
        self.settings.zones = Some(zones);
        self
    }

    /// Gives endpoints that just came up less than their share of the calls. By default they get all of it.
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.settings.slow_start = Some(slow_start).filter(|slow_start| !slow_start.window.is_zero());
        self
    }

    /// Uses only some of the endpoints. By default all.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.settings.subset = Some(subset);
        self
    }

    /// The callers that this one is among, and each change of them: for [zones](ZoneAware) and [apertures](Subset::aperture). By
    /// default nothing is known of them. What came last counts, also after the stream's end.
    pub fn peers(mut self, peers: impl Stream<Item = Peers> + Send + 'static) -> Self {
        self.peers = Some(Box::pin(peers));
        self
    }

    /// By which labels of the endpoints requests will choose; see [`Policy::label`](super::Policy::label). Otherwise the first request
    /// that asks for one waits while the endpoints are sorted by it. Each costs some memory per endpoint and value; there are at most
    /// 16.
    pub fn labels<K: Into<Arc<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.settings.labels = keys.into_iter().map(Into::into).collect();
        self
    }

    /// The application that is called, for errors and logs. By default none is named.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// Tells, for the error of a call without an endpoint, why there is none: a clause that goes on after "there is no
    /// endpoint,". Called for each such error.
    pub fn explain(mut self, explain: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.explain = Some(Box::new(explain));
        self
    }

    /// How long a call waits for a first endpoint when there is none, by default 3 s. Then it fails; zero fails at once.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }

    /// As what latency a failed call is recorded at an endpoint whose last 64 calls all failed, unless it took longer; in
    /// proportion if fewer did. By default 5 s.
    ///
    /// It keeps an endpoint that fails fast from looking like the fastest, before it is ejected and where ejection is off.
    pub fn failure_penalty(mut self, penalty: Duration) -> Self {
        self.settings.failure_penalty = penalty;
        self
    }

    /// The latency assumed of an endpoint that was not called yet, by default 1 ms, the least that is told apart: then its first
    /// calls show what it takes, and as long as they show nothing it counts as slow as they have waited.
    ///
    /// Something longer is forgotten no faster than a measured latency is, and hides meanwhile how much slower one endpoint is than
    /// another. A newcomer counts as fast as the best of those that were there before, if that is faster.
    pub fn default_latency(mut self, latency: Duration) -> Self {
        self.settings.default_latency = latency;
        self
    }

    /// In what time a measured latency counts only 1/e, by default 10 s.
    ///
    /// Shorter forgets slow answers and failures sooner, longer rides out bursts better.
    pub fn decay(mut self, decay: Duration) -> Self {
        self.settings.decay = decay;
        self
    }

    /// Starts a task that follows discovery, and returns the balancer over what it finds. Endpoints that discovery has ready are there
    /// at once.
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
        self.settings.metrics = Metrics::new(self.settings.name.as_ref());
        self.settings.probes = self.probe.is_some();
        self.settings.checks = self.check.as_ref().map(|(interval, _)| *interval);
        let name = self.settings.name.clone();
        let shared = Arc::new(Shared::new(Roster::new(self.settings), self.explain, self.ready_timeout, alive));
        let mut driver = Driver::<D, S> {
            make: self.make,
            describe: self.describe,
            probe: self.probe,
            check: self.check,
            peers: self.peers,
            shared: Arc::downgrade(&shared),
            name,
            ids: HashMap::new(),
            next_id: 0,
            discovery: Default::default(),
        };
        let mut discover = Box::pin(self.discover);
        driver.begin(discover.as_mut());
        tokio::spawn(driver.run(discover, closed));
        Balance::new(shared, self.policy, self.observer)
    }
}

impl<D: Discover, S, P, O> fmt::Debug for Builder<D, S, P, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.settings.name)
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
