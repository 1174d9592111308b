use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

use super::address::AddressRule;
use super::call::CallFuture;
use super::connection::{DirectClient, Endpoint};
use super::deadline::CallDeadline;
use super::options::CallOptions;
use super::routes::{Routes, Target};
use super::{InstanceBody, ResponseBody};
use crate::balance::Snapshot;
use crate::cache::RegistryCache;
use crate::connect::Connector;
use crate::error::{Error, Kind};

/// An HTTP client that calls applications by name: `http://orders/v1/42`. Made by [`Eureka::http_client`](crate::Eureka::http_client).
///
/// The host of the URI is the name, in any case: a VIP address if an instance that is UP carries it, else an application. A port in
/// it is ignored, path and query are kept. `lb://orders` means the same as `http://orders`; with `https://orders` only instances with
/// a secure port are called, over TLS (feature `tls`). The request goes to an instance that is UP, chosen by load, over HTTP/1.1, or
/// over HTTP/2 if that is the request's version.
///
/// What fails before it was sent goes to another instance; what else is tried again, how an instance is chosen, and which of its
/// ports is called, say the [`CallOptions`].
///
/// Cheap to clone; clones share connections and what was learnt of the instances, so keep one and clone it. Always ready: waiting
/// happens in the call, where the application is known. A call ends with an error when the application has had no instance for the
/// [`ready_timeout`](crate::EurekaBuilder::ready_timeout), and further ones fail at once until it has one. How long an instance may
/// take to answer is bounded by the request's [`Deadline`](super::Deadline) or the [`timeout`](CallOptions::timeout), if there is one.
pub struct HttpClient<B> {
    routes: Arc<Routes<Endpoint<B>>>,
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
        let rule = AddressRule::of(&options);
        let direct = DirectClient::new(connector.clone());
        Self {
            routes: Arc::new(Endpoint::routes(registry, options, rule, ready_timeout, connector)),
            direct,
            fallback: None,
        }
    }

    /// Answers calls to applications that have no instance by this service: with what a cache knows, a default, another site.
    ///
    /// It gets the request as the caller made it. By default such calls fail.
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
    /// When no instance could be called or none answered. An answer of whatever status is none.
    ///
    /// # Cancel safety
    /// Dropping the future drops the call.
    pub fn request(&self, request: Request<B>) -> ResponseFuture {
        let deadline = self.routes.deadline(&request);
        match self.routes.cached(&request) {
            Some(route) if route.is_ready() => ResponseFuture(Box::pin(CallFuture::new(route, request, deadline))),
            _ => ResponseFuture(Box::pin(self.clone().find_and_send(request, deadline))),
        }
    }

    /// The same for an application that is called for the first time or has no instance, and for what is none.
    async fn find_and_send(self, request: Request<B>, deadline: CallDeadline) -> Result<Response<ResponseBody>, Error> {
        let route = match self.routes.target(&request)? {
            Target::Named(route) => route,
            Target::PassThrough => return deadline.enforce(self.direct.send(request)).await,
        };
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
        let answer = async { fallback.oneshot(request).await.map_err(failed) };
        Ok(deadline.enforce(answer).await?.map(ResponseBody::unguarded))
    }

    /// What is known of the instances of each application that was called: a table for people each, by application.
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

/// The answer to a call by name, under way. Dropping it drops the call.
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
