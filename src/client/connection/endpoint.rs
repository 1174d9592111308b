use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::header::{HOST, UPGRADE};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceExt};

use super::InstanceBody;
use super::health;
use super::http1::Http1;
use super::http2::{Http2, SendError};
use super::service::{self, InstanceService, InstanceTransport};
use crate::balance::is_grpc;
use crate::client::address::HasAddress;
use crate::client::failure::Failure;
use crate::client::options::{CallOptions, CheckTarget};
use crate::client::presence::{Membership, Presence};
use crate::client::replay::AttemptBody;
use crate::connect::{ConnectError, Connector};
use crate::error::Error;
use crate::sync::Mutex;
use crate::untrusted::Quoted;

/// One instance: an HTTP service with connections of its own, in both versions.
///
/// Connections are established on demand. Dropping the last clone closes them after the calls in
/// flight.
pub(in crate::client) struct Endpoint<B> {
    inner: Arc<Inner<B>>,
    /// Held by the endpoint in the balancer. Clones for calls have none.
    _membership: Option<Membership>,
}

struct Inner<B> {
    presence: Arc<Presence>,
    connector: Connector,
    /// Takes the place of connections.
    service: Option<InstanceService>,
    /// Maximum time without progress while a response body is read.
    body_timeout: Option<Duration>,
    /// Host header of HTTP/1.1.
    host: HeaderValue,
    /// `true` if all requests are sent over HTTP/2.
    is_http2: bool,
    /// Version of the latest call: [`HTTP1`], [`HTTP2`], [`ONLY_HTTP1`] or [`HTTP1_REQUIRED`].
    version: AtomicU8,
    /// Time at which the instance required HTTP/1.1.
    http1_required: Mutex<Option<Instant>>,
    /// Number of HTTP/2 requests sent over HTTP/1.1 after the server closed the HTTP/2 connection
    /// without a response.
    silent_closes: AtomicU8,
    http1: Http1<B>,
    http2: Http2<B>,
    check_target: CheckTarget,
}

const HTTP1: u8 = 1;
const HTTP2: u8 = 2;
/// HTTP/2 was requested, and the instance speaks only HTTP/1.1. gRPC calls are still sent over
/// HTTP/2.
const ONLY_HTTP1: u8 = 3;
/// HTTP/2 was used, and the instance required HTTP/1.1. gRPC calls are still sent over HTTP/2.
const HTTP1_REQUIRED: u8 = 4;
/// Time after which HTTP/2 is tried again at an instance that required HTTP/1.1.
const HTTP1_REQUIRED_PERIOD: Duration = Duration::from_secs(300);
/// Number of silent closes after which an instance that responds over HTTP/1.1 counts as HTTP/1.1
/// only.
const MAX_SILENT_CLOSES: u8 = 2;

/// Alias of the bounds of a request body.
pub(in crate::client) trait RequestBody:
    Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static
{
}

impl<B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static> RequestBody for B {}

impl<B: RequestBody> Endpoint<B> {
    pub(in crate::client) fn new(
        presence: Arc<Presence>,
        transport: &InstanceTransport,
        options: &CallOptions,
    ) -> Self {
        let is_http2 = options.http2.is_for(&presence.instance);
        let InstanceTransport { connector, service } = transport.clone();
        let connector = connector.prefer_ipv6(options.prefer_ipv6).dial(Arc::new(presence.dial()));
        let limits = options.connections;
        let inner = Inner {
            host: presence.address.host(),
            is_http2,
            version: AtomicU8::new(if is_http2 { HTTP2 } else { HTTP1 }),
            http1_required: Mutex::default(),
            silent_closes: AtomicU8::new(0),
            http1: Http1::new(connector.clone(), presence.clone(), limits),
            http2: Http2::new(connector.clone(), presence.clone(), options.http2_connections, limits),
            body_timeout: limits.body,
            connector,
            service,
            check_target: options.health_check.target.clone(),
            presence: presence.clone(),
        };
        Self { _membership: Some(Membership(presence)), inner: Arc::new(inner) }
    }

    /// Connects as calls do. Returns `true` if that succeeds. Other faults are found by calls.
    pub(in crate::client) async fn probe(self) -> bool {
        let inner = &*self.inner;
        if inner.service.is_some() {
            true
        } else if inner.is_http2_in_use() {
            inner.http2.probe().await.is_ok()
        } else {
            let uri = inner.presence.address.uri_of(None);
            inner.connector.clone().http2(false).oneshot(uri).await.is_ok()
        }
    }

    /// Sends a health check. Returns `true` if the instance is healthy.
    pub(in crate::client) fn check(&self) -> impl Future<Output = bool> + Send + use<B> {
        let Inner { presence, connector, service, check_target, .. } = &*self.inner;
        let is_http2 = self.inner.is_http2_in_use();
        health::check(connector, service.as_ref(), &presence.instance, &presence.address, check_target, is_http2)
    }
}

impl<B: RequestBody> Service<Request<AttemptBody<B>>> for Endpoint<B> {
    type Response = Response<InstanceBody>;
    type Error = Error;
    type Future = EndpointFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<AttemptBody<B>>) -> EndpointFuture<B> {
        let inner = &self.inner;
        let may_be_http2 = inner.is_http2 || request.version() == Version::HTTP_2;
        let can_fall_back = may_be_http2 && !is_grpc(request.headers());
        // HTTP/2 has no upgrades.
        let is_http2 = inner.is_http2 && !is_upgrade(&request) && !(can_fall_back && inner.is_only_http1());
        // HTTP/1.1 writes the path alone.
        if may_be_http2 || inner.service.is_some() {
            inner.complete_uri(&mut request);
        }
        let response = match (is_http2, request.version()) {
            _ if inner.service.is_some() => {
                VersionedSend::Http1(Box::pin(inner.clone().send_to_service(request, is_http2)))
            }
            (true, _) => {
                // A host header must not contradict the authority (RFC 9113, 8.3.1).
                request.headers_mut().remove(HOST);
                VersionedSend::Http2(Box::pin(inner.http2.clone().send(request)))
            }
            (false, Version::HTTP_2) if !(can_fall_back && inner.is_only_http1()) => {
                request.headers_mut().remove(HOST);
                inner.record_version(HTTP2);
                if inner.http2.has_connected() {
                    VersionedSend::Http2(Box::pin(inner.http2.clone().send(request)))
                } else {
                    VersionedSend::Http1(Box::pin(inner.clone().send_http2_or_fall_back(request)))
                }
            }
            (false, version) => {
                if version != Version::HTTP_2 && !inner.is_http2 {
                    inner.record_version(HTTP1);
                }
                // Set here, since hyper would format it for each request.
                request.headers_mut().entry(HOST).or_insert_with(|| inner.host.clone());
                VersionedSend::Http1(Box::pin(inner.http1.clone().send(request)))
            }
        };
        EndpointFuture { response, can_fall_back, endpoint: self.clone() }
    }
}

/// Returns `true` if a request asks the instance to switch to another protocol.
fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.version() != Version::HTTP_2 && request.headers().contains_key(UPGRADE)
}

impl<B> Inner<B> {
    /// Returns `true` if requests that do not need HTTP/2 should be sent over HTTP/1.1.
    fn is_only_http1(&self) -> bool {
        match self.version.load(Ordering::Relaxed) {
            ONLY_HTTP1 => true,
            HTTP1_REQUIRED => {
                let is_over = self.http1_required.lock().is_none_or(|at| at.elapsed() >= HTTP1_REQUIRED_PERIOD);
                if is_over {
                    self.version.store(HTTP2, Ordering::Relaxed);
                }
                !is_over
            }
            _ => false,
        }
    }

    /// Sends the next requests over HTTP/1.1, since the instance requires it.
    fn require_http1(&self) {
        *self.http1_required.lock() = Some(Instant::now());
        if self.version.swap(HTTP1_REQUIRED, Ordering::Relaxed) != HTTP1_REQUIRED {
            let instance = &self.presence.instance;
            tracing::debug!(
                app = %Quoted(instance.app()), instance = %Quoted(instance.id()),
                "instance requires HTTP/1.1, falling back to it"
            );
        }
    }
}

impl<B: RequestBody> Inner<B> {
    /// Adds the address to a URI that is a path alone.
    fn complete_uri(&self, request: &mut Request<AttemptBody<B>>) {
        if request.uri().authority().is_none() {
            *request.uri_mut() = self.presence.address.uri_of(request.uri().path_and_query());
        }
    }

    fn is_http2_in_use(&self) -> bool {
        self.version.load(Ordering::Relaxed) == HTTP2
    }

    /// Records the version for probes.
    fn record_version(&self, version: u8) {
        let latest = self.version.load(Ordering::Relaxed);
        if latest != version && latest != ONLY_HTTP1 && latest != HTTP1_REQUIRED {
            self.version.store(version, Ordering::Relaxed);
        }
    }

    /// Sends a request through the service in the place of connections.
    async fn send_to_service(
        self: Arc<Self>,
        mut request: Request<AttemptBody<B>>,
        is_http2: bool,
    ) -> Result<Response<InstanceBody>, Failure> {
        let service = self.service.as_ref().expect("the caller checked that there is a service");
        if is_http2 {
            *request.version_mut() = Version::HTTP_2;
        }
        self.presence.unless_gone(service.send(request)).await?.map_err(service::failure)
    }

    /// Sends an HTTP/2 request, and falls back to HTTP/1.1 if the instance has never spoken HTTP/2.
    ///
    /// Gateways send such requests: they keep the version of their own listener. There is no
    /// fallback for gRPC, which needs HTTP/2, nor with TLS, whose handshake negotiates the version.
    async fn send_http2_or_fall_back(
        self: Arc<Self>,
        request: Request<AttemptBody<B>>,
    ) -> Result<Response<InstanceBody>, Failure> {
        let error = match self.http2.clone().send(request).await {
            Ok(response) => return Ok(response),
            Err(error) => *error,
        };
        match (error.failure, error.request) {
            (Failure::Unsent(error), Some(mut request))
                if ConnectError::is_not_http2(&*error)
                    && self.presence.address.scheme == Scheme::HTTP
                    && !self.http2.has_connected()
                    && !is_grpc(request.headers()) =>
            {
                request.headers_mut().entry(HOST).or_insert_with(|| self.host.clone());
                let response = self.http1.clone().send(request).await?;
                // A single silent close may have another reason.
                if ConnectError::is_other_protocol(&*error)
                    || self.silent_closes.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_SILENT_CLOSES
                {
                    self.version.store(ONLY_HTTP1, Ordering::Relaxed);
                }
                Ok(response)
            }
            (failure, _) => Err(failure),
        }
    }
}

impl<B> HasAddress for Endpoint<B> {
    fn presence(&self) -> &Arc<Presence> {
        &self.inner.presence
    }
}

/// Response future of an [`Endpoint`].
pub(in crate::client) struct EndpointFuture<B> {
    response: VersionedSend<B>,
    /// True for requests of HTTP/2, except for gRPC, which needs it.
    can_fall_back: bool,
    endpoint: Endpoint<B>,
}

/// A send over one version, or over HTTP/2 with the fallback.
enum VersionedSend<B> {
    Http1(BoxSend<Failure>),
    Http2(BoxSend<Box<SendError<B>>>),
}

type BoxSend<E> = Pin<Box<dyn Future<Output = Result<Response<InstanceBody>, E>> + Send>>;

impl<B> VersionedSend<B> {
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<InstanceBody>, Failure>> {
        match self {
            Self::Http1(response) => response.as_mut().poll(cx),
            Self::Http2(response) => response.as_mut().poll(cx).map_err(|error| error.failure),
        }
    }
}

impl<B> Future for EndpointFuture<B> {
    type Output = Result<Response<InstanceBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.response.poll(cx)) {
            Ok(mut response) => {
                let Inner { body_timeout, presence, .. } = &*self.endpoint.inner;
                if let Some(limit) = *body_timeout {
                    let body = mem::take(response.body_mut());
                    *response.body_mut() = body.with_timeout(limit, presence);
                }
                Ok(response)
            }
            Err(mut failure) => {
                if self.can_fall_back && self.endpoint.inner.service.is_none() && failure.requires_http1() {
                    // The next attempt is sent over it.
                    self.endpoint.inner.require_http1();
                    failure = failure.into_unprocessed();
                }
                let is_unexpected = matches!(failure, Failure::Unsent(_) | Failure::Lost(_));
                let error = self.endpoint.inner.presence.name_in(failure.into_error());
                let advice = "check the instance, which is registered as UP";
                Err(if is_unexpected { error.advice(advice) } else { error })
            }
        })
    }
}

impl<B> Clone for Endpoint<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), _membership: None }
    }
}

impl<B> fmt::Debug for Endpoint<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.inner.presence.instance.id()).finish()
    }
}
