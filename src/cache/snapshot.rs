use std::collections::BTreeMap;
use std::sync::Arc;

use super::vips::VipIndex;
use super::{Lookup, Sources};
use crate::model::{Application, app_name};

/// The registry as a consumer last saw it. Immutable; a change makes a new one that shares what did
/// not change.
///
/// A [`Selection`](crate::discover::Selection) finds its
/// [`instances`](crate::discover::Selection::instances) in it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) applications: BTreeMap<Arc<str>, Arc<Application>>,
    pub(super) vips: Arc<VipIndex>,
}

impl Snapshot {
    /// An application by its name, in any case.
    pub fn application(&self, name: &str) -> Option<&Arc<Application>> {
        self.applications.get(name).or_else(|| self.applications.get(&app_name(name)))
    }

    #[cfg(all(test, feature = "peers"))]
    pub(crate) fn of(applications: impl IntoIterator<Item = Arc<Application>>) -> Self {
        let applications = applications.into_iter().map(|application| (application.name.clone(), application));
        Self { applications: applications.collect(), vips: Arc::default() }
    }

    /// The applications behind a look-up.
    pub(crate) fn sources(&self, lookup: &Lookup) -> Sources {
        lookup.sources(self)
    }

    /// All applications that have an instance, by name.
    pub fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.applications.values()
    }

    /// Number of instances, whatever their status.
    pub fn instance_count(&self) -> usize {
        self.applications.values().map(|application| application.instances.len()).sum()
    }
}
