//! The standalone registry.

mod address;
mod arguments;
mod descriptors;
mod filter;
mod log;
mod memory;
mod signals;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tower_eureka::EurekaServer;

use self::address::{Address, address};
use self::arguments::{Given, properties, split};
use self::signals::{Received, Signals};

/// Uses again what other threads freed, so that the memory of a registry under change stays what it was.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Requests in flight get this long after the signal; connections that are merely open get nothing.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Peers get this long to take what is queued for them: at the signal, and once more at the end.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// Exit code after a stop at which a peer did not take everything.
const NOT_HANDED_OVER: u8 = 3;

/// Variable with the format of the log.
const LOG_FORMAT: &str = "TOWER_EUREKA_LOG_FORMAT";

/// Eureka, in one small binary.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a registry server under /eureka/ until SIGTERM, SIGHUP, SIGQUIT or Ctrl-C.
    Serve(Serve),
}

#[derive(Args, Debug)]
struct Serve {
    /// Address to listen on: HOST:PORT, [IPV6]:PORT, or PORT alone for all interfaces. Port 0 takes a
    /// free one.
    ///
    /// It wins over --server.port and --server.address, and these win over the variables
    /// SERVER_PORT and SERVER_ADDRESS. A port without an address means all interfaces, IPv6 and
    /// IPv4; 0.0.0.0:PORT means those of IPv4.
    /// [default: 127.0.0.1:8761]
    #[arg(long)]
    listen: Option<Address>,

    /// Format of the log on stderr.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, ignore_case = true, env = LOG_FORMAT)]
    log_format: log::Format,
}

fn main() -> ExitCode {
    // First, while there is one thread.
    let memory = memory::return_freed();
    let arguments: Result<Vec<_>, _> = std::env::args_os().map(|argument| argument.into_string()).collect();
    let Ok(arguments) = arguments else { return fail("an argument is no Unicode text") };
    let (own, given) = match split(arguments) {
        Ok(arguments) => arguments,
        Err(text) => return fail(text),
    };
    let command = Cli::command().mut_subcommand("serve", |serve| {
        // An empty variable counts as unset, as of the other settings.
        let is_blank = std::env::var(LOG_FORMAT).is_ok_and(|format| format.trim().is_empty());
        let serve = if is_blank { serve.mut_arg("log_format", |format| format.env(Resettable::Reset)) } else { serve };
        serve.after_long_help(properties())
    });
    let matches = command.get_matches_from(own);
    let Cli { command: Command::Serve(serve) } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let filter = match filter::filter() {
        Ok(filter) => filter,
        Err(error) => return fail(error),
    };
    // Dropped last, which waits for its lines.
    let log = match log::start(serve.log_format, filter) {
        Ok(log) => log,
        Err(error) => return fail(format_args!("cannot start the log: {error}")),
    };
    if let Err(kept) = memory {
        kept.log();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log.fail(format_args!("cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(serve.run(&given));
    // A look-up of a name that hangs is not waited for.
    runtime.shutdown_background();
    match ended {
        Ok(Ended::HandedOver) => ExitCode::SUCCESS,
        Ok(Ended::NotHandedOver) => NOT_HANDED_OVER.into(),
        Ok(Ended::At(signal)) => signal.exit_code().into(),
        Err(error) => {
            log.fail(error);
            ExitCode::FAILURE
        }
    }
}

/// End of a server that had started.
#[derive(Debug)]
enum Ended {
    HandedOver,
    /// A peer did not take everything.
    NotHandedOver,
    /// A second signal came before everything was handed over.
    At(Received),
}

impl Serve {
    async fn run(self, given: &[Given]) -> Result<Ended, Box<dyn std::error::Error>> {
        // First of all, so that a signal is never met unprepared.
        let mut signals = Signals::listen()?;
        let is_listener = |given: &&Given| given.is("server.port") || given.is("server.address");
        let settings = given.iter().filter(|given| !is_listener(given));
        let settings = settings.map(|Given { name, value }| (name.as_str(), value.as_str()));
        let builder = EurekaServer::builder().from_env_standalone(settings)?;
        let address = address(self.listen.as_ref(), given)?;
        let descriptors = descriptors::raise();
        // The look-up of a host name may take long.
        let bound = tokio::select! {
            bound = address.bind() => bound,
            signal = signals.first() => {
                tracing::info!(signal = signal.name, "stopped before it listened");
                return Ok(Ended::HandedOver);
            }
        };
        let listener =
            bound.map_err(|error| format!("cannot listen on {address}: {error}; choose another with --listen"))?;
        let local = listener.local_addr()?;
        let registry = builder.own_port(local.port()).build()?;
        announce(local);
        let (open, registry_bytes) = (registry.is_open(), registry.registry_size_limit());
        tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %local, open, registry_bytes, "started");

        let app = registry.service("/eureka").with_probes();
        let listener = registry.listener(listener).shutdown_timeout(SHUTDOWN_LIMIT);
        let listener = match descriptors {
            Some(limit) => listener.descriptors(limit.try_into().unwrap_or(usize::MAX)),
            None => listener,
        };
        let (signalled, mut at_signal) = tokio::sync::watch::channel(());
        let mut stopping = at_signal.clone();
        let serving = async {
            // The channel closes when the signal has come.
            let stopping = async { while stopping.changed().await.is_ok() {} };
            // The node leaves its peers while requests in flight go on.
            let leaving = async {
                while at_signal.changed().await.is_ok() {}
                registry.leave(HAND_OVER_LIMIT).await;
            };
            tokio::join!(listener.serve(app, stopping), leaving);
            // Those requests may have left something for the peers.
            registry.leave(HAND_OVER_LIMIT).await
        };
        let interrupted = async {
            let signal = signals.first().await.name;
            tracing::info!(signal, "stopping");
            drop(signalled);
            signals.second().await
        };
        tokio::select! {
            handed_over = serving => {
                if handed_over {
                    return Ok(Ended::HandedOver);
                }
                tracing::warn!("not every peer took what was queued for it");
                Ok(Ended::NotHandedOver)
            }
            signal = interrupted => {
                tracing::warn!(signal = signal.name, "stopped at once by a second signal, peers may lack the last changes");
                Ok(Ended::At(signal))
            }
        }
    }
}

/// Prints the one line that scripts wait for. A thread of its own does it, which nothing waits for:
/// a pipe may be full, and nobody has to read it.
fn announce(address: SocketAddr) {
    let print = move || {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "listening on http://{address}/eureka/").and_then(|()| stdout.flush());
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write to stdout");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("stdout".into()).spawn(print) {
        tracing::warn!(%error, "cannot start the thread that writes to stdout");
    }
}

/// Prints an error of a process whose log has not started.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    // There is no other place to report that stderr is broken.
    let _ = writeln!(io::stderr(), "tower-eureka: {error}");
    ExitCode::FAILURE
}
