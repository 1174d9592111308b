//! Conversion of decoded lists, shared by JSON and XML.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{DecodeError, Reason};
use super::{Application, Instance, app_name};
use crate::untrusted::Quoted;

/// Decoded members of an application, with instances of this form.
pub(super) struct ApplicationMembers<T = Arc<Instance>> {
    pub(super) name: Option<Arc<str>>,
    pub(super) instances: Vec<T>,
}

impl<T> ApplicationMembers<T> {
    /// Converts the instances.
    pub(super) fn map<U>(self, convert: impl FnMut(T) -> U) -> ApplicationMembers<U> {
        ApplicationMembers { name: self.name, instances: self.instances.into_iter().map(convert).collect() }
    }
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
        .map(|name| app_name(&name))
        .ok_or(DecodeError::new(document, Reason::NoName))?;
    let identified = |mut instance: Arc<Instance>| {
        if instance.app.is_empty() {
            Arc::make_mut(&mut instance).app = name.clone();
        }
        if instance.id().is_empty() {
            log_skipped(
                "instance",
                format_args!("one of {} has no instanceId, no data center id and no hostName", Quoted(&name)),
            );
            return None;
        }
        Some(instance)
    };
    let instances = members.instances.into_iter().filter_map(identified).collect();
    Ok(Application { name, instances })
}

/// Logs that a record of a list is skipped. Only the first one of the process is a warning, since a
/// registry sends the same record again and again.
pub(super) fn log_skipped(record: &'static str, reason: impl fmt::Display) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if WARNED.swap(true, Ordering::Relaxed) {
        tracing::debug!("{record} skipped in a list: {reason}");
    } else {
        tracing::warn!("{record} skipped in a list: {reason} (further ones are logged at debug level)");
    }
}
