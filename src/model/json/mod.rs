//! JSON of the Java servers. `docs/protocol.md`, "JSON format".
//!
//! `encode` writes exactly the form of Java, and `compact` its compact form. `decode` reads all
//! forms that clients and servers send.

#[cfg(feature = "server")]
pub(crate) mod compact;
mod decode;
mod encode;

use super::{Application, Applications, DecodeError, Instance, ReplicationList, ReplicationResponse};

#[cfg(feature = "client")]
pub(super) use self::decode::is_wide;
#[cfg(feature = "client")]
pub(crate) use self::decode::{DecodedList, Known, ListDecoder};
#[cfg(feature = "server")]
pub(crate) use self::decode::{batch, registration};
#[cfg(feature = "xml")]
pub(super) use self::encode::{AMAZON_DATA_CENTER, DEFAULT_DATA_CENTER, EMPTY_MAP};

impl Instance {
    /// Reads an instance from its JSON document, `{"instance": {...}}`.
    ///
    /// A byte order mark is skipped. Text that only lenient parsers accept is repaired: bytes that
    /// are not UTF-8 and halves of surrogate pairs become U+FFFD, control characters are kept, and
    /// numbers beyond the range of a double are limited. The other documents are read in the same
    /// way.
    ///
    /// # Errors
    /// Fails if the bytes are not JSON, or if the root object or the name of the application is
    /// missing.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        decode::instance_document(body)
    }

    /// Writes the JSON document of a Java client, `{"instance": {...}}`.
    pub fn to_json(&self) -> Vec<u8> {
        encode::instance_document(self)
    }
}

impl Application {
    /// Reads an application from its JSON document, `{"application": {...}}`. Instances without an
    /// id are skipped with a log line.
    ///
    /// # Errors
    /// Fails if the bytes are not JSON, or if the root object or the name is missing.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        decode::application_document(body)
    }

    /// Writes the JSON document of a Java server, `{"application": {...}}`.
    pub fn to_json(&self) -> Vec<u8> {
        encode::application_document(self)
    }
}

impl Applications {
    /// Reads a list from its JSON document, `{"applications": {...}}`. Applications without a name,
    /// instances without an id and instances that are not JSON are skipped with a log line.
    ///
    /// # Errors
    /// Fails if the bytes are not JSON, or if the root object is missing.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        decode::applications_document(body)
    }

    /// Writes the JSON document of a Java server, `{"applications": {...}}`.
    pub fn to_json(&self) -> Vec<u8> {
        encode::applications_document(self)
    }

    /// Writes the document of [`to_json`](Self::to_json).
    #[cfg(feature = "client")]
    pub(crate) fn write_json(&self, to: impl std::io::Write) -> std::io::Result<()> {
        encode::write_applications_document(to, self)
    }
}

impl ReplicationList {
    /// Reads a batch.
    ///
    /// # Errors
    /// Fails if the bytes are not JSON, the list is missing or has more than 10,000 items, an item
    /// has an unknown action, or an instance has more than 1,000 metadata entries.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        decode::replication_list(body)
    }

    /// Writes the body of the request.
    pub fn to_json(&self) -> Vec<u8> {
        encode::replication_list(self)
    }
}

impl ReplicationResponse {
    /// Reads the response to a batch.
    ///
    /// # Errors
    /// Fails if the bytes are not JSON or the list is missing.
    pub fn from_json(body: &[u8]) -> Result<Self, DecodeError> {
        decode::replication_response(body)
    }

    /// Writes the body of the response.
    pub fn to_json(&self) -> Vec<u8> {
        encode::replication_response(self)
    }
}

#[cfg(feature = "peers")]
impl super::ReplicationItem {
    /// Writes the JSON of the item, as part of a batch.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        encode::replication_item(self)
    }
}
