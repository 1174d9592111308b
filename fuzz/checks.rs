//! What must hold for any bytes: nothing panics, and what was read is written in a form that reads the same.
//!
//! Shared by the fuzz targets and by the test that replays their corpus.
#![allow(dead_code, reason = "each target uses one")]
#![allow(clippy::unwrap_used, reason = "these are assertions")]

use std::cell::RefCell;

use axum::Router;
use axum::body::{Body, Bytes};
use http::{Method, Request};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::runtime::Runtime;
use tower::ServiceExt;
use tower_eureka::model::{Applications, ReplicationList, ReplicationResponse};
use tower_eureka::{EurekaServer, Instance};

/// `{"instance": {...}}`
pub(crate) fn instance(data: &[u8]) {
    let Ok(instance) = Instance::from_json(data) else { return };
    let json = instance.to_json();
    assert_eq!(Instance::from_json(&json).expect("what is written can be read"), instance);
    // What came as JSON may be asked for as XML.
    #[cfg(feature = "xml")]
    xml(&instance.to_xml());
}

/// `{"applications": {...}}`
pub(crate) fn applications(data: &[u8]) {
    let Ok(applications) = Applications::from_json(data) else { return };
    let json = applications.to_json();
    assert_eq!(Applications::from_json(&json).expect("what is written can be read"), applications);
}

/// `{"replicationList": [...]}`
pub(crate) fn batch(data: &[u8]) {
    let Ok(list) = ReplicationList::from_json(data) else { return };
    let json = list.to_json();
    assert_eq!(ReplicationList::from_json(&json).expect("what is written can be read"), list);
}

/// `{"responseList": [...]}`
pub(crate) fn batch_reply(data: &[u8]) {
    let Ok(reply) = ReplicationResponse::from_json(data) else { return };
    let json = reply.to_json();
    assert_eq!(ReplicationResponse::from_json(&json).expect("what is written can be read"), reply);
}

/// `<instance>` and `<applications>`. XML cannot hold every text, so what was written once is what has to last.
#[cfg(feature = "xml")]
pub(crate) fn xml(data: &[u8]) {
    if let Ok(instance) = Instance::from_xml(data) {
        let written = Instance::from_xml(&instance.to_xml()).expect("what is written can be read");
        assert_eq!(Instance::from_xml(&written.to_xml()).expect("what is written can be read"), written);
    }
    if let Ok(applications) = Applications::from_xml(data) {
        let written = Applications::from_xml(&applications.to_xml()).expect("what is written can be read");
        assert_eq!(Applications::from_xml(&written.to_xml()).expect("what is written can be read"), written);
    }
}

/// A request line, `METHOD target`, sent to a registry that has one instance.
pub(crate) fn query(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let Some((method, target)) = line.split_once(' ') else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let Ok(request) = Request::builder().method(method).uri(target).body(Body::empty()) else { return };
    Subject::take(|subject| subject.is_changed_by(request));
}

/// A body and its headers, `Content-Type|Content-Encoding|body`, posted as a registration and as a batch.
pub(crate) fn body(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'|');
    let (Some(media_type), Some(encoding), Some(body)) = (parts.next(), parts.next(), parts.next()) else { return };
    for path in ["/apps/ORDERS", "/peerreplication/batch"] {
        let request = Request::post(path).header("content-type", media_type).header("content-encoding", encoding);
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        Subject::take(|subject| subject.is_changed_by(request));
    }
}

/// What a registry may answer with. The protocol has 500 for parameters that cannot be read; it is no fault of ours.
const STATUSES: [u16; 11] = [200, 204, 304, 400, 404, 405, 406, 409, 413, 415, 500];

/// A registry with one instance. One serves many inputs, as long as none changes it.
struct Subject {
    server: EurekaServer,
    router: Router,
    /// Last, so that it outlives the tasks of the registry.
    runtime: Runtime,
}

thread_local! {
    static SUBJECT: RefCell<Option<Subject>> = const { RefCell::new(None) };
}

impl Subject {
    /// Lends out one that is as if new, and keeps it unless it was changed or something panicked.
    fn take(is_changed: impl FnOnce(&Self) -> bool) {
        let subject = SUBJECT.take().unwrap_or_else(Self::new);
        if !is_changed(&subject) {
            SUBJECT.set(Some(subject));
        }
    }

    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let server = runtime.block_on(async { EurekaServer::builder().gzip_requests(true).build().unwrap() });
        let subject = Self { router: server.router(), server, runtime };
        let known = Instance::builder("orders").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        let register = Request::post("/apps/ORDERS").header("content-type", "application/json");
        let (status, _) = subject.ask(register.body(Body::from(known.to_json())).unwrap());
        assert_eq!(status, 204);
        subject
    }

    /// Whatever is asked, the registry answers as the protocol says, and can tell what it holds afterwards.
    fn is_changed_by(&self, request: Request<Body>) -> bool {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (status, body) = self.ask(request);
        assert!(STATUSES.contains(&status), "{method} {uri}: {status}");
        if method == Method::PUT && status == 404 {
            assert!(body.is_empty(), "{method} {uri}: Netflix' client throws on a body");
        }
        if method == Method::GET {
            let again = Request::get(uri).body(Body::empty()).unwrap();
            let short = self.runtime.block_on(self.server.service("").oneshot(again)).unwrap();
            assert_eq!(short.status().as_u16(), status, "both ways answer alike");
            return false;
        }
        let is_changed = matches!(status, 200 | 204);
        if is_changed {
            self.tells_what_it_holds();
        }
        is_changed
    }

    fn tells_what_it_holds(&self) {
        let held = self.server.applications();
        let (_, json) = self.get("/apps", "application/json");
        let listed = Applications::from_json(&json).expect("a list can be read");
        assert_eq!(instances(&listed), instances(&held));
        #[cfg(feature = "xml")]
        {
            let (_, xml) = self.get("/apps", "application/xml");
            let listed = Applications::from_xml(&xml).expect("a list can be read");
            assert_eq!(instances(&listed).len(), instances(&held).len());
        }
        for (app, id) in instances(&held) {
            let [app, id] = [&app, &id].map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC));
            let path = format!("/apps/{app}/{id}");
            // An id may be longer than a path.
            if path.parse::<http::Uri>().is_ok() {
                assert_eq!(self.get(&path, "application/json").0, 200, "{path}");
            }
        }
    }

    fn get(&self, path: &str, accept: &str) -> (u16, Bytes) {
        self.ask(Request::get(path).header("accept", accept).body(Body::empty()).unwrap())
    }

    fn ask(&self, request: Request<Body>) -> (u16, Bytes) {
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        })
    }
}

/// Application and id of each.
fn instances(applications: &Applications) -> Vec<(String, String)> {
    let all = applications.applications.iter().flat_map(|application| &application.instances);
    all.map(|instance| (instance.app().to_owned(), instance.id().to_owned())).collect()
}
