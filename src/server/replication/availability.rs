//! Availability of a peer, with a log line when it changes.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use crate::error::Error;
use crate::server::audit::{Lasting, Ongoing};

const UNKNOWN: u8 = 0;
const FOUND: u8 = 1;
const LOST: u8 = 2;

/// Availability of a peer: it responded to the last request, and took the last batch that reached
/// it.
#[derive(Debug, Default)]
pub(super) struct Availability {
    /// The peer responded to the last request.
    responds: AtomicBool,
    /// The peer responded to the last batch with an error.
    refuses: AtomicBool,
    /// State at the last call of [`changed`](Self::changed).
    known: AtomicU8,
    lost: Ongoing,
}

impl Availability {
    pub(super) fn is_available(&self) -> bool {
        self.responds.load(Relaxed) && !self.refuses.load(Relaxed)
    }

    pub(super) fn set_responds(&self, responds: bool) {
        self.responds.store(responds, Relaxed);
    }

    /// Returns true if the peer responded to the last batch with an error.
    pub(super) fn is_refusing(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    /// Records whether the peer refused a batch. Returns true if it refused the one before.
    pub(super) fn set_refuses(&self, refuses: bool) -> bool {
        self.refuses.swap(refuses, Relaxed)
    }

    /// Returns the availability if it changed since the last call, and logs that the peer was found
    /// or lost. `error` is that of the last request.
    ///
    /// A peer that comes and goes has at most two lines a minute.
    pub(super) fn changed(&self, peer: &str, error: Option<&Error>) -> Option<bool> {
        let is_available = self.is_available();
        let now = if is_available { FOUND } else { LOST };
        let before = self.known.swap(now, Relaxed);
        if before == now {
            return None;
        }
        if now == FOUND {
            let lost = self.lost.ended();
            if before == UNKNOWN {
                tracing::info!(%peer, "peer found");
            } else if let Some(Lasting { elapsed, .. }) = lost {
                tracing::info!(%peer, ?elapsed, "peer found again");
            }
        } else if self.lost.occurred().is_some() {
            let error = error.map(tracing::field::display);
            if before == UNKNOWN {
                tracing::warn!(%peer, error, "peer not found yet");
            } else {
                tracing::warn!(%peer, error, "peer lost");
            }
        }
        Some(is_available)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn peer_that_refuses_batches_is_not_available() {
        let peer = Availability::default();
        assert!(!peer.is_available(), "before the first request");
        peer.set_responds(true);
        assert!(peer.is_available());
        peer.set_refuses(true);
        assert!(!peer.is_available());
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_comes_and_goes_has_two_lines_a_minute() {
        let peer = Availability::default();
        for _ in 0..91 {
            for responds in [true, false] {
                peer.set_responds(responds);
                assert_eq!(peer.changed("http://peer/", None), Some(responds));
                assert_eq!(peer.changed("http://peer/", None), None);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        let Some(Lasting { count, .. }) = peer.lost.ended() else { panic!("the last loss has a line") };
        assert_eq!((peer.lost.ended(), count), (None, 30));
    }
}
