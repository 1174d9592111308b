//! Calls a gRPC application by name: `cargo run --example grpc_client --features tonic -- inventory
//! 20 100`.
//!
//! The channel works with any generated client. This example calls the standard health service of
//! `grpc_server`: unary calls, and a stream at the same time. It prints the number of failed calls
//! at the end.
//!
//! Reads `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` and `EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS` as
//! a Spring application does.
#![allow(clippy::print_stdout, reason = "a command-line example prints to stdout")]

use std::io::IsTerminal;
use std::time::Duration;

use tokio::time::sleep;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_eureka::Eureka;
use tower_eureka::client::{CallOptions, RetryPolicy};
use tower_eureka::tonic::Channel;

type Client = HealthClient<Channel>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [app, count, pause @ ..] = &args[..] else {
        return Err("usage: grpc_client APPLICATION COUNT [PAUSE_MS]".into());
    };
    let count: u32 = count.parse()?;
    let pause = Duration::from_millis(pause.first().map_or(Ok(0), |pause| pause.parse())?);

    // A health check changes nothing, so it can be retried after any failure.
    let retry = RetryPolicy::new().all_methods().grpc_codes([Code::Unavailable as i32]);
    let channel = Eureka::from_env()?.channel_with(app, CallOptions::new().retry(retry));
    let mut client = HealthClient::new(channel);
    let watch = tokio::spawn(watch_status(client.clone(), app.clone()));

    let mut failed = 0;
    for call in 1..=count {
        let mut request = Request::new(HealthCheckRequest { service: app.clone() });
        request.set_timeout(Duration::from_secs(10));
        match client.check(request).await {
            Ok(response) => println!("{call}: {:?}", response.into_inner().status()),
            Err(status) => {
                failed += 1;
                println!("{call}: failed: {:?}: {}", status.code(), status.message());
            }
        }
        sleep(pause).await;
    }
    watch.abort();
    println!("calls: {count}, failed: {failed}");
    Ok(())
}

/// Watches the application's status. When an instance stops, its stream ends, and a new one is
/// opened to another instance.
async fn watch_status(mut client: Client, service: String) {
    loop {
        match client.watch(HealthCheckRequest { service: service.clone() }).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Ok(Some(update)) = stream.message().await {
                    println!("watch: {:?}", update.status());
                }
                println!("watch: the stream has ended");
            }
            Err(status) => println!("watch: failed: {:?}: {}", status.code(), status.message()),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
