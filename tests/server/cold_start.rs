//! Start of nodes whose peers are missing, faulty, just started, or have more instances.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};

use crate::log::Log;
use crate::network::{Network, Node, SECOND, Setup};

/// Creates a node with default settings that does not register itself.
fn node(network: &Network, name: &str, all: &[&str]) -> Node {
    network.node_with(name, all, |setup| setup.node(|node| node.register(false)))
}

/// Sends heartbeats of two instances to each node for this number of seconds. Returns the time
/// after which each node opened.
async fn beat(nodes: &[&Node], limit: u64) -> Vec<Option<Duration>> {
    let start = Instant::now();
    let mut opened = vec![None; nodes.len()];
    for second in 0..limit {
        for (node, opened) in nodes.iter().zip(&mut opened) {
            if second % 30 == 5 {
                for id in [format!("{}-1", node.name), format!("{}-2", node.name)] {
                    if node.heartbeat(&id, 100).await == StatusCode::NOT_FOUND {
                        node.register(&id, 100).await;
                    }
                }
            }
            if opened.is_none() && node.empty("GET", "apps").await == StatusCode::OK {
                *opened = Some(start.elapsed());
            }
        }
        tokio::time::sleep(SECOND).await;
    }
    opened
}

fn all_within(opened: &[Option<Duration>], least: u32, most: u32) {
    for opened in opened {
        let range = least * SECOND..=most * SECOND;
        assert!(opened.is_some_and(|opened| range.contains(&opened)), "{opened:?}");
    }
}

/// Creates a node that appears to its peers as a Spring server: it serves lists from its first
/// request on, and sends no digests.
fn spring(network: &Network, name: &str, all: &[&str]) -> Node {
    let node = network.node_with(name, all, |setup| {
        setup.node(|node| node.register(false)).peers(|peers| peers.sync_up(false).reconcile_interval(Duration::ZERO))
    });
    let router = node.router.clone();
    let stripped = service_fn(move |request: Request<Body>| {
        let response = router.clone().oneshot(request);
        async move {
            let mut response = response.await?;
            response.headers_mut().remove("eureka-digest");
            Ok::<_, Infallible>(response)
        }
    });
    network.host(name, Router::new().fallback_service(stripped));
    node
}

/// Body that arrives byte by byte and never ends.
struct Drip(tokio::time::Interval);

impl http_body::Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from_static(b" ")))))
    }
}

fn drip() -> Router {
    Router::new().fallback(|| async { Response::new(Body::new(Drip(tokio::time::interval(SECOND)))) })
}

#[tokio::test(start_paused = true)]
async fn nodes_that_start_together_open_within_70_seconds() {
    for all in [&["a", "b"][..], &["a", "b", "c"]] {
        let network = Network::default();
        let nodes: Vec<_> = all.iter().map(|name| node(&network, name, all)).collect();
        let opened = beat(&nodes.iter().collect::<Vec<_>>(), 75).await;
        all_within(&opened, 55, 70);
        for node in &nodes {
            assert_eq!(node.view().len(), 2 * all.len(), "{} shows what registered anywhere", node.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn node_that_starts_10_seconds_later_opens_within_70_seconds() {
    let network = Network::default();
    let all = ["a", "b"];
    let a = node(&network, "a", &all);
    beat(&[&a], 10).await;
    let b = node(&network, "b", &all);
    all_within(&beat(&[&a, &b], 75).await, 40, 59);
}

#[tokio::test(start_paused = true)]
async fn node_without_usable_peers_opens_after_two_renewal_intervals() {
    for peer in ["unreachable", "silent", "dripping", "broken"] {
        let network = Network::default();
        let a = node(&network, "a", &["a", "b", "c"]);
        for name in ["b", "c"] {
            match peer {
                "silent" => network.cut("a", name),
                "dripping" => network.host(name, drip()),
                "broken" => network.host(name, Router::new()),
                _ => {}
            }
        }
        let opened = beat(&[&a], 75).await;
        assert!(opened[0].is_some_and(|opened| opened >= 55 * SECOND && opened <= 70 * SECOND), "{peer}: {opened:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn expected_renewal_interval_sets_the_time_for_collecting_heartbeats() {
    let network = Network::default();
    let a = network.node_with("a", &["a", "b"], |setup| {
        setup.node(|node| node.register(false)).eviction(|eviction| eviction.expected_renewal_interval(10 * SECOND))
    });
    all_within(&beat(&[&a], 40).await, 18, 22);
}

#[tokio::test(start_paused = true)]
async fn late_registration_opens_the_node_one_renewal_interval_later() {
    let network = Network::default();
    let a = node(&network, "a", &["a", "b"]);
    tokio::time::sleep(100 * SECOND).await;
    assert!(!a.server.is_open(), "nothing registered");
    a.register("late", 100).await;
    tokio::time::sleep(25 * SECOND).await;
    assert!(!a.server.is_open());
    tokio::time::sleep(10 * SECOND).await;
    assert!(a.server.is_open());
}

#[tokio::test(start_paused = true)]
async fn own_lease_alone_does_not_open_the_node() {
    let network = Network::default();
    let a = network.node_with("a", &["a", "b"], |setup| setup);
    tokio::time::sleep(290 * SECOND).await;
    assert!(!a.server.is_open());
    tokio::time::sleep(20 * SECOND).await;
    assert!(a.server.is_open(), "it opens after `wait_when_empty`");
}

#[tokio::test(start_paused = true)]
async fn node_opens_after_wait_when_empty_at_the_latest() {
    let limit = |seconds| {
        move |setup: Setup| {
            setup.node(|node| node.register(false)).peers(|peers| peers.wait_when_empty(seconds * SECOND))
        }
    };
    for peer in ["unreachable", "silent", "dripping"] {
        for (seconds, most) in [(0, 0), (7, 8)] {
            let network = Network::default();
            match peer {
                "silent" => network.cut("a", "b"),
                "dripping" => network.host("b", drip()),
                _ => {}
            }
            let a = network.node_with("a", &["a", "b"], limit(seconds));
            assert_eq!(a.server.is_open(), seconds == 0, "{peer}: with zero it opens at once");
            tokio::time::sleep(most * SECOND).await;
            assert!(a.server.is_open(), "{peer}, {seconds} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn peer_with_more_instances_is_copied_before_lists_are_served() {
    // The peer is reachable from the start, after 20 seconds, or right before the node would open
    // without it.
    for seconds in [0, 20, 57] {
        let network = Network::default();
        let all = ["a", "b", "sick"];
        let b = network.node("b", &all);
        for n in 0..300 {
            b.register(&format!("known-{n}"), 100).await;
        }
        network.host("sick", drip());
        network.cut("a", "b");
        let a = node(&network, "a", &all);
        let (mut shown, mut opened) = (Vec::new(), None);
        for second in 0..75 {
            if second == seconds {
                network.heal();
            }
            if second == 10 {
                a.register("new", 100).await;
            }
            if a.server.is_open() {
                opened.get_or_insert(second);
                shown.push(a.view().len());
            }
            tokio::time::sleep(SECOND).await;
        }
        let opened = opened.unwrap();
        assert!(opened <= 70, "healed at {seconds} s, open at {opened} s");
        assert!(seconds > 0 || opened < 10, "it opens after the copy: {opened}");
        assert!(shown.iter().all(|&instances| instances >= 300), "healed at {seconds} s: {shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn peer_that_sends_its_list_byte_by_byte_does_not_hold_off_the_others() {
    let network = Network::default();
    let good = network.node("good", &["good"]);
    for id in ["1", "2"] {
        good.register(id, 100).await;
    }
    let router = network.0.lock().unwrap().hosts.remove("good").unwrap();
    network.host("sick", drip());
    // With this timeout, a list may take 80 minutes.
    let node = network.node_with("new", &["new", "sick", "good"], |setup| {
        setup.node(|node| node.register(false)).peers(|peers| peers.read_timeout(600 * SECOND))
    });
    tokio::time::sleep(20 * SECOND).await;
    network.host("good", router);
    tokio::time::sleep(90 * SECOND).await;
    assert_eq!(node.empty("GET", "apps").await, StatusCode::OK, "it was copied from the other peer");
    assert_eq!(node.view().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn spring_peer_that_has_just_started_does_not_open_the_node() {
    let network = Network::default();
    let all = ["a", "spring"];
    let spring = spring(&network, "spring", &all);
    spring.register("early", 100).await;
    let a = node(&network, "a", &all);
    tokio::time::sleep(10 * SECOND).await;
    assert!(!a.server.is_open(), "a Spring server that has just started is not trusted");
    assert!(a.order("early").is_some(), "its instances are copied nevertheless");
    assert!(reason(&a).await.contains("no peer knows more"), "{}", reason(&a).await);
    all_within(&beat(&[&a], 65).await, 40, 60);
}

#[tokio::test(start_paused = true)]
async fn spring_peer_that_has_run_for_long_opens_the_node_at_once() {
    let network = Network::default();
    let all = ["a", "spring"];
    let spring = spring(&network, "spring", &all);
    spring.register("old", 100).await;
    for _ in 0..4 {
        tokio::time::sleep(30 * SECOND).await;
        spring.heartbeat("old", 100).await;
    }
    spring.register("young", 100).await;
    let a = node(&network, "a", &all);
    tokio::time::sleep(2 * SECOND).await;
    assert!(a.server.is_open() && a.view().len() == 2);
    assert!(reason(&a).await.starts_with("2 instances were copied from http://spring:8761"), "{}", reason(&a).await);
}

#[tokio::test(start_paused = true)]
async fn peer_with_an_empty_registry_does_not_open_the_node() {
    let network = Network::default();
    let all = ["a", "b"];
    let _b = network.node("b", &all);
    let a = node(&network, "a", &all);
    tokio::time::sleep(45 * SECOND).await;
    assert!(!a.server.is_open() && reason(&a).await.contains("no peer knows more"), "{}", reason(&a).await);
}

#[tokio::test(start_paused = true)]
async fn peer_with_registry_servers_only_does_not_open_the_node() {
    let network = Network::default();
    let all = ["a", "b"];
    let b = network.node_with("b", &all, |setup| setup.peers(|peers| peers.wait_when_empty(Duration::ZERO)));
    tokio::time::sleep(40 * SECOND).await;
    assert!(b.server.is_open() && b.view().len() == 1, "it lists itself");
    let a = node(&network, "a", &all);
    tokio::time::sleep(45 * SECOND).await;
    assert!(!a.server.is_open() && reason(&a).await.contains("no peer knows more"), "{}", reason(&a).await);
    b.register("late", 100).await;
    tokio::time::sleep(35 * SECOND).await;
    assert!(a.server.is_open() && a.order("late").is_some());
}

#[tokio::test(start_paused = true)]
async fn peer_that_refuses_its_lists_for_a_minute_is_a_warning_with_the_cause() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let network = Network::default();
    let refused = || async { (StatusCode::FORBIDDEN, "node lacks the role read\n") };
    network.host("b", Router::new().fallback(refused));
    let a = node(&network, "a", &["a", "b"]);
    let warnings = || log.lines(&["WARN", "peer still refuses its registry", "node lacks the role read"]).len();
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(warnings(), 0, "it may not be open for traffic yet");
    tokio::time::sleep(200 * SECOND).await;
    assert_eq!(warnings(), 1, "{}", log.text());
    drop(a);
}

/// Returns the reason on the status page.
async fn reason(node: &Node) -> String {
    let general = node.json("status").await["generalStats"].take();
    assert_eq!(general["open-for-traffic"], node.server.is_open().to_string());
    general["open-for-traffic-reason"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn status_page_and_log_show_the_reason_of_a_closed_and_an_open_node() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let a = node(&network, "a", &["a", "b"]);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(
        reason(&a).await,
        "no peer has sent its registry, heartbeats are being collected; opens in 298 s at the latest"
    );
    assert_eq!(log.lines(&["WARN", "not open for traffic yet", "reason=no peer has sent its registry"]).len(), 1);
    beat(&[&a], 65).await;
    assert_eq!(
        reason(&a).await,
        "heartbeats were collected for two renewal intervals, and no peer has sent its registry"
    );
    assert_eq!(log.lines(&["INFO", "open for traffic: lists are served", "reason=heartbeats were collected"]).len(), 1);
    let alone = network.node_with("c", &["c"], |setup| setup);
    assert_eq!(reason(&alone).await, "no peers are configured");
}
