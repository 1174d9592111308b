//! Calls an application by name: `cargo run --example consumer -- orders whoami 20 100`.
//!
//! Reads `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` and `EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS` as
//! a Spring application does. Prints one line per call with the response of the instance, and the
//! number of failed calls at the end.
#![allow(clippy::print_stdout, reason = "a command-line example prints to stdout")]

use std::io::IsTerminal;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::{BoxError, ServiceExt};
use tower_eureka::Eureka;
use tower_eureka::client::{CallOptions, HttpClient};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    log_to_stderr();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [app, path, count, pause @ ..] = &args[..] else {
        return Err("usage: consumer APPLICATION PATH COUNT [PAUSE_MS]".into());
    };
    let count: u32 = count.parse()?;
    let pause = Duration::from_millis(pause.first().map_or(Ok(0), |pause| pause.parse())?);

    // Wait for an application whose instances are all restarting.
    let options = CallOptions::new().wait_for_ready(Duration::from_secs(20));
    let client = Eureka::from_env()?.http_client_with(options);
    let uri = format!("http://{app}/{}", path.trim_start_matches('/'));
    let mut failed = 0;
    for call in 1..=count {
        match tokio::time::timeout(Duration::from_secs(30), get(&client, &uri)).await {
            Ok(Ok(response)) => println!("{call}: {response}"),
            Ok(Err(error)) => {
                failed += 1;
                println!("{call}: failed: {error}");
            }
            Err(_) => {
                failed += 1;
                println!("{call}: failed: no response within 30 s");
            }
        }
        tokio::time::sleep(pause).await;
    }
    println!("calls: {count}, failed: {failed}");
    Ok(())
}

async fn get(client: &HttpClient<Empty<Bytes>>, uri: &str) -> Result<String, BoxError> {
    let response = client.clone().oneshot(Request::get(uri).body(Empty::new())?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}").into()) }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
