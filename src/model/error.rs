use std::fmt;
use std::sync::Arc;

use super::MAX_METADATA_ENTRIES;
use crate::untrusted::Excerpt;

/// Error of a body that is not the expected document.
#[derive(Debug)]
pub struct DecodeError {
    document: &'static str,
    reason: Reason,
}

#[derive(Debug)]
pub(super) enum Reason {
    #[cfg(feature = "xml")]
    Xml(super::xml::source::XmlError),
    Json(serde_json::Error),
    /// The text is UTF-16 or UTF-32.
    Wide,
    NoWrapper,
    NoApp,
    NoName,
    UnknownAction(Arc<str>),
    /// An instance has more than [`MAX_METADATA_ENTRIES`].
    TooManyEntries,
    /// The decoded document would take more than this number of bytes of memory.
    TooLarge(usize),
}

impl DecodeError {
    pub(super) fn new(document: &'static str, reason: Reason) -> Self {
        Self { document, reason }
    }

    /// Returns `true` if the text is not JSON, but may be read after a repair.
    pub(super) fn is_malformed(&self) -> bool {
        matches!(&self.reason, Reason::Json(error) if !error.is_eof())
    }

    /// Error of a list in UTF-16 or UTF-32, by its first bytes.
    #[cfg(feature = "client")]
    pub(crate) fn of_wide_list(head: &[u8]) -> Option<Self> {
        super::json::is_wide(head).then(|| Self::new("applications", Reason::Wide))
    }

    /// Error of a document that has no application, although it is that of one.
    #[cfg(feature = "client")]
    pub(crate) fn without_application() -> Self {
        Self::new("application", Reason::NoWrapper)
    }

    /// Returns `true` if the document has more elements or metadata entries than a registration may
    /// have.
    #[cfg(feature = "server")]
    pub(crate) fn exceeds_limits(&self) -> bool {
        match &self.reason {
            Reason::TooManyEntries => true,
            #[cfg(feature = "xml")]
            Reason::Xml(error) => error.exceeds_limits(),
            _ => false,
        }
    }

    /// Returns the limit in bytes if the decoded document would take more memory.
    #[cfg(feature = "client")]
    pub(crate) fn exceeded_memory(&self) -> Option<usize> {
        match self.reason {
            Reason::TooLarge(limit) => Some(limit),
            _ => None,
        }
    }

    /// Returns `true` if the body is JSON without the root member of the document.
    #[cfg(feature = "server")]
    pub(crate) fn lacks_wrapper(&self) -> bool {
        matches!(self.reason, Reason::NoWrapper)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let document = self.document;
        match &self.reason {
            #[cfg(feature = "xml")]
            Reason::Xml(error) => write!(f, "XML of '{document}' {error}"),
            Reason::Json(error) if error.is_eof() => write!(f, "JSON of '{document}' is cut off"),
            Reason::Json(_) => write!(f, "not the JSON of '{document}'"),
            Reason::Wide => write!(f, "'{document}' is in UTF-16 or UTF-32, but JSON must be in UTF-8"),
            Reason::NoWrapper => write!(f, "JSON without the root member '{document}'"),
            Reason::NoApp => write!(f, "'{document}' without 'app'"),
            Reason::NoName => write!(f, "an application without 'name'"),
            Reason::TooManyEntries => {
                write!(f, "'{document}' with more than {MAX_METADATA_ENTRIES} metadata entries")
            }
            Reason::TooLarge(limit) => write!(f, "'{document}' takes more than {limit} bytes of memory"),
            Reason::UnknownAction(word) => write!(f, "'{}' is not a replication action", Excerpt(word)),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            #[cfg(feature = "xml")]
            Reason::Xml(error) => error.source(),
            Reason::Json(error) => Some(error),
            _ => None,
        }
    }
}
