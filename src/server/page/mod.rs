//! Page for operators: the registry, its peers, and single instances with actions.
//!
//! ```text
//!  GET /               ─▶ Query ─▶ Overview of the registry ─▶ templates ─▶ HTML, cached for a second
//!  GET /page/live      ─▶ Live: one task compares revisions ─▶ events, shared by all dashboards
//!  GET /page/instance  ─▶ LeaseState ─▶ explanation, details, forms
//!  POST /page/instance ─▶ forms: site and token ─▶ Node: override or cancellation
//! ```
//!
//! Ids, metadata and queries are hostile input. The templates escape every value, `text` shortens
//! them and makes invisible characters visible, and the browser runs nothing but the script of the
//! page itself. Everything except the live updates works without the script.
//!
//! | module | content |
//! |---|---|
//! | `registry` | the page `/`: status, peers, list of instances |
//! | `row`, `preservation`, `explanation` | one instance, self-preservation and the reason for an instance, in words |
//! | `instance`, `actions`, `forms` | the page of an instance, its actions, protection of the forms |
//! | `lastn` | the last registrations and the last ends of leases |
//! | `live`, `changes` | events for the script, and the changes that they have |
//! | `query`, `text` | parameters, texts and links |
//! | `respond` | headers, errors and compression of the responses; files of the page |

mod actions;
mod changes;
mod explanation;
mod forms;
mod instance;
mod lastn;
mod live;
mod preservation;
mod query;
mod registry;
mod respond;
mod row;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::HeaderMap;
use http::header::ACCEPT;
use tower::ServiceExt;

use self::live::Live;
use self::registry::Cache;
use self::respond::Document;
use super::http::{RegistryService, ServerState, protect, protect_for_operators};
use super::shared::PerSecond;

/// The page of one router.
#[derive(Debug)]
struct Page {
    server: ServerState,
    cache: Cache,
    /// Last document of `/lastn`.
    last: PerSecond<Document>,
    live: Arc<Live>,
}

type Shared = Arc<Page>;

impl Page {
    fn new(server: &ServerState) -> Shared {
        Arc::new(Self {
            server: server.clone(),
            cache: Cache::default(),
            last: PerSecond::default(),
            live: Live::new(server.clone()),
        })
    }
}

impl RegistryService {
    /// Adds the page for operators: `/` for browsers, which accept `text/html`, `/lastn`, and paths
    /// below `/page/`. Other requests for `/` have the response that they have without the page.
    ///
    /// The paths do not depend on the registry's own path. The properties `eureka.dashboard.path`
    /// and `eureka.dashboard.enabled` change the path of the page, or leave it out.
    #[cfg_attr(docsrs, doc(cfg(feature = "page")))]
    pub fn with_page(self) -> Self {
        self.map_router(onto)
    }
}

/// Adds the page to a router, at the path of the settings.
pub(super) fn onto(server: &ServerState, others: Router) -> Router {
    let Some(base) = server.about().page.clone() else { return others };
    if !base.is_empty() {
        let last = base.rsplit('/').next().unwrap_or_default().to_owned();
        return Router::new()
            .nest(&format!("{base}/"), router(server))
            .route(&base, get(async move || respond::redirect(&format!("{last}/"))))
            .fallback_service(others);
    }
    let of_others = others.clone();
    let root = get(move |page: State<Shared>, request: Request| async move {
        if accepts_html(request.headers()) {
            return registry::respond(page, request).await;
        }
        of_others.oneshot(request).await.unwrap_or_else(|never| match never {})
    });
    routes(server, root.fallback_service(others.clone())).fallback_service(others)
}

/// Returns the page as a router of its own, to be mounted at a path that ends in a slash.
pub(super) fn router(server: &ServerState) -> Router {
    routes(server, get(registry::respond))
}

fn routes(server: &ServerState, root: MethodRouter<Shared>) -> Router {
    let page = Page::new(server);
    let login = Router::new().route("/page/login", get(instance::login)).with_state(page.clone());
    let routes = Router::new()
        .route("/lastn", get(lastn::respond))
        .route("/page/instance", get(instance::respond).post(actions::respond))
        .route("/page/live", get(live::respond))
        .route("/page/style.css", get(respond::style))
        .route("/page/script.js", get(respond::script))
        .route("/", root)
        .with_state(page);
    protect(server, routes).merge(protect_for_operators(server, login))
}

/// Returns true if a request accepts HTML by name, as those of browsers do. Probes and command-line
/// clients accept anything.
fn accepts_html(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        let is_refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
        is_html && !is_refused
    })
}

/// Returns a redirect to the path with a slash if the page is mounted below a path and requested
/// without one: its links are relative.
fn with_slash(request: &Request<Body>) -> Option<Response> {
    let OriginalUri(uri) = request.extensions().get()?;
    let last = uri.path().rsplit('/').next().filter(|last| !last.is_empty())?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(respond::redirect(&format!("./{last}/{query}")))
}
