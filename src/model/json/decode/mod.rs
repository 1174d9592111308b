//! Reads all JSON forms that Eureka servers and clients are known to write. `docs/protocol.md`,
//! "JSON format".
//!
//! A member of the wrong type is converted if possible, and skipped otherwise. In a list, an
//! instance without an id and an application without a name are skipped with a log line, so that
//! one bad record does not hide the others.

mod list;
mod members;
mod replication;
mod scalar;
mod shapes;

use std::sync::Arc;

use serde::Deserialize;

pub(crate) use self::list::{Known, ListDecoder};
use self::members::Document;
#[cfg(feature = "server")]
use self::members::Registration;
use self::replication::{BatchItems, BatchResponseMembers};
use crate::model::error::{DecodeError, Reason};
use crate::model::lists::{ApplicationMembers, application};
use crate::model::{Application, Applications, BatchItem, Instance, ReplicationList, ReplicationResponse};

/// Reads one member of the root object and ignores the others.
fn document<'de, T: Deserialize<'de>>(body: &'de [u8], name: &'static str) -> Result<T, DecodeError> {
    let fail = |reason| DecodeError::new(name, reason);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Document::new(name).read(&mut deserializer).map_err(|e| fail(Reason::Json(e)))?;
    deserializer.end().map_err(|e| fail(Reason::Json(e)))?;
    value.ok_or_else(|| fail(Reason::NoWrapper))
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
    let Registration { mut instance, named, too_much_metadata } = document(body, "instance")?;
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
    let members: ApplicationMembers<Instance> = document(body, "application")?;
    application(members.map(Arc::new), "application")
}

pub(super) fn applications_document(body: &[u8]) -> Result<Applications, DecodeError> {
    let mut decoder = ListDecoder::new(Known::default(), usize::MAX);
    decoder.push(body)?;
    decoder.finish()
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
