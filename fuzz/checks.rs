//! Checks of arbitrary input: nothing panics, and a document that can be read is written in a form
//! that reads as the same value.
//!
//! The fuzz targets and the test that replays their corpus share these checks.
#![allow(dead_code, reason = "each target uses one check")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a finding")]

#[cfg(feature = "access")]
#[path = "access_checks.rs"]
mod access_checks;

use std::cell::RefCell;

use axum::Router;
use axum::body::{Body, Bytes};
use http::{Method, Request};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Runtime;
use tower::ServiceExt;
use tower_eureka::model::{Applications, ReplicationList, ReplicationResponse};
use tower_eureka::server::Limits;
use tower_eureka::{EurekaServer, Instance};

#[cfg(feature = "access")]
pub(crate) use self::access_checks::{credentials, keys, token, users};

/// Checks a document `{"instance": {...}}`.
pub(crate) fn instance(data: &[u8]) {
    let Ok(instance) = Instance::from_json(data) else { return };
    let json = instance.to_json();
    assert_eq!(Instance::from_json(&json).expect("written form is readable"), instance);
    // A client may fetch a JSON registration as XML.
    #[cfg(feature = "xml")]
    xml(&instance.to_xml());
}

/// Checks a document `{"applications": {...}}`.
pub(crate) fn applications(data: &[u8]) {
    let Ok(applications) = Applications::from_json(data) else { return };
    let json = applications.to_json();
    assert_eq!(Applications::from_json(&json).expect("written form is readable"), applications);
}

/// Checks a document `{"replicationList": [...]}`.
pub(crate) fn batch(data: &[u8]) {
    let Ok(list) = ReplicationList::from_json(data) else { return };
    let json = list.to_json();
    assert_eq!(ReplicationList::from_json(&json).expect("written form is readable"), list);
}

/// Checks a document `{"responseList": [...]}`.
pub(crate) fn batch_reply(data: &[u8]) {
    let Ok(response) = ReplicationResponse::from_json(data) else { return };
    let json = response.to_json();
    assert_eq!(ReplicationResponse::from_json(&json).expect("written form is readable"), response);
}

/// Checks a document `<instance>` or `<applications>`. XML cannot carry every text, so the
/// comparison begins with the first written form.
#[cfg(feature = "xml")]
pub(crate) fn xml(data: &[u8]) {
    if let Ok(instance) = Instance::from_xml(data) {
        let written = Instance::from_xml(&instance.to_xml()).expect("written form is readable");
        assert_eq!(Instance::from_xml(&written.to_xml()).expect("written form is readable"), written);
    }
    if let Ok(applications) = Applications::from_xml(data) {
        let written = Applications::from_xml(&applications.to_xml()).expect("written form is readable");
        assert_eq!(Applications::from_xml(&written.to_xml()).expect("written form is readable"), written);
    }
}

/// Sends a request line, `METHOD target`, to a registry that has one instance.
pub(crate) fn query(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let Some((method, target)) = line.split_once(' ') else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let Ok(request) = Request::builder().method(method).uri(target).body(Body::empty()) else { return };
    Fixture::with(|fixture| fixture.changes_with(request));
}

/// Sends a body with its headers, `Content-Type|Content-Encoding|body`, as a registration and as a
/// batch.
pub(crate) fn body(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'|');
    let (Some(media_type), Some(encoding), Some(body)) = (parts.next(), parts.next(), parts.next()) else { return };
    for path in ["/apps/ORDERS", "/peerreplication/batch"] {
        let request = Request::post(path).header("content-type", media_type).header("content-encoding", encoding);
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        Fixture::with(|fixture| fixture.changes_with(request));
    }
}

/// Tags of the page's own templates.
#[cfg(feature = "page")]
const TAGS: [&str; 44] = [
    "!doctype", "html", "/html", "head", "/head", "meta", "title", "/title", "link", "script", "/script", "body",
    "/body", "a", "/a", "header", "/header", "h1", "/h1", "h2", "/h2", "h3", "/h3", "nav", "/nav", "main", "/main",
    "p", "/p", "div", "/div", "section", "/section", "span", "/span", "form", "/form", "label", "/label", "input",
    "button", "/button", "small", "/small",
];
#[cfg(feature = "page")]
const MORE_TAGS: [&str; 24] = [
    "dl", "/dl", "dt", "/dt", "dd", "/dd", "table", "/table", "thead", "/thead", "tbody", "/tbody", "tr", "/tr", "th",
    "/th", "td", "/td", "select", "/select", "option", "/option", "details", "summary",
];

/// Uses a text as each query of the page, and as its form. No markup of it may reach the HTML.
#[cfg(feature = "page")]
pub(crate) fn page(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    Fixture::with(|fixture| {
        let page = fixture.server.page();
        for target in [format!("/?{text}"), format!("/lastn?{text}"), format!("/page/instance?{text}")] {
            let Ok(request) = Request::get(&target).body(Body::empty()) else { return false };
            let form = Request::post(&target).header("content-type", "application/x-www-form-urlencoded");
            let form = form.header("origin", "http://h").header("host", "h").header("cookie", text);
            for request in [Ok(request), form.body(Body::from(text.to_owned()))].into_iter().flatten() {
                let is_form = request.method() == Method::POST;
                let (status, html) = fixture.runtime.block_on(async {
                    let response = page.clone().oneshot(request).await.unwrap();
                    let status = response.status().as_u16();
                    (status, response.into_body().collect().await.unwrap().to_bytes())
                });
                // Nobody can guess the token, so a form never has an effect.
                let statuses: &[u16] = if is_form { &[400, 403, 405, 413, 415] } else { &[200, 400, 404] };
                assert!(statuses.contains(&status), "{target}: {status}");
                let html = String::from_utf8(html.to_vec()).unwrap();
                for (at, _) in html.match_indices('<') {
                    let end = html[at + 1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '/' || c == '!'));
                    let tag = &html[at + 1..end.map_or(html.len(), |end| at + 1 + end)];
                    let is_known =
                        TAGS.contains(&tag) || MORE_TAGS.contains(&tag) || tag == "/details" || tag == "/summary";
                    assert!(is_known, "{target}: <{tag}");
                }
                assert!(html.matches("<script").count() <= 1, "{target}");
            }
        }
        false
    });
}

/// Statuses of the protocol. It demands 500 for unreadable parameters.
const STATUSES: [u16; 11] = [200, 204, 304, 400, 404, 405, 406, 409, 413, 415, 500];

/// Registry with one instance, reused for many inputs as long as none changes it.
struct Fixture {
    server: EurekaServer,
    router: Router,
    /// Dropped last, so that it outlives the tasks of the registry.
    runtime: Runtime,
}

thread_local! {
    static FIXTURE: RefCell<Option<Fixture>> = const { RefCell::new(None) };
}

impl Fixture {
    /// Runs a check with an unchanged registry, and keeps the registry unless the check changed it
    /// or panicked.
    fn with(is_changed: impl FnOnce(&Self) -> bool) {
        let fixture = FIXTURE.take().unwrap_or_else(Self::new);
        if !is_changed(&fixture) {
            FIXTURE.set(Some(fixture));
        }
    }

    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let server = runtime
            .block_on(async { EurekaServer::builder().limits(Limits::new().gzip_requests(true)).build().unwrap() });
        let fixture = Self { router: server.router(), server, runtime };
        let known = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        let register = Request::post("/apps/ORDERS").header("content-type", "application/json");
        let (status, _) = fixture.send(register.body(Body::from(known.to_json())).unwrap());
        assert_eq!(status, 204);
        fixture
    }

    /// Sends a request. The response must have a status of the protocol, and after a change the
    /// lists must equal the contents. Returns `true` if the registry changed.
    fn changes_with(&self, request: Request<Body>) -> bool {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (status, body) = self.send(request);
        assert!(STATUSES.contains(&status), "{method} {uri}: {status}");
        if method == Method::PUT && status == 404 {
            assert!(body.is_empty(), "{method} {uri}: Jersey clients fail on a body");
        }
        if method == Method::GET {
            let repeated = Request::get(uri).body(Body::empty()).unwrap();
            let direct = self.runtime.block_on(self.server.service("").oneshot(repeated)).unwrap();
            assert_eq!(direct.status().as_u16(), status, "router and service respond alike");
            return false;
        }
        let is_changed = matches!(status, 200 | 204);
        if is_changed {
            self.check_lists();
        }
        is_changed
    }

    fn check_lists(&self) {
        let contents = self.server.applications();
        let (_, json) = self.get("/apps", "application/json");
        let listed = Applications::from_json(&json).expect("list is readable");
        assert_eq!(instances(&listed), instances(&contents));
        #[cfg(feature = "xml")]
        {
            let (_, xml) = self.get("/apps", "application/xml");
            let listed = Applications::from_xml(&xml).expect("list is readable");
            assert_eq!(instances(&listed).len(), instances(&contents).len());
        }
        for (app, id) in instances(&contents) {
            let [app, id] = [&app, &id].map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC));
            let path = format!("/apps/{app}/{id}");
            // An id may be too long for a path.
            if path.parse::<http::Uri>().is_ok() {
                assert_eq!(self.get(&path, "application/json").0, 200, "{path}");
            }
        }
    }

    fn get(&self, path: &str, accept: &str) -> (u16, Bytes) {
        self.send(Request::get(path).header("accept", accept).body(Body::empty()).unwrap())
    }

    fn send(&self, request: Request<Body>) -> (u16, Bytes) {
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        })
    }
}

/// Returns application and id of each instance.
fn instances(applications: &Applications) -> Vec<(String, String)> {
    let all = applications.applications.iter().flat_map(|application| &application.instances);
    all.map(|instance| (instance.app().to_owned(), instance.id().to_owned())).collect()
}
