//! Lists: `ETag`, the compact form, the caches, and the status of the server.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use tower::ServiceExt;
use tower_eureka::EurekaServer;
use tower_eureka::model::{Application, Applications, InstanceStatus};

use crate::common::{ORDER_1, ORDERS, Server, bytes, document, gunzip, request, text};

const LISTS: [&str; 5] = ["apps", "apps/delta", "apps/ORDERS", "vips/orders", "svips/safe"];

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = request("GET", &format!("/eureka/{path}"));
    for (name, value) in headers {
        // `request` sets `Accept` already.
        request.headers_mut().unwrap().remove(*name);
        request = request.header(*name, *value);
    }
    server.send(request.body(Body::empty()).unwrap()).await
}

async fn tag(server: &Server, path: &str, headers: &[(&str, &str)]) -> HeaderValue {
    get(server, path, headers).await.headers()[ETAG].clone()
}

#[tokio::test]
async fn list_with_a_matching_etag_returns_304() {
    for path in LISTS {
        let server = Server::with_order().await;
        let known = tag(&server, path, &[]).await;
        let again = |tag: &HeaderValue| {
            let value = tag.to_str().unwrap().to_owned();
            let server = &server;
            async move { get(server, path, &[(IF_NONE_MATCH.as_str(), &value)]).await }
        };
        let response = again(&known).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!((&response.headers()[ETAG], response.headers().contains_key(VARY)), (&known, true), "{path}");
        assert_eq!(response.headers().get(CONTENT_TYPE), None, "{path}");
        assert_eq!(text(response).await, "", "{path}");

        assert_eq!(server.empty("PUT", ORDER_1).await.status(), StatusCode::OK);
        assert_eq!(again(&known).await.status(), StatusCode::NOT_MODIFIED, "{path}: a heartbeat is no change");
        let changed = document("h:orders:1", "DOWN", 200);
        assert_eq!(server.post(ORDERS, changed).await.status(), StatusCode::NO_CONTENT);
        let response = again(&known).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_ne!(response.headers()[ETAG], known, "{path}");
        assert!(text(response).await.contains(r#""status":"DOWN""#), "{path}");
        assert_eq!(server.post(ORDERS, document("h:orders:1", "UP", 300)).await.status(), StatusCode::NO_CONTENT);
        assert_eq!(again(&known).await.status(), StatusCode::OK, "{path}: what comes back is not what was");
    }
}

#[tokio::test]
async fn each_form_and_each_registry_has_its_own_etags() {
    let (server, other) = (Server::with_order().await, Server::with_order().await);
    let mut tags = Vec::new();
    for path in ["apps", "apps/delta", "apps/ORDERS"] {
        for encoding in ["identity", "gzip"] {
            for compact in ["full", "Compact"] {
                for accept in ["application/json", "*/*"] {
                    let headers =
                        [(ACCEPT_ENCODING.as_str(), encoding), ("x-eureka-accept", compact), (ACCEPT.as_str(), accept)];
                    tags.push(tag(&server, path, &headers).await);
                    tags.push(tag(&other, path, &headers).await);
                }
            }
        }
    }
    let all = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), if cfg!(feature = "xml") { all } else { all / 2 });
}

#[tokio::test]
async fn change_of_another_application_keeps_the_etag() {
    let server = Server::with_order().await;
    let before = (tag(&server, "apps/ORDERS", &[]).await, tag(&server, "apps", &[]).await);
    let billing = document("i", "UP", 1).replace("ORDERS", "BILLING");
    assert_eq!(server.post("/eureka/apps/BILLING", billing).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(tag(&server, "apps/ORDERS", &[]).await, before.0);
    assert_ne!(tag(&server, "apps", &[]).await, before.1);
}

#[tokio::test]
async fn vip_list_keeps_its_etag_while_none_of_its_instances_changes() {
    let server = Server::with_order().await;
    let vips = ["vips/orders", "vips/shop", "svips/safe"];
    let headers = [[(ACCEPT_ENCODING.as_str(), "gzip")], [(ACCEPT_ENCODING.as_str(), "identity")]];
    for (path, headers) in vips.iter().flat_map(|path| headers.iter().map(move |headers| (*path, headers))) {
        let before = tag(&server, path, headers).await;
        let billing =
            document("i", "UP", 1).replace("ORDERS", "BILLING").replace("orders,shop", "b").replace("safe", "s");
        for status in ["UP", "DOWN"] {
            let billing = billing.replace("UP", status);
            assert_eq!(server.post("/eureka/apps/BILLING", billing).await.status(), StatusCode::NO_CONTENT);
            assert_eq!(tag(&server, path, headers).await, before, "{path}");
            let known = [headers[0], (IF_NONE_MATCH.as_str(), before.to_str().unwrap())];
            assert_eq!(get(&server, path, &known).await.status(), StatusCode::NOT_MODIFIED, "{path}");
        }
        assert_eq!(server.empty("PUT", &format!("{ORDER_1}/status?value=DOWN")).await.status(), StatusCode::OK);
        assert_ne!(tag(&server, path, headers).await, before, "{path}");
        assert_eq!(server.empty("PUT", &format!("{ORDER_1}/status?value=UP")).await.status(), StatusCode::OK);
    }
    assert_ne!(tag(&server, "vips/orders", &[]).await, tag(&server, "vips/other", &[]).await);
}

#[tokio::test]
async fn compact_lists_omit_metadata_and_leases() {
    let server = Server::with_order().await;
    server.empty("PUT", &format!("{ORDER_1}/metadata?note=long")).await;
    for path in LISTS {
        let full = bytes(get(&server, path, &[("x-eureka-accept", "full")]).await).await;
        assert_eq!(bytes(get(&server, path, &[("x-eureka-accept", "[compact]")]).await).await, full, "{path}");
        for word in ["compact", "COMPACT"] {
            let compact = text(get(&server, path, &[("x-eureka-accept", word)]).await).await;
            assert!(!compact.contains("note") && !compact.contains("leaseInfo"), "{path}: {compact}");
            assert!(compact.contains(r#""vipAddress":"orders,shop""#), "{path}: {compact}");
            let zipped = [("x-eureka-accept", word), (ACCEPT_ENCODING.as_str(), "gzip")];
            let response = get(&server, path, &zipped).await;
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip", "{path}");
            assert_eq!(gunzip(&bytes(response).await), compact.as_bytes(), "{path}");
            if path == "apps/ORDERS" {
                assert_eq!(Application::from_json(compact.as_bytes()).unwrap().instances[0].id(), "h:orders:1");
            } else {
                assert!(compact.contains(r#"}]}],"versions__delta":"#), "{path}: {compact}");
                assert_eq!(Applications::from_json(compact.as_bytes()).unwrap().len(), 1);
            }
        }
    }
    let one = text(get(&server, "apps/ORDERS/h:orders:1", &[("x-eureka-accept", "compact")]).await).await;
    assert!(one.contains("leaseInfo"), "a single instance is always whole");
}

#[tokio::test]
async fn response_shows_the_last_change() {
    let server = Server::with_order().await;
    for (status, dirty) in [("DOWN", 200), ("STARTING", 300), ("UP", 400)] {
        server.post(ORDERS, document("h:orders:1", status, dirty)).await;
        for path in LISTS {
            for word in ["full", "compact"] {
                let answer = text(get(&server, path, &[("x-eureka-accept", word)]).await).await;
                assert!(answer.contains(&format!(r#""status":"{status}""#)), "{path}, {word}: {answer}");
            }
        }
    }
    assert_eq!(get(&server, "apps/BILLING", &[]).await.status(), StatusCode::NOT_FOUND);
    let billing = document("i", "UP", 1).replace("ORDERS", "BILLING");
    server.post("/eureka/apps/BILLING", billing).await;
    assert_eq!(
        get(&server, "apps/BILLING", &[]).await.status(),
        StatusCode::OK,
        "that it was missing is not remembered"
    );
}

#[tokio::test]
async fn disabled_delta_returns_403_and_other_lists_200() {
    for name in ["eureka.server.disable-delta", "eureka.server.disableDelta"] {
        let server = Server::built(EurekaServer::builder().property(name, "true").unwrap());
        server.post(ORDERS, document("h:orders:1", "UP", 100)).await;
        for path in ["apps/delta", "v2/apps/delta/"] {
            let response = get(&server, path, &[]).await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
            assert_eq!(text(response).await, "");
            let short = request("GET", &format!("/eureka/{path}")).body(Body::empty()).unwrap();
            let short = server.registry.service("/eureka").oneshot(short).await.unwrap();
            assert_eq!(short.status(), StatusCode::FORBIDDEN, "{path}");
        }
        for path in LISTS.iter().filter(|&&path| path != "apps/delta") {
            assert_eq!(get(&server, path, &[]).await.status(), StatusCode::OK, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn responses_of_the_read_only_cache_are_up_to_an_interval_old() {
    let builder = EurekaServer::builder()
        .property("eureka.server.use-read-only-response-cache", "true")
        .and_then(|builder| builder.property("eureka.server.response-cache-update-interval-ms", "20000"));
    let server = Server::built(builder.unwrap());
    for path in LISTS.iter().filter(|&&path| path != "apps/ORDERS") {
        assert!(!text(get(&server, path, &[]).await).await.contains("h:orders:1"), "{path}");
    }
    assert_eq!(get(&server, "apps/ORDERS", &[]).await.status(), StatusCode::NOT_FOUND);
    server.post(ORDERS, document("h:orders:1", "UP", 100)).await;
    for path in LISTS {
        let shown = text(get(&server, path, &[]).await).await.contains("h:orders:1");
        assert_eq!(shown, path == "apps/ORDERS", "{path}: only that it was missing is not remembered");
        let shown = text(get(&server, path, &[("x-eureka-accept", "compact")]).await).await.contains("h:orders:1");
        assert!(shown, "{path}: nobody has asked for this form yet");
    }
    assert_eq!(
        get(&server, "apps/ORDERS/h:orders:1", &[]).await.status(),
        StatusCode::OK,
        "one instance is shown as it is"
    );

    tokio::time::advance(Duration::from_millis(19_000)).await;
    let stale = tag(&server, "apps", &[]).await;
    assert_eq!(get(&server, "apps", &[(IF_NONE_MATCH.as_str(), stale.to_str().unwrap())]).await.status(), 304);
    tokio::time::advance(Duration::from_millis(1_000)).await;
    for path in LISTS {
        assert!(text(get(&server, path, &[]).await).await.contains("h:orders:1"), "{path}");
    }
    assert_ne!(tag(&server, "apps", &[]).await, stale);
    server.empty("DELETE", ORDER_1).await;
    for path in LISTS {
        let answer = text(get(&server, path, &[]).await).await;
        assert!(answer.contains("h:orders:1") && !answer.contains("DELETED"), "{path}");
    }
    tokio::time::advance(Duration::from_millis(20_000)).await;
    assert_eq!(get(&server, "apps/ORDERS", &[]).await.status(), StatusCode::NOT_FOUND);
    assert!(text(get(&server, "apps/delta", &[]).await).await.contains("DELETED"));
}

#[tokio::test]
async fn status_describes_the_server() {
    let server = Server::with_order().await;
    for path in ["status", "v2/status/"] {
        let response = get(&server, path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let status: serde_json::Value = serde_json::from_slice(&bytes(response).await).unwrap();
        assert_eq!(status["generalStats"]["server-uptime"], "00:00");
        assert!(status["generalStats"]["num-of-cpus"].as_str().unwrap().parse::<usize>().unwrap() > 0);
        assert_eq!(status["applicationStats"]["registered-replicas"], "");
        assert!(status.get("healthy").is_none());
    }
}

#[tokio::test]
async fn status_overrides_are_listed_by_id() {
    let server = Server::with_order().await;
    let listed = || async { text(get(&server, "serverinfo/statusoverrides", &[]).await).await };
    assert_eq!(listed().await, "{}");
    server.empty("PUT", &format!("{ORDER_1}/status?value=OUT_OF_SERVICE")).await;
    assert_eq!(server.order().status(), InstanceStatus::OutOfService);
    assert_eq!(listed().await, r#"{"h:orders:1":"OUT_OF_SERVICE"}"#);
    server.empty("DELETE", &format!("{ORDER_1}/status")).await;
    assert_eq!(listed().await, "{}");
}

#[tokio::test]
async fn auto_scaling_group_request_returns_400() {
    let server = Server::with_order().await;
    for path in ["asg/orders-v1/status?value=DISABLED", "v2/asg/orders-v1/status/", "asg/x/status?value=MAYBE"] {
        let asked = request("PUT", &format!("/eureka/{path}")).body("{}".into()).unwrap();
        assert_eq!(server.refuses(StatusCode::BAD_REQUEST, asked).await, "", "{path}");
    }
    assert_eq!(get(&server, "asg/orders-v1/status", &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}
