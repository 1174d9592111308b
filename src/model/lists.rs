//! Conversion of decoded lists, shared by JSON and XML.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use foldhash::quality::RandomState;

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

/// Instances of a document that are skipped, or repaired before they are read.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) skipped: usize,
    repaired: usize,
    /// First one that is new to the log.
    new: Option<Fault>,
}

/// Instance that is skipped or repaired.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) app: Box<str>,
    pub(super) id: Box<str>,
    pub(super) reason: String,
    /// Hash of the instance.
    pub(super) version: u64,
}

impl Faults {
    /// Maximum number of instances of one document that the log may be new to.
    const MAX_NEW: usize = 100;

    pub(super) fn skip(&mut self, fault: impl FnOnce() -> Fault) {
        self.skipped += 1;
        self.add(fault);
    }

    pub(super) fn repair(&mut self, fault: impl FnOnce() -> Fault) {
        self.repaired += 1;
        self.add(fault);
    }

    /// Returns `true` for an instance with an id. One without an id is skipped.
    pub(super) fn is_identified(&mut self, instance: &Instance, app: &str) -> bool {
        let is_identified = !instance.id().is_empty();
        if !is_identified {
            let reason = "it has no instanceId, no data center id and no hostName".into();
            self.skip(|| Fault { app: app.into(), id: Box::default(), reason, version: 0 });
        }
        is_identified
    }

    fn add(&mut self, fault: impl FnOnce() -> Fault) {
        if self.skipped + self.repaired > Self::MAX_NEW {
            return;
        }
        let fault = fault();
        if is_new(&fault) {
            self.new.get_or_insert(fault);
        }
    }

    /// Logs the number of instances and the first new one. There is no log line without a new one.
    pub(super) fn log(&self) {
        let Some(Fault { app, id, reason, .. }) = &self.new else { return };
        tracing::warn!(
            app = %Quoted(app),
            instance = %Quoted(id),
            skipped = self.skipped,
            repaired = self.repaired,
            "instance skipped or repaired in a list: {reason}"
        );
    }
}

/// Logs that a document was repaired before it was read, unless that was logged before.
pub(super) fn log_repaired(document: &'static str, error: &DecodeError) {
    let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), |source| source.to_string());
    let fault = Fault { app: Box::default(), id: Box::default(), reason, version: 0 };
    if is_new(&fault) {
        tracing::warn!("document '{document}' repaired: {}", fault.reason);
    }
}

/// Returns `true` for an instance that was not logged yet. A registry sends the same one again and
/// again.
fn is_new(Fault { app, id, reason, version }: &Fault) -> bool {
    const MAX_LOGGED: usize = 1_024;
    static LOGGED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.len() >= MAX_LOGGED {
        logged.clear();
    }
    logged.insert(SEED.hash_one((app, id, reason, version)))
}

/// Converts the applications of a list. Those without a name are skipped.
pub(super) fn applications(members: Vec<ApplicationMembers>, faults: &mut Faults) -> Vec<Arc<Application>> {
    let mut named = |members: ApplicationMembers| {
        let count = members.instances.len();
        match application(members, "applications", faults) {
            Ok(application) => Some(Arc::new(application)),
            Err(error) => {
                log_skipped("application", error);
                faults.skipped += count;
                None
            }
        }
    };
    members.into_iter().filter_map(&mut named).collect()
}

/// Converts an application. A missing name is taken from its instances, and their missing `app`
/// from the name. Instances without an id are skipped.
pub(super) fn application(
    members: ApplicationMembers,
    document: &'static str,
    faults: &mut Faults,
) -> Result<Application, DecodeError> {
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
        faults.is_identified(&instance, &name).then_some(instance)
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
