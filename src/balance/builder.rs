//! The settings of a balancer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::BoxError;
use tower::discover::Discover;

use super::driver::{Driver, MakeEndpoint, Settings};
use super::http::HttpResponses;
use super::{Balance, Explain, Shared};

/// Settings of a [`Balance`], begun with [`Balance::builder`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder<D: Discover, S = <D as Discover>::Service, O = HttpResponses> {
    discover: D,
    make: MakeEndpoint<D::Service, S>,
    observer: O,
    name: Option<Arc<str>>,
    explain: Option<Explain>,
    ready_timeout: Duration,
    failure_penalty: Duration,
    default_latency: Duration,
    decay: Duration,
}

impl<D: Discover> Builder<D> {
    pub(super) fn new(discover: D) -> Self {
        Self {
            discover,
            make: Box::new(|service| service),
            observer: HttpResponses,
            name: None,
            explain: None,
            ready_timeout: Duration::from_secs(3),
            failure_penalty: Duration::from_secs(5),
            default_latency: Duration::from_millis(30),
            decay: Duration::from_secs(10),
        }
    }
}

impl<D: Discover, S, O> Builder<D, S, O> {
    /// How an endpoint's service is made from what was discovered. By default, what is discovered is the service.
    ///
    /// Called once per discovered endpoint, and again when discovery inserts it anew. The service is cloned for every call.
    pub fn endpoint<T>(self, mut make: impl FnMut(&D::Service) -> T + Send + 'static) -> Builder<D, T, O> {
        let Self { discover, observer, name, explain, ready_timeout, failure_penalty, default_latency, decay, .. } =
            self;
        let make = Box::new(move |target| make(&target));
        Builder { discover, make, observer, name, explain, ready_timeout, failure_penalty, default_latency, decay }
    }

    /// How answers are judged. By default [`HttpResponses`].
    pub fn observer<P>(self, observer: P) -> Builder<D, S, P> {
        let Self { discover, make, name, explain, ready_timeout, failure_penalty, default_latency, decay, .. } = self;
        Builder { discover, make, observer, name, explain, ready_timeout, failure_penalty, default_latency, decay }
    }

    /// The application that is called, for errors and logs. By default none is named.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
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

    /// As what latency a failed call is recorded, unless it took longer; by default 5 s.
    ///
    /// It keeps an endpoint that fails fast from looking like the fastest. The larger it is in relation to the usual latency,
    /// the longer an endpoint is avoided after a failure: with the defaults and a usual latency of 5 ms for about a minute,
    /// and not at all where all endpoints fail alike.
    pub fn failure_penalty(mut self, penalty: Duration) -> Self {
        self.failure_penalty = penalty;
        self
    }

    /// The latency assumed of an endpoint that was not called yet, by default 30 ms; less where the best of those that were
    /// there before takes less, so that a newcomer gets calls at once.
    pub fn default_latency(mut self, latency: Duration) -> Self {
        self.default_latency = latency;
        self
    }

    /// In what time a measured latency counts only 1/e, by default 10 s.
    ///
    /// Shorter forgets slow answers and failures sooner, longer rides out bursts better.
    pub fn decay(mut self, decay: Duration) -> Self {
        self.decay = decay;
        self
    }

    /// Starts a task that follows discovery, and returns the balancer over what it finds.
    ///
    /// The task ends when discovery ends or the last clone of the balancer is dropped.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn build(self) -> Balance<S, O>
    where
        D: Discover + Send + 'static,
        D::Key: Hash + Debug + Send + 'static,
        D::Service: Send + 'static,
        D::Error: Into<BoxError> + Send,
        S: Clone + Send + Sync + 'static,
    {
        let base = Instant::now();
        let (alive, closed) = oneshot::channel::<Infallible>();
        let shared = Arc::new(Shared::new(base, self.name.clone(), self.explain, self.ready_timeout, alive));
        let driver = Driver::<D, S> {
            make: self.make,
            shared: Arc::downgrade(&shared),
            settings: Settings {
                name: self.name,
                failure_penalty: self.failure_penalty,
                default_latency: self.default_latency,
                decay: self.decay,
                base,
            },
            endpoints: HashMap::new(),
            next_id: 0,
            newcomer_cost: None,
        };
        tokio::spawn(driver.run(self.discover, closed));
        Balance::new(shared, self.observer)
    }
}

impl<D: Discover, S, O> fmt::Debug for Builder<D, S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("ready_timeout", &self.ready_timeout)
            .field("failure_penalty", &self.failure_penalty)
            .field("default_latency", &self.default_latency)
            .field("decay", &self.decay)
            .finish_non_exhaustive()
    }
}
