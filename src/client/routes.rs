//! Routes: the applications that are called, each with a balancer.

mod closing;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::uri::Authority;
use http::{Request, Uri};
use tokio::sync::watch;
use tokio::time::Instant;

use super::address::AddressRule;
use super::budget::Budget;
use super::connection::{Endpoint, InstanceTransport, RequestBody};
use super::deadline::CallDeadline;
use super::instances::{Callable, CallerSiblings, Instances, RouteOptions};
use super::options::{AnyPolicy, CallOptions, InstanceScheme, Ports, UnknownName};
use super::presence::Presence;
use crate::balance::{Balance, Snapshot};
use crate::cache::RegistryCache;
use crate::discover::Explanation;
use crate::error::{Error, Kind};
use crate::metrics::Metrics;
use crate::model::app_name;
use crate::sync::Mutex;

/// Number of names from which names without an instance are removed when another one is added.
const MAX_NAMES: usize = 256;

/// Finds the route of a request: the balancer of the application that its URI names.
///
/// `E` is the endpoint service, which sends a request to one instance.
pub(super) struct Routes<E> {
    registry: Arc<RegistryCache>,
    /// Returns the rule of addresses that follows from options.
    rule: fn(&CallOptions) -> AddressRule,
    /// Applied to the options of each application.
    prepare: Option<Prepare>,
    ready_timeout: Duration,
    make: MakeEndpoint<E>,
    probe: Option<Probe<E>>,
    /// Health check, used if the options enable it.
    check: Option<Probe<E>>,
    table: ArcSwap<Table<E>>,
    /// Held while new options are applied to the balancers.
    applying: Mutex<()>,
}

/// Options of all applications, and the routes that were made with them.
struct Table<E> {
    options: Arc<CallOptions>,
    /// For `http` and `https`. The keys are names, hosts and authorities as callers write them.
    routes: [RouteMap<E>; 2],
    /// True once the client is closed. No route is added from then on.
    is_closed: bool,
}

/// A tree, since comparing a few names costs less than hashing one.
type RouteMap<E> = BTreeMap<Box<str>, Arc<Route<E>>>;

/// Makes the endpoint service of an instance.
pub(super) type MakeEndpoint<E> = Arc<dyn Fn(Arc<Presence>, &CallOptions) -> E + Send + Sync>;
pub(super) type Probe<E> = Arc<dyn Fn(E) -> ProbeFuture + Send + Sync>;
type ProbeFuture = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Changes the options of an application as the client requires.
pub(super) type Prepare = Arc<dyn Fn(CallOptions) -> CallOptions + Send + Sync>;

/// An application that is called, with its balancer.
///
/// It is replaced when options change. Calls in flight keep the one that they began with, which
/// shares the endpoints with its successor.
#[derive(Clone)]
pub(super) struct Route<E> {
    pub(super) name: Arc<str>,
    pub(super) options: Arc<CallOptions>,
    pub(super) balance: Balance<E, AnyPolicy>,
    pub(super) budget: Arc<Budget>,
    pub(super) metrics: Metrics,
    registry: Arc<RegistryCache>,
    is_secure: bool,
    /// The options in force, for the instances. Shared with the route's successors.
    in_force: Arc<watch::Sender<Arc<RouteOptions>>>,
}

/// Returns `true` if a URI requires TLS. `None` for schemes that do not name applications.
pub(super) fn is_secure(uri: &Uri) -> Option<bool> {
    match uri.scheme_str()? {
        "http" | "lb" | "ws" => Some(false),
        "https" | "wss" => Some(true),
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
        ready_timeout: Duration,
        transport: InstanceTransport,
    ) -> Self {
        let make = move |presence, options: &CallOptions| Endpoint::new(presence, &transport, options);
        let probe = move |endpoint: Endpoint<B>| -> ProbeFuture { Box::pin(endpoint.probe()) };
        let check = move |endpoint: Endpoint<B>| -> ProbeFuture { Box::pin(endpoint.check()) };
        let routes = Self::new(registry, options, AddressRule::of, ready_timeout, Arc::new(make));
        Self { probe: Some(Arc::new(probe)), check: Some(Arc::new(check)), ..routes }
    }
}

impl<E> Routes<E> {
    /// Makes routes whose endpoints are neither probed nor checked.
    pub(super) fn new(
        registry: Arc<RegistryCache>,
        options: CallOptions,
        rule: fn(&CallOptions) -> AddressRule,
        ready_timeout: Duration,
        make: MakeEndpoint<E>,
    ) -> Self {
        let table =
            ArcSwap::from_pointee(Table { options: Arc::new(options), routes: Default::default(), is_closed: false });
        let (probe, check, prepare, applying) = (None, None, None, Mutex::default());
        Self { registry, rule, prepare, ready_timeout, make, probe, check, table, applying }
    }

    /// Changes the options of each application, whatever they are.
    #[cfg(feature = "tonic")]
    pub(super) fn prepare(self, prepare: Prepare) -> Self {
        Self { prepare: Some(prepare), ..self }
    }

    /// Returns the options of the application with this name in upper case.
    fn options_of(&self, options: &CallOptions, name: &str) -> Arc<CallOptions> {
        let mut options = options.for_application(name);
        if let Some(prepare) = &self.prepare {
            options = prepare(options);
        }
        if self.check.is_none() {
            options.health_check.interval = None;
        }
        Arc::new(options)
    }

    /// Returns the rule of addresses that follows from options.
    fn rule_of(&self, options: &CallOptions, is_secure: bool) -> AddressRule {
        let mut rule = (self.rule)(options);
        if is_secure {
            rule.ports = Ports::Secure;
            // A caller that asks for TLS gets it.
            if rule.scheme == InstanceScheme::Http {
                rule.scheme = InstanceScheme::OfPort;
            }
        }
        rule
    }
}

impl<E: Clone + Send + Sync + 'static> Routes<E> {
    /// Returns the route of a request if the same authority was called before.
    pub(super) fn cached<B>(&self, request: &Request<B>) -> Option<Arc<Route<E>>> {
        let authority = request.uri().authority()?;
        let secure = is_secure(request.uri())?;
        let table = self.table.load();
        if table.options.passes_through(authority) {
            return None;
        }
        table.routes[usize::from(secure)].get(authority.as_str()).cloned()
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
        if self.table.load().options.passes_through(authority) {
            return Ok(Target::PassThrough);
        }
        match (is_secure(uri), uri.scheme()) {
            (Some(secure), _) => Ok(Target::Named(self.route_as_written(authority, secure)?)),
            (None, Some(_)) => unusable("only http://, https://, lb://, ws:// and wss:// name applications"),
            (None, None) => unusable("the URI is not absolute"),
        }
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
        let table = self.table.load();
        let routes = &table.routes[usize::from(secure)];
        if let Some(route) = routes.get(host) {
            return Ok(route.clone());
        }
        let name = app_name(host.trim());
        let route = match routes.get(&*name) {
            Some(route) => route.clone(),
            None => self.make_route(&name, secure)?,
        };
        self.cache_spelling(host, &route, secure);
        Ok(route)
    }

    fn make_route(&self, name: &Arc<str>, secure: bool) -> Result<Arc<Route<E>>, Error> {
        loop {
            self.check_open(name)?;
            let options = self.table.load().options.clone();
            let made = Arc::new(self.new_route(name, secure, &options)?);
            self.change_table(|table| {
                // Options that were replaced meanwhile would stay in force for this route.
                if table.is_closed || !Arc::ptr_eq(&table.options, &options) {
                    return;
                }
                let routes = &mut table.routes[usize::from(secure)];
                if routes.iter().filter(|(key, route)| ***key == *route.name).count() >= MAX_NAMES {
                    routes.retain(|_, route| !route.balance.is_empty());
                }
                // A concurrent call may have inserted its own route, which is kept.
                routes.entry((&**name).into()).or_insert_with(|| made.clone());
            });
            if let Some(route) = self.table.load().routes[usize::from(secure)].get(&**name) {
                return Ok(route.clone());
            }
        }
    }

    fn new_route(&self, name: &Arc<str>, is_secure: bool, options: &CallOptions) -> Result<Route<E>, Error> {
        let options = self.options_of(options, name);
        options.selection_of(name).check()?;
        let rule = self.rule_of(&options, is_secure);
        let in_force = Arc::new(watch::Sender::new(Arc::new(RouteOptions::new(options.clone(), rule))));
        let balance = self.balance(name.clone(), &in_force);
        balance.reconfigure(&options.reconfiguration(self.ready_timeout));
        Ok(Route {
            name: name.clone(),
            balance: balance.with(options.effective_policy(), options.responses.clone()),
            budget: Arc::new(options.retry.new_budget()),
            metrics: Metrics::new(Some(name)),
            options,
            registry: self.registry.clone(),
            is_secure,
            in_force,
        })
    }

    /// Caches a route under another spelling of its name, up to a limit.
    fn cache_spelling(&self, spelling: &str, route: &Arc<Route<E>>, secure: bool) {
        let secure = usize::from(secure);
        let is_missing = |routes: &RouteMap<E>| routes.len() < 2 * MAX_NAMES && !routes.contains_key(spelling);
        if is_missing(&self.table.load().routes[secure]) {
            self.change_table(|table| {
                // The route may have been replaced or removed meanwhile.
                if is_missing(&table.routes[secure])
                    && let Some(route) = table.routes[secure].get(&*route.name).cloned()
                {
                    table.routes[secure].insert(spelling.into(), route);
                }
            });
        }
    }

    /// Replaces the table by a changed copy. The change may be made several times.
    fn change_table(&self, change: impl Fn(&mut Table<E>)) {
        self.table.rcu(|table| {
            let Table { options, routes, is_closed } = &**table;
            let mut table = Table { options: options.clone(), routes: routes.clone(), is_closed: *is_closed };
            change(&mut table);
            table
        });
    }

    /// Returns the options of all applications.
    pub(super) fn options(&self) -> Arc<CallOptions> {
        self.table.load().options.clone()
    }

    /// Replaces the options by the result of `change`, which may be called several times. Endpoints
    /// and their measurements are kept.
    ///
    /// A route whose selection is invalid now is removed. The next call makes it again and returns
    /// the error.
    pub(super) fn update_options(&self, change: impl Fn(CallOptions) -> CallOptions) {
        self.table.rcu(|table| {
            let own_zone = table.options.own_zone.as_ref();
            let options = Arc::new(change(CallOptions::clone(&table.options)).or_own_zone(own_zone));
            // A route may be cached in several spellings.
            let mut successors = HashMap::new();
            let mut successor = |route: &Arc<Route<E>>| {
                let entry = successors.entry(Arc::as_ptr(route));
                entry.or_insert_with(|| self.successor(route, &options)).clone()
            };
            let mut replaced = |routes: &RouteMap<E>| -> RouteMap<E> {
                routes.iter().filter_map(|(key, route)| Some((key.clone(), successor(route)?))).collect()
            };
            let routes = [replaced(&table.routes[0]), replaced(&table.routes[1])];
            Table { options, routes, is_closed: table.is_closed }
        });
        self.apply_options();
    }

    /// Returns the successor of a route, with other options. `None` if no instance can ever match
    /// its selection.
    fn successor(&self, route: &Arc<Route<E>>, options: &CallOptions) -> Option<Arc<Route<E>>> {
        let options = self.options_of(options, &route.name);
        options.selection_of(&route.name).check().ok()?;
        let budget = if options.retry.has_budget_of(&route.options.retry) {
            route.budget.clone()
        } else {
            Arc::new(options.retry.new_budget())
        };
        let balance = route.balance.with(options.effective_policy(), options.responses.clone());
        Some(Arc::new(Route { options, balance, budget, ..Route::clone(route) }))
    }

    /// Applies the options of the routes to their balancers. The latest options win, whichever
    /// update ends last.
    fn apply_options(&self) {
        let _applying = self.applying.lock();
        for route in self.distinct_routes() {
            let Route { options, balance, in_force, is_secure, .. } = &*route;
            let rule = self.rule_of(options, *is_secure);
            in_force.send_modify(|route| *route = Arc::new(route.replaced(options.clone(), rule)));
            balance.reconfigure(&options.reconfiguration(self.ready_timeout));
        }
    }

    /// Returns each route once, ordered by name.
    fn distinct_routes(&self) -> Vec<Arc<Route<E>>> {
        let table = self.table.load();
        let mut routes: Vec<_> = table.routes.iter().flat_map(BTreeMap::values).cloned().collect();
        // A route may be cached in several spellings.
        routes.sort_by_key(|route| (route.name.clone(), Arc::as_ptr(route)));
        routes.dedup_by(|a, b| Arc::ptr_eq(a, b));
        routes
    }

    /// Returns `true` if instances come from this registry.
    pub(super) fn is_over(&self, registry: &Arc<RegistryCache>) -> bool {
        Arc::ptr_eq(&self.registry, registry)
    }

    /// Returns a snapshot of each application that was called.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        self.distinct_routes().iter().map(|route| route.balance.snapshot()).collect()
    }

    /// Makes the balancer of an application. The options that may change are applied by
    /// [`Balance::reconfigure`].
    fn balance(&self, name: Arc<str>, in_force: &Arc<watch::Sender<Arc<RouteOptions>>>) -> Balance<E> {
        let instances = Instances::new(self.registry.clone(), name.clone(), in_force);
        let explain = {
            let (registry, options, name) = (self.registry.clone(), in_force.subscribe(), name.clone());
            move || {
                // Without the lock, since selections are the user's code.
                let route = options.borrow().clone();
                let RouteOptions { options, rule, .. } = &*route;
                let explanation = Explanation::of(&options.selection_of(&name), &registry);
                explanation.exclude(|instance| rule.address(instance).err()).to_string()
            }
        };
        let (make, registry) = (self.make.clone(), Arc::downgrade(&self.registry));
        let mut builder = Balance::builder(instances)
            .name(name)
            .explain(explain)
            .attributes(Callable::attributes)
            .endpoint(move |Callable { record, route }: &Callable| {
                let RouteOptions { options, rule, .. } = &**route;
                let grace = options.removal_grace;
                make(Presence::new(record.clone(), rule.clone(), registry.clone(), grace), options)
            })
            .siblings(CallerSiblings::new(self.registry.clone(), in_force));
        if let Some(probe) = self.probe.clone() {
            builder = builder.probe(move |endpoint| probe(endpoint));
        }
        if let Some(check) = self.check.clone() {
            builder = builder.checker(move |endpoint| check(endpoint));
        }
        builder.build()
    }
}

impl<E: Send + Sync + 'static> Route<E> {
    /// Returns `true` if there is an instance to call.
    pub(super) fn is_ready(&self) -> bool {
        !self.balance.is_empty()
    }

    /// Waits for an instance. Fails if there was none in time, or at once for an unknown name if
    /// the options say so.
    pub(super) async fn ready(&self, deadline: CallDeadline) -> Result<(), Error> {
        self.record_use();
        let ready = self.balance.ready(deadline.ready_timeout());
        let ready = async {
            tokio::select! {
                biased;
                is_ready = ready => is_ready,
                () = self.name_is_unknown() => false,
            }
        };
        let is_ready = match deadline.remaining() {
            None => ready.await,
            Some(left) => tokio::time::timeout(left, ready).await.unwrap_or(false),
        };
        if is_ready { Ok(()) } else { Err(self.not_ready(deadline)) }
    }

    /// Waits until a fetched registry has no instance under the name. Never returns unless the
    /// options make such calls fail.
    async fn name_is_unknown(&self) {
        if self.options.unknown_name == UnknownName::Fail {
            self.options.selection_of(&self.name).wait_until_unknown(&self.registry).await;
        } else {
            std::future::pending().await
        }
    }

    /// Returns the error of a call without an instance: there is none, or its deadline passed.
    fn not_ready(&self, deadline: CallDeadline) -> Error {
        let error = self.balance.no_endpoints();
        if !deadline.has_passed() {
            return error;
        }
        let cause = format!("no instance came before the deadline: {}", error.cause_text());
        Error::new(Kind::Timeout, "call to").app(self.name.clone()).cause(cause).with_source(error)
    }
}

impl<E> Route<E> {
    /// Records a use without a call to an instance, so that the route is not idle.
    pub(super) fn record_use(&self) {
        self.budget.touch(Instant::now());
    }

    /// Returns the time limits of a request that is sent now.
    pub(super) fn deadline<B>(&self, request: &Request<B>) -> CallDeadline {
        self.options.deadline(request, Instant::now)
    }

    /// Returns the time limits of a request that was sent at this time.
    pub(super) fn deadline_since<B>(&self, request: &Request<B>, since: Instant) -> CallDeadline {
        self.options.deadline(request, || since)
    }
}

impl<E> fmt::Debug for Routes<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table.load();
        let names: usize = table.routes.iter().map(BTreeMap::len).sum();
        f.debug_struct("Routes").field("names", &names).field("options", &table.options).finish_non_exhaustive()
    }
}
