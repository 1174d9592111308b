//! Results of the verbs and their exit codes.

use std::fmt;
use std::io;
use std::process::ExitCode;

use tower_eureka::{Error, ErrorKind};

/// Result of a verb that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The result is negative: nodes differ, or a server is not healthy.
    Negative,
    /// The user interrupted it.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Negative => Self::from(1),
            Outcome::Interrupted => Self::from(130),
        }
    }
}

/// Reason why a verb failed, by exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An argument, a setting or a file is wrong. clap exits with the same code.
    Usage = 2,
    /// No server responded, or none with a usable response.
    Unreachable = 3,
    /// The registry does not have the application or instance.
    NotFound = 4,
    /// The registry refused the request.
    Refused = 5,
    /// The output cannot be written.
    Output = 6,
    /// The reader of the output closed it, and wants no more.
    ReaderGone = 0,
}

/// Error of a verb: its exit code and its message, which holds no secret.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    text: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, text: impl fmt::Display) -> Self {
        Self { cause, text: text.to_string() }
    }

    pub(crate) fn usage(text: impl fmt::Display) -> Self {
        Self::new(Cause::Usage, text)
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.cause as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let cause = match error.kind() {
            ErrorKind::Config => Cause::Usage,
            // Without an instance, the service URL is wrong.
            ErrorKind::Status(404) if error.instance_id().is_some() => Cause::NotFound,
            ErrorKind::Status(404 | 408 | 429 | 500..) => Cause::Unreachable,
            ErrorKind::Status(_) => Cause::Refused,
            _ => Cause::Unreachable,
        };
        let advice = match error.status() {
            Some(401 | 403) => " (here: --credentials FILE, or the variable TOWER_EUREKA_CREDENTIALS)",
            _ => "",
        };
        Self::new(cause, format_args!("cannot {error}{advice}"))
    }
}

/// Output that cannot be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let is_gone = error.kind() == io::ErrorKind::BrokenPipe;
        let cause = if is_gone { Cause::ReaderGone } else { Cause::Output };
        Self::new(cause, format_args!("cannot write to stdout: {error}"))
    }
}
