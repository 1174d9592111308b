use std::error::Error as StdError;

use hyper_util::client::legacy;
use tower::BoxError;

use crate::balance::{CallerFault, is_callers_fault};
use crate::error::{Error, Kind};
use crate::transport::{is_refused_handshake, root_cause};

/// Why there is no answer.
pub(super) enum Failure {
    /// The request was certainly not received, or not looked at.
    Unsent(BoxError),
    /// It may have been.
    Lost(BoxError),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        let (kind, what, error) = match self {
            Self::Lost(error) if is_callers_fault(&*error) => (Kind::Caller, "the body of the request failed", error),
            Self::Lost(error) if !is_refused_handshake(&*error) => {
                (Kind::Call, "the connection was lost before an answer came", error)
            }
            Self::Unsent(error) | Self::Lost(error) => (Kind::Connect, "cannot connect", error),
        };
        Error::new(kind, "call").cause(format!("{what}: {}", root_cause(&*error))).with_source(error)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        if is_unprocessed(&error) {
            Self::Unsent(error.into())
        } else if h2(&error).is_some_and(|h2| h2.is_reset() && !h2.is_remote() && !h2.is_library()) {
            // That is how hyper ends a stream whose body failed. Why that was so it tells nobody.
            Self::Lost(CallerFault(error.into()).into())
        } else {
            Self::Lost(error.into())
        }
    }
}

impl From<legacy::Error> for Failure {
    fn from(error: legacy::Error) -> Self {
        let is_unsent = error.is_connect()
            || StdError::source(&error).and_then(|source| source.downcast_ref()).is_some_and(is_unprocessed);
        if is_unsent { Self::Unsent(error.into()) } else { Self::Lost(error.into()) }
    }
}

/// Whether the request was left in a queue, or the other side said of its stream that it will not be processed (RFC 9113, 8.7):
/// it was refused, or opened after the connection's end was announced.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let refused = |error: &h2::Error| match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away(),
        _ => false,
    };
    error.is_canceled() || h2(error).is_some_and(|error| error.is_remote() && refused(error))
}

fn h2(error: &hyper::Error) -> Option<&h2::Error> {
    StdError::source(error)?.downcast_ref()
}
