//! Classification of errors by their evidence about the endpoint: no connection, or a request that
//! was not processed.

use std::error::Error as StdError;
use std::{fmt, io};

use h2::Reason;
use tower::BoxError;

use crate::balance::outcome::Outcome;
use crate::error::{Error, Kind, chain, h2_error};

/// Returns the outcome that an error stands for, as far as it can be determined without knowing the
/// service.
pub(crate) fn outcome(error: &(dyn StdError + 'static)) -> Outcome {
    if is_callers_fault(error) {
        return Outcome::Cancelled;
    }
    match chain(error).find_map(evidence) {
        Some(Evidence::Unconnected) => Outcome::Unreachable,
        _ if is_overload(error) => Outcome::Overloaded { retry_after: None },
        Some(Evidence::Unprocessed) => Outcome::Unprocessed,
        Some(Evidence::TimedOut) => Outcome::TimedOut,
        Some(Evidence::Other) | None => Outcome::Failure { retry_after: None },
    }
}

/// Returns `true` if the peer certainly did not process the request: its connection ended before it
/// took the request, or the peer said so (RFC 9113, section 8.7). It refused the stream, or the
/// stream was opened after the last one that the GOAWAY names. h2 reports a GOAWAY of the peer to
/// no other stream.
///
/// A peer that requires HTTP/1.1 processed nothing either, but would not process the same request
/// on another connection. Endpoints that can fall back to HTTP/1.1 treat it as unprocessed.
pub(crate) fn is_unprocessed(error: &(dyn StdError + 'static)) -> bool {
    matches!(chain(error).find_map(evidence), Some(Evidence::Unprocessed))
}

/// Returns `true` if the HTTP/2 peer asked for fewer requests.
pub(crate) fn is_overload(error: &(dyn StdError + 'static)) -> bool {
    h2_error(error).is_some_and(|error| error.is_remote() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM))
}

/// Returns `true` if the request's own body failed.
pub(crate) fn is_callers_fault(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|error| error.is::<CallerFault>())
}

/// Classification of one error in a chain. The first error in the chain that has one decides: the
/// errors below it may be about something else, or about a connection that was established.
enum Evidence {
    Unconnected,
    Unprocessed,
    /// A time limit of the caller passed.
    TimedOut,
    Other,
}

fn evidence(error: &(dyn StdError + 'static)) -> Option<Evidence> {
    let decided = |unconnected: bool| if unconnected { Evidence::Unconnected } else { Evidence::Other };
    if let Some(error) = error.downcast_ref::<Error>() {
        return Some(match error.kind() {
            Kind::Unprocessed => Evidence::Unprocessed,
            Kind::Timeout => Evidence::TimedOut,
            _ => decided(error.is_connect()),
        });
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        // If it is not about time, an error below it decides.
        return (error.is_timeout() && !error.is_connect()).then_some(Evidence::TimedOut);
    }
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        // If the error is not about connecting, hyper's error below it decides.
        return if error.is_connect() { Some(Evidence::Unconnected) } else { None };
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let is_unprocessed = error.is_canceled() || h2_of(error).is_some_and(is_refused);
        return Some(if is_unprocessed { Evidence::Unprocessed } else { Evidence::Other });
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return Some(if is_refused(error) { Evidence::Unprocessed } else { Evidence::Other });
    }
    error.downcast_ref::<io::Error>().map(|error| decided(error.kind() == io::ErrorKind::ConnectionRefused))
}

fn h2_of(error: &hyper::Error) -> Option<&h2::Error> {
    StdError::source(error)?.downcast_ref()
}

fn is_refused(error: &h2::Error) -> bool {
    let is_refused_stream = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || is_refused_stream)
}

/// Error of the request's body, which is not the endpoint's fault.
#[derive(Debug)]
pub(crate) struct CallerFault(pub(crate) BoxError);

impl fmt::Display for CallerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body of the request failed")
    }
}

impl StdError for CallerFault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
