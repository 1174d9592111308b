use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower::BoxError;

use crate::shown::{Excerpt, Shown, Words};

/// What went wrong on the client's side: with a setting, with a registry server, or with a call to an instance.
///
/// The message names the operation, the application and instance, the server asked, the cause and what to do. The predicates
/// tell a program what a person reads there; [`source`](StdError::source) leads to the original error.
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

/// What kind of fault it is. Private: the predicates are the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A setting, name or URL that can never work.
    Config,
    /// Nothing reached the other side.
    Connect,
    /// The other side stated that it did not process the request.
    Unprocessed,
    /// A bound was reached.
    Timeout,
    /// The other side answered with this status.
    Status(u16),
    /// Nothing was sent, since every server had asked with this status to be left alone.
    Paused(u16),
    /// The other side answered something that is not the protocol.
    Body,
    /// There is no instance to call.
    NoEndpoints,
    /// The call reached an instance, or may have, and failed there.
    Call,
    /// The call failed for a reason of the caller's.
    Caller,
    /// This side is shutting down.
    Closed,
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

    /// The server asked, without credentials.
    pub(crate) fn server(mut self, server: impl Into<Arc<str>>) -> Self {
        self.0.server = Some(server.into());
        self
    }

    /// Why, in words that do not repeat the source.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// What to do about it.
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

    /// The words of the cause, to build a longer one from.
    pub(crate) fn cause_text(&self) -> &str {
        self.0.cause.as_deref().unwrap_or_default()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns true if nothing was sent, since every server had asked to be left alone.
    #[cfg(feature = "peers")]
    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.0.kind, Kind::Paused(_))
    }

    /// A setting, name or URL that can never work.
    pub fn is_config(&self) -> bool {
        self.0.kind == Kind::Config
    }

    /// No connection came about, so nothing was received on the other side.
    pub fn is_connect(&self) -> bool {
        self.0.kind == Kind::Connect
    }

    /// Returns `true` if the instance stated that it did not process the request, as HTTP/2 does with `GOAWAY` and
    /// `REFUSED_STREAM`.
    pub fn is_unprocessed(&self) -> bool {
        self.0.kind == Kind::Unprocessed
    }

    /// A time bound was reached.
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// The registry does not know the application or instance.
    pub fn is_not_found(&self) -> bool {
        self.0.kind == Kind::Status(404)
    }

    /// The other side cannot answer now: unreachable, too slow, gone in the middle, or saying so itself (502, 503, 504).
    pub fn is_unavailable(&self) -> bool {
        match self.0.kind {
            Kind::Connect | Kind::Unprocessed | Kind::Timeout | Kind::NoEndpoints | Kind::Call => true,
            Kind::Paused(_) => true,
            Kind::Status(status) => matches!(status, 502..=504),
            Kind::Config | Kind::Body | Kind::Caller | Kind::Closed => false,
        }
    }

    /// The application has no instance that could be called.
    pub fn is_no_endpoints(&self) -> bool {
        self.0.kind == Kind::NoEndpoints
    }

    /// The HTTP status with which a registry server refused.
    pub fn status(&self) -> Option<u16> {
        match self.0.kind {
            Kind::Status(status) | Kind::Paused(status) => Some(status),
            _ => None,
        }
    }

    /// How long the other side asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The instance that was called, where one was.
    pub fn instance_id(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { operation, app, instance, server, cause, advice, .. } = &*self.0;
        f.write_str(operation)?;
        if let Some(app) = app {
            write!(f, " {}", Shown(app))?;
        }
        if let Some(instance) = instance {
            write!(f, " ({})", Shown(instance))?;
        }
        if let Some(server) = server {
            write!(f, " at {}", Excerpt(server))?;
        }
        if let Some(cause) = cause {
            write!(f, ": {}", Words(cause))?;
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
