use std::collections::BTreeMap;
use std::sync::Arc;

use super::lookup::Lookup;
use super::vip_index::VipIndex;
use crate::model::{Application, Instance, StatusCounts, app_name};

/// Immutable copy of the registry at one point in time. A refresh creates a new snapshot, which
/// shares unchanged applications with the previous one.
///
/// [`Selection::instances`](crate::discover::Selection::instances) returns the selected instances
/// of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) applications: BTreeMap<Arc<str>, Arc<Application>>,
    pub(super) vips: Arc<VipIndex>,
    /// Copies of the remote regions, in the order of preference.
    pub(super) regions: Arc<[(Arc<str>, Snapshot)]>,
    /// Names that are fetched. `None` if the whole registry is.
    pub(super) names: Option<Arc<[Lookup]>>,
}

impl Snapshot {
    /// Returns an application by its name, which is not case-sensitive.
    pub fn application(&self, name: &str) -> Option<&Arc<Application>> {
        self.applications.get(name).or_else(|| self.applications.get(&app_name(name)))
    }

    /// Creates the snapshot of these names alone.
    pub(super) fn partial(
        applications: BTreeMap<Arc<str>, Arc<Application>>,
        vips: Arc<VipIndex>,
        names: Vec<Lookup>,
    ) -> Self {
        Self { applications, vips, regions: Arc::default(), names: Some(names.into()) }
    }

    /// Returns `true` if only the names in use are fetched.
    pub(crate) fn is_partial(&self) -> bool {
        self.names.is_some()
    }

    /// Returns `true` if the snapshot would have this instance if it were registered.
    pub(super) fn covers(&self, instance: &Instance) -> bool {
        self.names.as_ref().is_none_or(|names| names.iter().any(|name| name.is_for(instance.app(), instance)))
    }

    #[cfg(test)]
    pub(crate) fn of(applications: impl IntoIterator<Item = Arc<Application>>) -> Self {
        let applications = applications.into_iter().map(|application| (application.name.clone(), application));
        Self { applications: applications.collect(), ..Self::default() }
    }

    /// Returns all applications that have an instance, in order of their names.
    pub fn applications(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.applications.values()
    }

    /// Returns the names of the remote regions that are fetched, in the order in which they are
    /// used. They are set by [`EurekaBuilder::regions`](crate::EurekaBuilder::regions).
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.iter().map(|(name, _)| &**name)
    }

    /// Returns the copy of a remote region by its name, which is not case-sensitive. The snapshot
    /// itself is the copy of the own region, without the instances of remote ones.
    pub fn region(&self, name: &str) -> Option<&Snapshot> {
        self.regions.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, region)| region)
    }

    /// Returns the instance with this id, of any region.
    pub(crate) fn instance(&self, app: &str, id: &str) -> Option<&Arc<Instance>> {
        let own = self.application(app).and_then(|application| application.instance(id));
        own.or_else(|| self.regions.iter().find_map(|(_, region)| region.instance(app, id)))
    }

    /// Returns the number of instances of any status.
    pub fn instance_count(&self) -> usize {
        self.applications.values().map(|application| application.instances.len()).sum()
    }

    /// Counts the instances by status.
    pub fn counts(&self) -> StatusCounts {
        self.applications.values().flat_map(|application| &application.instances).map(|i| i.status()).collect()
    }
}
