//! Kinds of errors, with their HTTP statuses and summaries.

use http::StatusCode;

/// Kind of an [`Error`](crate::Error), for programs that react to errors.
///
/// Later versions may have more kinds. A `match` therefore needs an arm for the others; the
/// predicates of [`Error`](crate::Error), such as
/// [`is_unavailable`](crate::Error::is_unavailable), and
/// [`http_status`](crate::Error::http_status) cover them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, name or URL is invalid.
    Config,
    /// No connection was established, so nothing was sent.
    Connect,
    /// The remote side stated that it did not process the request.
    Unprocessed,
    /// A time limit was reached.
    Timeout,
    /// A registry server refused the request with this status, or an instance an upgrade.
    Status(u16),
    /// Nothing was sent, since every server had asked for a pause with this status.
    Paused(u16),
    /// The response does not follow the protocol.
    InvalidResponse,
    /// There is no instance to call.
    NoEndpoints,
    /// The call failed after it may have reached the remote side.
    Call,
    /// The call failed because of its caller, for example because the request body failed.
    Caller,
    /// The hook of [`CallOptions::on_attempt`](crate::client::CallOptions::on_attempt) failed, so
    /// nothing was sent.
    Hook,
    /// The client was closed, or the operation came too late or too early in the life of a
    /// registration.
    Closed,
}

impl ErrorKind {
    /// Status of a response that reports the error to the caller of this process.
    pub(super) fn http_status(self) -> StatusCode {
        match self {
            Self::NoEndpoints | Self::Unprocessed | Self::Paused(_) | Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect | Self::Call | Self::InvalidResponse | Self::Status(_) => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Caller => StatusCode::BAD_REQUEST,
            Self::Config | Self::Hook => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Description without names and addresses.
    pub(super) fn summary(self) -> &'static str {
        match self {
            Self::Config => "a setting, name or URL is invalid",
            Self::Connect => "cannot connect",
            Self::Unprocessed => "the request was not processed",
            Self::Timeout => "no response in time",
            Self::Status(_) => "the request was refused",
            Self::Paused(_) => "the server asked for a pause",
            Self::InvalidResponse => "the response is invalid",
            Self::NoEndpoints => "no instance is available",
            Self::Call => "no response",
            Self::Caller => "the request failed before it was sent completely",
            Self::Hook => "the request could not be prepared",
            Self::Closed => "the client or registration is not open",
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::error::{Error, Kind};

    #[test]
    fn summary_names_the_application_and_no_address() {
        let error = Error::new(Kind::Connect, "call to").app("ORDERS").instance("10.0.0.1:orders:80");
        let error = error.server("http://10.0.0.1:80").cause("10.0.0.1 refused").advice("check 10.0.0.1");
        assert_eq!(error.summary(), "call to ORDERS: cannot connect");
        assert_eq!(Error::new(Kind::Timeout, "call").summary(), "call: no response in time");
        let forged = Error::new(Kind::NoEndpoints, "call to").app("a\nb");
        assert_eq!(forged.summary(), "call to \"a\\nb\": no instance is available");
    }

    #[test]
    fn http_status_follows_the_kind() {
        for (kind, status) in [
            (Kind::NoEndpoints, 503),
            (Kind::Unprocessed, 503),
            (Kind::Connect, 502),
            (Kind::Call, 502),
            (Kind::Status(404), 502),
            (Kind::Timeout, 504),
            (Kind::Caller, 400),
            (Kind::Config, 500),
            (Kind::Hook, 500),
            (Kind::Closed, 503),
        ] {
            assert_eq!(Error::new(kind, "call").http_status(), status, "{kind:?}");
        }
    }
}
