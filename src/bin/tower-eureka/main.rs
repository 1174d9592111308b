//! The standalone registry.

mod address;
mod arguments;
mod log;
mod signals;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::net::TcpListener;
use tower_eureka::EurekaServer;
use tracing_subscriber::EnvFilter;

use self::address::{Address, address};
use self::arguments::{Given, properties, split};
use self::signals::stop_signal;

/// Uses again what other threads freed, so that the memory of a registry under change stays what it was.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Requests in flight get this long after the signal; connections that are merely open get nothing.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Peers get this long to take what is queued for them: at the signal, and once more at the end.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

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
    /// Address to listen on: HOST:PORT, [IPV6]:PORT, or PORT alone for all IPv4 interfaces. Port 0
    /// takes a free one.
    ///
    /// It wins over --server.port and --server.address, and these win over the variables
    /// SERVER_PORT and SERVER_ADDRESS. A port without an address means all IPv4 interfaces.
    /// [default: 127.0.0.1:8761]
    #[arg(long)]
    listen: Option<Address>,

    /// Format of the log on stderr.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, env = "TOWER_EUREKA_LOG_FORMAT")]
    log_format: log::Format,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Result<Vec<_>, _> = std::env::args_os().map(|argument| argument.into_string()).collect();
    let Ok(arguments) = arguments else { return fail("an argument is no Unicode text") };
    let (own, given) = match split(arguments) {
        Ok(arguments) => arguments,
        Err(text) => return fail(text),
    };
    let command = Cli::command().mut_subcommand("serve", |serve| serve.after_long_help(properties()));
    let matches = command.get_matches_from(own);
    let Cli { command: Command::Serve(serve) } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Dropped last, which waits for its lines.
    let log = match log::start(serve.log_format, filter) {
        Ok(log) => log,
        Err(error) => return fail(format_args!("cannot start the log: {error}")),
    };
    match serve.run(&given).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.fail(error);
            ExitCode::FAILURE
        }
    }
}

impl Serve {
    async fn run(self, given: &[Given]) -> Result<(), Box<dyn std::error::Error>> {
        // First of all, so that a signal is never met unprepared.
        let stop = stop_signal()?;
        let mut builder = EurekaServer::builder().from_env()?;
        for Given { name, value } in
            given.iter().filter(|given| !given.is("server.port") && !given.is("server.address"))
        {
            builder = builder.property(name, value)?;
        }
        let address = address(self.listen.as_ref(), given)?;
        let listener = TcpListener::bind((&*address.host, address.port))
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}; choose another with --listen"))?;
        let local = listener.local_addr()?;
        let registry = builder.own_port(local.port()).build()?;
        announce(local);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %local, open = registry.is_open(), "started");

        let app = registry.service("/eureka").with_probes();
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

#[allow(clippy::print_stdout, reason = "the one line that scripts wait for")]
fn announce(address: SocketAddr) {
    println!("listening on http://{address}/eureka/");
}

/// Ends the process before the log has started.
#[allow(clippy::print_stderr, reason = "must be seen whatever the log filter says")]
fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("tower-eureka: {error}");
    ExitCode::FAILURE
}
