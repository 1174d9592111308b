//! Copies and registrations that a registry refuses because of their size, or because it is full.
//! Each is sent once until it changes.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::{Method, Request, Response, StatusCode};
use serde_json::Value;
use tower::{ServiceExt, service_fn};

use crate::log::Log;
use crate::network::{Network, Node, ORDER, SECOND, Setup, document, soon};

const MINUTE: Duration = Duration::from_secs(60);

fn quiet(setup: Setup) -> Setup {
    setup.node(|node| node.register(false)).peers(|peers| peers.sync_up(false).wait_when_empty(Duration::ZERO))
}

/// Records the paths that are fetched from a node.
fn watch(network: &Network, node: &Node) -> Arc<Mutex<Vec<String>>> {
    let fetched = Arc::new(Mutex::new(Vec::new()));
    let (router, seen) = (node.router.clone(), fetched.clone());
    let watched = service_fn(move |request: Request<Body>| {
        if request.method() == Method::GET {
            seen.lock().unwrap().push(request.uri().path().to_owned());
        }
        let response = router.clone().oneshot(request);
        async move { response.await as Result<Response<Body>, Infallible> }
    });
    network.host(&node.name, Router::new().fallback_service(watched));
    fetched
}

fn count(fetched: &Mutex<Vec<String>>, part: &str) -> usize {
    fetched.lock().unwrap().iter().filter(|path| path.contains(part)).count()
}

async fn heartbeats(node: &Node, ids: usize, minutes: u32) {
    for _ in 0..2 * minutes {
        for id in 0..ids {
            node.heartbeat(&id.to_string(), 100).await;
        }
        tokio::time::sleep(30 * SECOND).await;
    }
}

/// Creates node `a`, which reconciles with node `b`. `b` has 20 instances and does not reach `a`.
async fn pair(network: &Network, limited: fn(Setup) -> Setup) -> [Node; 2] {
    let b = network.node_with("b", &["a", "b"], quiet);
    for id in 0..20 {
        b.register(&id.to_string(), 100).await;
    }
    network.silence("b", "a");
    let a = network.node_with("a", &["a", "b"], |setup| limited(quiet(setup)));
    [a, b]
}

#[tokio::test(start_paused = true)]
async fn copies_refused_by_a_full_registry_are_fetched_once() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let [a, b] = pair(&network, |setup| setup.limits(|limits| limits.instances(5))).await;
    let fetched = watch(&network, &b);
    heartbeats(&b, 20, 10).await;
    assert_eq!(a.view().len(), 5);
    let (each, all) = (count(&fetched, "/apps/ORDERS/"), count(&fetched, "/eureka/apps/"));
    assert!(each <= 30, "{each} fetches of single instances");
    assert!(all - each - count(&fetched, "delta") <= 4, "not every comparison fetches the registry");
    assert_eq!(log.lines(&["WARN", "cannot adopt copies of a peer", "registry is full"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn copies_refused_by_a_full_application_are_fetched_once() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let [a, b] = pair(&network, |setup| setup.limits(|limits| limits.instances_per_application(5))).await;
    let fetched = watch(&network, &b);
    heartbeats(&b, 20, 10).await;
    assert_eq!(a.view().len(), 5);
    let each = count(&fetched, "/apps/ORDERS/");
    assert!(each <= 40, "{each} fetches of single instances");
    assert_eq!(log.lines(&["WARN", "cannot adopt copies of a peer"]).len(), 1);
    // A changed copy is fetched again.
    b.register("19", 200).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(count(&fetched, "/apps/ORDERS/"), each + 1);
}

#[tokio::test(start_paused = true)]
async fn full_node_adopts_cancellations_and_later_copies_that_have_room() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let [a, b] = pair(&network, |setup| setup.limits(|limits| limits.instances(5))).await;
    heartbeats(&b, 20, 1).await;
    let known = |id: usize| a.order(&id.to_string()).is_some();
    let first: Vec<_> = (0..20).filter(|&id| known(id)).collect();
    assert_eq!(first.len(), 5);
    for id in 0..20 {
        if id != first[0] && id != 19 {
            b.empty("DELETE", &format!("apps/ORDERS/{id}")).await;
        }
    }
    heartbeats(&b, 20, 8).await;
    let left: Vec<_> = (0..20).filter(|&id| known(id)).collect();
    assert_eq!(left, [first[0], 19]);
    assert_eq!(log.lines(&["INFO", "copies of a peer adopted again"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn starting_node_that_refuses_all_copies_stays_closed() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let b = network.node_with("b", &["b"], quiet);
    for id in 0..20 {
        b.register(&format!("{id}-{}", "x".repeat(100)), 100).await;
    }
    let a = network.node_with("a", &["a", "b"], |setup| {
        setup.node(|node| node.register(false)).limits(|limits| limits.instance_bytes(50))
    });
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(a.empty("GET", "apps").await, StatusCode::FORBIDDEN);
    assert!(log.lines(&["copied the registry of a peer"]).is_empty());
    assert_eq!(log.lines(&["WARN", "cannot adopt copies of a peer", "refused=20"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn registration_refused_by_a_peer_is_sent_again_only_after_a_change() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let b = network.node_with("b", &["b"], |setup| quiet(setup).limits(|limits| limits.instances(1)));
    b.register("first", 100).await;
    let a = network.node_with("a", &["a", "b"], quiet);
    soon().await;
    let registrations = |network: &Network| network.sent().iter().filter(|line| line.contains("Register")).count();
    a.register(ORDER, 100).await;
    for _ in 0..20 {
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(a.heartbeat(ORDER, 100).await, StatusCode::OK);
        b.heartbeat("first", 100).await;
    }
    assert!(b.order(ORDER).is_none());
    assert_eq!(registrations(&network), 1, "{:?}", network.sent());
    assert_eq!(log.lines(&["WARN", "peer refuses registrations", "status=507"]).len(), 1);
    b.empty("DELETE", "apps/ORDERS/first").await;
    a.register(ORDER, 200).await;
    soon().await;
    assert!(b.order(ORDER).is_some());
    assert_eq!(log.lines(&["INFO", "peer takes registrations again"]).len(), 1);
}

/// A peer that accepts a version in the future responds with 409 to the version that this node
/// clamps it to.
#[tokio::test(start_paused = true)]
async fn copy_with_a_version_in_the_future_is_adopted_at_most_once() {
    let (log, _guard) = Log::start(tracing::Level::DEBUG);
    let network = Network::default();
    let a = network
        .node_with("a", &["a", "java"], |setup| quiet(setup).peers(|peers| peers.reconcile_interval(Duration::ZERO)));
    const FUTURE: i64 = 9_000_000_000_000;
    let java = service_fn(|request: Request<Body>| async move {
        let is_batch = request.uri().path().contains("peerreplication");
        let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
        let batch: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let items = batch["replicationList"].as_array().cloned().unwrap_or_default();
        let results = items.iter().map(|item| match item["action"].as_str() {
            Some("Heartbeat") => {
                let document: serde_json::Value = serde_json::from_str(&document(ORDER, FUTURE)).unwrap();
                serde_json::json!({ "statusCode": 409, "responseEntity": document["instance"] })
            }
            _ => serde_json::json!({ "statusCode": 200 }),
        });
        let response = serde_json::json!({ "responseList": results.collect::<Vec<_>>() }).to_string();
        let status = if is_batch { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let builder = Response::builder().status(status).header("content-type", "application/json");
        Ok::<_, Infallible>(builder.body(Body::from(response)).unwrap())
    });
    network.host("java", Router::new().fallback_service(java));
    a.register(ORDER, FUTURE).await;
    for _ in 0..10 {
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(a.heartbeat(ORDER, FUTURE).await, StatusCode::OK);
    }
    soon().await;
    assert!(log.lines(&["peer has newer data of an instance"]).len() >= 9);
    assert!(log.lines(&["adopted from a peer"]).len() <= 1);
}

#[tokio::test(start_paused = true)]
async fn change_that_a_peer_fails_to_apply_is_a_warning() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    // As a Java server does if an item makes it throw.
    let fail = async |body: String| {
        let batch: Value = serde_json::from_str(&body).unwrap();
        let items = batch["replicationList"].as_array().map_or(0, Vec::len);
        let results = vec![r#"{"statusCode":500}"#; items].join(",");
        ([("content-type", "application/json")], format!(r#"{{"responseList":[{results}]}}"#))
    };
    network.host("b", Router::new().route("/eureka/peerreplication/batch/", post(fail)));
    let a = network.node_with("a", &["a", "b"], quiet);
    soon().await;
    a.register(ORDER, 100).await;
    soon().await;
    assert_eq!(log.lines(&["WARN", "peer refuses a change", "status=500", "action=\"Register\""]).len(), 1);
}
