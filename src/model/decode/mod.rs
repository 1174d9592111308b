//! Reads all JSON forms that Eureka servers and clients are known to write. `docs/protocol.md`,
//! "JSON format".
//!
//! A member of the wrong type is converted if possible, and skipped otherwise. In a list, an
//! instance without an id and an application without a name are skipped with a log line, so that
//! one bad record does not hide the others.

mod members;
mod scalar;
mod shapes;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

pub(super) use self::members::ApplicationMembers;
#[cfg(feature = "server")]
use self::members::Registration;
use self::members::{ApplicationsMembers, BatchItems, BatchResponseMembers, Document};
use super::{
    Application, Applications, BatchItem, Instance, MAX_METADATA_ENTRIES, ReplicationList, ReplicationResponse,
};
use crate::shown::{Excerpt, Shown};

/// Error of a body that is not the expected document.
#[derive(Debug)]
pub struct DecodeError {
    document: &'static str,
    reason: Reason,
}

#[derive(Debug)]
pub(super) enum Reason {
    #[cfg(feature = "xml")]
    Xml(super::xml::XmlError),
    Json(serde_json::Error),
    NoWrapper,
    NoApp,
    NoName,
    UnknownAction(Arc<str>),
    /// An instance has more than [`MAX_METADATA_ENTRIES`].
    TooManyEntries,
}

impl DecodeError {
    pub(super) fn new(document: &'static str, reason: Reason) -> Self {
        Self { document, reason }
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
            Reason::NoWrapper => write!(f, "JSON without the root member '{document}'"),
            Reason::NoApp => write!(f, "'{document}' without 'app'"),
            Reason::NoName => write!(f, "an application without 'name'"),
            Reason::TooManyEntries => {
                write!(f, "'{document}' with more than {MAX_METADATA_ENTRIES} metadata entries")
            }
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

/// Reads one member of the root object and ignores the others.
fn document<'de, T: Deserialize<'de>>(body: &'de [u8], name: &'static str) -> Result<T, DecodeError> {
    let fail = |reason| DecodeError { document: name, reason };
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
    document(body, "application").and_then(|members| application(members, "application"))
}

pub(super) fn applications_document(body: &[u8]) -> Result<Applications, DecodeError> {
    let members: ApplicationsMembers = document(body, "applications")?;
    Ok(Applications { version: members.version, hash: members.hash, applications: applications(members.applications) })
}

/// Converts the applications of a list. Those without a name are skipped.
pub(super) fn applications(members: Vec<ApplicationMembers>) -> Vec<Arc<Application>> {
    let named = |members| match application(members, "applications") {
        Ok(application) => Some(Arc::new(application)),
        Err(error) => {
            log_skipped("application", error);
            None
        }
    };
    members.into_iter().filter_map(named).collect()
}

/// Converts an application. A missing name is taken from its instances, and their missing `app`
/// from the name. Instances without an id are skipped.
pub(super) fn application(members: ApplicationMembers, document: &'static str) -> Result<Application, DecodeError> {
    let name = members
        .name
        .filter(|name| !name.is_empty())
        .or_else(|| members.instances.iter().map(|i| i.app.clone()).find(|app| !app.is_empty()))
        .map(|name| super::app_name(&name))
        .ok_or(DecodeError { document, reason: Reason::NoName })?;
    let identified = |mut instance: Instance| {
        if instance.app.is_empty() {
            instance.app = name.clone();
        }
        if instance.id().is_empty() {
            log_skipped(
                "instance",
                format_args!("one of {} has no instanceId, no data center id and no hostName", Shown(&name)),
            );
            return None;
        }
        Some(Arc::new(instance))
    };
    let instances = members.instances.into_iter().filter_map(identified).collect();
    Ok(Application { name, instances })
}

/// Logs that a record of a list is skipped. Only the first one of the process is a warning, since a
/// registry sends the same record again and again.
fn log_skipped(record: &'static str, reason: impl fmt::Display) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.swap(true, Ordering::Relaxed) {
        tracing::debug!("{record} skipped in a list: {reason}");
    } else {
        tracing::warn!("{record} skipped in a list: {reason} (further ones are logged at debug level)");
    }
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
        let mut read = members
            .item()
            .map_err(|word| DecodeError { document: "replicationList", reason: Reason::UnknownAction(word) })?;
        read.item.instance.iter_mut().for_each(take_id_from_metadata);
        Ok(read)
    });
    items.collect()
}

pub(super) fn replication_response(body: &[u8]) -> Result<ReplicationResponse, DecodeError> {
    let members: Vec<BatchResponseMembers> = document(body, "responseList")?;
    Ok(ReplicationResponse(members.into_iter().map(|members| members.0).collect()))
}
