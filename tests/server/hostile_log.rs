//! External values in the log: none forges a line, reaches the terminal or is long.

use axum::body::Body;
use http::Request;

use crate::common::{ORDER_1, ORDERS, Server, document, request};
use crate::log::Log;

/// Line break, forged line, escape codes of one and two bytes, line separator and a bidirectional
/// override.
const EVIL: &str =
    "X\r\n2099-01-01T00:00:00.000000Z  INFO FORGED \u{1b}[31m\u{9b}31m\u{85}\u{2028}\u{202e}\u{2066}\u{200b}\u{7}";

/// Returns the same text as a part of JSON.
fn json() -> String {
    let text = serde_json::to_string(EVIL).unwrap();
    text.trim_matches('"').to_owned()
}

/// Returns the same text as a part of a path.
fn path() -> String {
    EVIL.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// Asserts that each line is a line of this process, short and without control characters. Returns
/// the number of lines.
fn check(log: &Log, least: usize) {
    let text = log.text();
    let lines: Vec<&str> = text.split_terminator('\n').collect();
    assert!(lines.len() >= least, "{lines:?}");
    for line in lines {
        assert!(!line.starts_with("2099") && line.contains("Z "), "{line:?}");
        let is_harmful = |c: char| c.is_control() || matches!(c, '\u{200b}' | '\u{2028}' | '\u{202e}' | '\u{2066}');
        assert!(!line.contains(is_harmful), "{line:?}");
        assert!(line.len() < 1_500, "{} bytes: {line:?}", line.len());
    }
}

#[tokio::test(start_paused = true)]
async fn request_with_hostile_values_leaves_short_lines_without_control_characters() {
    let (log, _guard) = Log::start(tracing::Level::TRACE);
    let server = Server::with_order().await;
    let (long, huge) = ("ü".repeat(20_000), "x".repeat(200_000));
    for value in [json(), long, huge] {
        let instance = document(&value, "UP", 100);
        let named = instance.replace("ORDERS", &value);
        for body in [
            instance.clone(),
            named.clone(),
            instance.replace("\"h\"", &format!("\"{value}\"")).replace("10.0.0.1", &value),
            instance.replace("\"UP\"", &format!("\"{value}\"")),
            instance.replace("MyOwn", &value),
            format!("{{\"{value}\":[{value}"),
        ] {
            server.post(ORDERS, body).await;
        }
        let inner = &named[r#"{"instance":"#.len()..named.len() - 1];
        for action in ["Register", "Heartbeat", "Cancel", "StatusUpdate", "DeleteStatusOverride", &value] {
            let item = format!(
                r#"{{"appName":"{value}","id":"{value}","action":"{action}","status":"{value}","overriddenStatus":"DOWN",
                "lastDirtyTimestamp":7,"instanceInfo":{inner}}}"#
            );
            let bare = format!(
                r#"{{"appName":"{value}","id":"{value}","action":"{action}","instanceInfo":{{"app":"{value}"}}}}"#
            );
            for item in [item, bare] {
                server.post("/eureka/peerreplication/batch/", format!(r#"{{"replicationList":[{item}]}}"#)).await;
            }
        }
    }
    for part in [path(), "x".repeat(10_000)] {
        let app = format!("/eureka/apps/{part}");
        for path in [format!("{app}/{part}"), format!("{ORDERS}/{part}")] {
            for (method, path) in [
                ("GET", path.clone()),
                ("PUT", path.clone()),
                ("DELETE", path.clone()),
                ("PUT", format!("{path}/status?value={part}")),
                ("PUT", format!("{path}/status?value=UP&lastDirtyTimestamp={part}")),
                ("DELETE", format!("{path}/status?value={part}")),
                ("PUT", format!("{path}/metadata?{part}={part}")),
                ("PATCH", path.clone()),
            ] {
                server.empty(method, &path).await;
            }
        }
        server.empty("PUT", &format!("{ORDER_1}/metadata?{part}={part}")).await;
        server.post(&app, document("1", "UP", 1).replace("ORDERS", &json())).await;
        server.empty("GET", &format!("/eureka/vips/{part}")).await;
        server.empty("GET", &format!("/eureka/apps?regions={part}")).await;
    }
    for header in ["content-type", "content-encoding", "accept", "x-netflix-discovery-replication", "user-agent"] {
        for value in ["a\tb=\u{e9}\u{9b}31m", &"x".repeat(20_000)] {
            let mut request: Request<Body> = request("POST", ORDERS).body(Body::from("{")).unwrap();
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().insert(header, value);
            server.send(request).await;
        }
    }
    check(&log, 20);
}

/// Sends many batches of one change each.
#[tokio::test(start_paused = true)]
async fn batches_are_at_most_100_info_lines_a_second() {
    let server = Server::new();
    let (log, _guard) = Log::start(tracing::Level::INFO);
    for n in 0..300 {
        let instance = document(&format!("i-{n}"), "UP", 1);
        let instance = &instance[r#"{"instance":"#.len()..instance.len() - 1];
        let item = format!(r#"{{"appName":"ORDERS","id":"i-{n}","instanceInfo":{instance},"action":"Register"}}"#);
        server.post("/eureka/peerreplication/batch/", format!(r#"{{"replicationList":[{item}]}}"#)).await;
    }
    assert_eq!(log.lines(&["batch applied"]).len(), 100);
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn peer_with_hostile_responses_leaves_short_lines_without_control_characters() {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::Response;
    use tower::service_fn;
    use tower_eureka::EurekaServer;
    use tower_eureka::server::Peers;

    let list = |value: &str| {
        let instance = document(value, "UP", 100).replace("ORDERS", value);
        let instance = &instance[r#"{"instance":"#.len()..instance.len() - 1];
        format!(
            r#"{{"applications":{{"versions__delta":"1","apps__hashcode":"{value}","application":[
            {{"name":"{value}","instance":[{instance},{{"hostName":"{value}"}},7]}}]}}}}"#
        )
    };
    let huge = "x".repeat(200_000);
    let item = |value: &str| {
        let instance = document(value, "UP", 900).replace("ORDERS", value);
        let instance = &instance[r#"{"instance":"#.len()..instance.len() - 1];
        format!(r#"{{"responseList":[{{"statusCode":409,"responseEntity":{instance}}}]}}"#)
    };
    let responses = [
        (200, "application/json", list(&json())),
        (200, "application/json", list(&huge)),
        (200, "application/json", item(&json())),
        (200, "application/json", format!(r#"{{"responseList":[{{"statusCode":{}}}]}}"#, "9".repeat(10_000))),
        (200, "text/html; \u{9b}\u{e9}", format!("<html>{EVIL}")),
        (200, "application/json", format!("{{{EVIL}")),
        (400, "text/plain", EVIL.to_owned()),
        (404, "text/plain", huge.clone()),
        (302, "text/plain", EVIL.to_owned()),
        (503, "text/plain", EVIL.to_owned()),
    ];
    for (status, content_type, body) in responses {
        let (log, _guard) = Log::start(tracing::Level::TRACE);
        let content_type = http::HeaderValue::from_bytes(content_type.as_bytes()).unwrap();
        let peer = service_fn(move |_: Request<_>| {
            let response = Response::builder().status(status).header("content-type", content_type.clone());
            let location = http::HeaderValue::from_bytes(b"/\x9b31m\xc3\xa9/elsewhere").unwrap();
            let response = response.header("location", location).body(Body::from(body.clone())).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        let peers = Peers::new().url("http://peer/eureka/").http_service(peer).wait_when_empty(Duration::ZERO);
        let server = Server::built(EurekaServer::builder().peers(peers));
        server.post(ORDERS, document("h:orders:1", "UP", 100)).await;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            server.empty("PUT", ORDER_1).await;
        }
        check(&log, 1);
    }
}

#[cfg(feature = "peers")]
#[tokio::test(start_paused = true)]
async fn list_of_peers_with_hostile_urls_leaves_short_lines_without_control_characters() {
    use std::time::Duration;

    use tower_eureka::EurekaServer;
    use tower_eureka::server::Peers;

    for (urls, error) in [(Some(EVIL.to_owned()), ""), (Some(format!("http://{EVIL}/")), ""), (None, EVIL)] {
        let (log, _guard) = Log::start(tracing::Level::TRACE);
        let source = move || {
            let urls = urls.clone().ok_or(error);
            async { urls }
        };
        let server = Server::built(EurekaServer::builder().peers(Peers::new().source(source)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(server);
        check(&log, 1);
    }
}
