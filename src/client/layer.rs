use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower::{BoxError, Layer, Service};

use super::ResponseFuture;
use super::address::{Address, AddressRule};
use super::call::CallFuture;
use super::failure::Failure;
use super::options::CallOptions;
use super::presence::{Membership, Presence};
use super::replay::AttemptBody;
use super::routes::{HasAddress, Routes, Target};
use crate::Eureka;
use crate::balance::{ResponseBody, Snapshot};
use crate::cache::RegistryCache;
use crate::error::{Error, Kind};

/// Puts calls by name above any HTTP service: it gets requests whose URI leads to an instance.
///
/// What [`HttpClient`](super::HttpClient) does with connections of its own, this does with those of the service below: names, choice
/// by load, ejection, further tries, deadlines. The service gets [`AttemptBody`]s, so that a request that was not sent can go to
/// another instance; it is cloned for every call, and clones should share their connections. While it is not ready a call waits, for
/// which no instance is blamed. Whether it failed before it sent
/// anything is read from its error: what hyper-util and the operating system say of connections is understood, and the rest by a
/// [classifier](CallOptions::classifier) that [knows its errors](crate::balance::ClassifyHttp::error).
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
/// let request = http::Request::get("http://orders/v1/42").body(Full::<Bytes>::default()).expect("a request");
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
    /// Finds instances by this client of the registry.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(eureka: &Eureka) -> Self {
        let (registry, ready_timeout) = eureka.call_registry();
        Self { registry, ready_timeout, options: CallOptions::default() }
    }

    /// How calls are made. What concerns connections (`http2`, `health_check`) is up to the service below; a secure port is called with `https`.
    #[must_use]
    pub fn options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Layer<S> for EurekaLayer {
    type Service = EurekaService<S>;

    fn layer(&self, inner: S) -> EurekaService<S> {
        // Whether it can speak TLS, only its user knows.
        let rule = AddressRule { can_tls: true, prefers_plain: true, ..AddressRule::of(&self.options) };
        let below = inner.clone();
        let make = move |presence: Arc<Presence>| InstanceService {
            inner: below.clone(),
            presence: presence.clone(),
            _membership: Some(Membership(presence)),
        };
        let routes = Routes::new(
            self.registry.clone(),
            self.options.clone(),
            rule,
            self.ready_timeout,
            Arc::new(make),
            None,
            None,
        );
        EurekaService { routes: Arc::new(routes), inner }
    }
}

/// Routes applications by name through another service. Made by [`EurekaLayer`].
///
/// Always ready, and cheap to clone if the service below is.
pub struct EurekaService<S> {
    routes: Arc<Routes<InstanceService<S>>>,
    inner: S,
}

impl<S: Clone + Send + Sync + 'static> EurekaService<S> {
    /// What is known of the instances of each application that was called: a table for people each, by application.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.routes.snapshots()
    }

    /// The service below.
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
        let deadline = self.routes.deadline(&request);
        if let Some(route) = self.routes.cached(&request).filter(|route| route.is_ready()) {
            return ResponseFuture(Box::pin(CallFuture::new(route, request, deadline)));
        }
        let Self { routes, inner } = self.clone();
        ResponseFuture(Box::pin(async move {
            match routes.target(&request)? {
                Target::Named(route) => CallFuture::when_ready(route, request, deadline).await,
                Target::PassThrough => deadline.enforce(pass_on(inner, request)).await,
            }
        }))
    }
}

async fn pass_on<S, B, RB>(service: S, request: Request<B>) -> Result<Response<ResponseBody<RB>>, Error>
where
    S: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>>,
    B: Body,
    RB: Body,
{
    let request = super::replay::ReplayRequest::new(request, 0).into_request();
    let response = tower::ServiceExt::oneshot(service, request).await;
    let response = response.map_err(|error| {
        Error::new(Kind::Call, "call").cause("the service that takes other hosts failed").with_source(error)
    })?;
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

/// A service whose requests are sent to one instance.
#[derive(Debug)]
pub(super) struct InstanceService<S> {
    inner: S,
    presence: Arc<Presence>,
    /// Held by the endpoint in the balancer. The clones for calls have none.
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

/// A request to one instance that ends when the instance is gone.
#[pin_project]
pub(super) struct InstanceFuture<F> {
    #[pin]
    response: F,
    /// Made once there is something to wait for.
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
