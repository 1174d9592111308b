//! Generated gRPC clients over TLS.

use axum::Router;
use http::{Request, Version};
use tonic::Code;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::util::MapRequestLayer;

use crate::world::{World, serve, server};

/// Returns a gRPC health service that accepts HTTP/2 only.
fn health() -> Router {
    let (_, service) = tonic_health::server::health_reporter();
    let checked = MapRequestLayer::new(|request: Request<axum::body::Body>| {
        assert_eq!(request.version(), Version::HTTP_2);
        request
    });
    Routes::new(service).into_axum_router().layer(checked)
}

#[tokio::test]
async fn channel_to_a_secure_port_uses_http2_over_tls() {
    let world = World::new().await;
    let port = serve(server(world.ca.identity(&["localhost"])), health()).await;
    world.register("a", "localhost", port).await;
    let mut client = HealthClient::new(world.eureka.channel("orders"));
    let response = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(response.status(), ServingStatus::Serving);
    let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn certificate_for_another_name_returns_unavailable_with_the_reason() {
    let world = World::new().await;
    let wrong = serve(server(world.ca.identity(&["other.test"])), health()).await;
    world.register("wrong", "localhost", wrong).await;
    let mut client = HealthClient::new(world.eureka.channel("orders"));
    let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    for part in ["ORDERS (wrong)", "no TLS with localhost: its certificate is for another name", "other.test"] {
        assert!(status.message().contains(part), "{part} in {status}");
    }

    let right = serve(server(world.ca.identity(&["localhost"])), health()).await;
    world.register("right", "localhost", right).await;
    for _ in 0..20 {
        client.check(HealthCheckRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_server_without_http2_is_unavailable_and_says_so() {
    let world = World::new().await;
    let mut config = server(world.ca.identity(&["localhost"]));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    world.register("old", "localhost", serve(config, health()).await).await;
    let mut client = HealthClient::new(world.eureka.channel("orders"));
    let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("does not speak the HTTP version"), "{status}");
}
