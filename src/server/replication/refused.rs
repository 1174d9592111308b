//! Copies that a registry refused because of their size or because it is full. A refused copy is
//! not sent again while it stays the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::queue::Target;
use crate::server::registry::Version;

/// Maximum number of refused copies that are remembered.
const LIMIT: usize = 50_000;
/// Time after which an unchanged copy is tried again.
const PAUSE: Duration = Duration::from_secs(3600);
/// Minimum time between two runs that remove older entries.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Refused copies, by instance.
#[derive(Debug, Default)]
pub(in crate::server) struct RefusedCopies {
    copies: HashMap<Arc<Target>, Copy>,
    pruned: Option<Instant>,
}

#[derive(Debug)]
struct Copy {
    version: Version,
    at: Instant,
    /// The registry was full.
    for_room: bool,
}

impl RefusedCopies {
    /// Remembers a refused copy. Beyond the limit nothing is remembered.
    pub(in crate::server) fn insert(&mut self, target: Arc<Target>, version: Version, for_room: bool) {
        self.prune();
        if self.copies.len() < LIMIT || self.copies.contains_key(&target) {
            self.copies.insert(target, Copy { version, at: Instant::now(), for_room });
        }
    }

    /// Returns true if this copy was refused and may not be tried again yet.
    pub(in crate::server) fn holds(&self, target: &Target, version: Version) -> bool {
        self.copies.get(target).is_some_and(|copy| copy.version == version && copy.at.elapsed() < PAUSE)
    }

    pub(in crate::server) fn remove(&mut self, target: &Target) {
        self.copies.remove(target);
    }

    /// Removes the copies that were refused by a full registry.
    pub(in crate::server) fn forget_for_room(&mut self) {
        self.copies.retain(|_, copy| !copy.for_room);
    }

    /// Removes the copies that may be tried again, once a minute.
    pub(in crate::server) fn prune(&mut self) {
        if self.copies.is_empty() || self.pruned.is_some_and(|pruned| pruned.elapsed() < PRUNE_INTERVAL) {
            return;
        }
        self.pruned = Some(Instant::now());
        self.copies.retain(|_, copy| copy.at.elapsed() < PAUSE);
    }

    pub(in crate::server) fn len(&self) -> usize {
        self.copies.len()
    }

    pub(in crate::server) fn is_full(&self) -> bool {
        self.copies.len() >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;

    fn target(id: usize) -> Arc<Target> {
        Arc::new(Target { app: "APP".into(), id: id.to_string().into() })
    }

    fn version(dirty: i64) -> Version {
        let mut instance =
            Instance::builder("APP").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
        instance.last_dirty_timestamp = Some(dirty);
        Version::of(&instance)
    }

    #[tokio::test(start_paused = true)]
    async fn refused_copy_is_remembered_for_an_hour_or_until_it_changes() {
        let mut refused = RefusedCopies::default();
        refused.insert(target(1), version(1), false);
        refused.insert(target(2), version(1), true);
        assert!(refused.holds(&target(1), version(1)) && refused.holds(&target(2), version(1)));
        assert!(!refused.holds(&target(1), version(2)) && !refused.holds(&target(3), version(1)));
        refused.forget_for_room();
        assert!(refused.holds(&target(1), version(1)) && !refused.holds(&target(2), version(1)));
        tokio::time::advance(PAUSE).await;
        assert!(!refused.holds(&target(1), version(1)));
        refused.prune();
        assert_eq!(refused.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_copies_beyond_the_limit_are_not_remembered() {
        let mut refused = RefusedCopies::default();
        for id in 0..LIMIT + 2 {
            refused.insert(target(id), version(1), false);
        }
        assert_eq!(refused.len(), LIMIT);
        assert!(refused.is_full() && !refused.holds(&target(LIMIT), version(1)));
        refused.insert(target(0), version(2), false);
        assert!(refused.holds(&target(0), version(2)));
    }
}
