//! Locks of applications, held from the decision about a change until it is applied.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::sync::{Mutex, MutexGuard};

/// Number of locks. Changes of different applications seldom wait for each other.
const LOCKS: usize = 64;

#[derive(Debug)]
pub(super) struct Claims(Box<[Mutex<()>]>);

/// Change that is being applied. Other changes of the application wait for it, so that its owner
/// stays the same from the decision on.
#[derive(Debug)]
#[must_use = "the change must be applied while the claim is held"]
pub(in crate::server) struct Claim<'c>(#[allow(dead_code, reason = "held for its lock")] MutexGuard<'c, ()>);

impl Claims {
    pub(super) fn new() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }

    pub(super) fn lock(&self, app: &str) -> Claim<'_> {
        let mut hasher = DefaultHasher::new();
        app.hash(&mut hasher);
        Claim(self.0[hasher.finish() as usize % LOCKS].lock())
    }
}
