//! Order between changing an instance and telling it.

use crate::sync::{Mutex, MutexGuard};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Enough that writes to different instances seldom wait for each other.
const TURNS: usize = 64;

/// Who changes an instance and tells of it takes a turn, so that changes are told in the order in which they happened.
///
/// Heartbeats take none: one says the same wherever it stands.
#[derive(Debug)]
pub(in crate::server) struct Turns {
    turns: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl Turns {
    pub(in crate::server) fn new() -> Self {
        Self { turns: (0..TURNS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits for the turn of this instance. It lasts until the guard is dropped.
    pub(in crate::server) fn take(&self, app: &str, id: &str) -> MutexGuard<'_, ()> {
        let turn = &self.turns[self.hasher.hash_one((app, id)) as usize % TURNS];
        turn.lock()
    }
}
