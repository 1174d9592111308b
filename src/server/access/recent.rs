//! Bounded cache of the results of recent authentications.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::RwLock;

/// Results by credentials, of which only a keyed hash is stored. A result is kept for some time
/// after its last use.
#[derive(Debug)]
pub(super) struct Recent<V> {
    keyed: Keyed,
    origin: Instant,
    /// Time for which an unused result is kept.
    idle: Duration,
    capacity: usize,
    state: RwLock<State<V>>,
}

#[derive(Debug)]
struct State<V> {
    entries: HashMap<Key, Entry<V>>,
    /// Number of times that results were removed because they may have changed.
    generation: u64,
    /// Time of the last removal of results that are not valid. It is at most one a second, since it
    /// reads all entries while no other caller can use the cache.
    swept: Option<Instant>,
}

/// Hash function of 128 bits with a random key, so that nobody can find credentials with the hash
/// of others, and the time of a look-up shows nothing about credentials.
#[derive(Debug, Default)]
pub(super) struct Keyed([RandomState; 2]);

impl Keyed {
    pub(super) fn key(&self, credentials: impl Hash + Copy) -> Key {
        let [first, second] = &self.0;
        Key(first.hash_one(credentials), second.hash_one(credentials))
    }
}

/// Keyed hash of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, u64);

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// Milliseconds from the origin to the last use.
    used: AtomicU64,
    expires: Option<Instant>,
}

/// Proof that a verification began after results were removed last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generation(u64);

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Number of results of which a full cache removes the one that was not used for longest.
const EVICTION_SAMPLE: usize = 16;

impl<V> Recent<V> {
    pub(super) fn new(capacity: usize, idle: Duration) -> Self {
        Self {
            keyed: Keyed::default(),
            origin: Instant::now(),
            idle,
            capacity,
            state: RwLock::new(State { entries: HashMap::new(), generation: 0, swept: None }),
        }
    }

    pub(super) fn key(&self, credentials: impl Hash + Copy) -> Key {
        self.keyed.key(credentials)
    }

    /// Returns a part of a result that is still valid, and restarts its time.
    pub(super) fn get<P>(&self, key: Key, part: impl FnOnce(&V) -> P) -> Option<P> {
        let state = self.state.read();
        let entry = state.entries.get(&key).filter(|entry| self.is_valid(entry))?;
        entry.used.store(self.now(), Relaxed);
        Some(part(&entry.value))
    }

    pub(super) fn generation(&self) -> Generation {
        Generation(self.state.read().generation)
    }

    /// Stores a result, unless results were removed since the verification began.
    pub(super) fn insert(&self, key: Key, value: V, expires: Option<Instant>, Generation(began): Generation) {
        let mut state = self.state.write();
        if state.generation != began {
            return;
        }
        let now = Instant::now();
        if state.entries.len() >= self.capacity && state.swept.is_none_or(|swept| now >= swept + SWEEP_INTERVAL) {
            state.entries.retain(|_, entry| self.is_valid(entry));
            state.swept = Some(now);
        }
        if state.entries.len() >= self.capacity {
            let some = state.entries.iter().take(EVICTION_SAMPLE);
            let oldest = some.min_by_key(|(_, entry)| entry.used.load(Relaxed)).map(|(&oldest, _)| oldest);
            oldest.map(|oldest| state.entries.remove(&oldest));
        }
        state.entries.insert(key, Entry { value, used: self.now().into(), expires });
    }

    /// Removes the results that may have changed, and those of all verifications that are running.
    pub(super) fn retain(&self, mut is_unchanged: impl FnMut(&V) -> bool) {
        let mut state = self.state.write();
        state.generation += 1;
        state.entries.retain(|_, entry| is_unchanged(&entry.value));
    }

    fn is_valid(&self, entry: &Entry<V>) -> bool {
        let idle_ms = self.now().saturating_sub(entry.used.load(Relaxed));
        u128::from(idle_ms) < self.idle.as_millis() && entry.expires.is_none_or(|expires| Instant::now() < expires)
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn result_is_kept_while_it_is_used_and_until_it_expires() {
        let recent = Recent::new(10, 60 * SECOND);
        let [used, unused, expiring] = ["a", "b", "c"].map(|text| recent.key(text.as_bytes()));
        recent.insert(used, 1, None, recent.generation());
        recent.insert(unused, 2, None, recent.generation());
        recent.insert(expiring, 3, Some(Instant::now() + 70 * SECOND), recent.generation());
        let get = |key| recent.get(key, |value| *value);
        for _ in 0..2 {
            advance(30 * SECOND).await;
            assert_eq!([get(used), get(expiring)], [Some(1), Some(3)]);
        }
        assert_eq!(get(unused), None);
        advance(10 * SECOND).await;
        assert_eq!([get(used), get(expiring)], [Some(1), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn changed_results_are_removed_with_those_of_earlier_verifications() {
        let recent = Recent::new(10, SECOND);
        let get = |key| recent.get(key, |value| *value);
        let ([a, b, c], began) = (["a", "b", "c"].map(|text| recent.key(text.as_bytes())), recent.generation());
        recent.insert(a, 1, None, began);
        recent.insert(b, 2, None, began);
        recent.retain(|value| *value == 1);
        recent.insert(c, 3, None, began);
        assert_eq!([a, b, c].map(get), [Some(1), None, None]);
        recent.insert(c, 3, None, recent.generation());
        assert_eq!(get(c), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn full_cache_removes_a_result_that_was_not_used_for_long() {
        let recent = Recent::new(EVICTION_SAMPLE, 1_000 * SECOND);
        let used = recent.key(&b"used"[..]);
        recent.insert(used, 0, None, recent.generation());
        for n in 1..100_u8 {
            advance(SECOND).await;
            recent.insert(recent.key(&[n][..]), n, None, recent.generation());
            advance(SECOND).await;
            assert_eq!(recent.get(used, |value| *value), Some(0), "{n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_cache_stays_within_its_capacity() {
        let recent = Recent::new(3, SECOND);
        for n in 0..100_u8 {
            recent.insert(recent.key(&[n][..]), n, None, recent.generation());
            assert_eq!(recent.get(recent.key(&[n][..]), |value| *value), Some(n));
        }
        assert_eq!(recent.state.read().entries.len(), 3);
    }
}
