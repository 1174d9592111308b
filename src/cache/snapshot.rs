use std::collections::BTreeMap;
use std::sync::Arc;

use super::vip_index::VipIndex;
use crate::model::{Application, app_name};

/// Immutable copy of the registry at one point in time. A refresh creates a new snapshot, which
/// shares unchanged applications with the previous one.
///
/// [`Selection::instances`](crate::discover::Selection::instances) returns the selected instances
/// of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) applications: BTreeMap<Arc<str>, Arc<Application>>,
    pub(super) vips: Arc<VipIndex>,
}

impl Snapshot {
    /// Returns an application by its name, which is not case-sensitive.
    pub fn application(&self, name: &str) -> Option<&Arc<Application>> {
        self.applications.get(name).or_else(|| self.applications.get(&app_name(name)))
    }

    #[cfg(all(test, feature = "peers"))]
    pub(crate) fn of(applications: impl IntoIterator<Item = Arc<Application>>) -> Self {
        let applications = applications.into_iter().map(|application| (application.name.clone(), application));
        Self { applications: applications.collect(), vips: Arc::default() }
    }

    /// Returns all applications that have an instance, in order of their names.
    pub fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.applications.values()
    }

    /// Returns the number of instances of any status.
    pub fn instance_count(&self) -> usize {
        self.applications.values().map(|application| application.instances.len()).sum()
    }
}
