use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

use super::ResponseFuture;
use super::address::{Address, AddressRule, HasAddress};
use super::call::CallFuture;
use super::failure::Failure;
use super::options::CallOptions;
use super::presence::{Membership, Presence};
use super::replay::AttemptBody;
use super::routes::{Routes, Target};
use crate::Eureka;
use crate::balance::{ResponseBody, Snapshot};
use crate::cache::RegistryCache;
use crate::error::{Error, Kind};

/// Layer that adds calls by name to any HTTP service.
///
/// The service below gets requests whose URI is the address of an instance. Everything else is as
/// with [`HttpClient`](super::HttpClient): names, choice by load, ejection, retries and deadlines.
///
/// Requests have [`AttemptBody`] as their body, so that a request can be sent to another instance.
/// The service is cloned for every call, and clones should share their connections. While it is not
/// ready the call waits, which says nothing about an instance.
///
/// Its errors show whether anything was sent. Those of hyper-util and of the operating system are
/// understood. For others, set a [classifier](CallOptions::classifier) that
/// [knows them](crate::balance::ClassifyHttp::error).
///
/// ```no_run
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_eureka::client::{AttemptBody, EurekaLayer};
///
/// # async fn example() -> Result<(), tower_eureka::Error> {
/// let eureka = tower_eureka::Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
/// let mine = Client::builder(TokioExecutor::new()).build_http::<AttemptBody<Full<Bytes>>>();
/// let client = ServiceBuilder::new().layer(EurekaLayer::new(&eureka)).service(mine);
///
/// let request = http::Request::get("http://orders/v1/42")
///     .body(Full::<Bytes>::default())
///     .expect("valid request");
/// println!("{}", client.oneshot(request).await?.status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct EurekaLayer {
    registry: Arc<RegistryCache>,
    ready_timeout: Duration,
    options: CallOptions,
}

impl EurekaLayer {
    /// Creates a layer that finds instances through this client of the registry, with the default
    /// [`CallOptions`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(eureka: &Eureka) -> Self {
        let (registry, ready_timeout) = eureka.call_registry();
        Self { registry, ready_timeout, options: eureka.call_options() }
    }

    /// Sets the options of the calls.
    ///
    /// Options of connections (`http2`, `http2_connections`, `health_check`) have no effect, since
    /// the service below has the connections. Secure ports are called with `https`.
    #[must_use]
    pub fn options(mut self, options: CallOptions) -> Self {
        self.options = options.or_own_zone_of(&self.options);
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Layer<S> for EurekaLayer {
    type Service = EurekaService<S>;

    fn layer(&self, inner: S) -> EurekaService<S> {
        let below = inner.clone();
        let make = move |presence: Arc<Presence>, _: &CallOptions| InstanceService {
            inner: below.clone(),
            presence: presence.clone(),
            _membership: Some(Membership(presence)),
        };
        let routes = Routes::new(
            self.registry.clone(),
            self.options.clone(),
            AddressRule::of_layer,
            self.ready_timeout,
            Arc::new(make),
        );
        EurekaService { routes: Arc::new(routes), inner }
    }
}

/// Service that calls applications by name through another service. Created by [`EurekaLayer`].
///
/// It is always ready, and cheap to clone if the service below is.
pub struct EurekaService<S> {
    pub(super) routes: Arc<Routes<InstanceService<S>>>,
    inner: S,
}

impl<S: Clone + Send + Sync + 'static> EurekaService<S> {
    /// Returns a snapshot of the instances of each application that was called.
    ///
    /// Each snapshot displays as a table.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.routes.snapshots()
    }

    /// Returns the service below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for EurekaService<S>
where
    S: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    RB: Body + Send + 'static,
{
    type Response = Response<ResponseBody<RB>>;
    type Error = Error;
    type Future = ResponseFuture<Response<ResponseBody<RB>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if let Some(route) = self.routes.cached(&request).filter(|route| route.is_ready()) {
            let deadline = route.deadline(&request);
            return ResponseFuture(Box::pin(CallFuture::new(route, request, deadline)));
        }
        let Self { routes, inner } = self.clone();
        let since = Instant::now();
        ResponseFuture(Box::pin(async move {
            match routes.target(&request)? {
                Target::Named(route) => {
                    let deadline = route.deadline_since(&request, since);
                    CallFuture::when_ready(route, request, deadline).await
                }
                Target::PassThrough => {
                    let deadline = routes.options().deadline(&request, || since);
                    deadline.enforce(send_directly(inner, request)).await
                }
            }
        }))
    }
}

async fn send_directly<S, B, RB>(service: S, request: Request<B>) -> Result<Response<ResponseBody<RB>>, Error>
where
    S: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>>,
    B: Body,
    RB: Body,
{
    let request = super::replay::ReplayRequest::new(request, 0).into_request();
    let response = tower::ServiceExt::oneshot(service, request).await;
    let response = response
        .map_err(|error| Error::new(Kind::Call, "call").cause("the service below failed").with_source(error))?;
    Ok(response.map(ResponseBody::unguarded))
}

impl<S: Clone> Clone for EurekaService<S> {
    fn clone(&self) -> Self {
        Self { routes: self.routes.clone(), inner: self.inner.clone() }
    }
}

impl<S> fmt::Debug for EurekaService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaService").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// Endpoint service of one instance: the user's service, with the presence of the instance.
#[derive(Debug)]
pub(super) struct InstanceService<S> {
    inner: S,
    presence: Arc<Presence>,
    /// Held by the endpoint in the balancer. Clones for calls have none.
    _membership: Option<Membership>,
}

impl<S: Clone> Clone for InstanceService<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), presence: self.presence.clone(), _membership: None }
    }
}

impl<S, B> Service<Request<B>> for InstanceService<S>
where
    S: Service<Request<B>, Error: Into<BoxError>>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = InstanceFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> InstanceFuture<S::Future> {
        InstanceFuture { response: self.inner.call(request), gone: None, presence: self.presence.clone() }
    }
}

/// Response future of an [`InstanceService`]. Fails once the instance has left the registry.
#[pin_project]
pub(super) struct InstanceFuture<F> {
    #[pin]
    response: F,
    /// Made at the first poll that is pending.
    gone: Option<Pin<Box<dyn Future<Output = Failure> + Send>>>,
    presence: Arc<Presence>,
}

impl<F, R, E> Future for InstanceFuture<F>
where
    F: Future<Output = Result<R, E>>,
    E: Into<BoxError>,
{
    type Output = Result<R, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.response.poll(cx) {
            return Poll::Ready(result.map_err(Into::into));
        }
        let gone = this.gone.get_or_insert_with(|| {
            let presence = this.presence.clone();
            Box::pin(async move { presence.gone().await })
        });
        let error = ready!(gone.as_mut().poll(cx)).into_error();
        let instance = &this.presence.instance;
        Poll::Ready(Err(error.app(instance.app()).instance(instance.id()).into()))
    }
}

impl<S> HasAddress for InstanceService<S> {
    const IS_SHARED: bool = true;

    fn address(&self) -> &Address {
        &self.presence.address
    }
}
