//! Calls a gRPC application by name: `cargo run --example grpc_client --features tonic -- inventory 20 100`.
//!
//! Any generated client takes the channel; this one is that of the standard health service, as `grpc_server` serves it. It makes
//! unary calls and meanwhile follows a stream, and says at the end how many calls failed.
//!
//! Reads `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE` and `EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS` as a Spring application does.
#![allow(clippy::print_stdout, reason = "a command-line example talks on stdout")]

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

    // A check changes nothing, so it may be made again, whatever became of the first one.
    let retry = RetryPolicy::new().all_methods().grpc_codes([Code::Unavailable as i32]);
    let channel = Eureka::from_env()?.channel_with(app, CallOptions::new().retry(retry));
    let mut client = HealthClient::new(channel);
    let watch = tokio::spawn(follow(client.clone(), app.clone()));

    let mut failed = 0;
    for call in 1..=count {
        let mut request = Request::new(HealthCheckRequest { service: app.clone() });
        request.set_timeout(Duration::from_secs(10));
        match client.check(request).await {
            Ok(answer) => println!("{call}: {:?}", answer.into_inner().status()),
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

/// Follows the application's status; at the end of a stream, which comes with the end of its instance, on another instance.
async fn follow(mut client: Client, service: String) {
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
