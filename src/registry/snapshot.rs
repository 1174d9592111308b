use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Application, app_name};

/// The registry as a consumer last saw it. Immutable; a change makes a new one that shares what did not change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) applications: BTreeMap<Arc<str>, Arc<Application>>,
}

impl Snapshot {
    /// An application by its name, in any case.
    pub fn application(&self, name: &str) -> Option<&Arc<Application>> {
        self.applications.get(name).or_else(|| self.applications.get(&app_name(name)))
    }

    /// All applications that have an instance, by name.
    pub fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.applications.values()
    }

    /// How many instances there are, whatever their status.
    pub fn instance_count(&self) -> usize {
        self.applications.values().map(|application| application.instances.len()).sum()
    }
}
