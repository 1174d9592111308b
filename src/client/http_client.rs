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
use tower::{BoxError, Service};

use super::call::CallFuture;
use super::choose::{Chosen, RequestHead};
use super::clients::Client;
use super::connection::{DirectClient, Endpoint, InstanceTransport};
use super::fallback::{self, BoxFallback, Condition, call_or_fall_back};
use super::options::CallOptions;
use super::replay::AttemptBody;
use super::routes::{Routes, Target};
use super::upgrade::{self, Upgraded};
use super::{InstanceBody, ResponseBody};
use crate::balance::Snapshot;
use crate::cache::RegistryCache;
use crate::error::Error;

/// HTTP client that calls applications by name: `http://orders/v1/42`.
///
/// Created by [`Eureka::http_client`](crate::Eureka::http_client). Use [`request`](Self::request),
/// or the client as a [`Service`].
///
/// The host of the URI is the name, in any case: a VIP address if an UP instance has it, else an
/// application. A port in the URI is ignored, path and query are kept. `lb://orders` and
/// `ws://orders` are the same as `http://orders`. With `https://orders` or `wss://orders`, only
/// instances with a secure port are called, over TLS (feature `tls`). Each request is sent to an UP
/// instance chosen by load, over HTTP/1.1, or over HTTP/2 if that is the request's version. The
/// [`PickedInstance`](super::PickedInstance) in the extensions of the response is that instance.
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
    fallback: Option<BoxFallback<B, InstanceBody>>,
    /// Errors for which the fallback is called.
    condition: Option<Condition>,
}

impl<B> HttpClient<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) fn new(
        registry: Arc<RegistryCache>,
        options: CallOptions,
        ready_timeout: Duration,
        transport: InstanceTransport,
    ) -> Self {
        let direct = DirectClient::new(&transport, options.prefer_ipv6);
        Self {
            routes: Arc::new(Routes::with_connections(registry, options, ready_timeout, transport)),
            direct,
            fallback: None,
            condition: None,
        }
    }

    /// Sets a service that handles failed calls, such as a cache or another site. It is called for
    /// calls to applications without an instance: once the ready timeout or the call's deadline has
    /// passed, and at once while calls fail fast. [`fallback_on`](Self::fallback_on) sets other
    /// conditions.
    ///
    /// The error of a failed fallback is the source of the call's error.
    ///
    /// The service receives the caller's request, with its body wrapped in [`AttemptBody`]. Bodies
    /// are kept up to the [`replay_limit`](super::RetryPolicy::replay_limit). A call whose body was
    /// sent and not kept returns its error. The fallback has the rest of the call's deadline for
    /// its response, and at least one second. It is not called for an invalid name, nor for hosts
    /// that are not applications.
    ///
    /// ```no_run
    /// use std::convert::Infallible;
    ///
    /// use bytes::Bytes;
    /// use http::{Request, Response};
    /// use http_body_util::Full;
    /// use tower_eureka::client::{AttemptBody, HttpClient};
    ///
    /// # fn example(eureka: &tower_eureka::Eureka) {
    /// let client: HttpClient<Full<Bytes>> = eureka.http_client();
    /// let client = client
    ///     .fallback(tower::service_fn(async |_: Request<AttemptBody<_>>| {
    ///         Ok::<_, Infallible>(Response::new(Full::from("[]")))
    ///     }))
    ///     .fallback_on(|error| error.is_unavailable());
    /// # let _ = client;
    /// # }
    /// ```
    #[must_use]
    pub fn fallback<F, FB>(mut self, fallback: F) -> Self
    where
        F: Service<Request<AttemptBody<B>>, Response = Response<FB>> + Clone + Send + Sync + 'static,
        F::Future: Send + 'static,
        F::Error: Into<BoxError>,
        FB: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.fallback = Some(fallback::boxed(fallback));
        self
    }

    /// Sets the errors for which the [fallback](Self::fallback) is called. Defaults to
    /// calls to applications without an instance.
    ///
    /// Such a call fails with [`Error::is_no_endpoints`], or with [`Error::is_timeout`] if its
    /// deadline was earlier than the ready timeout. [`Error::is_unavailable`] adds calls for which
    /// no instance could be reached or responded in time. A call that may have reached an instance
    /// has perhaps been processed there.
    #[must_use]
    pub fn fallback_on(mut self, condition: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
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
            Some(route) if self.fallback.is_none() && route.is_ready() => {
                let deadline = route.deadline(&request);
                ResponseFuture(Box::pin(CallFuture::new(route, request, deadline)))
            }
            _ => ResponseFuture(Box::pin(self.clone().find_and_send(request, Instant::now()))),
        }
    }

    /// Slow path of [`request`](Self::request): first calls, applications without an instance,
    /// calls with a fallback, and other hosts. The deadline counts from `since`.
    async fn find_and_send(self, request: Request<B>, since: Instant) -> Result<Response<ResponseBody>, Error> {
        let route = match self.routes.target(&request)? {
            Target::Named(route) => route,
            Target::PassThrough => {
                let deadline = self.routes.options().deadline(&request, || since);
                return deadline.enforce(self.direct.send(upgrade::with_http_scheme(request))).await;
            }
        };
        let deadline = route.deadline_since(&request, since);
        match &self.fallback {
            None => CallFuture::when_ready(route, request, deadline).await,
            Some(fallback) => call_or_fall_back(route, request, deadline, fallback, self.condition.as_ref()).await,
        }
    }

    /// Sends a request that switches the connection to another protocol, such as a WebSocket, and
    /// returns the connection: `ws://orders/chat`.
    ///
    /// The request is sent over HTTP/1.1, whatever [`Http2`](super::Http2) says. It needs the
    /// headers of its protocol, with `connection` and `upgrade`; libraries for WebSockets build
    /// such requests. [`parse_uri`](super::parse_uri) reads URIs of the form `lb:ws://orders/chat`.
    ///
    /// [`request`](Self::request) sends such requests as well. Its response has the status 101, and
    /// `hyper::upgrade::on` returns the connection. Only the [`Upgraded`] of this method counts as
    /// pending while it is open; otherwise the call is pending until the response body is dropped.
    ///
    /// # Errors
    /// As for [`request`](Self::request), and if the response has another status than 101, which is
    /// the [`status`](Error::status) of the error, or if the request asks for no upgrade.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    ///
    /// ```no_run
    /// use bytes::Bytes;
    /// use http_body_util::Empty;
    /// use tokio_tungstenite::WebSocketStream;
    /// use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    /// use tokio_tungstenite::tungstenite::protocol::Role;
    ///
    /// # async fn example(eureka: &tower_eureka::Eureka) -> Result<(), Box<dyn std::error::Error>> {
    /// let client = eureka.http_client::<Empty<Bytes>>();
    /// let request = "ws://orders/chat".into_client_request()?.map(|()| Empty::new());
    /// let connection = client.upgrade(request).await?;
    /// let socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
    /// # let _ = socket;
    /// # Ok(())
    /// # }
    /// ```
    pub fn upgrade(&self, request: Request<B>) -> ResponseFuture<Upgraded> {
        let name = Box::<str>::from(request.uri().host().unwrap_or_default());
        let response = upgrade::check(&request).map(|()| self.request(request));
        ResponseFuture(Box::pin(async move { upgrade::finish(&name, response?.await?).await }))
    }

    /// Chooses an instance of an application as [`Eureka::choose`](crate::Eureka::choose) does,
    /// with the options, instances and measurements of this client.
    pub fn choose(&self, name: impl AsRef<str>, request: &impl RequestHead) -> ResponseFuture<Chosen> {
        self.routes.clone().choose(name.as_ref(), request)
    }

    /// Returns the routes, for the list of the clients.
    pub(crate) fn as_client(&self) -> Arc<dyn Client> {
        self.routes.clone()
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
        let Self { routes, direct, fallback, condition } = self;
        Self {
            routes: routes.clone(),
            direct: direct.clone(),
            fallback: fallback.clone(),
            condition: condition.clone(),
        }
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
