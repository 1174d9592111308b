//! Classifies errors by what they say about the endpoint: no connection came about, or the request was not processed.

use std::error::Error as StdError;
use std::{fmt, io};

use h2::Reason;
use tower::BoxError;

use super::observe::Outcome;
use crate::error::Error;

/// What an error says of the endpoint, as far as it can be told without knowing its service.
pub(super) fn outcome(error: &(dyn StdError + 'static)) -> Outcome {
    if is_callers_fault(error) {
        return Outcome::GivenUp;
    }
    match chain(error).find_map(verdict) {
        Some(Verdict::Unconnected) => Outcome::Unreachable,
        _ if is_overload(error) => Outcome::Overloaded { retry_after: None },
        Some(Verdict::Unprocessed) => Outcome::Unprocessed,
        Some(Verdict::Other) | None => Outcome::Failure { retry_after: None },
    }
}

/// Returns `true` if the other side certainly did not process the request: its connection ended before it took the request, or the
/// peer said so (RFC 9113, 8.7). It refused the stream, or the stream was opened after the last one that the GOAWAY names; h2 reports
/// a GOAWAY of the peer to no other stream.
pub(crate) fn is_unprocessed(error: &(dyn StdError + 'static)) -> bool {
    matches!(chain(error).find_map(verdict), Some(Verdict::Unprocessed))
}

/// Returns `true` if the peer of HTTP/2 asked for fewer requests.
pub(crate) fn is_overload(error: &(dyn StdError + 'static)) -> bool {
    let h2 = chain(error).find_map(|error| error.downcast_ref::<h2::Error>());
    h2.is_some_and(|error| error.is_remote() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM))
}

/// Whether it is the caller's own body that failed.
pub(crate) fn is_callers_fault(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|error| error.is::<CallerFault>())
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The first in the chain that can tell decides: what it stems from may be the fault of something else, or of a connection that stood.
enum Verdict {
    Unconnected,
    Unprocessed,
    Other,
}

fn verdict(error: &(dyn StdError + 'static)) -> Option<Verdict> {
    let decided = |unconnected: bool| if unconnected { Verdict::Unconnected } else { Verdict::Other };
    if let Some(error) = error.downcast_ref::<Error>() {
        return Some(if error.is_unprocessed() { Verdict::Unprocessed } else { decided(error.is_connect()) });
    }
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        // What is not about connecting, the error of hyper below it tells.
        return if error.is_connect() { Some(Verdict::Unconnected) } else { None };
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let is_unprocessed = error.is_canceled() || h2_of(error).is_some_and(is_refused);
        return Some(if is_unprocessed { Verdict::Unprocessed } else { Verdict::Other });
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return Some(if is_refused(error) { Verdict::Unprocessed } else { Verdict::Other });
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

/// An error of the request's body: marks it as none of the endpoint's.
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
