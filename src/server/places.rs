//! Fair order of the sources that share a queue.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sync::Mutex;

/// Places in front of a queue: each source has one at a time, so that the work of one source does
/// not wait for all work of another.
#[derive(Debug)]
pub(super) struct Places<K>(Arc<Mutex<Sources<K>>>);

/// Number of waiters of each source, and the semaphore of its place.
type Sources<K> = HashMap<K, (usize, Arc<Semaphore>)>;

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Eq + Hash> Places<K> {
    /// Counts a waiter of a source until it is dropped.
    pub(super) fn waiter(&self, source: K) -> Waiter<K> {
        let mut sources = self.0.lock();
        let (waiters, place) = sources.entry(source).or_insert_with(|| (0, Arc::new(Semaphore::new(1))));
        *waiters += 1;
        Waiter { sources: self.0.clone(), source, place: place.clone(), number: *waiters }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// Work of a source that waits for its place, or has it.
#[derive(Debug)]
pub(super) struct Waiter<K: Copy + Eq + Hash> {
    sources: Arc<Mutex<Sources<K>>>,
    source: K,
    place: Arc<Semaphore>,
    number: usize,
}

impl<K: Copy + Eq + Hash> Waiter<K> {
    /// Returns the number of waiters that the source had with this one.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Waits for the place of the source.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        self.place.clone().acquire_owned().await.expect("semaphore is never closed")
    }
}

impl<K: Copy + Eq + Hash> Drop for Waiter<K> {
    fn drop(&mut self) {
        let mut sources = self.sources.lock();
        if let Entry::Occupied(mut entry) = sources.entry(self.source) {
            entry.get_mut().0 -= 1;
            if entry.get().0 == 0 {
                entry.remove();
            }
        }
    }
}
