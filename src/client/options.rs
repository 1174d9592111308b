mod applications;
mod attempts;
mod connecting;
mod connections;
mod health;
mod hints;
mod policy;
mod protocol;
mod reconfigure;
mod selection;
mod unknown_name;
mod update;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, Request};
use tokio::time::Instant;

pub(super) use applications::ApplicationOptions;
pub use connecting::InstanceAddress;
pub(super) use connecting::Limits;
pub(super) use health::{CheckTarget, HealthCheck};
pub(super) use hints::Hints;
pub(super) use policy::AnyPolicy;
pub use protocol::{HostHeader, Http2, InstanceScheme, Ports};
pub(super) use selection::Select;
pub use unknown_name::UnknownName;

use super::address::ServerNameOf;
use super::deadline::CallDeadline;
use super::retry::RetryPolicy;
use crate::balance::{ClassifyHttp, Ejection, HttpResponses, PeakEwma, Policy, SlowStart, Subset, ZoneAware};
use crate::model::Instance;

pub(super) use self::attempts::AttemptOptions;
pub use self::attempts::ForwardedFor;

/// Options of calls by name.
///
/// The same options apply to [`HttpClient`](super::HttpClient), [`EurekaLayer`](super::EurekaLayer)
/// and the integrations built on them. [`application`](Self::application) changes them for one
/// application. [`HttpClient::set_options`](super::HttpClient::set_options) replaces them while
/// calls are made.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::balance::LeastRequests;
/// use tower_eureka::client::{CallOptions, RetryPolicy};
///
/// let options = CallOptions::new()
///     .policy(LeastRequests)
///     .retry(RetryPolicy::new().statuses([502, 503, 504]))
///     .timeout(Duration::from_secs(5))
///     .application("reports", |options| options.timeout(Duration::from_secs(60)));
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
    pub(super) health_check: HealthCheck,
    pub(super) caller: Option<Caller>,
    /// Zone of this process, for zone-aware routing without a zone.
    pub(super) own_zone: Option<Arc<str>>,
    pub(super) retry: RetryPolicy,
    pub(super) ports: Ports,
    pub(super) scheme: InstanceScheme,
    pub(super) port_key: Option<Arc<str>>,
    pub(super) address: InstanceAddress,
    pub(super) prefer_ipv6: Option<bool>,
    pub(super) server_name: Option<ServerNameOf>,
    pub(super) connections: Limits,
    pub(super) http2: Http2,
    pub(super) http2_connections: usize,
    pub(super) removal_grace: Duration,
    pub(super) host: HostHeader,
    pub(super) deadline_header: Option<HeaderName>,
    pub(super) timeout: Option<Duration>,
    pub(super) wait_for_ready: Option<Duration>,
    pub(super) ready_timeout: Option<Duration>,
    pub(super) unknown_name: UnknownName,
    pub(super) selection: Option<Select>,
    pub(super) hints: Option<Hints>,
    pub(super) pass_through: Option<Arc<PassThrough>>,
    pub(super) attempts: AttemptOptions,
    /// Changes for single applications.
    pub(super) applications: Vec<ApplicationOptions>,
}

type PassThrough = dyn Fn(&str) -> bool + Send + Sync;

/// Registered instance that makes the calls.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Caller {
    pub(super) app: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) zone: Option<Arc<str>>,
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
            health_check: HealthCheck::default(),
            caller: None,
            own_zone: None,
            retry: RetryPolicy::default(),
            ports: Ports::default(),
            scheme: InstanceScheme::default(),
            port_key: None,
            address: InstanceAddress::default(),
            prefer_ipv6: None,
            server_name: None,
            connections: Limits::default(),
            http2: Http2::default(),
            http2_connections: 4,
            removal_grace: Duration::from_secs(30),
            host: HostHeader::default(),
            deadline_header: None,
            timeout: None,
            wait_for_ready: None,
            ready_timeout: None,
            unknown_name: UnknownName::default(),
            selection: None,
            hints: None,
            pass_through: None,
            attempts: AttemptOptions::default(),
            applications: Vec::new(),
        }
    }
}

impl CallOptions {
    /// Returns the default options: the policy [`PeakEwma`], no time limit, and retries of requests
    /// that were not sent, or whose method is idempotent if the connection was lost. Each method of
    /// this type has its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the policy that picks an instance for each request. Defaults to [`PeakEwma`].
    ///
    /// All applications share the policy, unless [`application`](Self::application) sets another
    /// one.
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
    ///
    /// With [`ZoneAware::default`], the zone of this caller is that of the
    /// [`caller`](Self::caller), else that of the settings: `spring.cloud.loadbalancer.zone`,
    /// `eureka.instance.metadata-map.zone`, or the first of `eureka.client.availability-zones`.
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

    /// Sets the registered instance that makes these calls. Defaults to none.
    ///
    /// [`zone_aware`](Self::zone_aware) and an [aperture](Subset::aperture) count the other
    /// instances of its application as further callers.
    pub fn caller(mut self, instance: &Instance) -> Self {
        let zone = instance.zone().map(Arc::from);
        self.caller = Some(Caller { app: instance.app().into(), id: instance.id().into(), zone });
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
    /// It is closed after the [idle timeout](Self::connection_idle_timeout). A call without a free
    /// stream waits for the [connect timeout](crate::EurekaBuilder::instance_connect_timeout), and
    /// is then sent to another instance.
    ///
    /// A response body that is not read holds its stream and at most 2 MiB of memory. It delays
    /// other calls only if they find no free stream.
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

    /// Sets the maximum time that a call waits for an application without instances. Defaults to
    /// the [ready timeout](crate::EurekaBuilder::ready_timeout) of the client.
    ///
    /// Calls fail fast once it has passed without an instance. Zero fails at once.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = Some(timeout);
        self
    }

    /// Sends requests for these hosts without discovery: `|host| host.contains('.')`. They are
    /// neither balanced nor retried. Defaults to none: every host is an application.
    ///
    /// Has no effect in [`application`](Self::application).
    pub fn pass_through(mut self, is_passed_through: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.pass_through = Some(Arc::new(is_passed_through));
        self
    }
}

impl CallOptions {
    /// Returns `true` if requests for this authority are sent without discovery.
    pub(super) fn passes_through(&self, authority: &Authority) -> bool {
        self.pass_through.as_ref().is_some_and(|passes_through| passes_through(authority.host()))
    }

    /// Returns the time limits of a request that was sent at `now`.
    pub(super) fn deadline<B>(&self, request: &Request<B>, now: impl Fn() -> Instant) -> CallDeadline {
        let Self { deadline_header, timeout, wait_for_ready, .. } = self;
        CallDeadline::of(request, now, deadline_header.as_ref(), *timeout).with_ready_timeout(*wait_for_ready)
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions")
            .field("policy", &self.policy)
            .field("labels", &self.labels)
            .field("ejection", &self.ejection)
            .field("zones", &self.zones)
            .field("slow_start", &self.slow_start)
            .field("subset", &self.subset)
            .field("health_check", &self.health_check)
            .field("caller", &self.caller)
            .field("selection", &self.selection)
            .field("own_zone", &self.own_zone)
            .field("retry", &self.retry)
            .field("ports", &self.ports)
            .field("scheme", &self.scheme)
            .field("port_key", &self.port_key)
            .field("address", &self.address)
            .field("prefer_ipv6", &self.prefer_ipv6)
            .field("connections", &self.connections)
            .field("http2", &self.http2)
            .field("http2_connections", &self.http2_connections)
            .field("removal_grace", &self.removal_grace)
            .field("host_header", &self.host)
            .field("deadline_header", &self.deadline_header)
            .field("timeout", &self.timeout)
            .field("wait_for_ready", &self.wait_for_ready)
            .field("ready_timeout", &self.ready_timeout)
            .field("unknown_name", &self.unknown_name)
            .field("hints", &self.hints)
            .field("attempts", &self.attempts)
            .field("applications", &self.applications)
            .finish_non_exhaustive()
    }
}
