use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

/// Index of applications by the ids of their instances.
#[derive(Debug, Default)]
pub(super) struct IdIndex(HashMap<Arc<str>, Apps>);

/// Applications that have an instance with one id. Nearly every id is unique.
#[derive(Debug)]
enum Apps {
    One(Arc<str>),
    Several(BTreeSet<Arc<str>>),
}

impl IdIndex {
    pub(super) fn insert(&mut self, id: Arc<str>, app: &Arc<str>) {
        match self.0.get_mut(&id) {
            None => drop(self.0.insert(id, Apps::One(app.clone()))),
            Some(Apps::One(known)) if known == app => {}
            Some(apps @ Apps::One(_)) => {
                let Apps::One(known) = std::mem::replace(apps, Apps::Several(BTreeSet::new())) else { return };
                *apps = Apps::Several([known, app.clone()].into());
            }
            Some(Apps::Several(all)) => drop(all.insert(app.clone())),
        }
    }

    pub(super) fn remove(&mut self, id: &str, app: &str) {
        let is_last = match self.0.get_mut(id) {
            None => false,
            Some(Apps::One(known)) => **known == *app,
            Some(Apps::Several(all)) => {
                all.remove(app);
                all.is_empty()
            }
        };
        if is_last {
            self.0.remove(id);
        }
    }

    /// Returns the first application by name that has an instance with this id, or the first one
    /// after `after`.
    pub(super) fn application(&self, id: &str, after: Option<&str>) -> Option<Arc<str>> {
        match self.0.get(id)? {
            Apps::One(app) => Some(app).filter(|app| after.is_none_or(|after| after < &***app)).cloned(),
            Apps::Several(all) => match after {
                None => all.first().cloned(),
                Some(after) => all.range::<str, _>((Excluded(after), Unbounded)).next().cloned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applications_of_an_id_are_sorted_and_removed_with_their_instances() {
        let mut ids = IdIndex::default();
        let all = |ids: &IdIndex| {
            let mut apps = Vec::<Arc<str>>::new();
            while let Some(app) = ids.application("i", apps.last().map(AsRef::as_ref)) {
                apps.push(app);
            }
            apps.join(" ")
        };
        assert_eq!(all(&ids), "");
        for (app, expected) in [("B", "B"), ("B", "B"), ("C", "B C"), ("A", "A B C"), ("A", "A B C")] {
            ids.insert("i".into(), &app.into());
            assert_eq!(all(&ids), expected);
        }
        ids.insert("other".into(), &"A".into());
        for (app, expected) in [("X", "A B C"), ("A", "B C"), ("C", "B"), ("X", "B"), ("B", "")] {
            ids.remove("i", app);
            assert_eq!(all(&ids), expected);
        }
        ids.remove("other", "A");
        assert!(ids.0.is_empty());
    }
}
