//! Verbs for operators. Each asks a registry over its REST operations, whether of this crate or
//! Java's.
//!
//! ```text
//!  arguments ─ Target (target.rs) ─ Transport ─ fields.rs ─ text.rs (harmless) ─ Output (output.rs)
//! ```

mod apps;
mod diff;
mod drain;
mod failure;
mod fields;
mod health;
mod instance;
mod manual;
mod output;
mod resolve;
mod target;
mod text;
mod watch;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use self::failure::{Cause, Failure, Outcome};

/// Width of the help texts.
pub(crate) const COLUMNS: usize = 80;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists the instances of a registry
    #[command(after_help = apps::HELP)]
    Apps(apps::Apps),
    /// Prints the changes of a registry as they happen
    #[command(after_help = watch::HELP)]
    Watch(watch::Watch),
    /// Overrides the status of an instance, or removes the override
    #[command(after_help = instance::STATUS_HELP)]
    Status(instance::Status),
    /// Prints the metadata of an instance, or adds and replaces entries
    #[command(after_help = instance::METADATA_HELP)]
    Metadata(instance::Metadata),
    /// Removes an instance from the registry
    #[command(after_help = instance::CANCEL_HELP)]
    Cancel(instance::Cancel),
    /// Takes an instance out of service and waits until its callers know
    #[command(after_help = drain::HELP)]
    Drain(drain::Drain),
    /// Compares registry servers of a cluster and prints what they disagree about
    #[command(after_help = diff::HELP)]
    Diff(diff::Diff),
    /// Checks that a registry server is ready, for HEALTHCHECK of a container
    #[command(after_help = health::HELP)]
    Health(health::Health),
    /// Lists the settings of the registry server
    #[command(after_help = manual::SETTINGS_HELP)]
    Settings,
    /// Prints the completion of the arguments for a shell
    #[command(after_help = manual::COMPLETION_HELP)]
    Completion(manual::Completion),
    /// Prints a manual page
    #[command(after_help = manual::MAN_HELP)]
    Man(manual::Man),
}

/// Input that all verbs have in common.
#[derive(Debug)]
pub(crate) struct Context {
    /// Settings among the arguments: `--eureka.client.tls.trust-store=...`.
    settings: Vec<String>,
}

impl Context {
    /// Writes a remark for people to stderr.
    fn note(&self, remark: impl fmt::Display) {
        // An error of stderr cannot be reported anywhere else.
        let _ = writeln!(io::stderr(), "note: {remark}");
    }
}

impl Verb {
    /// Runs the verb. Returns its exit code, or its error, whose text holds no secret.
    pub(crate) fn run(self, settings: Vec<String>) -> Result<ExitCode, (ExitCode, String)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| (ExitCode::FAILURE, format!("cannot start the runtime: {error}")))?;
        let ended = runtime.block_on(self.outcome(&Context { settings }));
        // Does not wait for a DNS lookup that hangs.
        runtime.shutdown_background();
        match ended {
            Ok(outcome) => Ok(outcome.into()),
            Err(failure) if failure.cause == Cause::ReaderGone => Ok(failure.code()),
            Err(failure) => Err((failure.code(), failure.to_string())),
        }
    }

    async fn outcome(self, context: &Context) -> Result<Outcome, Failure> {
        match self {
            Self::Apps(verb) => verb.run(context).await,
            Self::Status(verb) => verb.run(context).await,
            Self::Metadata(verb) => verb.run(context).await,
            Self::Cancel(verb) => verb.run(context).await,
            Self::Watch(verb) => verb.run(context).await,
            Self::Drain(verb) => verb.run(context).await,
            Self::Diff(verb) => verb.run(context).await,
            Self::Health(verb) => verb.run(context).await,
            Self::Settings => manual::settings(),
            Self::Completion(verb) => verb.run(),
            Self::Man(verb) => verb.run(),
        }
    }
}

/// Ends the process with an error of the arguments, or with the help that they ask for. Credentials
/// in URLs are masked.
pub(crate) fn exit(error: clap::Error) -> ! {
    let text = error.to_string();
    let masked = masked(&text);
    if masked != text {
        let _ = write!(io::stderr(), "{masked}");
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Returns the text with the credentials of its URLs masked.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        masked.push_str(before);
        masked.push_str("://");
        let line = after.lines().next().unwrap_or_default();
        // A password may contain an unescaped `@` or blank.
        rest = match line.rfind('@') {
            Some(at) => {
                masked.push_str("***");
                &after[at..]
            }
            None => after,
        };
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn credentials_in_an_error_of_the_arguments_are_masked() {
        for (text, expected) in [
            ("unexpected 'http://u:p@h/' found", "unexpected 'http://***@h/' found"),
            ("a 'http://u:p@ss w@h/'\nhttp://h/@", "a 'http://***@h/'\nhttp://***@"),
            ("http://h:8761/eureka/", "http://h:8761/eureka/"),
            ("no URL", "no URL"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }
}
