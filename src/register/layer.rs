use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use pin_project::pin_project;
use tower::{Layer, Service};

use super::lifecycle::Lifecycle;
use super::pages::{Pages, RegistrationBody, Reply, Slot, refusal};
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
/// A request that upgrades its connection, as for WebSocket, counts until the upgrade only.
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
/// its own there switches them off with [`without_pages`](Self::without_pages).
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
    slot: Slot,
}

impl RegistrationLayer {
    pub(super) fn new(lifecycle: Arc<Lifecycle>, uncounted: Paths, pages: Pages) -> Self {
        lifecycle.set_layered();
        let slot = lifecycle.pages.add(pages.clone());
        Self { lifecycle, uncounted, pages, slot }
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
        self.lifecycle.pages.replace(self.slot, pages.clone());
        self.pages = pages;
        self
    }
}

impl<S> Layer<S> for RegistrationLayer {
    type Service = Registration<S>;

    fn layer(&self, inner: S) -> Registration<S> {
        let (lifecycle, uncounted, pages) = (self.lifecycle.clone(), self.uncounted.clone(), self.pages.clone());
        Registration { inner, lifecycle, uncounted, pages }
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
#[derive(Clone)]
pub struct Registration<S> {
    inner: S,
    lifecycle: Arc<Lifecycle>,
    uncounted: Paths,
    pages: Pages,
}

impl<S: fmt::Debug> fmt::Debug for Registration<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("inner", &self.inner).finish()
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Registration<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<RegistrationBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let closable = request.version() <= Version::HTTP_11;
        let refused = || self.lifecycle.stopping.refuses().then(|| refusal(request.headers()));
        if let Some(mut reply) = self.pages.reply(&request, &self.lifecycle).or_else(refused) {
            close_if_draining(&mut reply, closable, &self.lifecycle);
            return ResponseFuture(State::Own(Some(reply)));
        }
        let in_flight = InFlight::begin(&self.lifecycle, request.uri().path(), &self.uncounted);
        let inner = self.inner.call(request);
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
pub struct ResponseFuture<F>(#[pin] State<F>);

#[pin_project(project = StateProjection)]
enum State<F> {
    Inner {
        #[pin]
        inner: F,
        in_flight: Option<InFlight>,
        closable: bool,
    },
    /// Response of the layer itself.
    Own(Option<Reply>),
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<RegistrationBody<B>>, E>;

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

impl<F: fmt::Debug> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Inner { inner, .. } => f.debug_tuple("ResponseFuture").field(inner).finish(),
            State::Own(reply) => f.debug_tuple("ResponseFuture").field(reply).finish(),
        }
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
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tower::{ServiceExt, service_fn};

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
