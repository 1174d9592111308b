use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::cache::lookup::Lookup;
use crate::cache::mirror::has_same_instances;
use crate::cache::snapshot::Snapshot;
use crate::cache::vip_index::VipIndex;
use crate::model::Application;

/// Builds the snapshot of the names in use. Unchanged applications are the same `Arc` as in the
/// snapshot before.
#[derive(Debug)]
pub(super) struct Merged {
    /// Static instances of applications that the registry does not have.
    fixed: Vec<Arc<Application>>,
    published: BTreeMap<Arc<str>, Arc<Application>>,
    vips: Arc<VipIndex>,
}

impl Merged {
    pub(super) fn new(fixed: Vec<Arc<Application>>) -> Self {
        Self { fixed, published: BTreeMap::new(), vips: Arc::default() }
    }

    /// Merges lists. An application may be part of several: its own, and those of its VIP
    /// addresses. Of two versions of an instance, the one in the earlier list is used.
    pub(super) fn lists<'a>(&mut self, lists: impl Iterator<Item = &'a Snapshot>, names: Vec<Lookup>) -> Snapshot {
        let mut applications = BTreeMap::<Arc<str>, Arc<Application>>::new();
        for application in lists.flat_map(Snapshot::applications) {
            match applications.entry(application.name.clone()) {
                Entry::Vacant(vacant) => drop(vacant.insert(application.clone())),
                Entry::Occupied(mut merged) => {
                    let known: HashSet<&str> = merged.get().instances.iter().map(|instance| instance.id()).collect();
                    let more = application.instances.iter().filter(|instance| !known.contains(instance.id()));
                    let more: Vec<_> = more.cloned().collect();
                    if !more.is_empty() {
                        Arc::make_mut(merged.get_mut()).instances.extend(more);
                    }
                }
            }
        }
        for fixed in &self.fixed {
            applications.entry(fixed.name.clone()).or_insert_with(|| fixed.clone());
        }
        for (name, application) in &mut applications {
            // A static application stays the `Arc` by which it is recognized.
            if let Some(known) = self.published.get(name).filter(|known| has_same_instances(known, application)) {
                application.clone_from(known);
            }
        }
        self.publish(applications, names)
    }

    /// Returns the applications of the names in a snapshot of the whole registry.
    pub(super) fn of_whole(&mut self, whole: &Snapshot, names: Vec<Lookup>) -> Snapshot {
        let sources = names.iter().flat_map(|name| name.sources(whole).into_own());
        let fixed = self.fixed.iter().filter_map(|fixed| whole.application(&fixed.name).cloned());
        let applications = sources.chain(fixed).map(|application| (application.name.clone(), application)).collect();
        self.publish(applications, names)
    }

    fn publish(&mut self, applications: BTreeMap<Arc<str>, Arc<Application>>, names: Vec<Lookup>) -> Snapshot {
        VipIndex::update(&mut self.vips, &self.published, &applications);
        self.published.clone_from(&applications);
        Snapshot::partial(applications, self.vips.clone(), names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;

    fn application(name: &str, ids: &[&str]) -> Arc<Application> {
        let instance =
            |id: &&str| Arc::new(Instance { instance_id: Some((*id).into()), ..Instance::bare(name.into()) });
        Arc::new(Application { name: name.into(), instances: ids.iter().map(instance).collect() })
    }

    #[test]
    fn unchanged_and_static_applications_stay_the_same_arcs() {
        let (fixed, listed) = (application("A", &["static"]), application("A", &["a"]));
        let mut merged = Merged::new(vec![fixed.clone()]);
        let mut merge = |lists: &[Arc<Application>]| {
            let lists: Vec<_> = lists.iter().map(|list| Snapshot::of([list.clone()])).collect();
            merged.lists(lists.iter(), Vec::new()).application("a").unwrap().clone()
        };
        assert!(Arc::ptr_eq(&merge(std::slice::from_ref(&listed)), &listed));
        assert!(Arc::ptr_eq(&merge(&[]), &fixed), "the file recognizes static instances by their `Arc`");
        let lists = [listed, application("A", &["b"])];
        let both = merge(&lists);
        assert_eq!(both.instances.len(), 2);
        assert!(Arc::ptr_eq(&merge(&lists), &both), "the lists did not change");
    }
}
