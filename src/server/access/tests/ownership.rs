//! Owners of leases: what another identity may do to them.

use super::*;

/// Statuses of a heartbeat, an override, a change of metadata, a registration and a cancellation of
/// the instance `i`, in this order.
async fn statuses(server: &EurekaServer, app: &str, authorization: &str) -> [u16; 5] {
    let mut statuses = [0; 5];
    let path = format!("/eureka/apps/{app}");
    for (status, line) in statuses.iter_mut().zip([
        format!("PUT {path}/i"),
        format!("PUT {path}/i/status?value=OUT_OF_SERVICE"),
        format!("PUT {path}/i/metadata?k=v"),
        format!("POST {path}"),
        format!("DELETE {path}/i"),
    ]) {
        *status = super::status(server, &line, authorization).await;
    }
    statuses
}

const DENIED: [u16; 5] = [403; 5];
const OWN: [u16; 5] = [200, 200, 200, 204, 200];

/// Sends a batch of the peer with these items, and the header of the owners unless it is empty.
async fn batch(server: &EurekaServer, items: &[String], owners: &str) -> StatusCode {
    let body = format!(r#"{{"replicationList":[{}]}}"#, items.join(","));
    let mut request = Request::post("/eureka/peerreplication/batch/")
        .header("content-type", "application/json")
        .header(AUTHORIZATION, basic("peer", "pass-p"));
    if !owners.is_empty() {
        request = request.header("eureka-owners", owners);
    }
    respond(server, request.body(Body::from(body)).unwrap()).await.status
}

fn item(action: &str, app: &str) -> String {
    let instance = Instance::builder(app).id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    let instance = String::from_utf8(instance.to_json()).unwrap();
    let instance = instance.strip_prefix(r#"{"instance":"#).and_then(|rest| rest.strip_suffix('}')).unwrap();
    match action {
        "Register" => format!(r#"{{"appName":"{app}","id":"i","action":"Register","instanceInfo":{instance}}}"#),
        _ => format!(r#"{{"appName":"{app}","id":"i","action":"{action}"}}"#),
    }
}

#[tokio::test(start_paused = true)]
async fn requests_about_an_absent_instance_claim_nothing() {
    let server = locked();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    for line in ["PUT /eureka/apps/ORDERS/i", "DELETE /eureka/apps/ORDERS/i", "DELETE /eureka/apps/ORDERS/i/status"] {
        assert_eq!(status(&server, line, &b).await, 404, "{line}");
    }
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "user:a").await, 200);
    assert_eq!(statuses(&server, "ORDERS", &b).await, DENIED);
    assert_eq!(statuses(&server, "ORDERS", &a).await, OWN);
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &b).await, 204, "the last lease has ended");
    assert_eq!(statuses(&server, "ORDERS", &a).await, DENIED);
}

/// Registers an instance of this id.
async fn register(server: &EurekaServer, app: &str, id: &str, authorization: &str) -> StatusCode {
    let request = Request::post(format!("/eureka/apps/{app}"))
        .header("content-type", "application/json")
        .header(AUTHORIZATION, authorization);
    respond(server, request.body(registration(app, id)).unwrap()).await.status
}

#[tokio::test(start_paused = true)]
async fn lease_with_an_unknown_owner_belongs_to_the_first_identity_that_renews_it() {
    let server = locked();
    let [a, b, named] = [basic("a", "pass-a"), basic("b", "pass-b"), basic("named", "pass-n")];
    let apps = ["ORDERS", "BILLING", "OTHER", "CART", "PETS"];
    assert_eq!(batch(&server, &apps.map(|app| item("Register", app)), "").await, 200);
    assert_eq!(status(&server, "PUT /eureka/apps/ORDERS/i", &a).await, 200);
    assert_eq!(statuses(&server, "ORDERS", &b).await, DENIED);
    assert_eq!(batch(&server, &[item("Heartbeat", "ORDERS")], "user:b").await, 200);
    assert_eq!(statuses(&server, "ORDERS", &a).await, DENIED, "the one that registered it is known");
    assert_eq!(batch(&server, &[item("Heartbeat", "ORDERS")], "user:a").await, 200);
    assert_eq!(statuses(&server, "ORDERS", &b).await, OWN, "a known owner stays");
    // An application that the policy names belongs to its identities alone.
    assert_eq!(statuses(&server, "BILLING", &a).await, DENIED);
    assert_eq!(statuses(&server, "BILLING", &named).await, OWN);
    let operator = basic("operator", "pass-o");
    assert_eq!(status(&server, "PUT /eureka/apps/OTHER/i", &operator).await, 403);
    assert_eq!(status(&server, "DELETE /eureka/apps/OTHER/i", &operator).await, 200);
    // An override claims nothing.
    assert_eq!(status(&server, "PUT /eureka/apps/CART/i/status?value=DOWN", &a).await, 200);
    assert_eq!(status(&server, "PUT /eureka/apps/CART/i/metadata?k=v", &b).await, 200);
    assert_eq!(status(&server, "DELETE /eureka/apps/CART/i", &b).await, 200);
    // The node at which the instance registered sends its heartbeats with the owner.
    assert_eq!(batch(&server, &[item("Heartbeat", "PETS")], "user:a").await, 200);
    assert_eq!(statuses(&server, "PETS", &b).await, DENIED);
    assert_eq!(statuses(&server, "PETS", &a).await, OWN);
}

#[tokio::test(start_paused = true)]
async fn lease_with_an_unknown_owner_is_only_renewed_beside_a_lease_of_another_identity() {
    let server = locked();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "").await, 200);
    assert_eq!(register(&server, "ORDERS", "j", &a).await, 204, "a new instance");
    for _ in 0..2 {
        assert_eq!(statuses(&server, "ORDERS", &b).await, [200, 403, 403, 403, 403]);
    }
    assert_eq!(register(&server, "ORDERS", "k", &b).await, 403);
    let refused = send(&server, "DELETE /eureka/apps/ORDERS/i", &b, &[]).await;
    assert_eq!(refused.body, "b may not change ORDERS: another identity registered it\n");
    assert_eq!(statuses(&server, "ORDERS", &a).await, OWN);
    // The same beside a lease of the server itself.
    let own = Instance::builder("registry").id("j").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    server.register(own).unwrap();
    assert_eq!(batch(&server, &[item("Register", "REGISTRY")], "").await, 200);
    assert_eq!(statuses(&server, "REGISTRY", &a).await, [200, 403, 403, 403, 403]);
}

/// Sends the heartbeat of the instance `i` by an identity that a layer of the user's inserted.
async fn renew_as(server: &EurekaServer, app: &str, identity: &Identity) -> StatusCode {
    let mut request = Request::put(format!("/eureka/apps/{app}/i")).body(Body::empty()).unwrap();
    request.extensions_mut().insert(identity.clone());
    respond(server, request).await.status
}

#[tokio::test(start_paused = true)]
async fn lease_with_an_unknown_owner_belongs_to_an_identity_with_applications_that_renews_it() {
    let server = locked();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    let own = Identity::new("svc", [Role::Register]).with_applications(["orders", "cart"]);
    let items = ["ORDERS", "CART"].map(|app| item("Register", app));
    assert_eq!(batch(&server, &items, "").await, 200);
    assert_eq!(renew_as(&server, "ORDERS", &own).await, 200);
    assert_eq!(statuses(&server, "ORDERS", &b).await, DENIED);
    // A lease that another identity has of the application is no obstacle: its credentials name it.
    assert_eq!(register(&server, "CART", "j", &a).await, 204);
    assert_eq!(renew_as(&server, "CART", &own).await, 200);
    assert_eq!(statuses(&server, "CART", &a).await, DENIED);
    let operator = Identity::new("operator", [Role::Operate]).with_applications(["orders"]);
    assert_eq!(renew_as(&server, "ORDERS", &operator).await, 403, "a heartbeat needs the role register");
}

#[tokio::test(start_paused = true)]
async fn applications_of_anonymous_leave_unknown_leases_of_others_protected() {
    let access = Access::new()
        .user("a", "pass-a", [Role::Register])
        .user("b", "pass-b", [Role::Register])
        .user("peer", "pass-p", [Role::Peer])
        .anonymous([Role::Register])
        .applications("anonymous", ["CART"]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "").await, 200);
    assert_eq!(register(&server, "ORDERS", "j", &a).await, 204);
    assert_eq!(statuses(&server, "ORDERS", &b).await, [200, 403, 403, 403, 403]);
}

#[tokio::test(start_paused = true)]
async fn newer_registration_at_another_node_has_the_newer_owner() {
    let server = locked();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &a).await, 204);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "").await, 200);
    assert_eq!(status(&server, "PUT /eureka/apps/ORDERS/i", &a).await, 200, "a Java peer names no owner");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "user:b").await, 200);
    assert_eq!(statuses(&server, "ORDERS", &a).await, DENIED);
    assert_eq!(statuses(&server, "ORDERS", &b).await, OWN);
}

#[tokio::test(start_paused = true)]
async fn repeated_registration_of_a_peer_keeps_the_owner_that_registered_the_version() {
    let server = locked();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "user:a").await, 200);
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "user:b").await, 200);
    assert_eq!(batch(&server, &[item("Register", "ORDERS")], "anybody").await, 200);
    assert_eq!(statuses(&server, "ORDERS", &b).await, DENIED);
    assert_eq!(statuses(&server, "ORDERS", &a).await, OWN);
    // One that claimed the lease by a heartbeat did not register it.
    assert_eq!(batch(&server, &[item("Register", "CART")], "").await, 200);
    assert_eq!(status(&server, "PUT /eureka/apps/CART/i", &b).await, 200);
    assert_eq!(statuses(&server, "CART", &a).await, DENIED);
    assert_eq!(batch(&server, &[item("Heartbeat", "CART")], "user:a").await, 200);
    assert_eq!(statuses(&server, "CART", &b).await, DENIED);
    assert_eq!(statuses(&server, "CART", &a).await, OWN);
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn owner_that_claimed_a_lease_by_a_heartbeat_is_not_sent_to_peers() {
    let b = locked();
    let access = Access::new().user("a", "pass-a", [Role::Register]).user("b", "pass-b", [Role::Register]).user(
        "peer",
        "pass-p",
        [Role::Peer],
    );
    let a = EurekaServer::builder().access(access).peers(peer("http://peer:pass-p@b/eureka/", &b)).build().unwrap();
    let [owner, other] = [basic("a", "pass-a"), basic("b", "pass-b")];
    // Node a does not know the owner that node b knows.
    assert_eq!(batch(&a, &[item("Register", "ORDERS")], "").await, 200);
    assert_eq!(batch(&b, &[item("Register", "ORDERS")], "user:a").await, 200);
    assert_eq!(status(&a, "PUT /eureka/apps/ORDERS/i", &other).await, 200);
    assert_eq!(status(&a, "PUT /eureka/apps/ORDERS/i/metadata?k=v", &other).await, 200);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(b.instance("ORDERS", "i").unwrap().metadata().get("k"), Some("v"));
    assert_eq!(statuses(&b, "ORDERS", &other).await, DENIED);
    assert_eq!(statuses(&b, "ORDERS", &owner).await, OWN);
}

#[tokio::test(start_paused = true)]
async fn instance_of_the_process_is_changed_by_operators_only() {
    let server = locked();
    let instance = Instance::builder("registry").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
    server.register(instance).unwrap();
    assert_eq!(statuses(&server, "REGISTRY", &basic("a", "pass-a")).await, DENIED);
    assert_eq!(statuses(&server, "REGISTRY", &basic("operator", "pass-o")).await, [403, 200, 200, 403, 200]);
}

#[tokio::test(start_paused = true)]
async fn leases_of_callers_that_share_an_identity_are_free() {
    let access = Access::new()
        .user("a", "pass-a", [Role::Read, Role::Register])
        .user("b", "pass-b", [Role::Read, Role::Register])
        .user("eureka", "pass-e", [Role::Read, Role::Register, Role::Operate, Role::Peer])
        .anonymous([Role::Read, Role::Register]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    let [a, b, eureka] = [basic("a", "pass-a"), basic("b", "pass-b"), basic("eureka", "pass-e")];
    for before in ["", &eureka] {
        assert_eq!(status(&server, "POST /eureka/apps/ORDERS", before).await, 204);
        assert_eq!(status(&server, "PUT /eureka/apps/ORDERS/i", &b).await, 200);
        assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &a).await, 204, "the new deployment has a user");
        assert_eq!(statuses(&server, "ORDERS", &b).await, DENIED);
        assert_eq!(statuses(&server, "ORDERS", "").await, [401; 5]);
        assert_eq!(statuses(&server, "ORDERS", &a).await, OWN);
    }
    // A lease whose owner is unknown may be one of a caller without credentials.
    assert_eq!(send(&server, "POST /eureka/apps/ORDERS", &eureka, &[REPLICA]).await.status, 204);
    assert_eq!(statuses(&server, "ORDERS", "").await, OWN);
}

#[tokio::test(start_paused = true)]
async fn applications_of_anonymous_are_shared_with_the_identities_that_have_them() {
    let access = Access::new()
        .user("a", "pass-a", [Role::Register])
        .applications("a", ["ORDERS"])
        .anonymous([Role::Register])
        .applications("anonymous", ["ORDERS", "CART"]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    let a = basic("a", "pass-a");
    for (line, who, expected) in [
        ("POST /eureka/apps/ORDERS", "", 204),
        ("POST /eureka/apps/ORDERS", &*a, 204),
        ("PUT /eureka/apps/ORDERS/i", "", 200),
        ("POST /eureka/apps/BILLING", "", 401),
        ("POST /eureka/apps/CART", &*a, 403),
    ] {
        assert_eq!(status(&server, line, who).await, expected, "{line} {who}");
    }
}

#[tokio::test(start_paused = true)]
async fn instance_that_is_registered_while_a_body_arrives_is_not_cancelled() {
    let server = locked();
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    let (body, received) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let body_stream = tokio_stream::wrappers::ReceiverStream::new(received);
    let request = Request::delete("/eureka/apps/ORDERS/i").header(AUTHORIZATION, b);
    let request = request.body(Body::from_stream(body_stream)).unwrap();
    let mut cancellation = Box::pin(respond(&server, request));
    assert!(waits(&mut cancellation).await, "it waits for its body");
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &a).await, 204);
    drop(body);
    assert_eq!(cancellation.await.status, 403);
    assert!(server.instance("ORDERS", "i").is_some());
}

#[cfg(feature = "access")]
#[tokio::test(start_paused = true)]
async fn subject_of_a_token_is_not_the_user_of_the_same_name() {
    let keys = include_str!("../jwt/tokens.json");
    let tokens: serde_json::Value = serde_json::from_str(keys).unwrap();
    let token = format!("Bearer {}", tokens["tokens"]["valid ES256"].as_str().unwrap());
    let access = Access::new().user("orders", "pass", [Role::Register]).jwt(super::super::JwtKeys::json(keys));
    let server = EurekaServer::builder().access(access).build().unwrap();
    assert_eq!(status(&server, "POST /eureka/apps/ORDERS", &basic("orders", "pass")).await, 204);
    assert_eq!(statuses(&server, "ORDERS", &token).await, DENIED);
}

/// Returns peers with one node, whose requests this service handles.
#[cfg(feature = "peers")]
fn peer(url: &str, node: &EurekaServer) -> crate::server::settings::Peers {
    let service = node.service("/eureka");
    let to_node = tower::service_fn(move |request: Request<crate::transport::RequestBody>| {
        service.clone().oneshot(request.map(Body::new))
    });
    crate::server::settings::Peers::new().url(url).http_service(to_node).wait_when_empty(Duration::ZERO)
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn leases_that_a_node_copied_at_its_start_stay_with_their_clients() {
    let apps = ["RENEWED", "AGAIN", "DOWN", "CANCELLED", "SCALED"];
    let [a, b] = [basic("a", "pass-a"), basic("b", "pass-b")];
    let old = locked();
    for app in apps {
        assert_eq!(register(&old, app, "i", &a).await, 204);
    }
    let client = [Role::Read, Role::Register];
    let access = Access::new().user("a", "pass-a", client).user("b", "pass-b", client);
    let peers = peer("http://peer:pass-p@old/eureka/", &old);
    let node = EurekaServer::builder().access(access).peers(peers).build().unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(apps.iter().all(|app| node.instance(app, "i").is_some()));
    for (line, expected) in [
        ("PUT /eureka/apps/RENEWED/i", 200),
        ("POST /eureka/apps/AGAIN", 204),
        ("PUT /eureka/apps/DOWN/i/status?value=DOWN", 200),
        ("DELETE /eureka/apps/CANCELLED/i", 200),
    ] {
        assert_eq!(status(&node, line, &a).await, expected, "{line}");
    }
    assert_eq!(register(&node, "SCALED", "j", &a).await, 204);
    for app in ["RENEWED", "AGAIN", "SCALED"] {
        assert_eq!(statuses(&node, app, &b).await, DENIED, "{app}");
        assert_eq!(statuses(&node, app, &a).await, OWN, "{app}");
    }
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn owners_are_sent_by_nodes_with_access_control_only() {
    for (is_locked, expected) in [(false, None), (true, Some("server"))] {
        let owners = std::sync::Arc::new(crate::sync::Mutex::new(Vec::new()));
        let received = owners.clone();
        let to_peer = tower::service_fn(move |request: Request<crate::transport::RequestBody>| {
            if request.uri().path().contains("batch") {
                received.lock().push(request.headers().get("eureka-owners").cloned());
            }
            async { Ok::<_, std::convert::Infallible>(http::Response::new(Body::empty())) }
        });
        let peers = crate::server::settings::Peers::new().url("http://b/eureka/").http_service(to_peer);
        let builder = EurekaServer::builder().peers(peers.wait_when_empty(Duration::ZERO));
        let server = if is_locked { builder.access(Access::new()) } else { builder }.build().unwrap();
        let own = Instance::builder("registry").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        server.register(own).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let sent = owners.lock().clone();
        let named = sent.iter().flatten().next().map(|value| value.to_str().unwrap());
        assert_eq!((sent.is_empty(), named), (false, expected));
    }
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn owner_is_known_at_the_other_nodes() {
    let b = locked();
    let peers = peer("http://peer:pass-p@b/eureka/", &b);
    let access = Access::new().user("a", "pass-a", [Role::Register]).user("other", "x", [Role::Register]);
    let a = EurekaServer::builder().access(access).peers(peers).build().unwrap();
    for (app, who) in [("ORDERS", basic("a", "pass-a")), ("CART", basic("other", "x"))] {
        assert_eq!(status(&a, &format!("POST /eureka/apps/{app}"), &who).await, 204);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(b.instance("ORDERS", "i").is_some());
    assert_eq!(statuses(&b, "CART", &basic("a", "pass-a")).await, DENIED);
    assert_eq!(statuses(&b, "ORDERS", &basic("b", "pass-b")).await, DENIED);
    assert_eq!(statuses(&b, "ORDERS", &basic("a", "pass-a")).await, OWN);
}
