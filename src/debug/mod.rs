//! A page for operators: the registry as this process has it, and its balancers.
//!
//! ```text
//!  Eureka ─ status, snapshot ─┐
//!                             ├─▶ View ─▶ JSON (json.rs), or a page (page.rs, html.rs)
//!  clients ─ snapshots ───────┘
//! ```
//!
//! [`DebugService`] is a tower [`Service`], so it fits into any server. In axum:
//!
//! ```no_run
//! use tower_eureka::Eureka;
//! use tower_eureka::debug::DebugService;
//!
//! # fn example(eureka: &Eureka) -> axum::Router {
//! axum::Router::new().route_service("/debug", DebugService::new(eureka))
//! # }
//! ```

mod html;
mod json;
mod page;

use std::convert::Infallible;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use tower::Service;

use crate::Eureka;
use crate::balance::{self, EndpointState};
use crate::cache::{RegistryStatus, Snapshot};
use crate::model::{Application, Instance};

/// Maximum number of instances in one response. Further ones are only counted.
const MAX_INSTANCES: usize = 1_000;

/// Response body of a [`DebugService`].
pub type DebugBody = Full<Bytes>;

/// Service that shows the registry as this process has it: the status of the refresh, the
/// applications with their instances, and the balancers of all HTTP clients, channels and layers.
///
/// A request that accepts `text/html`, as those of browsers do, gets a page without scripts or
/// external parts. Any other gets JSON. The query `?application=ORDERS` selects one application
/// with all details of its instances, and `?format=json` or `?format=html` one form. A response has
/// at most 1,000 instances, and the number of the others.
///
/// Text from the registry is escaped. The credentials of registry servers are not part of it.
/// Metadata whose key names a secret, such as `user.password`, and the credentials in URLs are
/// replaced by `***`. Addresses and the other metadata are shown, so serve it where only operators
/// have access.
///
/// The service never starts the refresh, and it never waits. It is always ready, and cheap to
/// clone. Its cost grows with the number of instances that it shows.
#[derive(Clone)]
pub struct DebugService(Arc<Inner>);

struct Inner {
    eureka: Eureka,
    sources: Vec<Source>,
}

/// Balancers that the user adds.
#[derive(Clone)]
struct Source {
    name: Arc<str>,
    snapshots: Arc<dyn Fn() -> Vec<balance::Snapshot> + Send + Sync>,
}

impl DebugService {
    /// Creates a service that shows this client of the registry.
    pub fn new(eureka: &Eureka) -> Self {
        Self(Arc::new(Inner { eureka: eureka.clone(), sources: Vec::new() }))
    }

    /// Shows further balancers under this name, for example a
    /// [`Balance`](crate::balance::Balance) that the program has built itself. The clients that the
    /// [`Eureka`] has created are shown without it.
    ///
    /// `snapshots` is called for each request.
    #[must_use]
    pub fn balancers(
        self,
        name: impl Into<Arc<str>>,
        snapshots: impl Fn() -> Vec<balance::Snapshot> + Send + Sync + 'static,
    ) -> Self {
        let source = Source { name: name.into(), snapshots: Arc::new(snapshots) };
        let sources = self.0.sources.iter().cloned().chain([source]).collect();
        Self(Arc::new(Inner { eureka: self.0.eureka.clone(), sources }))
    }

    fn respond<B>(&self, request: &Request<B>) -> Response<DebugBody> {
        let is_head = request.method() == Method::HEAD;
        if request.method() != Method::GET && !is_head {
            let mut response = Response::new(DebugBody::default());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let query = Query::of(request.uri().query().unwrap_or_default());
        let (eureka, snapshot) = (&self.0.eureka, self.0.eureka.fetched_snapshot());
        let view = View::of(eureka.status(), &snapshot, self.balancers_now(), query.application.as_deref());
        let is_html = query.is_html.unwrap_or_else(|| accepts_html(request.headers()));
        let (content_type, content) = if is_html {
            ("text/html; charset=utf-8", page::page(&view))
        } else {
            ("application/json", json::json(&view).to_string())
        };
        let length = HeaderValue::from(content.len());
        let mut response = Response::new(if is_head { DebugBody::default() } else { content.into() });
        if view.is_unknown() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_LENGTH, length);
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// Returns the balancers of the clients and those that the user has added.
    fn balancers_now(&self) -> Vec<Balancer> {
        let clients = self.0.eureka.snapshots();
        let is_one = clients.len() == 1;
        let clients = clients.into_iter().enumerate().map(|(at, snapshots)| {
            let name = if is_one { "client".to_owned() } else { format!("client {}", at + 1) };
            (name.into(), snapshots)
        });
        let added = self.0.sources.iter().map(|source| (source.name.clone(), (source.snapshots)()));
        let balancers = |(client, snapshots): (Arc<str>, Vec<balance::Snapshot>)| {
            snapshots.into_iter().map(move |snapshot| Balancer { client: client.clone(), snapshot })
        };
        clients.chain(added).flat_map(balancers).collect()
    }
}

/// Headers of each page. Nothing is cached, and a browser loads and runs nothing.
const HEADERS: [(header::HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::VARY, "accept"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
];

impl<B> Service<Request<B>> for DebugService {
    type Response = Response<DebugBody>;
    type Error = Infallible;
    type Future = Ready<Result<Response<DebugBody>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.respond(&request)))
    }
}

impl fmt::Debug for DebugService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugService").field("eureka", &self.0.eureka).finish_non_exhaustive()
    }
}

/// Parameters of a request. Unknown ones are ignored.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    application: Option<String>,
    is_html: Option<bool>,
}

impl Query {
    fn of(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8_lossy();
            match (name, &*value) {
                ("application", "") => {}
                ("application", application) => query.application = Some(application.to_owned()),
                ("format", "html") => query.is_html = Some(true),
                ("format", "json") => query.is_html = Some(false),
                _ => {}
            }
        }
        query
    }
}

/// Returns `true` if a request prefers HTML to JSON. Wildcards count for JSON, so that command-line
/// clients get it.
fn accepts_html(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut html, mut json) = (0.0, 0.0);
    for item in texts.flat_map(|text| text.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
        match &*kind {
            "text/html" | "application/xhtml+xml" => html = quality.max(html),
            "application/json" => json = quality.max(json),
            _ => {}
        }
    }
    html > json
}

/// Content of one response.
struct View<'a> {
    status: RegistryStatus,
    /// Name of the selected application, as the request has it.
    selected: Option<&'a str>,
    /// The selected application, or all.
    applications: Vec<&'a Application>,
    /// Number of instances of these applications.
    instances: usize,
    balancers: Vec<Balancer>,
}

/// Balancer of one application in one client.
struct Balancer {
    client: Arc<str>,
    snapshot: balance::Snapshot,
}

impl<'a> View<'a> {
    fn of(
        status: RegistryStatus,
        snapshot: &'a Snapshot,
        mut balancers: Vec<Balancer>,
        selected: Option<&'a str>,
    ) -> Self {
        let applications: Vec<&Application> = match selected {
            Some(name) => snapshot.application(name).into_iter().map(|application| &**application).collect(),
            None => snapshot.applications().map(|application| &**application).collect(),
        };
        if let Some(name) = selected {
            balancers.retain(|balancer| balancer.snapshot.name().is_some_and(|own| own.eq_ignore_ascii_case(name)));
        }
        let instances = applications.iter().map(|application| application.instances.len()).sum();
        Self { status, selected, applications, instances, balancers }
    }

    /// Returns the number of instances that are not shown.
    fn omitted(&self) -> usize {
        self.instances.saturating_sub(MAX_INSTANCES)
    }

    /// Returns `true` if the selected application does not exist.
    fn is_unknown(&self) -> bool {
        self.selected.is_some() && self.applications.is_empty() && self.balancers.is_empty()
    }

    /// Returns the applications with the instances that are shown.
    fn shown(&self) -> impl Iterator<Item = (&'a Application, &'a [Arc<Instance>])> {
        let mut left = MAX_INSTANCES;
        self.applications.iter().map(move |application| {
            let shown = &application.instances[..application.instances.len().min(left)];
            left -= shown.len();
            (*application, shown)
        })
    }
}

/// Returns the name of a state of an endpoint.
fn state_name(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Available => "available",
        EndpointState::Ejected => "ejected",
        EndpointState::HalfOpen => "half-open",
        EndpointState::Outside => "outside the subset",
    }
}

#[cfg(test)]
mod tests;
