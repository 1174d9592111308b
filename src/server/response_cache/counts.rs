//! Counters of the responses that were cached or built, which the metrics show.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(super) struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Counts {
    pub(super) fn add_hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }

    /// Counts a response. It is a miss if the request waited for a build.
    pub(super) fn add(&self, is_hit: bool) {
        if is_hit { &self.hits } else { &self.misses }.fetch_add(1, Relaxed);
    }

    #[cfg(feature = "prometheus")]
    pub(super) fn hits_and_misses(&self) -> [u64; 2] {
        [&self.hits, &self.misses].map(|count| count.load(Relaxed))
    }
}
