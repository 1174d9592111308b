//! Detection of a peer URL that leads to this node.
//!
//! A node recognises its own batches by an id that it sends with them. Behind a load balancer, some
//! connections lead to this node and others to another one:
//!
//! ```text
//!  unknown ── batch came back ──▶ own: nothing is sent, the URL is checked again later
//!  unknown ── peer responded ───▶ peer ── 4 batches in a row came back ──▶ own
//!  own ────── peer responded to a check ──▶ peer
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Number of batches in a row that have to come back before a URL that has led to another node
/// counts as this node's own.
const OWN_BATCHES: u32 = 4;

/// Knowledge about where the URL of a peer leads.
#[derive(Debug, Default)]
pub(super) struct Loopback {
    is_own: AtomicBool,
    /// Batches in a row that came back.
    own_batches: AtomicU32,
    /// At least one request came back.
    has_led_here: AtomicBool,
    /// At least one request reached another node.
    has_led_elsewhere: AtomicBool,
    /// The warning about a load balancer was logged.
    is_reported: AtomicBool,
}

impl Loopback {
    /// Returns true while the URL counts as this node's own.
    pub(super) fn is_own(&self) -> bool {
        self.is_own.load(Relaxed)
    }

    /// Records that one request came back.
    pub(super) fn note_returned(&self) {
        self.has_led_here.store(true, Relaxed);
    }

    /// Records that a batch came back on each of its connections. Returns true if the URL counts as
    /// this node's own from now on.
    pub(super) fn note_own_batch(&self) -> bool {
        let batches = self.own_batches.fetch_add(1, Relaxed) + 1;
        let is_own = batches >= if self.has_led_elsewhere.load(Relaxed) { OWN_BATCHES } else { 1 };
        if is_own {
            self.is_own.store(true, Relaxed);
        }
        is_own
    }

    /// Records that a request reached another node. Returns true the first time that this is known
    /// to alternate, so that it can be logged.
    pub(super) fn note_other(&self) -> bool {
        self.own_batches.store(0, Relaxed);
        self.has_led_elsewhere.store(true, Relaxed);
        self.has_led_here.load(Relaxed) && !self.is_reported.swap(true, Relaxed)
    }

    /// Records that a check reached another node: the URL is a peer's.
    pub(super) fn reset(&self) {
        self.is_own.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_that_led_elsewhere_is_own_after_four_batches_in_a_row() {
        let loopback = Loopback::default();
        assert!(loopback.note_own_batch() && loopback.is_own());
        loopback.note_other();
        loopback.reset();
        assert!(!loopback.is_own());
        for _ in 1..OWN_BATCHES {
            assert!(!loopback.note_own_batch());
        }
        loopback.note_other();
        for _ in 1..OWN_BATCHES {
            assert!(!loopback.note_own_batch());
        }
        assert!(loopback.note_own_batch() && loopback.is_own());
    }

    #[test]
    fn alternating_url_is_reported_once() {
        let loopback = Loopback::default();
        assert!(!loopback.note_other());
        loopback.note_returned();
        assert!(loopback.note_other());
        assert!(!loopback.note_other());
    }
}
