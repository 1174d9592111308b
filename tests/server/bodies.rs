//! Request bodies: their content coding, the budget of all bodies in flight, and the limits at
//! which reading stops.

use std::io::Error;

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, RETRY_AFTER};
use http::{Request, StatusCode};
use tokio::sync::mpsc::{self, Sender};
use tokio::task::JoinHandle;
use tokio::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::model::ReplicationResponse;
use tower_eureka::server::Limits;

use crate::common::{ORDER_1, ORDERS, Server, bytes, document, gzip, request, text};

const BATCH: &str = "/eureka/peerreplication/batch/";
const KIB: usize = 1024;

fn batch(items: &[String]) -> String {
    format!(r#"{{"replicationList":[{}]}}"#, items.join(","))
}

fn registration(id: &str) -> String {
    let document = document(id, "UP", 1);
    let instance = document.strip_prefix(r#"{"instance":"#).unwrap().strip_suffix('}').unwrap();
    format!(r#"{{"appName":"ORDERS","id":"{id}","action":"Register","instanceInfo":{instance}}}"#)
}

/// Returns an empty batch of this length.
fn padded(length: usize) -> String {
    let batch = batch(&[]);
    let spaces = " ".repeat(length - batch.len());
    batch + &spaces
}

/// Returns a metadata member with this number of entries, to be followed by another member.
fn metadata(entries: usize) -> String {
    let entries: Vec<_> = (0..entries).map(|n| format!(r#""k{n}":"v""#)).collect();
    format!(r#""metadata":{{{}}},"vipAddress""#, entries.join(","))
}

#[tokio::test]
async fn coded_body_returns_415_that_names_the_setting() {
    let server = Server::with_order().await;
    for (path, body) in [(ORDERS, document("i", "UP", 1)), (BATCH, batch(&[registration("i")]))] {
        for codings in [
            &["gzip"][..],
            &["x-gzip"],
            &["GZIP"],
            &["gzip, identity"],
            &["identity", "gzip"],
            &["gzip", "gzip"],
            &["deflate"],
            &["br"],
            &["zstd"],
            &["unknown"],
        ] {
            let mut refused = request("POST", path);
            for coding in codings {
                refused = refused.header(CONTENT_ENCODING, *coding);
            }
            let before = server.registry.applications();
            let response = server.send(refused.body(gzip(body.as_bytes()).into()).unwrap()).await;
            assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{codings:?}");
            assert_eq!(response.headers()[ACCEPT_ENCODING], "identity", "{codings:?}");
            let text = text(response).await;
            assert!(text.contains("eureka.server.limits.gzip-requests"), "{text}");
            assert_eq!(server.registry.applications(), before);
        }
        let plain = request("POST", path).header(CONTENT_ENCODING, "Identity").body(body.into()).unwrap();
        assert!(server.send(plain).await.status().is_success());
    }
}

#[tokio::test]
async fn undeclared_gzip_returns_400() {
    let server = Server::with_order().await;
    for (path, body) in [(ORDERS, document("i", "UP", 1)), (BATCH, batch(&[registration("i")]))] {
        for kind in ["application/json", "application/json;charset=iso-8859-1"] {
            let refused = Request::post(path).header("content-type", kind).body(gzip(body.as_bytes()).into()).unwrap();
            server.refuses(StatusCode::BAD_REQUEST, refused).await;
        }
    }
}

#[tokio::test]
async fn gzip_body_is_read_if_the_setting_allows_it() {
    let builder = EurekaServer::builder().property("eureka.server.limits.gzip-requests", "true").unwrap();
    let server = Server::built(builder);
    let post = |path: &str, coding: &str, body: &[u8]| {
        server.send(request("POST", path).header(CONTENT_ENCODING, coding).body(gzip(body).into()).unwrap())
    };
    let registered = post(ORDERS, "gzip", document("h:orders:1", "UP", 1).as_bytes()).await;
    assert_eq!(registered.status(), StatusCode::NO_CONTENT);
    let items: Vec<_> = (0..250).map(|n| registration(&format!("i{n}"))).collect();
    let applied = post(BATCH, "X-GZIP, identity", batch(&items).as_bytes()).await;
    assert_eq!(ReplicationResponse::from_json(&bytes(applied).await).unwrap().0.len(), 250);
    assert_eq!(server.registry.applications().len(), 251);
    // No real batch compresses to a thousandth of its length.
    let folded = post(BATCH, "gzip", padded(1024 * KIB).as_bytes()).await;
    assert_eq!(folded.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let other = post(BATCH, "br", b"").await;
    assert_eq!(other.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(other.headers()[ACCEPT_ENCODING], "gzip, identity");
}

/// Request with a batch that stops before its end.
struct Held {
    rest: Sender<Result<String, Error>>,
    response: JoinHandle<Response>,
}

impl Held {
    /// Returns once the server has received this number of bytes.
    async fn start(server: &Server, bytes: usize) -> Self {
        let (rest, chunks) = mpsc::channel(1);
        let body = Body::from_stream(ReceiverStream::new(chunks));
        let request = request("POST", BATCH).body(body).unwrap();
        let response = tokio::spawn(server.router.clone().oneshot(request));
        let response = tokio::spawn(async { response.await.unwrap().unwrap() });
        rest.send(Ok(padded(bytes))).await.unwrap();
        // The channel has capacity for this once the server has received the part before it.
        drop(rest.reserve().await.unwrap());
        Self { rest, response }
    }

    async fn finish(self) -> Response {
        drop(self.rest);
        self.response.await.unwrap()
    }
}

fn small() -> Server {
    Server::built(
        EurekaServer::builder()
            .limits(Limits::new().request_bytes_in_flight(1024 * KIB).batch_bytes(768 * KIB).registration_bytes(KIB)),
    )
}

#[tokio::test(start_paused = true)]
async fn body_beyond_the_budget_returns_503_with_retry_after() {
    let server = small();
    let held = Held::start(&server, 700 * KIB).await;
    let refused = server.post(BATCH, padded(100 * KIB)).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    assert!(text(refused).await.contains("request-bytes-in-flight"));
    // Small bodies have a reserve, and heartbeats need no budget.
    assert_eq!(server.post(ORDERS, document("h:orders:1", "UP", 1)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.post(BATCH, padded(60 * KIB)).await.status(), StatusCode::OK);
    assert_eq!(server.empty("PUT", ORDER_1).await.status(), StatusCode::OK);
    assert_eq!(held.finish().await.status(), StatusCode::OK);
    assert_eq!(server.post(BATCH, padded(100 * KIB)).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn unfinished_body_returns_503_when_other_bodies_need_the_budget() {
    let server = small();
    let held = Held::start(&server, 700 * KIB).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    let second = Held::start(&server, 10 * KIB).await;
    assert_eq!(server.post(BATCH, padded(700 * KIB)).await.status(), StatusCode::OK);
    let given_up = held.response.await.unwrap();
    assert_eq!(given_up.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(given_up.headers()[RETRY_AFTER], "1");
    assert_eq!(second.finish().await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn abandoned_and_refused_bodies_return_their_budget() {
    let server = small();
    for _ in 0..5 {
        let held = Held::start(&server, 700 * KIB).await;
        held.response.abort();
        held.rest.send(Err(Error::other("gone"))).await.unwrap();
        held.rest.closed().await;
        assert_eq!(server.post(BATCH, "x".repeat(700 * KIB)).await.status(), StatusCode::BAD_REQUEST);
        assert_eq!(server.post(BATCH, " ".repeat(769 * KIB)).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert_eq!(server.post(BATCH, padded(700 * KIB)).await.status(), StatusCode::OK);
}

/// Returns a server with one instance whose size limit on instances allows 1,000 metadata entries.
async fn roomy() -> Server {
    let server = Server::built(EurekaServer::builder().limits(Limits::new().instance_bytes(1024 * KIB)));
    assert_eq!(server.post(ORDERS, document("h:orders:1", "UP", 1)).await.status(), StatusCode::NO_CONTENT);
    server
}

#[tokio::test]
async fn registration_with_too_much_metadata_returns_413() {
    let server = roomy().await;
    let with = |entries| document("i", "UP", 1).replace(r#""vipAddress""#, &metadata(entries));
    let amazon = document("i", "UP", 1)
        .replace("InstanceInfo$DefaultDataCenterInfo", "AmazonInfo")
        .replace(r#""MyOwn""#, &format!(r#""Amazon",{}:1"#, metadata(1_001)));
    for (body, reason) in
        [(with(1_001), "1000 metadata entries"), (with(20_000), "10000 values"), (amazon, "1000 metadata entries")]
    {
        let refused = request("POST", ORDERS).body(body.into()).unwrap();
        let text = server.refuses(StatusCode::PAYLOAD_TOO_LARGE, refused).await;
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(server.post(ORDERS, with(1_000)).await.status(), StatusCode::NO_CONTENT);
}

#[cfg(feature = "xml")]
#[tokio::test]
async fn xml_registration_with_too_many_elements_returns_413() {
    let server = Server::with_order().await;
    let with = |members: &str| {
        format!(
            "<instance><app>ORDERS</app><instanceId>i</instanceId><hostName>h</hostName><ipAddr>10.0.0.1</ipAddr>\
             <dataCenterInfo><name>MyOwn</name></dataCenterInfo>{members}</instance>"
        )
    };
    let entries = |count: usize| format!("<metadata>{}</metadata>", "<k>v</k>".repeat(count));
    let post =
        |body: String| Request::post(ORDERS).header("content-type", "application/xml").body(body.into()).unwrap();
    for (members, reason) in [(entries(1_001), "1000 metadata entries"), ("<x/>".repeat(10_000), "10000 elements")] {
        let text = server.refuses(StatusCode::PAYLOAD_TOO_LARGE, post(with(&members))).await;
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(server.send(post(with(&entries(1_000)))).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn batch_item_with_too_much_metadata_leaves_the_other_items_valid() {
    let server = Server::new();
    let large = registration("large").replace(r#""vipAddress""#, &metadata(2_000));
    let response = server.post(BATCH, batch(&[registration("a"), large, registration("b")])).await;
    assert_eq!(ReplicationResponse::from_json(&bytes(response).await).unwrap().0.len(), 3);
    let ids = ["a", "large", "b"].map(|id| server.registry.instance("ORDERS", id).is_some());
    assert_eq!(ids, [true, false, true]);
}

#[tokio::test]
async fn batch_of_too_many_values_returns_413() {
    let server = Server::with_order().await;
    for junk in [r#""":"","#.repeat(500_000), r#""x":[],"#.repeat(500_000), "1,".repeat(500_000)] {
        let (open, close) = if junk.starts_with('1') { ("[", "0]") } else { ("{", r#""y":0}"#) };
        let body = format!(r#"{{"junk":{open}{junk}{close},"replicationList":[]}}"#);
        let text =
            server.refuses(StatusCode::PAYLOAD_TOO_LARGE, request("POST", BATCH).body(body.into()).unwrap()).await;
        assert!(text.contains("500000 values"), "{text}");
    }
    // A batch with the maximum number of items is applied.
    let items: Vec<_> = (0..10_000).map(|n| registration(&format!("i{n}"))).collect();
    assert_eq!(server.post(BATCH, batch(&items)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn metadata_update_of_too_many_entries_returns_413() {
    let server = roomy().await;
    let pairs = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join("&");
    let put = |count| request("PUT", &format!("{ORDER_1}/metadata?{}", pairs(count))).body(Body::empty()).unwrap();
    server.refuses(StatusCode::PAYLOAD_TOO_LARGE, put(1_001)).await;
    assert_eq!(server.send(put(1_000)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn response_to_short_batch_of_stale_heartbeats_has_copies_of_about_1_mib() {
    let server = Server::with_order().await;
    let escaped = format!(r#""metadata":{{"k":"{}"}},"secureVipAddress""#, r"\u0001".repeat(60_000));
    let ids: Vec<_> = (0..30).map(|n| format!("i{n}")).collect();
    for id in &ids {
        let long = document(id, "UP", 100).replace(r#""secureVipAddress""#, &escaped);
        assert!(long.len() > 360_000, "{}", long.len());
        assert_eq!(server.post(ORDERS, long).await.status(), StatusCode::NO_CONTENT);
    }
    let stale =
        |id: &String| format!(r#"{{"appName":"ORDERS","id":"{id}","lastDirtyTimestamp":1,"action":"Heartbeat"}}"#);
    let items: Vec<_> = ids.iter().map(stale).collect();
    let body = bytes(server.post(BATCH, batch(&items)).await).await;
    assert!((1_000 * KIB..1_500 * KIB).contains(&body.len()), "{}", body.len());
    let results = ReplicationResponse::from_json(&body).unwrap().0;
    assert!(results.iter().all(|result| result.status == 409));
    assert_eq!(results.iter().filter(|result| result.entity.is_some()).count(), 3);
}
