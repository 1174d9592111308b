//! The standalone registry.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::net::TcpListener;
use tower_eureka::EurekaServer;
use tower_eureka::config::Property;
use tracing_subscriber::EnvFilter;

/// Requests in flight get this long after the signal; connections that are merely open get nothing.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Peers get this long to take what is queued for them: at the signal, and once more at the end.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// How the arguments begin that a Spring server takes as well.
const PROPERTY_PREFIXES: [&str; 2] = ["--eureka.", "--spring."];

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
}

/// A setting under its Spring name.
struct Given {
    name: String,
    value: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let (own, given) = match split(std::env::args().collect()) {
        Ok(arguments) => arguments,
        Err(text) => return fail(text),
    };
    let command = Cli::command().mut_subcommand("serve", |serve| serve.after_long_help(properties()));
    let matches = command.get_matches_from(own);
    let Cli { command: Command::Serve(serve) } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match serve.run(&given).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// Takes the properties out of the arguments: `--name=value` and `--name value`.
fn split(arguments: Vec<String>) -> Result<(Vec<String>, Vec<Given>), String> {
    let (mut own, mut given) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if !PROPERTY_PREFIXES.iter().any(|prefix| argument.starts_with(prefix)) {
            own.push(argument);
            continue;
        }
        let property = argument.trim_start_matches("--");
        let (name, value) = match property.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let value = arguments.next_if(|next| !next.starts_with("--"));
                (property.to_owned(), value.ok_or_else(|| format!("{argument} needs a value: {argument}=..."))?)
            }
        };
        given.push(Given { name, value });
    }
    Ok((own, given))
}

/// The part of the help that comes from the table of properties.
fn properties() -> String {
    let mut text = String::from(
        "Settings of a Spring Cloud Eureka server. Dashes and case do not matter; each is also an environment variable,\n\
         upper case, with dots as underscores and without dashes: EUREKA_SERVER_ENABLESELFPRESERVATION.\n",
    );
    for property in Property::all() {
        text.push_str(&format!("\n  {property}\n"));
    }
    text
}

impl Serve {
    async fn run(self, given: &[Given]) -> Result<(), Box<dyn std::error::Error>> {
        // First of all, so that a signal is never met unprepared.
        let stop = stop_signal()?;
        let mut builder = EurekaServer::builder().from_env()?;
        for Given { name, value } in given {
            builder = builder.property(name, value)?;
        }
        let listener = TcpListener::bind(self.listen)
            .await
            .map_err(|error| format!("listen on {}: {error}; choose another with --listen", self.listen))?;
        let registry = builder.own_port(listener.local_addr()?.port()).build()?;
        announce(listener.local_addr()?);

        let app = registry.service("/eureka");
        let stopping = async {
            stop.await;
            tracing::info!("stopping");
        };
        let (signalled, mut at_signal) = tokio::sync::watch::channel(());
        let stopping = async move {
            stopping.await;
            drop(signalled);
        };
        // The node leaves its peers while requests in flight go on.
        let leaving = async {
            // The channel closes when the signal has come.
            while at_signal.changed().await.is_ok() {}
            registry.leave(HAND_OVER_LIMIT).await;
        };
        let listener = registry.listener(listener).shutdown_timeout(SHUTDOWN_LIMIT);
        tokio::join!(listener.serve(app, stopping), leaving);
        // Those requests may have left something for the peers.
        if !registry.leave(HAND_OVER_LIMIT).await {
            tracing::warn!("not every peer took what was queued for it");
        }
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
fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("tower-eureka: {error}");
    ExitCode::FAILURE
}
