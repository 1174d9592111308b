//! An axum server that registers itself and leaves cleanly: `cargo run --example axum_provider
//! --features axum`.
//!
//! Reads the variables of a Spring application, such as `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE`. At
//! SIGTERM or Ctrl-C it registers as DOWN, drains and deletes its registration. Meanwhile it serves
//! `/actuator/health` and `/actuator/info`.

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_eureka::{Eureka, Instance};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = Router::new().route("/", get(|| async { "hello\n" }));
    let listener = TcpListener::bind("0.0.0.0:0").await?;

    let instance = Instance::builder("orders").from_env()?;
    tower_eureka::axum::serve_registered(&Eureka::from_env()?, instance, listener, app).await?;
    Ok(())
}
