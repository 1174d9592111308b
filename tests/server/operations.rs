//! Endpoints for operators and their tools: health, version, status and metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Eviction, Node as NodeSettings};

use crate::captured_log::Log;
use crate::common::{ORDER_1, ORDERS, Server, bytes, document, minute, ten, text};
use crate::network::{Network, SECOND, soon};

/// Returns the status, the media type and the body of a response.
async fn get(router: &Router, path: &str) -> (StatusCode, String, String) {
    let response = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let media_type = response.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap()).to_owned();
    (response.status(), media_type, text(response).await)
}

async fn json_of(router: &Router, path: &str) -> Value {
    let (status, media_type, body) = get(router, path).await;
    assert_eq!((status, &*media_type), (StatusCode::OK, "application/json"), "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Returns the samples of the metrics by `name{label="value",…}`.
pub(crate) async fn scrape(router: &Router) -> BTreeMap<String, f64> {
    let (status, media_type, body) = get(router, "/metrics").await;
    assert_eq!((status, &*media_type), (StatusCode::OK, "text/plain; version=0.0.4"), "{body}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn health_names_the_components_and_is_up_although_a_peer_is_lost() {
    let network = Network::default();
    let [a, _b] = ["a", "b"].map(|name| network.node(name, &["a", "b", "c"]));
    let router = a.server.management("/eureka");
    tokio::time::sleep(30 * SECOND).await;
    let health = json_of(&router, "/actuator/health").await;
    assert_eq!(health["status"], "UP");
    let component = |name: &str| &health["components"][name];
    assert_eq!(component("livenessState")["status"], "UP");
    assert_eq!(component("readinessState")["status"], "UP");
    assert_eq!(component("selfPreservation")["details"]["state"], "inactive");
    let peers = json!({"http://b:8761/eureka/": "UP", "http://c:8761/eureka/": "DOWN"});
    assert_eq!(component("peers"), &json!({"status": "UNKNOWN", "details": peers}));
    assert_eq!(json_of(&router, "/actuator/health/peers").await, *component("peers"));
    assert_eq!(json_of(&router, "/actuator/health/liveness").await, json!({"status": "UP"}));
    assert_eq!(get(&router, "/actuator/health/nothing").await.0, StatusCode::NOT_FOUND);
    let readiness = json_of(&router, "/actuator/health/readiness").await;
    let names: Vec<_> = readiness["components"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["readinessState", "registry"]);
}

#[cfg(feature = "access")]
#[tokio::test(start_paused = true)]
async fn health_of_a_locked_server_has_no_details_for_strangers() {
    use tower_eureka::server::{Access, Role};

    let access = Access::new().user("reader", "secret", [Role::Read]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    let router = server.management("/eureka");
    for path in ["/actuator/health", "/actuator/health/readiness"] {
        let health = json_of(&router, path).await;
        assert_eq!(health["components"]["registry"], json!({"status": "UP"}), "{path}");
    }
    for path in ["/actuator/health/registry", "/actuator/info", "/actuator/metrics", "/metrics"] {
        assert_eq!(get(&router, path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    let request = Request::get("/actuator/health/registry").header("authorization", "Basic cmVhZGVyOnNlY3JldA==");
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert!(text(response).await.contains("no peers are configured"));
}

#[tokio::test(start_paused = true)]
async fn server_that_leaves_its_cluster_is_alive_and_not_ready() {
    let network = Network::default();
    let a = network.node("a", &["a", "b"]);
    let router = a.server.management("/eureka");
    assert_eq!(get(&router, "/actuator/health/readiness").await.0, StatusCode::OK);
    a.server.leave(SECOND).await;
    for path in ["/", "/health", "/actuator/health", "/actuator/health/readiness", "/actuator/health/registry"] {
        let (status, _, body) = get(&router, path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(body.contains("this node is stopping"), "{path}: {body}");
    }
    assert_eq!(get(&router, "/actuator/health/liveness").await.0, StatusCode::OK);
    // Requests in flight are still served.
    assert!(a.server.is_open());
}

#[tokio::test(start_paused = true)]
async fn info_has_the_version_and_the_uptime() {
    let server = Server::new();
    let router = server.registry.management("/eureka");
    tokio::time::advance(90 * SECOND).await;
    let info = json_of(&router, "/actuator/info").await;
    assert_eq!((&info["app"]["name"], &info["process"]["uptimeSeconds"]), (&json!("tower-eureka"), &json!(90)));
    assert_eq!(info["build"]["version"], env!("CARGO_PKG_VERSION"));
    let features = info["build"]["features"].as_array().unwrap();
    for (feature, is_enabled) in [
        ("access", cfg!(feature = "access")),
        ("page", cfg!(feature = "page")),
        ("prometheus", cfg!(feature = "prometheus")),
    ] {
        assert_eq!(features.contains(&feature.into()), is_enabled, "{feature} in {features:?}");
    }
    let links = json_of(&router, "/actuator").await["_links"].take();
    assert_eq!(links["health"]["href"], "/actuator/health");
    for link in links.as_object().unwrap().values() {
        assert_eq!(get(&router, link["href"].as_str().unwrap()).await.0, StatusCode::OK, "{link}");
    }
}

async fn status(server: &EurekaServer, accept: &str) -> String {
    let request = Request::get("/status").header(ACCEPT, accept).body(Body::empty()).unwrap();
    text(server.router().oneshot(request).await.unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn status_has_the_own_record_and_the_environment() {
    let node = NodeSettings::new().host_name("node-1").ip_addr("192.0.2.1").app("registry");
    let builder = EurekaServer::builder().port(8761).node(node).environment("prod");
    let alone = builder.property("eureka.server.min-available-instances-for-peer-replication", "0").unwrap();
    let alone = alone.build().unwrap();
    let body: Value = serde_json::from_str(&status(&alone, "application/json").await).unwrap();
    assert_eq!(body["generalStats"]["environment"], "prod");
    assert_eq!(body["healthy"], true);
    let own = &body["instanceInfo"];
    for (member, value) in [
        ("instanceId", "192.0.2.1:registry:8761"),
        ("app", "REGISTRY"),
        ("hostName", "node-1"),
        ("status", "UP"),
        ("isCoordinatingDiscoveryServer", "true"),
    ] {
        assert_eq!(own[member], value, "{own}");
    }
    let members: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["applicationStats", "generalStats", "healthy", "instanceInfo"]);
    // Without a port, the node does not know its own record.
    let unknown = EurekaServer::builder().build().unwrap();
    let body: Value = serde_json::from_str(&status(&unknown, "application/json").await).unwrap();
    let members: Vec<_> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["applicationStats", "generalStats"]);
    #[cfg(feature = "xml")]
    {
        let body = status(&alone, "application/xml").await;
        for part in [
            "<environment>prod</environment>",
            "\n  <instanceInfo>\n    <instanceId>192.0.2.1:registry:8761</instanceId>",
        ] {
            assert!(body.contains(part), "{part} in {body}");
        }
        let end = "\n  </instanceInfo>\n  <isHeathly>true</isHeathly>\n</com.netflix.eureka.util.StatusInfo>";
        assert!(body.ends_with(end), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn registered_node_shows_its_lease_and_enough_peers_make_it_healthy() {
    let network = Network::default();
    let node = |name: &str| {
        network.node_with(name, &["a", "b"], |setup| {
            setup.peers(|peers| peers.wait_when_empty(Duration::ZERO)).with(|builder| {
                builder.property("eureka.server.min-available-instances-for-peer-replication", "1").unwrap()
            })
        })
    };
    let a = node("a");
    soon().await;
    assert_eq!(a.json("status").await["healthy"], false);
    let _b = node("b");
    tokio::time::sleep(40 * SECOND).await;
    let status = a.json("status").await;
    assert_eq!(status["healthy"], true);
    assert_eq!(status["instanceInfo"]["instanceId"], "a");
    assert!(status["instanceInfo"]["leaseInfo"]["registrationTimestamp"].as_i64() > Some(0), "{status}");
}

#[cfg(feature = "prometheus")]
#[tokio::test(start_paused = true)]
async fn metric_in_the_format_of_spring_is_selected_by_tags() {
    let server = Server::with_order().await;
    server.post(ORDERS, document("h:orders:2", "DOWN", 1)).await;
    let router = server.registry.management("/eureka");
    let names = json_of(&router, "/actuator/metrics").await["names"].take();
    assert!(names.as_array().unwrap().contains(&"tower_eureka_instances".into()), "{names}");
    let metric = json_of(&router, "/actuator/metrics/tower_eureka_instances").await;
    assert_eq!(metric["measurements"], json!([{"statistic": "VALUE", "value": 2.0}]));
    assert_eq!(metric["availableTags"][0]["tag"], "status");
    let up = json_of(&router, "/actuator/metrics/tower_eureka_instances?tag=status:UP").await;
    assert_eq!((&up["measurements"][0]["value"], &up["availableTags"]), (&json!(1.0), &json!([])));
    let registered = "/actuator/metrics/tower_eureka_request_duration_seconds?tag=operation:register&tag=status:204";
    let registered = json_of(&router, registered).await;
    assert_eq!(registered["measurements"][0], json!({"statistic": "COUNT", "value": 2}));
    assert_eq!(registered["baseUnit"], "seconds");
    for (path, status) in [
        ("nothing", StatusCode::NOT_FOUND),
        ("tower_eureka_instances?tag=status:MAYBE", StatusCode::NOT_FOUND),
        ("tower_eureka_instances?tag=status", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(get(&router, &format!("/actuator/metrics/{path}")).await.0, status, "{path}");
    }
}

#[cfg(feature = "prometheus")]
#[tokio::test]
async fn disabled_metrics_have_no_endpoint_and_measure_nothing() {
    let server = Server::built(EurekaServer::builder().metrics(false));
    server.post(ORDERS, document("h:orders:1", "UP", 1)).await;
    let router = server.registry.management("/eureka");
    for path in ["/metrics", "/actuator/prometheus", "/actuator/metrics"] {
        assert_eq!(get(&router, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[cfg(feature = "prometheus")]
#[tokio::test(start_paused = true)]
async fn text_of_clients_is_no_label_and_adds_no_series() {
    let server = Server::new();
    let router = server.registry.management("/eureka");
    // The first request of each kind creates its series.
    let requests = async |n: usize| {
        let path = format!("/eureka/apps/A{n}/i");
        for method in ["PUT", "DELETE", "GET", "PATCH"] {
            server.empty(method, &path).await;
        }
        server.empty("GET", &format!("/eureka/vips/v{n}")).await;
        server.empty("GET", &format!("/eureka/x{n}")).await;
        server.post(ORDERS, document(&format!("i-{n}"), &format!("S{n}"), 1)).await;
        server.empty("GET", ORDER_1).await;
    };
    requests(0).await;
    let before = scrape(&router).await.len();
    for n in 1..50 {
        requests(n).await;
    }
    assert_eq!(scrape(&router).await.len(), before);
}

#[cfg(feature = "prometheus")]
#[tokio::test(start_paused = true)]
async fn caller_that_disconnects_is_counted_as_aborted() {
    let server = EurekaServer::builder().build().unwrap();
    let service = server.service("/eureka");
    // The body of the registration never ends.
    let endless = Body::new(http_body_util::StreamBody::new(tokio_stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
    >()));
    let request = Request::post("/eureka/apps/ORDERS").header(CONTENT_TYPE, "application/json").body(endless).unwrap();
    let call = service.clone().oneshot(request);
    assert!(tokio::time::timeout(SECOND, call).await.is_err());
    let samples = scrape(&server.management("/eureka")).await;
    let series = r#"tower_eureka_request_duration_seconds_count{operation="register",status="aborted"}"#;
    assert_eq!(samples.get(series), Some(&1.0), "{samples:#?}");
    let _ = bytes(service.oneshot(Request::get("/eureka/apps").body(Body::empty()).unwrap()).await.unwrap()).await;
}

/// State of self-preservation by each way in which an operator may see it, beside the page.
#[cfg(all(feature = "page", feature = "prometheus"))]
#[derive(Debug, PartialEq)]
struct Shown {
    status: String,
    health: String,
    gauges: [f64; 2],
    log: Vec<String>,
}

/// Asserts that the page for operators, as a browser gets it, has these words.
#[cfg(all(feature = "page", feature = "prometheus"))]
async fn assert_page(server: &EurekaServer, words: &[&str]) {
    let request = Request::get("/").header(ACCEPT, "text/html").body(Body::empty()).unwrap();
    let html = text(server.service("/eureka").with_probes().with_page().oneshot(request).await.unwrap()).await;
    for words in words {
        assert!(html.contains(words), "{words} in {html}");
    }
}

#[cfg(all(feature = "page", feature = "prometheus"))]
#[tokio::test(start_paused = true)]
async fn self_preservation_shows_on_the_page_in_the_log_the_status_and_the_metrics() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let server = ten(Eviction::new()).await;
    let router = server.registry.management("/eureka");
    let beats = async |instances: usize, minutes: usize| {
        for _ in 0..minutes {
            minute(&server, 0..instances).await;
        }
    };
    let shown = async || {
        let status = server.empty("GET", "/eureka/status").await;
        let status: Value = serde_json::from_slice(&bytes(status).await).unwrap();
        let health = json_of(&router, "/actuator/health/selfPreservation").await;
        let samples = scrape(&router).await;
        let lines = log.lines(&["self-preservation"]);
        Shown {
            status: status["generalStats"]["self-preservation"].as_str().unwrap().to_owned(),
            health: format!("{} {}", health["status"], health["details"]["state"]).replace('"', ""),
            gauges: ["tower_eureka_self_preservation_active", "tower_eureka_preserved_leases"]
                .map(|name| samples[name]),
            log: lines.iter().map(|line| line.split(": ").take(3).collect::<Vec<_>>().join(": ")).collect(),
        }
    };
    // Between the ends of two minutes, so that each minute has the same number of heartbeats.
    tokio::time::sleep(5 * SECOND).await;
    beats(10, 3).await;
    let inactive = |log: &[&str]| Shown {
        status: "inactive".into(),
        health: "UP inactive".into(),
        gauges: [0.0, 0.0],
        log: log.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(shown().await, inactive(&[]));
    assert_page(&server.registry, &["Self-preservation does not hold"]).await;
    // Seven of ten instances are cut off.
    beats(3, 5).await;
    let entered = shown().await;
    assert_eq!((&*entered.status, &*entered.health, entered.gauges), ("active", "UNKNOWN active", [1.0, 7.0]));
    let began = "WARN tower_eureka::server::registry::preservation: self-preservation began: expired leases are kept";
    assert!(entered.log.len() == 1 && entered.log[0].starts_with(began), "{entered:?}");
    assert_eq!(get(&router, "/actuator/health/readiness").await.0, StatusCode::OK, "the node still serves");
    assert_page(&server.registry, &["7 expired leases are kept", "Self-preservation has held for"]).await;
    // Their network is repaired.
    beats(10, 3).await;
    let left = shown().await;
    assert_eq!((&*left.status, &*left.health, left.gauges), ("inactive", "UP inactive", [0.0, 0.0]));
    assert_page(&server.registry, &["Self-preservation does not hold"]).await;
    let ended =
        "INFO tower_eureka::server::registry::preservation: self-preservation ended: expired leases are evicted";
    assert!(left.log.len() == 2 && left.log[1].starts_with(ended), "{left:?}");
    assert_eq!(server.registry.applications().applications[0].instances.len(), 10, "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn peer_that_is_lost_and_found_has_a_line_each() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let [_a, b] = ["a", "b"].map(|name| network.node(name, &["a", "b"]));
    tokio::time::sleep(30 * SECOND).await;
    let of_b = |words: &str| log.lines(&["replication::availability", words, "peer=http://b:8761/eureka/"]);
    assert_eq!(of_b("").len(), 1, "{:?}", of_b(""));
    assert!(of_b("peer found").len() == 1);
    network.kill("b");
    tokio::time::sleep(300 * SECOND).await;
    let lost = of_b("WARN");
    assert!(lost.len() == 1 && lost[0].contains("peer lost") && lost[0].contains("refused"), "{lost:?}");
    network.host("b", b.router.clone());
    tokio::time::sleep(60 * SECOND).await;
    let found = of_b("peer found again");
    assert!(found.len() == 1 && found[0].contains("elapsed="), "{found:?}");
    assert_eq!(of_b("").len(), 3);
}
