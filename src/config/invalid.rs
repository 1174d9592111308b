use std::fmt;

use super::source::Place;
use crate::untrusted::Excerpt;

/// Error of a setting with an invalid value, or of a file that cannot be read.
///
/// The message names the source, and the line if the source is a file: `application.yml:14:
/// eureka.client.registry-fetch-interval-seconds: expected seconds, found "soon"`.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidSetting {
    message: String,
}

impl InvalidSetting {
    /// Error of a value. It is shown unless it may hold a secret.
    pub(crate) fn expected(place: &Place<'_>, expected: impl fmt::Display, found: Option<&str>) -> Self {
        let message = match found {
            Some(found) => format!("{place}: expected {expected}, found \"{}\"", Excerpt(found)),
            None => format!("{place}: expected {expected} (the value is not shown, it may hold a secret)"),
        };
        Self { message }
    }

    /// Error of a setting with its cause, which must not contain a secret.
    pub(crate) fn refused(place: &Place<'_>, cause: impl fmt::Display) -> Self {
        Self { message: format!("{place}: {cause}") }
    }

    /// Error whose text continues the name of the setting: `is no setting`.
    #[cfg(feature = "server")]
    pub(crate) fn clause(place: &Place<'_>, clause: impl fmt::Display) -> Self {
        Self { message: format!("{place} {clause}") }
    }

    /// Error that belongs to no single setting.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Contains the message, since a `main` that returns an error prints its `Debug`.
impl fmt::Debug for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidSetting({self})")
    }
}

impl std::error::Error for InvalidSetting {}
