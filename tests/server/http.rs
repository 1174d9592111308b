//! The registry's HTTP operations, request by request: status, headers, body, and refusals that
//! change nothing.

use axum::Router;
use axum::body::Body;
use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Request, StatusCode};
use tower::ServiceExt;
use tower_eureka::model::{Application, Applications, InstanceStatus, ReplicationResponse};
use tower_eureka::server::Limits;
use tower_eureka::{EurekaServer, Instance};

use crate::common::{ORDER_1, ORDERS, Server, bytes, document, gunzip, gzip, request, text};

#[tokio::test]
async fn instance_is_registered_renewed_and_cancelled() {
    let server = Server::new();
    let response = server.post("/eureka/apps/orders", document("h:orders:1", "UP", 100)).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(text(response).await, "");
    let heartbeat = format!("{ORDER_1}?status=UP&lastDirtyTimestamp=100");
    let response = server.send(request("PUT", &heartbeat).body("{}".into()).unwrap()).await;
    assert_eq!((response.status(), &response.headers()[CONTENT_LENGTH]), (StatusCode::OK, &"0".parse().unwrap()));
    let lease = *server.order().lease().unwrap();
    assert_eq!(lease.last_renewal_timestamp / 1000 - lease.registration_timestamp / 1000, 90);
    assert_eq!(server.empty("DELETE", ORDER_1).await.status(), StatusCode::OK);
    assert_eq!(server.empty("DELETE", ORDER_1).await.status(), StatusCode::NOT_FOUND);
    assert!(server.registry.applications().is_empty());
    assert_eq!(server.delta().await.applications[0].instances[0].id(), "h:orders:1");
}

#[tokio::test]
async fn all_paths_of_a_resource_respond_alike() {
    let server = Server::with_order().await;
    for path in [
        "apps",
        "apps/",
        "v2/apps",
        "v2/apps/",
        "/apps/",
        "apps/delta",
        "apps/delta/",
        "v2/apps/delta",
        "apps/ORDERS",
        "apps/orders/",
        "/apps/ORDERS",
        "v2/apps/Orders",
        "apps/ORDERS/h:orders:1",
        "apps/orders/h%3Aorders%3A1/",
        "v2/apps/ORDERS/h:orders:1",
        "instances/h:orders:1",
        "instances/h%3Aorders%3A1/",
        "v2/instances/h:orders:1",
        "vips/shop",
        "v2/vips/orders/",
        "svips/safe",
        "v1/apps",
        "V2/apps/ORDERS/",
        "whatever/apps/delta",
        "v2//apps/ORDERS/h:orders:1",
    ] {
        let response = server.empty("GET", &format!("/eureka/{path}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json", "{path}");
        assert!(text(response).await.contains(r#""instanceId":"h:orders:1""#), "{path}");
    }
}

#[tokio::test]
async fn router_can_be_nested_at_any_path() {
    let server = Server::with_order().await;
    let router = server.registry.router();
    for (mounted, path) in [
        (Router::new().merge(router.clone()), "/apps/ORDERS"),
        (Router::new().nest("/a/b", router.clone()), "/a/b/v2/apps/ORDERS"),
        (Router::new().nest("/{tenant}/eureka", router), "/x/eureka/apps/ORDERS"),
    ] {
        let response = mounted.oneshot(request("GET", path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
}

#[cfg(feature = "access")]
#[tokio::test]
async fn access_control_of_a_merged_router_leaves_unknown_paths_to_the_application() {
    use tower_eureka::server::{Access, Role};

    let access = Access::new().user("reader", "secret", [Role::Read]);
    let server = EurekaServer::builder().access(access).build().unwrap();
    let router = Router::new().merge(server.router());
    for (path, status) in [("/apps", StatusCode::UNAUTHORIZED), ("/favicon.ico", StatusCode::NOT_FOUND)] {
        let response = router.clone().oneshot(request("GET", path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn lists_contain_registered_instances() {
    let server = Server::with_order().await;
    server.post(ORDERS, document("h:orders:2", "STARTING", 100)).await;
    let all = Applications::from_json(&bytes(server.empty("GET", "/eureka/apps").await).await).unwrap();
    assert_eq!(all, server.registry.applications());
    assert_eq!((all.version, all.hash.as_deref()), (Some(1), Some("STARTING_1_UP_1_")));
    let one = Application::from_json(&bytes(server.empty("GET", ORDERS).await).await).unwrap();
    assert_eq!(one, *all.applications[0]);
    for (path, found) in
        [("vips/orders", 2), ("vips/orders,shop", 0), ("vips/ORDERS", 0), ("svips/safe", 2), ("svips/orders", 0)]
    {
        let response = server.empty("GET", &format!("/eureka/{path}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let listed = Applications::from_json(&bytes(response).await).unwrap();
        assert_eq!((listed.len(), listed.version), (found, Some(-1)), "{path}");
        assert_eq!(listed.hash.as_deref(), Some(if found > 0 { "STARTING_1_UP_1_" } else { "" }));
    }
    for path in ["apps/NOBODY", "apps/ORDERS/nobody", "instances/nobody", "nothing", "apps/ORDERS/h:orders:1/nothing"] {
        let response = server.empty("GET", &format!("/eureka/{path}")).await;
        assert_eq!((response.status(), text(response).await), (StatusCode::NOT_FOUND, String::new()), "{path}");
    }
}

#[tokio::test]
async fn list_is_gzip_if_accepted() {
    let server = Server::with_order().await;
    for path in ["apps", "apps/delta", "apps/ORDERS", "vips/orders"] {
        let path = format!("/eureka/{path}");
        let plain = bytes(server.empty("GET", &path).await).await;
        let asked = request("GET", &path).header(ACCEPT_ENCODING, "gzip, x-gzip, deflate").body(Body::empty()).unwrap();
        let response = server.send(asked).await;
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip", "{path}");
        assert_eq!(gunzip(&bytes(response).await), plain, "{path}");
    }
}

#[tokio::test]
async fn head_responds_as_get_without_the_body() {
    let server = Server::with_order().await;
    for path in ["/eureka/apps", "/eureka/apps/delta", ORDERS, ORDER_1] {
        let (get, head) = (server.empty("GET", path).await, server.empty("HEAD", path).await);
        assert_eq!((get.status(), get.headers()), (head.status(), head.headers()), "{path}");
        assert_eq!(text(head).await, "");
    }
}

#[tokio::test]
async fn unacceptable_format_returns_406() {
    let server = Server::with_order().await;
    // Format of responses to requests that do not accept JSON.
    let xml = cfg!(feature = "xml");
    let (other, only_xml) = if xml { (Some("xml"), Some("xml")) } else { (Some("json"), None) };
    for path in [
        "/eureka/apps",
        "/eureka/apps/delta",
        ORDERS,
        ORDER_1,
        "/eureka/vips/orders",
        "/eureka/instances/h:orders:1",
        "/eureka/status",
    ] {
        for (accept, expected) in [
            ("application/json", Some("json")),
            ("*/*", other),
            ("application/json, application/*+json", Some("json")),
            ("application/xml, application/json;q=0.1", Some("json")),
            ("", other),
            ("text/html", None),
            ("application/xml", only_xml),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", other),
        ] {
            let asked = Request::get(path).header(ACCEPT, accept).body(Body::empty()).unwrap();
            let response = server.send(asked).await;
            let Some(expected) = expected else {
                assert_eq!(response.status(), StatusCode::NOT_ACCEPTABLE, "{path} as {accept}");
                assert!(text(response).await.contains("application/json"));
                continue;
            };
            assert_eq!(response.status(), StatusCode::OK, "{path} as {accept}");
            assert_eq!(response.headers()[CONTENT_TYPE], format!("application/{expected}"), "{path} as {accept}");
            assert_eq!(text(response).await.starts_with('<'), expected == "xml");
        }
        let response = server.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[CONTENT_TYPE], format!("application/{}", other.unwrap()));
    }
    let batch = Request::post("/eureka/peerreplication/batch").header(CONTENT_TYPE, "application/json");
    let batch = batch.header(ACCEPT, "application/xml").body("{}".into()).unwrap();
    server.refuses(StatusCode::NOT_ACCEPTABLE, batch).await;
}

#[tokio::test]
async fn unknown_method_returns_405_with_the_allowed_ones() {
    let server = Server::with_order().await;
    for (method, path, allowed) in [
        ("PATCH", ORDERS, ["GET", "POST"]),
        ("POST", ORDER_1, ["PUT", "DELETE"]),
        ("POST", "/eureka/apps/delta", ["GET", "HEAD"]),
        ("GET", "/eureka/peerreplication/batch/", ["POST", "POST"]),
        ("GET", "/eureka/apps/ORDERS/h:orders:1/status", ["PUT", "DELETE"]),
    ] {
        let response = server.empty(method, path).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        let allow = response.headers()[ALLOW].to_str().unwrap().to_owned();
        assert!(allowed.iter().all(|method| allow.contains(method)), "{method} {path}: {allow}");
        assert_eq!(server.order().status(), InstanceStatus::Up);
    }
}

#[tokio::test]
async fn registration_is_validated_in_javas_order() {
    let server = Server::with_order().await;
    let good = [
        ("instanceId", r#""i""#),
        ("hostName", r#""h""#),
        ("ipAddr", r#""10.0.0.1""#),
        ("app", r#""ORDERS""#),
        ("dataCenterInfo", r#"{"@class":"x","name":"MyOwn"}"#),
    ];
    let unreadable = r#"{"error": "cannot parse request body"}"#;
    let mismatch = "Mismatched appName, expecting ORDERS but was BILLING";
    for (bad, expected) in [
        (&[("instanceId", "null"), ("hostName", "null"), ("ipAddr", "null")][..], "Missing instanceId"),
        (&[("hostName", r#""""#), ("ipAddr", "null"), ("app", r#""billing""#)], "Missing hostname"),
        (&[("ipAddr", r#""""#), ("app", r#""billing""#), ("dataCenterInfo", "null")], "Missing ip address"),
        (&[("app", r#""billing""#), ("dataCenterInfo", "null")], mismatch),
        (&[("dataCenterInfo", "null")], "Missing dataCenterInfo"),
        (&[("dataCenterInfo", r#"{"@class":"x"}"#)], "Missing dataCenterInfo Name"),
        (&[("dataCenterInfo", r#"{"@class":"x","name":"Moon"}"#)], unreadable),
        (&[("app", "null")], unreadable),
        (&[("app", r#""""#), ("dataCenterInfo", "null")], "Missing appName"),
        (&[("app", r#""""#), ("ipAddr", "null")], "Missing ip address"),
    ] {
        let members = good.map(|(name, value)| {
            let value = bad.iter().find(|(bad, _)| *bad == name).map_or(value, |(_, value)| value);
            format!(r#""{name}":{value}"#)
        });
        let body = format!(r#"{{"instance":{{{}}}}}"#, members.join(","));
        let refused = request("POST", ORDERS).body(body.into()).unwrap();
        assert_eq!(server.refuses(StatusCode::BAD_REQUEST, refused).await, expected, "{bad:?}");
    }
}

#[tokio::test]
async fn amazon_instance_without_an_id_gets_its_instance_id() {
    let server = Server::new();
    let body = document("h:orders:1", "UP", 1)
        .replace("InstanceInfo$DefaultDataCenterInfo", "AmazonInfo")
        .replace(r#""MyOwn""#, r#""Amazon","metadata":{"ami-id":"a"}"#);
    assert_eq!(server.post(ORDERS, body).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.order().data_center().unwrap().instance_id(), Some("h:orders:1"));
}

#[tokio::test]
async fn unreadable_body_returns_400() {
    let server = Server::built(EurekaServer::builder().limits(Limits::new().gzip_requests(true)));
    let good = document("i", "UP", 1);
    let nested = |depth: usize| {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        good.replace(r#""status":"UP""#, &format!(r#""unknown":{deep}"#))
    };
    let bodies: [Vec<u8>; 8] = [
        "".into(),
        "null".into(),
        good[..good.len() - 1].into(),
        format!("{good}}}").into(),
        good.replace("ipAddr\":\"", "ipAddr\":\"\u{1}").into(),
        [&good.as_bytes()[..20], b"\xff", &good.as_bytes()[20..]].concat(),
        nested(100_000).into(),
        "[".repeat(500_000).into(),
    ];
    for path in [ORDERS, "/eureka/peerreplication/batch/"] {
        for body in &bodies {
            let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let refused = request("POST", path).body(body.clone().into()).unwrap();
            let response = server.refuses(StatusCode::BAD_REQUEST, refused).await;
            assert_eq!(response, r#"{"error": "cannot parse request body"}"#, "{start}");
        }
        let broken = request("POST", path).header(CONTENT_ENCODING, "gzip").body(good.clone().into()).unwrap();
        server.refuses(StatusCode::BAD_REQUEST, broken).await;
    }
    let empty = |path| request("POST", path).body("{}".into()).unwrap();
    server.refuses(StatusCode::BAD_REQUEST, empty(ORDERS)).await;
    let batch = empty("/eureka/peerreplication/batch/");
    server.refuses(StatusCode::INTERNAL_SERVER_ERROR, batch).await;
    assert_eq!(server.post(ORDERS, nested(10)).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn other_media_types_and_codings_return_415() {
    let server = Server::with_order().await;
    for path in [ORDERS, "/eureka/peerreplication/batch"] {
        let xml = (path != ORDERS || cfg!(not(feature = "xml"))).then_some("application/xml");
        let kinds = [Some("text/plain"), Some("application/json; charset=utf-16"), None];
        for kind in kinds.into_iter().chain(xml.map(Some)) {
            let mut builder = Request::post(path);
            if let Some(kind) = kind {
                builder = builder.header(CONTENT_TYPE, kind);
            }
            let refused = builder.body(document("i", "UP", 1).into()).unwrap();
            let response = server.refuses(StatusCode::UNSUPPORTED_MEDIA_TYPE, refused).await;
            assert!(
                response.contains("this registry accepts") || response.contains("batches are accepted"),
                "{response}"
            );
        }
        let refused = request("POST", path).header(CONTENT_ENCODING, "br").body("x".into()).unwrap();
        server.refuses(StatusCode::UNSUPPORTED_MEDIA_TYPE, refused).await;
    }
}

#[tokio::test]
async fn gzip_and_latin1_bodies_are_decoded() {
    let server = Server::built(EurekaServer::builder().limits(Limits::new().gzip_requests(true)));
    let zipped = request("POST", ORDERS).header(CONTENT_ENCODING, "gzip");
    let zipped = zipped.body(gzip(document("zipped", "UP", 1).as_bytes()).into()).unwrap();
    assert_eq!(server.send(zipped).await.status(), StatusCode::NO_CONTENT);
    let latin: Vec<u8> = document("fr\u{e9}d", "UP", 1).chars().map(|c| c as u8).collect();
    let latin =
        Request::post(ORDERS).header(CONTENT_TYPE, "application/json;charset=ISO-8859-1").body(latin.into()).unwrap();
    assert_eq!(server.send(latin).await.status(), StatusCode::NO_CONTENT);
    let application = server.registry.applications().applications[0].clone();
    assert_eq!(application.instances.iter().map(|i| i.id()).collect::<Vec<_>>(), ["fr\u{e9}d", "zipped"]);
}

#[tokio::test]
async fn body_beyond_its_limit_returns_413_also_when_decompressed() {
    let server = Server::built(
        EurekaServer::builder().limits(Limits::new().registration_bytes(2_000).batch_bytes(20_000).gzip_requests(true)),
    );
    for (path, limit) in [(ORDERS, 2_000), ("/eureka/peerreplication/batch/", 20_000)] {
        let long = " ".repeat(limit + 1);
        let refused = request("POST", path).body(long.clone().into()).unwrap();
        assert!(server.refuses(StatusCode::PAYLOAD_TOO_LARGE, refused).await.contains(&limit.to_string()));
        let refused =
            request("POST", path).header(CONTENT_ENCODING, "gzip").body(gzip(long.as_bytes()).into()).unwrap();
        server.refuses(StatusCode::PAYLOAD_TOO_LARGE, refused).await;
    }
    let fits = format!("{}{}", document("i", "UP", 1), " ".repeat(1_000));
    assert_eq!(server.post(ORDERS, fits).await.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn heartbeat_compares_versions() {
    for (query, replica, status) in [
        ("", "false", 200),
        ("", "true", 200),
        ("?lastDirtyTimestamp=100", "false", 200),
        ("?lastDirtyTimestamp=100", "true", 200),
        ("?lastDirtyTimestamp=99", "false", 200),
        ("?lastDirtyTimestamp=99", "true", 409),
        ("?lastDirtyTimestamp=99", "TRUE", 200),
        ("?lastDirtyTimestamp=101", "false", 404),
        ("?lastDirtyTimestamp=101", "true", 404),
        ("?lastDirtyTimestamp=soon", "false", 500),
        ("?status=NONSENSE", "false", 200),
        ("?lastDirtyTimestamp=101&overriddenstatus=NONSENSE", "true", 500),
        ("?lastDirtyTimestamp=101&overriddenstatus=NONSENSE", "false", 404),
    ] {
        let server = Server::with_order().await;
        let beat = request("PUT", &format!("{ORDER_1}{query}")).header("x-netflix-discovery-replication", replica);
        let response = server.send(beat.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), status, "{query} {replica}");
        let body = bytes(response).await;
        match status {
            409 => assert_eq!(Instance::from_json(&body).unwrap(), server.order()),
            500 => {}
            _ => assert!(body.is_empty(), "Java clients fail on a body here"),
        }
        let lease = *server.order().lease().unwrap();
        assert!(lease.last_renewal_timestamp > lease.registration_timestamp, "renewed in any case");
    }
    let server = Server::with_order().await;
    for path in ["/eureka/apps/ORDERS/nobody", "/eureka/apps/NOBODY/h:orders:1"] {
        let refused = request("PUT", &format!("{path}?lastDirtyTimestamp=soon")).body("{}".into()).unwrap();
        assert_eq!(server.refuses(StatusCode::NOT_FOUND, refused).await, "");
    }
}

#[tokio::test]
async fn heartbeat_of_a_replica_stores_its_override() {
    let server = Server::with_order().await;
    let beat = request("PUT", &format!("{ORDER_1}?lastDirtyTimestamp=101&overriddenstatus=OUT_OF_SERVICE"));
    let beat = beat.header("x-netflix-discovery-replication", "true").body(Body::empty()).unwrap();
    assert_eq!(server.send(beat).await.status(), StatusCode::NOT_FOUND);
    server.post(ORDERS, document("h:orders:1", "UP", 101)).await;
    assert_eq!(server.order().status(), InstanceStatus::OutOfService);
}

#[tokio::test]
async fn override_is_set_and_deleted() {
    let server = Server::with_order().await;
    let status = format!("{ORDER_1}/status");
    for (method, query, code, expected) in [
        ("PUT", "?value=OUT_OF_SERVICE&lastDirtyTimestamp=200", 200, InstanceStatus::OutOfService),
        ("PUT", "?value=OUT_OF_SERVICE", 200, InstanceStatus::OutOfService),
        ("DELETE", "?value=UP", 200, InstanceStatus::Up),
        ("DELETE", "?value=DOWN", 200, InstanceStatus::Up),
        ("PUT", "?value=DOWN", 200, InstanceStatus::Down),
        ("DELETE", "", 200, InstanceStatus::Unknown),
    ] {
        let response = server.empty(method, &format!("{status}{query}")).await;
        assert_eq!((response.status().as_u16(), text(response).await), (code, String::new()), "{method} {query}");
        assert_eq!(server.order().status(), expected, "{method} {query}");
    }
    assert_eq!(server.order().last_dirty_timestamp(), Some(200));
    assert_eq!(server.empty("PUT", ORDER_1).await.status(), StatusCode::NOT_FOUND, "it has to register again");
}

#[tokio::test]
async fn invalid_override_is_refused() {
    let server = Server::with_order().await;
    for (method, path, status) in [
        ("PUT", "h:orders:1/status", 500),
        ("PUT", "h:orders:1/status?value=up", 500),
        ("PUT", "h:orders:1/status?value=", 500),
        ("DELETE", "h:orders:1/status?value=GONE", 500),
        ("PUT", "h:orders:1/status?value=DOWN&lastDirtyTimestamp=x", 500),
        ("PUT", "nobody/status?value=DOWN", 404),
        ("PUT", "nobody/status", 404),
        ("DELETE", "nobody/status", 404),
        ("PUT", "nobody/metadata?a=b", 404),
    ] {
        let refused = request(method, &format!("{ORDERS}/{path}")).body(Body::empty()).unwrap();
        server.refuses(StatusCode::from_u16(status).unwrap(), refused).await;
    }
}

#[tokio::test]
async fn metadata_update_stores_each_parameter_once() {
    let server = Server::with_order().await;
    let path = format!("{ORDER_1}/metadata?zone=a&note=x+y%26z&zone=b&lastDirtyTimestamp=5");
    assert_eq!(server.empty("PUT", &path).await.status(), StatusCode::OK);
    let order = server.order();
    let entries: Vec<_> = order.metadata().iter().collect();
    assert_eq!(entries, [("lastDirtyTimestamp", "5"), ("note", "x y&z"), ("zone", "a")]);
    assert_eq!(order.last_dirty_timestamp(), Some(100));
}

#[tokio::test]
async fn batch_has_a_result_for_each_item() {
    let server = Server::with_order().await;
    let instance = document("h:orders:2", "UP", 7);
    let inner = &instance[r#"{"instance":"#.len()..instance.len() - 1];
    let id = r#""appName":"orders","id":"h:orders:1""#;
    let batch = |items: &[String]| format!(r#"{{"replicationList":[{}]}}"#, items.join(","));
    let items = [
        format!(r#"{{"appName":"ORDERS","id":"h:orders:2","instanceInfo":{inner},"action":"Register"}}"#),
        format!(r#"{{"appName":"OTHER","id":"h:orders:2","instanceInfo":{inner},"action":"Register"}}"#),
        format!(r#"{{{id},"lastDirtyTimestamp":100,"status":"UP","action":"Heartbeat"}}"#),
        format!(r#"{{{id},"lastDirtyTimestamp":"99","action":"Heartbeat"}}"#),
        format!(r#"{{{id},"lastDirtyTimestamp":101,"overriddenStatus":"DOWN","action":"Heartbeat"}}"#),
        r#"{"appName":"ORDERS","id":"nobody","action":"Heartbeat"}"#.into(),
        format!(r#"{{{id},"status":"OUT_OF_SERVICE","lastDirtyTimestamp":100,"action":"StatusUpdate"}}"#),
        format!(r#"{{{id},"status":"UP","action":"DeleteStatusOverride"}}"#),
        format!(r#"{{{id},"status":"UP","lastDirtyTimestamp":100,"action":"DeleteStatusOverride"}}"#),
        format!(r#"{{{id},"action":"StatusUpdate"}}"#),
        r#"{"id":"h:orders:1","action":"Cancel"}"#.into(),
        r#"{"appName":"ORDERS","id":"h:orders:1"}"#.into(),
        r#"{"appName":"ORDERS","id":"h:orders:2","action":"Cancel"}"#.into(),
        r#"{"appName":"ORDERS","id":"h:orders:2","action":"Cancel"}"#.into(),
        r#"{"appName":"ORDERS","action":"Register"}"#.into(),
    ];
    for path in ["/eureka/peerreplication/batch/", "/eureka/peerreplication/batch", "/eureka/v2/peerreplication/batch/"]
    {
        let response = server.post(path, batch(&items)).await;
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &"application/json".parse().unwrap())
        );
        let results = ReplicationResponse::from_json(&bytes(response).await).unwrap().0;
        let statuses: Vec<_> = results.iter().map(|result| result.status).collect();
        assert_eq!(statuses, [200, 200, 200, 409, 404, 404, 200, 500, 200, 500, 500, 500, 200, 404, 500], "{path}");
        assert_eq!(results[3].entity.as_ref().unwrap().id(), "h:orders:1");
        assert_eq!(server.order().status(), InstanceStatus::Up);
    }
    assert!(server.registry.instance("OTHER", "h:orders:2").is_none(), "an invalid record is dropped");
    let refused = |body: String| request("POST", "/eureka/peerreplication/batch/").body(body.into()).unwrap();
    server
        .refuses(StatusCode::BAD_REQUEST, refused(batch(&[items[2].clone(), items[12].replace("Cancel", "cancel")])))
        .await;
    server.refuses(StatusCode::BAD_REQUEST, refused(r#"{"replicationList":{}}"#.into())).await;
}

#[tokio::test]
async fn response_to_a_batch_has_one_copy_of_each_instance_up_to_a_limit() {
    let builder = tower_eureka::EurekaServer::builder();
    let server = Server::built(builder.limits(Limits::new().name_bytes(2_000_000).instance_bytes(2_000_000)));
    let stale = |id: &str| format!(r#"{{"appName":"orders","id":"{id}","lastDirtyTimestamp":1,"action":"Heartbeat"}}"#);
    let ids = |range: std::ops::Range<usize>| range.map(|i| format!("h:orders:{i}"));
    let response = async |ids: &[String]| {
        let items: Vec<_> = ids.iter().map(|id| stale(id)).collect();
        let batch = format!(r#"{{"replicationList":[{}]}}"#, items.join(","));
        let response = server.post("/eureka/peerreplication/batch/", batch).await;
        let results = ReplicationResponse::from_json(&bytes(response).await).unwrap().0;
        assert_eq!(results.len(), ids.len());
        assert!(results.iter().all(|result| result.status == 409), "each is stale, with a copy or without");
        let copies = results.into_iter().enumerate().filter_map(|(at, result)| Some((at, result.entity?)));
        copies.map(|(at, copy)| (at, copy.id().to_owned())).collect::<Vec<_>>()
    };

    for id in ids(0..300) {
        server.post(ORDERS, document(&id, "UP", 100)).await;
    }
    let two: Vec<_> = ["h:orders:7", "h:orders:8"].repeat(1_500).iter().map(|&id| id.to_owned()).collect();
    assert_eq!(response(&two).await, [(0, two[0].clone()), (1, two[1].clone())]);
    let all: Vec<_> = ids(0..300).collect();
    assert_eq!(response(&all).await, all[..250].iter().cloned().enumerate().collect::<Vec<_>>());

    for id in ids(0..20) {
        let long = document(&id, "UP", 200)
            .replace(r#""vipAddress":""#, &format!(r#""vipAddress":"{}"#, "v".repeat(1_000_000)));
        assert!(long.len() > 1_000_000);
        server.post(ORDERS, long).await;
    }
    assert_eq!(response(&all).await.len(), 2, "two copies exceed 1 MiB");
}
