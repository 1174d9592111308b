//! The registry as a plain service, with a short way for what comes most often.
//!
//! Nine of ten requests to a registry are heartbeats. Their path is plain to see, so they reach their handler without the router's
//! matching and the extensions by which it hands over what it matched. Everything else goes through the router.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Method, Request};
use tower::Service;

use super::instances;
use super::path::Target;
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
        if request.method() == Method::PUT
            && let Some(target) = instance(request.uri().path(), &self.mount)
        {
            let answer = instances::heartbeat(State(self.server.clone()), target, request);
            return ResponseFuture(Box::pin(async { Ok(answer.await) }));
        }
        // A router is always ready.
        ResponseFuture(Box::pin(self.router.call(request)))
    }
}

/// The instance that a path names, if it is one that needs no decoding.
fn instance(path: &str, mount: &str) -> Option<Target> {
    let path = path.strip_prefix(mount)?;
    let path = path.strip_prefix("/v2").unwrap_or(path);
    let (app, id) = path.strip_prefix("//apps/").or_else(|| path.strip_prefix("/apps/"))?.split_once('/')?;
    let plain = |name: &str| !name.is_empty() && !name.contains(['/', '%']);
    (plain(app) && plain(id)).then(|| Target { app: app_name(app), id: id.into() })
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
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::model::Instance;

    #[test]
    fn plain_paths_take_the_short_way() {
        for (path, expected) in [
            ("/eureka/apps/orders/h:orders:1", Some(("ORDERS", "h:orders:1"))),
            ("/eureka//apps/orders/i", Some(("ORDERS", "i"))),
            ("/eureka/v2/apps/orders/i", Some(("ORDERS", "i"))),
            ("/eureka/v2//apps/orders/i", Some(("ORDERS", "i"))),
            ("/eureka/apps/orders/i/", None),
            ("/eureka/apps/orders/i/status", None),
            ("/eureka/apps/orders", None),
            ("/eureka/apps//i", None),
            ("/eureka/apps/orders/a%2Fb", None),
            ("/eureka/v2apps/orders/i", None),
            ("/apps/orders/i", None),
        ] {
            let target = instance(path, "/eureka");
            let names = target.as_ref().map(|target| (&*target.app, &*target.id));
            assert_eq!(names, expected, "{path}");
        }
    }

    #[tokio::test]
    async fn both_ways_answer_alike() {
        let server = EurekaServer::builder().build().unwrap();
        let known = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        let origin = crate::server::registry::Origin::Client;
        server.registry().register(known, origin, server.now()).unwrap();
        for target in [
            "/eureka/apps/orders/i",
            "/eureka/apps/orders/j",
            "/eureka/v2/apps/orders/i?lastDirtyTimestamp=9999999999999",
            "/eureka/apps/orders/i?lastDirtyTimestamp=x",
            "/eureka/apps/orders/i/",
            "/eureka/apps/orders/%69",
            "/eureka/apps/orders/i/status?value=UP",
            "/eureka/apps/orders/i/status",
            "/eureka/nothing",
        ] {
            let request = || Request::put(target).body(Body::from("{}")).unwrap();
            let short = server.service("/eureka").oneshot(request()).await.unwrap();
            let routed = Router::new().nest("/eureka", server.router()).oneshot(request()).await.unwrap();
            assert_eq!((short.status(), short.headers()), (routed.status(), routed.headers()), "{target}");
            let [short, routed] = [short, routed].map(|response| response.into_body().collect());
            assert_eq!(short.await.unwrap().to_bytes(), routed.await.unwrap().to_bytes(), "{target}");
        }
    }
}
