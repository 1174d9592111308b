//! Standalone registry server, and verbs for those who operate one.

mod address;
mod arguments;
mod descriptors;
mod filter;
mod log;
mod memory;
mod signals;
mod verbs;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tower_eureka::server::Property;
use tower_eureka::{EurekaServer, Settings};

use self::address::{Address, address};
use self::arguments::{properties, split};
use self::signals::{Received, Signals};
use self::verbs::Verb;

/// Reuses memory that other threads freed, so that the memory of a registry does not grow under
/// changes.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Maximum time for requests in flight after the signal.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Maximum time to send queued changes to the peers: at the signal, and again after the last
/// request.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// Exit code if a peer did not receive all queued changes.
const NOT_HANDED_OVER: u8 = 3;

/// Variable with the format of the log.
const LOG_FORMAT: &str = "TOWER_EUREKA_LOG_FORMAT";

/// Eureka registry server in one small binary, with commands for its operators.
#[derive(Debug, Parser)]
#[command(version, max_term_width = verbs::COLUMNS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a registry server under /eureka/ until SIGTERM, SIGHUP, SIGQUIT or Ctrl-C.
    Serve(Serve),
    /// Prints the settings in force, each with its source, and checks them as `serve` does. Secrets
    /// are masked.
    Config(Log),
    #[command(flatten)]
    Verb(Verb),
}

#[derive(Args, Debug)]
struct Serve {
    /// Address to listen on: HOST:PORT, [IPV6]:PORT, or PORT alone for all interfaces. Port 0
    /// selects a free port.
    ///
    /// It takes precedence over --server.port and --server.address, and these over the variables
    /// SERVER_PORT and SERVER_ADDRESS. A port without an address means all interfaces, IPv6 and
    /// IPv4. 0.0.0.0:PORT means all IPv4 interfaces.
    /// [default: 127.0.0.1:8761]
    #[arg(long)]
    listen: Option<Address>,

    #[command(flatten)]
    log: Log,
}

#[derive(Args, Debug)]
struct Log {
    /// Format of the log on stderr.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, ignore_case = true, env = LOG_FORMAT)]
    log_format: log::Format,
}

fn main() -> ExitCode {
    // Must run before the first thread is spawned.
    let memory = memory::return_freed();
    let arguments: Result<Vec<_>, _> = std::env::args_os().map(|argument| argument.into_string()).collect();
    let Ok(arguments) = arguments else { return fail("an argument is no Unicode text") };
    let (own, given) = match split(arguments) {
        Ok(arguments) => arguments,
        Err(text) => return fail(text),
    };
    let help = properties();
    // An empty variable counts as unset, like those of the other settings.
    let is_blank = std::env::var(LOG_FORMAT).is_ok_and(|format| format.trim().is_empty());
    let command = ["serve", "config"].into_iter().fold(Cli::command(), |command, name| {
        command.mut_subcommand(name, |command| {
            let reset = |command: clap::Command| command.mut_arg("log_format", |format| format.env(Resettable::Reset));
            let command = if is_blank { reset(command) } else { command };
            // The list of the settings has its own lines.
            command.after_long_help(help.clone()).term_width(0)
        })
    });
    let matches = command.try_get_matches_from(own).unwrap_or_else(|error| verbs::exit(error));
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let (log_format, level) = match &command {
        Command::Serve(Serve { log: Log { log_format }, .. }) | Command::Config(Log { log_format }) => {
            (*log_format, "info")
        }
        Command::Verb(_) => (log::Format::Text, "warn"),
    };
    let filter = match filter::filter(level) {
        Ok(filter) => filter,
        Err(error) => return fail(error),
    };
    // Dropped last: the drop waits until all lines are written.
    let log = match log::start(log_format, filter) {
        Ok(log) => log,
        Err(error) => return fail(format_args!("cannot start the log: {error}")),
    };
    let serve = match command {
        Command::Serve(serve) => serve,
        Command::Verb(verb) => {
            return verb.run(given).unwrap_or_else(|(code, error)| {
                log.fail(error);
                code
            });
        }
        Command::Config(_) => {
            return config(&given).map_or_else(
                |error| {
                    log.fail(error);
                    ExitCode::FAILURE
                },
                |()| ExitCode::SUCCESS,
            );
        }
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
    // Does not wait for a DNS lookup that hangs.
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

/// Reason why a running server ended.
#[derive(Debug)]
enum Ended {
    /// A signal. All queued changes were sent to the peers.
    HandedOver,
    /// A signal. A peer did not receive all queued changes.
    NotHandedOver,
    /// A second signal, before all queued changes were sent.
    At(Received),
}

impl Serve {
    async fn run(self, arguments: &[String]) -> Result<Ended, Box<dyn std::error::Error>> {
        // First of all, so that no signal has its default action.
        let mut signals = Signals::listen()?;
        let settings = Settings::builder().arguments(arguments).load()?;
        let builder = EurekaServer::builder().from_settings_standalone(&settings)?;
        let address = address(self.listen.as_ref(), &settings)?;
        let descriptors = descriptors::raise();
        // The lookup of a host name may take long.
        let bound = tokio::select! {
            bound = address.bind() => bound,
            signal = signals.first() => {
                tracing::info!(signal = signal.name, "stopped before listening");
                return Ok(Ended::HandedOver);
            }
        };
        let listener =
            bound.map_err(|error| format!("cannot listen on {address}: {error}; choose another with --listen"))?;
        let local = listener.local_addr()?;
        let registry = builder.port(local.port()).build()?;
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
            // The channel closes when the signal arrives.
            let stopping = async { while stopping.changed().await.is_ok() {} };
            // The node leaves the cluster while requests in flight continue.
            let leaving = async {
                while at_signal.changed().await.is_ok() {}
                registry.leave(HAND_OVER_LIMIT).await;
            };
            tokio::join!(listener.serve(app, stopping), leaving);
            // These requests may have queued further changes.
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
                tracing::warn!("not all queued changes were sent to the peers");
                Ok(Ended::NotHandedOver)
            }
            signal = interrupted => {
                tracing::warn!(signal = signal.name, "stopped immediately by a second signal, peers may lack the last changes");
                Ok(Ended::At(signal))
            }
        }
    }
}

/// Prints the settings in force: those of the sources, then the defaults. Fails if `serve` would
/// not start with them.
fn config(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::builder().arguments(arguments).load()?;
    let mut text = format!("{settings:?}\n");
    for property in Property::all().iter().filter(|property| settings.source(property.name()).is_none()) {
        if !property.default_text().is_empty() && !property.name().contains('<') {
            text.push_str(&format!("{} = {} (default)\n", property.name(), property.default_text()));
        }
    }
    // An error of stdout is that of a reader which closed it.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    let builder = EurekaServer::builder().from_settings_standalone(&settings)?;
    let Address { port, .. } = address(None, &settings)?;
    // The listener replaces the port 0. Which port it has does not matter for the check.
    Ok(builder.port(port.max(1)).check()?)
}

/// Prints the line that scripts wait for. It runs on a thread of its own, since a write to a full
/// pipe that nobody reads blocks for ever.
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

/// Prints an error before the log is started.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    // An error of stderr cannot be reported anywhere else.
    let _ = writeln!(io::stderr(), "tower-eureka: {error}");
    ExitCode::FAILURE
}
