//! The registry as a plain service, with a short way for what comes most often.
//!
//! Nearly all requests to a registry are heartbeats and fetches. Their paths are plain to see, so they reach their handlers without the
//! router's matching and the extensions by which it hands over what it matched, and what is there already is answered without a future
//! of its own. Everything else goes through the router.

use std::borrow::Cow;
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
use http_body::Body as _;
use tower::Service;

use super::answer::{Listing, NotAcceptable};
use super::path::{Target, upper};
use super::scope::Scope;
use super::{applications, instances, probes, refusals};
use crate::server::EurekaServer;
use crate::server::response_cache::List;

/// The registry's HTTP face as a service, for a server that serves nothing else. Made by [`EurekaServer::service`].
///
/// Always ready, never fails, cheap to clone.
#[derive(Clone, Debug)]
pub struct RegistryService {
    server: EurekaServer,
    router: Router,
    mount: Arc<str>,
}

impl RegistryService {
    pub(in crate::server) fn new(server: EurekaServer, mount: &str) -> Self {
        let mount = Arc::<str>::from(mount);
        let known = (server.clone(), mount.clone());
        let router = super::router(server.clone(), &mount)
            .fallback(move |request| refusals::not_here(known.0.clone(), known.1.clone(), request));
        Self { server, router, mount }
    }

    /// Responds to probes of load balancers and orchestrators as well, at the paths that a Spring
    /// server has.
    ///
    /// `/`, `/health`, `/actuator/health` and `/actuator/health/readiness` respond with 200 while the server is
    /// [open for traffic](EurekaServer::is_open), and with 503 until then.
    /// `/actuator/health/liveness` always responds with 200. These paths are those of the whole
    /// server, whatever the registry's own path is.
    pub fn with_probes(mut self) -> Self {
        self.router = self.router.merge(probes::router(self.server.clone(), &self.mount));
        self
    }
}

impl Service<Request<Body>> for RegistryService {
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ResponseFuture {
        let Some(short) = Short::of(request.method(), request.uri().path(), &self.mount) else {
            // A router is always ready.
            return ResponseFuture(Answer::ToCome(Box::pin(self.router.call(request))));
        };
        if let Some(response) = short.at_once(&self.server, &request) {
            return ResponseFuture(Answer::AtOnce(Some(response)));
        }
        let server = self.server.clone();
        ResponseFuture(Answer::ToCome(match short {
            Short::List(list) => {
                let (list, wanted) = (list.into_owned(), Listing::of(request.headers()).ok_or(NotAcceptable));
                let scope = Scope::of(&server, request.headers(), request.uri().query());
                Box::pin(async move { Ok(applications::list(&server, list, scope, wanted).await) })
            }
            Short::Heartbeat { app, id } => {
                let target = Target { app: (*app).into(), id: id.into() };
                Box::pin(async { Ok(instances::heartbeat(State(server), target, request).await) })
            }
        }))
    }
}

/// A request that needs neither decoding nor a router to be understood.
enum Short<'a> {
    List(List<'a>),
    Heartbeat { app: Cow<'a, str>, id: &'a str },
}

impl<'a> Short<'a> {
    fn of(method: &Method, path: &'a str, mount: &str) -> Option<Self> {
        let path = path.strip_prefix(mount)?;
        let path = path.strip_prefix("/v2").unwrap_or(path);
        let path = path.strip_prefix("//apps").or_else(|| path.strip_prefix("/apps"))?;
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '%']);
        if *method == Method::PUT {
            let (app, id) = path.strip_prefix('/')?.split_once('/')?;
            return (plain(app) && plain(id)).then(|| Self::Heartbeat { app: upper(app), id });
        }
        let list = match path {
            _ if *method != Method::GET => return None,
            "" | "/" => List::All,
            "/delta" => List::Delta,
            _ => List::Application(upper(path.strip_prefix('/').filter(|app| plain(app))?)),
        };
        Some(Self::List(list))
    }

    /// The answer, if nothing has to be waited for: neither a body that comes nor one that has to be made.
    fn at_once(&self, server: &EurekaServer, request: &Request<Body>) -> Option<Response> {
        match self {
            Self::List(list) => applications::at_once(server, list, request.headers()),
            Self::Heartbeat { app, id } if request.body().is_end_stream() => {
                Some(instances::renew(server, app, id, request.headers(), request.uri().query()))
            }
            Self::Heartbeat { .. } => None,
        }
    }
}

/// The answer to come of an [`RegistryService`].
pub struct ResponseFuture(Answer);

enum Answer {
    /// Taken when it is polled.
    AtOnce(Option<Response>),
    ToCome(Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>),
}

impl Future for ResponseFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::AtOnce(response) => Poll::Ready(Ok(response.take().expect("polled after it was ready"))),
            Answer::ToCome(future) => future.as_mut().poll(cx),
        }
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
                Some(Short::List(List::All)) => "all".to_owned(),
                Some(Short::List(List::Delta)) => "delta".to_owned(),
                Some(Short::List(List::Application(app))) => format!("one {app}"),
                Some(Short::List(_)) => "never".to_owned(),
                Some(Short::Heartbeat { app, id }) => format!("heartbeat {app} {id}"),
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
            // The second time it is there already.
            assert_eq!(server.service("/eureka").oneshot(request()).await.unwrap().status(), short.status(), "{line}");
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
