use std::fmt;

use crate::config::InvalidSetting;
#[cfg(feature = "peers")]
use crate::untrusted::Sanitized;

#[cfg(feature = "peers")]
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Error of building a registry server.
pub struct Error(Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Setting {
        name: &'static str,
        /// Name as a property.
        property: Option<&'static str>,
        reason: &'static str,
    },
    NoRuntime(tokio::runtime::TryCurrentError),
    /// The access control is unusable.
    Access(String),
    /// A setting in one of the sources.
    Variable(InvalidSetting),
    /// A file of the listener's TLS.
    #[cfg(feature = "tls")]
    Tls(crate::Error),
    #[cfg(feature = "peers")]
    Peers {
        what: String,
        source: Option<BoxError>,
    },
}

impl Error {
    #[cfg(feature = "peers")]
    pub(super) fn setting(name: &'static str, reason: &'static str) -> Self {
        Self(Kind::Setting { name, property: None, reason })
    }

    /// An error of a builder's setting that is also a property.
    pub(super) fn setting_of(name: &'static str, property: &'static str, reason: &'static str) -> Self {
        Self(Kind::Setting { name, property: Some(property), reason })
    }

    pub(super) fn no_runtime(error: tokio::runtime::TryCurrentError) -> Self {
        Self(Kind::NoRuntime(error))
    }

    pub(super) fn access(cause: String) -> Self {
        Self(Kind::Access(cause))
    }

    pub(crate) fn variable(invalid: InvalidSetting) -> Self {
        Self(Kind::Variable(invalid))
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(error: crate::Error) -> Self {
        Self(Kind::Tls(error))
    }

    #[cfg(feature = "peers")]
    pub(super) fn peers(what: &'static str, error: std::sync::Arc<crate::Error>) -> Self {
        Self(Kind::Peers { what: what.into(), source: Some(error.into()) })
    }

    #[cfg(feature = "peers")]
    pub(super) fn region(error: std::sync::Arc<crate::Error>) -> Self {
        Self(Kind::Peers { what: "a remote region is unusable".into(), source: Some(error.into()) })
    }

    #[cfg(feature = "peers")]
    pub(super) fn no_tls(url: &str, why: &str) -> Self {
        let what = format!(
            "{url} needs TLS, which is not available: {why}; or set an HTTP service with TLS by Peers::http_service()"
        );
        Self(Kind::Peers { what, source: None })
    }

    #[cfg(feature = "peers")]
    pub(super) fn own_instance(error: crate::model::InvalidInstance) -> Self {
        Self(Kind::Peers { what: "this node cannot be registered".into(), source: Some(error.into()) })
    }

    #[cfg(feature = "peers")]
    pub(super) fn source(error: BoxError) -> Self {
        Self(Kind::Peers { what: "the source of the peers' URLs failed".into(), source: Some(error) })
    }

    /// Returns true if a setting is unusable, so that another attempt fails, too.
    pub fn is_config(&self) -> bool {
        !matches!(self.0, Kind::NoRuntime(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Setting { name, property: None, reason } => write!(f, "build a registry server: {name} {reason}"),
            Kind::Setting { name, property: Some(property), reason } => {
                write!(f, "build a registry server: {name} {reason} ({property})")
            }
            Kind::NoRuntime(_) => {
                f.write_str("build a registry server: its timers need a tokio runtime; call build() inside one")
            }
            Kind::Access(cause) => write!(f, "build a registry server: {cause}"),
            Kind::Variable(invalid) => invalid.fmt(f),
            #[cfg(feature = "tls")]
            Kind::Tls(error) => write!(f, "the TLS settings of the listener are unusable: {error}"),
            #[cfg(feature = "peers")]
            Kind::Peers { what, source: Some(source) } => {
                write!(f, "build a registry server: {what}: {}", Sanitized(source))
            }
            #[cfg(feature = "peers")]
            Kind::Peers { what, source: None } => write!(f, "build a registry server: {what}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&self.0).finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Kind::Setting { .. } | Kind::Access(_) | Kind::Variable(_) => None,
            Kind::NoRuntime(error) => Some(error),
            #[cfg(feature = "tls")]
            Kind::Tls(error) => Some(error),
            #[cfg(feature = "peers")]
            Kind::Peers { source, .. } => source.as_deref().map(|source| source as _),
        }
    }
}
