//! Limits of the registry: sizes of instances, totals, times in the future.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::ServiceExt;
use tower_eureka::server::{EurekaServerBuilder, Limits};
use tower_eureka::{EurekaServer, Instance};

use crate::log::Log;

fn document(id: &str, metadata: usize) -> Vec<u8> {
    let instance = Instance::builder("X").id(id).host_name("h").ip_addr("10.0.0.1").port(80);
    instance.metadata("k", "v".repeat(metadata)).build().unwrap().to_json()
}

/// Returns a registration with this version.
fn dated(id: &str, host: &str, version: i64) -> Vec<u8> {
    let mut document: Value = serde_json::from_slice(&document(id, 1)).unwrap();
    document["instance"]["lastDirtyTimestamp"] = json!(version.to_string());
    document["instance"]["hostName"] = json!(host);
    document.to_string().into_bytes()
}

/// Returns a function that sends requests to a registry with these settings.
fn sender(builder: EurekaServerBuilder) -> impl AsyncFn(&str, &str, Vec<u8>) -> (u16, String) {
    let router = builder.build().unwrap().router();
    async move |method: &str, path: &str, body: Vec<u8>| {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.header("accept", "application/json").body(axum::body::Body::from(body)).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap())
    }
}

#[tokio::test]
async fn registration_in_a_full_registry_returns_429_and_known_instances_renew() {
    let by_count = EurekaServer::builder().limits(Limits::new().instances(2));
    let by_size = EurekaServer::builder().limits(Limits::new().registry_bytes(5_500));
    for (builder, cause) in [(by_count, "it has 2 instances"), (by_size, "its instances take nearly 5500 bytes")] {
        let send = sender(builder);
        for id in ["a", "b"] {
            assert_eq!(send("POST", "/apps/X", document(id, 500)).await.0, 204, "{id}");
        }
        let (status, text) = send("POST", "/apps/X", document("c", 500)).await;
        assert_eq!(status, 429);
        assert!(text.contains("the registry is full") && text.contains(cause), "{text}");
        assert_eq!(send("PUT", "/apps/X/a", Vec::new()).await.0, 200);
        assert_eq!(send("POST", "/apps/X", document("a", 500)).await.0, 204);
        assert_eq!(send("PUT", "/apps/X/a/status?value=OUT_OF_SERVICE", Vec::new()).await.0, 200);
        assert_eq!(send("GET", "/apps/X/c", Vec::new()).await.0, 404);
        assert_eq!(send("DELETE", "/apps/X/b", Vec::new()).await.0, 200);
        assert_eq!(send("POST", "/apps/X", document("c", 500)).await.0, 204, "there is room again");
    }
}

#[tokio::test(start_paused = true)]
async fn registration_beyond_a_number_returns_429_until_silent_instances_give_way() {
    let by_application = EurekaServer::builder().limits(Limits::new().instances_per_application(3));
    let by_number = EurekaServer::builder().limits(Limits::new().applications(3));
    for (builder, is_by_application) in [(by_application, true), (by_number, false)] {
        let send = sender(builder);
        let app = |n: usize| if is_by_application { "X".to_owned() } else { format!("X{n}") };
        let send_to = async |n: usize, id: &str| {
            let text = String::from_utf8(document(id, 1)).unwrap();
            let text = text.replace(r#""app":"X""#, &format!(r#""app":"{}""#, app(n)));
            send("POST", &format!("/apps/{}", app(n)), text.into_bytes()).await
        };
        for n in 0..3 {
            assert_eq!(send_to(n, &format!("i{n}")).await.0, 204);
        }
        // One of them sends heartbeats. The others register again and again instead.
        for _ in 0..4 {
            sleep(Duration::from_secs(30)).await;
            assert_eq!(send("PUT", &format!("/apps/{}/i0", app(0)), Vec::new()).await.0, 200);
            for n in 1..3 {
                assert_eq!(send_to(n, &format!("i{n}")).await.0, 204);
            }
        }
        for n in 3..5 {
            assert_eq!(send_to(n, &format!("i{n}")).await.0, 204, "a lease without a heartbeat gives way");
        }
        let (status, text) = send_to(5, "i5").await;
        assert_eq!(status, 429);
        assert!(text.contains("which is the limit"), "{text}");
        assert_eq!(send("GET", &format!("/apps/{}/i0", app(0)), Vec::new()).await.0, 200, "{is_by_application}");
    }
}

#[tokio::test]
async fn instance_and_names_beyond_their_limits_return_413() {
    let send = sender(EurekaServer::builder().limits(Limits::new().name_bytes(10).instance_bytes(1_000)));
    let (status, text) = send("POST", "/apps/X", document("12345678901", 0)).await;
    assert_eq!((status, &*text), (413, "the instance id is longer than 10 bytes"));
    let (status, text) = send("POST", "/apps/X", document("a", 1_000)).await;
    assert_eq!((status, &*text), (413, "the instance is larger than 1000 bytes"));
    assert_eq!(send("POST", "/apps/X", document("1234567890", 500)).await.0, 204);
    let (status, _) = send("PUT", &format!("/apps/X/1234567890/metadata?k={}", "x".repeat(1_000)), Vec::new()).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn refused_item_of_a_batch_has_the_status_of_its_refusal_and_the_others_apply() {
    let send = sender(EurekaServer::builder().limits(Limits::new().name_bytes(10).instances(2)));
    let item = |id: &str| {
        let document: Value = serde_json::from_slice(&document(id, 10)).unwrap();
        json!({"appName": "X", "id": id, "action": "Register", "instanceInfo": document["instance"]})
    };
    let heartbeat = json!({"appName": "X", "id": "a", "action": "Heartbeat"});
    let batch = json!({
        "replicationList": [item("a"), item("12345678901"), item("b"), item("c"), heartbeat, item("a")]
    });
    let (status, text) = send("POST", "/peerreplication/batch", batch.to_string().into_bytes()).await;
    assert_eq!(status, 200);
    let results: Value = serde_json::from_str(&text).unwrap();
    let statuses: Vec<_> = results["responseList"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["statusCode"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 413, 200, 507, 200, 200]);
}

#[tokio::test(start_paused = true)]
async fn full_registry_logs_one_warning_at_its_beginning_and_one_line_at_its_end() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let send = sender(EurekaServer::builder().limits(Limits::new().instances(1)));
    let full = || log.lines(&["WARN", "registry is full, new instances are refused"]).len();
    assert_eq!(send("POST", "/apps/X", document("a", 1)).await.0, 204);
    assert_eq!(full(), 0);
    for _ in 0..10 {
        assert_eq!(send("POST", "/apps/X", document("b", 1)).await.0, 429);
    }
    assert_eq!(full(), 1);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(log.lines(&["registry has room again"]).len(), 0);
    assert_eq!(send("DELETE", "/apps/X/a", Vec::new()).await.0, 200);
    sleep(Duration::from_secs(300)).await;
    assert_eq!((full(), log.lines(&["INFO", "registry has room again refused=10"]).len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn eviction_of_silent_instances_logs_one_warning_per_minute() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let send = sender(EurekaServer::builder().limits(Limits::new().instances(5)));
    for i in 0..5 {
        assert_eq!(send("POST", "/apps/X", document(&format!("silent{i}"), 1)).await.0, 204);
    }
    assert_eq!(send("POST", "/apps/X", document("new", 1)).await.0, 429);
    sleep(Duration::from_secs(91)).await;
    for i in 0..5 {
        assert_eq!(send("POST", "/apps/X", document(&format!("new{i}"), 1)).await.0, 204);
    }
    assert_eq!(send("POST", "/apps/X", document("new", 1)).await.0, 429);
    assert_eq!(send("PUT", "/apps/X/silent0", Vec::new()).await.0, 404);
    assert_eq!(log.lines(&["WARN", "silent instances are evicted for new ones"]).len(), 1);
    assert_eq!(send("DELETE", "/apps/X/new0", Vec::new()).await.0, 200);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lines(&["INFO", "silent instances no longer evicted for new ones evicted=5"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn delta_that_drops_deletions_logs_one_warning_at_its_beginning_and_one_line_at_its_end() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let send = sender(EurekaServer::builder().limits(Limits::new().registry_bytes(20_000)));
    let short = || log.lines(&["WARN", "delta drops deletions before their retention time"]).len();
    for round in 0..4 {
        for i in 0..10 {
            let id = format!("{round}-{i}");
            assert_eq!(send("POST", "/apps/X", document(&id, 500)).await.0, 204);
            assert_eq!(send("DELETE", &format!("/apps/X/{id}"), Vec::new()).await.0, 200);
        }
        let (_, delta) = send("GET", "/apps/delta", Vec::new()).await;
        assert!(delta.matches("DELETED").count() < 4, "{delta}");
        assert_eq!(short() > 0, round > 0);
        sleep(Duration::from_secs(34)).await;
    }
    sleep(Duration::from_secs(100)).await;
    assert!(short() <= 3, "at most one a minute");
    assert_eq!(log.lines(&["INFO", "delta shows all deletions again"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn version_years_ahead_is_clamped_with_one_warning_per_minute() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let server = EurekaServer::builder().build().unwrap();
    let router = server.router();
    let send = async |method: &str, path: &str, body: Vec<u8>| {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        router.clone().oneshot(request.body(axum::body::Body::from(body)).unwrap()).await.unwrap().status().as_u16()
    };
    let now = || server.instance("X", "now").unwrap().last_updated_timestamp().unwrap();
    let version = |id| server.instance("X", id).unwrap().last_dirty_timestamp().unwrap();
    assert_eq!(send("POST", "/apps/X", document("now", 1)).await, 204);
    let tomorrow = now() + 24 * 3_600_000;
    assert_eq!(send("POST", "/apps/X", dated("i", "evil", i64::MAX)).await, 204);
    assert_eq!(version("i"), tomorrow);
    assert_eq!(send("PUT", &format!("/apps/X/i?lastDirtyTimestamp={}", i64::MAX), Vec::new()).await, 200);
    let item = json!({
        "appName": "X", "id": "peer", "action": "Register",
        "instanceInfo": serde_json::from_slice::<Value>(&dated("peer", "evil", tomorrow + 1)).unwrap()["instance"]
    });
    let batch = json!({"replicationList": [item]}).to_string().into_bytes();
    assert_eq!(send("POST", "/peerreplication/batch", batch).await, 200);
    assert_eq!(version("peer"), tomorrow);
    let overridden = format!("/apps/X/now/status?value=DOWN&lastDirtyTimestamp={}", i64::MAX);
    assert_eq!(send("PUT", &overridden, Vec::new()).await, 200);
    assert_eq!(version("now"), tomorrow);
    assert_eq!(log.lines(&["WARN", "lastDirtyTimestamp is more than a day in the future"]).len(), 1);
    sleep(Duration::from_secs(120)).await;
    let over = log.lines(&["INFO", "no lastDirtyTimestamp is more than a day in the future any more"]);
    assert_eq!(over.len(), 1, "its count begins again with the next");

    sleep(Duration::from_secs(24 * 3_600 + 1 - 120)).await;
    assert_eq!(send("POST", "/apps/X", dated("i", "victim", tomorrow + 500)).await, 204);
    assert_eq!(server.instance("X", "i").unwrap().host_name(), Some("victim"), "pinned for a day at most");
}
