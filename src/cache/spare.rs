//! Changes of applications at the cost of the change.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Application, Instance};

/// Number of instances from which an application has a spare version.
const MIN_INSTANCES: usize = 32;

/// Versions of applications before the latest change.
///
/// A published application is never changed, so that a snapshot stays as it is. A copy of it takes
/// time for each of its instances. But the version before is usually not in use any more: it gets
/// the changes that it lacks, and becomes the next one.
#[derive(Debug, Default)]
pub(super) struct Spares(HashMap<Arc<str>, Spare>);

/// Version of an application that lacks some changes.
#[derive(Debug)]
struct Spare {
    application: Arc<Application>,
    lacking: Vec<Change>,
}

/// Change of the instances of an application.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Push(Arc<Instance>),
    Replace(usize, Arc<Instance>),
    Remove(usize),
}

impl Change {
    fn apply(self, instances: &mut Vec<Arc<Instance>>) {
        match self {
            Self::Push(instance) => instances.push(instance),
            Self::Replace(at, instance) => instances[at] = instance,
            Self::Remove(at) => drop(instances.remove(at)),
        }
    }
}

impl Spares {
    /// Changes an application. If it is published, it becomes another `Arc`.
    pub(super) fn change(&mut self, application: &mut Arc<Application>, change: Change) {
        if let Some(own) = Arc::get_mut(application) {
            if let Some(spare) = self.0.get_mut(&own.name) {
                spare.lacking.push(change.clone());
                // A copy is cheaper than many changes.
                if spare.lacking.len() > own.instances.len() / 2 {
                    self.0.remove(&own.name);
                }
            }
            change.apply(&mut own.instances);
            return;
        }
        let spare = self.0.remove(&application.name).and_then(Spare::completed);
        let mut next = spare.unwrap_or_else(|| application.clone());
        change.clone().apply(&mut Arc::make_mut(&mut next).instances);
        let before = std::mem::replace(application, next);
        if before.instances.len() >= MIN_INSTANCES {
            self.0.insert(before.name.clone(), Spare { application: before, lacking: vec![change] });
        }
    }

    /// Forgets an application that was removed.
    pub(super) fn remove(&mut self, app: &str) {
        self.0.remove(app);
    }

    /// Forgets the applications that were replaced.
    pub(super) fn retain(&mut self, is_unchanged: impl Fn(&str) -> bool) {
        self.0.retain(|app, _| is_unchanged(app));
    }
}

impl Spare {
    /// Returns the latest version, or `None` if this one is still in use.
    fn completed(mut self) -> Option<Arc<Application>> {
        let instances = &mut Arc::get_mut(&mut self.application)?.instances;
        self.lacking.into_iter().for_each(|change| change.apply(instances));
        Some(self.application)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance(id: usize) -> Arc<Instance> {
        Arc::new(Instance { instance_id: Some(id.to_string().into()), ..Instance::bare("A".into()) })
    }

    fn application(count: usize) -> Arc<Application> {
        Arc::new(Application { name: "A".into(), instances: (0..count).map(instance).collect() })
    }

    proptest! {
        /// Each step publishes the application or not, and keeps or drops an earlier version.
        #[test]
        fn changes_are_as_in_a_copy_and_published_versions_stay(
            steps in prop::collection::vec((0..4_usize, any::<usize>(), any::<bool>(), 0..4_usize), 1..60),
            count in 1..80_usize,
        ) {
            let (mut spares, mut changed) = (Spares::default(), application(count));
            let mut published = Vec::<(Arc<Application>, Application)>::new();
            for (number, (kind, at, publish, dropped)) in steps.into_iter().enumerate() {
                let mut expected = Application::clone(&changed);
                let (instance, at) = (instance(1_000 + number), at % expected.instances.len().max(1));
                let change = match kind {
                    0 if expected.instances.len() > 1 => Change::Remove(at),
                    1 if !expected.instances.is_empty() => Change::Replace(at, instance),
                    _ => Change::Push(instance),
                };
                change.clone().apply(&mut expected.instances);
                spares.change(&mut changed, change);
                prop_assert_eq!(&*changed, &expected);
                if publish {
                    published.push((changed.clone(), expected));
                }
                if dropped < published.len() {
                    published.remove(dropped);
                }
                for (published, expected) in &published {
                    prop_assert_eq!(&**published, expected);
                }
            }
        }
    }

    #[test]
    fn change_of_a_large_application_costs_the_same_as_of_a_small_one() {
        let allocated = |count: usize| {
            let (mut spares, mut changed) = (Spares::default(), application(count));
            let mut published = changed.clone();
            let mut change = |at| {
                spares.change(&mut changed, Change::Replace(at, instance(at)));
                published = changed.clone();
            };
            // The first two changes copy it.
            (0..2).for_each(&mut change);
            allocation_counter::measure(|| (0..20).for_each(&mut change)).bytes_total
        };
        assert!(allocated(10_000) <= allocated(100), "{} and {} bytes", allocated(10_000), allocated(100));
    }
}
