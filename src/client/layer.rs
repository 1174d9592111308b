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
use super::address::{AddressRule, HasAddress};
use super::call::CallFuture;
use super::choose::{Chosen, RequestHead};
use super::clients::Clients;
use super::failure::Failure;
use super::fallback::{Condition, Fallback, call_or_fall_back};
use super::options::CallOptions;
use super::presence::{Membership, Presence};
use super::replay::AttemptBody;
use super::routes::{Routes, Target};
use super::upgrade;
use crate::Eureka;
use crate::balance::{ResponseBody, Snapshot};
use crate::cache::RegistryCache;
use crate::error::{Error, Kind};

/// Layer that adds calls by name to any HTTP service.
///
/// The service below gets requests whose URI is the address of an instance, with the
/// [`PickedInstance`](super::PickedInstance) as an extension. Everything else is as with
/// [`HttpClient`](super::HttpClient): names, choice by load, ejection, retries, deadlines,
/// fallback, and the extension of responses.
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
#[derive(Clone)]
pub struct EurekaLayer<F = ()> {
    registry: Arc<RegistryCache>,
    ready_timeout: Duration,
    options: CallOptions,
    /// The type `()` is none.
    fallback: F,
    /// Errors for which the fallback is called.
    condition: Option<Condition>,
    /// List to which the services are added.
    clients: Arc<Clients>,
}

impl EurekaLayer {
    /// Creates a layer that finds instances through this client of the registry, with the default
    /// [`CallOptions`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(eureka: &Eureka) -> Self {
        let (registry, ready_timeout) = eureka.call_registry();
        let (options, clients) = (eureka.call_options(), eureka.clients());
        Self { registry, ready_timeout, options, fallback: (), condition: None, clients }
    }
}

impl<F> EurekaLayer<F> {
    /// Sets a service that handles failed calls, as
    /// [`HttpClient::fallback`](super::HttpClient::fallback) does. Its response body is that of the
    /// service below.
    #[must_use]
    pub fn fallback<S>(self, service: S) -> EurekaLayer<Fallback<S>> {
        let Self { registry, ready_timeout, options, condition, clients, .. } = self;
        let fallback = Fallback::new(service);
        EurekaLayer { registry, ready_timeout, options, fallback, condition, clients }
    }

    /// Sets the errors for which the [fallback](Self::fallback) is called, as
    /// [`HttpClient::fallback_on`](super::HttpClient::fallback_on) does. Defaults to
    /// calls to applications without an instance.
    #[must_use]
    pub fn fallback_on(mut self, condition: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// Sets the options of the calls.
    ///
    /// Options of connections (`http2`, `http2_connections`, `health_check`, `tls_server_name` and
    /// others that say so) have no effect, since the service below has the connections. Secure
    /// ports are called with `https`.
    #[must_use]
    pub fn options(mut self, options: CallOptions) -> Self {
        self.options = options.or_own_zone_of(&self.options);
        self
    }

    fn routes<S: Clone + Send + Sync + 'static>(&self, inner: &S) -> Arc<Routes<InstanceService<S>>> {
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
        let routes = Arc::new(routes);
        self.clients.add(routes.clone());
        routes
    }
}

impl<S: Clone + Send + Sync + 'static> Layer<S> for EurekaLayer {
    type Service = EurekaService<S>;

    fn layer(&self, inner: S) -> EurekaService<S> {
        EurekaService { routes: self.routes(&inner), inner, fallback: None, condition: self.condition.clone() }
    }
}

impl<S: Clone + Send + Sync + 'static, F: Clone> Layer<S> for EurekaLayer<Fallback<F>> {
    type Service = EurekaService<S, F>;

    fn layer(&self, inner: S) -> EurekaService<S, F> {
        let (fallback, condition) = (Some(self.fallback.clone()), self.condition.clone());
        EurekaService { routes: self.routes(&inner), inner, fallback, condition }
    }
}

impl<F> fmt::Debug for EurekaLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EurekaLayer").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Service that calls applications by name through another service. Created by [`EurekaLayer`].
///
/// It is always ready, and cheap to clone if the service below is. `F` is the
/// [fallback](EurekaLayer::fallback), if the layer has one.
pub struct EurekaService<S, F = S> {
    pub(super) routes: Arc<Routes<InstanceService<S>>>,
    inner: S,
    fallback: Option<Fallback<F>>,
    /// Errors for which the fallback is called.
    condition: Option<Condition>,
}

impl<S: Clone + Send + Sync + 'static, F> EurekaService<S, F> {
    /// Replaces the fallback.
    #[cfg(feature = "reqwest")]
    pub(crate) fn with_fallback<G>(self, fallback: Option<Fallback<G>>) -> EurekaService<S, G> {
        let Self { routes, inner, condition, .. } = self;
        EurekaService { routes, inner, fallback, condition }
    }

    /// Sets the errors for which the fallback is called.
    #[cfg(feature = "reqwest")]
    pub(crate) fn with_condition(self, condition: Condition) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// Chooses an instance of an application as [`Eureka::choose`] does, with the options,
    /// instances and measurements of this service.
    pub fn choose(&self, name: impl AsRef<str>, request: &impl RequestHead) -> ResponseFuture<Chosen> {
        self.routes.clone().choose(name.as_ref(), request)
    }

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

impl<S, F, B, RB> Service<Request<B>> for EurekaService<S, F>
where
    S: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    F: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>, Future: Send>
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
        if self.fallback.is_none()
            && let Some(route) = self.routes.cached(&request).filter(|route| route.is_ready())
        {
            let deadline = route.deadline(&request);
            return ResponseFuture(Box::pin(CallFuture::new(route, request, deadline)));
        }
        let Self { routes, inner, fallback, condition } = self.clone();
        let since = Instant::now();
        ResponseFuture(Box::pin(async move {
            let route = match routes.target(&request)? {
                Target::Named(route) => route,
                Target::PassThrough => {
                    let deadline = routes.options().deadline(&request, || since);
                    return deadline.enforce(send_directly(inner, request)).await;
                }
            };
            let deadline = route.deadline_since(&request, since);
            match &fallback {
                None => CallFuture::when_ready(route, request, deadline).await,
                Some(fallback) => call_or_fall_back(route, request, deadline, fallback, condition.as_ref()).await,
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
    let request = super::replay::ReplayRequest::new(upgrade::with_http_scheme(request), 0).into_request();
    let response = tower::ServiceExt::oneshot(service, request).await;
    let response = response
        .map_err(|error| Error::new(Kind::Call, "call").cause("the service below failed").with_source(error))?;
    Ok(response.map(ResponseBody::unguarded))
}

impl<S: Clone, F: Clone> Clone for EurekaService<S, F> {
    fn clone(&self) -> Self {
        let Self { routes, inner, fallback, condition } = self;
        Self { routes: routes.clone(), inner: inner.clone(), fallback: fallback.clone(), condition: condition.clone() }
    }
}

impl<S, F> fmt::Debug for EurekaService<S, F> {
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

    fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }
}
