//! An axum server that registers itself and leaves cleanly:
//!
//! ```sh
//! SPRING_APPLICATION_NAME=orders cargo run --example axum_provider --features axum,files
//! ```
//!
//! Needs a registry at `http://localhost:8761/eureka/`, or at
//! `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE`.
//! Reads the environment and the `application.properties` of a Spring application, for example
//! `SPRING_APPLICATION_NAME` and `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE`. At SIGTERM or Ctrl-C it
//! registers as DOWN, drains and deletes its registration. Until then it also serves
//! `/actuator/health` and `/actuator/info`.

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_eureka::{Eureka, Instance, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::load()?;
    let app = Router::new().route("/", get(|| async { "hello\n" }));
    let listener = TcpListener::bind(settings.listen_address()?).await?;

    let (eureka, instance) = (Eureka::from_settings(&settings)?, Instance::from_settings(&settings)?);
    tower_eureka::axum::serve_registered(&eureka, instance, listener, app).await?;
    Ok(())
}
