//! Peer URLs that lead to the node itself: always, at times, or only by the claim of a response.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tower::{ServiceExt, service_fn};
use tower_eureka::EurekaServer;
use tower_eureka::server::{self, Peers};

use crate::log::Log;
use crate::network::{Network, Node, ORDER, SECOND, soon};

/// Creates a load balancer that sends the requests to these nodes in turn.
fn balancer(nodes: &[&Node]) -> Router {
    let routers: Vec<_> = nodes.iter().map(|node| node.router.clone()).collect();
    let next = Arc::new(AtomicUsize::new(0));
    Router::new().fallback_service(service_fn(move |request: Request<Body>| {
        // Not in strict turns, with which two nodes that send in turns would only reach themselves.
        let turn = next.fetch_add(1, Relaxed).count_ones() as usize;
        let router = routers[turn % routers.len()].clone();
        async move { router.oneshot(request).await as Result<_, Infallible> }
    }))
}

#[tokio::test(start_paused = true)]
async fn loop_response_of_another_server_is_ignored() {
    for id in [None, Some("another")] {
        let network = Network::default();
        let a = network.node("a", &["a", "b"]);
        let claim = move || async move {
            let mut headers = HeaderMap::new();
            if let Some(id) = id {
                headers.insert("discoveryidentity-id", id.parse().unwrap());
            }
            (StatusCode::LOOP_DETECTED, headers)
        };
        network.host("b", Router::new().fallback(claim));
        a.register(ORDER, 100).await;
        soon().await;
        network.forget();
        a.register("second", 100).await;
        soon().await;
        assert_eq!(network.sent(), ["a>b Register second"], "{id:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn peer_url_that_led_to_this_node_is_checked_again() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let network = Network::default();
    let a = network.node("a", &["a", "alias"]);
    network.host("alias", a.router.clone());
    soon().await;
    assert_eq!(log.lines(&["WARN", "no peer is left", "peer=http://alias:8761/eureka/"]).len(), 1);
    a.register("early", 100).await;
    soon().await;
    assert!(network.sent().is_empty(), "{:?}", network.sent());
    // From now on the name leads to another node.
    let b = network.node("b", &["b"]);
    network.host("alias", b.router.clone());
    for _ in 0..14 {
        tokio::time::sleep(30 * SECOND).await;
        a.heartbeat("early", 100).await;
    }
    a.register("late", 100).await;
    soon().await;
    assert!(b.order("late").is_some() && b.order("early").is_some());
    assert_eq!(log.lines(&["INFO", "leads to another node again"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_behind_one_load_balancer_converge_and_log_a_warning() {
    // For the pauses between the tries of a batch that came back.
    fastrand::seed(7);
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let network = Network::default();
    let [a, b] = ["a", "b"].map(|name| network.node(name, &["balancer"]));
    network.host("balancer", balancer(&[&a, &b]));
    soon().await;
    for n in 0..4 {
        a.register(&format!("a-{n}"), 100).await;
        b.register(&format!("b-{n}"), 100).await;
        soon().await;
    }
    a.empty("DELETE", "apps/ORDERS/a-0").await;
    soon().await;
    assert_eq!((a.view(), a.view().len()), (b.view(), 7));
    let lines = log.lines(&["leads to this node at times", "name each node by a URL of its own"]);
    assert!(matches!(lines.len(), 1 | 2), "once for each node that reached itself: {lines:?}");
}

#[tokio::test(start_paused = true)]
async fn node_alone_behind_a_load_balancer_converges_with_a_later_one() {
    let network = Network::default();
    let a = network.node("a", &["balancer"]);
    network.host("balancer", balancer(&[&a]));
    a.register("early", 100).await;
    tokio::time::sleep(600 * SECOND).await;
    a.register("before", 100).await;
    let b = network.node("b", &["balancer"]);
    network.host("balancer", balancer(&[&a, &b]));
    soon().await;
    a.register("a-late", 100).await;
    b.register("b-late", 100).await;
    for _ in 0..8 {
        for id in ["before", "a-late"] {
            a.heartbeat(id, 100).await;
        }
        b.heartbeat("b-late", 100).await;
        tokio::time::sleep(30 * SECOND).await;
    }
    for id in ["before", "a-late", "b-late"] {
        assert!(a.order(id).is_some() && b.order(id).is_some(), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn node_alone_behind_a_load_balancer_opens_at_once() {
    let network = Network::default();
    let a = network.node_with("a", &["balancer"], |setup| setup.node(|node| node.register(false)));
    network.host("balancer", balancer(&[&a]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(a.empty("GET", "apps").await, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn restarted_node_that_reaches_itself_first_says_so_and_copies_the_other_later() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let network = Network::default();
    let b = network.node("b", &["balancer"]);
    network.host("balancer", balancer(&[&b]));
    soon().await;
    for n in 0..3 {
        b.register(&format!("b-{n}"), 100).await;
    }
    // The load balancer sends the requests of the restarted node to that node at first.
    let a = network.node_with("a", &["balancer"], |setup| setup.node(|node| node.register(false)));
    network.host("balancer", balancer(&[&a]));
    soon().await;
    assert_eq!((a.empty("GET", "apps").await, a.view().len()), (StatusCode::OK, 0));
    let status = a.json("status").await["generalStats"].take().to_string();
    assert!(status.contains("instances of other nodes behind a load balancer are missing"), "{status}");
    assert!(!log.lines(&["no peer is left", "name each node by a URL of its own"]).is_empty());
    network.host("balancer", balancer(&[&a, &b]));
    for _ in 0..8 {
        for n in 0..3 {
            b.heartbeat(&format!("b-{n}"), 100).await;
        }
        tokio::time::sleep(30 * SECOND).await;
    }
    assert_eq!(a.view().len(), 3);
}

/// A load balancer of connections keeps each at one node. A connection that led to the sender is
/// closed.
#[tokio::test]
async fn nodes_behind_a_load_balancer_of_connections_converge() {
    let balancer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/eureka/", balancer.local_addr().unwrap());
    let (mut nodes, mut ports) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.push(listener.local_addr().unwrap().port());
        let node = EurekaServer::builder()
            .peers(Peers::new().url(&url).wait_when_empty(Duration::ZERO))
            .node(server::Node::new().host_name("127.0.0.1").register(false))
            .port(listener.local_addr().unwrap().port())
            .build()
            .unwrap();
        let app = node.service("/eureka");
        tokio::spawn(node.listener(listener).serve(app, std::future::pending()));
        nodes.push(node);
    }
    tokio::spawn(async move {
        for turn in 0.. {
            let Ok((mut client, _)) = balancer.accept().await else { return };
            let port = ports[turn % ports.len()];
            tokio::spawn(async move {
                let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let routers = nodes.iter().map(EurekaServer::router).collect::<Vec<_>>();
    for (n, router) in routers.iter().enumerate() {
        let document = crate::network::document(&format!("{n}"), 100);
        let request = Request::post("/apps/ORDERS").header("content-type", "application/json");
        let response = router.clone().oneshot(request.body(Body::from(document)).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }
    let agreed = async {
        while nodes.iter().any(|node| node.applications().len() < 2) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(30 * SECOND, agreed).await.expect("both nodes have both instances");
}
