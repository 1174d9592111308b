//! Routes: the applications that are called, each with a balancer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::uri::Authority;
use http::{Request, Uri};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tower::discover::Change;

use super::address::{Address, AddressRule, HasAddress};
use super::budget::Budget;
use super::connection::{Endpoint, HealthChecker, RequestBody, health_url};
use super::deadline::CallDeadline;
use super::options::{AnyPolicy, CallOptions, Http2, Ports};
use super::presence::Presence;
use crate::balance::{Attributes, Balance, Siblings, Snapshot};
use crate::cache::{Lookup, RegistryCache};
use crate::connect::Connector;
use crate::discover::{EurekaDiscover, Selection};
use crate::error::{Error, Kind};
use crate::metrics::Metrics;
use crate::model::Instance;

/// Number of names from which names without an instance are removed when another one is added.
const MAX_NAMES: usize = 256;

/// Finds the route of a request: the balancer of the application that its URI names.
///
/// `E` is the endpoint service, which sends a request to one instance.
pub(super) struct Routes<E> {
    registry: Arc<RegistryCache>,
    options: Arc<CallOptions>,
    rule: AddressRule,
    ready_timeout: Duration,
    make: MakeEndpoint<E>,
    probe: Option<Probe<E>>,
    /// Health check, used if the options enable it.
    check: Option<Probe<E>>,
    /// For `http` and `https`. The keys are names, hosts and authorities as callers write them.
    routes: [ArcSwap<RouteMap<E>>; 2],
}

/// Makes the endpoint service of an instance.
pub(super) type MakeEndpoint<E> = Arc<dyn Fn(Arc<Presence>) -> E + Send + Sync>;
pub(super) type Probe<E> = Arc<dyn Fn(E) -> ProbeFuture + Send + Sync>;
type ProbeFuture = Pin<Box<dyn Future<Output = bool> + Send>>;

/// A tree, since comparing a few names costs less than hashing one.
type RouteMap<E> = BTreeMap<Box<str>, Arc<Route<E>>>;

/// An application that is called, with its balancer.
pub(super) struct Route<E> {
    pub(super) name: Arc<str>,
    pub(super) options: Arc<CallOptions>,
    pub(super) balance: Balance<E, AnyPolicy>,
    pub(super) budget: Budget,
    pub(super) metrics: Metrics,
}

/// Returns `true` if a URI requires TLS. `None` for schemes that do not name applications.
fn is_secure(uri: &Uri) -> Option<bool> {
    match uri.scheme_str()? {
        "http" | "lb" => Some(false),
        "https" => Some(true),
        _ => None,
    }
}

/// Destination of a request.
pub(super) enum Target<E> {
    /// An application.
    Named(Arc<Route<E>>),
    /// A host that the user excludes from calls by name.
    PassThrough,
}

impl<B: RequestBody> Routes<Endpoint<B>> {
    /// Makes routes whose endpoints have connections of their own.
    pub(super) fn with_connections(
        registry: Arc<RegistryCache>,
        options: CallOptions,
        rule: AddressRule,
        ready_timeout: Duration,
        connector: Connector,
    ) -> Self {
        let (http2, max_connections) = (options.http2.clone(), options.http2_connections);
        let checker = HealthChecker::new(connector.clone());
        let prober = connector.clone();
        let make = move |presence| Endpoint::new(presence, connector.clone(), &http2, max_connections);
        let probe = move |endpoint: Endpoint<B>| -> ProbeFuture { Box::pin(endpoint.probe(prober.clone())) };
        let check = move |endpoint: Endpoint<B>| -> ProbeFuture { Box::pin(endpoint.check(&checker)) };
        let (probe, check) = (Some(Arc::new(probe) as _), Some(Arc::new(check) as _));
        Self::new(registry, options, rule, ready_timeout, Arc::new(make), probe, check)
    }
}

impl<E: Clone + Send + Sync + 'static> Routes<E> {
    pub(super) fn new(
        registry: Arc<RegistryCache>,
        options: CallOptions,
        rule: AddressRule,
        ready_timeout: Duration,
        make: MakeEndpoint<E>,
        probe: Option<Probe<E>>,
        check: Option<Probe<E>>,
    ) -> Self {
        let options = Arc::new(options);
        Self { registry, options, rule, ready_timeout, make, probe, check, routes: Default::default() }
    }

    /// Returns the route of a request if the same authority was called before.
    pub(super) fn cached<B>(&self, request: &Request<B>) -> Option<Arc<Route<E>>> {
        let authority = request.uri().authority()?;
        let secure = is_secure(request.uri())?;
        if self.is_passed_through(authority) {
            return None;
        }
        self.routes[usize::from(secure)].load().get(authority.as_str()).cloned()
    }

    /// Finds the target of a request by its URI.
    pub(super) fn target<B>(&self, request: &Request<B>) -> Result<Target<E>, Error> {
        let uri = request.uri();
        let unusable = |cause: &'static str| {
            // Only the host or path, since the URI may contain secrets.
            let app = uri.host().unwrap_or_else(|| uri.path());
            let advice = "write http://orders/path";
            Err(Error::new(Kind::Config, "call").app(app).cause(cause).advice(advice))
        };
        let Some(authority) = uri.authority() else { return unusable("the URI has no host") };
        if self.is_passed_through(authority) {
            return Ok(Target::PassThrough);
        }
        match (is_secure(uri), uri.scheme()) {
            (Some(secure), _) => Ok(Target::Named(self.route_as_written(authority, secure)?)),
            (None, Some(_)) => unusable("only http://, https:// and lb:// name applications"),
            (None, None) => unusable("the URI is not absolute"),
        }
    }

    fn is_passed_through(&self, authority: &Authority) -> bool {
        self.options.pass_through.as_ref().is_some_and(|is_passed_through| is_passed_through(authority.host()))
    }

    /// Returns the route of the application that an authority names, and caches it under the
    /// authority as written.
    fn route_as_written(&self, authority: &Authority, secure: bool) -> Result<Arc<Route<E>>, Error> {
        let route = self.route(authority.host(), secure)?;
        // An authority with credentials is not cached.
        if !authority.as_str().contains('@') {
            self.cache_spelling(authority.as_str(), &route, secure);
        }
        Ok(route)
    }

    /// Returns the route of an application. The first call makes it.
    pub(super) fn route(&self, host: &str, secure: bool) -> Result<Arc<Route<E>>, Error> {
        let routes = &self.routes[usize::from(secure)];
        if let Some(route) = routes.load().get(host) {
            return Ok(route.clone());
        }
        let selection = Selection::name(host);
        selection.check()?;
        let existing = routes.load().get(selection.looked_up()).cloned();
        let route = existing.unwrap_or_else(|| self.make_route(selection, secure));
        self.cache_spelling(host, &route, secure);
        Ok(route)
    }

    fn make_route(&self, selection: Selection, secure: bool) -> Arc<Route<E>> {
        let name = Arc::<str>::from(selection.looked_up());
        let mut rule = self.rule.clone();
        if secure {
            rule.ports = Ports::Secure;
        }
        let made = Arc::new(Route {
            name: name.clone(),
            options: self.options.clone(),
            balance: self.balance(selection, name.clone(), rule),
            budget: self.options.retry.new_budget(),
            metrics: Metrics::new(Some(&name)),
        });
        let routes = &self.routes[usize::from(secure)];
        routes.rcu(|routes| {
            let mut routes = RouteMap::clone(routes);
            if routes.iter().filter(|(key, route)| ***key == *route.name).count() >= MAX_NAMES {
                routes.retain(|_, route| !route.balance.is_empty());
            }
            // A concurrent call may have inserted its own route, which is kept.
            routes.entry((&*name).into()).or_insert_with(|| made.clone());
            routes
        });
        routes.load().get(&*name).unwrap_or(&made).clone()
    }

    /// Caches a route under another spelling of its name, up to a limit.
    fn cache_spelling(&self, spelling: &str, route: &Arc<Route<E>>, secure: bool) {
        let routes = &self.routes[usize::from(secure)];
        let is_missing = |routes: &RouteMap<E>| routes.len() < 2 * MAX_NAMES && !routes.contains_key(spelling);
        if is_missing(&routes.load()) {
            routes.rcu(|routes| {
                let mut routes = RouteMap::clone(routes);
                if is_missing(&routes) {
                    routes.insert(spelling.into(), route.clone());
                }
                routes
            });
        }
    }

    /// Returns a snapshot of each application that was called.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let routes = self.routes.iter().flat_map(|routes| routes.load().values().cloned().collect::<Vec<_>>());
        let mut routes: Vec<_> = routes.collect();
        // A route may be cached in several spellings.
        routes.sort_by_key(|route| (route.name.clone(), Arc::as_ptr(route)));
        routes.dedup_by(|a, b| Arc::ptr_eq(a, b));
        routes.iter().map(|route| route.balance.snapshot()).collect()
    }

    fn balance(&self, selection: Selection, name: Arc<str>, rule: AddressRule) -> Balance<E, AnyPolicy> {
        let discover = EurekaDiscover::new(self.registry.clone(), selection);
        let explainer = discover.explainer();
        let excluding = rule.clone();
        let explain = move || explainer.explain().exclude(|instance| excluding.address(instance).err()).to_string();
        let is_checked = self.options.health_check.is_some() && self.check.is_some();
        let instances = callable_instances(discover, rule.clone(), self.options.http2.clone(), is_checked);
        let (registry, grace) = (Arc::downgrade(&self.registry), self.options.removal_grace);
        let make = self.make.clone();
        let mut builder = Balance::builder(instances)
            .name(name)
            .ready_timeout(self.ready_timeout)
            .explain(explain)
            .ejection(self.options.ejection.clone())
            .labels(self.options.labels.iter().cloned())
            .policy(self.options.policy.clone())
            .observer(self.options.responses.clone())
            .attributes(Callable::attributes)
            .endpoint(move |Callable { instance, address, .. }: &Callable| {
                make(Presence::new(instance.clone(), address.clone(), rule.clone(), registry.clone(), grace))
            });
        let CallOptions { zones, slow_start, subset, caller, .. } = &*self.options;
        if let Some(zones) = zones {
            builder = builder.zone_aware(zones.clone());
        }
        if let Some(slow_start) = slow_start {
            builder = builder.slow_start(slow_start.clone());
        }
        if let Some(subset) = subset {
            builder = builder.subset(subset.clone());
        }
        if let Some((app, id)) = caller.clone() {
            let siblings = WatchStream::new(self.registry.subscribe(&Lookup::App(app)));
            builder =
                builder
                    .siblings(siblings.map(move |app| {
                        app.own().first().map_or_else(Siblings::default, |app| Siblings::of(app, &id))
                    }));
        }
        if let Some(probe) = self.probe.clone() {
            builder = builder.probe(move |endpoint| probe(endpoint));
        }
        if let Some((interval, check)) = self.options.health_check.zip(self.check.clone()) {
            builder = builder.health_check(interval, move |endpoint| check(endpoint));
        }
        builder.build()
    }
}

/// Maps discovered instances to those that can be called.
///
/// An instance without a usable address is no endpoint, and is removed if it was one.
fn callable_instances(
    discover: EurekaDiscover,
    rule: AddressRule,
    http2: Http2,
    is_checked: bool,
) -> impl Stream<Item = Result<Change<Arc<str>, Callable>, Infallible>> + Send + 'static {
    discover.map(move |change| {
        Ok(match change? {
            Change::Insert(id, instance) => match rule.address(&instance) {
                Ok(address) => {
                    let is_http2 = http2.is_for(&instance);
                    Change::Insert(id, Callable { instance, address, is_http2, is_checked })
                }
                Err(_) => Change::Remove(id),
            },
            Change::Remove(id) => Change::Remove(id),
        })
    })
}

/// An instance with the address at which it is called.
struct Callable {
    instance: Arc<Instance>,
    address: Address,
    is_http2: bool,
    is_checked: bool,
}

impl Callable {
    fn attributes(&self) -> Attributes {
        let Address { scheme, authority } = &self.address;
        // Part of the address, since a check uses the instance of which the endpoint was made.
        let checked = if self.is_checked { health_url(&self.instance, &self.address) } else { None };
        let checked = checked.map_or_else(String::new, |url| format!(" {url}"));
        let version = if self.is_http2 { " h2" } else { "" };
        let address = format!("{scheme}://{authority}{version}{checked}");
        Attributes::of(&self.instance).with_address(address)
    }
}

impl<E: Send + Sync + 'static> Route<E> {
    /// Returns `true` if there is an instance to call.
    pub(super) fn is_ready(&self) -> bool {
        !self.balance.is_empty()
    }

    /// Waits for an instance. Returns `false` if there was none in time.
    pub(super) async fn ready(&self, deadline: CallDeadline) -> bool {
        let ready = self.balance.ready(deadline.ready_timeout());
        match deadline.remaining() {
            None => ready.await,
            Some(left) => tokio::time::timeout(left, ready).await.unwrap_or(false),
        }
    }

    /// Returns the error of a call without an instance: there is none, or its deadline passed.
    pub(super) fn not_ready(&self, deadline: CallDeadline) -> Error {
        let error = self.balance.no_endpoints();
        if !deadline.has_passed() {
            return error;
        }
        let cause = format!("no instance came before the deadline: {}", error.cause_text());
        Error::new(Kind::Timeout, "call to").app(self.name.clone()).cause(cause).with_source(error)
    }
}

impl<E: Clone + HasAddress + Send + Sync + 'static> Routes<E> {
    /// Returns the time limits of a request.
    pub(super) fn deadline<B>(&self, request: &Request<B>) -> CallDeadline {
        let CallOptions { deadline_header, timeout, wait_for_ready, .. } = &*self.options;
        CallDeadline::of(request, deadline_header.as_ref(), *timeout).with_ready_timeout(*wait_for_ready)
    }
}

impl<E> fmt::Debug for Routes<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: usize = self.routes.iter().map(|routes| routes.load().len()).sum();
        f.debug_struct("Routes").field("names", &names).field("options", &self.options).finish_non_exhaustive()
    }
}
