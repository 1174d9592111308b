//! The applications that are called, each with its balancer.

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
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tower::discover::Change;

use super::address::{Address, AddressRule};
use super::budget::Budget;
use super::connection::health_url;
use super::deadline::CallDeadline;
use super::options::{AnyPolicy, CallOptions, Ports};
use super::presence::Presence;
use crate::balance::{Attributes, Balance, Siblings, Snapshot};
use crate::cache::{Lookup, RegistryCache};
use crate::discover::{EurekaDiscover, Selection};
use crate::error::{Error, Kind};
use crate::metrics::Metrics;
use crate::model::Instance;

/// From so many names on, those without an instance are forgotten when another one comes.
const MANY_NAMES: usize = 256;

/// Routes by name: finds the balancer of the application that a request is for. What is done with an instance once it is picked is up
/// to `E`.
pub(super) struct Routes<E> {
    registry: Arc<RegistryCache>,
    options: Arc<CallOptions>,
    rule: AddressRule,
    ready_timeout: Duration,
    make: MakeEndpoint<E>,
    probe: Option<Probe<E>>,
    /// Asks an instance for its health, where the options want that.
    check: Option<Probe<E>>,
    /// By the name, and by the host and authority as they are written, apart for `http` and `https`.
    routes: [ArcSwap<RouteMap<E>>; 2],
}

/// Makes the endpoint of an instance.
pub(super) type MakeEndpoint<E> = Arc<dyn Fn(Arc<Presence>) -> E + Send + Sync>;
pub(super) type Probe<E> = Arc<dyn Fn(E) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// A tree, since a look at a few names costs less than the hash of one.
type RouteMap<E> = BTreeMap<Box<str>, Arc<Route<E>>>;

/// Something to send requests to, at a known place.
pub(super) trait HasAddress {
    /// Whether one service is below all instances, so that waiting until it is ready is no fault of the one that was picked.
    const IS_SHARED: bool = false;

    fn address(&self) -> &Address;
}

/// One application that is being called.
pub(super) struct Route<E> {
    pub(super) name: Arc<str>,
    pub(super) options: Arc<CallOptions>,
    pub(super) balance: Balance<E, AnyPolicy>,
    pub(super) budget: Budget,
    pub(super) metrics: Metrics,
}

/// Whether a URI asks for TLS, if its scheme leads to instances.
fn is_secure(uri: &Uri) -> Option<bool> {
    match uri.scheme_str()? {
        "http" | "lb" => Some(false),
        "https" => Some(true),
        _ => None,
    }
}

/// Where a request goes.
pub(super) enum Target<E> {
    /// To an application.
    Named(Arc<Route<E>>),
    /// To something else, which the user wants left alone.
    PassThrough,
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

    /// The route of a request's application, if that was called before by this very authority.
    pub(super) fn cached<B>(&self, request: &Request<B>) -> Option<Arc<Route<E>>> {
        let authority = request.uri().authority()?;
        let secure = is_secure(request.uri())?;
        if self.is_passed_through(authority) {
            return None;
        }
        self.routes[usize::from(secure)].load().get(authority.as_str()).cloned()
    }

    /// Whom a request is for, by its URI.
    pub(super) fn target<B>(&self, request: &Request<B>) -> Result<Target<E>, Error> {
        let uri = request.uri();
        let unusable = |cause: &'static str| {
            // Not the whole URI, which may hold secrets.
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
            (None, Some(_)) => unusable("only http://, https:// and lb:// lead to instances"),
            (None, None) => unusable("the URI is not absolute"),
        }
    }

    fn is_passed_through(&self, authority: &Authority) -> bool {
        self.options.pass_through.as_ref().is_some_and(|is_passed_through| is_passed_through(authority.host()))
    }

    /// The route of the application that an authority names, which is remembered in this spelling as well.
    fn route_as_written(&self, authority: &Authority, secure: bool) -> Result<Arc<Route<E>>, Error> {
        let route = self.route(authority.host(), secure)?;
        // A password is not kept.
        if !authority.as_str().contains('@') {
            self.remember(authority.as_str(), &route, secure);
        }
        Ok(route)
    }

    /// The route of an application, made at its first call.
    pub(super) fn route(&self, host: &str, secure: bool) -> Result<Arc<Route<E>>, Error> {
        let routes = &self.routes[usize::from(secure)];
        if let Some(route) = routes.load().get(host) {
            return Ok(route.clone());
        }
        let selection = Selection::name(host);
        selection.check()?;
        let known = routes.load().get(selection.looked_up()).cloned();
        let route = known.unwrap_or_else(|| self.make_route(selection, secure));
        self.remember(host, &route, secure);
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
            if routes.iter().filter(|(key, route)| ***key == *route.name).count() >= MANY_NAMES {
                routes.retain(|_, route| !route.balance.is_empty());
            }
            // Another call may have made it meanwhile: the first one in stays.
            routes.entry((&*name).into()).or_insert_with(|| made.clone());
            routes
        });
        routes.load().get(&*name).unwrap_or(&made).clone()
    }

    /// Knows a route by another spelling of its name, for speed, but not without end.
    fn remember(&self, spelling: &str, route: &Arc<Route<E>>, secure: bool) {
        let routes = &self.routes[usize::from(secure)];
        let is_of_use = |routes: &RouteMap<E>| routes.len() < 2 * MANY_NAMES && !routes.contains_key(spelling);
        if is_of_use(&routes.load()) {
            routes.rcu(|routes| {
                let mut routes = RouteMap::clone(routes);
                if is_of_use(&routes) {
                    routes.insert(spelling.into(), route.clone());
                }
                routes
            });
        }
    }

    /// What is known of each application that was called.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let routes = self.routes.iter().flat_map(|routes| routes.load().values().cloned().collect::<Vec<_>>());
        let mut routes: Vec<_> = routes.collect();
        // A name may be known in several spellings.
        routes.sort_by_key(|route| (route.name.clone(), Arc::as_ptr(route)));
        routes.dedup_by(|a, b| Arc::ptr_eq(a, b));
        routes.iter().map(|route| route.balance.snapshot()).collect()
    }

    fn balance(&self, selection: Selection, name: Arc<str>, rule: AddressRule) -> Balance<E, AnyPolicy> {
        let discover = EurekaDiscover::new(self.registry.clone(), selection);
        let explainer = discover.explainer();
        let why = rule.clone();
        let explain = move || explainer.explain().exclude(|instance| why.address(instance).err()).to_string();
        let (address_rule, registry, grace) =
            (rule.clone(), Arc::downgrade(&self.registry), self.options.removal_grace);
        // What cannot be called is no endpoint: an instance that changes so is removed.
        let http2 = self.options.http2.clone();
        let is_checked = self.options.health_check.is_some() && self.check.is_some();
        let callable = discover.map(move |change| {
            let change = change?;
            Ok::<_, Infallible>(match change {
                Change::Insert(id, instance) => match rule.address(&instance) {
                    Ok(address) => {
                        let http2 = http2.is_for(&instance);
                        Change::Insert(id, Callable { instance, address, http2, is_checked })
                    }
                    Err(_) => Change::Remove(id),
                },
                Change::Remove(id) => Change::Remove(id),
            })
        });
        let make = self.make.clone();
        let mut builder = Balance::builder(callable)
            .name(name)
            .ready_timeout(self.ready_timeout)
            .explain(explain)
            .ejection(self.options.ejection.clone())
            .labels(self.options.labels.iter().cloned())
            .policy(self.options.policy.clone())
            .observer(self.options.responses.clone())
            .attributes(Callable::attributes)
            .endpoint(move |Callable { instance, address, .. }: &Callable| {
                let (rule, registry) = (address_rule.clone(), registry.clone());
                make(Presence::new(instance.clone(), address.clone(), rule, registry, grace))
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
            builder = builder.siblings(
                siblings.map(move |app| app.first().map_or_else(Siblings::default, |app| Siblings::of(app, &id))),
            );
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

/// An instance with the address that it is called at.
struct Callable {
    instance: Arc<Instance>,
    address: Address,
    http2: bool,
    is_checked: bool,
}

impl Callable {
    fn attributes(&self) -> Attributes {
        let Address { scheme, authority } = &self.address;
        // Whoever checks an endpoint goes by the instance it was made of.
        let checked = if self.is_checked { health_url(&self.instance, &self.address) } else { None };
        let checked = checked.map_or_else(String::new, |url| format!(" {url}"));
        let version = if self.http2 { " h2" } else { "" };
        let address = format!("{scheme}://{authority}{version}{checked}");
        Attributes::of(&self.instance).with_address(address)
    }
}

impl<E: Send + Sync + 'static> Route<E> {
    /// Whether there is an instance to call.
    pub(super) fn is_ready(&self) -> bool {
        !self.balance.is_empty()
    }

    /// Waits for a first instance and tells whether there is one.
    pub(super) async fn ready(&self, deadline: CallDeadline) -> bool {
        let ready = self.balance.ready(deadline.ready_timeout());
        match deadline.remaining() {
            None => ready.await,
            Some(left) => tokio::time::timeout(left, ready).await.unwrap_or(false),
        }
    }

    /// Why a call found no instance: there is none, or its time was over before there was one.
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
