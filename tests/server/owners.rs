//! Owners of leases in a cluster: a node that copies the registry of a peer knows them from the
//! start.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Access, Role};

use crate::access::basic;
use crate::network::{Network, Node, ORDER, SECOND, Setup, document, soon};

const OWNERS: &str = "/eureka/peerreplication/owners";
/// Time in which a node has reconciled.
const RECONCILED: Duration = Duration::from_secs(60);

fn access() -> Access {
    let client = [Role::Read, Role::Register];
    Access::new()
        .user("orders", "pass", client)
        .user("other", "pass", client)
        .user("billing", "pass", client)
        .applications("billing", ["BILLING"])
        .user("node", "pass", [Role::Peer])
        .failed_attempts_per_minute(0)
}

fn locked(setup: Setup) -> Setup {
    let urls = "http://node:pass@a:8761/eureka/,http://node:pass@b:8761/eureka/";
    let setup = setup.node(|node| node.register(false));
    let setup = setup.peers(|peers| peers.url(urls).wait_when_empty(Duration::ZERO));
    setup.with(|builder| builder.access(access()))
}

/// Sets up a node that drops changes after 30 seconds, as a Java server does.
fn forgetful(setup: Setup) -> Setup {
    locked(setup).peers(|peers| peers.outage_limit(Duration::ZERO))
}

async fn request(router: &Router, line: &str, user: &str, body: String) -> (u16, String) {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(path);
    request = request.header("content-type", "application/json").header("accept", "application/json");
    if !user.is_empty() {
        request = request.header("authorization", basic(user, "pass"));
    }
    let response = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn register(node: &Node, user: &str) -> u16 {
    request(&node.router, "POST /eureka/apps/ORDERS", user, document(ORDER, 100)).await.0
}

/// Statuses of a heartbeat, an override, a registration and a cancellation, in this order.
async fn statuses(node: &Node, user: &str) -> [u16; 4] {
    let order = format!("/eureka/apps/ORDERS/{ORDER}");
    let status = async |line: String| request(&node.router, &line, user, String::new()).await.0;
    [
        status(format!("PUT {order}")).await,
        status(format!("PUT {order}/status?value=OUT_OF_SERVICE")).await,
        register(node, user).await,
        status(format!("DELETE {order}")).await,
    ]
}

const DENIED: [u16; 4] = [403; 4];
const OWN: [u16; 4] = [200, 200, 204, 200];

/// Makes a host respond to the request for the owners of its leases with this status and body.
fn respond_with_owners(network: &Network, node: &Node, status: StatusCode, body: &'static str) {
    let owners = get(move || async move { (status, [("content-type", "application/json")], body) });
    let router = Router::new().route(OWNERS, owners).fallback_service(node.router.clone());
    network.host(&node.name, router);
}

#[tokio::test(start_paused = true)]
async fn restarted_node_knows_the_owners_of_the_leases_that_it_copies() {
    let network = Network::default();
    let [a, b] = ["a", "b"].map(|name| network.node_with(name, &[], locked));
    soon().await;
    assert_eq!(register(&a, "orders").await, 204);
    soon().await;
    network.kill("a");
    drop(a);
    let a = network.node_with("a", &[], locked);
    soon().await;
    assert!(a.order(ORDER).is_some(), "it is copied");
    assert_eq!(statuses(&a, "other").await, DENIED);
    assert_eq!(statuses(&b, "other").await, DENIED);
    assert_eq!(statuses(&a, "orders").await, OWN);
}

#[tokio::test(start_paused = true)]
async fn owner_of_an_instance_that_is_adopted_in_a_reconciliation_is_known() {
    let network = Network::default();
    let [a, b] = ["a", "b"].map(|name| network.node_with(name, &[], forgetful));
    soon().await;
    network.cut("a", "b");
    assert_eq!(register(&b, "orders").await, 204);
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(a.order(ORDER), None);
    network.heal();
    tokio::time::sleep(45 * SECOND).await;
    assert!(a.order(ORDER).is_some(), "it is adopted");
    assert_eq!(statuses(&a, "other").await, DENIED);
    assert_eq!(statuses(&a, "orders").await, OWN);
}

#[tokio::test(start_paused = true)]
async fn owners_of_an_older_peer_are_unknown_until_it_sends_them() {
    for status in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR] {
        let network = Network::default();
        let b = network.node_with("b", &[], forgetful);
        soon().await;
        assert_eq!(register(&b, "orders").await, 204);
        // Until then the registration would be sent with its owner.
        tokio::time::sleep(40 * SECOND).await;
        respond_with_owners(&network, &b, status, "");
        let a = network.node_with("a", &[], locked);
        soon().await;
        assert!(a.order(ORDER).is_some(), "{status}: it is copied");
        let order = format!("PUT /eureka/apps/ORDERS/{ORDER}/status?value=UP");
        assert_eq!(request(&a.router, &order, "other", String::new()).await.0, 200, "{status}: it has no owner");
        network.host("b", b.router.clone());
        tokio::time::sleep(RECONCILED).await;
        assert_eq!(statuses(&a, "other").await, DENIED, "{status}");
        assert_eq!(statuses(&a, "orders").await, OWN, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn owners_that_a_peer_sends_replace_neither_known_ones_nor_the_policy() {
    let lies =
        r#"{"owners":{"ORDERS":{"user:other":["h:orders:1","absent"]},"BILLING":{"user:other":["h:orders:1"]}}}"#;
    for body in [lies, "", "{", "<html>", r#"{"owners":[]}"#] {
        let network = Network::default();
        let b = network.node_with("b", &[], locked);
        soon().await;
        let billing = document(ORDER, 100).replace("ORDERS", "BILLING");
        assert_eq!(request(&b.router, "POST /eureka/apps/BILLING", "billing", billing).await.0, 204);
        respond_with_owners(&network, &b, StatusCode::OK, body);
        let a = network.node_with("a", &[], locked);
        soon().await;
        assert_eq!(register(&a, "orders").await, 204);
        tokio::time::sleep(RECONCILED).await;
        assert_eq!(statuses(&a, "other").await, DENIED, "{body}");
        let renew = format!("PUT /eureka/apps/BILLING/{ORDER}");
        assert_eq!(request(&a.router, &renew, "other", String::new()).await.0, 403, "{body}");
        assert_eq!(request(&a.router, &renew, "billing", String::new()).await.0, 200, "{body}");
        assert_eq!(statuses(&a, "orders").await, OWN, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn owners_are_sent_to_peers_alone_and_lists_do_not_have_them() {
    let network = Network::default();
    let a = network.node_with("a", &[], locked);
    soon().await;
    assert_eq!(register(&a, "orders").await, 204);
    let get = async |user: &str| request(&a.router, &format!("GET {OWNERS}"), user, String::new()).await;
    assert_eq!([get("").await.0, get("orders").await.0], [401, 403]);
    let (status, body) = get("node").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, body), (200, json!({"owners":{"ORDERS":{"user:orders":[ORDER]}}})));
    let (_, list) = request(&a.router, "GET /eureka/apps", "node", String::new()).await;
    assert!(list.contains(ORDER) && !list.contains("user:"), "{list}");
    let open = Router::new().nest("/eureka", EurekaServer::builder().build().unwrap().router());
    assert_eq!(request(&open, &format!("GET {OWNERS}"), "", String::new()).await.0, 404);
}
