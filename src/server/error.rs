use std::fmt;

/// Why a registry server could not be built.
pub struct Error(Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Setting { name: &'static str, reason: &'static str },
    NoRuntime(tokio::runtime::TryCurrentError),
}

impl Error {
    pub(super) fn setting(name: &'static str, reason: &'static str) -> Self {
        Self(Kind::Setting { name, reason })
    }

    pub(super) fn no_runtime(error: tokio::runtime::TryCurrentError) -> Self {
        Self(Kind::NoRuntime(error))
    }

    /// A setting that can never work.
    pub fn is_config(&self) -> bool {
        matches!(self.0, Kind::Setting { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Setting { name, reason } => write!(f, "build a registry server: {name} {reason}"),
            Kind::NoRuntime(_) => {
                f.write_str("build a registry server: its timers need a tokio runtime; call build() inside one")
            }
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
            Kind::Setting { .. } => None,
            Kind::NoRuntime(error) => Some(error),
        }
    }
}
