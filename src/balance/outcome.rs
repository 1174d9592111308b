//! Outcome of a call, from the endpoint's point of view.

use std::time::Duration;

/// Outcome of a call, from the endpoint's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint responded as it should.
    Success,
    /// The endpoint failed.
    Failure {
        /// Time for which the endpoint asked for no calls.
        retry_after: Option<Duration>,
    },
    /// The endpoint refused the call because of its load. Raises its load, but does not count for
    /// an ejection.
    Overloaded {
        /// Time for which the endpoint asked for no calls.
        retry_after: Option<Duration>,
    },
    /// No connection was established, so nothing was sent. Further calls would fail as well.
    Unreachable,
    /// The caller's time was over before a response. No evidence about the endpoint, unless nothing
    /// came from it during several such calls in a row.
    TimedOut,
    /// The call ended for a reason of the caller, such as a broken request body. No evidence about
    /// the endpoint.
    Cancelled,
    /// The endpoint stated that it did not process the request, as HTTP/2 does by `GOAWAY` and
    /// `REFUSED_STREAM`, and by `HTTP_1_1_REQUIRED` if the endpoint can fall back to HTTP/1.1. No
    /// evidence about the endpoint. The request may be sent again on another
    /// connection, whatever its method.
    Unprocessed,
}

impl Outcome {
    /// Returns `true` for a success.
    pub fn is_success(self) -> bool {
        self == Self::Success
    }
}
