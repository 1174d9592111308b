use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use pin_project::pin_project;
use tower::util::{Oneshot, ServiceExt};
use tower::{Layer, Service};

use super::lifecycle::Lifecycle;
use super::pages::{Pages, RegistrationBody, Reply, refusal};
use super::paths::Paths;
use crate::body::BodyGuard;

/// Layer that counts the server's requests for the [`Registrar`](super::Registrar), and serves its
/// health and info pages. Created by [`Registrar::layer`](super::Registrar::layer).
///
/// Make it the outermost layer, so that it sees each path as it was requested, and each response.
/// It counts a request until the end of the response body, and sets `connection: close` on HTTP/1
/// responses while the server drains. It costs two atomic additions and a comparison of the path
/// per request.
///
/// A request that upgrades its connection, as for WebSocket, counts until the upgrade only. A
/// request that waits until the server is ready counts as well.
/// Requests of probes do not prolong the drain; see
/// [`Registrar::uncounted_paths`](super::Registrar::uncounted_paths).
///
/// # Pages
///
/// The layer responds to GET and HEAD requests as Spring Boot's actuator does, before the server
/// sees them:
///
/// | path | response |
/// |---|---|
/// | `/actuator/health` | 503 if a component is DOWN or OUT_OF_SERVICE, else 200, with the status of each as JSON |
/// | `/actuator/health/liveness` | 200 as long as the process responds |
/// | `/actuator/health/readiness` | 503 before the instance is ready, while a health check fails, and from the shutdown signal on, else 200 |
/// | `/actuator/health/COMPONENT` | the status of one component, 404 if there is none |
/// | `/actuator/info` | 200 with the JSON of [`info`](Self::info) |
/// | `/actuator` | 200 with links to these pages |
///
/// The components are the [health checks](super::Registrar::health), `livenessState`,
/// `readinessState`, and `eureka`, which is UNKNOWN while the registry is unreachable and has no
/// influence on the others.
///
/// Other methods are 405. The paths begin with the context path of the instance, if it has one. The
/// registered `healthCheckUrl` and `statusPageUrl` point at the pages, unless the instance has URLs
/// of its own. Requests for pages do not count as calls.
///
/// The pages have precedence over routes of the server at the same paths. A server with pages of
/// its own there switches them off with [`without_pages`](Self::without_pages). A path of the
/// instance that cannot be served as a page, such as `/` or one with a query, is left to the
/// server.
///
/// The pages do not wait for the server: they are served while a `ConcurrencyLimit` below the layer
/// is reached. For this, the server's service must be `Clone`, and [`Registration`] is always
/// ready. Calls wait in their futures instead. `LoadShed` therefore belongs below the layer, above
/// the limit.
///
/// The links of `/actuator` have the scheme in `x-forwarded-proto`, else that of the request or of
/// the requested port.
///
/// A tonic server accepts only HTTP/2, which Java's health checks do not use, unless
/// `accept_http1(true)` is set.
///
/// # Last phase
///
/// One second after the server was asked to stop accepting, a call that still arrives on a kept
/// connection is refused with 503 and `retry-after`, a gRPC call with `UNAVAILABLE`.
#[derive(Clone)]
pub struct RegistrationLayer {
    lifecycle: Arc<Lifecycle>,
    uncounted: Paths,
    pages: Pages,
}

impl RegistrationLayer {
    pub(super) fn new(lifecycle: Arc<Lifecycle>, uncounted: Paths, pages: Pages) -> Self {
        lifecycle.pages.add(&pages);
        if lifecycle.set_layered() {
            pages.log_left();
        }
        Self { lifecycle, uncounted, pages }
    }

    /// Sets the whole path of the health page. `None` switches it off. Defaults to the instance's
    /// [`health_check_path`](crate::model::InstanceBuilder::health_check_path), else to
    /// `/actuator/health`, each after its context path.
    ///
    /// # Panics
    /// If the path is empty, or has a query or a wildcard.
    #[must_use]
    pub fn health_path<'a>(self, path: impl Into<Option<&'a str>>) -> Self {
        let pages = self.pages.with_health(path.into());
        self.with_pages(pages)
    }

    /// Sets the whole path of the info page. `None` switches it off. Defaults to the instance's
    /// [`status_page_path`](crate::model::InstanceBuilder::status_page_path), else to
    /// `/actuator/info`, each after its context path.
    ///
    /// # Panics
    /// If the path is empty, or has a query or a wildcard.
    #[must_use]
    pub fn info_path<'a>(self, path: impl Into<Option<&'a str>>) -> Self {
        let pages = self.pages.with_info(path.into());
        self.with_pages(pages)
    }

    /// Switches the pages off, for a server that has its own ones. Their URLs are then registered
    /// only if the instance has them.
    #[must_use]
    pub fn without_pages(self) -> Self {
        let pages = self.pages.without_any();
        self.with_pages(pages)
    }

    /// Sets the content of the info page. Defaults to `{}`.
    #[must_use]
    pub fn info(self, info: serde_json::Value) -> Self {
        let pages = self.pages.with_info_json(&info);
        self.with_pages(pages)
    }

    /// Sets whether the health page shows the reasons that health checks give. Defaults to `false`,
    /// since they may name internal hosts.
    #[must_use]
    pub fn show_details(self, show: bool) -> Self {
        let pages = self.pages.with_details(show);
        self.with_pages(pages)
    }

    fn with_pages(mut self, pages: Pages) -> Self {
        self.lifecycle.pages.replace(&self.pages, &pages);
        self.pages = pages;
        self
    }
}

impl<S> Layer<S> for RegistrationLayer {
    type Service = Registration<S>;

    fn layer(&self, inner: S) -> Registration<S> {
        Registration { inner, is_ready: false, layer: Arc::new(self.clone()) }
    }
}

impl fmt::Debug for RegistrationLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationLayer")
            .field("in_flight", &self.lifecycle.in_flight())
            .field("health_path", &self.pages.health_path())
            .field("info_path", &self.pages.info_path())
            .finish()
    }
}

/// Service that counts its requests and serves the pages. Created by [`RegistrationLayer`].
///
/// It is always ready, so that the pages are served while the inner service is overloaded. The
/// future of a call waits until the inner service is ready for it.
pub struct Registration<S> {
    inner: S,
    /// True if `inner` was ready when it was last polled, and was not called since.
    is_ready: bool,
    /// Shared by all clones, since some servers clone the service for each request.
    layer: Arc<RegistrationLayer>,
}

impl<S: Clone> Clone for Registration<S> {
    fn clone(&self) -> Self {
        // A clone has to become ready by itself.
        Self { inner: self.inner.clone(), is_ready: false, layer: self.layer.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for Registration<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("inner", &self.inner).finish()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Registration<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: Body,
{
    type Response = Response<RegistrationBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, Request<ReqBody>>;

    /// Is ready unless the inner service has failed.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.is_ready = match self.inner.poll_ready(cx) {
            Poll::Ready(ready) => ready.map(|()| true)?,
            Poll::Pending => false,
        };
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let RegistrationLayer { lifecycle, uncounted, pages } = &*self.layer;
        let closable = request.version() <= Version::HTTP_11;
        let refused = || lifecycle.stopping.refuses().then(|| refusal(request.headers()));
        if let Some(mut reply) = pages.reply(&request, lifecycle).or_else(refused) {
            close_if_draining(&mut reply, closable, lifecycle);
            return ResponseFuture(State::Own(Some(reply)));
        }
        let in_flight = InFlight::begin(lifecycle, request.uri().path(), uncounted);
        let inner = if std::mem::take(&mut self.is_ready) {
            Call::Ready(self.inner.call(request))
        } else {
            // The service that was polled keeps its place in a queue.
            let clone = self.inner.clone();
            Call::Waiting(Box::pin(std::mem::replace(&mut self.inner, clone).oneshot(request)))
        };
        ResponseFuture(State::Inner { inner, in_flight: Some(in_flight), closable })
    }
}

/// Asks the client of an HTTP/1 connection to use another one.
fn close_if_draining<B>(response: &mut Response<B>, closable: bool, lifecycle: &Lifecycle) {
    let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if closable && !upgrades && lifecycle.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Response future of [`Registration`].
#[pin_project]
pub struct ResponseFuture<S: Service<R>, R>(#[pin] State<S, R>);

#[pin_project(project = StateProjection)]
enum State<S: Service<R>, R> {
    Inner {
        #[pin]
        inner: Call<S, R>,
        in_flight: Option<InFlight>,
        closable: bool,
    },
    /// Response of the layer itself.
    Own(Option<Reply>),
}

/// Call of the inner service.
#[pin_project(project = CallProjection)]
enum Call<S: Service<R>, R> {
    Ready(#[pin] S::Future),
    /// Waits until the service is ready. Overload is rare, and the box keeps other calls small.
    Waiting(Pin<Box<Oneshot<S, R>>>),
}

impl<S: Service<R>, R> Future for Call<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            CallProjection::Ready(call) => call.poll(cx),
            CallProjection::Waiting(call) => call.as_mut().poll(cx),
        }
    }
}

impl<S, R, B> Future for ResponseFuture<S, R>
where
    S: Service<R, Response = Response<B>>,
    B: Body,
{
    type Output = Result<Response<RegistrationBody<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const POLLED_AGAIN: &str = "future is not polled after completion";
        match self.project().0.project() {
            StateProjection::Inner { inner, in_flight, closable } => {
                let response = ready!(inner.poll(cx));
                let in_flight = in_flight.take().expect(POLLED_AGAIN);
                Poll::Ready(response.map(|mut response| {
                    close_if_draining(&mut response, *closable, &in_flight.lifecycle);
                    response.map(|body| RegistrationBody::server(body, in_flight))
                }))
            }
            StateProjection::Own(reply) => {
                Poll::Ready(Ok(reply.take().expect(POLLED_AGAIN).map(RegistrationBody::page)))
            }
        }
    }
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ResponseFuture");
        match &self.0 {
            State::Inner { inner, .. } => debug.field("is_waiting", &matches!(inner, Call::Waiting(_))),
            State::Own(reply) => debug.field("reply", reply),
        };
        debug.finish_non_exhaustive()
    }
}

/// Guard that counts a request as in flight until it is dropped.
pub(super) struct InFlight {
    lifecycle: Arc<Lifecycle>,
}

impl InFlight {
    fn begin(lifecycle: &Arc<Lifecycle>, path: &str, uncounted: &Paths) -> Self {
        lifecycle.begin(path, uncounted);
        Self { lifecycle: lifecycle.clone() }
    }
}

impl BodyGuard for InFlight {}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.lifecycle.finish();
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tokio::time::{Instant, sleep, timeout};
    use tower::limit::ConcurrencyLimit;
    use tower::service_fn;

    use super::*;

    fn layered(
        lifecycle: &Arc<Lifecycle>,
    ) -> impl Service<Request<()>, Response = Response<RegistrationBody<Full<Bytes>>>, Error = std::convert::Infallible>
    + Clone {
        RegistrationLayer::new(lifecycle.clone(), Paths::default(), Pages::default())
            .layer(service_fn(|_| async { Ok(Response::new(Full::new(Bytes::from("hello")))) }))
    }

    #[tokio::test]
    async fn request_counts_until_its_body_has_ended() {
        let lifecycle = Arc::<Lifecycle>::default();
        let service = layered(&lifecycle);
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        assert_eq!(lifecycle.in_flight(), 1);
        response.into_body().collect().await.unwrap();
        assert_eq!(lifecycle.in_flight(), 0);

        let abandoned = service.clone().oneshot(Request::new(())).await.unwrap();
        drop(abandoned);
        drop(service.oneshot(Request::new(())));
        assert_eq!(lifecycle.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn pages_are_served_while_the_server_is_overloaded() {
        let lifecycle = Arc::<Lifecycle>::default();
        let slow = service_fn(|_: Request<()>| async {
            sleep(Duration::from_secs(10)).await;
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello"))))
        });
        let layer = RegistrationLayer::new(lifecycle.clone(), Paths::default(), Pages::default());
        let mut service = layer.layer(ConcurrencyLimit::new(slow, 1));
        let mut calls = tokio::task::JoinSet::new();
        for path in ["/orders", "/orders", "/orders", "/actuator/health/liveness"] {
            let ready = timeout(Duration::from_secs(1), service.ready()).await.expect("the service is always ready");
            let response = ready.unwrap().call(Request::get(path).body(()).unwrap());
            calls.spawn(async move { (path, response.await.unwrap().status(), Instant::now()) });
        }
        assert_eq!(lifecycle.in_flight(), 3, "calls that wait are counted");
        let start = Instant::now();
        let mut ended = Vec::new();
        while let Some(call) = calls.join_next().await {
            let (path, status, at) = call.unwrap();
            ended.push((path, status.as_u16(), (at - start).as_secs()));
        }
        let call = |after| ("/orders", 200, after);
        assert_eq!(ended, [("/actuator/health/liveness", 200, 0), call(10), call(20), call(30)]);
        assert_eq!(lifecycle.in_flight(), 0);
    }

    #[tokio::test]
    async fn connection_close_is_set_on_http_1_while_draining_only() {
        let lifecycle = Arc::<Lifecycle>::default();
        let service = layered(&lifecycle);
        let closes = async |version| {
            let request = Request::builder().version(version).body(()).unwrap();
            service.clone().oneshot(request).await.unwrap().headers().contains_key(header::CONNECTION)
        };
        assert!(!closes(Version::HTTP_11).await);
        lifecycle.set_draining(true);
        assert!(closes(Version::HTTP_10).await && closes(Version::HTTP_11).await);
        assert!(!closes(Version::HTTP_2).await);
    }
}
