//! The page `/`: status of the server, peers, and the list of instances.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::preservation::SelfPreservation;
use super::query::Query;
use super::respond::{self, Document, render};
use super::row::{Group, counts_text};
use super::text::{self, Span};
use super::{Shared, with_slash};
use crate::model::InstanceStatus;
use crate::server::http::{ServerState, application_stats, general_stats, http_date, uptime_text};
use crate::server::shared::{PATIENCE, PerSecond};
use crate::server::view::Snapshot;
use crate::sync::offload;
use crate::time::wall_clock_ms;

/// Maximum number of instances on one page. The script shows the changes of a registry that fits on
/// one page.
pub(super) const MAX_ROWS: usize = 5_000;
/// Maximum number of searches that run at the same time.
const SEARCHES: usize = 2;

/// The last document of the whole list, and the limit on searches.
#[derive(Debug)]
pub(super) struct Cache {
    document: PerSecond<Document>,
    searches: Arc<Semaphore>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { document: PerSecond::default(), searches: Arc::new(Semaphore::new(SEARCHES)) }
    }
}

/// Responds with the page.
pub(super) async fn respond(State(page): State<Shared>, request: Request) -> Response {
    if let Some(redirect) = with_slash(&request) {
        return redirect;
    }
    let query = match Query::parse(request.uri().query()) {
        Ok(query) => query,
        Err(bad) => return respond::message(StatusCode::BAD_REQUEST, "", "The query is not valid", &bad.to_string()),
    };
    // From now on the changes are recorded, so that the script misses none.
    page.live.touch();
    let document = if query.matches_all() && query.page == 1 {
        let shown = page.clone();
        let render = move || Document::new(render(&Overview::of(&shown, &Query { page: 1, ..Query::default() })));
        page.cache.document.get(render).await
    } else {
        search(page, query).await
    };
    match document {
        Some(document) => document.respond(request.headers()),
        None => respond::busy(""),
    }
}

/// Renders the results on a blocking thread, since there may be thousands. The search counts until
/// it is done, even if the caller has gone.
async fn search(page: Shared, query: Query) -> Option<Document> {
    let permit = timeout(PATIENCE, page.cache.searches.clone().acquire_owned()).await.ok()?.ok()?;
    let document = offload(move || {
        let document = Document::new(render(&Overview::of(&page, &query)));
        drop(permit);
        document
    });
    Some(document.await)
}

/// Content of the page.
#[derive(Debug, Template)]
#[template(path = "registry.html")]
struct Overview {
    root: &'static str,
    status: Status,
    replicas: Replicas,
    groups: Vec<Group>,
    totals: String,
    query: Query,
    statuses: [InstanceStatus; 5],
    /// Position in the stream of changes.
    position: String,
    /// All instances are on this page.
    is_whole: bool,
    matching: usize,
    pages: usize,
    first: String,
    previous: Option<String>,
    next: Option<String>,
    general: Vec<(&'static str, String)>,
    own: Vec<(&'static str, String)>,
}

/// Status of the server.
#[derive(Debug, Template)]
#[template(path = "status.html")]
pub(super) struct Status {
    environment: String,
    data_center: String,
    now: String,
    uptime: String,
    pub(super) is_open: bool,
    gate_reason: String,
    pub(super) preservation: SelfPreservation,
}

/// Peers of the server.
#[derive(Debug, Template)]
#[template(path = "replicas.html")]
pub(super) struct Replicas {
    /// The list of peers is complete.
    pub(super) is_known: bool,
    pub(super) peers: Vec<Replica>,
}

/// Peer as the page shows it.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) url: String,
    link: Option<String>,
    pub(super) state: &'static str,
    class: &'static str,
    lag: String,
    backlog: usize,
    dropped: u64,
    /// Time for which changes have failed.
    failing: Option<Span>,
    last_error: Option<(String, Span)>,
}

impl Overview {
    fn of(page: &Shared, query: &Query) -> Self {
        let (server, registry) = (&page.server, page.server.registry());
        let position = page.live.position();
        let (snapshot, now) = (registry.full(), server.now());
        let (mut skipped, mut left) = ((query.page - 1).saturating_mul(MAX_ROWS), MAX_ROWS);
        let (mut groups, mut matching) = (Vec::new(), 0_usize);
        for application in &snapshot.applications {
            let mut shown = Vec::new();
            for record in application.records.iter().filter(|record| query.matches(&record.instance)) {
                matching += 1;
                if skipped > 0 {
                    skipped -= 1;
                } else if left > 0 {
                    left -= 1;
                    shown.push(&**record);
                }
            }
            if !shown.is_empty() {
                groups.push(Group::of(registry, application, shown.into_iter(), now));
            }
        }
        let pages = matching.div_ceil(MAX_ROWS).max(1);
        let other = |page: usize| (1..=pages).contains(&page).then(|| query.with_page(page));
        Self {
            root: "",
            status: Status::of(server),
            replicas: Replicas::of(server),
            groups,
            totals: totals(&snapshot),
            statuses: InstanceStatus::ALL,
            position,
            is_whole: query.matches_all() && pages == 1 && query.page == 1,
            matching,
            pages,
            first: query.with_page(1),
            previous: other(query.page - 1),
            next: other(query.page.saturating_add(1)),
            query: query.clone(),
            general: general(server),
            own: own(server),
        }
    }
}

impl Status {
    pub(super) fn of(server: &ServerState) -> Self {
        let (about, now, uptime) = (server.about(), server.now(), server.uptime());
        Self {
            environment: text::visible(&about.environment),
            data_center: text::visible(&about.data_center),
            now: http_date(wall_clock_ms()),
            uptime: uptime_text(uptime),
            is_open: server.is_open(),
            gate_reason: text::visible(&server.gate_reason()),
            preservation: SelfPreservation::of(
                server.registry(),
                uptime.as_millis().try_into().unwrap_or(i64::MAX),
                now,
            ),
        }
    }
}

impl Replicas {
    pub(super) fn of(server: &ServerState) -> Self {
        #[cfg(feature = "peers")]
        let is_known = server.node().replication().is_known();
        #[cfg(feature = "peers")]
        let peers = server.node().replication().overviews().into_iter().map(|peer| Replica {
            url: text::short(&peer.url),
            link: text::link(Some(&peer.url)),
            state: match &peer {
                _ if peer.is_own => "this server",
                _ if peer.is_available => "available",
                _ => "unavailable",
            },
            class: if peer.is_available || peer.is_own { "good" } else { "bad" },
            lag: Span(peer.lag).to_string(),
            backlog: peer.backlog,
            dropped: peer.dropped,
            failing: (!peer.outage.is_zero()).then_some(Span(peer.outage)),
            last_error: peer.last_error.map(|(error, ago)| (text::visible(&error), Span(ago))),
        });
        #[cfg(not(feature = "peers"))]
        let (is_known, peers) = {
            let _ = server;
            (true, std::iter::empty())
        };
        Self { is_known, peers: peers.collect() }
    }
}

/// Returns the numbers of applications and of instances by status.
pub(super) fn totals(snapshot: &Snapshot) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (applications, instances) = (snapshot.applications.len(), snapshot.counts.total());
    let by_status = if instances == 0 { String::new() } else { format!(": {}", counts_text(&snapshot.counts)) };
    let (of_applications, of_instances) = (plural(applications), plural(instances));
    format!("{applications} application{of_applications}, {instances} instance{of_instances}{by_status}")
}

/// Returns what a Java server shows as general info.
fn general(server: &ServerState) -> Vec<(&'static str, String)> {
    let mut stats = general_stats(server.uptime());
    stats.extend(application_stats(&server.replicas()));
    stats.into_iter().map(|(name, value)| (name, text::visible(&value))).collect()
}

/// Returns what a Java server shows about itself.
fn own(server: &ServerState) -> Vec<(&'static str, String)> {
    let mut own = vec![("version", concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned())];
    match server.own() {
        Some(instance) => {
            own.push(("instanceId", text::short(instance.id())));
            own.push(("ipAddr", text::short(instance.ip_addr().unwrap_or("-"))));
            own.push(("status", instance.status().to_string()));
        }
        None => own.push(("status", if server.is_open() { "UP" } else { "STARTING" }.into())),
    }
    own
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;
    use std::time::Duration;

    use super::super::Page;
    use super::*;
    use crate::EurekaServer;
    use crate::time::move_wall_clock;

    #[tokio::test]
    async fn current_time_is_that_of_the_wall_clock() {
        let server = EurekaServer::builder().build().unwrap();
        // Published times follow the clock only beyond a minute.
        move_wall_clock(50_000);
        let shown = httpdate::parse_http_date(&Status::of(&server.state).now).unwrap();
        let shown = shown.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
        let off = wall_clock_ms() - shown;
        move_wall_clock(-50_000);
        assert!((0..5_000).contains(&off), "{off}");
    }

    #[tokio::test]
    async fn search_of_a_caller_that_disconnects_returns_its_permit() {
        let page = Page::new(&EurekaServer::builder().build().unwrap().state);
        let searches = page.cache.searches.clone();
        let query = || Query::parse(Some("q=orders")).unwrap();
        let poll = async |search: &mut Pin<Box<dyn Future<Output = Option<Document>>>>| {
            std::future::poll_fn(|cx| Poll::Ready(search.as_mut().poll(cx).is_pending())).await
        };
        // While it waits for the permit.
        let held = searches.clone().acquire_many_owned(SEARCHES as u32).await.unwrap();
        let mut waiting: Pin<Box<dyn Future<Output = _>>> = Box::pin(search(page.clone(), query()));
        assert!(poll(&mut waiting).await);
        drop((waiting, held));
        assert_eq!(searches.available_permits(), SEARCHES);
        // While it runs: the permit returns once the search is done.
        let mut running: Pin<Box<dyn Future<Output = _>>> = Box::pin(search(page, query()));
        poll(&mut running).await;
        drop(running);
        let all = searches.acquire_many(SEARCHES as u32);
        assert!(timeout(Duration::from_secs(60), all).await.is_ok_and(|permits| permits.is_ok()));
    }

    #[cfg(feature = "peers")]
    #[tokio::test]
    async fn peers_are_not_known_until_their_source_has_responded() {
        let shown = |server: &EurekaServer| render(&Replicas::of(&server.state));
        let peers = crate::server::Peers::new().source(std::future::pending::<Result<String, std::io::Error>>);
        let server = EurekaServer::builder().peers(peers).build().unwrap();
        assert!(shown(&server).contains("The peers are not known yet"), "{}", shown(&server));
        let single = EurekaServer::builder().build().unwrap();
        assert!(shown(&single).contains("No peers are configured."));
    }
}
