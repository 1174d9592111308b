//! Locks that keep the order of the changes of an instance.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::sync::{Mutex, MutexGuard};

/// Number of locks: enough that writes to different instances seldom wait for each other.
const STRIPES: usize = 64;

/// Striped locks of instances.
///
/// A lock is held while an instance is changed and the change is queued for the peers, so that
/// changes are replicated in the order in which they were made. Heartbeats take no lock, since
/// their order does not matter.
#[derive(Debug)]
pub(in crate::server) struct StripedLocks {
    stripes: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl StripedLocks {
    pub(in crate::server) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits for the lock of this instance.
    pub(in crate::server) fn lock(&self, app: &str, id: &str) -> MutexGuard<'_, ()> {
        let stripe = &self.stripes[self.hasher.hash_one((app, id)) as usize % STRIPES];
        stripe.lock()
    }
}
