//! Reconciliation of nodes that missed changes of each other: the newer state is kept, whichever
//! node dropped the change.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use tower::{ServiceExt, service_fn};
use tower_eureka::model::InstanceStatus::{Down, OutOfService, Unknown, Up};

use crate::network::{Network, Node, SECOND, Setup, soon};

const MINUTE: Duration = Duration::from_secs(60);

/// Sets up a node that drops changes after 30 seconds, as a Java server does.
fn forgetful(setup: Setup) -> Setup {
    setup.node(|node| node.register(false)).peers(|peers| peers.sync_up(false).outage_limit(Duration::ZERO))
}

/// Sets up a node that appears to its peers as a Java server: it does not reconcile, either.
fn java(setup: Setup) -> Setup {
    forgetful(setup).peers(|peers| peers.reconcile_interval(Duration::ZERO))
}

fn agree(nodes: &[Node], what: &str) {
    for node in &nodes[1..] {
        assert_eq!(nodes[0].view(), node.view(), "{what}: {} and {}", nodes[0].name, node.name);
    }
}

/// Makes one write of each kind, to instances whose ids begin with `prefix`.
async fn write(node: &Node, prefix: &str) {
    for (method, path) in [
        ("PUT", "out/status?value=OUT_OF_SERVICE"),
        ("DELETE", "back/status?value=UP"),
        ("PUT", "marked/metadata?canary=yes"),
        ("PUT", "both/metadata?canary=yes"),
        ("PUT", "both/status?value=DOWN"),
        ("DELETE", "gone"),
    ] {
        assert_eq!(node.empty(method, &format!("apps/ORDERS/{prefix}-{path}")).await, StatusCode::OK, "{path}");
    }
    node.register(&format!("{prefix}-new"), 300).await;
    node.register(&format!("{prefix}-changed"), 200).await;
}

async fn prepare(node: &Node, prefix: &str) {
    for id in ["out", "back", "marked", "both", "gone", "changed"] {
        node.register(&format!("{prefix}-{id}"), 100).await;
    }
    node.empty("PUT", &format!("apps/ORDERS/{prefix}-back/status?value=OUT_OF_SERVICE")).await;
}

/// Checks that the writes are present. Nodes could also agree without them.
fn shows(node: &Node, prefix: &str) {
    let seen = |id: &str| node.order(&format!("{prefix}-{id}")).map(|i| (i.status(), i.overridden_status()));
    assert_eq!(seen("out"), Some((OutOfService, OutOfService)), "{prefix} at {}", node.name);
    assert_eq!(seen("back"), Some((Up, Unknown)), "{prefix} at {}", node.name);
    assert_eq!(seen("both"), Some((Down, Down)), "{prefix} at {}", node.name);
    assert_eq!(seen("gone"), None, "{prefix} at {}", node.name);
    assert_eq!(seen("new"), Some((Up, Unknown)), "{prefix} at {}", node.name);
    for id in ["marked", "both"] {
        let order = node.order(&format!("{prefix}-{id}")).unwrap();
        assert_eq!(order.metadata().get("canary"), Some("yes"), "{prefix}-{id} at {}", node.name);
    }
    let changed = node.order(&format!("{prefix}-changed")).unwrap();
    assert_eq!(changed.last_dirty_timestamp(), Some(200), "{prefix} at {}", node.name);
}

#[tokio::test(start_paused = true)]
async fn nodes_agree_after_a_partition_in_which_changes_were_dropped() {
    let network = Network::default();
    let all = ["java", "b", "c"];
    let nodes = [network.node_with("java", &all, java), network.node("b", &all), network.node("c", &all)];
    soon().await;
    for (node, prefix) in nodes.iter().zip(all) {
        prepare(node, prefix).await;
    }
    soon().await;
    agree(&nodes, "before");
    network.cut("java", "b");
    network.cut("java", "c");
    for (node, prefix) in nodes.iter().zip(all) {
        write(node, prefix).await;
    }
    tokio::time::sleep(MINUTE).await;
    assert_ne!(nodes[0].view(), nodes[1].view());
    network.heal();
    tokio::time::sleep(MINUTE).await;
    agree(&nodes, "a minute after the partition");
    for node in &nodes {
        all.iter().for_each(|prefix| shows(node, prefix));
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_node_that_reaches_no_peer_are_fetched() {
    let network = Network::default();
    let all = ["java", "b", "c"];
    let nodes =
        [network.node_with("java", &all, java), network.node("b", &all), network.node_with("c", &all, forgetful)];
    soon().await;
    prepare(&nodes[0], "java").await;
    soon().await;
    network.silence("java", "b");
    network.silence("java", "c");
    write(&nodes[0], "java").await;
    tokio::time::sleep(MINUTE).await;
    agree(&nodes, "while none of its requests arrives");
    nodes.iter().for_each(|node| shows(node, "java"));
}

#[tokio::test(start_paused = true)]
async fn instance_changed_at_all_nodes_converges_to_one_state() {
    let network = Network::default();
    let all = ["a", "b", "c"];
    let nodes = all.map(|name| network.node(name, &all));
    soon().await;
    for id in ["1", "2", "3"] {
        nodes[0].register(id, 100).await;
    }
    soon().await;
    all.iter().for_each(|name| all.iter().filter(|other| *other > name).for_each(|other| network.cut(name, other)));
    for (node, status) in nodes.iter().zip(["OUT_OF_SERVICE", "DOWN", "STARTING"]) {
        node.empty("PUT", &format!("apps/ORDERS/1/status?value={status}")).await;
        node.empty("PUT", &format!("apps/ORDERS/2/metadata?side={}", node.name)).await;
    }
    nodes[1].empty("PUT", "apps/ORDERS/3/status?value=DOWN").await;
    nodes[2].register("3", 200).await;
    tokio::time::sleep(MINUTE).await;
    network.heal();
    tokio::time::sleep(MINUTE).await;
    agree(&nodes, "after changes at all nodes");
    assert_eq!(nodes[0].order("3").unwrap().last_dirty_timestamp(), Some(200));
    network.forget();
    tokio::time::sleep(10 * MINUTE).await;
    assert!(network.sent().is_empty(), "nothing more is sent: {:?}", network.sent());
}

#[tokio::test(start_paused = true)]
async fn cancelled_instance_is_not_adopted_again() {
    let network = Network::default();
    let all = ["java", "b", "c"];
    let nodes = [network.node_with("java", &all, java), network.node("b", &all), network.node("c", &all)];
    soon().await;
    nodes[0].register("cancelled", 100).await;
    soon().await;
    network.cut("java", "b");
    network.cut("java", "c");
    assert_eq!(nodes[1].empty("DELETE", "apps/ORDERS/cancelled").await, StatusCode::OK);
    // Longer than the delta shows the cancellation.
    tokio::time::sleep(5 * MINUTE).await;
    // `c` received the cancellation from `b`, so it has nothing in its own queue.
    network.join("java", "c");
    tokio::time::sleep(MINUTE).await;
    for node in &nodes {
        assert!(node.order("cancelled").is_none(), "at {}", node.name);
    }
}

#[tokio::test(start_paused = true)]
async fn evicted_instance_is_not_adopted_from_a_peer_that_keeps_it() {
    let network = Network::default();
    let all = ["java", "b"];
    let nodes = [
        network.node_with("java", &all, java),
        network.node_with("b", &all, |b| forgetful(b).eviction(|eviction| eviction.self_preservation(false))),
    ];
    soon().await;
    nodes[0].register("silent", 100).await;
    soon().await;
    assert_eq!(nodes[1].view().len(), 1);
    tokio::time::sleep(4 * MINUTE).await;
    for _ in 0..60 {
        assert_eq!((nodes[0].view().len(), nodes[1].view().len()), (1, 0), "one keeps the instance, one does not");
        tokio::time::sleep(MINUTE / 4).await;
    }
}

/// Nodes that adopted an instance at different times must not keep it alive for each other.
#[tokio::test(start_paused = true)]
async fn silent_instance_is_evicted_at_all_nodes() {
    for all in [&["a", "b"][..], &["a", "b", "c"]] {
        let network = Network::default();
        let evicting =
            |setup| forgetful(setup).eviction(|eviction| eviction.self_preservation(false).interval(10 * SECOND));
        let nodes: Vec<_> = all.iter().map(|name| network.node_with(name, all, evicting)).collect();
        soon().await;
        all[1..].iter().for_each(|other| network.cut("a", other));
        nodes[0].register("silent", 100).await;
        tokio::time::sleep(65 * SECOND).await;
        network.heal();
        tokio::time::sleep(20 * SECOND).await;
        for node in &nodes {
            assert!(node.order("silent").is_some(), "adopted at {} of {}", node.name, all.len());
        }
        // The rest of the 90 seconds, then an eviction and a comparison, each up to a tenth late.
        tokio::time::sleep(55 * SECOND).await;
        for _ in 0..80 {
            for node in &nodes {
                assert!(node.view().is_empty(), "at {} of {}", node.name, all.len());
            }
            tokio::time::sleep(MINUTE / 4).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn instance_only_at_the_peer_is_adopted_after_any_time() {
    let network = Network::default();
    let all = ["a", "b"];
    let [a, b] = all.map(|name| network.node_with(name, &all, forgetful));
    soon().await;
    network.cut("a", "b");
    a.register("old", 100).await;
    for round in 0..30 {
        assert_eq!(a.heartbeat("old", 100).await, StatusCode::OK);
        if round == 20 {
            network.heal();
            network.silence("a", "b");
        }
        tokio::time::sleep(10 * SECOND).await;
    }
    assert!(b.order("old").is_some());
}

#[tokio::test(start_paused = true)]
async fn lease_that_expired_at_a_peer_is_not_cancelled_here() {
    let network = Network::default();
    let all = ["java", "b"];
    let nodes = [
        network.node_with("java", &all, |setup| java(setup).eviction(|eviction| eviction.self_preservation(false))),
        network.node_with("b", &all, |setup| forgetful(setup).eviction(|eviction| eviction.self_preservation(false))),
    ];
    soon().await;
    nodes[1].register("1", 100).await;
    soon().await;
    network.silence("b", "java");
    for _ in 0..30 {
        // Meanwhile `b` cannot reconcile either, since its requests to `java` are dropped.
        nodes[1].heartbeat("1", 100).await;
        tokio::time::sleep(10 * SECOND).await;
    }
    assert!(nodes[0].order("1").is_none(), "evicted, since no heartbeat arrived");
    network.heal();
    tokio::time::sleep(MINUTE).await;
    assert!(nodes[1].order("1").is_some());
    nodes[1].heartbeat("1", 100).await;
    soon().await;
    agree(&nodes, "the heartbeat caused a registration");
    assert_eq!(nodes[0].view().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn instance_evicted_from_a_full_peer_is_not_cancelled_here() {
    let network = Network::default();
    let all = ["full", "b"];
    let nodes = [
        network.node_with("full", &all, |setup| forgetful(setup).limits(|limits| limits.instances(1))),
        network.node_with("b", &all, forgetful),
    ];
    soon().await;
    nodes[1].register("1", 100).await;
    soon().await;
    nodes[1].heartbeat("1", 100).await;
    soon().await;
    assert!(nodes[0].order("1").is_some());
    network.silence("b", "full");
    // Silent at the peer after 90 s, where the lease ends after 180 s.
    for _ in 0..10 {
        nodes[1].heartbeat("1", 100).await;
        tokio::time::sleep(10 * SECOND).await;
    }
    nodes[0].register("new", 200).await;
    assert!(nodes[0].order("1").is_none(), "evicted for want of room");
    network.heal();
    for _ in 0..12 {
        nodes[1].heartbeat("1", 100).await;
        assert!(nodes[1].order("1").is_some());
        tokio::time::sleep(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn disabled_reconciliation_adopts_nothing() {
    let network = Network::default();
    let all = ["a", "b"];
    let nodes = all.map(|name| network.node_with(name, &all, java));
    soon().await;
    network.cut("a", "b");
    nodes[0].register("1", 100).await;
    tokio::time::sleep(MINUTE).await;
    network.heal();
    tokio::time::sleep(10 * MINUTE).await;
    assert!(nodes[1].order("1").is_none());
}

/// Tomcat refuses paths with an encoded slash.
#[tokio::test(start_paused = true)]
async fn instance_that_cannot_be_fetched_does_not_block_others() {
    let network = Network::default();
    let all = ["a", "tomcat"];
    let [a, tomcat] = all.map(|name| network.node_with(name, &all, forgetful));
    let (router, lists) = (tomcat.router.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = lists.clone();
    let refusing = service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        counted.fetch_add((path.trim_end_matches('/') == "/eureka/apps").into(), Relaxed);
        let response = router.clone().oneshot(request);
        async move {
            if path.contains("%2F") {
                let refused = Response::builder().status(StatusCode::BAD_REQUEST).body(Body::empty());
                return Ok::<_, Infallible>(refused.unwrap());
            }
            response.await
        }
    });
    network.host("tomcat", Router::new().fallback_service(refusing));
    network.silence("tomcat", "a");
    for round in 0..2 {
        tomcat.register("orders/1", 100).await;
        tomcat.register(&format!("{round}"), 100).await;
        tokio::time::sleep(MINUTE).await;
        assert!(a.order(&format!("{round}")).is_some() && a.order("orders/1").is_none());
    }
    tokio::time::sleep(8 * MINUTE).await;
    let lists = lists.load(Relaxed);
    assert!((1..6).contains(&lists), "the registry was fetched {lists} times in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn panic_while_sending_stops_neither_replication_nor_reconciliation() {
    let network = Network::default();
    let all = ["a", "b"];
    let nodes = all.map(|name| network.node(name, &all));
    soon().await;
    // More rounds than there may be batches in flight.
    for round in 0..30 {
        network.panic("a");
        nodes[0].register(&format!("lost-{round}"), 100).await;
        soon().await;
        nodes[0].register(&format!("next-{round}"), 100).await;
        soon().await;
        assert!(nodes[1].order(&format!("next-{round}")).is_some(), "{round}");
    }
    tokio::time::sleep(MINUTE).await;
    assert_eq!(nodes[1].view().len(), 60);
    agree(&nodes, "lost changes are reconciled");
}

/// A proxy in front of the peer responds to one batch, and the peer does not know this node.
#[tokio::test(start_paused = true)]
async fn changes_of_a_batch_that_was_refused_once_reach_the_peer() {
    for status in [StatusCode::INTERNAL_SERVER_ERROR, StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
        let network = Network::default();
        let a = network.node_with("a", &["a", "b"], forgetful);
        let b = network.node_with("b", &["b"], forgetful);
        let refuses = network.refusing_batches(&b, status);
        a.register("1", 100).await;
        // Until the change is no longer in the delta.
        tokio::time::sleep(10 * MINUTE).await;
        assert!(b.order("1").is_some(), "{status}");
        refuses.set(true);
        assert_eq!(a.empty("PUT", "apps/ORDERS/1/metadata?canary=yes").await, StatusCode::OK);
        soon().await;
        refuses.set(false);
        tokio::time::sleep(2 * MINUTE).await;
        assert_eq!(b.order("1").unwrap().metadata().get("canary"), Some("yes"), "{status}");
    }
}
