use std::fmt;

use tower::BoxError;

use crate::error::chain;

/// Error of a connection attempt. Its message includes the cause, so that texts for users need not
/// print the source as well.
#[derive(Debug)]
pub(crate) struct ConnectError {
    message: String,
    source: Option<BoxError>,
    is_not_http2: bool,
    is_other_protocol: bool,
}

impl ConnectError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, is_not_http2: false, is_other_protocol: false }
    }

    pub(crate) fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Marks the error of a server that was reached and does not speak HTTP/2.
    pub(crate) fn not_http2(self) -> Self {
        Self { is_not_http2: true, ..self }
    }

    /// Marks the error of a server that responded in another protocol than HTTP/2. Such a server
    /// certainly does not speak HTTP/2.
    pub(crate) fn other_protocol(self) -> Self {
        Self { is_other_protocol: true, ..self.not_http2() }
    }

    /// Returns `true` if the server was reached and does not speak HTTP/2.
    pub(crate) fn is_not_http2(error: &(dyn std::error::Error + 'static)) -> bool {
        Self::any(error, |error| error.is_not_http2)
    }

    /// Returns `true` if the server responded in another protocol than HTTP/2.
    pub(crate) fn is_other_protocol(error: &(dyn std::error::Error + 'static)) -> bool {
        Self::any(error, |error| error.is_other_protocol)
    }

    fn any(error: &(dyn std::error::Error + 'static), is: impl Fn(&Self) -> bool) -> bool {
        chain(error).any(|error| error.downcast_ref::<Self>().is_some_and(&is))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Returns the message of the innermost error of the chain, usually that of the operating system.
/// The search stops at a [`ConnectError`], whose message includes its cause.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source().filter(|_| !root.is::<ConnectError>()) {
        root = source;
    }
    root.to_string()
}
