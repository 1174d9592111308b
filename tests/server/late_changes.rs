//! Changes that reach a peer late, after newer ones of the same instance: the newest state wins.

use std::time::Duration;

use http::StatusCode;
use tower_eureka::model::InstanceStatus::{self, Down, OutOfService, Unknown, Up};

use crate::network::{Network, Node, SECOND, soon};

const MINUTE: Duration = Duration::from_secs(60);
const ALL: [&str; 2] = ["a", "b"];
const OUT: &str = "apps/ORDERS/x/status?value=OUT_OF_SERVICE";

/// Returns status and override of the instance `x`.
fn state(node: &Node) -> Option<(InstanceStatus, InstanceStatus)> {
    node.order("x").map(|x| (x.status(), x.overridden_status()))
}

/// Starts two nodes that are peers.
async fn pair() -> (Network, [Node; 2]) {
    let network = Network::default();
    let nodes = ALL.map(|name| network.node(name, &ALL));
    soon().await;
    (network, nodes)
}

/// Sends heartbeats of the instance `x` every 30 seconds, which the node accepts.
async fn heartbeats(node: &Node, count: usize, dirty: i64) {
    for _ in 0..count {
        assert_eq!(node.heartbeat("x", dirty).await, StatusCode::OK);
        tokio::time::sleep(30 * SECOND).await;
    }
}

async fn put(node: &Node, path: &str) {
    assert_eq!(node.empty("PUT", path).await, StatusCode::OK, "{path}");
}

async fn delete(node: &Node, path: &str) {
    assert_eq!(node.empty("DELETE", path).await, StatusCode::OK, "{path}");
}

#[tokio::test(start_paused = true)]
async fn instances_that_moved_to_another_node_stay_listed_when_a_partition_ends() {
    let network = Network::default();
    let all = ["a", "b", "c"];
    let [a, b, c] = all.map(|name| network.node(name, &all));
    soon().await;
    let ids: Vec<_> = (0..20).map(|n| format!("i{n}")).collect();
    for id in &ids {
        a.register(id, 100).await;
    }
    soon().await;
    network.cut("a", "b");
    network.cut("a", "c");
    for id in &ids {
        delete(&a, &format!("apps/ORDERS/{id}")).await;
    }
    tokio::time::sleep(5 * SECOND).await;
    for id in &ids {
        b.register(id, 200).await;
    }
    for _ in 0..8 {
        for id in &ids {
            assert_eq!(b.heartbeat(id, 200).await, StatusCode::OK);
        }
        tokio::time::sleep(30 * SECOND).await;
    }
    network.heal();
    for second in 0..20 {
        tokio::time::sleep(SECOND).await;
        assert_eq!([b.view().len(), c.view().len()], [20, 20], "{second} s after the partition");
    }
    assert_eq!(a.view(), b.view());
}

#[tokio::test(start_paused = true)]
async fn later_decision_of_an_operator_wins_after_a_partition() {
    for trial in 0..10 {
        let (network, [a, b]) = pair().await;
        a.register("x", 100).await;
        soon().await;
        network.cut("a", "b");
        tokio::time::sleep(Duration::from_millis(1000 + trial * 137)).await;
        put(&a, OUT).await;
        let later = if trial % 2 == 0 {
            tokio::time::sleep(5 * SECOND).await;
            delete(&a, "apps/ORDERS/x/status?value=UP").await;
            (OUT, (OutOfService, OutOfService))
        } else {
            ("apps/ORDERS/x/status?value=DOWN", (Down, Down))
        };
        tokio::time::sleep(40 * SECOND).await;
        b.heartbeat("x", 100).await;
        put(&b, later.0).await;
        tokio::time::sleep(Duration::from_millis(20_000 + trial * 211)).await;
        network.heal();
        for _ in 0..4 {
            tokio::time::sleep(15 * SECOND).await;
            b.heartbeat("x", 100).await;
            a.heartbeat("x", 100).await;
        }
        assert_eq!([state(&a), state(&b)], [Some(later.1); 2], "trial {trial}");
    }
}

#[tokio::test(start_paused = true)]
async fn later_decision_of_an_operator_wins_over_a_change_of_metadata_after_a_partition() {
    for minutes in [1, 5, 12] {
        let (network, [a, b]) = pair().await;
        b.register("x", 100).await;
        put(&b, OUT).await;
        b.register("y", 100).await;
        soon().await;
        network.cut("a", "b");
        tokio::time::sleep(2 * SECOND).await;
        put(&a, "apps/ORDERS/x/metadata?note=1").await;
        put(&a, "apps/ORDERS/y/metadata?note=1").await;
        tokio::time::sleep(20 * SECOND).await;
        delete(&b, "apps/ORDERS/x/status?value=UP").await;
        put(&b, "apps/ORDERS/y/metadata?note=2").await;
        for _ in 0..2 * minutes {
            assert_eq!(b.heartbeat("y", 100).await, StatusCode::OK);
            heartbeats(&b, 1, 100).await;
        }
        network.heal();
        heartbeats(&b, 4, 100).await;
        assert_eq!([state(&a), state(&b)], [Some((Up, Unknown)); 2], "{minutes} min");
        for node in [&a, &b] {
            assert_eq!(node.order("y").unwrap().metadata().get("note"), Some("2"), "{minutes} min");
        }
    }
}

/// The peer received nothing else for the instance, so the metadata is newer.
#[tokio::test(start_paused = true)]
async fn change_of_metadata_reaches_the_peer_after_an_outage() {
    let (network, [a, b]) = pair().await;
    a.register("x", 100).await;
    soon().await;
    network.cut("a", "b");
    put(&a, "apps/ORDERS/x/metadata?note=1").await;
    heartbeats(&a, 4, 100).await;
    network.heal();
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(b.order("x").unwrap().metadata().get("note"), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn override_that_a_cancellation_ended_does_not_come_back() {
    for gap in [100, 1500] {
        for outage in [0, 5, 30] {
            let (network, [a, b]) = pair().await;
            a.register("x", 100).await;
            put(&a, OUT).await;
            soon().await;
            assert_eq!(state(&b), Some((OutOfService, OutOfService)));
            if outage > 0 {
                network.kill("b");
            }
            delete(&a, "apps/ORDERS/x").await;
            tokio::time::sleep(Duration::from_millis(gap)).await;
            a.register("x", 200).await;
            tokio::time::sleep(outage * SECOND).await;
            network.host("b", b.router.clone());
            for _ in 0..6 {
                tokio::time::sleep(20 * SECOND).await;
                assert_eq!(a.heartbeat("x", 200).await, StatusCode::OK);
                assert_eq!([state(&a), state(&b)], [Some((Up, Unknown)); 2], "gap {gap} ms, outage {outage} s");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn registration_after_a_deleted_override_is_sent_after_it() {
    for outage in [3, 30] {
        let (network, [a, b]) = pair().await;
        network.kill("b");
        a.register("x", 100).await;
        put(&a, OUT).await;
        delete(&a, "apps/ORDERS/x/status").await;
        a.register("x", 200).await;
        tokio::time::sleep(outage * SECOND).await;
        network.host("b", b.router.clone());
        tokio::time::sleep(8 * SECOND).await;
        assert_eq!([state(&a), state(&b)], [Some((Up, Unknown)); 2], "outage {outage} s");
    }
}

#[tokio::test(start_paused = true)]
async fn deleted_override_stays_deleted_although_a_batch_is_refused() {
    for trial in 0..10 {
        let (network, [a, b]) = pair().await;
        let refuses = network.refusing_batches(&b, StatusCode::INTERNAL_SERVER_ERROR);
        a.register("x", 100).await;
        put(&a, OUT).await;
        tokio::time::sleep(2 * MINUTE + Duration::from_millis(trial * 3000)).await;
        refuses.set(true);
        delete(&a, "apps/ORDERS/x/status").await;
        a.register("x", 200).await;
        tokio::time::sleep(SECOND).await;
        refuses.set(false);
        for _ in 0..10 {
            a.heartbeat("x", 200).await;
            tokio::time::sleep(Duration::from_millis(9000 + trial * 700)).await;
        }
        assert_eq!([state(&a), state(&b)], [Some((Up, Unknown)); 2], "trial {trial}");
    }
}

#[tokio::test(start_paused = true)]
async fn node_that_leaves_sends_its_changes_to_a_peer_that_is_starting() {
    for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS, StatusCode::BAD_GATEWAY] {
        let (network, [a, b]) = pair().await;
        let refuses = network.refusing_batches(&b, status);
        a.register("x", 100).await;
        a.register("y", 100).await;
        soon().await;
        refuses.set(true);
        put(&a, OUT).await;
        delete(&a, "apps/ORDERS/y").await;
        let starts = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            refuses.set(false);
        };
        let (left, ()) = tokio::join!(a.server.leave(5 * SECOND), starts);
        assert!(left, "{status}");
        assert_eq!(state(&b), Some((OutOfService, OutOfService)), "{status}");
        assert!(b.order("y").is_none(), "{status}");
    }
}

/// The peer takes batches again, but its lists stay unusable, for example because of a proxy.
#[tokio::test(start_paused = true)]
async fn changes_reach_a_peer_that_cannot_be_compared() {
    let (network, [a, b]) = pair().await;
    a.register("x", 100).await;
    soon().await;
    network.kill("b");
    put(&a, OUT).await;
    tokio::time::sleep(30 * SECOND).await;
    network.only_batches(&b);
    tokio::time::sleep(2 * MINUTE).await;
    put(&a, "apps/ORDERS/x/status?value=DOWN").await;
    soon().await;
    assert_eq!(state(&b), Some((Down, Down)));
    delete(&a, "apps/ORDERS/x").await;
    soon().await;
    assert_eq!(state(&b), None);
}

#[tokio::test(start_paused = true)]
async fn instance_cancelled_during_an_outage_is_cancelled_at_the_peer() {
    let (network, [a, b]) = pair().await;
    for id in ["x", "y", "z"] {
        a.register(id, 100).await;
    }
    soon().await;
    network.cut("a", "b");
    delete(&a, "apps/ORDERS/x").await;
    delete(&a, "apps/ORDERS/y").await;
    tokio::time::sleep(MINUTE).await;
    // Registered for the first time, or again.
    a.register("new", 100).await;
    a.register("y", 200).await;
    network.heal();
    // A batch without a response comes first.
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(b.view(), a.view());
    assert_eq!(b.view().len(), 3);
}

/// The cancellation is known for 15 minutes, and the peer evicts nothing meanwhile.
#[tokio::test(start_paused = true)]
async fn instance_cancelled_during_an_outage_of_20_minutes_is_cancelled_at_the_peer() {
    let network = Network::default();
    let a = network.node_with("a", &ALL, |setup| setup.eviction(|eviction| eviction.self_preservation(false)));
    let b = network.node("b", &ALL);
    soon().await;
    for id in ["x", "gone", "moved", "evicted"] {
        a.register(id, 100).await;
    }
    soon().await;
    network.cut("a", "b");
    for id in ["gone", "moved"] {
        delete(&a, &format!("apps/ORDERS/{id}")).await;
    }
    put(&a, "apps/ORDERS/evicted/status?value=OUT_OF_SERVICE").await;
    b.register("moved", 200).await;
    for _ in 0..40 {
        assert_eq!(b.heartbeat("moved", 200).await, StatusCode::OK);
        heartbeats(&a, 1, 100).await;
    }
    assert!(b.order("gone").is_some() && a.order("evicted").is_none(), "a does not preserve, b does");
    network.heal();
    for _ in 0..10 {
        assert_eq!(b.heartbeat("moved", 200).await, StatusCode::OK);
        heartbeats(&a, 1, 100).await;
    }
    assert!(b.order("gone").is_none());
    assert_eq!([&a, &b].map(|node| node.order("moved").is_some()), [true; 2], "it registered again");
    let cancelled: Vec<_> = network.sent().into_iter().filter(|sent| sent.starts_with("a>b Cancel")).collect();
    assert_eq!(cancelled, ["a>b Cancel gone"], "neither an eviction nor a lease that runs is cancelled");
}

#[tokio::test(start_paused = true)]
async fn node_that_is_not_open_yet_sends_the_changes_of_an_outage() {
    let network = Network::default();
    let a = network.node_with("a", &ALL, |setup| setup.node(|node| node.register(false)));
    a.register("x", 100).await;
    a.register("y", 100).await;
    tokio::time::sleep(20 * SECOND).await;
    let b = network.node("b", &ALL);
    tokio::time::sleep(3 * SECOND).await;
    network.kill("b");
    put(&a, OUT).await;
    delete(&a, "apps/ORDERS/y").await;
    tokio::time::sleep(15 * SECOND).await;
    network.host("b", b.router.clone());
    tokio::time::sleep(8 * SECOND).await;
    assert!(!a.server.is_open());
    assert_eq!(state(&b), Some((OutOfService, OutOfService)));
    assert!(b.order("y").is_none());
}

/// The peer refuses whatever is sent for minutes, and its lists as well, as with a wrong password.
#[tokio::test(start_paused = true)]
async fn deleted_override_stays_deleted_although_the_peer_refuses_everything_for_minutes() {
    let (network, [a, b]) = pair().await;
    a.register("x", 100).await;
    put(&a, OUT).await;
    soon().await;
    network.host("b", axum::Router::new().fallback(|| async { StatusCode::UNAUTHORIZED }));
    delete(&a, "apps/ORDERS/x/status").await;
    a.register("x", 200).await;
    heartbeats(&a, 6, 200).await;
    network.host("b", b.router.clone());
    heartbeats(&a, 4, 200).await;
    assert_eq!([state(&a), state(&b)], [Some((Up, Unknown)); 2]);
}

#[tokio::test(start_paused = true)]
async fn refused_change_is_sent_again_within_seconds() {
    let (network, [a, b]) = pair().await;
    let refuses = network.refusing_batches(&b, StatusCode::INTERNAL_SERVER_ERROR);
    a.register("x", 100).await;
    soon().await;
    refuses.set(true);
    put(&a, OUT).await;
    tokio::time::sleep(SECOND).await;
    refuses.set(false);
    tokio::time::sleep(8 * SECOND).await;
    assert_eq!(state(&b), Some((OutOfService, OutOfService)));
}
