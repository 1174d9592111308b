//! The log as operators read it: the origin of changes, refused requests and their causes, and the
//! state of the registry.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{advance, sleep};
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Access, Eviction, Limits, Role};

pub(crate) use crate::captured_log::Log;
use crate::common::{ORDER_1, ORDERS, Server, bytes, document, minute, request, ten};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Log {
    /// Returns the lines that contain all of these parts, without their time.
    pub(crate) fn lines(&self, parts: &[&str]) -> Vec<String> {
        let log = self.text();
        let found = log.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
        found.map(|line| line.split_once("Z ").map_or(line, |(_, rest)| rest).trim().to_owned()).collect()
    }

    /// Returns the lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        let lines = self.lines(&[]);
        self.0.lock().unwrap().clear();
        lines
    }
}

/// Returns a request of a client at 10.0.0.7.
pub(crate) fn from_client(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = request(method, path).body(body.into()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 7], 4711))));
    request
}

#[tokio::test(start_paused = true)]
async fn invalid_items_of_a_batch_are_one_line_that_cannot_be_forged() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::DEBUG);
    let item = r#"{"appName":"X\n2099-01-01T00:00:00Z  INFO FORGED \u001b[31m","id":"i","instanceInfo":{"app":"X"},"action":"Register"}"#;
    let batch = format!(r#"{{"replicationList":[{}]}}"#, vec![item; 10_000].join(","));
    let response = server.send(from_client("POST", "/eureka/peerreplication/batch/", batch)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{:?}", &lines[..lines.len().min(3)]);
    assert!(lines[0].contains("items of a replication batch dropped") && lines[0].contains("invalid=10000"));
    assert!(!lines[0].contains('\u{1b}') && lines[0].len() < 600, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn items_of_a_batch_that_lack_a_member_are_one_line() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let items = [
        r#"{"appName":"X","id":"i","action":"Register"}"#,
        r#"{"appName":"X","id":"i","action":"StatusUpdate"}"#,
        r#"{"appName":"X","id":"i","action":"DeleteStatusOverride"}"#,
        r#"{"id":"i","action":"Heartbeat"}"#,
    ];
    let batch = format!(r#"{{"replicationList":[{}]}}"#, items.join(","));
    let response = server.send(from_client("POST", "/eureka/peerreplication/batch/", batch)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("invalid=4") && lines[0].contains("X/i: the item has no instanceInfo"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_write_is_a_warning_with_client_path_status_and_cause() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let server = Server::built(
        EurekaServer::builder()
            .limits(Limits::new().instances_per_application(1).metadata_bytes(8).registration_bytes(2_000)),
    );
    server.post(ORDERS, document("h:orders:1", "UP", 100)).await;
    let bare = r#"{"instanceId":"x","app":"w5","hostName":"h","ipAddr":"10.9.0.1","status":"UP"}"#;
    let typed = |content_type: &str| {
        let mut request = from_client("POST", ORDERS, document("2", "UP", 1));
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        request
    };
    let orders = |body: &str| from_client("POST", ORDERS, body.to_owned());
    let refusals = vec![
        (from_client("POST", "/eureka/apps/w5", bare), 400, "/eureka/apps/w5", "instance"),
        (orders("{"), 400, ORDERS, "cut off"),
        (orders(""), 400, ORDERS, "cut off"),
        (orders(&document("2", "UP", 1).replace("\"h\"", "7e")), 400, ORDERS, "column"),
        (orders(&document("", "UP", 1).replace("\"h\"", "\"\"")), 400, ORDERS, "Missing instanceId"),
        (orders(&document("2", "UP", 1).replace("hostName", "x")), 400, ORDERS, "Missing hostname"),
        (orders(&document("2", "UP", 1).replace("ORDERS", "OTHER")), 400, ORDERS, "expecting ORDERS but was OTHER"),
        (orders(&document("2", "UP", 1)), 429, ORDERS, "1 instances, which is the limit"),
        (orders(&"x".repeat(2_001)), 413, ORDERS, "larger than 2000 bytes"),
        (typed("text/plain"), 415, ORDERS, "media_type=text/plain"),
        (from_client("PUT", &format!("{ORDER_1}/metadata?long=123456789"), ""), 413, "metadata", "8 bytes"),
        (from_client("PUT", "/eureka/apps/ORDERS/9/metadata?a=b", ""), 404, "ORDERS/9/metadata", "unknown instance"),
        (from_client("PUT", "/eureka/apps/ORDERS/9/status?value=UP", ""), 404, "ORDERS/9/status", "unknown instance"),
        (
            from_client("PUT", &format!("{ORDER_1}/status?value=UNKNOWN"), ""),
            400,
            "status",
            "UNKNOWN is not an override",
        ),
        (from_client("PUT", &format!("{ORDER_1}/status"), ""), 500, "status", "value is missing"),
        (from_client("POST", "/eureka/peerreplication/batch/", "{"), 400, "batch", "cut off"),
        (from_client("POST", "/eureka/peerreplication/batch/", "{}"), 500, "batch", "error="),
        (from_client("POST", "/eureka/apps", "{}"), 405, "path=", "does not have this method"),
        (from_client("POST", "/eureka/apps/%ff", "{}"), 400, "/eureka/apps/%ff", "UTF-8"),
    ];
    #[cfg(feature = "xml")]
    let refusals = {
        let mut xml = orders("<instance><app>");
        xml.headers_mut().insert("content-type", "application/xml".parse().unwrap());
        refusals.into_iter().chain([(xml, 400, ORDERS, "error=")])
    };
    for (request, status, path, cause) in refusals {
        let what = format!("{} {}", request.method(), request.uri());
        assert_eq!(server.send(request).await.status(), status, "{what}");
        let lines = log.take();
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        let line = &lines[0];
        let path = path.trim_start_matches("/eureka");
        for part in ["WARN", "request refused", "client 10.0.0.7:4711", path, &format!("status={status}"), cause] {
            assert!(line.contains(part), "{what}: {part} in {line}");
        }
        advance(4 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn repeated_refusal_is_one_line_a_minute_with_a_count() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::DEBUG);
    let long = format!("/eureka/apps/{}%0aFORGED", "x".repeat(10_000));
    for _ in 0..500 {
        server.send(from_client("POST", &long, "{")).await;
    }
    let lines = log.take();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("suppressed=0") && lines[0].len() < 1_000, "{lines:?}");
    // A refusal of another client or resource is logged separately.
    server.send(from_client("POST", ORDERS, "{")).await;
    assert_eq!(log.lines(&["request refused", "path=/apps/ORDERS", "suppressed=0"]).len(), 1);
    advance(MINUTE).await;
    server.send(from_client("POST", &long, "{")).await;
    assert_eq!(log.lines(&["request refused", "suppressed=499"]).len(), 1);
    log.take();
    // The end is logged once.
    sleep(5 * MINUTE).await;
    assert_eq!(log.lines(&["INFO", "fault of a client not seen for a minute", "count=501", "elapsed=60s"]).len(), 1);
    assert_eq!(log.take().len(), 1);
}

#[tokio::test]
async fn request_below_another_path_names_the_path_of_the_registry() {
    let service = EurekaServer::builder().build().unwrap().service("/eureka");
    let (log, _guard) = Log::start(tracing::Level::INFO);
    for (method, path) in [("GET", "/favicon.ico"), ("GET", "/apps/"), ("POST", "/apps/ORDERS")] {
        let response = service.clone().oneshot(from_client(method, path, "")).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
    let lines = log.take();
    assert_eq!(lines.len(), 2, "one line each, and none for the favicon of a browser: {lines:?}");
    assert!(lines[0].contains("the registry is below /eureka/") && lines[0].contains("path=/apps/"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_probes_do_not_hide_refused_registrations() {
    let access = Access::new().user("orders", "secret", [Role::Register]);
    let service = EurekaServer::builder().access(access).build().unwrap().service("/eureka");
    let (log, _guard) = Log::start(tracing::Level::WARN);
    for (method, path) in [("GET", "/"), ("GET", ORDERS), ("POST", ORDERS), ("POST", ORDERS), ("DELETE", ORDER_1)] {
        let response = service.clone().oneshot(from_client(method, path, "")).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let lines = log.take();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("method=GET") && lines[1].contains("method=POST path=/eureka/apps/ORDERS"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn registration_older_than_the_record_is_a_warning() {
    let server = Server::new();
    server.post(ORDERS, document("h:orders:1", "DOWN", 3_600_100)).await;
    let (log, _guard) = Log::start(tracing::Level::WARN);
    for _ in 0..3 {
        assert_eq!(server.send(from_client("POST", ORDERS, document("h:orders:1", "UP", 100))).await.status(), 204);
    }
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in
        ["older registration dropped", "app=ORDERS", "instance=h:orders:1", "client 10.0.0.7", "ahead=3600s", "clocks"]
    {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
    advance(MINUTE).await;
    server.send(from_client("POST", ORDERS, document("h:orders:1", "UP", 100))).await;
    assert_eq!(log.lines(&["suppressed=2"]).len(), 1);
    log.take();
    // The next version of the record, and a peer that sends an old state.
    server.send(from_client("POST", ORDERS, document("h:orders:1", "UP", 3_600_101))).await;
    let mut replicated = from_client("POST", ORDERS, document("h:orders:1", "UP", 100));
    replicated.headers_mut().insert("x-netflix-discovery-replication", "true".parse().unwrap());
    advance(SECOND).await;
    server.send(replicated).await;
    assert_eq!(log.take(), Vec::<String>::new());
}

#[tokio::test]
async fn status_that_a_registration_does_not_change_is_an_info_line() {
    let server = Server::new();
    server.post(ORDERS, document("h:orders:1", "OUT_OF_SERVICE", 1_000)).await;
    let (log, _guard) = Log::start(tracing::Level::INFO);
    server.send(from_client("POST", ORDERS, document("h:orders:1", "UP", 2_000))).await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["status of a registration not taken", "status=OUT_OF_SERVICE", "sent=UP", "client 10.0.0.7:4711"] {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
    // With an override it is expected.
    server.empty("PUT", &format!("{ORDER_1}/status?value=DOWN")).await;
    log.take();
    server.send(from_client("POST", ORDERS, document("h:orders:1", "UP", 3_000))).await;
    assert_eq!(log.take(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn registration_storm_is_100_info_lines_a_second_and_a_count() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::INFO);
    for n in 0..2_000 {
        server.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
    }
    assert_eq!(log.lines(&["INFO", "registered app=ORDERS"]).len(), 100);
    assert_eq!(log.take().len(), 100);
    // The count is logged with the first change in a later second.
    advance(SECOND).await;
    for n in 0..1_000 {
        server.empty("DELETE", &format!("{ORDERS}/i-{n}")).await;
    }
    assert_eq!(log.lines(&["INFO", "cancelled app=ORDERS"]).len(), 100);
    assert_eq!(log.lines(&["changes not logged singly", "count=1900"]).len(), 1);
    assert_eq!(log.take().len(), 101);
    // Without a further change it is logged soon as well, once.
    sleep(MINUTE).await;
    assert_eq!(log.lines(&["changes not logged singly", "count=900"]).len(), 1);
    assert_eq!(log.lines(&["changes not logged singly"]).len(), 1);
    log.take();
    for n in 1_000..1_100 {
        let path = format!("{ORDERS}/i-{n}");
        server.empty("PUT", &format!("{path}/status?value=OUT_OF_SERVICE")).await;
        server.empty("PUT", &format!("{path}/metadata?canary=yes")).await;
        server.empty("DELETE", &format!("{path}/status?value=UP")).await;
    }
    assert_eq!(log.take().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn change_beyond_the_limit_of_info_lines_is_a_debug_line() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::DEBUG);
    for n in 0..150 {
        server.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
    }
    assert_eq!(log.lines(&["INFO", "registered app=ORDERS"]).len(), 100);
    assert_eq!(log.lines(&["DEBUG", "registered app=ORDERS"]).len(), 50);
}

/// Returns the next lines of the log.
async fn written(log: &Log) -> Vec<String> {
    for _ in 0..1_000_000 {
        let lines = log.take();
        if !lines.is_empty() {
            return lines;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing is logged");
}

#[tokio::test]
async fn reached_connection_limit_is_a_warning() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let registry = EurekaServer::builder().build().unwrap();
    let listener = registry.listener(TcpListener::bind("127.0.0.1:0").await.unwrap()).max_connections(2);
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(listener.serve(registry.service("/eureka"), std::future::pending()));
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(TcpStream::connect(address).await.unwrap());
    }
    let lines = written(&log).await;
    assert!(lines.len() == 1 && lines[0].contains("connection limit reached"), "{lines:?}");
    assert!(lines[0].contains("connections=2"), "{lines:?}");
    served.abort();
}

#[tokio::test]
async fn connection_without_http_is_a_warning_with_its_address() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let registry = EurekaServer::builder().build().unwrap();
    let listener = registry.listener(TcpListener::bind("127.0.0.1:0").await.unwrap()).max_head_bytes(8_192);
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(listener.serve(registry.service("/eureka"), std::future::pending()));
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS\r\n\r\n".to_vec();
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(10_000)).into_bytes();
    let mut expected = 0;
    for bytes in [hello, head] {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let from = stream.local_addr().unwrap().to_string();
            // The connection was reset or closed.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            if expected == 0 {
                let lines = written(&log).await;
                assert!(lines[0].contains("connection closed") && lines[0].contains(&from), "{lines:?}");
                expected = 1;
            }
        }
    }
    assert!(log.take().len() < 5, "one a second");
    served.abort();
}

async fn status(server: &Server) -> Value {
    serde_json::from_slice(&bytes(server.empty("GET", "/eureka/status").await).await).unwrap()
}

#[tokio::test(start_paused = true)]
async fn self_preservation_is_logged_when_it_begins_and_when_it_ends() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let server = ten(Eviction::new()).await;
    for _ in 0..3 {
        minute(&server, 0..10).await;
    }
    assert_eq!(status(&server).await["generalStats"]["self-preservation"], "inactive");
    log.take();
    for _ in 0..5 {
        minute(&server, 0..3).await;
    }
    let lines = log.take();
    assert_eq!(lines.len(), 1, "once for the transition: {lines:?}");
    for part in ["WARN", "self-preservation began", "instances=10", "expected=20", "threshold=17", "received="] {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
    let general = status(&server).await["generalStats"].take();
    for (name, value) in [
        ("self-preservation", "active"),
        ("preserved-applications", "all"),
        ("renews-threshold", "17"),
        ("renews-last-minute", "6"),
        ("registered-instances", "10"),
        ("open-for-traffic", "true"),
    ] {
        assert_eq!(general[name], value, "{general}");
    }
    for _ in 0..3 {
        minute(&server, 0..10).await;
    }
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("INFO") && lines[0].contains("self-preservation ended"), "{lines:?}");
    assert_eq!(status(&server).await["generalStats"]["self-preservation"], "inactive");
}

/// Sends heartbeats of these instances for a number of seconds, at intervals of 27 to 33 seconds.
/// Returns the number of seconds in which self-preservation was active.
async fn jittered_beats(server: &Server, instances: usize, seconds: u64, random: &mut fastrand::Rng) -> usize {
    let mut next: Vec<u64> = (0..instances).map(|_| random.u64(0..30_000)).collect();
    let mut active = 0;
    for second in 0..seconds {
        for (n, next) in next.iter_mut().enumerate() {
            if *next < (second + 1) * 1_000 {
                server.empty("PUT", &format!("/eureka/apps/ORDERS/i-{n}")).await;
                *next += random.u64(27_000..33_000);
            }
        }
        sleep(SECOND).await;
        if second % 60 == 0 {
            active += usize::from(status(server).await["generalStats"]["self-preservation"] == "active");
        }
    }
    active
}

#[tokio::test(start_paused = true)]
async fn healthy_small_registry_for_hours_logs_nothing_of_self_preservation() {
    let mut random = fastrand::Rng::with_seed(7);
    for instances in [3, 10] {
        let (log, _guard) = Log::start(tracing::Level::INFO);
        let server = Server::new();
        let mut active = 0;
        // One more instance registers each hour.
        for n in 0..instances {
            server.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
            active += jittered_beats(&server, n + 1, 3_600, &mut random).await;
        }
        assert!(active > 0, "the state flaps, as the status shows");
        assert_eq!(log.lines(&["self-preservation"]), Vec::<String>::new(), "{instances} instances");
        assert_eq!(log.lines(&["lease expired"]), Vec::<String>::new(), "{instances} instances");
    }
}

#[tokio::test(start_paused = true)]
async fn instances_that_fall_silent_log_one_beginning_with_counts_and_one_end() {
    let mut random = fastrand::Rng::with_seed(8);
    let server = Server::new();
    for n in 0..10 {
        server.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
    }
    jittered_beats(&server, 10, 600, &mut random).await;
    let (log, _guard) = Log::start(tracing::Level::INFO);
    jittered_beats(&server, 4, 1_800, &mut random).await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in
        ["WARN", "self-preservation began", "instances=10", "expected=20", "threshold=17", "received=", "kept=6"]
    {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
    jittered_beats(&server, 10, 1_800, &mut random).await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("INFO") && lines[0].contains("self-preservation ended"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn self_preservation_by_application_is_logged_the_same_way() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let server = ten(Eviction::new().preservation_by_application(true)).await;
    let billing = |n: usize| document(&format!("b-{n}"), "UP", 1).replace("ORDERS", "BILLING");
    for n in 0..10 {
        server.post("/eureka/apps/BILLING", billing(n)).await;
    }
    let beats = async |orders: usize, minutes: usize| {
        for _ in 0..2 * minutes {
            for n in 0..10 {
                server.empty("PUT", &format!("/eureka/apps/BILLING/b-{n}")).await;
            }
            for n in 0..orders {
                server.empty("PUT", &format!("/eureka/apps/ORDERS/i-{n}")).await;
            }
            sleep(MINUTE / 2).await;
        }
    };
    beats(10, 3).await;
    log.take();
    beats(3, 3).await;
    assert_eq!(log.lines(&["WARN", "self-preservation began", "applications=1"]).len(), 1, "{:?}", log.take());
    let general = status(&server).await["generalStats"].take();
    assert_eq!((&general["self-preservation"], &general["preserved-applications"]), (&"active".into(), &"1".into()));
    beats(10, 3).await;
    assert_eq!(log.lines(&["INFO", "self-preservation ended"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn self_preservation_that_is_switched_off_is_disabled_and_silent() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let server = ten(Eviction::new().self_preservation(false)).await;
    sleep(2 * MINUTE).await;
    assert_eq!(status(&server).await["generalStats"]["self-preservation"], "disabled");
    assert_eq!(log.lines(&["self-preservation"]), Vec::<String>::new());
    sleep(5 * MINUTE).await;
    let lines = log.lines(&["INFO tower_eureka::server::audit: lease expired app=ORDERS instance=i-", "status=UP"]);
    assert_eq!(lines.len(), 10, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn mass_eviction_is_bounded_in_the_log() {
    let server =
        Server::built(EurekaServer::builder().eviction(Eviction::new().self_preservation(false).interval(SECOND)));
    for n in 0..1_000 {
        server.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
    }
    let (log, _guard) = Log::start(tracing::Level::INFO);
    sleep(95 * SECOND).await;
    let runs = log.lines(&["many leases expired", "evicted=150 shown=10"]).len();
    let shown = log.lines(&["lease expired app=ORDERS"]).len();
    assert!(runs == 1 && shown <= 60, "{shown} lines in {runs} runs");
}

#[cfg(feature = "peers")]
#[tokio::test]
async fn urls_of_a_zone_that_is_not_used_are_a_warning() {
    use tower_eureka::server::Peers;

    let (log, _guard) = Log::start(tracing::Level::WARN);
    let builder =
        EurekaServer::builder().peers(Peers::new().url("http://a/").zone_url("defaultZne", "http://user:secret@b/"));
    builder.build().unwrap();
    let lines = log.lines(&["URLs of a zone have no effect"]);
    assert!(lines.len() == 1 && lines[0].contains("defaultzne") && !lines[0].contains("secret"), "{lines:?}");
}

/// Uses a nested router, as users do.
#[tokio::test]
async fn change_without_a_known_address_is_logged() {
    let registry = EurekaServer::builder().build().unwrap();
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let app = Router::new().nest("/a", registry.router());
    app.oneshot(request("POST", "/a/apps/ORDERS").body(Body::from(document("i", "UP", 1))).unwrap()).await.unwrap();
    assert_eq!(
        log.take(),
        ["INFO tower_eureka::server::audit: registered app=ORDERS instance=i status=UP origin=client \
             after=[status=UP hostName=h ipAddr=10.0.0.1 port=7001]"]
    );
}
