use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::changed::{Differing, changed};
use crate::model::{Application, Instance, app_name};

/// Index from VIP addresses to the applications that have instances with them.
///
/// It is updated at the cost of the applications that changed. A lookup then reads the instances of
/// the indexed applications only.
#[derive(Clone, Debug, Default)]
pub(super) struct VipIndex {
    plain: Names,
    secure: Names,
}

/// Names of applications by VIP address in upper case.
type Names = HashMap<Arc<str>, BTreeSet<Arc<str>>>;

impl VipIndex {
    pub(super) fn plain(&self, vip: &str) -> impl Iterator<Item = &Arc<str>> {
        self.plain.get(vip).into_iter().flatten()
    }

    pub(super) fn secure(&self, vip: &str) -> impl Iterator<Item = &Arc<str>> {
        self.secure.get(vip).into_iter().flatten()
    }

    /// Updates the index from one state of the applications to the next. The index is copied only
    /// if an application gained or lost an address, which is rare.
    pub(super) fn update(
        index: &mut Arc<Self>,
        before: &BTreeMap<Arc<str>, Arc<Application>>,
        after: &BTreeMap<Arc<str>, Arc<Application>>,
    ) {
        for (name, known, now) in changed(before, after) {
            let differing = Differing::between(known, now);
            let changes = VipChanges::between(known, now, differing, |instance| instance.vip_address.as_ref());
            if !changes.is_empty() {
                changes.apply(&mut Arc::make_mut(index).plain, name);
            }
            let changes = VipChanges::between(known, now, differing, |instance| instance.secure_vip_address.as_ref());
            if !changes.is_empty() {
                changes.apply(&mut Arc::make_mut(index).secure, name);
            }
        }
    }
}

/// VIP addresses that one application lost and gained.
struct VipChanges {
    removed: BTreeSet<Arc<str>>,
    added: BTreeSet<Arc<str>>,
}

impl VipChanges {
    fn between(
        known: Option<&Application>,
        now: Option<&Application>,
        differing: Differing<'_>,
        list: fn(&Instance) -> Option<&Arc<str>>,
    ) -> Self {
        if has_same_addresses(differing, list) {
            return Self { removed: BTreeSet::new(), added: BTreeSet::new() };
        }
        let (mut removed, mut added) = (addresses(known, list), addresses(now, list));
        removed.retain(|vip| !added.remove(vip));
        Self { removed, added }
    }

    fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    fn apply(self, names: &mut Names, app: &Arc<str>) {
        for vip in self.removed {
            if let Some(apps) = names.get_mut(&vip) {
                apps.remove(app);
                if apps.is_empty() {
                    names.remove(&vip);
                }
            }
        }
        for vip in self.added {
            names.entry(vip).or_default().insert(app.clone());
        }
    }
}

/// Returns `true` if all instances that differ have the same list of addresses as one that stayed.
/// That is the usual case, and it is found without reading the other instances.
fn has_same_addresses(differing: Differing<'_>, list: fn(&Instance) -> Option<&Arc<str>>) -> bool {
    let Differing { known, now, stayed } = differing;
    stayed.is_some_and(|stayed| known.iter().chain(now).all(|changed| list(changed) == list(stayed)))
}

/// Returns the distinct addresses of an application in upper case. Nearly all instances of an
/// application have the same list, so equal lists are parsed once.
fn addresses(app: Option<&Application>, list: fn(&Instance) -> Option<&Arc<str>>) -> BTreeSet<Arc<str>> {
    let mut lists: Vec<&Arc<str>> = Vec::new();
    for instance in app.into_iter().flat_map(|app| &app.instances) {
        if let Some(list) = list(instance)
            && lists.last() != Some(&list)
        {
            lists.push(list);
        }
    }
    lists.sort_unstable();
    lists.dedup();
    lists.into_iter().flat_map(|list| list.split(',')).map(str::trim).filter(|v| !v.is_empty()).map(app_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Applications = BTreeMap<Arc<str>, Arc<Application>>;

    /// Builds applications from pairs of a name and the VIP lists of the instances.
    fn applications(apps: &[(&str, &[&str])]) -> Applications {
        let instance = |vips: &&str| {
            let secure = Some(format!("s-{vips}").into());
            Arc::new(Instance {
                vip_address: Some((*vips).into()),
                secure_vip_address: secure,
                ..Instance::bare("X".into())
            })
        };
        let application = |(name, vips): &(&str, &[&str])| {
            let instances = vips.iter().map(instance).collect();
            ((*name).into(), Arc::new(Application { name: (*name).into(), instances }))
        };
        apps.iter().map(application).collect()
    }

    fn found(index: &VipIndex, vip: &str) -> Vec<String> {
        index.plain(vip).map(ToString::to_string).collect()
    }

    #[test]
    fn index_after_every_change_has_the_applications_of_each_vip() {
        let states = [
            applications(&[]),
            applications(&[("A", &["a, shared"]), ("B", &["b,Shared"]), ("C", &["c"])]),
            applications(&[("B", &["b", "b", "SHARED"]), ("C", &["c"]), ("D", &["a"])]),
            applications(&[("C", &["a,c,x"])]),
            applications(&[]),
        ];
        let mut index = Arc::<VipIndex>::default();
        let expected: [[&[&str]; 3]; 5] = [
            [&[], &[], &[]],
            [&["A"], &["B"], &["A", "B"]],
            [&["D"], &["B"], &["B"]],
            [&["C"], &[], &[]],
            [&[], &[], &[]],
        ];
        for (at, expected) in expected.iter().enumerate() {
            if at > 0 {
                VipIndex::update(&mut index, &states[at - 1], &states[at]);
            }
            for (vip, apps) in ["A", "B", "SHARED"].into_iter().zip(expected) {
                assert_eq!(found(&index, vip), *apps, "state {at}, {vip}");
            }
        }
        assert!(index.plain.is_empty() && index.secure.is_empty(), "empty entries are removed: {index:?}");
    }

    #[test]
    fn update_without_changed_addresses_keeps_the_same_index() {
        let mut index = Arc::<VipIndex>::default();
        let before = applications(&[("A", &["a", "a"]), ("B", &["b"])]);
        VipIndex::update(&mut index, &BTreeMap::new(), &before);
        let known = index.clone();
        VipIndex::update(&mut index, &before, &applications(&[("A", &["a"]), ("B", &["b"])]));
        assert!(Arc::ptr_eq(&known, &index));
        assert_eq!(index.secure("S-A").count(), 1);
    }
}
