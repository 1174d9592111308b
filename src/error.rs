mod kind;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tower::BoxError;

use crate::untrusted::{Excerpt, Quoted, Sanitized};

pub use self::kind::ErrorKind;
pub(crate) use self::kind::ErrorKind as Kind;

/// Error of a provider or consumer: of a setting, a request to a registry server, or a call to an
/// instance.
///
/// The message names the operation, the application and instance, the server, the cause and a
/// remedy, for logs. [`kind`](Self::kind) and the predicates, such as
/// [`is_connect`](Self::is_connect), give a program the same information, and
/// [`source`](StdError::source) returns the original error.
///
/// A gateway responds to its own callers with [`http_status`](Self::http_status) and
/// [`summary`](Self::summary), which names no address:
///
/// ```
/// # use http::Response;
/// fn respond(error: &tower_eureka::Error) -> Response<String> {
///     let mut response = Response::new(error.summary());
///     *response.status_mut() = error.http_status();
///     response
/// }
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    operation: &'static str,
    app: Option<Arc<str>>,
    instance: Option<Arc<str>>,
    server: Option<Arc<str>>,
    cause: Option<String>,
    advice: Option<&'static str>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

/// Returns an error and its sources.
pub(crate) fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Returns the first HTTP/2 error among an error and its sources.
pub(crate) fn h2_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a h2::Error> {
    chain(error).find_map(|error| error.downcast_ref())
}

impl Error {
    pub(crate) fn new(kind: Kind, operation: &'static str) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            app: None,
            instance: None,
            server: None,
            cause: None,
            advice: None,
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn app(mut self, app: impl Into<Arc<str>>) -> Self {
        self.0.app = Some(app.into());
        self
    }

    pub(crate) fn instance(mut self, id: impl Into<Arc<str>>) -> Self {
        self.0.instance = Some(id.into());
        self
    }

    /// Sets the URL of the server, which must hold no credentials.
    pub(crate) fn server(mut self, server: impl Into<Arc<str>>) -> Self {
        self.0.server = Some(server.into());
        self
    }

    /// Sets the text of the cause, which must not repeat the source.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Sets the remedy that ends the message.
    pub(crate) fn advice(mut self, advice: &'static str) -> Self {
        self.0.advice = Some(advice);
        self
    }

    pub(crate) fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.0.retry_after = wait;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Returns the text of the cause, for a longer one that contains it.
    pub(crate) fn cause_text(&self) -> &str {
        self.0.cause.as_deref().unwrap_or_default()
    }

    /// Returns the URL of the server that the error names.
    pub(crate) fn server_url(&self) -> Option<&str> {
        self.0.server.as_deref()
    }

    /// Returns the same error without its source, for a further receiver.
    pub(crate) fn without_source(&self) -> Self {
        let Inner { kind, operation, app, instance, server, cause, advice, retry_after, source: _ } = &*self.0;
        let (app, instance, server) = (app.clone(), instance.clone(), server.clone());
        let inner = Inner {
            kind: *kind,
            operation,
            app,
            instance,
            server,
            cause: cause.clone(),
            advice: *advice,
            retry_after: *retry_after,
            source: None,
        };
        Self(Box::new(inner))
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the status with which a gateway reports this error of a call to its own caller.
    ///
    /// | kind | status |
    /// |---|---|
    /// | no endpoints, unprocessed, paused, closed | 503 |
    /// | no connection, call lost, invalid response, refused | 502 |
    /// | timeout | 504 |
    /// | the request of the caller failed | 400 |
    /// | others | 500 |
    pub fn http_status(&self) -> StatusCode {
        self.0.kind.http_status()
    }

    /// Returns a short message for callers outside: the operation, the name that was called and the
    /// kind of the error, without addresses, instances, other applications and texts of servers.
    pub fn summary(&self) -> String {
        let Inner { kind, operation, app, .. } = &*self.0;
        match app {
            Some(app) => format!("{operation} {}: {}", Quoted(app), kind.summary()),
            None => format!("{operation}: {}", kind.summary()),
        }
    }

    /// Returns `true` if nothing was sent, since every server had asked for a pause.
    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.0.kind, Kind::Paused(_))
    }

    /// Returns `true` if a setting, name or URL is invalid. Trying again cannot succeed.
    pub fn is_config(&self) -> bool {
        self.0.kind == Kind::Config
    }

    /// Returns `true` if no connection could be established, so that nothing was sent.
    pub fn is_connect(&self) -> bool {
        self.0.kind == Kind::Connect
    }

    /// Returns `true` if the instance stated that it did not process the request, as HTTP/2 does
    /// with `GOAWAY` and `REFUSED_STREAM`, and with `HTTP_1_1_REQUIRED` for a request that can be
    /// sent over HTTP/1.1.
    pub fn is_unprocessed(&self) -> bool {
        self.0.kind == Kind::Unprocessed
    }

    /// Returns `true` if a time limit was reached.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// Returns `true` if the registry does not have the application or instance (404).
    pub fn is_not_found(&self) -> bool {
        self.0.kind == Kind::Status(404)
    }

    /// Returns `true` if the remote side is unavailable for now, so that trying again later may
    /// succeed: it is unreachable or too slow, closed the connection, has no instances, asked for a
    /// pause, or responded with 502, 503 or 504. Also `true` for a call through a client that was
    /// closed: another process may take it.
    pub fn is_unavailable(&self) -> bool {
        match self.0.kind {
            Kind::Connect | Kind::Unprocessed | Kind::Timeout | Kind::NoEndpoints | Kind::Call => true,
            Kind::Paused(_) => true,
            Kind::Status(status) => matches!(status, 502..=504),
            // Otherwise it concerns a registration of this process.
            Kind::Closed => self.0.operation == "call",
            Kind::Config | Kind::InvalidResponse | Kind::Caller | Kind::Hook => false,
        }
    }

    /// Returns `true` if the application has no instance that can be called.
    pub fn is_no_endpoints(&self) -> bool {
        self.0.kind == Kind::NoEndpoints
    }

    /// Returns the HTTP status with which a registry server refused the request, or asked for the
    /// pause that prevents it, or with which an instance refused an upgrade. Any other response of
    /// an instance is no error.
    pub fn status(&self) -> Option<u16> {
        match self.0.kind {
            Kind::Status(status) | Kind::Paused(status) => Some(status),
            _ => None,
        }
    }

    /// Returns the pause for which the remote side asked in `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the id of the instance or endpoint that the error concerns, if it concerns one.
    pub fn instance_id(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { operation, app, instance, server, cause, advice, .. } = &*self.0;
        f.write_str(operation)?;
        if let Some(app) = app {
            write!(f, " {}", Quoted(app))?;
        }
        if let Some(instance) = instance {
            write!(f, " ({})", Quoted(instance))?;
        }
        if let Some(server) = server {
            write!(f, " at {}", Excerpt(server))?;
        }
        if let Some(cause) = cause {
            write!(f, ": {}", Sanitized(cause))?;
        }
        if let Some(advice) = advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &format_args!("{self}"));
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
