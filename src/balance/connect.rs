//! Tells whether a call failed because no connection came about.

use std::error::Error as StdError;
use std::{fmt, io};

use tower::BoxError;

use crate::error::Error;

/// Whether this error, or one that it stems from, says so. The first in the chain that can tell decides: what it stems from may be
/// the fault of something else, or of a connection that stood.
pub(super) fn is_connect(error: &(dyn StdError + 'static)) -> bool {
    chain(error).find_map(verdict).unwrap_or(false)
}

/// Whether it is the caller's own body that failed.
pub(super) fn is_callers_fault(error: &(dyn StdError + 'static)) -> bool {
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
