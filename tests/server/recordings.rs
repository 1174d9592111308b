//! Replays what a Spring client and a Spring server were recorded to say to a Spring server, and
//! expects the same answers.
//!
//! The registry also changed in ways that the recordings do not hold, on the other node or by an
//! operator's hand. The tests apply those changes where the next recorded answer shows them.

use std::io::Read;

use axum::Router;
use axum::body::Body;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_eureka::EurekaServer;

const CLIENT: &str = include_str!("../fixtures/recordings/spring-client.txt");
const PEER: &str = include_str!("../fixtures/recordings/spring-peer.txt");

const ORDER: &str = "192.0.2.2:orders:7002";
const NODE_1: &str = "192.0.2.2:8781";
const NODE_2: &str = "192.0.2.2:8782";

/// One exchange of a recording.
#[derive(Debug)]
struct Exchange {
    method: String,
    path: String,
    headers: HeaderMap,
    body: String,
    status: u16,
    answer_headers: HeaderMap,
    answer: String,
}

fn exchanges(recording: &str) -> Vec<Exchange> {
    recording.split(">>> ").skip(1).map(exchange).collect()
}

/// ```text
/// METHOD PATH            (after the mark)
/// headers
///
/// body
/// <<< STATUS
/// headers
///
/// body
/// ```
fn exchange(text: &str) -> Exchange {
    let (request, answer) = text.split_once("\n<<< ").expect("an answer");
    let (line, request) = request.split_once('\n').expect("a request line");
    let (method, path) = line.split_once(' ').expect("method and path");
    let (status, answer) = answer.split_once('\n').expect("a status line");
    let (headers, body) = message(request);
    let (answer_headers, answer) = message(answer);
    let (method, path, status) = (method.into(), path.into(), status.parse().expect("a status"));
    Exchange { method, path, headers, body, status, answer_headers, answer }
}

fn message(text: &str) -> (HeaderMap, String) {
    let (headers, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let headers = headers.lines().filter_map(|line| line.split_once(": ")).map(|(name, value)| {
        (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    });
    (headers.collect(), body.trim().into())
}

impl Exchange {
    fn is_delta(&self) -> bool {
        self.path.ends_with("/delta")
    }

    /// The instance as the recorded answer shows it.
    fn instance(&self, id: &str) -> Value {
        let answer: Value = serde_json::from_str(&self.answer).expect("JSON");
        let applications = answer["applications"]["application"].as_array().expect("a list");
        let mut instances = applications.iter().flat_map(|a| a["instance"].as_array().expect("a list"));
        instances.find(|instance| instance["instanceId"] == id).expect("listed").clone()
    }
}

struct Replay {
    router: Router,
}

impl Replay {
    fn new() -> Self {
        let registry = EurekaServer::builder().build().unwrap();
        Self { router: Router::new().nest("/eureka", registry.router()) }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let mut body = body.collect().await.unwrap().to_bytes().to_vec();
        if parts.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip") {
            let zipped = std::mem::take(&mut body);
            flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut body).unwrap();
        }
        (parts.status, parts.headers, body)
    }

    /// A change that came by another way than the recorded one.
    async fn unrecorded(&self, method: &str, path: &str, body: Option<Value>) {
        let request = Request::builder().method(method).uri(format!("/eureka/apps/{path}"));
        let request =
            request.header(CONTENT_TYPE, "application/json").header("x-netflix-discovery-replication", "true");
        let body = body.map_or_else(Body::empty, |instance| json!({ "instance": instance }).to_string().into());
        let (status, ..) = self.send(request.body(body).unwrap()).await;
        assert!(status.is_success(), "{method} {path}: {status}");
    }

    async fn registered(&self, instance: Value) {
        let app = instance["app"].as_str().expect("a name").to_owned();
        self.unrecorded("POST", &app, Some(instance)).await;
    }

    /// Sends a recorded request and expects what was answered.
    async fn replay(&self, number: usize, recorded: &Exchange) {
        let what = format!("exchange {number}: {} {}", recorded.method, recorded.path);
        let mut request = Request::builder().method(&*recorded.method).uri(&recorded.path);
        *request.headers_mut().expect("a good request line") = recorded.headers.clone();
        let (status, headers, body) = self.send(request.body(recorded.body.clone().into()).unwrap()).await;
        assert_eq!(status.as_u16(), recorded.status, "{what}");
        for name in [CONTENT_TYPE, CONTENT_ENCODING] {
            assert_eq!(headers.get(&name), recorded.answer_headers.get(&name), "{what}: {name}");
        }
        if recorded.answer.is_empty() {
            assert!(body.is_empty(), "{what}");
            if recorded.answer_headers.contains_key(CONTENT_LENGTH) {
                assert_eq!(headers[CONTENT_LENGTH], "0", "{what}");
            }
            return;
        }
        let [mut ours, mut theirs] =
            [&body[..], recorded.answer.as_bytes()].map(|text| serde_json::from_slice::<Value>(text).expect("JSON"));
        normalise(&mut ours);
        normalise(&mut theirs);
        assert_eq!(ours, theirs, "{what}");
    }
}

/// Takes out what depends on the server's clock, on its own registration and on what it answered to
/// others. Of a time it stays whether there is one.
fn normalise(value: &mut Value) {
    const TIMES: [&str; 5] = [
        "registrationTimestamp",
        "lastRenewalTimestamp",
        "evictionTimestamp",
        "serviceUpTimestamp",
        "lastUpdatedTimestamp",
    ];
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match name.as_str() {
                    "versions__delta" => *value = json!("n"),
                    "isCoordinatingDiscoveryServer" => *value = json!("false"),
                    name if TIMES.contains(&name) => {
                        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        let (time, is_text): (i64, bool) = (text.parse().expect("a number"), value.is_string());
                        *value = json!([is_text, time != 0]);
                    }
                    _ => normalise(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

#[tokio::test]
async fn a_spring_clients_life() {
    let (replay, recorded) = (Replay::new(), exchanges(CLIENT));
    assert_eq!(recorded.len(), 24);
    for (number, exchange) in recorded.iter().enumerate() {
        match number {
            // The server had registered itself.
            0 => replay.registered(exchange.instance(NODE_1)).await,
            // An operator takes the instance out of service,
            10 => replay.unrecorded("PUT", &format!("ORDERS/{ORDER}/status?value=OUT_OF_SERVICE"), None).await,
            // and back again; the other node registers itself.
            14 => {
                replay.unrecorded("DELETE", &format!("ORDERS/{ORDER}/status?value=UP"), None).await;
                replay.registered(exchange.instance(NODE_2)).await;
            }
            // The server copies the other node's registry, which started later and holds the same.
            16 => {
                for id in [NODE_1, NODE_2, ORDER] {
                    replay.registered(exchange.instance(id)).await;
                }
            }
            // An operator adds metadata, which the client's next registration takes away.
            18 => replay.unrecorded("PUT", &format!("ORDERS/{ORDER}/metadata?canary=true"), None).await,
            _ => {}
        }
        replay.replay(number, exchange).await;
    }
    assert_eq!(recorded.iter().filter(|exchange| exchange.is_delta()).count(), 10, "each compared entry by entry");
}

#[tokio::test]
async fn what_a_spring_node_tells_its_peer() {
    let (replay, recorded) = (Replay::new(), exchanges(PEER));
    assert_eq!(recorded.len(), 25);
    let deltas: Vec<_> = recorded.iter().filter(|exchange| exchange.is_delta()).collect();
    assert_eq!(deltas.len(), 7);
    for (number, exchange) in recorded.iter().enumerate() {
        // The peer copies the registry of the node that speaks here.
        if number == 14 {
            for id in [NODE_1, ORDER] {
                replay.registered(deltas[4].instance(id)).await;
            }
        }
        replay.replay(number, exchange).await;
    }
}
