//! What `docs/quirks.md` decides and no other test happens to hold, and that the tests named there
//! exist.

use std::fs;
use std::path::Path;

use axum::body::Body;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{Request, StatusCode};
use tower_eureka::model::InstanceStatus;

use crate::common::{ORDER_1, ORDERS, Server, document, request, text};

#[tokio::test]
async fn a_status_in_lower_case_is_one() {
    let server = Server::new();
    assert_eq!(server.post(ORDERS, document("h:orders:1", "up", 100)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(server.order().status(), InstanceStatus::Up);
    assert_eq!(server.empty("PUT", ORDER_1).await.status(), StatusCode::OK);
    server.post(ORDERS, document("h:orders:1", "gone", 200)).await;
    assert_eq!(server.order().status(), InstanceStatus::Unknown);
    assert_eq!(server.empty("PUT", ORDER_1).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_status_of_a_heartbeat_is_not_read() {
    let server = Server::with_order().await;
    for word in ["DOWN", "OUT_OF_SERVICE", "NONSENSE", ""] {
        let beat = format!("{ORDER_1}?status={word}&lastDirtyTimestamp=100");
        assert_eq!(server.empty("PUT", &beat).await.status(), StatusCode::OK, "{word}");
        assert_eq!(server.order().status(), InstanceStatus::Up, "{word}");
    }
}

#[tokio::test]
async fn a_status_that_is_there_already_is_no_override() {
    let server = Server::with_order().await;
    assert_eq!(server.empty("PUT", &format!("{ORDER_1}/status?value=UP")).await.status(), StatusCode::OK);
    assert_eq!(server.order().overridden_status(), InstanceStatus::Unknown);
    server.post(ORDERS, document("h:orders:1", "DOWN", 200)).await;
    assert_eq!(server.order().status(), InstanceStatus::Down);
}

#[tokio::test]
async fn unknown_is_no_override() {
    let server = Server::with_order().await;
    let path = format!("{ORDER_1}/status?value=UNKNOWN");
    let answer = server.refuses(StatusCode::BAD_REQUEST, request("PUT", &path).body(Body::empty()).unwrap()).await;
    assert!(answer.contains("not an override"), "{answer}");
    let replicated = request("PUT", &path).header("x-netflix-discovery-replication", "true").body(Body::empty());
    assert_eq!(
        server.send(replicated.unwrap()).await.status(),
        StatusCode::OK,
        "a status that a peer accepted is accepted"
    );
}

#[tokio::test]
async fn registration_as_out_of_service_keeps_that_status_until_it_is_cancelled() {
    let server = Server::new();
    server.post(ORDERS, document("h:orders:1", "OUT_OF_SERVICE", 1_000)).await;
    server.post(ORDERS, document("h:orders:1", "UP", 2_000)).await;
    let beat = format!("{ORDER_1}?status=UP&lastDirtyTimestamp=2000");
    assert_eq!(server.empty("PUT", &beat).await.status(), StatusCode::OK);
    let stuck = |order: tower_eureka::Instance| (order.status(), order.overridden_status());
    let expected = (InstanceStatus::OutOfService, InstanceStatus::Unknown);
    assert_eq!(stuck(server.order()), expected);
    // There is no override that could be deleted.
    assert_eq!(server.empty("DELETE", &format!("{ORDER_1}/status?value=UP")).await.status(), StatusCode::OK);
    assert_eq!(stuck(server.order()), expected);
    // What ends it: DOWN or STARTING in between, an override, or a cancellation.
    server.post(ORDERS, document("h:orders:1", "STARTING", 3_000)).await;
    server.post(ORDERS, document("h:orders:1", "UP", 4_000)).await;
    assert_eq!(server.order().status(), InstanceStatus::Up);
    server.post(ORDERS, document("h:orders:1", "OUT_OF_SERVICE", 5_000)).await;
    assert_eq!(server.order().status(), InstanceStatus::Up, "the other way round it is as stuck");
    server.empty("DELETE", ORDER_1).await;
    server.post(ORDERS, document("h:orders:1", "OUT_OF_SERVICE", 5_000)).await;
    assert_eq!(server.order().status(), InstanceStatus::OutOfService);
}

#[tokio::test]
async fn registration_as_starting_that_arrives_after_up_with_one_version_stays() {
    let server = Server::new();
    server.post(ORDERS, document("h:orders:1", "UP", 1_000)).await;
    server.post(ORDERS, document("h:orders:1", "STARTING", 1_000)).await;
    let beat = format!("{ORDER_1}?status=UP&lastDirtyTimestamp=1000");
    assert_eq!(server.empty("PUT", &beat).await.status(), StatusCode::OK);
    assert_eq!(server.order().status(), InstanceStatus::Starting);
    server.post(ORDERS, document("h:orders:1", "UP", 1_001)).await;
    assert_eq!(server.order().status(), InstanceStatus::Up, "the next version ends it");
}

#[tokio::test]
async fn an_instance_without_an_application_spoils_no_batch() {
    let server = Server::with_order().await;
    let nameless = document("h:orders:2", "UP", 7).replacen(r#""app":"#, r#""other":"#, 1);
    let nameless = &nameless[r#"{"instance":"#.len()..nameless.len() - 1];
    let items = format!(
        r#"{{"appName":"ORDERS","id":"h:orders:2","instanceInfo":{nameless},"action":"Register"}},
           {{"appName":"ORDERS","id":"h:orders:1","action":"Cancel"}}"#
    );
    let batch = format!(r#"{{"replicationList":[{items}]}}"#);
    let response = server.post("/eureka/peerreplication/batch/", batch).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(server.registry.instance("ORDERS", "h:orders:2").is_none());
    assert!(server.registry.instance("ORDERS", "h:orders:1").is_none(), "the rest of the batch counts");
}

#[tokio::test]
async fn an_instance_whose_text_is_not_json_spoils_no_batch() {
    let server = Server::with_order().await;
    for (number, invalid) in [r#""x":"\ud800""#, "\"x\":\"a\nb\"", r#""x":1e400"#].into_iter().enumerate() {
        let id = format!("h:orders:{}", 2 + number);
        let broken = document(&id, "UP", 7).replacen(r#""app":"#, &format!(r#"{invalid},"app":"#), 1);
        let broken = &broken[r#"{"instance":"#.len()..broken.len() - 1];
        let batch = format!(
            r#"{{"replicationList":[{{"appName":"ORDERS","id":"{id}","instanceInfo":{broken},"action":"Register"}}]}}"#
        );
        assert_eq!(server.post("/eureka/peerreplication/batch/", batch).await.status(), StatusCode::OK, "{invalid}");
        assert!(server.registry.instance("ORDERS", &id).is_some(), "{invalid}");
    }
}

#[tokio::test]
async fn no_name_stands_for_the_registry() {
    let server = Server::with_order().await;
    for name in ["ALL_APPS", "all_apps", "ALL_APPS_DELTA"] {
        assert_eq!(
            server.empty("GET", &format!("/eureka/apps/{name}")).await.status(),
            StatusCode::NOT_FOUND,
            "{name}"
        );
    }
    let delta = document("i", "UP", 1).replace("ORDERS", "DELTA");
    let refused = request("POST", "/eureka/apps/delta").body(delta.clone().into()).unwrap();
    server.refuses(StatusCode::METHOD_NOT_ALLOWED, refused).await;
    assert_eq!(
        server.post("/eureka/apps/DELTA", delta).await.status(),
        StatusCode::NO_CONTENT,
        "upper case is no address"
    );
}

#[tokio::test]
async fn refusals_are_labelled_as_what_they_are() {
    let server = Server::with_order().await;
    for (kind, body, label) in [
        ("application/json", "{", "application/json"),
        ("application/json; charset=UTF-8", "{", "application/json"),
        ("application/json", r#"{"instance":{"app":"ORDERS"}}"#, "text/plain; charset=utf-8"),
    ] {
        let refused = Request::post(ORDERS).header(CONTENT_TYPE, kind).body(body.into()).unwrap();
        let response = server.send(refused).await;
        assert_eq!(
            (response.status(), &response.headers()[CONTENT_TYPE]),
            (StatusCode::BAD_REQUEST, &label.parse().unwrap())
        );
        assert_eq!(text(response).await.starts_with('{'), label == "application/json");
    }
}

#[tokio::test]
async fn nobody_is_forced_to_gzip() {
    let server = Server::with_order().await;
    for path in ["/eureka/v2/apps", "/eureka/v2/apps/delta", "/eureka/v2/apps/ORDERS"] {
        let identity = request("GET", path).header(ACCEPT_ENCODING, "identity").body(Body::empty()).unwrap();
        for response in [server.send(identity).await, server.empty("GET", path).await] {
            assert_eq!((response.status(), response.headers().get(CONTENT_ENCODING)), (StatusCode::OK, None), "{path}");
        }
    }
}

#[tokio::test]
async fn nothing_behind_a_data_centre_is_lost() {
    let plain =
        r#""dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"}"#;
    for data_center in [
        r#""dataCenterInfo":{"@class":"com.netflix.appinfo.AmazonInfo","name":"Amazon"}"#,
        r#""dataCenterInfo":{"@class":"com.netflix.appinfo.AmazonInfo","metadata":{"ami-id":"a"},"name":"Amazon"}"#,
        r#""dataCenterInfo":{"name":"MyOwn","metadata":{"a":"b"}}"#,
        r#""dataCenterInfo":{"@class":"example.Unknown","name":"Netflix"}"#,
    ] {
        let server = Server::new();
        let body = document("h:orders:1", "UP", 1).replace(plain, &format!(r#"{data_center},"asgName":"behind""#));
        assert_eq!(server.post(ORDERS, body).await.status(), StatusCode::NO_CONTENT, "{data_center}");
        assert_eq!(server.order().asg_name(), Some("behind"), "{data_center}");
    }
}

/// All Rust files below a folder, one behind the other.
fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.extension() {
            _ if path.is_dir() => sources(&path),
            Some(extension) if extension == "rs" => fs::read_to_string(&path).unwrap(),
            _ => String::new(),
        })
        .collect()
}

#[test]
fn every_row_of_the_table_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = sources(&root.join("tests")) + &sources(&root.join("src"));
    let table = fs::read_to_string(root.join("docs/quirks.md")).unwrap();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    for row in &rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, decision, _, tests] = cells[..] else { panic!("not five cells: {row}") };
        let known = ["kept", "fixed", "kept, by choice", "fixed, by choice", "not applicable", "peers"];
        assert!(known.contains(&decision), "row {number}: {decision}");
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || matches!(decision, "not applicable" | "peers"), "row {number} names no test");
        for name in names {
            let function = name.rsplit("::").next().unwrap();
            assert!(code.contains(&format!("fn {function}(")), "row {number} names {name}, which does not exist");
        }
    }
    let numbers = |prefix: char, last: usize| (1..=last).map(move |n| format!("| {prefix}{n} |"));
    for number in numbers('P', 52).chain(numbers('S', 24)) {
        assert_eq!(rows.iter().filter(|row| row.starts_with(&number)).count(), 1, "{number}");
    }
}
