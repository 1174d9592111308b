//! A gRPC server that registers itself and leaves cleanly: `PORT=9090 cargo run --example
//! grpc_server -- inventory`.
//!
//! It serves the standard health service, which `grpc_client` calls. Reads
//! `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` and `EUREKA_INSTANCE_*` as a Spring application does. At
//! SIGTERM or Ctrl-C it registers as DOWN, drains, ends its streams and deletes its registration.
#![allow(clippy::print_stdout, reason = "a command-line example prints to stdout")]

use std::io::IsTerminal;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower_eureka::{Eureka, Instance, shutdown_signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
    let app_name = std::env::args().nth(1).ok_or("usage: grpc_server APPLICATION")?;
    let port: u16 = std::env::var("PORT").map_or(Ok(0), |port| port.parse())?;

    let eureka = Eureka::from_env()?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let port = listener.local_addr()?.port();
    let instance = Instance::builder(app_name.as_str()).port(port).from_env()?.build()?;
    println!("{} listening on port {port}", instance.id());
    let registrar = eureka.registrar(instance);

    let (mut reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status(&app_name, ServingStatus::Serving).await;
    let server = Server::builder().layer(registrar.layer()).add_service(health);
    let serve = |stop| {
        let stop_and_end_streams = async move {
            let () = stop.await;
            // The server ends with its last stream, and a watch never ends by itself.
            for service in [&app_name, ""] {
                reporter.clear_service_status(service).await;
            }
        };
        server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop_and_end_streams)
    };
    registrar.serve(shutdown_signal(), serve).await?;
    println!("stopped");
    Ok(())
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
