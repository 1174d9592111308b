//! Nodes whose clocks differ: they agree about the order of changes, and log the difference.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use tower::{ServiceExt, service_fn};
use tower_eureka::model::InstanceStatus::{Down, OutOfService};

use crate::log::Log;
use crate::network::{Network, Node, ORDER, SECOND, soon};

const HOUR: i64 = 3_600;
/// Time in which a node reconciles with its peer.
const LOOK: Duration = Duration::from_secs(40);

/// Replaces a node by one whose clock is ahead by this number of seconds: the times in its lists
/// are shifted, and so is the date of its responses.
fn ahead(network: &Network, node: &Node, secs: Arc<Mutex<i64>>) {
    let router = node.router.clone();
    let shifted = service_fn(move |mut request: Request<Body>| {
        request.headers_mut().remove("accept-encoding");
        let (response, secs) = (router.clone().oneshot(request), *secs.lock().unwrap());
        async move {
            let (mut parts, body) = response.await?.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = shift(std::str::from_utf8(&body).unwrap(), secs * 1_000);
            parts.headers.remove("content-length");
            parts.headers.insert("date", date(secs));
            Ok::<_, Infallible>(http::Response::from_parts(parts, Body::from(body)))
        }
    });
    network.host(&node.name, Router::new().fallback_service(shifted));
}

#[allow(clippy::disallowed_methods, reason = "the date of a response is that of the wall clock")]
fn date(secs: i64) -> HeaderValue {
    let now = SystemTime::now();
    let offset = Duration::from_secs(secs.unsigned_abs());
    let shown = if secs < 0 { now - offset } else { now + offset };
    httpdate::fmt_http_date(shown).parse().unwrap()
}

/// Shifts the times of a registry in a JSON text, which are numbers of 13 digits.
fn shift(text: &str, by_ms: i64) -> String {
    let mut shifted = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        match digits.parse::<i64>() {
            Ok(time) if digits.len() == 13 => shifted.push_str(&(time + by_ms).to_string()),
            _ => shifted.push_str(&digits),
        }
        digits.clear();
        if c != '\0' {
            shifted.push(c);
        }
    }
    shifted
}

/// Creates two nodes of which only `a` reaches the other. The clock of `b` differs.
fn pair(network: &Network, secs: i64) -> [Node; 2] {
    let all = ["a", "b"];
    let quiet = |name| {
        network.node_with(name, &all, |setup| {
            setup.node(|node| node.register(false)).peers(|peers| peers.sync_up(false).wait_when_empty(Duration::ZERO))
        })
    };
    let nodes = [quiet("a"), quiet("b")];
    ahead(network, &nodes[1], Arc::new(Mutex::new(secs)));
    network.silence("b", "a");
    nodes
}

/// Sends a change to a node as a peer, so that it is not replicated.
async fn unheard(node: &Node, method: &str, path: &str) {
    let request = Request::builder().method(method).uri(format!("/eureka/apps/ORDERS/{path}"));
    let request = request.header("x-netflix-discovery-replication", "true").header("accept", "application/json");
    let response = node.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
}

#[tokio::test(start_paused = true)]
async fn cancelled_instance_is_not_adopted_from_a_peer_with_another_clock() {
    for secs in [0, HOUR, -HOUR, 20, -20] {
        let network = Network::default();
        let [a, _b] = pair(&network, secs);
        a.register(ORDER, 100).await;
        soon().await;
        tokio::time::sleep(LOOK).await;
        unheard(&a, "DELETE", ORDER).await;
        for _ in 0..3 {
            assert!(a.order(ORDER).is_none(), "{secs} s");
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn newer_override_is_kept_if_the_clock_of_a_peer_differs() {
    for secs in [0, HOUR, -HOUR] {
        for (first, expected) in [(0, Down), (1, OutOfService)] {
            let network = Network::default();
            let nodes = pair(&network, secs);
            nodes[0].register(ORDER, 100).await;
            soon().await;
            tokio::time::sleep(LOOK).await;
            let statuses = ["OUT_OF_SERVICE", "DOWN"];
            for turn in [first, 1 - first] {
                unheard(&nodes[turn], "PUT", &format!("{ORDER}/status?value={}", statuses[turn])).await;
                tokio::time::sleep(5 * SECOND).await;
            }
            tokio::time::sleep(LOOK).await;
            assert_eq!(nodes[0].order(ORDER).unwrap().status(), expected, "{secs} s, first {first}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn instance_only_at_the_peer_is_adopted_if_its_clock_differs() {
    for secs in [0, HOUR, -HOUR] {
        let network = Network::default();
        let [a, b] = pair(&network, secs);
        b.register(ORDER, 100).await;
        tokio::time::sleep(LOOK).await;
        assert!(a.order(ORDER).is_some(), "{secs} s");
    }
}

#[tokio::test(start_paused = true)]
async fn clock_difference_of_a_peer_is_logged_when_it_begins_and_ends() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let all = ["a", "b"];
    let [a, b] = all.map(|name| network.node(name, &all));
    let secs = Arc::new(Mutex::new(0));
    ahead(&network, &b, secs.clone());
    let mut logged = Vec::new();
    for now in [0, 3, -60, -60, 0, 3_600, 3_600, 0] {
        *secs.lock().unwrap() = now;
        a.register(ORDER, 100).await;
        tokio::time::sleep(LOOK).await;
        let count = |part| log.lines(&["peer=http://b:8761/eureka/", "clock of a peer", part]).len();
        logged.push((now, count("differs"), count("agrees")));
    }
    assert_eq!(
        logged,
        [(0, 0, 0), (3, 0, 0), (-60, 1, 0), (-60, 1, 0), (0, 1, 1), (3_600, 2, 1), (3_600, 2, 1), (0, 2, 2)]
    );
}
