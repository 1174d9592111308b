use std::collections::VecDeque;

use tokio::time::Instant;

use crate::server::view::RegionSet;

/// Maximum number of entries. Clients may combine the regions freely, so there are far more
/// combinations than can be cached.
pub(super) const CAPACITY: usize = 8;

/// LRU cache keyed by the regions that a client requested.
#[derive(Debug)]
pub(super) struct LruCache<T>(VecDeque<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    regions: RegionSet,
    used: Instant,
    value: T,
}

impl<T> LruCache<T> {
    pub(super) fn get(&mut self, regions: RegionSet) -> Option<&mut T> {
        let position = self.0.iter().position(|entry| entry.regions == regions)?;
        let entry = self.0.remove(position)?;
        Some(self.push_front(entry.regions, entry.value))
    }

    pub(super) fn get_or_insert_with(&mut self, regions: RegionSet, create: impl FnOnce() -> T) -> &mut T {
        if self.get(regions).is_none() {
            self.push_front(regions, create());
        }
        &mut self.0[0].value
    }

    /// Removes the entries that were last used before this time.
    pub(super) fn evict_unused_since(&mut self, time: Instant) {
        self.0.retain(|entry| entry.used >= time);
    }

    fn push_front(&mut self, regions: RegionSet, value: T) -> &mut T {
        self.0.truncate(CAPACITY - 1);
        self.0.push_front(Entry { regions, used: Instant::now(), value });
        &mut self.0[0].value
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T> Default for LruCache<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn full_cache_keeps_the_most_recently_used_entries() {
        let mut cache = LruCache::default();
        let choices = || (1..).map(RegionSet::of);
        for choice in choices().take(CAPACITY) {
            assert_eq!(*cache.get_or_insert_with(choice, || choice), choice);
        }
        let first = RegionSet::of(1);
        for choice in choices().skip(CAPACITY).take(CAPACITY - 1) {
            assert_eq!(cache.get(first), Some(&mut first.clone()), "used again and again");
            cache.get_or_insert_with(choice, || choice);
            assert_eq!(cache.len(), CAPACITY);
        }
        assert_eq!(cache.get(RegionSet::of(2)), None, "others were used since");
        cache.get_or_insert_with(first, || panic!("it is cached"));

        tokio::time::advance(Duration::from_secs(1)).await;
        let now = Instant::now();
        cache.get(first);
        cache.evict_unused_since(now);
        assert_eq!((cache.len(), cache.get(first).is_some()), (1, true));
    }
}
