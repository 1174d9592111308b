//! Number of published instances by status.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::changed::{Differing, changed};
use super::snapshot::Snapshot;
use crate::model::StatusCounts;

/// Counts of a snapshot. An update reads only the applications that changed.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The snapshot that was counted last.
    counted: Arc<Snapshot>,
    counts: StatusCounts,
}

impl Tally {
    /// Returns the number of applications of the published snapshot, and of instances by status.
    /// Counts only if the feature `metrics` asks for it.
    pub(super) fn count(&mut self, published: &ArcSwap<Snapshot>) -> (usize, StatusCounts) {
        if cfg!(feature = "metrics") {
            self.update(published.load_full());
        }
        (self.counted.applications.len(), self.counts)
    }

    fn update(&mut self, snapshot: Arc<Snapshot>) {
        for (_, known, now) in changed(&self.counted.applications, &snapshot.applications) {
            let differing = Differing::between(known, now);
            differing.known.iter().for_each(|instance| self.counts.remove(instance.status()));
            differing.now.iter().for_each(|instance| self.counts.add(instance.status()));
        }
        self.counted = snapshot;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Application, Instance, InstanceStatus};

    proptest! {
        /// Each state has other instances of up to three applications.
        #[test]
        fn counts_after_each_change_are_those_of_the_whole_snapshot(
            states in prop::collection::vec(prop::collection::vec((0..3_usize, 0..12_usize), 0..10), 1..8),
        ) {
            let known: Vec<_> = (0..12).map(|number| {
                let status = InstanceStatus::ALL[number % 3];
                Arc::new(Instance { status, ..Instance::bare("A".into()) })
            }).collect();
            let mut tally = Tally::default();
            for state in states {
                let applications = ["A", "B", "C"].into_iter().enumerate().filter_map(|(app, name)| {
                    let listed = state.iter().filter(|(of, _)| *of == app).map(|(_, at)| known[*at].clone());
                    let instances: Vec<_> = listed.collect();
                    (!instances.is_empty()).then(|| Arc::new(Application { name: name.into(), instances }))
                });
                let snapshot = Arc::new(Snapshot::of(applications));
                tally.update(snapshot.clone());
                prop_assert_eq!(tally.counts, snapshot.counts());
            }
        }
    }
}
