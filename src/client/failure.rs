use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use hyper_util::client::legacy;
use tower::BoxError;

use crate::balance::{CallerFault, is_callers_fault, is_overload, is_unprocessed};
use crate::connect::{is_rejected_handshake, root_cause};
use crate::error::{Error, Kind, chain, h2_error};

/// Reason why a send got no response.
pub(super) enum Failure {
    /// No connection was established, so nothing was received.
    Unsent(BoxError),
    /// The server stated that it did not process the request, or its connection ended before it
    /// took the request.
    Unprocessed(BoxError),
    /// The request may have been received.
    Lost(BoxError),
    /// The request may have been received, and the instance left the registry. Contains the grace
    /// time.
    Left(Duration),
}

/// Error of a call that found no free stream or connection within this time.
#[derive(Debug)]
struct Full {
    in_use: &'static str,
    waited: Duration,
}

impl Failure {
    /// Failure of a call that waited this long for a stream.
    pub(super) fn full(waited: Duration) -> Self {
        Self::Unprocessed(Full { in_use: "streams of its connections", waited }.into())
    }

    /// Failure of a call that waited this long for one of a limited number of connections.
    pub(super) fn no_connection(waited: Duration) -> Self {
        Self::Unprocessed(Full { in_use: "connections that the options allow", waited }.into())
    }

    /// Returns `true` if the HTTP/2 server requires HTTP/1.1.
    pub(super) fn requires_http1(&self) -> bool {
        let (Self::Lost(error) | Self::Unprocessed(error)) = self else { return false };
        h2_error(&**error)
            .is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::HTTP_1_1_REQUIRED))
    }

    /// Returns the failure of a request that the server did not process, and that another send may
    /// complete.
    pub(super) fn into_unprocessed(self) -> Self {
        match self {
            Self::Lost(error) => Self::Unprocessed(error),
            other => other,
        }
    }

    pub(super) fn into_error(self) -> Error {
        let (kind, what, error) = match self {
            Self::Left(grace) => {
                let cause = format!("the instance left the registry and did not respond within {grace:?} after that");
                return Error::new(Kind::Call, "call").cause(cause);
            }
            Self::Lost(error) if is_callers_fault(&*error) => (Kind::Caller, "the body of the request failed", error),
            Self::Lost(error) if !is_rejected_handshake(&*error) => {
                (Kind::Call, "the connection was lost before the response", error)
            }
            Self::Unprocessed(error) => (Kind::Unprocessed, "the instance did not process the request", error),
            Self::Unsent(error) | Self::Lost(error) => (Kind::Connect, "cannot connect", error),
        };
        let reason = h2_error(&*error).map_or_else(|| root_cause(&*error), describe);
        Error::new(kind, "call").cause(format!("{what}: {reason}")).with_source(error)
    }
}

/// Returns `true` if the instance has no free stream or connection, or sent `ENHANCE_YOUR_CALM`, so
/// that another send to it is pointless.
pub(super) fn is_busy(error: &Error) -> bool {
    chain(error).any(|error| error.is::<Full>()) || is_overload(error)
}

/// Returns `true` if the server refused this one stream.
pub(super) fn is_refused_stream(error: &hyper::Error) -> bool {
    h2_error(error).is_some_and(|error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// Describes an error in the terms of the protocol.
///
/// hyper and h2 describe a GOAWAY without an error as "not a result of an error".
fn describe(error: &h2::Error) -> String {
    match error.reason() {
        Some(h2::Reason::NO_ERROR) if error.is_go_away() => "it closed the connection (GOAWAY)".into(),
        Some(reason) if error.is_go_away() => format!("it closed the connection (GOAWAY, {reason:?})"),
        Some(reason) if error.is_reset() && error.is_remote() => format!("it reset the stream ({reason:?})"),
        _ => root_cause(error),
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        if is_unprocessed(&error) {
            Self::Unprocessed(error.into())
        } else if h2_error(&error).is_some_and(|h2| h2.is_reset() && !h2.is_remote() && !h2.is_library()) {
            // hyper resets the stream when the request body failed, and drops the body's error.
            Self::Lost(CallerFault(error.into()).into())
        } else {
            Self::Lost(error.into())
        }
    }
}

impl From<legacy::Error> for Failure {
    fn from(error: legacy::Error) -> Self {
        if error.is_connect() {
            Self::Unsent(error.into())
        } else if is_unprocessed(&error) {
            Self::Unprocessed(error.into())
        } else {
            Self::Lost(error.into())
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} were in use for {:?}", self.in_use, self.waited)
    }
}

impl StdError for Full {}
