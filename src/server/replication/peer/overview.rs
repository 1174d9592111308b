//! State of a peer as operators see it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Peer;
use crate::error::Error;

/// State of a peer.
#[derive(Clone, Debug)]
pub(in crate::server) struct PeerOverview {
    pub(in crate::server) url: Arc<str>,
    /// The URL leads to this node itself.
    pub(in crate::server) is_own: bool,
    /// The peer responded to the last request and took the last batch.
    pub(in crate::server) is_available: bool,
    /// Number of changes and heartbeats that wait or are in flight.
    pub(in crate::server) backlog: usize,
    /// Time for which the first of them has waited. Zero if none waits.
    pub(in crate::server) lag: Duration,
    /// Time since the first of the failures that last. Zero without a failure.
    pub(in crate::server) outage: Duration,
    /// Number of changes that waited too long or were dropped from a full queue.
    pub(in crate::server) dropped: u64,
    /// Last error of a request, and the time since then.
    pub(in crate::server) last_error: Option<(Arc<str>, Duration)>,
}

/// Last error of a request to a peer.
#[derive(Debug)]
pub(super) struct LastError {
    text: Arc<str>,
    at: Instant,
}

impl Peer {
    /// Returns the present state of the peer and of its queue.
    pub(in crate::server) fn overview(&self) -> PeerOverview {
        let now = Instant::now();
        let last_error = self.last_error.lock().as_ref().map(|last| (last.text.clone(), now - last.at));
        let (is_own, is_available, url) = (self.is_own(), self.is_available(), self.url().as_str().clone());
        let queue = self.queue();
        PeerOverview {
            url,
            is_own,
            is_available,
            backlog: queue.backlog(),
            lag: queue.lag(now),
            outage: queue.outage(now),
            dropped: queue.counters().expired + queue.counters().overflowed,
            last_error,
        }
    }

    /// Records the error of a request.
    pub(super) fn note_error(&self, error: &Error) {
        *self.last_error.lock() = Some(LastError { text: error.to_string().into(), at: Instant::now() });
    }
}
