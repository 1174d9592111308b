use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use pin_project::pin_project;
use tower::{Layer, Service};

use super::lifecycle::Lifecycle;
use super::paths::Paths;
use crate::body::{BodyGuard, GuardedBody};

/// Layer that counts the server's requests for the [`Registrar`](super::Registrar). Created by
/// [`Registrar::layer`](super::Registrar::layer).
///
/// Make it the outermost layer, so that it sees each response. It counts a request until the end of
/// the response body, and sets `connection: close` on HTTP/1 responses while the server drains. It
/// costs two atomic additions per request.
///
/// A request that upgrades its connection, as for WebSocket, counts until the upgrade only.
/// Requests of probes do not prolong the drain; see
/// [`Registrar::uncounted_paths`](super::Registrar::uncounted_paths).
#[derive(Clone)]
pub struct RegistrationLayer {
    lifecycle: Arc<Lifecycle>,
    uncounted: Paths,
}

impl RegistrationLayer {
    pub(super) fn new(lifecycle: Arc<Lifecycle>, uncounted: Paths) -> Self {
        lifecycle.set_layered();
        Self { lifecycle, uncounted }
    }
}

impl<S> Layer<S> for RegistrationLayer {
    type Service = Registration<S>;

    fn layer(&self, inner: S) -> Registration<S> {
        Registration { inner, lifecycle: self.lifecycle.clone(), uncounted: self.uncounted.clone() }
    }
}

impl fmt::Debug for RegistrationLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationLayer").field("in_flight", &self.lifecycle.in_flight()).finish()
    }
}

/// Service that counts its requests. Created by [`RegistrationLayer`].
#[derive(Clone)]
pub struct Registration<S> {
    inner: S,
    lifecycle: Arc<Lifecycle>,
    uncounted: Paths,
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
    type Response = Response<GuardedBody<ResBody, InFlight>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let in_flight = InFlight::begin(&self.lifecycle, request.uri().path(), &self.uncounted);
        let closable = request.version() <= Version::HTTP_11;
        ResponseFuture { inner: self.inner.call(request), in_flight: Some(in_flight), closable }
    }
}

/// Response future of [`Registration`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    in_flight: Option<InFlight>,
    closable: bool,
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<GuardedBody<B, InFlight>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx));
        let in_flight = this.in_flight.take().expect("future is not polled after completion");
        Poll::Ready(response.map(|mut response| {
            let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if *this.closable && !upgrades && in_flight.lifecycle.is_draining() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|body| GuardedBody::new(body, in_flight))
        }))
    }
}

/// Guard that counts a request as in flight until it is dropped.
pub struct InFlight {
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
    ) -> impl Service<
        Request<()>,
        Response = Response<GuardedBody<Full<Bytes>, InFlight>>,
        Error = std::convert::Infallible,
    > + Clone {
        RegistrationLayer::new(lifecycle.clone(), Paths::default())
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
