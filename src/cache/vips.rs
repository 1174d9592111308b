use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::{Application, Instance, app_name};

/// Which applications have an instance that carries a VIP address.
///
/// Kept as applications change, at the cost of those that did; a look-up then reads the instances
/// of these applications only.
#[derive(Clone, Debug, Default)]
pub(super) struct VipIndex {
    plain: Names,
    secure: Names,
}

/// From an upper-case VIP address to the names of applications.
type Names = HashMap<Arc<str>, BTreeSet<Arc<str>>>;

impl VipIndex {
    pub(super) fn plain(&self, vip: &str) -> impl Iterator<Item = &Arc<str>> {
        self.plain.get(vip).into_iter().flatten()
    }

    pub(super) fn secure(&self, vip: &str) -> impl Iterator<Item = &Arc<str>> {
        self.secure.get(vip).into_iter().flatten()
    }

    /// Follows what leads from one state of the applications to the next. Copies the index only if
    /// an application gained or lost an address, which is rare.
    pub(super) fn update(
        index: &mut Arc<Self>,
        before: &BTreeMap<Arc<str>, Arc<Application>>,
        after: &BTreeMap<Arc<str>, Arc<Application>>,
    ) {
        for (name, known, now) in changed(before, after) {
            let moves = Moves::between(known, now, |instance| instance.vip_address.as_ref());
            if !moves.is_empty() {
                moves.apply(&mut Arc::make_mut(index).plain, name);
            }
            let moves = Moves::between(known, now, |instance| instance.secure_vip_address.as_ref());
            if !moves.is_empty() {
                moves.apply(&mut Arc::make_mut(index).secure, name);
            }
        }
    }
}

/// The addresses that one application gained and lost.
struct Moves {
    gone: BTreeSet<Arc<str>>,
    come: BTreeSet<Arc<str>>,
}

impl Moves {
    fn between(
        known: Option<&Application>,
        now: Option<&Application>,
        list: fn(&Instance) -> Option<&Arc<str>>,
    ) -> Self {
        let (mut gone, mut come) = (addresses(known, list), addresses(now, list));
        gone.retain(|vip| !come.remove(vip));
        Self { gone, come }
    }

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }

    fn apply(self, names: &mut Names, app: &Arc<str>) {
        for vip in self.gone {
            if let Some(apps) = names.get_mut(&vip) {
                apps.remove(app);
                if apps.is_empty() {
                    names.remove(&vip);
                }
            }
        }
        for vip in self.come {
            names.entry(vip).or_default().insert(app.clone());
        }
    }
}

/// Upper case, each once. Instances of an application nearly always carry the same list, so that
/// each is read once.
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

type Changed<'a> = (&'a Arc<str>, Option<&'a Application>, Option<&'a Application>);

/// The applications of either state that are not the same `Arc` in the other.
fn changed<'a>(
    before: &'a BTreeMap<Arc<str>, Arc<Application>>,
    after: &'a BTreeMap<Arc<str>, Arc<Application>>,
) -> impl Iterator<Item = Changed<'a>> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let known = match (before.peek(), after.peek()) {
                (None, None) => return None,
                (Some((known, _)), Some((now, _))) if known > now => None,
                (None, Some(_)) => None,
                _ => before.next(),
            };
            let now = after.next_if(|(now, _)| known.is_none_or(|(known, _)| known == *now));
            match (known, now) {
                (Some((_, known)), Some((_, now))) if Arc::ptr_eq(known, now) => {}
                (Some((name, known)), now) => return Some((name, Some(&**known), now.map(|(_, now)| &**now))),
                (None, Some((name, now))) => return Some((name, None, Some(&**now))),
                (None, None) => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Applications = BTreeMap<Arc<str>, Arc<Application>>;

    /// `APP` to the VIP lists of its instances.
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
    fn tells_the_applications_of_a_vip_through_every_change() {
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
        assert!(index.plain.is_empty() && index.secure.is_empty(), "nothing is left behind: {index:?}");
    }

    #[test]
    fn is_the_same_index_while_no_address_moves() {
        let mut index = Arc::<VipIndex>::default();
        let before = applications(&[("A", &["a", "a"]), ("B", &["b"])]);
        VipIndex::update(&mut index, &BTreeMap::new(), &before);
        let known = index.clone();
        VipIndex::update(&mut index, &before, &applications(&[("A", &["a"]), ("B", &["b"])]));
        assert!(Arc::ptr_eq(&known, &index));
        assert_eq!(index.secure("S-A").count(), 1);
    }
}
