//! Tells whether a call failed because no connection came about.

use std::error::Error as StdError;
use std::{fmt, io};

use tower::BoxError;

use super::observe::Outcome;
use crate::error::Error;

/// What an error says of the endpoint, as far as it can be told without knowing its service.
pub(super) fn outcome(error: &(dyn StdError + 'static)) -> Outcome {
    if is_callers_fault(error) {
        Outcome::GivenUp
    } else if is_connect(error) {
        Outcome::Unreachable
    } else {
        Outcome::Failure { retry_after: None }
    }
}

/// Whether this error, or one that it stems from, says so. The first in the chain that can tell decides: what it stems from may be
/// the fault of something else, or of a connection that stood.
fn is_connect(error: &(dyn StdError + 'static)) -> bool {
    chain(error).find_map(verdict).unwrap_or(false)
}

/// Whether it is the caller's own body that failed.
pub(crate) fn is_callers_fault(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(|error| error.is::<CallerFault>())
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn verdict(error: &(dyn StdError + 'static)) -> Option<bool> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return Some(error.is_connect());
    }
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return Some(error.is_connect());
    }
    if error.is::<hyper::Error>() {
        return Some(false);
    }
    error.downcast_ref::<io::Error>().map(|error| error.kind() == io::ErrorKind::ConnectionRefused)
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
