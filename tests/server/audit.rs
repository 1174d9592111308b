//! Audit lines: who changed what, from where, and the state before and after.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use tokio::time::sleep;
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::server::{Access, Role};

use crate::common::{ORDER_1, ORDERS, Server, document};
use crate::log::{Log, from_client};

/// Fields of a registration.
const ADDRESSES: &str = "hostName=h ipAddr=10.0.0.1 port=7001";

#[tokio::test(start_paused = true)]
async fn each_change_is_an_info_line_with_its_sender_and_what_differs_before_and_after() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let changed = document("h:orders:1", "UP", 200).replace("10.0.0.1", "10.0.0.9");
    let (up, out) = (format!("[status=UP {ADDRESSES}]"), "[status=OUT_OF_SERVICE overriddenStatus=OUT_OF_SERVICE]");
    let moved = up.replace("10.0.0.1", "10.0.0.9");
    let status = format!("{ORDER_1}/status");
    let metadata = format!("{ORDER_1}/metadata");
    for (method, path, body, status, line) in [
        ("POST", ORDERS, document("h:orders:1", "UP", 100), 204, format!("registered|UP|after={up}")),
        ("POST", ORDERS, document("h:orders:1", "UP", 100), 204, String::new()),
        ("PUT", ORDER_1, String::new(), 200, String::new()),
        (
            "POST",
            ORDERS,
            changed,
            204,
            "registration changed|UP|before=[ipAddr=10.0.0.1] after=[ipAddr=10.0.0.9]".into(),
        ),
        (
            "PUT",
            &format!("{status}?value=OUT_OF_SERVICE"),
            String::new(),
            200,
            format!("status override set|OUT_OF_SERVICE|before=[status=UP] after={out}"),
        ),
        ("PUT", &format!("{status}?value=OUT_OF_SERVICE"), String::new(), 200, String::new()),
        (
            "PUT",
            &format!("{status}?value=DOWN"),
            String::new(),
            200,
            format!("status override set|DOWN|before={out} after={}", out.replace("OUT_OF_SERVICE", "DOWN")),
        ),
        (
            "DELETE",
            &format!("{status}?value=UP"),
            String::new(),
            200,
            "status override deleted|UP|before=[status=DOWN overriddenStatus=DOWN] after=[status=UP]".into(),
        ),
        ("DELETE", &format!("{status}?value=UP"), String::new(), 200, String::new()),
        (
            "PUT",
            &format!("{metadata}?canary=yes"),
            String::new(),
            200,
            "metadata changed|UP|before=[] after=[metadata.canary=yes]".into(),
        ),
        ("PUT", &format!("{metadata}?canary=yes"), String::new(), 200, String::new()),
        (
            "PUT",
            &format!("{metadata}?canary=a%20b&user.password=hunter2"),
            String::new(),
            200,
            "metadata changed|UP|before=[metadata.canary=yes] after=[metadata.canary=\"a b\" metadata.user.password=***]"
                .into(),
        ),
        ("DELETE", ORDER_1, String::new(), 200, format!("cancelled|UP|before={moved}")),
        ("DELETE", ORDER_1, String::new(), 404, String::new()),
    ] {
        let response = server.send(from_client(method, path, body)).await;
        assert_eq!(response.status(), status, "{method} {path}");
        let parts: Vec<_> = line.split('|').collect();
        let expected = match &*parts {
            [message, status, states] => Some(format!(
                "INFO tower_eureka::server::audit: {message} app=ORDERS instance=h:orders:1 status={status} \
                 origin=client 10.0.0.7:4711 {states}"
            )),
            _ => None,
        };
        assert_eq!(log.take(), Vec::from_iter(expected), "{method} {path}");
    }
}

#[tokio::test]
async fn repeated_registration_is_a_debug_line() {
    let server = Server::with_order().await;
    let (log, _guard) = Log::start(tracing::Level::DEBUG);
    server.send(from_client("POST", ORDERS, document("h:orders:1", "UP", 300))).await;
    let lines = log.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("DEBUG") && lines[0].contains("registration repeated app=ORDERS"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn registrations_whose_status_was_kept_count_once() {
    let server = Server::new();
    let document = |status: &str, n: i64| {
        document("h:orders:1", status, n).replace(r#""hostName":"h""#, &format!(r#""hostName":"h{n}""#))
    };
    server.send(from_client("POST", ORDERS, document("OUT_OF_SERVICE", 100))).await;
    sleep(Duration::from_secs(2)).await;
    let (log, _guard) = Log::start(tracing::Level::INFO);
    for n in 101..161 {
        server.send(from_client("POST", ORDERS, document("UP", n))).await;
    }
    let lines = |text| log.lines(&["INFO", text]).len();
    assert_eq!([lines("status of a registration not taken"), lines("registration changed")], [60, 60]);
}

#[tokio::test]
async fn replicated_change_names_the_peer() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let mut replicated = from_client("POST", ORDERS, document("h:orders:1", "UP", 100));
    replicated.headers_mut().insert("x-netflix-discovery-replication", "true".parse().unwrap());
    server.send(replicated).await;
    assert_eq!(log.lines(&["registered app=ORDERS", "origin=peer 10.0.0.7:4711"]).len(), 1);
}

#[tokio::test]
async fn batch_of_250_is_one_info_line_with_its_counts() {
    let server = Server::with_order().await;
    let (log, _guard) = Log::start(tracing::Level::DEBUG);
    let register = |n: usize| {
        let instance = document(&format!("i-{n}"), "UP", 100);
        let instance = &instance[r#"{"instance":"#.len()..instance.len() - 1];
        format!(r#"{{"appName":"ORDERS","id":"i-{n}","instanceInfo":{instance},"action":"Register"}}"#)
    };
    let cancel = r#"{"appName":"ORDERS","id":"h:orders:1","action":"Cancel"}"#.to_owned();
    let items = (0..249).map(register).chain([cancel]).collect::<Vec<_>>().join(",");
    let batch = format!(r#"{{"replicationList":[{items}]}}"#);
    server.send(from_client("POST", "/eureka/peerreplication/batch/", batch)).await;
    assert_eq!(
        log.lines(&["INFO"]),
        [
            "INFO tower_eureka::server::audit: batch applied origin=peer 10.0.0.7:4711 registered=249 cancelled=1 overrides=0"
        ]
    );
    assert_eq!(log.lines(&["DEBUG", "registered app=ORDERS instance=i-"]).len(), 249);
    assert_eq!(log.lines(&["DEBUG", "cancelled app=ORDERS instance=h:orders:1 status=UP"]).len(), 1);
    log.take();
    let beat = r#"{"replicationList":[{"appName":"ORDERS","id":"i-0","lastDirtyTimestamp":100,"action":"Heartbeat"}]}"#;
    server.send(from_client("POST", "/eureka/peerreplication/batch/", beat)).await;
    assert_eq!(log.take(), Vec::<String>::new(), "heartbeats change nothing");
}

#[tokio::test]
async fn override_that_a_heartbeat_of_a_peer_brings_names_the_peer() {
    let server = Server::with_order().await;
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let path = format!("{ORDER_1}?lastDirtyTimestamp=200&status=UP&overriddenstatus=OUT_OF_SERVICE");
    let mut beat = from_client("PUT", &path, "");
    beat.headers_mut().insert("x-netflix-discovery-replication", "true".parse().unwrap());
    assert_eq!(server.send(beat).await.status(), 404, "the sender has newer data");
    assert_eq!(
        log.take(),
        ["INFO tower_eureka::server::audit: status override set app=ORDERS instance=h:orders:1 \
             status=OUT_OF_SERVICE origin=peer 10.0.0.7:4711 before=[] after=[overriddenStatus=OUT_OF_SERVICE]"]
    );
}

/// Sends a request with these credentials to the service, which has a fast path for heartbeats.
async fn send_as(server: &EurekaServer, authorization: &'static str, mut request: Request<Body>) -> u16 {
    request.headers_mut().insert("authorization", authorization.parse().unwrap());
    server.service("/eureka").oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn override_that_a_heartbeat_of_an_authenticated_peer_brings_names_its_identity() {
    // node:s3cret-pass
    const NODE: &str = "Basic bm9kZTpzM2NyZXQtcGFzcw==";

    let access = Access::new().user("node", "s3cret-pass", [Role::Peer]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    assert_eq!(send_as(&server, NODE, from_client("POST", ORDERS, document("h:orders:1", "UP", 100))).await, 204);
    let (log, _guard) = Log::start(tracing::Level::INFO);
    for (dirty, status, body) in [(200, "OUT_OF_SERVICE", ""), (300, "DOWN", "x")] {
        let path = format!("{ORDER_1}?lastDirtyTimestamp={dirty}&status=UP&overriddenstatus={status}");
        let mut beat = from_client("PUT", &path, body);
        beat.headers_mut().insert("x-netflix-discovery-replication", "true".parse().unwrap());
        assert_eq!(send_as(&server, NODE, beat).await, 404, "the sender has newer data");
        let parts = ["status override set", &format!("status={status}"), "origin=peer 10.0.0.7:4711 by=node "];
        assert_eq!(log.lines(&parts).len(), 1, "{}", log.text());
    }
}

#[tokio::test(start_paused = true)]
async fn caller_of_many_changes_hides_neither_others_nor_changes_by_others() {
    // orders:s3cret-pass, cart:s3cret-pass and admin:s3cret-pass
    const ORDERS_USER: &str = "Basic b3JkZXJzOnMzY3JldC1wYXNz";
    const CART_USER: &str = "Basic Y2FydDpzM2NyZXQtcGFzcw==";
    const ADMIN: &str = "Basic YWRtaW46czNjcmV0LXBhc3M=";

    let client = [Role::Register];
    let access = Access::new().user("orders", "s3cret-pass", client).user("cart", "s3cret-pass", client).user(
        "admin",
        "s3cret-pass",
        [Role::Operate],
    );
    let server = EurekaServer::builder().access(access).build().unwrap();
    let cart = document("c-1", "UP", 100).replace("ORDERS", "CART");
    for (who, path, body) in
        [(ORDERS_USER, ORDERS, document("h:orders:1", "UP", 100)), (CART_USER, "/eureka/apps/CART", cart)]
    {
        assert_eq!(send_as(&server, who, from_client("POST", path, body)).await, 204);
    }
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let flap = async |who, path: &str| {
        for n in 0..150 {
            assert_eq!(send_as(&server, who, from_client("PUT", &format!("{path}/metadata?a={n}"), "")).await, 200);
        }
    };
    flap(ORDERS_USER, ORDER_1).await;
    assert_eq!(log.lines(&["metadata changed", "by=orders "]).len(), 100);
    flap(CART_USER, "/eureka/apps/CART/c-1").await;
    assert_eq!(log.lines(&["metadata changed", "by=cart "]).len(), 100);
    flap(ADMIN, ORDER_1).await;
    assert_eq!(log.lines(&["INFO", "metadata changed", "by=admin "]).len(), 150, "the instance is one of others");
    for (method, path) in [("PUT", &*format!("{ORDER_1}/status?value=DOWN")), ("DELETE", "/eureka/apps/CART/c-1")] {
        assert_eq!(send_as(&server, ADMIN, from_client(method, path, "")).await, 200);
    }
    assert_eq!(log.lines(&["INFO", "status override set", "by=admin "]).len(), 1);
    assert_eq!(log.lines(&["INFO", "cancelled", "by=admin "]).len(), 1);
    // Those of the owner itself are like its other changes.
    assert_eq!(send_as(&server, ORDERS_USER, from_client("DELETE", ORDER_1, "")).await, 200);
    assert!(log.lines(&["cancelled", "by=orders "]).is_empty());
}

#[tokio::test]
async fn change_of_an_authenticated_caller_names_its_identity() {
    let access = Access::new().user("deployer", "s3cret-pass", [Role::Operate, Role::Register]);
    let server = Server::built(EurekaServer::builder().access(access));
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let authorized = |method: &str, path: &str, body: String| {
        let mut request = from_client(method, path, body);
        // deployer:s3cret-pass
        let value = "Basic ZGVwbG95ZXI6czNjcmV0LXBhc3M=".parse().unwrap();
        request.headers_mut().insert("authorization", value);
        request
    };
    for (method, path, body, status, what) in [
        ("POST", ORDERS, document("h:orders:1", "UP", 100), 204, "registered"),
        ("PUT", &*format!("{ORDER_1}/status?value=DOWN"), String::new(), 200, "status override set"),
        ("PUT", &format!("{ORDER_1}/metadata?a=b"), String::new(), 200, "metadata changed"),
        ("DELETE", &format!("{ORDER_1}/status"), String::new(), 200, "status override deleted"),
        ("DELETE", ORDER_1, String::new(), 200, "cancelled"),
    ] {
        assert_eq!(server.send(authorized(method, path, body)).await.status(), status, "{what}");
        let lines = log.take();
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        for part in [what, "origin=client 10.0.0.7:4711", " by=deployer "] {
            assert!(lines[0].contains(part), "{part} in {lines:?}");
        }
    }
    // A refused write is no change.
    assert_eq!(server.send(from_client("DELETE", ORDER_1, "")).await.status(), 401);
    assert!(log.lines(&["server::audit"]).is_empty());
}

#[tokio::test]
async fn heartbeats_are_no_audit_lines() {
    let server = Server::with_order().await;
    let (log, _guard) = Log::start(tracing::Level::TRACE);
    for _ in 0..3 {
        assert_eq!(server.send(from_client("PUT", ORDER_1, "")).await.status(), 200);
    }
    assert!(log.lines(&["server::audit"]).is_empty(), "{}", log.text());
}

#[tokio::test(start_paused = true)]
async fn users_that_are_read_again_are_a_line_with_what_was_added_and_removed() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("audit-users");
    let first = "admin {noop}hunter2-a operate\nci {token}hunter2-token read\n";
    std::fs::write(&file, first).unwrap();
    let server = Server::built(EurekaServer::builder().access(Access::new().users_file(&file)));
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let changed =
        "admin {noop}hunter2-b operate\norders {noop}hunter2-c read,register ORDERS\n\"b a\" {token}hunter2-d peer\n";
    let expect = |before: usize, after: usize, rest: &str| {
        let file = file.display();
        format!("INFO tower_eureka::server::audit: users read again file={file} before={before} after={after} {rest}")
    };
    for (content, expected) in [
        (
            changed,
            expect(
                2,
                3,
                "added=[\"admin may operate\" \"orders may read,register (ORDERS)\" \"b a may peer\"] \
                 removed=[\"admin may operate\" \"ci may read\"]",
            ),
        ),
        (
            &format!("{changed}anonymous - read\n"),
            expect(3, 3, "added=[\"anonymous may read\"] removed=[\"anonymous may nothing\"]"),
        ),
    ] {
        std::fs::write(&file, content).unwrap();
        // Reading happens on another thread, which does not stop the paused clock.
        while log.lines(&["users read again"]).is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
        let lines = log.take();
        assert_eq!(lines, [expected]);
    }
    assert_eq!(server.send(from_client("GET", "/eureka/apps", "")).await.status(), 200, "the file is in force");
}

#[cfg(feature = "page")]
#[tokio::test]
async fn action_of_the_page_is_a_line_like_any_other_change() {
    let server = Server::with_order().await;
    let uri = "/page/instance?app=ORDERS&id=h%3Aorders%3A1";
    let page = server.registry.page();
    let mut get = from_client("GET", uri, "");
    get.headers_mut().insert("host", "registry:8761".parse().unwrap());
    let response = page.clone().oneshot(get).await.unwrap();
    let cookie = response.headers()["set-cookie"].clone();
    let html = crate::common::text(response).await;
    let token = html.split_once("name=\"token\" value=\"").unwrap().1.split('"').next().unwrap();
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let mut form = from_client("POST", uri, Body::from(format!("token={token}&action=out_of_service")));
    for (name, value) in [
        ("host", "registry:8761"),
        ("origin", "http://registry:8761"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("cookie", cookie.to_str().unwrap().split(';').next().unwrap()),
    ] {
        form.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(page.oneshot(form).await.unwrap().status(), 303);
    assert_eq!(
        log.take(),
        ["INFO tower_eureka::server::audit: status override set app=ORDERS instance=h:orders:1 \
             status=OUT_OF_SERVICE origin=client 10.0.0.7:4711 before=[status=UP] \
             after=[status=OUT_OF_SERVICE overriddenStatus=OUT_OF_SERVICE]"]
    );
}
