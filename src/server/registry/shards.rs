use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::fast::RandomState;

use super::lease::Lease;
use crate::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Number of shards. With 64, two cores seldom need the same one.
const SHARDS: usize = 64;

/// All leases, distributed by a hash of application and instance id.
///
/// Ids that were chosen for the same shard share its lock and nothing else, so the hash may be a
/// fast one. The maps of the shards have the hash of the standard library.
#[derive(Debug)]
pub(super) struct Shards {
    shards: Box<[Shard]>,
    hasher: RandomState,
}

impl Shards {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), hasher: RandomState::default() }
    }

    pub(super) fn shard(&self, app: &str, id: &str) -> &Shard {
        &self.shards[self.hasher.hash_one((app, id)) as usize % SHARDS]
    }

    pub(super) fn write(&self, app: &str, id: &str) -> RwLockWriteGuard<'_, Leases> {
        self.shard(app, id).write()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter()
    }

    /// Returns the number of renewals since the start.
    pub(super) fn renewals(&self) -> u64 {
        self.shards.iter().map(|shard| shard.renewals.load(Relaxed)).sum()
    }
}

/// Part of the leases, with its own lock and its own counter of renewals.
#[derive(Debug, Default)]
pub(super) struct Shard {
    leases: RwLock<Leases>,
    renewals: AtomicU64,
}

impl Shard {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Leases> {
        self.leases.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Leases> {
        self.leases.write()
    }

    pub(super) fn count_renewal(&self) {
        self.renewals.fetch_add(1, Relaxed);
    }
}

/// Leases by application and instance id. Lookups borrow both, so that a heartbeat allocates no
/// key.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<Key, Lease>);

#[derive(Debug)]
struct Key {
    app: Arc<str>,
    id: Arc<str>,
}

/// Common form of a key and a pair of strings, which hash and compare alike.
trait Named {
    fn names(&self) -> (&str, &str);
}

impl Leases {
    pub(super) fn get(&self, app: &str, id: &str) -> Option<&Lease> {
        self.0.get(&(app, id) as &dyn Named)
    }

    pub(super) fn get_mut(&mut self, app: &str, id: &str) -> Option<&mut Lease> {
        self.0.get_mut(&(app, id) as &dyn Named)
    }

    pub(super) fn insert(&mut self, app: Arc<str>, id: Arc<str>, lease: Lease) {
        self.0.insert(Key { app, id }, lease);
    }

    pub(super) fn remove(&mut self, app: &str, id: &str) -> Option<Lease> {
        self.0.remove(&(app, id) as &dyn Named)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Lease)> {
        self.0.iter().map(|(Key { app, id }, lease)| (app, id, lease))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &mut Lease)> {
        self.0.iter_mut().map(|(Key { app, id }, lease)| (app, id, lease))
    }
}

impl Named for Key {
    fn names(&self) -> (&str, &str) {
        (&self.app, &self.id)
    }
}

impl Named for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Named + 'a> for Key {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        // Ids differ more often than applications, and most of them in length.
        let ((app, id), (other_app, other_id)) = (self.names(), other.names());
        id == other_id && app == other_app
    }
}

impl Eq for dyn Named + '_ {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for Key {}
