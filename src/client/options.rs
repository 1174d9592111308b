use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::request::Parts;

use super::retry::RetryPolicy;
use crate::balance::{
    Candidates, ClassifyHttp, Ejection, HttpResponses, Label, PeakEwma, Policy, SlowStart, Subset, ZoneAware,
};
use crate::model::Instance;

/// How calls by name are made: the same for [`HttpClient`](super::HttpClient), [`EurekaLayer`](super::EurekaLayer) and the
/// integrations built on them.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::balance::LeastRequests;
/// use tower_eureka::client::{CallOptions, RetryPolicy};
///
/// let options = CallOptions::new()
///     .policy(LeastRequests)
///     .retry(RetryPolicy::new().statuses([502, 503, 504]))
///     .timeout(Duration::from_secs(5));
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until a client is made with them"]
pub struct CallOptions {
    pub(super) policy: AnyPolicy,
    pub(super) labels: Vec<Arc<str>>,
    pub(super) responses: HttpResponses,
    pub(super) ejection: Ejection,
    pub(super) zones: Option<ZoneAware>,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) subset: Option<Subset>,
    pub(super) health_check: Option<Duration>,
    pub(super) caller: Option<(Arc<str>, Arc<str>)>,
    pub(super) retry: RetryPolicy,
    pub(super) ports: Ports,
    pub(super) port_key: Option<Arc<str>>,
    pub(super) http2: Http2,
    pub(super) http2_connections: usize,
    pub(super) removal_grace: Duration,
    pub(super) host: HostHeader,
    pub(super) deadline_header: Option<HeaderName>,
    pub(super) timeout: Option<Duration>,
    pub(super) wait_for_ready: Option<Duration>,
    pub(super) pass_through: Option<Arc<PassThrough>>,
}

type PassThrough = dyn Fn(&str) -> bool + Send + Sync;

/// Which of its ports an instance is called at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ports {
    /// The secure one where it is enabled, if the feature `tls` is there, else the plain one. As Spring chooses, also of a record
    /// that marks both ports as disabled: then the plain one is called. Below an [`EurekaLayer`](super::EurekaLayer), which cannot
    /// know whether the service speaks TLS, the plain one where it is enabled.
    #[default]
    Auto,
    /// The plain one. Instances without it are not called.
    Plain,
    /// The secure one. Instances without it are not called.
    Secure,
}

/// Over which version of HTTP an instance is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Http2 {
    /// HTTP/2 for requests of that version, else HTTP/1.1.
    #[default]
    AsRequested,
    /// HTTP/2 for all.
    Always,
    /// HTTP/2 for requests of that version, and for instances whose metadata has this key with the value `true`.
    Metadata(Arc<str>),
}

/// What the instance is told in the `host` header of HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostHeader {
    /// Its own host and port. The `:authority` of HTTP/2 is always that.
    #[default]
    Instance,
    /// What the caller wrote: its own `host` header, else the name from the URI.
    Kept,
}

impl Http2 {
    /// Whether this instance is called over HTTP/2 whatever the request's version.
    pub(super) fn is_for(&self, instance: &Instance) -> bool {
        match self {
            Self::AsRequested => false,
            Self::Always => true,
            Self::Metadata(key) => instance.metadata().get(key).is_some_and(|value| value == "true"),
        }
    }
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            policy: AnyPolicy::PeakEwma(PeakEwma),
            labels: Vec::new(),
            responses: HttpResponses::default(),
            ejection: Ejection::default(),
            zones: None,
            slow_start: None,
            subset: None,
            health_check: None,
            caller: None,
            retry: RetryPolicy::default(),
            ports: Ports::default(),
            port_key: None,
            http2: Http2::default(),
            http2_connections: 4,
            removal_grace: Duration::from_secs(30),
            host: HostHeader::default(),
            deadline_header: None,
            timeout: None,
            wait_for_ready: None,
            pass_through: None,
        }
    }
}

impl CallOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How an instance is chosen. Default [`PeakEwma`]. All applications share the one policy.
    pub fn policy(mut self, policy: impl Policy<Parts> + 'static) -> Self {
        self.policy = AnyPolicy::Custom(Arc::new(policy));
        self
    }

    /// By which keys of the instances' metadata requests choose, where that is to be ready before the first request asks; see
    /// [`Policy::label`]. Default none.
    pub fn labels<K: Into<Arc<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.labels = keys.into_iter().map(Into::into).collect();
        self
    }

    /// What an answer, or an error in its place, says of the instance. Default [`DefaultClassifier`](crate::balance::DefaultClassifier).
    pub fn classifier(mut self, classify: impl ClassifyHttp) -> Self {
        self.responses = HttpResponses::new(classify);
        self
    }

    /// When instances that fail are left out, and for how long.
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.ejection = ejection;
        self
    }

    /// Keeps calls in this zone as far as it has instances for them. How much that is depends on how callers are spread over the
    /// zones, which the registry tells if this one is [known](Self::caller). Default: zones do not matter.
    pub fn zone_aware(mut self, zones: ZoneAware) -> Self {
        self.zones = Some(zones);
        self
    }

    /// Gives instances that just came up less than their share of the calls. Default: all of it.
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// Routes only some of an application's instances. Default: all.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
        self
    }

    /// Asks each instance at this interval, in the background, whether it is healthy, and leaves it out while it is not; see
    /// [`Builder::health_check`](crate::balance::Builder::health_check). Default: that an instance is UP in the registry suffices,
    /// and calls show the rest.
    ///
    /// A GET of the `healthCheckUrl` that the instance registered, or of the `secureHealthCheckUrl` if it is called over TLS and has
    /// one, must be answered with 2xx; redirects are not followed. An instance that has no such URL counts as healthy. The URL is
    /// taken as it is, so whoever may register chooses what this caller asks. Every caller asks every instance: where there are many
    /// of both, that is many requests.
    ///
    /// Spring, where it is told to check, does so every 25 s, at `/actuator/health` below the address that it calls, takes only 200
    /// for healthy, and fails calls where no instance is, though its documentation says that it calls them all, as is done here.
    ///
    /// Only where connections are our own: a service of the user's own below [`EurekaLayer`](super::EurekaLayer) is not asked.
    pub fn health_check(mut self, interval: Duration) -> Self {
        self.health_check = Some(interval);
        self
    }

    /// The instance that makes these calls, which is registered as well. The others of that application are the
    /// callers that [`zone_aware`](Self::zone_aware) and an [aperture](Subset::aperture) reckon with. Default: unknown.
    pub fn caller(mut self, instance: &Instance) -> Self {
        self.caller = Some((instance.app().into(), instance.id().into()));
        self
    }

    /// When a call is made again. Default [`RetryPolicy::default`].
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Which port is called. Default [`Ports::Auto`].
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Takes the port from this key of an instance's metadata, where it holds one: a server beside the ports of the record. It is
    /// called over TLS with [`Ports::Secure`], and with [`Ports::Auto`] if the secure port is enabled. Default none.
    pub fn port_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.port_key = Some(key.into());
        self
    }

    /// Which version of HTTP is spoken. Default [`Http2::AsRequested`]. No part of what a service of the user's own does.
    pub fn http2(mut self, http2: Http2) -> Self {
        self.http2 = http2;
        self
    }

    /// Sets the maximum number of HTTP/2 connections to one instance. A further one is made while all streams are in use that the
    /// instance allows, and is closed when it has been idle for 45 to 90 seconds. A call that finds no stream waits for one for the
    /// [connect timeout](crate::EurekaBuilder::instance_connect_timeout), and is then made at another instance. Defaults to 4.
    pub fn http2_connections(mut self, connections: usize) -> Self {
        self.http2_connections = connections.max(1);
        self
    }

    /// Sets the time for which a call still waits for the head of its response after its instance
    /// left the registry. Then the call fails, or is made at another instance if its [`RetryPolicy`]
    /// allows to repeat what may have been received. A response whose head has come is read to its
    /// end. `Duration::MAX` means that calls wait without end. Defaults to 30 seconds.
    ///
    /// An instance has left once the registry has none with its application, id and address,
    /// whatever the status. Routes at an instance that is taken out of service, or registers again,
    /// wait on. If it is removed after that, they may wait for up to twice this time.
    pub fn removal_grace(mut self, grace: Duration) -> Self {
        self.removal_grace = grace;
        self
    }

    /// What the `host` header says. Default [`HostHeader::Instance`].
    pub fn host_header(mut self, host: HostHeader) -> Self {
        self.host = host;
        self
    }

    /// The header in which callers say, and instances are told, how many milliseconds are left for the call. Default none; of
    /// `grpc-timeout` that is always true.
    pub fn deadline_header(mut self, name: HeaderName) -> Self {
        self.deadline_header = Some(name);
        self
    }

    /// How long a call without a [deadline](super::Deadline) may wait for the head of its answer. Default for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long each call waits for a first instance of its application, also where others already failed for lack of one. A
    /// request's own [`WaitForReady`](super::WaitForReady) goes before it. Default the
    /// [ready timeout](crate::EurekaBuilder::ready_timeout), spent once.
    pub fn wait_for_ready(mut self, timeout: Duration) -> Self {
        self.wait_for_ready = Some(timeout);
        self
    }

    /// Sends requests to these hosts as they are, for a client that calls applications and others: `|host| host.contains('.')`.
    /// They are neither balanced nor tried again. Default none: every host is an application.
    pub fn pass_through(mut self, is_passed_through: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.pass_through = Some(Arc::new(is_passed_through));
        self
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions")
            .field("policy", &self.policy)
            .field("labels", &self.labels)
            .field("ejection", &self.ejection)
            .field("health_check", &self.health_check)
            .field("retry", &self.retry)
            .field("ports", &self.ports)
            .field("http2", &self.http2)
            .field("http2_connections", &self.http2_connections)
            .field("removal_grace", &self.removal_grace)
            .field("host_header", &self.host)
            .field("deadline_header", &self.deadline_header)
            .field("timeout", &self.timeout)
            .field("wait_for_ready", &self.wait_for_ready)
            .finish_non_exhaustive()
    }
}

/// The policy of a client, without a type parameter for it. The default is called directly.
#[derive(Clone, Debug)]
pub(super) enum AnyPolicy {
    PeakEwma(PeakEwma),
    Custom(Arc<dyn Policy<Parts>>),
}

impl Policy<Parts> for AnyPolicy {
    fn pick(&self, request: &Parts, candidates: &Candidates<'_>) -> Option<usize> {
        match self {
            Self::PeakEwma(policy) => policy.pick(request, candidates),
            Self::Custom(policy) => policy.pick(request, candidates),
        }
    }

    fn affinity(&self, request: &Parts, all: &Candidates<'_>) -> Option<usize> {
        match self {
            Self::PeakEwma(_) => None,
            Self::Custom(policy) => policy.affinity(request, all),
        }
    }

    fn label<'r>(&'r self, request: &'r Parts) -> Option<Label<'r>> {
        match self {
            Self::PeakEwma(_) => None,
            Self::Custom(policy) => policy.label(request),
        }
    }
}
