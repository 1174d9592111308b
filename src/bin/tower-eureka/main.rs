//! Standalone registry server, and verbs for those who operate one.

mod address;
mod arguments;
mod descriptors;
mod filter;
#[path = "../../invisible.rs"]
mod invisible;
mod log;
mod memory;
mod serve;
mod signals;
mod supervisor;
mod verbs;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tower_eureka::server::Property;
use tower_eureka::{EurekaServer, Settings};

use self::arguments::split;
use self::serve::{Ended, LISTEN, Serve};
use self::verbs::Verb;

/// Reuses memory that other threads freed, so that the memory of a registry does not grow under
/// changes.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// Runs a registry server under /eureka/ until SIGTERM, SIGQUIT or Ctrl-C.
    #[command(after_help = arguments::SERVE_HELP)]
    Serve(Serve),
    /// Prints the settings in force, each with its source, and checks them as `serve` does. Secrets
    /// are masked.
    #[command(after_help = arguments::CONFIG_HELP)]
    Config(Log),
    #[command(flatten)]
    Verb(Verb),
}

#[derive(Args, Debug)]
struct Log {
    /// Format of the log on stderr: text, or json with an object per line
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, ignore_case = true, hide_possible_values = true, env = LOG_FORMAT)]
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
    // An empty variable counts as unset, like those of the other settings.
    let blank =
        |(variable, argument)| std::env::var(variable).is_ok_and(|value| value.trim().is_empty()).then_some(argument);
    let blank = [(LOG_FORMAT, "log_format"), (LISTEN, "listen")].map(blank);
    let command = ["serve", "config"].into_iter().fold(Cli::command(), |command, name| {
        command.mut_subcommand(name, |command| {
            let reset = |argument: clap::Arg| {
                let is_blank = blank.contains(&Some(argument.get_id().as_str()));
                if is_blank { argument.env(Resettable::Reset) } else { argument }
            };
            command.mut_args(reset)
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
    let addresses = address::addresses(None, &settings)?;
    // The listener replaces the port 0. Which port it has does not matter for the check.
    Ok(builder.port(addresses.traffic.port.max(1)).check()?)
}

/// Prints an error before the log is started.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    // An error of stderr cannot be reported anywhere else.
    let _ = writeln!(io::stderr(), "tower-eureka: {error}");
    ExitCode::FAILURE
}
