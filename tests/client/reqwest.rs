//! Calls by name through reqwest.

use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::routing::{any, get};
use http::{HeaderMap, Method, Response, StatusCode};
use tokio::time::Instant;
use tower::{BoxError, service_fn};
use tower_eureka::balance::{Ejection, EndpointState};
use tower_eureka::client::{CallOptions, Deadline, PickedInstance};
use tower_eureka::reqwest::Client;
use tower_eureka::{Error, Instance};

use crate::common::{Memory, at, listen};

/// Starts an instance that describes each request.
async fn describing(id: &str) -> Instance {
    let (listener, port) = listen().await;
    let describe = async |method: Method, RawQuery(query): RawQuery, headers: HeaderMap, body: String| {
        let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned();
        let query = query.unwrap_or_default();
        format!("{method} ?{query} {} {} {body}", value("content-type"), value("authorization"))
    };
    let router = Router::new()
        .route("/slow", get(async || tokio::time::sleep(Duration::from_secs(60)).await))
        .fallback(any(describe));
    tokio::spawn(async move { axum::serve(listener, router).await });
    at(id, port)
}

fn client(instances: impl IntoIterator<Item = Instance>) -> Client {
    let eureka = Memory::of(instances).serve().client().build().unwrap();
    Client::with_options(&eureka, reqwest::Client::new(), CallOptions::new())
}

async fn text(response: reqwest::Response) -> String {
    response.error_for_status().unwrap().text().await.unwrap()
}

#[tokio::test]
async fn request_builder_sends_by_name() {
    let client = client([describing("a").await]);
    for (request, expected) in [
        (client.get("http://orders/v1"), "GET ? - - "),
        (client.get("lb://ORDERS/v1?a=b").query(&[("c", "d")]), "GET ?a=b&c=d - - "),
        (client.post("http://orders").json(&[1, 2]), "POST ? application/json - [1,2]"),
        (client.put("http://orders").body("text"), "PUT ? - - text"),
        (client.patch("http://orders").form(&[("a", "b")]), "PATCH ? application/x-www-form-urlencoded - a=b"),
        (client.delete("http://orders").bearer_auth("t"), "DELETE ? - Bearer t "),
        (client.request(Method::OPTIONS, "http://orders").basic_auth("u", Some("p")), "OPTIONS ? - Basic dTpw "),
        (client.get(reqwest::Url::parse("http://orders").unwrap()).header("content-type", "x"), "GET ? x - "),
        (client.get("http://orders").map(|request| request.header("authorization", "y")), "GET ? - y "),
    ] {
        let response = request.timeout(Duration::from_secs(10)).send().await.unwrap();
        let picked = response.extensions().get::<PickedInstance>().unwrap();
        assert_eq!((picked.id(), picked.attempt()), ("a", 1));
        assert_eq!(text(response).await, expected);
    }
    assert_eq!(client.head("http://orders").send().await.unwrap().status(), StatusCode::OK);
    let built = client.get("http://orders/v1").build().unwrap();
    assert_eq!(text(client.execute(built).await.unwrap()).await, "GET ? - - ");
    let snapshots = client.snapshots();
    assert_eq!((snapshots.len(), snapshots[0].name()), (1, Some("ORDERS")));
    assert_eq!(client.choose("orders", &()).await.unwrap().id(), "a");
}

#[tokio::test]
async fn invalid_request_is_an_error_without_its_url() {
    let client = client([]);
    for request in [client.get("orders/secret"), client.get("http://orders/secret").header("a b", "c")] {
        let error = request.send().await.unwrap_err();
        assert!(error.is_config() && !error.to_string().contains("secret"), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    assert!(client.get("ftp://orders/").send().await.unwrap_err().is_config());
}

#[tokio::test]
async fn limits_of_a_request_are_those_of_its_call() {
    let instance = describing("a").await;
    let client = client([instance]);
    let start = Instant::now();
    let within = Deadline::within(Duration::from_millis(100));
    for request in [
        client.get("http://orders/slow").timeout(Duration::from_millis(100)),
        client.get("http://orders/slow").deadline(within),
        client.get("http://orders/slow").deadline(within).timeout(Duration::from_secs(60)),
    ] {
        let error = request.send().await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.http_status(), StatusCode::GATEWAY_TIMEOUT);
    }
    let error = client.get("http://nobody/").wait_for_ready(Duration::ZERO).send().await.unwrap_err();
    assert!(error.is_no_endpoints(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn timeout_of_the_wrapped_client_is_a_timeout_and_no_failure_of_the_instance() {
    let memory = Memory::of([describing("a").await, describing("b").await]);
    let eureka = memory.serve().client().build().unwrap();
    let limited = reqwest::Client::builder().timeout(Duration::from_millis(200)).build().unwrap();
    let options = CallOptions::new().ejection(Ejection::new().consecutive_failures(1));
    let client = Client::with_options(&eureka, limited, options);
    for _ in 0..10 {
        client.get("http://orders/v1").send().await.unwrap();
    }
    let error = client.get("http://orders/slow?token=secret").send().await.unwrap_err();
    assert!(error.is_timeout() && error.http_status() == StatusCode::GATEWAY_TIMEOUT, "{error}");
    assert!(error.to_string().contains("ORDERS") && !format!("{error:?}").contains("secret"), "{error:?}");
    let snapshot = client.snapshots().remove(0);
    assert_eq!(snapshot.count(EndpointState::Available), 2, "{snapshot}");
}

#[tokio::test]
async fn error_of_a_call_contains_no_url() {
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = Instance::builder("orders").id("dead").ip_addr("127.0.0.1").port(refusing).build().unwrap();
    let client = client([dead]);
    let url = format!("http://127.0.0.1:{refusing}/?token=secret");
    let fallback = service_fn(move |_: reqwest::Request| reqwest::Client::new().get(&url).send());
    let get = |client: &Client| client.get("http://orders/?token=secret").wait_for_ready(Duration::ZERO).send();
    for client in [client.clone(), client.fallback(fallback).fallback_on(Error::is_unavailable)] {
        let error = get(&client).await.unwrap_err();
        assert!(error.is_unavailable() && !format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn fallback_receives_and_returns_types_of_reqwest() {
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = Instance::builder("orders").id("dead").ip_addr("127.0.0.1").port(refusing).build().unwrap();
    let fallback = service_fn(async |request: reqwest::Request| {
        let body = format!("{} {}", request.method(), request.url());
        Ok::<_, BoxError>(reqwest::Response::from(Response::new(body)))
    });
    let client = client([dead]).fallback(fallback).fallback_on(Error::is_unavailable);
    for url in ["http://orders/v1", "http://nobody/v1"] {
        let response = client.post(url).json("x").wait_for_ready(Duration::from_millis(100)).send().await.unwrap();
        assert!(response.extensions().get::<PickedInstance>().is_none());
        assert_eq!(text(response).await, format!("POST {url}"));
    }
}
