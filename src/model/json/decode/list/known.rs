//! Instances that were decoded before.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::model::{Application, Instance};

/// Instances that were decoded before, found by their fingerprints.
///
/// A list usually has the same instances in the same order again, so the one behind the latest that
/// was found is tried first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    applications: Vec<Arc<Application>>,
    count: usize,
    /// Position of the instance that is tried first.
    next: Position,
    /// Positions of all instances. Created when an instance is not the one that is tried first.
    by_hash: Option<HashMap<u64, Position, RandomState>>,
}

/// Application and instance in it.
type Position = (usize, usize);

impl Known {
    #[cfg(any(test, feature = "client"))]
    pub(crate) fn new(applications: Vec<Arc<Application>>) -> Self {
        let count = applications.iter().map(|application| application.instances.len()).sum();
        Self { applications, count, ..Self::default() }
    }

    /// Returns the number of instances.
    #[cfg(feature = "client")]
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Returns the instance with this fingerprint.
    pub(super) fn get(&mut self, hash: u64) -> Option<&Arc<Instance>> {
        if self.count == 0 {
            return None;
        }
        self.skip_ended();
        let (app, at) = match self.at(self.next) {
            Some(next) if next.fingerprint.get() == Some(hash) => self.next,
            _ => match self.index().get(&hash) {
                Some(found) => *found,
                None => {
                    // The instance probably replaces the one that was expected.
                    self.next.1 += 1;
                    return None;
                }
            },
        };
        self.next = (app, at + 1);
        self.at((app, at))
    }

    fn at(&self, (app, at): Position) -> Option<&Arc<Instance>> {
        self.applications.get(app)?.instances.get(at)
    }

    /// Moves the next position from the end of an application to the following one.
    fn skip_ended(&mut self) {
        while self.applications.get(self.next.0).is_some_and(|app| self.next.1 >= app.instances.len()) {
            self.next = (self.next.0 + 1, 0);
        }
    }

    fn index(&mut self) -> &HashMap<u64, Position, RandomState> {
        self.by_hash.get_or_insert_with(|| {
            let mut index = HashMap::with_capacity_and_hasher(self.count, RandomState::default());
            for (app, application) in self.applications.iter().enumerate() {
                for (at, instance) in application.instances.iter().enumerate() {
                    if let Some(hash) = instance.fingerprint.get() {
                        index.insert(hash, (app, at));
                    }
                }
            }
            index
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_found_in_any_order() {
        let instance = |hash: u64| {
            let instance = Instance::bare("A".into());
            instance.fingerprint.set(Some(hash));
            Arc::new(instance)
        };
        let app = |hashes: &[u64]| {
            let instances = hashes.iter().map(|hash| instance(*hash)).collect();
            Arc::new(Application { name: "A".into(), instances })
        };
        let apps = [app(&[1, 2, 3]), app(&[]), app(&[4]), app(&[]), app(&[5, 6])];
        for order in
            [&[1, 2, 3, 4, 5, 6][..], &[9, 2, 9, 4, 9, 9, 9, 1], &[5, 6, 1, 3, 3, 4, 2, 9], &[9, 9, 9, 9, 9, 9, 9]]
        {
            let mut known = Known::new(apps.to_vec());
            for &hash in order {
                let found = known.get(hash).and_then(|instance| instance.fingerprint.get());
                assert_eq!(found, Some(hash).filter(|hash| *hash < 9), "{order:?}");
            }
        }
        assert!(Known::default().get(1).is_none());
    }
}
