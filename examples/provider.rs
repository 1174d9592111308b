//! An HTTP server that registers itself and leaves cleanly: `PORT=8080 cargo run --example provider
//! -- orders`.
//!
//! Reads `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` and `EUREKA_INSTANCE_*` as a Spring application
//! does. At SIGTERM or Ctrl-C it registers as DOWN, drains and deletes its registration.
#![allow(clippy::print_stdout, reason = "a command-line example prints to stdout")]

use std::io::IsTerminal;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_eureka::{Eureka, Instance, shutdown_signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
    let app_name = std::env::args().nth(1).ok_or("usage: provider APPLICATION")?;
    let port: u16 = std::env::var("PORT").map_or(Ok(0), |port| port.parse())?;

    let eureka = Eureka::from_env()?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let instance = Instance::builder(app_name).port(listener.local_addr()?.port()).from_env()?.build()?;
    println!("{} listening on {}", instance.id(), instance.home_page_url().unwrap_or_default());
    let registrar = eureka.registrar(instance.clone());
    let app = Router::new()
        .route("/", get(|| async { "hello\n" }))
        .route("/whoami", get(|| async move { instance.id().to_owned() }))
        .layer(registrar.layer());
    registrar.serve(shutdown_signal(), |stop| axum::serve(listener, app).with_graceful_shutdown(stop)).await?;
    println!("stopped");
    Ok(())
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
