//! Reads all JSON forms that Eureka servers and clients are known to write. `docs/protocol.md`,
//! "JSON format".
//!
//! A member of the wrong type is converted if possible, and skipped otherwise. In a list, an
//! instance without an id, an application without a name and a record that is not JSON are skipped
//! with a log line, so that one bad record does not hide the others.
//!
//! Text that only a lenient parser accepts is repaired, except in a registration, whose sender gets
//! an error.

mod list;
mod members;
mod repair;
mod replication;
mod scalar;
mod shapes;

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "client")]
pub(crate) use self::list::DecodedList;
pub(crate) use self::list::{Known, ListDecoder};
use self::members::Document;
#[cfg(feature = "server")]
use self::members::Registration;
use self::repair::repaired;
use self::replication::{BatchItems, BatchResponseMembers};
use crate::model::error::{DecodeError, Reason};
use crate::model::lists::{ApplicationMembers, Faults, application, log_repaired};
use crate::model::{Application, Applications, BatchItem, Instance, ReplicationList, ReplicationResponse};

/// Mark that some programs write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads one member of the root object and ignores the others. A byte order mark is skipped.
fn strict_document<'de, T: Deserialize<'de>>(body: &'de [u8], name: &'static str) -> Result<T, DecodeError> {
    let fail = |reason| DecodeError::new(name, reason);
    let not_json = |error| fail(if is_wide(body) { Reason::Wide } else { Reason::Json(error) });
    let mut deserializer = serde_json::Deserializer::from_slice(without_mark(body));
    let value = Document::new(name).read(&mut deserializer).map_err(not_json)?;
    deserializer.end().map_err(not_json)?;
    value.ok_or_else(|| fail(Reason::NoWrapper))
}

/// Reads a document like [`strict_document`]. Text that only a lenient parser accepts is repaired.
fn document<T: DeserializeOwned>(body: &[u8], name: &'static str) -> Result<T, DecodeError> {
    let error = match strict_document(body, name) {
        Err(error) if error.is_malformed() => error,
        read => return read,
    };
    let Some(repaired) = repaired(without_mark(body)) else { return Err(error) };
    match strict_document(&repaired, name) {
        Ok(value) => {
            log_repaired(name, &error);
            Ok(value)
        }
        Err(_) => Err(error),
    }
}

/// Returns the text behind a byte order mark of UTF-8.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}

/// Returns `true` for text in UTF-16 or UTF-32, by its first bytes: JSON begins with an ASCII
/// character.
pub(in crate::model) fn is_wide(body: &[u8]) -> bool {
    body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff") || body.iter().take(2).any(|&byte| byte == 0)
}

pub(super) fn instance_document(body: &[u8]) -> Result<Instance, DecodeError> {
    let instance: Instance = document(body, "instance")?;
    if instance.app.is_empty() {
        return Err(DecodeError::new("instance", Reason::NoApp));
    }
    Ok(instance)
}

/// Reads a registration: like [`instance_document`], but `app` may be empty, and the number of
/// metadata entries is limited.
#[cfg(feature = "server")]
pub(crate) fn registration(body: &[u8]) -> Result<Instance, DecodeError> {
    let Registration { mut instance, named, too_much_metadata } = strict_document(body, "instance")?;
    if too_much_metadata {
        return Err(DecodeError::new("instance", Reason::TooManyEntries));
    }
    take_id_from_metadata(&mut instance);
    named.then_some(instance).ok_or(DecodeError::new("instance", Reason::NoApp))
}

/// Sets a missing id from the metadata, where the first release of Spring Cloud sends it. Like a
/// Spring server, prefixes it with the host name, unless it begins with that.
fn take_id_from_metadata(instance: &mut Instance) {
    let (None, Some(host)) = (&instance.instance_id, &instance.host_name) else { return };
    let Some(id) = instance.metadata.get("instanceId").filter(|id| !id.trim().is_empty()) else { return };
    instance.instance_id = Some(if id.starts_with(&**host) { id.into() } else { format!("{host}:{id}").into() });
}

pub(super) fn application_document(body: &[u8]) -> Result<Application, DecodeError> {
    let members: ApplicationMembers<Instance> = match document(body, "application") {
        Err(error) if error.is_malformed() => return readable_application(body).ok_or(error),
        read => read?,
    };
    let mut faults = Faults::default();
    let application = application(members.map(Arc::new), "application", &mut faults)?;
    faults.log();
    Ok(application)
}

/// Reads an application without the instances that are not JSON.
fn readable_application(body: &[u8]) -> Option<Application> {
    let mut decoder = ListDecoder::new(Known::default(), usize::MAX);
    for piece in [b"{\"applications\":", without_mark(body), b"}"] {
        decoder.push(piece).ok()?;
    }
    decoder.finish().ok()?.list.applications.into_iter().next().map(Arc::unwrap_or_clone)
}

pub(super) fn applications_document(body: &[u8]) -> Result<Applications, DecodeError> {
    let mut decoder = ListDecoder::new(Known::default(), usize::MAX);
    decoder.push(body)?;
    Ok(decoder.finish()?.list)
}

pub(super) fn replication_list(body: &[u8]) -> Result<ReplicationList, DecodeError> {
    let items = batch(body)?.into_iter().map(|BatchItem { item, too_much_metadata }| {
        if too_much_metadata { Err(DecodeError::new("replicationList", Reason::TooManyEntries)) } else { Ok(item) }
    });
    items.collect::<Result<_, _>>().map(ReplicationList)
}

/// Reads a batch like [`replication_list`], but marks an item with too much metadata in place of
/// failing.
pub(crate) fn batch(body: &[u8]) -> Result<Vec<BatchItem>, DecodeError> {
    let BatchItems(members) = document(body, "replicationList")?;
    let items = members.into_iter().map(|members| {
        let mut read =
            members.item().map_err(|word| DecodeError::new("replicationList", Reason::UnknownAction(word)))?;
        read.item.instance.iter_mut().for_each(take_id_from_metadata);
        Ok(read)
    });
    items.collect()
}

pub(super) fn replication_response(body: &[u8]) -> Result<ReplicationResponse, DecodeError> {
    let members: Vec<BatchResponseMembers> = document(body, "responseList")?;
    Ok(ReplicationResponse(members.into_iter().map(|members| members.0).collect()))
}
