use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::call::CallFuture;
use super::connection::{DirectClient, Endpoint};
use super::options::CallOptions;
use super::routes::{Routes, Target};
use super::{InstanceBody, ResponseBody};
use crate::balance::Snapshot;
use crate::cache::RegistryCache;
use crate::connect::Connector;
use crate::error::{Error, Kind};

/// HTTP client that calls applications by name: `http://orders/v1/42`.
///
/// Created by [`Eureka::http_client`](crate::Eureka::http_client). Use [`request`](Self::request),
/// or the client as a [`Service`].
///
/// The host of the URI is the name, in any case: a VIP address if an UP instance has it, else an
/// application. A port in the URI is ignored, path and query are kept. `lb://orders` is the same as
/// `http://orders`. With `https://orders`, only instances with a secure port are called, over TLS
/// (feature `tls`). Each request is sent to an UP instance chosen by load, over HTTP/1.1, or over
/// HTTP/2 if that is the request's version.
///
/// An attempt that failed before anything was sent is repeated at another instance. A request with
/// an idempotent method is also repeated if its connection is lost before the response; see
/// [`RetryPolicy`](super::RetryPolicy). [`CallOptions`] configure further retries, the choice of
/// the instance, and its port.
///
/// The client is cheap to clone. Clones share connections and statistics, so keep one client and
/// clone it. It is always ready: the call itself waits for an instance, since only its request
/// names the application. If there is none within the
/// [`ready_timeout`](crate::EurekaBuilder::ready_timeout), the call fails, and further calls fail
/// at once until there is one. The time to wait for a response is limited by the request's
/// [`Deadline`](super::Deadline) or by [`timeout`](CallOptions::timeout). By default there is no
/// limit.
pub struct HttpClient<B> {
    pub(super) routes: Arc<Routes<Endpoint<B>>>,
    /// Client for hosts that are not applications.
    direct: DirectClient<B>,
    fallback: Option<Fallback<B>>,
}

type Fallback<B> = BoxCloneSyncService<Request<B>, Response<InstanceBody>, BoxError>;

impl<B> HttpClient<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) fn new(
        registry: Arc<RegistryCache>,
        options: CallOptions,
        ready_timeout: Duration,
        connector: Connector,
    ) -> Self {
        let direct = DirectClient::new(connector.clone());
        Self {
            routes: Arc::new(Routes::with_connections(registry, options, ready_timeout, connector)),
            direct,
            fallback: None,
        }
    }

    /// Sets a service that handles calls to applications without an instance, such as a cache or
    /// another site. It is called where the call would otherwise fail: once the ready timeout has
    /// passed, and at once while calls fail fast.
    ///
    /// The service receives the caller's request unchanged. It is not called for an invalid name,
    /// after the deadline, or if there are instances that fail.
    #[must_use]
    pub fn fallback<F, FB>(mut self, fallback: F) -> Self
    where
        F: Service<Request<B>, Response = Response<FB>> + Clone + Send + Sync + 'static,
        F::Future: Send + 'static,
        F::Error: Into<BoxError>,
        FB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let boxed = fallback.map_response(|response| response.map(InstanceBody::boxed)).map_err(Into::into);
        self.fallback = Some(BoxCloneSyncService::new(boxed));
        self
    }

    /// Sends a request to an instance of the application that its URI names.
    ///
    /// # Errors
    /// If no instance could be called, none responded, the deadline passed, or the URI does not
    /// name an application. A response with an error status is not an error.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub fn request(&self, request: Request<B>) -> ResponseFuture {
        match self.routes.cached(&request) {
            Some(route) if route.is_ready() => {
                let deadline = route.deadline(&request);
                ResponseFuture(Box::pin(CallFuture::new(route, request, deadline)))
            }
            _ => ResponseFuture(Box::pin(self.clone().find_and_send(request, Instant::now()))),
        }
    }

    /// Slow path of [`request`](Self::request): first calls, applications without an instance, and
    /// other hosts. The deadline counts from `since`.
    async fn find_and_send(self, request: Request<B>, since: Instant) -> Result<Response<ResponseBody>, Error> {
        let route = match self.routes.target(&request)? {
            Target::Named(route) => route,
            Target::PassThrough => {
                let deadline = self.routes.options().deadline(&request, || since);
                return deadline.enforce(self.direct.send(request)).await;
            }
        };
        let deadline = route.deadline_since(&request, since);
        let Some(fallback) = self.fallback else { return CallFuture::when_ready(route, request, deadline).await };
        if route.ready(deadline).await {
            return CallFuture::new(route, request, deadline).await;
        }
        if deadline.has_passed() {
            return Err(route.not_ready(deadline));
        }
        let failed = |error| {
            let cause = "there is no instance, and the fallback failed";
            Error::new(Kind::Call, "call").cause(cause).with_source(error)
        };
        let response = async { fallback.oneshot(request).await.map_err(failed) };
        Ok(deadline.enforce(response).await?.map(ResponseBody::unguarded))
    }

    /// Returns a snapshot of the instances of each application that was called.
    ///
    /// Each snapshot displays as a table.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.routes.snapshots()
    }
}

impl<B> Service<Request<B>> for HttpClient<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.request(request)
    }
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self { routes: self.routes.clone(), direct: self.direct.clone(), fallback: self.fallback.clone() }
    }
}

impl<B> fmt::Debug for HttpClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// Response future of a call by name. Dropping it cancels the call.
pub struct ResponseFuture<R = Response<ResponseBody>>(
    pub(super) Pin<Box<dyn Future<Output = Result<R, Error>> + Send>>,
);

impl<R> Future for ResponseFuture<R> {
    type Output = Result<R, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl<R> fmt::Debug for ResponseFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
