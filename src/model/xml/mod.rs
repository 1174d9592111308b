//! The XML of the Java servers: `protocol` section 5.
//!
//! `encode` writes what XStream writes there, line by line, and the compact form on one line; `decode` reads what clients send,
//! event by event from `source`; `name` turns metadata keys into element names and back. There is no document type and no entity in
//! any of it: who sends one is refused.

mod decode;
mod encode;
mod name;
mod source;

use super::{Application, Applications, DecodeError, Instance};

#[cfg(feature = "server")]
pub(crate) use self::decode::registration;
#[cfg(feature = "server")]
pub(crate) use self::encode::{Writer, compact_instance};
pub(super) use self::source::XmlError;

impl Instance {
    /// Reads one from its XML document, `<instance>...</instance>`.
    ///
    /// Numbers, flags and status words may stand between blanks; elements that nobody knows are skipped. The caller bounds the length.
    ///
    /// # Errors
    /// When the text is not XML, holds a document type or an entity, nests absurdly deep, names no application, or when a port or
    /// the country is not a number.
    pub fn from_xml(body: &[u8]) -> Result<Self, DecodeError> {
        decode::instance_document(body)
    }

    /// Its XML document as a Java server writes it. Characters that XML cannot carry become U+FFFD, and an entry of the metadata
    /// whose key is empty is left out.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut writer = encode::Writer::document();
        writer.instance(self);
        writer.finish()
    }
}

impl Application {
    /// Its XML document, `<application>...</application>`, as a Java server writes it.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut writer = encode::Writer::document();
        writer.application(&self.name, self.instances.iter().map(|instance| &**instance));
        writer.finish()
    }

    /// Reads one from its XML document, `<application>...</application>`.
    ///
    /// # Errors
    /// As [`Instance::from_xml`], and when the name is missing or an instance has no id.
    pub fn from_xml(body: &[u8]) -> Result<Self, DecodeError> {
        decode::application_document(body)
    }
}

impl Applications {
    /// Their XML document, `<applications>...</applications>`, as a Java server writes it.
    pub fn to_xml(&self) -> Vec<u8> {
        let mut writer = encode::Writer::document();
        writer.applications(self);
        writer.finish()
    }

    /// Reads them from their XML document, `<applications>...</applications>`, full or compact.
    ///
    /// # Errors
    /// As [`Instance::from_xml`], and when an application has no name or an instance no id.
    pub fn from_xml(body: &[u8]) -> Result<Self, DecodeError> {
        decode::applications_document(body)
    }
}
