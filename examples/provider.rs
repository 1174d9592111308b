//! An HTTP server that registers itself and leaves cleanly, configured as a Spring application:
//! `cargo run --example provider --features files`, in the directory of an `application.yml`.
//!
//! Arguments such as `--server.port=8080` and environment variables such as `SERVER_PORT` override
//! the file. A word alone is the name of the application, unless the settings have one. At SIGTERM
//! or Ctrl-C it registers as DOWN, drains and deletes its registration.
#![allow(clippy::print_stdout, reason = "a command-line example prints to stdout")]

use std::io::IsTerminal;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_eureka::{Eureka, Instance, Settings, shutdown_signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
    let settings = settings()?;
    let eureka = Eureka::from_settings(&settings)?;
    let listener = TcpListener::bind(settings.listen_address()?).await?;
    let instance = Instance::from_settings(&settings)?.listener(&listener)?.build()?;
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

/// Reads arguments, environment and files.
fn settings() -> Result<Settings, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut settings = Settings::builder().arguments(&arguments).default_property("server.port", "0");
    if let Some(name) = arguments.iter().find(|argument| !argument.starts_with("--")) {
        settings = settings.default_property("spring.application.name", name);
    }
    Ok(settings.load()?)
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
