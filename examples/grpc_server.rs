//! A gRPC server that registers itself and leaves cleanly: `PORT=9090 cargo run --example
//! grpc_server --features tonic-server -- inventory`.
//!
//! It serves the standard health service, which `grpc_client` calls. Reads
//! `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` and `EUREKA_INSTANCE_*` as a Spring application does. At
//! SIGTERM or Ctrl-C it reports `NOT_SERVING`, registers as DOWN, drains, ends its streams and
//! deletes its registration.
#![allow(clippy::print_stdout, reason = "a command-line example prints to stdout")]

use std::io::IsTerminal;

use tokio::net::TcpListener;
use tower_eureka::tonic::{Services, serve_registered};
use tower_eureka::{Eureka, Instance};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
    let app_name = std::env::args().nth(1).ok_or("usage: grpc_server APPLICATION")?;
    let port: u16 = std::env::var("PORT").map_or(Ok(0), |port| port.parse())?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;

    let instance = Instance::builder(app_name.as_str()).from_env()?;
    // Generated services are added with `add_service`. The health service is always there.
    let services = Services::new().health_of(app_name);
    serve_registered(&Eureka::from_env()?, instance, listener, services).await?;
    println!("stopped");
    Ok(())
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
