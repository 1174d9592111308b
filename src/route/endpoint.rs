use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::{BoxError, Service, ServiceExt};

use super::address::{Address, AddressRule};
use super::attempts::{AttemptBody, Attempts};
use super::calls::{AtAddress, Calls};
use super::failure::Failure;
use super::health::Checker;
use super::http1::Http1;
use super::http2::{self, Http2};
use super::options::CallOptions;
use super::{InstanceBody, ResponseBody};
use crate::error::Error;
use crate::model::Instance;
use crate::registry::Registry;
use crate::transport::Connector;

type Hyper<B> = Client<Connector, AttemptBody<B>>;

/// Connections to whatever host a request names, for who wants no instance. Dropping the last clone closes them after the calls in
/// flight.
pub(super) struct Connections<B>(Arc<Pools<B>>);

struct Pools<B> {
    connector: Connector,
    http1: OnceLock<Hyper<B>>,
    http2: OnceLock<Hyper<B>>,
}

/// One instance as something to send to, with its own connections of both versions, opened when they are needed: dropping the last
/// clone closes them after the calls in flight.
pub(super) struct Endpoint<B>(Arc<Inner<B>>);

struct Inner<B> {
    instance: Arc<Instance>,
    address: Address,
    /// What it is told of that in HTTP/1.1.
    host: HeaderValue,
    is_http2: bool,
    http1: Http1<B>,
    http2: Http2<B>,
}

/// What a request's body must be to be sent.
pub(super) trait Sendable: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static {}

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
    pub(super) fn new(connector: Connector) -> Self {
        Self(Arc::new(Pools { connector, http1: OnceLock::new(), http2: OnceLock::new() }))
    }

    pub(super) async fn send_elsewhere(&self, request: Request<B>) -> Result<Response<ResponseBody>, Error> {
        let is_http2 = request.version() == Version::HTTP_2;
        let request = Attempts::new(request, 0).into_request();
        // Without the user-info that an authority may have.
        let host = request.uri().host().unwrap_or_default().to_owned();
        let pool = if is_http2 { &self.0.http2 } else { &self.0.http1 };
        let sent = pool.get_or_init(|| client(&self.0.connector, is_http2)).request(request).await;
        let response = sent.map_err(|error| Failure::from(error).into_error().server(host))?;
        Ok(response.map(|body| ResponseBody::unwatched(InstanceBody::from(body))))
    }
}

impl<B: Sendable> Endpoint<B> {
    /// Calls by name that end at endpoints like this.
    pub(super) fn calls(
        registry: Arc<Registry>,
        options: CallOptions,
        rule: AddressRule,
        ready_timeout: Duration,
        connector: Connector,
    ) -> Calls<Self> {
        let http2 = options.http2.clone();
        let prober = connector.clone();
        let checker = Checker::new(connector.clone());
        let make = move |instance: &Arc<Instance>, address: Address| {
            Self(Arc::new(Inner {
                instance: instance.clone(),
                host: address.host(),
                is_http2: http2.is_for(instance),
                http1: Http1::new(connector.clone(), address.clone()),
                http2: Http2::new(connector.clone(), address.clone()),
                address,
            }))
        };
        // A connection that comes about and is closed again. It says enough: what else may be wrong, calls find out.
        let probe = move |endpoint: Self| {
            let connect = prober.clone().http2(endpoint.0.is_http2).oneshot(endpoint.0.address.uri_of(None));
            Box::pin(async move { connect.await.is_ok() }) as Pin<Box<dyn Future<Output = bool> + Send>>
        };
        let check = move |endpoint: Self| {
            let healthy = checker.check(&endpoint.0.instance, &endpoint.0.address);
            Box::pin(healthy) as Pin<Box<dyn Future<Output = bool> + Send>>
        };
        let (probe, check) = (Some(Arc::new(probe) as _), Some(Arc::new(check) as _));
        Calls::new(registry, options, rule, ready_timeout, Arc::new(make), probe, check)
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
        let Inner { host, is_http2, http1, http2, .. } = &*self.0;
        let sending: Sending = if *is_http2 || request.version() == Version::HTTP_2 {
            // It would contradict the authority (RFC 9113, 8.3.1).
            request.headers_mut().remove(HOST);
            Box::pin(http2.clone().send(request))
        } else {
            // As hyper would, which writes it anew each time.
            request.headers_mut().entry(HOST).or_insert_with(|| host.clone());
            Box::pin(http1.clone().send(request))
        };
        EndpointFuture { sending, endpoint: self.clone() }
    }
}

impl<B> AtAddress for Endpoint<B> {
    fn address(&self) -> &Address {
        &self.0.address
    }
}

/// A request to one instance.
pub(super) struct EndpointFuture<B> {
    sending: Sending,
    endpoint: Endpoint<B>,
}

type Sending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Failure>> + Send>>;

impl<B> Future for EndpointFuture<B> {
    type Output = Result<Response<InstanceBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.sending.as_mut().poll(cx)) {
            Ok(response) => Ok(response.map(InstanceBody::from)),
            Err(failure) => {
                let Inner { instance, address, .. } = &*self.endpoint.0;
                Err(failure
                    .into_error()
                    .app(instance.app())
                    .instance(instance.id())
                    .server(address.authority.as_str())
                    .advice("look at the instance itself: it is registered as UP"))
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
        Self(self.0.clone())
    }
}

impl<B> fmt::Debug for Endpoint<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.0.instance.id()).finish()
    }
}
