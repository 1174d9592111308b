//! Metrics for Prometheus: each one that the documentation lists moves when its event happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Eviction, Limits};

use crate::common::{ORDER_1, ORDERS, Server, bytes, document, minute, ten};
use crate::network::{Network, Node, SECOND, soon};
use crate::operations::scrape;

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const MINUTE: Duration = Duration::from_secs(60);
const CERTIFICATE: &str = "tower_eureka_certificate_not_after_timestamp_seconds";
const PEER: &str = "http://b:8761/eureka/";

/// Names of the metrics in the table of the documentation.
fn documented() -> BTreeSet<&'static str> {
    let start = DOCUMENT.find("<!-- server metrics -->").expect("the table has its place");
    let table = &DOCUMENT[start..start + DOCUMENT[start..].find("<!-- end -->").expect("the table has an end")];
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.collect()
}

/// Name of the metric of a series.
fn metric(series: &str) -> &str {
    let name = series.split('{').next().unwrap();
    let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
    base.filter(|base| *base == "tower_eureka_request_duration_seconds").unwrap_or(name)
}

/// Observes the metrics of a server, and collects the names of those that moved.
struct Walk<'a> {
    router: Router,
    is_by_application: bool,
    before: BTreeMap<String, f64>,
    moved: &'a mut BTreeSet<String>,
}

impl<'a> Walk<'a> {
    async fn start(server: &EurekaServer, moved: &'a mut BTreeSet<String>) -> Self {
        let router = server.management("/eureka");
        let before = scrape(&router).await;
        Self { router, is_by_application: false, before, moved }
    }

    /// Asserts that these series changed since the last call.
    async fn moves(&mut self, event: &str, series: &[&str]) {
        if self.is_by_application {
            // All scrapes of a second share one result.
            tokio::time::sleep(SECOND).await;
        }
        let now = scrape(&self.router).await;
        for series in series {
            assert_ne!(now.get(*series), self.before.get(*series), "{series} after {event}: {now:#?}");
            assert!(now.contains_key(*series), "{series} after {event}");
            self.moved.insert(metric(series).to_owned());
        }
        self.before = now;
    }

    /// Waits until these series have changed since the last call.
    async fn will_move(&mut self, event: &str, series: &[&str]) {
        let change = async {
            loop {
                let now = scrape(&self.router).await;
                if series.iter().all(|series| now.get(*series) != self.before.get(*series)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let is_late = tokio::time::timeout(10 * SECOND, change).await.is_err();
        assert!(!is_late, "{series:?} after {event}: {:#?}", self.before);
        self.moves(event, series).await;
    }
}

#[tokio::test(start_paused = true)]
async fn scrapes_of_a_second_share_the_numbers_by_application() {
    let server = Server::built(EurekaServer::builder().metrics_by_application(true));
    let router = server.registry.management("/eureka");
    let before = scrape(&router).await;
    server.post(ORDERS, document("h:orders:1", "UP", 1)).await;
    assert_eq!(scrape(&router).await, before);
    tokio::time::sleep(SECOND).await;
    assert_eq!(scrape(&router).await[r#"eureka_server_instances{application="ORDERS",status="UP"}"#], 1.0);
}

async fn changes_of_instances(moved: &mut BTreeSet<String>) {
    let server = Server::built(EurekaServer::builder().metrics_by_application(true));
    let mut walk = Walk::start(&server.registry, moved).await;
    walk.is_by_application = true;
    server.post(ORDERS, document("h:orders:1", "UP", 1)).await;
    walk.moves(
        "a registration",
        &[
            r#"tower_eureka_registrations_total{origin="client"}"#,
            r#"tower_eureka_instances{status="UP"}"#,
            r#"eureka_server_instances{application="ORDERS",status="UP"}"#,
            r#"tower_eureka_request_duration_seconds_count{operation="register",status="204"}"#,
            "tower_eureka_applications",
            "tower_eureka_registry_bytes",
            "tower_eureka_renewals_per_minute_threshold",
        ],
    )
    .await;
    server.empty("PUT", ORDER_1).await;
    let heartbeat = r#"tower_eureka_request_duration_seconds_count{operation="heartbeat",status="200"}"#;
    walk.moves("a heartbeat", &["tower_eureka_renewals_total", heartbeat]).await;
    tokio::time::sleep(MINUTE + SECOND).await;
    walk.moves("a minute", &["tower_eureka_renewals_per_minute", "tower_eureka_uptime_seconds"]).await;
    let list = async || bytes(server.empty("GET", "/eureka/apps").await).await;
    list().await;
    let misses = ["tower_eureka_response_cache_misses_total", "tower_eureka_response_cache_bytes"];
    walk.moves("the first list", &misses).await;
    tokio::time::sleep(SECOND).await;
    list().await;
    walk.moves("the same list", &["tower_eureka_response_cache_hits_total"]).await;
    server.empty("PUT", &format!("{ORDER_1}/status?value=OUT_OF_SERVICE")).await;
    let down =
        [r#"tower_eureka_overrides_total{origin="client"}"#, r#"tower_eureka_instances{status="OUT_OF_SERVICE"}"#];
    walk.moves("an override", &down).await;
    server.empty("PUT", &format!("{ORDER_1}/metadata?a=b")).await;
    walk.moves("new metadata", &["tower_eureka_metadata_changes_total"]).await;
    let long = document("h:orders:2", "UP", 1).replace(r#""vipAddress""#, r#""metadata":{"a":"LONG"},"vipAddress""#);
    server.post(ORDERS, long.replace("LONG", &"x".repeat(70_000))).await;
    walk.moves("long metadata", &[r#"tower_eureka_registrations_refused_total{limit="metadata_size"}"#]).await;
    server.empty("DELETE", ORDER_1).await;
    walk.moves("a cancellation", &[r#"tower_eureka_cancellations_total{origin="client"}"#]).await;
    let batch = |action: &str, rest: &str| {
        format!(r#"{{"replicationList":[{{"appName":"ORDERS","id":"i","action":"{action}"{rest}}}]}}"#)
    };
    let instance = document("i", "UP", 1);
    let instance = &instance[r#"{"instance":"#.len()..instance.len() - 1];
    server.post("/eureka/peerreplication/batch/", batch("Register", &format!(r#","instanceInfo":{instance}"#))).await;
    server.post("/eureka/peerreplication/batch/", batch("Cancel", "")).await;
    walk.moves(
        "batches of a peer",
        &[
            r#"tower_eureka_registrations_total{origin="peer"}"#,
            r#"tower_eureka_cancellations_total{origin="peer"}"#,
            r#"tower_eureka_request_duration_seconds_count{operation="replication",status="200"}"#,
        ],
    )
    .await;
}

async fn evictions(moved: &mut BTreeSet<String>) {
    let server = ten(Eviction::new()).await;
    let beats = async |instances: usize, minutes: usize| {
        for _ in 0..minutes {
            minute(&server, 0..instances).await;
        }
    };
    beats(10, 3).await;
    let mut walk = Walk::start(&server.registry, moved).await;
    beats(3, 5).await;
    let preserved = ["tower_eureka_self_preservation_active", "tower_eureka_preserved_leases"];
    walk.moves("silent instances", &preserved).await;
    let limits = Limits::new().instances(2);
    let eviction = Eviction::new().self_preservation(false).interval(10 * SECOND);
    let mut other = EurekaServer::builder().limits(limits).eviction(eviction);
    other = other.property("eureka.server.limits.registry-bytes", "50000000").unwrap();
    let other = Server::built(other);
    walk.router = other.registry.management("/eureka");
    let settings =
        ["tower_eureka_self_preservation_enabled", "tower_eureka_instances_limit", "tower_eureka_registry_limit_bytes"];
    walk.moves("other settings", &settings).await;
    other.post(ORDERS, document("i-0", "UP", 1)).await;
    tokio::time::sleep(5 * MINUTE).await;
    walk.moves("an expired lease", &[r#"tower_eureka_evictions_total{reason="expired"}"#]).await;
    let full = Server::built(EurekaServer::builder().limits(Limits::new().instances(2)));
    for n in 0..2 {
        full.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
    }
    let mut walk = Walk::start(&full.registry, walk.moved).await;
    // Longer than the time after which an instance is silent.
    tokio::time::sleep(2 * MINUTE).await;
    full.post(ORDERS, document("i-2", "UP", 1)).await;
    walk.moves("a new instance in a full registry", &[r#"tower_eureka_evictions_total{reason="full"}"#]).await;
}

async fn replication(moved: &mut BTreeSet<String>) {
    let network = Network::default();
    let node = |name: &str| {
        network.node_with(name, &["a", "b"], |setup| {
            setup.node(|node| node.register(false)).peers(|peers| peers.wait_when_empty(MINUTE))
        })
    };
    let a: Node = node("a");
    let mut walk = Walk::start(&a.server, moved).await;
    tokio::time::sleep(2 * MINUTE).await;
    walk.moves("the time to wait", &["tower_eureka_open_for_traffic"]).await;
    let b = node("b");
    tokio::time::sleep(MINUTE).await;
    let of_peer = |name: &str| format!(r#"{name}{{peer="{PEER}"}}"#);
    let of_batches =
        |outcome: &str| format!(r#"tower_eureka_replication_batches_total{{outcome="{outcome}",peer="{PEER}"}}"#);
    walk.moves("a peer that was found", &[&of_peer("tower_eureka_peer_available")]).await;
    a.register("i", 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let queue = [of_peer("tower_eureka_replication_backlog"), of_peer("tower_eureka_replication_lag_seconds")];
    walk.moves("a change", &[&queue[0], &queue[1]]).await;
    soon().await;
    walk.moves("a batch", &[&queue[0], &queue[1], &of_batches("applied")]).await;
    network.kill("b");
    for _ in 0..4 {
        a.heartbeat("i", 1).await;
        tokio::time::sleep(15 * SECOND).await;
    }
    // A heartbeat is not kept for a peer.
    let expired = format!(r#"tower_eureka_replication_dropped_total{{peer="{PEER}",reason="heartbeat"}}"#);
    tokio::time::sleep(MINUTE).await;
    a.heartbeat("i", 1).await;
    soon().await;
    let lost = [of_peer("tower_eureka_peer_available"), of_batches("failed"), expired];
    walk.moves("a lost peer", &[&lost[0], &lost[1], &lost[2]]).await;
    drop(b);
}

async fn slow_clients(moved: &mut BTreeSet<String>) {
    let limits = Limits::new().response_bytes(20_000);
    let server = Server::built(EurekaServer::builder().limits(limits));
    // The budget is enforced while a listener serves.
    let listener = server.registry.listener(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let serving = tokio::spawn(listener.serve(server.router.clone(), std::future::pending()));
    tokio::task::yield_now().await;
    let mut walk = Walk::start(&server.registry, moved).await;
    let mut held = Vec::new();
    for n in 0..200 {
        server.post(ORDERS, document(&format!("i-{n}"), "UP", 1)).await;
        if n % 20 == 19 {
            held.push(server.empty("GET", "/eureka/apps").await);
        }
    }
    walk.moves("lists that nobody reads", &["tower_eureka_unsent_response_bytes"]).await;
    let refused = server.empty("GET", "/eureka/vips/orders").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    walk.moves("a list beyond the budget", &["tower_eureka_responses_refused_total"]).await;
    serving.abort();
}

/// Sends a part of a request and returns the connection.
async fn connect(address: std::net::SocketAddr, text: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text).await.unwrap();
    stream
}

async fn connections(moved: &mut BTreeSet<String>) {
    let server = EurekaServer::builder().build().unwrap();
    let listener = server.listener(TcpListener::bind("127.0.0.1:0").await.unwrap()).max_connections_per_address(1);
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(listener.serve(server.service("/eureka"), std::future::pending()));
    let mut walk = Walk::start(&server, moved).await;
    let first = connect(address, b"").await;
    walk.will_move("a connection", &["tower_eureka_connections", "tower_eureka_connections_accepted_total"]).await;
    let close = b"GET /eureka/apps HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    drop(connect(address, close).await);
    walk.will_move("one for an idle one", &[r#"tower_eureka_connections_closed_total{reason="room"}"#]).await;
    drop(first);
    let refused = async {
        loop {
            // It is in use once its handler waits for the body.
            let upload = b"POST /eureka/apps/ORDERS HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n";
            let _busy = connect(address, upload).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = connect(address, close).await.read_to_end(&mut Vec::new()).await;
            let samples = scrape(&walk.router).await;
            if samples[r#"tower_eureka_connections_refused_total{reason="address"}"#] > 0.0 {
                return;
            }
        }
    };
    tokio::time::timeout(10 * SECOND, refused).await.expect("a connection beyond the share is refused");
    walk.moves("one beyond the share", &[r#"tower_eureka_connections_refused_total{reason="address"}"#]).await;
    serving.abort();
}

#[cfg(all(feature = "tls", feature = "access"))]
async fn certificates(moved: &mut BTreeSet<String>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = std::env::temp_dir().join(format!("tower-eureka-metrics-{}.pem", std::process::id()));
    std::fs::write(&file, certificate.pem() + &key.serialize_pem()).unwrap();
    let server = EurekaServer::builder().build().unwrap();
    let listener = server.listener(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let listener = listener.tls(tower_eureka::server::ServerTls::new(&file, &file)).unwrap();
    std::fs::remove_file(&file).unwrap();
    let address = listener.local_addr().unwrap();
    let series = format!(r#"{CERTIFICATE}{{certificate="server",listener="{address}"}}"#);
    let mut walk = Walk::start(&server, moved).await;
    let serving = tokio::spawn(listener.serve(server.service("/eureka"), std::future::pending()));
    walk.will_move("a listener with TLS", &[&series]).await;
    serving.abort();
}

#[cfg(not(all(feature = "tls", feature = "access")))]
async fn certificates(moved: &mut BTreeSet<String>) {
    moved.insert(CERTIFICATE.into());
}

#[test]
fn each_documented_metric_moves_when_its_event_happens() {
    let mut moved = BTreeSet::new();
    let runtime =
        |paused: bool| tokio::runtime::Builder::new_current_thread().enable_all().start_paused(paused).build().unwrap();
    runtime(true).block_on(changes_of_instances(&mut moved));
    runtime(true).block_on(evictions(&mut moved));
    runtime(true).block_on(replication(&mut moved));
    runtime(true).block_on(slow_clients(&mut moved));
    runtime(false).block_on(connections(&mut moved));
    runtime(false).block_on(certificates(&mut moved));
    // It has one value for each version.
    moved.insert("tower_eureka_info".into());
    let moved: BTreeSet<_> = moved.iter().map(String::as_str).collect();
    assert_eq!(moved, documented());
}

#[tokio::test(start_paused = true)]
async fn documented_metrics_are_those_that_a_server_has() {
    let network = Network::default();
    let a = network.node_with("a", &["a", "b"], |setup| {
        setup.peers(|peers| peers.wait_when_empty(Duration::ZERO)).with(|builder| builder.metrics_by_application(true))
    });
    soon().await;
    a.heartbeat("i", 1).await;
    let samples = scrape(&a.server.management("/eureka")).await;
    let names: BTreeSet<_> = samples.keys().map(|series| metric(series)).collect();
    let names = names.into_iter().filter(|name| !name.starts_with("process_"));
    // The server has no listener with TLS.
    assert_eq!(names.chain([CERTIFICATE]).collect::<BTreeSet<_>>(), documented());
}

/// Returns the metrics that this text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|next: char| !(next.is_ascii_alphanumeric() || next == '_'));
    words.filter(|word| word.starts_with("tower_eureka_") && *word != "tower_eureka_").map(metric).collect()
}

#[test]
fn dashboard_and_alerts_use_documented_metrics() {
    let dashboard = include_str!("../../docs/monitoring/dashboard.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);
    for text in [dashboard, include_str!("../../docs/monitoring/alerts.yml")] {
        let (named, documented) = (named(text), documented());
        let unknown: Vec<_> = named.difference(&documented).collect();
        assert_eq!((unknown, named.len() > 10), (vec![], true));
    }
}

/// `promtool` of Prometheus, if it is installed.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn promtool_accepts_the_metrics() {
    use std::process::{Command, Stdio};

    let network = Network::default();
    let a = network.node_with("a", &["a", "b"], |setup| {
        setup.peers(|peers| peers.wait_when_empty(Duration::ZERO)).with(|builder| builder.metrics_by_application(true))
    });
    a.register("i", 1).await;
    soon().await;
    let response = a.server.management("/eureka").oneshot(Request::get("/metrics").body(Body::empty()).unwrap());
    let text = bytes(response.await.unwrap()).await;
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = match command.spawn() {
        Ok(promtool) => promtool,
        Err(error) => {
            eprintln!("!!! SKIPPED: promtool is not installed ({error}), the metrics are not checked by it");
            return;
        }
    };
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), &text).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success() && said.concat().is_empty(), "{said:?}\n{}", String::from_utf8_lossy(&text));
}
