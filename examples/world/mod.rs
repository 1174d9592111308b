//! Surroundings of the examples: a registry, and instances that respond with their id.
#![allow(dead_code, reason = "each example uses its own part")]

use std::time::Duration;

use axum::{Router, routing};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::BoxError;
use tower_eureka::{Eureka, EurekaServer, Instance};

/// Starts a registry in this process and returns its service URL.
pub(crate) async fn registry() -> Result<String, BoxError> {
    let router = Router::new().nest("/eureka", EurekaServer::builder().build()?.router());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/eureka/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

/// Creates a client that refreshes often enough for an example.
pub(crate) fn eureka(url: &str) -> Result<Eureka, tower_eureka::Error> {
    Eureka::builder().service_url(url).fetch_interval(Duration::from_millis(200)).build()
}

/// Starts an instance that responds with its id at every path until the task is aborted. It stays
/// registered.
pub(crate) async fn instance(eureka: &Eureka, app: &str, id: &'static str) -> Result<JoinHandle<()>, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let instance = Instance::builder(app).id(id).ip_addr("127.0.0.1").port(port).build()?;
    eureka.transport().register(&instance).await?;
    let router = Router::new().fallback(routing::any(move || async move { id }));
    Ok(tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    }))
}
