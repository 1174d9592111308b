//! The registry as a plain service, with a short way for what comes most often.
//!
//! Nearly all requests to a registry are heartbeats and fetches. Their paths are plain to see, so they reach their handlers without the
//! router's matching and the extensions by which it hands over what it matched. Everything else goes through the router.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::{Method, Request};
use tower::Service;

use super::answer::Listing;
use super::open::Open;
use super::path::{App, Target};
use super::{applications, instances};
use crate::model::app_name;
use crate::server::EurekaServer;

/// The registry's HTTP face as a service, for a server that serves nothing else. Made by [`EurekaServer::service`].
///
/// Always ready, never fails, cheap to clone.
#[derive(Clone, Debug)]
pub struct EurekaService {
    server: EurekaServer,
    router: Router,
    mount: Arc<str>,
}

impl EurekaService {
    pub(in crate::server) fn new(server: EurekaServer, mount: &str) -> Self {
        let router = super::router(server.clone(), mount);
        Self { server, router, mount: mount.into() }
    }
}

impl Service<Request<Body>> for EurekaService {
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        if let Some(short) = Short::of(request.method(), request.uri().path(), &self.mount) {
            let answer = short.answer(self.server.clone(), request);
            return ResponseFuture(Box::pin(async { Ok(answer.await) }));
        }
        // A router is always ready.
        ResponseFuture(Box::pin(self.router.call(request)))
    }
}

/// A request that needs neither decoding nor a router to be understood.
enum Short {
    All,
    Delta,
    One(App),
    Heartbeat(Target),
}

impl Short {
    fn of(method: &Method, path: &str, mount: &str) -> Option<Self> {
        let path = path.strip_prefix(mount)?;
        let path = path.strip_prefix("/v2").unwrap_or(path);
        let path = path.strip_prefix("//apps").or_else(|| path.strip_prefix("/apps"))?;
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '%']);
        if *method == Method::PUT {
            let (app, id) = path.strip_prefix('/')?.split_once('/')?;
            return (plain(app) && plain(id)).then(|| Self::Heartbeat(Target { app: app_name(app), id: id.into() }));
        }
        match path {
            _ if *method != Method::GET => None,
            "" | "/" => Some(Self::All),
            "/delta" => Some(Self::Delta),
            _ => path.strip_prefix('/').filter(|app| plain(app)).map(|app| Self::One(App(app_name(app)))),
        }
    }

    async fn answer(self, server: EurekaServer, request: Request<Body>) -> Response {
        let server = State(server);
        if let Self::Heartbeat(target) = self {
            return instances::heartbeat(server, target, request).await;
        }
        let (mut parts, _) = request.into_parts();
        let open = match Open::from_request_parts(&mut parts, &server.0).await {
            Ok(open) => open,
            Err(refusal) => return refusal.into_response(),
        };
        let listing = match Listing::from_request_parts(&mut parts, &()).await {
            Ok(listing) => listing,
            Err(refusal) => return refusal,
        };
        match self {
            Self::Delta => applications::delta(server, open, listing).await,
            Self::One(app) => applications::one(server, open, listing, app).await,
            Self::All | Self::Heartbeat(_) => applications::all(server, open, listing).await,
        }
    }
}

/// The answer to come of an [`EurekaService`].
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_LENGTH;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::model::Instance;

    #[test]
    fn plain_paths_take_the_short_way() {
        for (method, path, expected) in [
            (Method::PUT, "/eureka/apps/orders/h:orders:1", "heartbeat ORDERS h:orders:1"),
            (Method::PUT, "/eureka//apps/orders/i", "heartbeat ORDERS i"),
            (Method::PUT, "/eureka/v2/apps/orders/i", "heartbeat ORDERS i"),
            (Method::PUT, "/eureka/v2//apps/orders/i", "heartbeat ORDERS i"),
            (Method::PUT, "/eureka/apps/orders/i/", "routed"),
            (Method::PUT, "/eureka/apps/orders/i/status", "routed"),
            (Method::PUT, "/eureka/apps/orders", "routed"),
            (Method::PUT, "/eureka/apps//i", "routed"),
            (Method::PUT, "/eureka/apps/orders/a%2Fb", "routed"),
            (Method::PUT, "/eureka/v2apps/orders/i", "routed"),
            (Method::PUT, "/apps/orders/i", "routed"),
            (Method::GET, "/eureka/apps", "all"),
            (Method::GET, "/eureka/v2/apps/", "all"),
            (Method::HEAD, "/eureka/apps", "routed"),
            (Method::GET, "/eureka/apps/delta", "delta"),
            (Method::GET, "/eureka/apps/orders", "one ORDERS"),
            (Method::GET, "/eureka/apps/orders/", "routed"),
            (Method::GET, "/eureka/apps/orders/i", "routed"),
            (Method::GET, "/eureka/appsorders", "routed"),
            (Method::GET, "/eureka/vips/orders", "routed"),
            (Method::POST, "/eureka/apps/orders", "routed"),
        ] {
            let way = match Short::of(&method, path, "/eureka") {
                None => "routed".to_owned(),
                Some(Short::All) => "all".to_owned(),
                Some(Short::Delta) => "delta".to_owned(),
                Some(Short::One(App(app))) => format!("one {app}"),
                Some(Short::Heartbeat(Target { app, id })) => format!("heartbeat {app} {id}"),
            };
            assert_eq!(way, expected, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn both_ways_answer_alike() {
        let server = EurekaServer::builder().build().unwrap();
        let known = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        let origin = crate::server::registry::Origin::Client;
        server.registry().register(known, origin, server.now()).unwrap();
        for line in [
            "PUT /eureka/apps/orders/i",
            "PUT /eureka/apps/orders/j",
            "PUT /eureka/v2/apps/orders/i?lastDirtyTimestamp=9999999999999",
            "PUT /eureka/apps/orders/i?lastDirtyTimestamp=x",
            "PUT /eureka/apps/orders/i/",
            "PUT /eureka/apps/orders/%69",
            "PUT /eureka/apps/orders/i/status?value=UP",
            "PUT /eureka/apps/orders/i/status",
            "PUT /eureka/nothing",
            "GET /eureka/apps",
            "GET /eureka/apps/?x=y",
            "GET /eureka//apps/delta",
            "GET /eureka/apps/delta/",
            "GET /eureka/v2/apps/orders",
            "GET /eureka/v2/apps/nothing",
            "GET /eureka/v2/apps/orders/i",
            "HEAD /eureka/apps",
        ] {
            let (method, target) = line.split_once(' ').unwrap();
            let request = || Request::builder().method(method).uri(target).body(Body::from("{}")).unwrap();
            let mut short = server.service("/eureka").oneshot(request()).await.unwrap();
            let mut routed = Router::new().nest("/eureka", server.router()).oneshot(request()).await.unwrap();
            // A router names the length of a body, hyper that of all others.
            for response in [&mut short, &mut routed] {
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            assert_eq!((short.status(), short.headers()), (routed.status(), routed.headers()), "{line}");
            let [short, routed] = [short, routed].map(|response| response.into_body().collect());
            assert_eq!(short.await.unwrap().to_bytes(), routed.await.unwrap().to_bytes(), "{line}");
        }
    }
}
