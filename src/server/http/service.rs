//! The registry as a service or as a layer of each route, with a fast path for heartbeats,
//! registrations and lists.
//!
//! Nearly all requests to a registry are heartbeats and fetches. They reach their handlers without
//! the router's matching and its extensions, and without a boxed future if the response is ready.
//! Registrations skip the router as well, since a restart of the services brings many at once. All
//! other requests go through the router.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{Method, Request};
use http_body::Body as _;
use tower::{Service, ServiceExt};

use super::path::{App, Target, upper};
use super::response::{ListRequest, NotAcceptable};
use super::scope::Scope;
use super::{applications, fallback, guard, instances, operation, request, throttle};
use crate::server::access::{self, Authentication, Change, Identity, Operation, Refusal, Role};
use crate::server::audit::Caller;
use crate::server::http::state::ServerState;
use crate::server::metrics::{OperationLabel, Started, Timer};
use crate::server::outcome::Origin;
use crate::server::response_cache::List;

/// HTTP service of a registry, for a server that serves nothing else. Created by
/// [`EurekaServer::service`](crate::EurekaServer::service).
///
/// It is always ready, never fails, and is cheap to clone.
#[derive(Clone, Debug)]
pub struct RegistryService(Dispatch<Router>);

impl RegistryService {
    pub(in crate::server) fn new(server: ServerState, mount: &str) -> Self {
        let mount = Arc::<str>::from(mount);
        let known = (server.clone(), mount.clone());
        let router = super::routes(server.clone(), &mount)
            .fallback(move |request| fallback::not_here(known.0.clone(), known.1.clone(), request));
        Self(Dispatch { server, inner: router, mount })
    }

    /// Replaces the router of all requests without a fast path.
    #[cfg(feature = "page")]
    pub(in crate::server) fn map_router(mut self, change: impl FnOnce(&ServerState, Router) -> Router) -> Self {
        self.0.inner = change(&self.0.server, self.0.inner);
        self
    }

    /// Adds endpoints for load balancers, orchestrators and monitoring, at the paths of a Spring
    /// server.
    ///
    /// `/`, `/health`, `/actuator/health` and `/actuator/health/readiness` respond with 503 until
    /// the server is [open for traffic](crate::EurekaServer::is_open), and with 200 from then on.
    /// `/actuator/health/liveness` always responds with 200. From the call of
    /// [`EurekaServer::leave`](crate::EurekaServer) on the server is stopping, and not ready any
    /// more. `/actuator/info` has the version and the uptime.
    ///
    /// With the feature `prometheus`, `/metrics` and `/actuator/prometheus` have the
    /// [metrics](crate::server::EurekaServerBuilder::metrics), and `/actuator/metrics` has them as
    /// JSON. The paths do not depend on the registry's own path.
    pub fn with_probes(mut self) -> Self {
        self.0.inner = self.0.inner.merge(super::management(self.0.server.clone(), &self.0.mount));
        self
    }

    /// Adds the health endpoints of [`with_probes`](Self::with_probes) alone, for a server whose
    /// other endpoints have a [listener of their own](crate::EurekaServer::management).
    pub fn with_health(mut self) -> Self {
        self.0.inner = self.0.inner.merge(super::health(self.0.server.clone(), &self.0.mount));
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
        self.0.call(request)
    }
}

/// Measures each request, applies the rate limits, and handles the requests with a fast path. All
/// others go to the inner service: the router, or a route of it.
#[derive(Clone, Debug)]
pub(super) struct Dispatch<S> {
    server: ServerState,
    inner: S,
    mount: Arc<str>,
}

impl<S> Dispatch<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Creates the part before a route of an embedded router.
    pub(super) fn before(server: ServerState, route: S) -> Self {
        // The router removes the path at which the registry is mounted.
        Self { server, inner: route, mount: "".into() }
    }

    pub(super) fn call(&self, request: Request<Body>) -> ResponseFuture {
        let started = self.server.measured().start();
        if self.server.rate_limits().is_some()
            && let Some(refusal) = throttle::refuse_sender(&self.server, &request)
        {
            return self.throttled(&request, refusal, started);
        }
        self.authenticated(request, started)
    }

    /// Authenticates the caller, if there is access control, and handles the request.
    fn authenticated(&self, request: Request<Body>, started: Started) -> ResponseFuture {
        let Some(access) = self.server.access() else {
            return match request.extensions().get::<Identity>() {
                Some(_) if !guard::is_public(request.uri().path()) => self.refuse_identity(request, started),
                _ => self.handle(request, None, started),
            };
        };
        if guard::is_public(request.uri().path()) {
            return self.handle(request, None, started);
        }
        match access.authenticate_now(request.headers(), request.extensions()) {
            Authentication::Done(Ok(identity)) => self.handle(request, Some(identity), started),
            Authentication::Done(Err(refusal)) => self.refuse(request, refusal, started),
            Authentication::Slow(slow) => {
                let charge = match request::hold(self.server.intake(), &request) {
                    Ok(charge) => charge,
                    Err(refusal) => return self.exhausted(request, refusal, started),
                };
                let (access, timer, service) = (access.clone(), self.timer(&request, started), self.clone());
                let authenticated = async move {
                    // The outer future measures the request.
                    let unmeasured = Started::default();
                    let decided = tokio::select! {
                        decided = access.authenticate(slow) => decided,
                        () = charge.revoked() => {
                            return service.exhausted(request, request::Refusal::Exhausted, unmeasured).await;
                        }
                    };
                    drop(charge);
                    match decided {
                        Ok(identity) => service.handle(request, Some(identity), unmeasured).await,
                        Err(refusal) => service.refuse(request, refusal, unmeasured).await,
                    }
                };
                ResponseFuture(ResponseState::Pending(Box::pin(authenticated), timer))
            }
        }
    }

    /// Handles a request of an authenticated caller, or of any caller without access control. The
    /// permission is checked here for the fast path, and by the router for all other requests.
    fn handle(&self, mut request: Request<Body>, identity: Option<Identity>, started: Started) -> ResponseFuture {
        if self.server.rate_limits().is_some()
            && request.uri().path().starts_with(&*self.mount)
            && identity.as_ref().is_none_or(|identity| identity.has(Role::Read))
            && let Some(refusal) = throttle::refuse_fetch(&self.server, &request)
        {
            return self.throttled(&request, refusal, started);
        }
        let Some(fast) = FastPath::of(request.method(), request.uri().path(), &self.mount) else {
            let timer = self.timer(&request, started);
            if let Some(identity) = identity {
                request.extensions_mut().insert(identity);
            }
            let response = self.inner.clone().oneshot(request);
            return ResponseFuture(ResponseState::Pending(Box::pin(response), timer));
        };
        if let (Some(access), Some(identity)) = (self.server.access(), &identity)
            && let Err(refusal) = guard::decide(&self.server, access, identity, fast.access(), request.headers())
        {
            return self.refuse(request, refusal, started);
        }
        let operation = fast.operation();
        if let Some(response) = fast.ready_response(&self.server, &request, identity.as_ref()) {
            self.server.measured().record(started, operation, response.status());
            return ResponseFuture(ResponseState::Ready(Some(response)));
        }
        let server = self.server.clone();
        let timer = server.measured().timer(started, || operation);
        let response: Pin<Box<dyn Future<Output = _> + Send>> = match fast {
            FastPath::List(list) => {
                let (list, requested) = (list.into_owned(), ListRequest::of(request.headers()).ok_or(NotAcceptable));
                let scope = Scope::of(&server, request.headers(), request.uri().query());
                Box::pin(async move { Ok(applications::list(&server, list, scope, requested).await) })
            }
            FastPath::Heartbeat { app, id } => {
                let target = Target { app: (*app).into(), id: id.into() };
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                Box::pin(async { Ok(instances::heartbeat(State(server), target, request).await) })
            }
            FastPath::Registration { app } => {
                let app = App((*app).into());
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                Box::pin(async { Ok(instances::register(State(server), Ok(app), request).await) })
            }
        };
        ResponseFuture(ResponseState::Pending(response, timer))
    }

    /// Responds to a request that the access control refuses.
    fn refuse(&self, request: Request<Body>, refusal: Refusal, started: Started) -> ResponseFuture {
        let timer = self.timer(&request, started);
        let (server, (parts, body)) = (self.server.clone(), request.into_parts());
        let refused = async move { Ok(guard::refuse(&server, &parts, body, &refusal).await) };
        ResponseFuture(ResponseState::Pending(Box::pin(refused), timer))
    }

    /// Responds to a request with an identity that no access control decides about.
    fn refuse_identity(&self, request: Request<Body>, started: Started) -> ResponseFuture {
        let (timer, server) = (self.timer(&request, started), self.server.clone());
        let refused = async move { Ok(guard::refuse_identity(&server, request).await) };
        ResponseFuture(ResponseState::Pending(Box::pin(refused), timer))
    }

    /// Responds to a request for which the budget of bodies has no room.
    fn exhausted(&self, request: Request<Body>, refusal: request::Refusal, started: Started) -> ResponseFuture {
        let timer = self.timer(&request, started);
        let response = self.server.refusals().response(&request.into_parts().0, refusal.response(), &refusal);
        ResponseFuture::ready(response, timer)
    }

    fn throttled(&self, request: &Request<Body>, refusal: Response, started: Started) -> ResponseFuture {
        ResponseFuture::ready(refusal, self.timer(request, started))
    }

    fn timer(&self, request: &Request<Body>, started: Started) -> Timer {
        let operation = || operation::label(request.method(), request.uri().path(), &self.mount);
        self.server.measured().timer(started, operation)
    }
}

/// Request whose path needs neither decoding nor the router.
enum FastPath<'a> {
    List(List<'a>),
    Heartbeat { app: Cow<'a, str>, id: &'a str },
    Registration { app: Cow<'a, str> },
}

impl<'a> FastPath<'a> {
    fn of(method: &Method, path: &'a str, mount: &str) -> Option<Self> {
        let path = path.strip_prefix(mount)?;
        let path = path.strip_prefix("/v2").unwrap_or(path);
        let path = path.strip_prefix("//apps").or_else(|| path.strip_prefix("/apps"))?;
        let plain = |name: &str| !name.is_empty() && !name.bytes().any(|byte| matches!(byte, b'/' | b'%'));
        if *method == Method::PUT {
            let (app, id) = path.strip_prefix('/')?.split_once('/')?;
            return (plain(app) && plain(id)).then(|| Self::Heartbeat { app: upper(app), id });
        }
        if *method == Method::POST {
            let app = path.strip_prefix('/').filter(|app| plain(app) && *app != "delta")?;
            return Some(Self::Registration { app: upper(app) });
        }
        let list = match path {
            _ if *method != Method::GET => return None,
            "" | "/" => List::All,
            "/delta" => List::Delta,
            _ => List::Application(upper(path.strip_prefix('/').filter(|app| plain(app))?)),
        };
        Some(Self::List(list))
    }

    fn operation(&self) -> OperationLabel {
        match self {
            Self::Heartbeat { .. } => OperationLabel::Heartbeat,
            Self::Registration { .. } => OperationLabel::Register,
            Self::List(List::Delta) => OperationLabel::Delta,
            Self::List(List::Application(_)) => OperationLabel::Application,
            Self::List(_) => OperationLabel::List,
        }
    }

    /// Returns the operation that the access control decides about.
    fn access(&self) -> Operation<'_> {
        match self {
            Self::List(_) => Operation::Read,
            Self::Heartbeat { app, id } => Operation::Change(Change::Renew, access::Target { app, id: Some(id) }),
            Self::Registration { app } => Operation::Change(Change::Register, access::Target { app, id: None }),
        }
    }

    /// Returns the response if it needs no wait: neither for the request's body nor for a list that
    /// is not cached.
    fn ready_response(
        &self,
        server: &ServerState,
        request: &Request<Body>,
        identity: Option<&Identity>,
    ) -> Option<Response> {
        match self {
            Self::List(list) => applications::ready_response(server, list, request.headers()),
            Self::Heartbeat { app, id } if request.body().is_end_stream() => {
                let query = request.uri().query();
                let replica = || Caller::of(Origin::Replica, request.extensions()).authenticated(identity);
                Some(instances::renew(server, app, id, request.headers(), query, replica))
            }
            Self::Heartbeat { .. } | Self::Registration { .. } => None,
        }
    }
}

/// Response future of [`RegistryService`].
pub struct ResponseFuture(ResponseState);

enum ResponseState {
    /// `None` once it was polled.
    Ready(Option<Response>),
    Pending(Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>, Timer),
}

impl ResponseFuture {
    /// Returns a response that needs no wait.
    fn ready(response: Response, mut timer: Timer) -> Self {
        timer.finish(response.status());
        Self(ResponseState::Ready(Some(response)))
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            ResponseState::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("future is not polled after completion")))
            }
            ResponseState::Pending(future, timer) => {
                let response = ready!(future.as_mut().poll(cx))?;
                timer.finish(response.status());
                Poll::Ready(Ok(response))
            }
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
    use http::header::{CONTENT_LENGTH, DATE};
    use http_body_util::BodyExt;

    use super::*;
    use crate::model::Instance;
    use crate::server::EurekaServer;

    #[test]
    fn plain_paths_take_the_fast_path() {
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
            (Method::POST, "/eureka/apps/orders", "registration ORDERS"),
            (Method::POST, "/eureka/v2/apps/orders", "registration ORDERS"),
            (Method::POST, "/eureka/apps/orders/", "routed"),
            (Method::POST, "/eureka/apps/orders/i", "routed"),
            (Method::POST, "/eureka/apps/%6f", "routed"),
            (Method::POST, "/eureka/apps/delta", "routed"),
            (Method::POST, "/eureka/apps", "routed"),
        ] {
            let way = match FastPath::of(&method, path, "/eureka") {
                None => "routed".to_owned(),
                Some(FastPath::List(List::All)) => "all".to_owned(),
                Some(FastPath::List(List::Delta)) => "delta".to_owned(),
                Some(FastPath::List(List::Application(app))) => format!("one {app}"),
                Some(FastPath::List(_)) => "never".to_owned(),
                Some(FastPath::Heartbeat { app, id }) => format!("heartbeat {app} {id}"),
                Some(FastPath::Registration { app }) => format!("registration {app}"),
            };
            assert_eq!(way, expected, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn fast_path_and_router_respond_alike() {
        let server = EurekaServer::builder().build().unwrap();
        let known = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        let origin = crate::server::outcome::Origin::Client;
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
            "POST /eureka/apps/orders",
            "POST /eureka/apps/delta",
            "POST /eureka/apps/",
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
            // The second time the list is cached.
            assert_eq!(server.service("/eureka").oneshot(request()).await.unwrap().status(), short.status(), "{line}");
            // Only the router sets the length of a body. hyper adds it to the others. A second may
            // end between the two.
            for response in [&mut short, &mut routed] {
                response.headers_mut().remove(CONTENT_LENGTH);
                response.headers_mut().remove(DATE);
            }
            assert_eq!((short.status(), short.headers()), (routed.status(), routed.headers()), "{line}");
            let [short, routed] = [short, routed].map(|response| response.into_body().collect());
            assert_eq!(short.await.unwrap().to_bytes(), routed.await.unwrap().to_bytes(), "{line}");
        }
    }
}
