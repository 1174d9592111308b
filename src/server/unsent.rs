use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::Notify;

/// Responses of at most this size are small: they may fill the budget twice.
const SMALL: usize = 16 * 1024;

/// Budget of the response bytes that are in memory only because a client has not taken them yet.
///
/// A list counts from the moment at which no cache holds it any more, once for all its readers. A
/// body that was made for one response counts from the start. Lists in a cache do not count:
/// their number is bounded already.
#[derive(Debug)]
pub(crate) struct Unsent {
    limit: usize,
    bytes: AtomicUsize,
    exhausted: Notify,
}

impl Unsent {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: AtomicUsize::new(0), exhausted: Notify::new() }
    }

    /// Returns true if so many more bytes fit. Where not, [`exhausted`](Self::exhausted) completes.
    ///
    /// A body counts for no more than half of the budget here, so that one which is larger is
    /// still sent.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let limit = if bytes <= SMALL { self.limit.saturating_mul(2) } else { self.limit };
        let has_room = self.bytes.load(Relaxed).saturating_add(bytes.min(self.limit / 2)) <= limit;
        if !has_room {
            self.exhausted.notify_one();
        }
        has_room
    }

    /// Completes once the budget was found exhausted since the last call.
    pub(super) async fn exhausted(&self) {
        self.exhausted.notified().await;
    }

    /// Returns true if a small part of the budget is left at most.
    pub(super) fn is_exhausted(&self) -> bool {
        self.bytes() > self.limit / 4 * 3
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.limit {
            self.exhausted.notify_one();
        }
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Returns bytes that are removed from the budget once their last copy is dropped. The caller
    /// adds them when it drops its own copy.
    pub(super) fn counted(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Counted { bytes, unsent: self.clone() })
    }
}

struct Counted {
    bytes: Bytes,
    unsent: Arc<Unsent>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unsent.remove(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_response_has_room_when_a_large_one_has_none() {
        let unsent = Unsent::new(1_000_000);
        assert!(unsent.has_room_for(usize::MAX), "nothing is held");
        unsent.add(900_000);
        assert!(unsent.has_room_for(100_000) && !unsent.has_room_for(100_001));
        unsent.add(1_000_000);
        assert!(unsent.has_room_for(1_000) && !unsent.has_room_for(SMALL + 1));
        unsent.add(100_000);
        assert!(!unsent.has_room_for(1));
    }

    #[test]
    fn budget_without_bytes_takes_what_is_made_next() {
        assert!(Unsent::new(0).has_room_for(1_000_000));
        let unsent = Unsent::new(usize::MAX);
        unsent.add(usize::MAX / 2);
        assert!(unsent.has_room_for(usize::MAX));
    }
}
