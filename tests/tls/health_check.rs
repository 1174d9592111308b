//! Health checks of instances at their secure health check URLs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_eureka::Instance;
use tower_eureka::balance::{Cause, EndpointState};
use tower_eureka::client::{CallOptions, HttpClient};
use tower_eureka::model::InstanceBuilder;

use crate::world::{World, echo, serve, server, until};

type Client = HttpClient<Full<Bytes>>;

fn checking(world: &World) -> Client {
    world.eureka.http_client_with(CallOptions::new().health_check(Duration::from_millis(100)))
}

fn at(id: &str, port: u16, checked: &str) -> InstanceBuilder {
    let builder = Instance::builder("orders").id(id).host_name("localhost").ip_addr("127.0.0.1").secure_port(port);
    builder.secure_health_check_url(checked)
}

async fn call(client: &Client) -> String {
    let response = client.clone().oneshot(Request::get("http://orders/").body(Full::default()).unwrap()).await.unwrap();
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Returns the ids of the instances that a health check ejected.
fn unhealthy(client: &Client) -> Vec<String> {
    let snapshots = client.snapshots();
    let endpoints = snapshots.iter().flat_map(|snapshot| snapshot.endpoints());
    let out = endpoints.filter(|e| e.state() == EndpointState::Ejected && e.cause() == Some(Cause::HealthCheck));
    out.map(|endpoint| endpoint.id().to_owned()).collect()
}

#[tokio::test]
async fn instance_with_a_secure_port_is_checked_at_its_secure_url() {
    let world = World::new().await;
    let is_healthy = Arc::new(AtomicBool::new(false));
    let reported = is_healthy.clone();
    let health = get(
        async move || if reported.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
    );
    let sick = serve(server(world.ca.identity(&["localhost"])), echo("sick").route("/health", health)).await;
    let well = serve(server(world.ca.identity(&["localhost"])), echo("well")).await;
    // The plain health check URL always reports a healthy instance.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_url = format!("http://{}/health", plain.local_addr().unwrap());
    let router = Router::new().route("/health", get(|| async {}));
    tokio::spawn(async move { axum::serve(plain, router).await });
    let secure_url = |port: u16| format!("https://localhost:{port}/health");
    world.enter(at("sick", sick, &secure_url(sick)).health_check_url(plain_url)).await;
    world.enter(at("well", well, &secure_url(well))).await;

    let client = checking(&world);
    call(&client).await;
    until(|| unhealthy(&client) == ["sick"]).await;
    for _ in 0..20 {
        assert!(call(&client).await.starts_with("well "));
    }
    is_healthy.store(true, Ordering::Relaxed);
    until(|| unhealthy(&client).is_empty()).await;
    while !call(&client).await.starts_with("sick ") {}
}

#[tokio::test]
async fn health_url_with_a_certificate_for_another_name_ejects_the_instance() {
    let world = World::new().await;
    let port = serve(server(world.ca.identity(&["localhost"])), echo("a")).await;
    let wrong = serve(server(world.ca.identity(&["other.test"])), echo("health")).await;
    for (id, checked) in [("well", port), ("doubtful", wrong)] {
        world.enter(at(id, port, &format!("https://localhost:{checked}/health"))).await;
    }
    let client = checking(&world);
    call(&client).await;
    until(|| unhealthy(&client) == ["doubtful"]).await;
}

#[tokio::test]
async fn instance_that_speaks_http2_alone_is_checked_over_http2() {
    let world = World::new().await;
    let mut config = server(world.ca.identity(&["localhost"]));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let checks = Arc::new(AtomicBool::new(false));
    let seen = checks.clone();
    let health = get(async move || seen.store(true, Ordering::Relaxed));
    let port = serve(config, echo("a").route("/health", health)).await;
    world.enter(at("a", port, &format!("https://localhost:{port}/health"))).await;
    let client = checking(&world);
    let request = Request::post("http://orders/").version(http::Version::HTTP_2).body(Full::default()).unwrap();
    client.clone().oneshot(request).await.unwrap();
    until(|| checks.load(Ordering::Relaxed)).await;
    assert!(unhealthy(&client).is_empty());
}
