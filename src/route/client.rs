use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Buf;
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tower::discover::Change;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{BoxError, Service};

use super::ResponseBody;
use super::attempts::{Attempts, Repeat};
use super::endpoint::{Address, Endpoint};
use crate::balance::Balance;
use crate::discover::EurekaDiscover;
use crate::error::{Error, Kind};
use crate::model::{Instance, app_name};
use crate::registry::Registry;
use crate::transport::Connector;

/// How long a call goes on looking for an instance that can be connected to.
const CONNECT_BUDGET: Duration = Duration::from_secs(10);

/// An HTTP client that calls applications by name: `http://orders/v1/42`. Made by [`Eureka::http_client`](crate::Eureka::http_client).
///
/// The host of the URI is the application, in any case; a port in it is ignored, path and query are kept. The request goes to
/// an instance that is UP, chosen by load, over HTTP/1.1, or over HTTP/2 if that is the request's version, as it is with tonic's
/// generated clients (give them the origin `http://orders`). With the feature `tls` an instance whose secure port is enabled is
/// called there, over TLS, under its host name; the others, and all without that feature, at their plain port.
///
/// A call that could not connect goes to another instance, whatever its method. One whose connection was lost before an answer
/// came does so only if its method is idempotent and nothing of its body was sent, within a budget of 20 % of all calls plus ten a second.
///
/// Cheap to clone; clones share connections and what was learnt of the instances, so keep one and clone it. Always ready: waiting happens in the call,
/// where the application is known. A call ends with an error when the application has had no instance for the
/// [`ready_timeout`](crate::EurekaBuilder::ready_timeout); it does *not* bound how long an instance may take to answer: put a
/// timeout layer above it for that.
pub struct HttpClient<B> {
    shared: Arc<Shared<B>>,
}

struct Shared<B> {
    registry: Arc<Registry>,
    routes: ArcSwap<HashMap<Arc<str>, Arc<Route<B>>>>,
    ready_timeout: Duration,
    connector: Connector,
}

/// One application that is being called.
struct Route<B> {
    balance: Balance<Endpoint<B>>,
    retries: TpsBudget,
}

impl<B> HttpClient<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) fn new(registry: Arc<Registry>, ready_timeout: Duration, connector: Connector) -> Self {
        let routes = ArcSwap::default();
        Self { shared: Arc::new(Shared { registry, routes, ready_timeout, connector }) }
    }
}

impl<B> Shared<B>
where
    B: Body<Data: Buf + Send, Error: Into<BoxError>> + Send + 'static,
{
    /// The route of an application, made at its first call.
    fn route(&self, host: &str) -> Result<Arc<Route<B>>, Error> {
        let app = app_name(host);
        if let Some(route) = self.routes.load().get(&app) {
            return Ok(route.clone());
        }
        crate::model::check_app(host).map_err(|invalid| {
            Error::new(Kind::Config, "call").app(host).cause("this is no application name").with_source(invalid)
        })?;
        let made = Arc::new(Route { balance: self.balance(&app), retries: TpsBudget::default() });
        // Another call may have made it meanwhile: the first one in stays.
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            routes.entry(app.clone()).or_insert_with(|| made.clone());
            routes
        });
        Ok(self.routes.load().get(&app).unwrap_or(&made).clone())
    }

    fn balance(&self, app: &Arc<str>) -> Balance<Endpoint<B>> {
        let discover = EurekaDiscover::new(self.registry.clone(), app.clone());
        let (explainer, connector) = (discover.explain_later(), self.connector.clone());
        let explain = move || explainer.explain().exclude(uncallable).to_string();
        // What cannot be called is no endpoint: an instance that changes so is removed.
        let callable = discover.map(|change| {
            Ok::<_, Infallible>(match change? {
                Change::Insert(id, instance) => match Address::of(&instance) {
                    Some(address) => Change::Insert(id, (instance, address)),
                    None => Change::Remove(id),
                },
                Change::Remove(id) => Change::Remove(id),
            })
        });
        Balance::builder(callable)
            .name(&**app)
            .ready_timeout(self.ready_timeout)
            .explain(explain)
            .endpoint(move |(instance, address): &(Arc<_>, Address)| {
                Endpoint::new(instance.clone(), address.clone(), connector.clone())
            })
            .build()
    }

    /// Forgets an application that nobody carries, so that names called in error leave nothing behind.
    fn forget(&self, route: &Arc<Route<B>>) {
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            routes.retain(|_, kept| !Arc::ptr_eq(kept, route));
            routes
        });
    }

    async fn call(&self, request: Request<B>) -> Result<Response<ResponseBody>, Error> {
        let route = self.route(host(&request)?)?;
        let attempts = Attempts::new(request);
        if route.balance.is_empty() && !route.balance.ready().await {
            self.forget(&route);
            return Err(route.balance.no_endpoints());
        }
        route.retries.deposit();
        let started = Instant::now();
        let (mut tried, mut failed) = (Vec::new(), None::<Error>);
        loop {
            let picked = match (route.balance.pick(&attempts, &tried), failed) {
                (Some(picked), _) => picked,
                (None, None) => return Err(route.balance.no_endpoints()),
                // The only instance closed a connection: it may be that one, not the instance, that was at its end.
                (None, Some(error)) if error.kind() == Kind::Call && tried.len() == 1 => {
                    match route.balance.pick(&attempts, &[]) {
                        Some(picked) => picked,
                        None => return Err(error),
                    }
                }
                (None, Some(error)) => return Err(error),
            };
            tried.push(picked.id());
            let request = attempts.next(picked.service().authority());
            let error = match picked.call(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let again = match attempts.may_repeat(&error) {
                Repeat::No => false,
                Repeat::Free => started.elapsed() < CONNECT_BUDGET,
                Repeat::WithinBudget => route.retries.withdraw(),
            };
            if !again {
                return Err(error);
            }
            tracing::debug!(%error, "trying another instance");
            failed = Some(error);
        }
    }
}

/// Why an instance that is UP cannot be called.
fn uncallable(instance: &Instance) -> Option<&'static str> {
    match Address::of(instance) {
        Some(_) => None,
        None if instance.https_authority().is_some() => Some("offers no plain HTTP port, and HTTPS needs the feature `tls`"),
        None => Some("offers no port"),
    }
}

/// The application that a request is for.
fn host<B>(request: &Request<B>) -> Result<&str, Error> {
    let uri = request.uri();
    // Not the whole URI, which may hold secrets.
    let app = uri.host().unwrap_or_else(|| uri.path());
    let unusable = |cause: &'static str, advice| Error::new(Kind::Config, "call").app(app).cause(cause).advice(advice);
    match uri.scheme_str() {
        Some("http") => {}
        Some(_) => return Err(unusable("only http:// is supported to instances", "write http://orders/path")),
        None => return Err(unusable("the URI is not absolute", "write http://orders/path")),
    }
    uri.host().ok_or_else(|| unusable("the URI has no host", "write http://orders/path"))
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
        let shared = self.shared.clone();
        ResponseFuture(Box::pin(async move { shared.call(request).await }))
    }
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<B> fmt::Debug for HttpClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("applications", &self.shared.routes.load().len()).finish()
    }
}

/// The answer to a call by name, under way. Dropping it drops the call.
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Error>> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
