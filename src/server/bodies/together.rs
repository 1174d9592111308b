//! Lists that show other regions beside the registry. `server-behaviour` 7.4.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::form::PerVariant;
use super::slot::Slot;
use crate::server::regions::{RegionSet, Regions, Union};
use crate::server::registry::{AppView, Registry};

/// Clients may name any of the regions together; the answers are kept of as many choices beside the usual one.
const KEPT: usize = 8;

/// The answers about several regions that were asked for.
#[derive(Debug)]
pub(super) struct Together {
    regions: Arc<Regions>,
    /// What those see who name no regions. It stays, whatever others ask for.
    usual: Arc<Shown>,
    /// Asked for last comes first.
    kept: Mutex<VecDeque<Arc<Shown>>>,
}

/// What some of the regions show together with the registry.
#[derive(Debug)]
pub(super) struct Shown {
    regions: Arc<Regions>,
    set: RegionSet,
    pub(super) full: Arc<PerVariant<Slot>>,
    pub(super) delta: Arc<PerVariant<Slot>>,
    /// The state of which the latest answers are, for those in other forms.
    latest: Mutex<Option<Arc<Union>>>,
}

impl Together {
    pub(super) fn new(regions: Arc<Regions>) -> Self {
        Self { usual: Shown::new(&regions, regions.fallback()), regions, kept: Mutex::default() }
    }

    /// What those see who name no regions; `None` if that is the registry alone.
    pub(super) fn usual(&self) -> Option<Arc<Shown>> {
        (!self.usual.set.is_empty()).then(|| self.usual.clone())
    }

    pub(super) fn of(&self, set: RegionSet) -> Arc<Shown> {
        if set == self.usual.set {
            return self.usual.clone();
        }
        let mut kept = lock(&self.kept);
        let at = kept.iter().position(|shown| shown.set == set);
        let shown = at.and_then(|at| kept.remove(at)).unwrap_or_else(|| Shown::new(&self.regions, set));
        kept.push_front(shown.clone());
        kept.truncate(KEPT);
        shown
    }

    /// An application that is not registered here.
    pub(super) fn application(&self, name: &str) -> Option<Arc<AppView>> {
        self.regions.application(name)
    }
}

impl Shown {
    fn new(regions: &Arc<Regions>, set: RegionSet) -> Arc<Self> {
        let regions = regions.clone();
        Arc::new(Self { regions, set, full: Arc::default(), delta: Arc::default(), latest: Mutex::default() })
    }

    pub(super) fn revision(&self, registry: &Registry) -> u64 {
        self.regions.revision(registry, self.set)
    }

    pub(super) fn delta_revision(&self, registry: &Registry) -> u64 {
        self.regions.delta_revision(registry, self.set)
    }

    /// The state now. What of it is encoded stays as long as it does not change.
    pub(super) fn union(&self, registry: &Registry) -> Arc<Union> {
        let mut latest = lock(&self.latest);
        let union = self.regions.union(registry, self.set, latest.take());
        *latest = Some(union.clone());
        union
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EurekaServer;

    #[tokio::test]
    async fn of_all_the_choices_of_regions_those_asked_for_last_are_kept() {
        let mut builder = EurekaServer::builder();
        for name in ["a", "b", "c", "d", "e"] {
            builder = builder.remote_region(name, "http://nowhere.invalid/");
        }
        let regions = Regions::new(&builder.regions, &builder.peers).unwrap().unwrap();
        let together = Together::new(regions.clone());
        let all = regions.fallback();
        let usual = together.of(all);
        let named = |number: usize| {
            let names = ["a", "b", "c", "d", "e"].iter().enumerate().filter(|(at, _)| number & 1 << at != 0);
            regions.named(&names.map(|(_, name)| *name).collect::<Vec<_>>().join(","))
        };
        let first = together.of(named(1));
        for number in 2..=1 + KEPT {
            assert!(Arc::ptr_eq(&together.of(named(1)), &first), "asked for again and again");
            together.of(named(number));
            assert!(lock(&together.kept).len() <= KEPT);
        }
        for number in 11..=10 + KEPT {
            together.of(named(number));
        }
        assert!(!Arc::ptr_eq(&together.of(named(1)), &first), "eight others were asked for since");
        assert!(Arc::ptr_eq(&together.of(all), &usual));
        assert_eq!(lock(&together.kept).len(), KEPT);
    }
}
