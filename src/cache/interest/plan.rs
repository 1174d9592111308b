//! The resources of the names in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::list::{Earlier, List};
use super::used::UsedRefresher;
use super::{Name, oldest};
use crate::cache::lookup::Lookup;
use crate::config::Interest;
use crate::error::Error;
use crate::transport::Resource;

/// Maximum number of applications that are kept for names that are not used any more.
const MAX_REMEMBERED: usize = 1_000;

impl UsedRefresher {
    /// Creates and removes lists, so that there is one for each resource of the names in use.
    /// Returns `true` if a new list has instances that were saved earlier.
    pub(super) fn plan(&mut self) -> bool {
        let names = self.interests.names();
        let needed: BTreeSet<Resource> = names.iter().flat_map(|(lookup, name)| self.resources(lookup, name)).collect();
        self.lists.retain(|resource, list| {
            let is_needed = needed.contains(resource);
            if !is_needed {
                remember(&mut self.restored, resource, list);
            }
            is_needed
        });
        let mut has_restored = false;
        for resource in needed {
            if !self.lists.contains_key(&resource) {
                let mut list = List::restored(&self.offline, &resource, &self.restored);
                if !self.has_responded || self.failing_since.is_some() {
                    // The first fetch may take longer than calls wait.
                    list.use_old();
                }
                has_restored |= !list.is_empty();
                self.lists.insert(resource, list);
            }
        }
        has_restored
    }

    /// Returns the resources of a name, as far as they can be known by now. Later ones depend on
    /// the responses for earlier ones.
    fn resources(&self, lookup: &Lookup, name: &Name) -> Vec<Resource> {
        let upper = lookup.name();
        match lookup {
            Lookup::App(_) => vec![Resource::App(Arc::clone(upper))],
            Lookup::Vip(_) => self.spellings(Resource::Vip, &name.vip),
            Lookup::SecureVip(_) => self.spellings(Resource::SecureVip, &name.vip),
            Lookup::Name(_) => {
                let (vip, app) = (Resource::Vip(name.vip.clone()), Resource::App(Arc::clone(upper)));
                // The application counts if no instance with the VIP address can be called.
                match (self.fetched(&vip), self.fetched(&app)) {
                    (None, _) => vec![vip],
                    (Some(with_vip), _) if with_vip.has_up() => vec![vip],
                    (Some(with_vip), Some(application)) if with_vip.is_empty() => {
                        let mut resources = match application.spelling(upper) {
                            Some(other) => vec![vip, Resource::Vip(other)],
                            None => self.spellings(Resource::Vip, &name.vip),
                        };
                        resources.push(app);
                        resources
                    }
                    _ => vec![vip, app],
                }
            }
        }
    }

    /// Returns the resource of a VIP address, and its other spellings as long as there is no
    /// instance under the first. Servers compare VIP addresses with case, and callers do not.
    fn spellings(&self, resource: fn(Arc<str>) -> Resource, vip: &Arc<str>) -> Vec<Resource> {
        let written = resource(vip.clone());
        let is_missing = self.fetched(&written).is_some_and(List::is_empty);
        let mut spellings = vec![written];
        if is_missing && self.config.interest == Interest::Used {
            for other in [vip.to_lowercase(), vip.to_uppercase()] {
                let other = resource(other.into());
                if !spellings.contains(&other) {
                    spellings.push(other);
                }
            }
        }
        spellings
    }

    /// Returns a list that was fetched.
    pub(super) fn fetched(&self, resource: &Resource) -> Option<&List> {
        self.lists.get(resource).filter(|list| list.updated.is_some())
    }

    /// Uses the spelling of each VIP address under which the server has instances.
    pub(super) fn learn_spellings(&self) {
        for (lookup, name) in self.interests.names() {
            let resource = match lookup {
                Lookup::App(_) => continue,
                Lookup::Vip(_) | Lookup::Name(_) => Resource::Vip,
                Lookup::SecureVip(_) => Resource::SecureVip,
            };
            let is_missing = self.fetched(&resource(name.vip.clone())).is_some_and(List::is_empty);
            let others = self.resources(&lookup, &name).into_iter().filter_map(|resource| match &resource {
                Resource::Vip(vip) | Resource::SecureVip(vip) => Some((vip.clone(), self.fetched(&resource)?)),
                Resource::App(_) => None,
            });
            let found = others.filter(|(_, list)| !list.is_empty()).map(|(vip, _)| vip).next();
            if let Some(vip) = found.filter(|_| is_missing) {
                self.interests.update(&lookup, |name| name.vip = vip);
            }
        }
    }

    /// Records at each name the time of its oldest list, or the error if one of its lists has
    /// failed.
    pub(super) fn mark_fetched(&self, failed: &BTreeMap<Resource, Arc<Error>>) {
        for (lookup, name) in self.interests.names() {
            let resources = self.resources(&lookup, &name);
            let error = resources.iter().find_map(|resource| failed.get(resource)).cloned();
            let oldest = oldest(resources.iter().map(|resource| self.lists.get(resource)?.updated));
            let is_empty = resources.iter().all(|resource| self.fetched(resource).is_some_and(List::is_empty));
            self.interests.update(&lookup, |name| {
                name.is_empty = is_empty;
                match error {
                    Some(error) => name.error = Some(error),
                    None if oldest.is_some() => (name.fetched, name.error) = (oldest, None),
                    None => {}
                }
            });
        }
    }

    /// Records an error at all names.
    pub(super) fn mark_failed(&self, error: &Error) {
        let error = Arc::new(error.without_source());
        self.interests.update_all(|name| name.error = Some(error.clone()));
    }
}

/// Keeps the instances of a list whose names are not used any more. A name that is used again has
/// them until it is fetched. A list that was never fetched is no news.
fn remember(restored: &mut Vec<Earlier>, resource: &Resource, list: &List) {
    let Some(fetched) = list.updated else { return };
    restored.retain(|known| !known.is_listed(resource));
    for application in list.snapshot.applications().filter(|application| !application.instances.is_empty()) {
        restored.retain(|known| known.application.name != application.name);
        restored.push(Earlier { application: application.clone(), fetched });
    }
    restored.drain(..restored.len().saturating_sub(MAX_REMEMBERED));
}
