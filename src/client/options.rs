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

/// Options of calls by name.
///
/// The same options apply to [`HttpClient`](super::HttpClient), [`EurekaLayer`](super::EurekaLayer)
/// and the integrations built on them.
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

/// Port at which an instance is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ports {
    /// The secure port if it is enabled and the feature `tls` is present, else the plain port.
    ///
    /// A record that marks both ports as disabled is called at its plain port, as Spring does.
    /// Below an [`EurekaLayer`](super::EurekaLayer), which cannot know whether the service speaks
    /// TLS, the plain port is preferred.
    #[default]
    Auto,
    /// The plain port. Instances without it are not called.
    Plain,
    /// The secure port. Instances without it are not called.
    Secure,
}

/// Version of HTTP used for an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Http2 {
    /// HTTP/2 for requests of that version, else HTTP/1.1.
    ///
    /// Without TLS, an instance that does not speak HTTP/2 gets such requests over HTTP/1.1, except
    /// for gRPC.
    #[default]
    AsRequested,
    /// HTTP/2 for all requests, without TLS by prior knowledge.
    Always,
    /// HTTP/2 for requests of that version, and for all requests to instances whose metadata has
    /// this key with the value `true`.
    Metadata(Arc<str>),
}

/// Value of the `host` header in HTTP/1.1 requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostHeader {
    /// Host and port of the instance. In HTTP/2, `:authority` always has this value.
    #[default]
    Instance,
    /// Value from the caller's request: its `host` header, else the name from the URI.
    Original,
}

impl Http2 {
    /// Returns `true` if all requests to this instance use HTTP/2.
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
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the policy that picks an instance for each request. Defaults to [`PeakEwma`].
    ///
    /// All applications share the policy.
    pub fn policy(mut self, policy: impl Policy<Parts> + 'static) -> Self {
        self.policy = AnyPolicy::Custom(Arc::new(policy));
        self
    }

    /// Indexes instances by these metadata keys before the first request needs them. Defaults to
    /// none.
    ///
    /// Requests select instances by such keys with [`Policy::label`].
    pub fn labels<K: Into<Arc<str>>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.labels = keys.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the classifier, which decides whether a response or error is a failure of the instance.
    /// Defaults to [`DefaultClassifier`](crate::balance::DefaultClassifier).
    pub fn classifier(mut self, classify: impl ClassifyHttp) -> Self {
        self.responses = HttpResponses::new(classify);
        self
    }

    /// Sets when failing instances are ejected, and for how long. Defaults to
    /// [`Ejection::default`].
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.ejection = ejection;
        self
    }

    /// Prefers instances in this caller's zone. Defaults to off.
    ///
    /// The share of calls that stays in the zone depends on the number of instances there, and on
    /// the number of callers in each zone. Callers are counted if [`caller`](Self::caller) is set.
    pub fn zone_aware(mut self, zones: ZoneAware) -> Self {
        self.zones = Some(zones);
        self
    }

    /// Ramps up the load of instances that just started. Defaults to off.
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// Calls only a subset of an application's instances. Defaults to all instances.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
        self
    }

    /// Checks the health of each instance at this interval, and does not call unhealthy ones.
    /// Defaults to off: instances that are UP in the registry are called.
    ///
    /// A check is a GET of the instance's `healthCheckUrl`, or `secureHealthCheckUrl` if it has one
    /// and is called over TLS. A 2xx response means healthy. Redirects are not followed. An
    /// instance without such a URL counts as healthy. See
    /// [`Builder::health_check`](crate::balance::Builder::health_check).
    ///
    /// The URL is used as registered, so anyone who can register an instance chooses the URLs that
    /// this process requests. Every caller checks every instance, which is many requests if there
    /// are many of both.
    ///
    /// Spring's health checks, if enabled, request `/actuator/health` at the called address every
    /// 25 seconds and accept only status 200. If no instance is healthy, Spring fails calls,
    /// contrary to its documentation. This client then calls all instances.
    ///
    /// Has no effect below an [`EurekaLayer`](super::EurekaLayer), which has no connections of its
    /// own.
    pub fn health_check(mut self, interval: Duration) -> Self {
        self.health_check = Some(interval);
        self
    }

    /// Sets the registered instance that makes these calls. Defaults to none.
    ///
    /// [`zone_aware`](Self::zone_aware) and an [aperture](Subset::aperture) count the other
    /// instances of its application as further callers.
    pub fn caller(mut self, instance: &Instance) -> Self {
        self.caller = Some((instance.app().into(), instance.id().into()));
        self
    }

    /// Sets the retry policy. Defaults to [`RetryPolicy::default`].
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the port at which instances are called. Defaults to [`Ports::Auto`].
    pub fn ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// Reads the port from this metadata key, for instances that have it. Defaults to none, in a
    /// gRPC channel to `gRPC_port`.
    ///
    /// The port is called over TLS with [`Ports::Secure`], and with [`Ports::Auto`] if the secure
    /// port is enabled.
    pub fn port_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.port_key = Some(key.into());
        self
    }

    /// Sets the version of HTTP. Defaults to [`Http2::AsRequested`].
    ///
    /// Has no effect below an [`EurekaLayer`](super::EurekaLayer). A gRPC channel always uses
    /// HTTP/2.
    pub fn http2(mut self, http2: Http2) -> Self {
        self.http2 = http2;
        self
    }

    /// Sets the maximum number of HTTP/2 connections to one instance. Defaults to 4, and is at
    /// least 1.
    ///
    /// A further connection is established while all streams that the instance allows are in use.
    /// It is closed after being idle for 45 to 90 seconds. A call without a free stream waits for
    /// the [connect timeout](crate::EurekaBuilder::instance_connect_timeout), and is then sent to
    /// another instance.
    pub fn http2_connections(mut self, connections: usize) -> Self {
        self.http2_connections = connections.max(1);
        self
    }

    /// Sets the time for which a call waits for its response after its instance left the registry.
    /// Defaults to 30 seconds.
    ///
    /// After that, the call fails, or is sent to another instance if its [`RetryPolicy`] allows to
    /// repeat a request that may have been received. A response whose head was received is read to
    /// its end. With `Duration::MAX`, calls wait without limit.
    ///
    /// An instance has left once the registry has none with its application, id and address,
    /// whatever the status. Calls at an instance that changes its status or registers again
    /// continue to wait. If it is removed after that, they may wait for up to twice this time.
    pub fn removal_grace(mut self, grace: Duration) -> Self {
        self.removal_grace = grace;
        self
    }

    /// Sets the `host` header of HTTP/1.1 requests. Defaults to [`HostHeader::Instance`].
    pub fn host_header(mut self, host: HostHeader) -> Self {
        self.host = host;
        self
    }

    /// Sets the header that carries the remaining time of a call, in milliseconds. Defaults to
    /// none.
    ///
    /// It is read from requests and sent to instances. `grpc-timeout` is always handled this way.
    pub fn deadline_header(mut self, name: HeaderName) -> Self {
        self.deadline_header = Some(name);
        self
    }

    /// Sets the time limit of calls without a [deadline](super::Deadline), until the head of the
    /// response. Defaults to no limit.
    ///
    /// In a gRPC channel the limit also covers the response until its end.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time that each call waits for an instance, even if other calls already fail fast.
    /// By default, calls wait for the [ready timeout](crate::EurekaBuilder::ready_timeout), and
    /// fail fast once it has passed without an instance.
    ///
    /// A request's own [`WaitForReady`](super::WaitForReady) takes precedence.
    pub fn wait_for_ready(mut self, timeout: Duration) -> Self {
        self.wait_for_ready = Some(timeout);
        self
    }

    /// Sends requests for these hosts without discovery: `|host| host.contains('.')`. They are
    /// neither balanced nor retried. Defaults to none: every host is an application.
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

/// Policy of a client, without a type parameter. The default is called directly.
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
