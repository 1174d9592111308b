use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tower::discover::Change;
use tower::{BoxError, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, debug_span};

use super::address::{Address, AddressRule};
use super::attempts::{AttemptBody, Attempts};
use super::deadline::Clockwork;
use super::health;
use super::options::{AnyPolicy, CallOptions, HostHeader, Http2, Ports};
use super::retry::Allowance;
use crate::balance::{
    Attributes, Balance, CallFuture, EndpointId, HttpResponses, Peers, Picked, ResponseBody, Snapshot,
};
use crate::clock::LONGEST_WAIT;
use crate::discover::{EurekaDiscover, Selection};
use crate::error::{Error, Kind};
use crate::meters::Meters;
use crate::model::{Instance, InstanceChange};
use crate::registry::{Lookup, Registry};
use crate::timer::Backoff;

/// How long a call goes on looking for an instance that can be connected to.
const CONNECT_BUDGET: Duration = Duration::from_secs(10);

/// From so many names on, those without an instance are forgotten when another one comes.
const MANY_NAMES: usize = 256;

/// Calls by name: finds the balancer of the application, and sees a request through to its answer. What is done with an instance
/// once it is picked is up to `E`.
pub(super) struct Calls<E> {
    registry: Arc<Registry>,
    options: CallOptions,
    rule: AddressRule,
    ready_timeout: Duration,
    make: Make<E>,
    probe: Option<Probe<E>>,
    /// Asks an instance for its health, where the options want that.
    check: Option<Probe<E>>,
    /// By the host as it is written, apart for `http` and `https`.
    routes: [ArcSwap<Routes<E>>; 2],
}

pub(super) type Make<E> = Arc<dyn Fn(&Arc<Instance>, Address) -> E + Send + Sync>;
pub(super) type Probe<E> = Arc<dyn Fn(E) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

type Routes<E> = HashMap<Box<str>, Arc<Route<E>>>;

/// Something to send requests to, at a known place.
pub(super) trait AtAddress {
    fn address(&self) -> &Address;
}

/// One application that is being called.
pub(super) struct Route<E> {
    name: Arc<str>,
    balance: Balance<E, AnyPolicy>,
    retries: Allowance,
    meters: Meters,
}

/// What the requests of a client look like to its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// An application, to be called over TLS if it must be.
    Named { host: &'a str, secure: bool },
    /// Something else that the user wants left alone.
    Other,
}

impl<E: Clone + Send + Sync + 'static> Calls<E> {
    pub(super) fn new(
        registry: Arc<Registry>,
        options: CallOptions,
        rule: AddressRule,
        ready_timeout: Duration,
        make: Make<E>,
        probe: Option<Probe<E>>,
        check: Option<Probe<E>>,
    ) -> Self {
        Self { registry, options, rule, ready_timeout, make, probe, check, routes: Default::default() }
    }

    /// Whom a request is for.
    pub(super) fn target<'a, B>(&self, request: &'a Request<B>) -> Result<Target<'a>, Error> {
        let uri = request.uri();
        // Not the whole URI, which may hold secrets.
        let app = uri.host().unwrap_or_else(|| uri.path());
        let unusable = |cause: &'static str| {
            let advice = "write http://orders/path";
            Err(Error::new(Kind::Config, "call").app(app).cause(cause).advice(advice))
        };
        let Some(host) = uri.host() else { return unusable("the URI has no host") };
        if self.options.pass_through.as_ref().is_some_and(|is_other| is_other(host)) {
            return Ok(Target::Other);
        }
        match uri.scheme_str() {
            Some("http" | "lb") => Ok(Target::Named { host, secure: false }),
            Some("https") => Ok(Target::Named { host, secure: true }),
            Some(_) => unusable("only http://, https:// and lb:// lead to instances"),
            None => unusable("the URI is not absolute"),
        }
    }

    /// The route of an application, made at its first call.
    pub(super) fn route(&self, host: &str, secure: bool) -> Result<Arc<Route<E>>, Error> {
        let routes = &self.routes[usize::from(secure)];
        if let Some(route) = routes.load().get(host) {
            return Ok(route.clone());
        }
        let selection = Selection::name(host);
        selection.check()?;
        let name = Arc::<str>::from(selection.looked_up());
        if let Some(route) = routes.load().get(&*name).filter(|_| routes.load().len() >= MANY_NAMES) {
            return Ok(route.clone());
        }
        let mut rule = self.rule.clone();
        if secure {
            rule.ports = Ports::Secure;
        }
        let known = routes.load().get(&*name).cloned();
        let made = known.unwrap_or_else(|| {
            let balance = self.balance(selection, name.clone(), rule);
            let meters = Meters::new(Some(&name));
            Arc::new(Route { name, balance, retries: self.options.retry.new_budget(), meters })
        });
        // Another call may have made it meanwhile: the first one in stays.
        routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            if routes.len() >= MANY_NAMES {
                routes.retain(|_, route| !route.balance.is_empty());
            }
            let first = routes.entry((&*made.name).into()).or_insert_with(|| made.clone()).clone();
            // Other spellings are known as well, for speed, but not without end.
            if routes.len() < MANY_NAMES {
                routes.entry(host.into()).or_insert(first);
            }
            routes
        });
        Ok(routes.load().get(&*made.name).unwrap_or(&made).clone())
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
        let explainer = discover.explain_later();
        let why = rule.clone();
        let explain = move || explainer.explain().exclude(|instance| why.address(instance).err()).to_string();
        // What cannot be called is no endpoint: an instance that changes so is removed.
        let mut starts = Starts::default();
        let http2 = self.options.http2.clone();
        let is_checked = self.options.health_check.is_some() && self.check.is_some();
        let callable = discover.map(move |change| {
            let change = change?;
            Ok::<_, Infallible>(match change {
                Change::Insert(id, instance) => match rule.address(&instance) {
                    Ok(address) => {
                        let start = starts.of(&id, &instance);
                        let http2 = http2.is_for(&instance);
                        Change::Insert(id, Callable { instance, address, http2, start, is_checked })
                    }
                    Err(_) => Change::Remove(id),
                },
                Change::Remove(id) => {
                    starts.forget(&id);
                    Change::Remove(id)
                }
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
            .endpoint(move |callable: &Callable| make(&callable.instance, callable.address.clone()));
        let CallOptions { zones, slow_start, subset, caller, .. } = &self.options;
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
            let peers = WatchStream::new(self.registry.follow(&Lookup::App(app)));
            builder =
                builder.peers(peers.map(move |app| app.first().map_or_else(Peers::default, |app| Peers::of(app, &id))));
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
    start: u64,
    is_checked: bool,
}

impl Callable {
    fn attributes(&self) -> Attributes {
        let Address { scheme, authority } = &self.address;
        // Whoever checks an endpoint goes by the instance it was made of.
        let checked = if self.is_checked { health::url(&self.instance, &self.address) } else { None };
        let checked = checked.map_or_else(String::new, |url| format!(" {url}"));
        let version = if self.http2 { " h2" } else { "" };
        let address = format!("{scheme}://{authority}{version}{checked}");
        Attributes::of(&self.instance).with_start(self.start).with_address(address)
    }
}

/// Counts the starts of instances, as far as their records tell.
#[derive(Default)]
struct Starts(HashMap<Arc<str>, (Arc<Instance>, u64)>);

impl Starts {
    fn of(&mut self, id: &Arc<str>, instance: &Arc<Instance>) -> u64 {
        let (known, start) = self.0.entry(id.clone()).or_insert_with(|| (instance.clone(), 0));
        if instance.change_since(known) == InstanceChange::Restarted {
            *start += 1;
        }
        *known = instance.clone();
        *start
    }

    fn forget(&mut self, id: &Arc<str>) {
        self.0.remove(id);
    }
}

impl<E: Send + Sync + 'static> Route<E> {
    /// Waits for a first instance and tells whether there is one.
    pub(super) async fn is_ready(&self, clockwork: &Clockwork) -> bool {
        if !self.balance.is_empty() {
            return true;
        }
        let ready = self.balance.ready(clockwork.patience());
        let left = clockwork.left();
        Box::pin(async move {
            match left {
                None => ready.await,
                Some(left) => tokio::time::timeout(left, ready).await.unwrap_or(false),
            }
        })
        .await
    }

    /// Why a call found no instance: there is none, or its time was over before there was one.
    pub(super) fn not_ready(&self, clockwork: &Clockwork) -> Error {
        let error = self.balance.no_endpoints();
        if clockwork.left() != Some(Duration::ZERO) {
            return error;
        }
        let cause = format!("no instance came before the deadline: {}", error.cause_text());
        Error::new(Kind::Timeout, "call to").app(self.name.clone()).cause(cause).with_source(error)
    }
}

/// A call on its way through its tries.
struct Call<'a, E, B> {
    options: &'a CallOptions,
    route: &'a Route<E>,
    clockwork: &'a Clockwork,
    attempts: Attempts<B>,
    /// The `host` header that the instance is to get, if not its own.
    host: Option<HeaderValue>,
    tried: Vec<EndpointId>,
    /// How often the request was sent, as far as it can have been received.
    sent: usize,
    /// Since when no connection came about.
    unconnected: Option<Instant>,
    /// Between rounds in which no instance could be reached.
    pauses: Backoff,
}

type Answer<RB> = Response<ResponseBody<RB>>;

impl<E: Clone + AtAddress + Send + Sync + 'static> Calls<E> {
    pub(super) fn clockwork<B>(&self, request: &Request<B>) -> Clockwork {
        let CallOptions { deadline_header, timeout, patience, .. } = &self.options;
        Clockwork::of(request, deadline_header.as_ref(), *timeout).with_patience(*patience)
    }

    /// Sends a request until it is answered or there is no use in sending it again.
    pub(super) async fn send<B, RB>(
        &self,
        route: &Route<E>,
        request: Request<B>,
        clockwork: &Clockwork,
    ) -> Result<Answer<RB>, Error>
    where
        B: Body<Error: Into<BoxError>>,
        RB: Body,
        E: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>>,
    {
        let span = debug_span!(
            "eureka.call",
            otel.kind = "client",
            eureka.app = &*route.name,
            eureka.instance_id = Empty,
            server.address = Empty,
            server.port = Empty,
        );
        let is_http2 = request.version() == Version::HTTP_2 || self.options.http2 != Http2::AsRequested;
        let host = match self.options.host {
            HostHeader::Instance => None,
            HostHeader::Kept => request.headers().get(HOST).cloned().or_else(|| name_of(&request)),
        };
        let kept_bytes = self.options.retry.kept_bytes(request.method(), is_http2);
        route.retries.deposit();
        let mut call = Call {
            options: &self.options,
            route,
            clockwork,
            attempts: Attempts::new(request, kept_bytes),
            host,
            tried: Vec::new(),
            sent: 0,
            unconnected: None,
            pauses: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
        };
        call.run().instrument(span).await
    }
}

fn name_of<B>(request: &Request<B>) -> Option<HeaderValue> {
    HeaderValue::from_str(request.uri().host()?).ok()
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// With what the caller is to get.
    LastWord,
    /// Without anything sent.
    Unsent,
    /// With the request received, or perhaps, and this reason to send it again.
    Sent(&'static str),
}

impl<E, B> Call<'_, E, B>
where
    E: Clone + AtAddress + Send + Sync + 'static,
    B: Body<Error: Into<BoxError>>,
{
    async fn run<RB>(&mut self) -> Result<Answer<RB>, Error>
    where
        RB: Body,
        E: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>>,
    {
        if self.clockwork.left() == Some(Duration::ZERO) {
            let cause = "no time was left for the call";
            return Err(Error::new(Kind::Timeout, "call to").app(self.route.name.clone()).cause(cause));
        }
        let mut picked = self.pick().ok_or_else(|| self.route.balance.no_endpoints_for(&self.attempts.parts))?;
        loop {
            let result = match self.options.retry.hedge() {
                None => self.attempt(picked).await,
                // Boxed, as all that is rare: what is not moved about costs nothing.
                Some(delay) => Box::pin(self.hedged(picked, delay)).await,
            };
            match self.next(self.verdict(&result)).await {
                Some(next) => picked = next,
                None => return result,
            }
            if let Err(error) = result {
                debug!(%error, "trying another instance");
            }
        }
    }

    /// One try.
    fn attempt<RB>(&self, picked: Picked<E, HttpResponses>) -> CallFuture<E, Request<AttemptBody<B>>, HttpResponses>
    where
        E: Service<Request<AttemptBody<B>>, Response = Response<RB>>,
    {
        let mut parts = self.attempts.parts.clone();
        match &self.host {
            Some(host) if parts.version != Version::HTTP_2 => parts.headers.insert(HOST, host.clone()),
            _ => parts.headers.remove(HOST),
        };
        self.clockwork.pass_on(&mut parts.headers);
        let span = Span::current();
        if !span.is_disabled() {
            let Address { scheme, authority } = picked.service().address();
            let port = authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
            span.record("eureka.instance_id", picked.endpoint());
            span.record("server.address", authority.host());
            span.record("server.port", port);
        }
        let until = self.options.retry.time_of_a_try().map(|time| Instant::now() + time.min(LONGEST_WAIT));
        let deadline = [self.clockwork.deadline(), until].into_iter().flatten().min();
        picked.call_until(Request::from_parts(parts, self.attempts.body()), deadline)
    }

    /// One try, and another one beside it if that takes long: the first good answer counts.
    async fn hedged<RB>(&mut self, picked: Picked<E, HttpResponses>, delay: Duration) -> Result<Answer<RB>, Error>
    where
        RB: Body,
        E: Service<Request<AttemptBody<B>>, Response = Response<RB>, Error: Into<BoxError>>,
    {
        let mut first = pin!(self.attempt(picked));
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(delay) => {}
        }
        let retry = &self.options.retry;
        let may = retry.allows(&self.attempts.parts.method)
            && self.attempts.can_repeat()
            && self.sent + 1 < retry.most_attempts();
        let Some(picked) = (if may && self.may_spend("hedge") { self.pick() } else { None }) else {
            return first.await;
        };
        self.sent += 1;
        let mut second = pin!(self.attempt(picked));
        tokio::select! {
            result = &mut first => if self.is_good(&result) { result } else { second.await },
            result = &mut second => if self.is_good(&result) { result } else { first.await },
        }
    }

    /// Whether this is an answer that the policy takes.
    fn is_good<RB>(&self, result: &Result<Answer<RB>, Error>) -> bool {
        let Ok(answer) = result else { return false };
        let retry = &self.options.retry;
        if !retry.looks_at_answers() {
            return true;
        }
        let grpc_code = answer.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
        !retry.refuses(answer.status(), grpc_code)
    }

    /// What there is to do after this.
    fn verdict<RB>(&self, result: &Result<Answer<RB>, Error>) -> Verdict {
        if self.is_good(result) || !self.attempts.can_repeat() || self.clockwork.left() == Some(Duration::ZERO) {
            return Verdict::LastWord;
        }
        match result {
            Ok(_) => Verdict::Sent("refused"),
            Err(error) => match error.kind() {
                Kind::Connect => Verdict::Unsent,
                Kind::Call | Kind::Timeout => Verdict::Sent("lost"),
                _ => Verdict::LastWord,
            },
        }
    }

    /// The next instance to try, if there is any use in that.
    async fn next(&mut self, verdict: Verdict) -> Option<Picked<E, HttpResponses>> {
        let reason = match verdict {
            Verdict::LastWord => return None,
            Verdict::Unsent => return Box::pin(self.next_reachable()).await,
            Verdict::Sent(reason) => reason,
        };
        self.sent += 1;
        let retry = &self.options.retry;
        let may = retry.allows(&self.attempts.parts.method) && self.sent < retry.most_attempts();
        if !may || !self.may_spend(reason) {
            return None;
        }
        self.pick().or_else(|| {
            // It may have been the connection, not the instance, that was at its end.
            self.tried.clear();
            self.pick()
        })
    }

    /// The next instance for a request that was not sent. Where none is left, a caller who waits for one to be ready waits for one
    /// that can be reached, too.
    async fn next_reachable(&mut self) -> Option<Picked<E, HttpResponses>> {
        let patience = self.clockwork.patience().unwrap_or_default();
        let waited = self.unconnected.get_or_insert_with(Instant::now).elapsed();
        if waited >= CONNECT_BUDGET.max(patience) {
            return None;
        }
        self.route.meters.retried("unsent");
        if let Some(picked) = self.pick() {
            return Some(picked);
        }
        if waited >= patience {
            return None;
        }
        let pause = self.pauses.next().min(patience - waited);
        sleep(self.clockwork.left().map_or(pause, |left| left.min(pause))).await;
        self.tried.clear();
        self.pick()
    }

    /// Whether there is budget for one more try.
    fn may_spend(&self, reason: &'static str) -> bool {
        let may = self.route.retries.withdraw();
        if may {
            self.route.meters.retried(reason);
        } else {
            self.route.meters.over_budget();
        }
        may
    }

    fn pick(&mut self) -> Option<Picked<E, HttpResponses>> {
        let picked = self.route.balance.pick(&self.attempts.parts, &self.tried)?;
        self.tried.push(picked.id());
        Some(picked)
    }
}

impl<E> fmt::Debug for Calls<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: usize = self.routes.iter().map(|routes| routes.load().len()).sum();
        f.debug_struct("Calls").field("names", &names).field("options", &self.options).finish_non_exhaustive()
    }
}
