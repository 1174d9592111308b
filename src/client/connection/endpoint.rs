use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::{BoxError, Service, ServiceExt};

use super::InstanceBody;
use super::health::Checker;
use super::http1::Http1;
use super::http2::{self, Http2, Unsent};
use crate::balance::is_grpc;
use crate::cache::RegistryCache;
use crate::client::ResponseBody;
use crate::client::address::{Address, AddressRule};
use crate::client::failure::Failure;
use crate::client::options::CallOptions;
use crate::client::presence::{Membership, Presence};
use crate::client::replay::{AttemptBody, ReplayRequest};
use crate::client::routes::{HasAddress, Routes};
use crate::connect::{ConnectError, Connector};
use crate::error::Error;

type Hyper<B> = Client<Connector, AttemptBody<B>>;

/// Connections to whatever host a request names, for who wants no instance. Dropping the last clone closes them after the calls in
/// flight.
pub(in crate::client) struct Connections<B>(Arc<Pools<B>>);

struct Pools<B> {
    connector: Connector,
    http1: OnceLock<Hyper<B>>,
    http2: OnceLock<Hyper<B>>,
}

/// One instance as something to send to, with its own connections of both versions, opened when they are needed: dropping the last
/// clone closes them after the calls in flight.
pub(in crate::client) struct Endpoint<B> {
    inner: Arc<Inner<B>>,
    /// Held by the endpoint in the balancer. The clones for calls have none.
    _membership: Option<Membership>,
}

struct Inner<B> {
    presence: Arc<Presence>,
    /// Host header of HTTP/1.1.
    host: HeaderValue,
    is_http2: bool,
    /// Version of the latest call: [`HTTP1`], [`HTTP2`] or [`ONLY_HTTP1`].
    version: AtomicU8,
    /// Number of requests of HTTP/2 that went over HTTP/1.1, since the connection was closed without a word.
    closed: AtomicU8,
    http1: Http1<B>,
    http2: Http2<B>,
}

const HTTP1: u8 = 1;
const HTTP2: u8 = 2;
/// HTTP/2 was asked for, and the instance speaks HTTP/1.1 alone.
const ONLY_HTTP1: u8 = 3;
/// Number of connections closed without a word after which an instance that responds over HTTP/1.1 counts as one of HTTP/1.1 alone.
const CLOSED: u8 = 2;

/// What a request's body must be to be sent.
pub(in crate::client) trait Sendable:
    Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static
{
}

impl<B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static> Sendable for B {}

fn client<B: Sendable>(connector: &Connector, is_http2: bool) -> Hyper<B> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_only(is_http2)
        .http2_keep_alive_interval(http2::KEEP_ALIVE)
        .http2_keep_alive_timeout(http2::KEEP_ALIVE_TIMEOUT)
        .build(connector.clone().http2(is_http2))
}

impl<B: Sendable> Connections<B> {
    pub(in crate::client) fn new(connector: Connector) -> Self {
        Self(Arc::new(Pools { connector, http1: OnceLock::new(), http2: OnceLock::new() }))
    }

    pub(in crate::client) async fn send_elsewhere(&self, request: Request<B>) -> Result<Response<ResponseBody>, Error> {
        let is_http2 = request.version() == Version::HTTP_2;
        let request = ReplayRequest::new(request, 0).into_request();
        // Without the user-info that an authority may have.
        let host = request.uri().host().unwrap_or_default().to_owned();
        let pool = if is_http2 { &self.0.http2 } else { &self.0.http1 };
        let sent = pool.get_or_init(|| client(&self.0.connector, is_http2)).request(request).await;
        let response = sent.map_err(|error| Failure::from(error).into_error().server(host))?;
        Ok(response.map(|body| ResponseBody::unguarded(InstanceBody::from(body))))
    }
}

impl<B: Sendable> Endpoint<B> {
    /// Routes by name that end at endpoints like this.
    pub(in crate::client) fn routes(
        registry: Arc<RegistryCache>,
        options: CallOptions,
        rule: AddressRule,
        ready_timeout: Duration,
        connector: Connector,
    ) -> Routes<Self> {
        let http2 = options.http2.clone();
        let most = options.http2_connections;
        let checker = Checker::new(connector.clone());
        let prober = connector.clone();
        let make = move |presence: Arc<Presence>| {
            let is_http2 = http2.is_for(&presence.instance);
            let inner = Inner {
                host: presence.address.host(),
                is_http2,
                version: AtomicU8::new(if is_http2 { HTTP2 } else { HTTP1 }),
                closed: AtomicU8::new(0),
                http1: Http1::new(connector.clone(), presence.clone()),
                http2: Http2::new(connector.clone(), presence.clone(), most),
                presence: presence.clone(),
            };
            Self { _membership: Some(Membership(presence)), inner: Arc::new(inner) }
        };
        // A connection as the calls make it that is closed again. What else may be wrong, calls find out.
        let probe = move |endpoint: Self| {
            let connector = prober.clone();
            Box::pin(async move {
                let inner = &*endpoint.inner;
                if inner.is_called_over_http2() {
                    inner.http2.probe().await.is_ok()
                } else {
                    connector.http2(false).oneshot(inner.presence.address.uri_of(None)).await.is_ok()
                }
            }) as Pin<Box<dyn Future<Output = bool> + Send>>
        };
        let check = move |endpoint: Self| {
            let Presence { instance, address, .. } = &*endpoint.inner.presence;
            let healthy = checker.check(instance, address, endpoint.inner.is_called_over_http2());
            Box::pin(healthy) as Pin<Box<dyn Future<Output = bool> + Send>>
        };
        let (probe, check) = (Some(Arc::new(probe) as _), Some(Arc::new(check) as _));
        Routes::new(registry, options, rule, ready_timeout, Arc::new(make), probe, check)
    }
}

impl<B: Sendable> Service<Request<AttemptBody<B>>> for Endpoint<B> {
    type Response = Response<InstanceBody>;
    type Error = Error;
    type Future = EndpointFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<AttemptBody<B>>) -> EndpointFuture<B> {
        let inner = &self.inner;
        let sending = match (inner.is_http2, request.version()) {
            (true, _) => {
                // It would contradict the authority (RFC 9113, 8.3.1).
                request.headers_mut().remove(HOST);
                Sending::Http2(Box::pin(inner.http2.clone().send(request)))
            }
            (false, Version::HTTP_2)
                if inner.version.load(Ordering::Relaxed) != ONLY_HTTP1 || is_grpc(request.headers()) =>
            {
                request.headers_mut().remove(HOST);
                inner.called_over(HTTP2);
                if inner.http2.has_connected() {
                    Sending::Http2(Box::pin(inner.http2.clone().send(request)))
                } else {
                    Sending::Http1(Box::pin(inner.clone().send_http2_if_spoken(request)))
                }
            }
            (false, version) => {
                if version != Version::HTTP_2 {
                    inner.called_over(HTTP1);
                }
                // As hyper would, which writes it anew each time.
                request.headers_mut().entry(HOST).or_insert_with(|| inner.host.clone());
                Sending::Http1(Box::pin(inner.http1.clone().send(request)))
            }
        };
        EndpointFuture { sending, endpoint: self.clone() }
    }
}

impl<B: Sendable> Inner<B> {
    fn is_called_over_http2(&self) -> bool {
        self.version.load(Ordering::Relaxed) == HTTP2
    }

    /// Keeps the version for probes.
    fn called_over(&self, version: u8) {
        let latest = self.version.load(Ordering::Relaxed);
        if latest != version && latest != ONLY_HTTP1 {
            self.version.store(version, Ordering::Relaxed);
        }
    }

    /// Sends a request of HTTP/2, over HTTP/1.1 where the instance never spoke HTTP/2 and does not do so now: such requests come from
    /// gateways that pass on the version of their own listener. gRPC needs HTTP/2, and with TLS the instance itself refuses the version.
    async fn send_http2_if_spoken(
        self: Arc<Self>,
        request: Request<AttemptBody<B>>,
    ) -> Result<Response<InstanceBody>, Failure> {
        let unsent = match self.http2.clone().send(request).await {
            Ok(response) => return Ok(response),
            Err(unsent) => *unsent,
        };
        match (unsent.failure, unsent.request) {
            (Failure::Unsent(error), Some(mut request))
                if ConnectError::is_not_http2(&*error)
                    && self.presence.address.scheme == Scheme::HTTP
                    && !self.http2.has_connected()
                    && !is_grpc(request.headers()) =>
            {
                request.headers_mut().entry(HOST).or_insert_with(|| self.host.clone());
                let response = self.http1.clone().send(request).await?;
                // One connection that was closed without a word may have had another reason.
                if ConnectError::is_other_protocol(&*error) || self.closed.fetch_add(1, Ordering::Relaxed) + 1 >= CLOSED
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
    fn address(&self) -> &Address {
        &self.inner.presence.address
    }
}

/// A request to one instance.
pub(in crate::client) struct EndpointFuture<B> {
    sending: Sending<B>,
    endpoint: Endpoint<B>,
}

/// A request on its way, over one version or over both.
enum Sending<B> {
    Http1(Boxed<Failure>),
    Http2(Boxed<Box<Unsent<B>>>),
}

type Boxed<E> = Pin<Box<dyn Future<Output = Result<Response<InstanceBody>, E>> + Send>>;

impl<B> Sending<B> {
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<InstanceBody>, Failure>> {
        match self {
            Self::Http1(sending) => sending.as_mut().poll(cx),
            Self::Http2(sending) => sending.as_mut().poll(cx).map_err(|unsent| unsent.failure),
        }
    }
}

impl<B> Future for EndpointFuture<B> {
    type Output = Result<Response<InstanceBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.sending.poll(cx)) {
            Ok(response) => Ok(response),
            Err(failure) => {
                let Presence { instance, address, .. } = &*self.endpoint.inner.presence;
                let is_unexplained = matches!(failure, Failure::Unsent(_) | Failure::Lost(_));
                let error = failure.into_error();
                let error = error.app(instance.app()).instance(instance.id()).server(address.authority.as_str());
                let advice = "look at the instance itself: it is registered as UP";
                Err(if is_unexplained { error.advice(advice) } else { error })
            }
        })
    }
}

impl<B> Clone for Connections<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
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
