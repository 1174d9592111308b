//! A tonic server under `Registrar::serve`, called by a generated client by name.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

use std::time::Duration;

use axum::Router;
use http::Uri;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower_eureka::{Eureka, EurekaServer, Instance};

#[tokio::test]
async fn a_tonic_server_registers_serves_and_leaves() {
    let registry = EurekaServer::builder().build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/eureka/", listener.local_addr().unwrap());
    let router = Router::new().nest("/eureka", registry.router());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let eureka = Eureka::builder().service_url(url).fetch_interval(Duration::from_millis(50)).build().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let instance = Instance::builder("inventory").id("grpc-1").ip_addr("127.0.0.1").port(port).build().unwrap();
    let registrar = eureka.registrar(instance).quiet_time(Duration::from_millis(50));
    let (stop, stopped) = oneshot::channel::<()>();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().layer(registrar.layer()).add_service(health);
    let serving = tokio::spawn(registrar.serve(async { drop(stopped.await) }, |shutdown| {
        server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown)
    }));

    let mut client = HealthClient::with_origin(eureka.http_client(), Uri::from_static("http://inventory"));
    for _ in 0..10 {
        let answer = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let unknown = HealthCheckRequest { service: "nobody".into() };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), tonic::Code::NotFound);

    let tag = |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("caller", "test".parse().unwrap());
        Ok(request)
    };
    let tagged = InterceptedService::new(eureka.http_client(), tag);
    let mut intercepted = HealthClient::with_origin(tagged, Uri::from_static("http://inventory"));
    intercepted.check(HealthCheckRequest::default()).await.unwrap();

    drop(stop);
    serving.await.unwrap().unwrap();
    assert!(registry.instance("inventory", "grpc-1").is_none());
}

#[tokio::test]
async fn a_tonic_server_that_cannot_bind_registers_nothing() {
    let registry = EurekaServer::builder().build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener.local_addr().unwrap();
    let router = Router::new().nest("/eureka", registry.router());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let eureka = Eureka::builder().service_url(format!("http://{taken}/eureka/")).build().unwrap();
    let registrar = eureka.registrar(Instance::builder("inventory").port(taken.port()).build().unwrap());
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().layer(registrar.layer()).add_service(health);
    let served = registrar.serve(std::future::pending(), |shutdown| server.serve_with_shutdown(taken, shutdown)).await;
    assert!(served.is_err());
    assert!(registry.applications().is_empty());
}
