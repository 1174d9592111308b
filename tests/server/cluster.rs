//! Clusters of tower-eureka nodes, over a network in memory and with paused time: replication,
//! start-up, and peers that are unreachable or invalid.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt;
use tower_eureka::model::{Applications, Instance, InstanceStatus};
use tower_eureka::server::{self, Peers};
use tower_eureka::{Eureka, EurekaServer};

use crate::network::{Network, Node, ORDER, SECOND, soon};

#[tokio::test(start_paused = true)]
async fn write_of_any_kind_at_any_node_reaches_all_nodes() {
    let network = Network::default();
    let nodes = ["a", "b", "c"].map(|name| network.node(name, &["a", "b", "c"]));
    soon().await;
    for (turn, node) in nodes.iter().enumerate() {
        let id = format!("order-{turn}");
        let path = format!("apps/ORDERS/{id}");
        let agreed = async |what: &str, expected: Option<(InstanceStatus, InstanceStatus, Option<&str>)>| {
            soon().await;
            for other in &nodes {
                let seen = other.order(&id);
                let seen = seen.as_ref().map(|i| (i.status(), i.overridden_status(), i.metadata().get("canary")));
                assert_eq!(seen, expected, "{what} at {} as seen by {}", node.name, other.name);
            }
        };
        use InstanceStatus::{OutOfService, Unknown, Up};
        node.register(&id, 100).await;
        agreed("registration", Some((Up, Unknown, None))).await;
        assert_eq!(node.empty("PUT", &format!("{path}/metadata?canary=yes")).await, StatusCode::OK);
        agreed("metadata", Some((Up, Unknown, Some("yes")))).await;
        assert_eq!(node.empty("PUT", &format!("{path}/status?value=OUT_OF_SERVICE")).await, StatusCode::OK);
        agreed("override", Some((OutOfService, OutOfService, Some("yes")))).await;
        assert_eq!(node.empty("DELETE", &format!("{path}/status?value=UP")).await, StatusCode::OK);
        agreed("removal of the override", Some((Up, Unknown, Some("yes")))).await;
        let renewed = |node: &Node| node.order(&id).unwrap().lease().unwrap().last_renewal_timestamp;
        let before: Vec<_> = nodes.iter().map(renewed).collect();
        assert_eq!(node.heartbeat(&id, 100).await, StatusCode::OK);
        soon().await;
        for (other, before) in nodes.iter().zip(before) {
            assert!(renewed(other) > before, "heartbeat at {} as seen by {}", node.name, other.name);
        }
        assert_eq!(node.empty("DELETE", &path).await, StatusCode::OK);
        agreed("cancellation", None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn change_from_a_peer_is_not_replicated() {
    let network = Network::default();
    let nodes = ["a", "b", "c"].map(|name| network.node(name, &["a", "b", "c"]));
    nodes[0].register(ORDER, 100).await;
    tokio::time::sleep(60 * SECOND).await;
    let mut sent = network.sent();
    sent.sort();
    assert_eq!(sent, ["a>b Register h:orders:1", "a>c Register h:orders:1"]);
    // A single request with the header of a peer is not replicated either.
    network.forget();
    let request =
        Request::delete(format!("/eureka/apps/ORDERS/{ORDER}")).header("x-netflix-discovery-replication", "true");
    let response = nodes[1].router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    soon().await;
    assert!(network.sent().is_empty(), "{:?}", network.sent());
}

#[tokio::test(start_paused = true)]
async fn batch_has_the_form_of_a_java_server() {
    let network = Network::default();
    let [a, _b] = ["a", "b"].map(|name| network.node(name, &["a", "b"]));
    let path = format!("apps/ORDERS/{ORDER}");
    a.register(ORDER, 100).await;
    soon().await;
    let mut item = network.batch("a", "b")["replicationList"][0].take();
    let sent = item["instanceInfo"].take();
    assert_eq!(
        item,
        json!({
            "appName": "ORDERS", "id": ORDER, "lastDirtyTimestamp": 100, "status": "UP", "instanceInfo": null,
            "action": "Register"
        })
    );
    assert_eq!(
        (&sent["instanceId"], &sent["lastDirtyTimestamp"], &sent["overriddenStatus"], &sent["actionType"]),
        (&json!(ORDER), &json!("100"), &json!("UNKNOWN"), &json!("ADDED")),
        "the instance is not wrapped, and its timestamp is a string"
    );

    network.forget();
    a.empty("PUT", &format!("{path}/status?value=OUT_OF_SERVICE")).await;
    a.heartbeat(ORDER, 100).await;
    a.empty("DELETE", &format!("{path}/status?value=UP")).await;
    soon().await;
    let common = |action: &str, status: &str| json!({ "appName": "ORDERS", "id": ORDER, "lastDirtyTimestamp": 100, "status": status, "action": action });
    let expected =
        [common("StatusUpdate", "OUT_OF_SERVICE"), common("Heartbeat", "UP"), common("DeleteStatusOverride", "UP")];
    assert_eq!(network.batch("a", "b"), json!({ "replicationList": expected }));

    network.forget();
    a.empty("PUT", &format!("{path}/status?value=OUT_OF_SERVICE")).await;
    soon().await;
    network.forget();
    a.heartbeat(ORDER, 100).await;
    soon().await;
    let mut heartbeat = common("Heartbeat", "OUT_OF_SERVICE");
    heartbeat["overriddenStatus"] = json!("OUT_OF_SERVICE");
    assert_eq!(network.batch("a", "b"), json!({ "replicationList": [heartbeat] }));

    network.forget();
    a.empty("DELETE", &path).await;
    soon().await;
    let cancel = json!({ "appName": "ORDERS", "id": ORDER, "action": "Cancel" });
    assert_eq!(network.batch("a", "b"), json!({ "replicationList": [cancel] }));
}

#[tokio::test(start_paused = true)]
async fn heartbeat_unknown_to_a_peer_sends_the_registration() {
    let network = Network::default();
    let a = network.node("a", &["a", "b"]);
    a.register(ORDER, 100).await;
    tokio::time::sleep(700 * SECOND).await;
    let b = network.node_with("b", &["a", "b"], |setup| {
        setup.node(|node| node.register(false)).peers(|peers| peers.wait_when_empty(Duration::ZERO).sync_up(false))
    });
    soon().await;
    assert!(b.view().is_empty());
    a.heartbeat(ORDER, 100).await;
    soon().await;
    assert_eq!(b.view(), a.view());
    assert_eq!(network.sent(), [format!("a>b Heartbeat {ORDER}"), format!("a>b Register {ORDER}")]);
}

#[tokio::test(start_paused = true)]
async fn newer_data_of_a_peer_is_adopted_with_its_override() {
    let network = Network::default();
    let [a, b] = ["a", "b"].map(|name| network.node(name, &["a", "b"]));
    a.register(ORDER, 100).await;
    soon().await;
    network.kill("a");
    b.register(ORDER, 200).await;
    b.empty("PUT", &format!("apps/ORDERS/{ORDER}/status?value=OUT_OF_SERVICE")).await;
    network.forget();
    // The changes of `b` for `a` expire. Only the response to the heartbeat can return them.
    tokio::time::sleep(700 * SECOND).await;
    assert_eq!(a.heartbeat(ORDER, 100).await, StatusCode::OK);
    soon().await;
    let order = a.order(ORDER).unwrap();
    assert_eq!(order.last_dirty_timestamp(), Some(200));
    assert_eq!(
        (order.status(), order.overridden_status()),
        (InstanceStatus::OutOfService, InstanceStatus::OutOfService)
    );
    assert_eq!(network.sent(), [format!("a>b Heartbeat {ORDER}")], "an adopted copy is not replicated");
}

#[tokio::test(start_paused = true)]
async fn unreachable_peer_delays_no_other_and_catches_up_when_it_returns() {
    let network = Network::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| network.node(name, &["a", "b", "c"]));
    soon().await;
    network.kill("c");
    a.register(ORDER, 100).await;
    a.register("gone", 100).await;
    soon().await;
    assert!(b.order(ORDER).is_some() && c.order(ORDER).is_none());
    tokio::time::sleep(120 * SECOND).await;
    a.empty("DELETE", "apps/ORDERS/gone").await;
    a.empty("PUT", &format!("apps/ORDERS/{ORDER}/metadata?canary=yes")).await;
    tokio::time::sleep(60 * SECOND).await;
    network.host("c", c.router.clone());
    // The cancellation waits for a comparison.
    tokio::time::sleep(8 * SECOND).await;
    assert_eq!(c.view(), a.view());
    assert_eq!(c.view().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_agree_after_a_partition_heals() {
    let network = Network::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| network.node(name, &["a", "b", "c"]));
    soon().await;
    for id in ["left", "right", "left-leaves", "right-leaves", "left-marked", "right-marked"] {
        a.register(id, 100).await;
    }
    soon().await;
    network.cut("a", "b");
    network.cut("a", "c");
    for second in 0..60 {
        a.heartbeat("left", 100).await;
        b.heartbeat("right", 100).await;
        match second {
            5 => {
                a.empty("PUT", "apps/ORDERS/left/status?value=OUT_OF_SERVICE").await;
                c.empty("PUT", "apps/ORDERS/right/status?value=DOWN").await;
            }
            10 => {
                a.empty("DELETE", "apps/ORDERS/left-leaves").await;
                b.empty("DELETE", "apps/ORDERS/right-leaves").await;
            }
            15 => {
                a.register("left-new", 300).await;
                c.register("right-new", 300).await;
            }
            20 => {
                a.empty("PUT", "apps/ORDERS/left-marked/metadata?side=left").await;
                b.empty("PUT", "apps/ORDERS/right-marked/metadata?side=right").await;
            }
            _ => {}
        }
        tokio::time::sleep(SECOND).await;
    }
    assert_ne!(a.view(), b.view());
    network.heal();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(a.view(), b.view());
    assert_eq!(b.view(), c.view());
    let view = a.view().join("\n");
    for expected in [
        "left OUT_OF_SERVICE OUT_OF_SERVICE Some(100) ",
        "right DOWN DOWN Some(100) ",
        "left-new UP UNKNOWN Some(300) ",
        "right-new UP UNKNOWN Some(300) ",
        "left-marked UP UNKNOWN Some(100) side=left",
        "right-marked UP UNKNOWN Some(100) side=right",
    ] {
        assert!(view.lines().any(|line| line == expected), "{expected} in\n{view}");
    }
    assert_eq!(a.view().len(), 6, "{view}");
}

#[tokio::test(start_paused = true)]
async fn starting_node_refuses_lists_until_it_has_copied_a_peer() {
    let network = Network::default();
    let a = network.node("a", &["a", "b"]);
    soon().await;
    for id in 0..250 {
        a.register(&format!("order-{id:03}"), 100).await;
    }
    a.empty("PUT", "apps/ORDERS/order-007/status?value=DOWN").await;
    network.cut("a", "b");
    let b = network.node_with("b", &["a", "b"], |setup| setup.node(|node| node.register(false)));
    assert!(!b.server.is_open());
    b.register("early", 100).await;
    for path in ["apps", "apps/", "apps/delta", "apps/ORDERS", "vips/orders", "svips/orders"] {
        assert_eq!(b.empty("GET", path).await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(b.empty("GET", "apps/ORDERS/early").await, StatusCode::OK);
    assert_eq!(b.empty("GET", "instances/early").await, StatusCode::OK);
    tokio::time::sleep(10 * SECOND).await;
    network.heal();
    tokio::time::sleep(40 * SECOND).await;
    assert!(b.server.is_open(), "the next attempt copied the peer");
    assert_eq!(b.empty("GET", "apps").await, StatusCode::OK);
    assert_eq!(b.view(), a.view());
    assert_eq!(b.view().len(), 251);
    assert_eq!(b.order("order-007").map(|i| i.status()), Some(InstanceStatus::Down), "of any status");
}

#[tokio::test(start_paused = true)]
async fn empty_node_without_reachable_peers_refuses_lists_for_five_minutes() {
    let network = Network::default();
    let a = network.node_with("a", &["a", "nobody"], |setup| setup.node(|node| node.register(false)));
    tokio::time::sleep(299 * SECOND).await;
    assert_eq!(a.empty("GET", "apps").await, StatusCode::FORBIDDEN);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(a.empty("GET", "apps").await, StatusCode::OK);

    let at_once = network.node("b", &["b", "nobody"]);
    soon().await;
    assert_eq!(at_once.empty("GET", "apps").await, StatusCode::OK);
    let alone = network.node_with("c", &["c"], |setup| setup);
    assert_eq!(alone.empty("GET", "apps").await, StatusCode::OK, "a node without peers does not wait");
}

#[tokio::test(start_paused = true)]
async fn cluster_tasks_run_while_only_a_router_is_left() {
    let network = Network::default();
    let node = network.node_with("a", &["a", "nobody"], |setup| setup.node(|node| node.register(false)));
    drop(node.server);
    tokio::time::sleep(301 * SECOND).await;
    let request = Request::get("/eureka/apps").header("accept", "application/json").body(Body::empty()).unwrap();
    let response = node.router.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "the node opened after `wait_when_empty`");
}

#[tokio::test(start_paused = true)]
async fn node_registers_itself_and_cancels_when_it_leaves() {
    let network = Network::default();
    let join =
        |name| network.node_with(name, &["a", "b"], |setup| setup.peers(|peers| peers.wait_when_empty(Duration::ZERO)));
    let [a, b] = ["a", "b"].map(join);
    tokio::time::sleep(200 * SECOND).await;
    let me = |node: &Node, id: &str| {
        node.server.instance("UNKNOWN", id).map(|i| (i.status(), i.is_coordinating_discovery_server()))
    };
    assert_eq!([me(&a, "a"), me(&a, "b")], [Some((InstanceStatus::Up, true)), Some((InstanceStatus::Up, false))]);
    assert_eq!([me(&b, "a"), me(&b, "b")], [Some((InstanceStatus::Up, false)), Some((InstanceStatus::Up, true))]);
    a.register(ORDER, 100).await;
    let began = tokio::time::Instant::now();
    assert!(a.server.leave(5 * SECOND).await);
    assert!(began.elapsed() < Duration::from_millis(100), "batches are sent at once");
    assert_eq!([me(&a, "a"), me(&b, "a")], [None, None]);
    assert!(b.order(ORDER).is_some(), "queued changes were sent");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(me(&b, "a"), None, "it is not registered again");
}

#[tokio::test(start_paused = true)]
async fn status_page_lists_available_and_unavailable_peers() {
    let network = Network::default();
    let a = network.node_with("a", &["a", "b", "c"], |setup| {
        setup.peers(|peers| peers.wait_when_empty(Duration::ZERO).url("http://user:secret@d:8761/eureka/"))
    });
    let _b =
        network.node_with("b", &["a", "b", "c"], |setup| setup.peers(|peers| peers.wait_when_empty(Duration::ZERO)));
    tokio::time::sleep(60 * SECOND).await;
    let [b, c, d] = ["b", "c", "d"].map(|host| format!("http://{host}:8761/eureka/"));
    assert_eq!(
        a.json("status").await["applicationStats"],
        json!({
            "registered-replicas": format!("{b}, {c}, {d}"),
            "available-replicas": format!("{b},"),
            "unavailable-replicas": format!("{c},{d},"),
        })
    );
}

#[tokio::test(start_paused = true)]
async fn leave_does_not_wait_for_an_unreachable_peer() {
    let network = Network::default();
    let a = network.node("a", &["a", "dead"]);
    a.register(ORDER, 100).await;
    let began = tokio::time::Instant::now();
    assert!(!a.server.leave(60 * SECOND).await);
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    network.cut("a", "dead");
    assert!(!a.server.leave(3 * SECOND).await);
    assert!(began.elapsed() < 6 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn node_sends_nothing_to_itself_under_another_name() {
    let network = Network::default();
    let a = network.node("a", &["a", "alias", "b"]);
    let b = network.node("b", &["a", "b"]);
    network.host("alias", a.router.clone());
    soon().await;
    a.register(ORDER, 100).await;
    soon().await;
    assert!(b.order(ORDER).is_some());
    assert_eq!(network.sent(), [format!("a>b Register {ORDER}")], "the alias is detected at the start");
    // If the alias is unreachable at the start, the first batch detects it.
    let network = Network::default();
    let a = network.node("a", &["a", "alias"]);
    soon().await;
    network.host("alias", a.router.clone());
    a.register(ORDER, 100).await;
    soon().await;
    network.forget();
    a.register("second", 100).await;
    soon().await;
    assert!(network.sent().is_empty(), "{:?}", network.sent());
}

#[tokio::test(start_paused = true)]
async fn lone_node_serves_lists_at_once_under_any_name() {
    let network = Network::default();
    // Common settings of a Spring server without peers: its own URL by the name of the machine, or
    // `fetch-registry=false`.
    let a = network.node_with("a", &["localhost"], |setup| setup);
    network.host("localhost", a.router.clone());
    let b = network.node_with("b", &["localhost"], |setup| {
        setup.node(|node| node.register(false)).peers(|peers| peers.sync_up(false))
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    for node in [a, b] {
        assert_eq!(node.empty("GET", "apps").await, StatusCode::OK, "{}", node.name);
    }
}

#[tokio::test(start_paused = true)]
async fn peer_with_invalid_responses_does_not_affect_others() {
    let rubbish: [(u16, &str); 6] =
        [(200, "<html>"), (200, r#"{"responseList":[]}"#), (500, "{}"), (404, ""), (503, "busy"), (302, "")];
    for (status, body) in rubbish {
        let network = Network::default();
        let [a, b] = ["a", "b"].map(|name| network.node(name, &["a", "b", "bad"]));
        let respond = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
        network.host("bad", Router::new().fallback(respond));
        soon().await;
        a.register(ORDER, 100).await;
        soon().await;
        assert!(b.order(ORDER).is_some(), "{status} {body}");
        assert_eq!(a.heartbeat(ORDER, 100).await, StatusCode::OK, "{status} {body}");
        tokio::time::sleep(60 * SECOND).await;
        assert!(a.order(ORDER).is_some() && a.server.is_open(), "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn list_of_peers_is_refreshed_and_kept_if_the_new_one_is_unusable() {
    let network = Network::default();
    let list = Arc::new(Mutex::new("http://b:8761/eureka/".to_owned()));
    let source = list.clone();
    let a = network.node_with("a", &[], |setup| {
        setup.node(|node| node.register(false)).peers(|peers| {
            peers.wait_when_empty(Duration::ZERO).refresh_interval(10 * SECOND).source(move || {
                let list = source.lock().unwrap().clone();
                async move { if list == "broken" { Err(io::Error::other("broken")) } else { Ok(list) } }
            })
        })
    });
    let [b, c] = ["b", "c"].map(|name| network.node(name, &[name]));
    tokio::time::sleep(15 * SECOND).await;
    a.register("1", 100).await;
    soon().await;
    assert!(b.order("1").is_some() && c.order("1").is_none());
    *list.lock().unwrap() = "http://a:8761/eureka/,http://c:8761/eureka/".into();
    tokio::time::sleep(15 * SECOND).await;
    a.register("2", 100).await;
    soon().await;
    assert!(b.order("2").is_none() && c.order("2").is_some());
    for (id, unusable) in [("3", "broken"), ("4", ""), ("5", "http://a:8761/eureka/")] {
        *list.lock().unwrap() = unusable.into();
        tokio::time::sleep(15 * SECOND).await;
        a.register(id, 100).await;
        soon().await;
        assert!(c.order(id).is_some(), "with '{unusable}' the last list stays in use");
    }
}

#[tokio::test(start_paused = true)]
async fn source_that_recovers_during_startup_provides_the_peer_to_copy() {
    let network = Network::default();
    let fails = Arc::new(Mutex::new(true));
    let failing = fails.clone();
    let a = network.node_with("a", &[], |setup| {
        setup.node(|node| node.register(false)).peers(|peers| {
            peers.sync_up_pause(10 * SECOND).source(move || {
            let fails = *failing.lock().unwrap();
            async move { if fails { Err(io::Error::other("broken")) } else { Ok("http://b:8761/eureka/".to_owned()) } }
        })
        })
    });
    let b = network.node("b", &["b"]);
    b.register("0", 100).await;
    soon().await;
    assert!(!a.server.is_open(), "a node without a list may have peers");
    *fails.lock().unwrap() = false;
    tokio::time::sleep(15 * SECOND).await;
    assert!(a.server.is_open() && a.order("0").is_some(), "the peer is copied as soon as it is listed");
    a.register("1", 100).await;
    soon().await;
    assert!(b.order("1").is_some());
}

#[tokio::test(start_paused = true)]
async fn source_that_hangs_or_fails_at_startup_is_called_again_soon() {
    let network = Network::default();
    let asked = Arc::new(Mutex::new(0));
    let a = network.node_with("a", &[], |setup| {
        setup.node(|node| node.register(false)).peers(|peers| {
            peers.sync_up(false).wait_when_empty(Duration::ZERO).source(move || {
                let mut asked = asked.lock().unwrap();
                *asked += 1;
                let turn = *asked;
                async move {
                    match turn {
                        1 | 2 => std::future::pending().await,
                        3 => Err(io::Error::other("broken")),
                        _ => Ok("http://b:8761/eureka/".to_owned()),
                    }
                }
            })
        })
    });
    let b = network.node("b", &["b"]);
    tokio::time::sleep(45 * SECOND).await;
    a.register("1", 100).await;
    soon().await;
    assert!(b.order("1").is_some() && a.server.is_open());
}

#[tokio::test]
async fn instance_registered_at_one_node_is_found_at_another_over_sockets() {
    let listeners = [tokio::net::TcpListener::bind("127.0.0.1:0"), tokio::net::TcpListener::bind("127.0.0.1:0")];
    let mut urls = Vec::new();
    let mut bound = Vec::new();
    for listener in listeners {
        let listener = listener.await.unwrap();
        urls.push(format!("http://127.0.0.1:{}/eureka/", listener.local_addr().unwrap().port()));
        bound.push(listener);
    }
    let mut nodes = Vec::new();
    for listener in bound {
        let node = EurekaServer::builder()
            .peers(Peers::new().url(urls.join(",")).wait_when_empty(Duration::ZERO))
            .node(server::Node::new().host_name("127.0.0.1"))
            .port(listener.local_addr().unwrap().port())
            .build()
            .unwrap();
        let router = Router::new().nest("/eureka", node.router());
        tokio::spawn(async move { axum::serve(listener, router).await });
        nodes.push(node);
    }
    let client = |url: &str| Eureka::builder().service_url(url).build().unwrap();
    let instance = Instance::builder("orders").id(ORDER).ip_addr("127.0.0.1").port(1).build().unwrap();
    client(&urls[0]).transport().register(&instance).await.unwrap();
    let reader = client(&urls[1]);
    let look = async {
        loop {
            let seen: Applications = reader.transport().applications().await.unwrap_or_default();
            if seen.len() == 3 {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = tokio::time::timeout(30 * SECOND, look).await.expect("the order and both nodes");
    assert!(seen.applications.iter().any(|application| application.instance(ORDER).is_some()));
}

/// Returns the replicas that a node lists as available and as unavailable.
async fn replicas(node: &Node) -> [String; 2] {
    let status = Request::get("/eureka/status").header("accept", "application/json").body(Body::empty()).unwrap();
    let response = node.router.clone().oneshot(status).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let names = ["available-replicas", "unavailable-replicas"];
    names.map(|name| status["applicationStats"][name].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn peer_is_available_only_while_it_accepts_batches() {
    let network = Network::default();
    // No node registers itself, and no instance has the host name of a URL: by Java's rule no peer
    // would be available.
    let [a, _b] = ["a", "b"].map(|name| network.node(name, &["a", "b", "c"]));
    let [b, c] = ["b", "c"].map(|name| format!("http://{name}:8761/eureka/,"));
    soon().await;
    assert_eq!(replicas(&a).await, [b.clone(), c.clone()]);
    let third = network.node("c", &["a", "b", "c"]);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(replicas(&a).await, [format!("{b}{c}"), String::new()], "without any change by a client");
    network.cut("a", "b");
    a.register(ORDER, 100).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(replicas(&a).await, [c.clone(), b.clone()]);
    network.heal();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(replicas(&a).await[1], "");
    // A host that responds, but not as a registry.
    network.host("b", Router::new());
    a.register("h:orders:2", 100).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(replicas(&a).await, [c, b]);
    drop(third);
}

#[tokio::test(start_paused = true)]
async fn peer_that_is_not_open_for_traffic_is_available() {
    let network = Network::default();
    let closed = |name: &str| {
        network.node_with(name, &["a", "b"], |setup| {
            setup.node(|node| node.register(false)).peers(|peers| peers.wait_when_empty(Duration::from_secs(3_600)))
        })
    };
    let [a, b] = ["a", "b"].map(closed);
    tokio::time::sleep(90 * SECOND).await;
    assert!(!a.server.is_open() && !b.server.is_open());
    assert_eq!(replicas(&a).await, ["http://b:8761/eureka/,", ""]);
}

#[tokio::test(start_paused = true)]
async fn change_reaches_a_peer_whose_proxy_sent_an_error_page_with_retry_after() {
    for status in [404, 500, 301, 429, 503] {
        let network = Network::default();
        let [a, b] = ["a", "b"].map(|name| network.node(name, &["a", "b"]));
        soon().await;
        let page = move || async move { (StatusCode::from_u16(status).unwrap(), [("retry-after", "120")], "starting") };
        let proxy = Router::new().fallback(page);
        network.host("b", proxy);
        a.register(ORDER, 100).await;
        soon().await;
        network.host("b", b.router.clone());
        a.register("h:orders:2", 100).await;
        tokio::time::sleep(30 * SECOND).await;
        assert!(b.order("h:orders:2").is_some(), "{status}");
    }
}
