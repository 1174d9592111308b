//! The standalone registry.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tower_eureka::EurekaServer;
use tower_eureka::server::Listener;
use tracing_subscriber::EnvFilter;

/// Requests in flight get this long after the signal; connections that are merely open get nothing.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Eureka, in one small binary.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a registry server under /eureka/ until SIGTERM or Ctrl-C.
    Serve(Serve),
}

#[derive(Args, Debug)]
struct Serve {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8761")]
    listen: SocketAddr,

    /// Whether evictions stop while too few heartbeats come.
    #[arg(long = "eureka.server.enable-self-preservation", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    enable_self_preservation: bool,

    /// Milliseconds between two runs that remove expired leases.
    #[arg(long = "eureka.server.eviction-interval-timer-in-ms", value_name = "MS", default_value_t = 60_000)]
    eviction_interval_timer_in_ms: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { command: Command::Serve(serve) } = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match serve.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&*error);
            ExitCode::FAILURE
        }
    }
}

impl Serve {
    async fn run(self) -> Result<(), Box<dyn std::error::Error>> {
        // First of all, so that a signal is never met unprepared.
        let stop = stop_signal()?;
        let registry = EurekaServer::builder()
            .self_preservation(self.enable_self_preservation)
            .eviction_interval(Duration::from_millis(self.eviction_interval_timer_in_ms))
            .build()?;
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|error| format!("listen on {}: {error}; choose another with --listen", self.listen))?;
        announce(listener.local_addr()?);

        let app = registry.service("/eureka");
        let stopping = async {
            stop.await;
            tracing::info!("stopping");
        };
        Listener::new(listener).shutdown_timeout(SHUTDOWN_LIMIT).serve(app, stopping).await;
        Ok(())
    }
}

/// Completes at the first SIGTERM or Ctrl-C.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes at the first Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot listen for Ctrl-C");
            std::future::pending::<()>().await;
        }
    })
}

#[allow(clippy::print_stdout, reason = "the one line that scripts wait for")]
fn announce(address: SocketAddr) {
    println!("listening on http://{address}/eureka/");
}

#[allow(clippy::print_stderr, reason = "must be seen whatever the log filter says")]
fn fail(error: &dyn std::error::Error) {
    eprintln!("tower-eureka: {error}");
}
