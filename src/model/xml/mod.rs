//! XML of the Java servers. `docs/protocol.md`, "XML format".
//!
//! `encode` writes the form of XStream line by line, and the compact form on one line. `decode`
//! reads the documents of clients, event by event from `source`. `name` converts metadata keys to
//! element names and back. Documents with a document type or an entity are refused.

mod decode;
mod encode;
mod name;
pub(super) mod source;

use super::{Application, Applications, DecodeError, Instance};

#[cfg(feature = "server")]
pub(crate) use self::decode::registration;
#[cfg(feature = "server")]
pub(crate) use self::encode::{Writer, compact_instance};

impl Instance {
    /// Reads an instance from its XML document, `<instance>...</instance>`.
    ///
    /// Blanks around numbers, flags and statuses are trimmed, and unknown elements are skipped. The
    /// caller limits the length of the document.
    ///
    /// # Errors
    /// Fails if the text is not XML, has a document type or an entity, nests deeper than 64
    /// elements, or has no application, or if a port or the country is not a number.
    pub fn from_xml(body: &[u8]) -> Result<Self, DecodeError> {
        decode::instance_document(body)
    }

    /// Writes the XML document of a Java server. Characters that XML cannot carry become U+FFFD,
    /// and a metadata entry with an empty key is left out.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut writer = encode::Writer::document();
        writer.instance(self);
        writer.finish()
    }
}

impl Application {
    /// Writes the XML document of a Java server, `<application>...</application>`.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut writer = encode::Writer::document();
        writer.application(&self.name, self.instances.iter().map(|instance| &**instance));
        writer.finish()
    }

    /// Reads an application from its XML document, `<application>...</application>`. Instances
    /// without an id are skipped with a log line. Bytes that are not UTF-8 and entities become
    /// U+FFFD, and ports and countries that are not numbers count as absent.
    ///
    /// # Errors
    /// Fails if the text is not XML, has a document type, nests deeper than 64 elements, or has
    /// no name.
    pub fn from_xml(body: &[u8]) -> Result<Self, DecodeError> {
        decode::application_document(body)
    }
}

impl Applications {
    /// Writes the XML document of a Java server, `<applications>...</applications>`.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut writer = encode::Writer::document();
        writer.applications(self);
        writer.finish()
    }

    /// Reads a list from its XML document, `<applications>...</applications>`, full or compact.
    /// Applications without a name and instances without an id are skipped with a log line. Invalid
    /// values are replaced as in [`Application::from_xml`].
    ///
    /// # Errors
    /// Fails if the text is not XML, has a document type, or nests deeper than 64 elements.
    pub fn from_xml(body: &[u8]) -> Result<Self, DecodeError> {
        decode::applications_document(body)
    }
}
