//! Gate of a starting node: lists are served once it is open.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Gate before the lists of a node. Lists get 403 while it is closed. It never closes again.
#[derive(Debug)]
pub(in crate::server) struct Gate {
    open: AtomicBool,
    /// No instance registered in the time in which a node collects heartbeats.
    empty: AtomicBool,
    reason: Mutex<Reason>,
    started: Instant,
    /// Latest time at which the gate opens.
    limit: Instant,
}

/// Reason for the state of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Reason {
    /// Closed: the peers are being asked for the first time.
    Asking,
    /// Closed: the source of the list of peers has not responded yet.
    Unlisted,
    /// Closed: no peer was reached.
    Unreachable,
    /// Closed: the peers that were reached know no more than this node.
    Peers,
    /// Open: there are no peers.
    Single,
    /// Open: every peer's URL leads to this node.
    Alone,
    /// Open: the settings name no time to wait, or no copy to wait for.
    Unneeded,
    /// Open: a peer's registry was copied.
    Copied { peer: Arc<str>, instances: usize },
    /// Open: heartbeats were collected for two renewal intervals, and no peer knows more.
    Collected { reached: bool },
    /// Open: the time to wait is over.
    Late,
}

impl Gate {
    /// Creates the open gate of a node without peers.
    pub(in crate::server) fn single() -> Self {
        Self::new(Reason::Single, Duration::ZERO)
    }

    /// Creates the gate of a node with peers. It opens after `wait` at the latest. Without a time
    /// to wait, or a copy to wait for, it is open.
    pub(in crate::server) fn starting(wait: Duration, copies: bool) -> Self {
        Self::new(if wait.is_zero() || !copies { Reason::Unneeded } else { Reason::Asking }, wait)
    }

    /// A gate that is open if `reason` says so, and opens after `wait` at the latest.
    fn new(reason: Reason, wait: Duration) -> Self {
        let started = Instant::now();
        Self {
            open: reason.is_open().into(),
            empty: AtomicBool::new(false),
            reason: Mutex::new(reason),
            started,
            limit: started + wait,
        }
    }

    pub(in crate::server) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Returns the time at which the node began to collect heartbeats.
    pub(in crate::server) fn started(&self) -> Instant {
        self.started
    }

    pub(in crate::server) fn limit(&self) -> Instant {
        self.limit
    }

    /// Opens the gate and logs the reason. An open gate keeps its first reason.
    pub(in crate::server) fn open(&self, reason: Reason) {
        let mut current = self.lock();
        if self.open.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::info!(%reason, after = ?self.started.elapsed(), "open for traffic: lists are served from now on");
        *current = reason;
    }

    /// Records and logs the reason for which the gate is still closed.
    pub(in crate::server) fn stay_closed(&self, reason: Reason) {
        let mut current = self.lock();
        if self.is_open() || *current == reason {
            return;
        }
        let at_most = self.remaining();
        tracing::warn!(%reason, ?at_most, "not open for traffic yet: lists are refused with 403");
        *current = reason;
    }

    /// Records and logs that no instance has registered in the time for collecting heartbeats.
    pub(in crate::server) fn note_empty(&self) {
        if !self.is_open() && !self.empty.swap(true, Ordering::Relaxed) {
            tracing::warn!(at_most = ?self.remaining(), "not open for traffic yet: no instance has registered");
        }
    }

    /// Returns true if the gate is closed although peers responded.
    pub(in crate::server) fn has_reached_peers(&self) -> bool {
        *self.lock() == Reason::Peers
    }

    /// Returns the reason as a text, with the remaining time while the gate is closed.
    pub(in crate::server) fn describe(&self) -> String {
        let reason = self.lock().clone();
        if self.is_open() {
            return reason.to_string();
        }
        let empty = if self.empty.load(Ordering::Relaxed) { ", but no instance has registered yet" } else { "" };
        format!("{reason}{empty}; opens in {} s at the latest", self.remaining().as_secs())
    }

    fn remaining(&self) -> Duration {
        Duration::from_secs(self.limit.saturating_duration_since(Instant::now()).as_secs())
    }

    fn lock(&self) -> MutexGuard<'_, Reason> {
        self.reason.lock()
    }
}

impl Reason {
    fn is_open(&self) -> bool {
        !matches!(self, Self::Asking | Self::Unlisted | Self::Unreachable | Self::Peers)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asking => "the peers are being asked for their registries",
            Self::Unlisted => "the list of peers is not known yet, heartbeats are being collected",
            Self::Unreachable => "no peer has sent its registry, heartbeats are being collected",
            Self::Peers => "no peer knows more than this node, heartbeats are being collected",
            Self::Single => "no peers are configured",
            Self::Alone => {
                "every peer URL leads to this node; instances of other nodes behind a load balancer are missing until \
                 it leads to one of them"
            }
            Self::Unneeded => "the settings let it open without a copy of a peer's registry",
            Self::Copied { peer, instances } => {
                return write!(f, "{instances} instances were copied from {peer}");
            }
            Self::Collected { reached: true } => {
                "heartbeats were collected for two renewal intervals, and no peer knows more"
            }
            Self::Collected { reached: false } => {
                "heartbeats were collected for two renewal intervals, and no peer has sent its registry"
            }
            Self::Late => "the time to wait is over, without a copy of a peer's registry",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gate_that_opened_stays_open_for_the_first_reason() {
        let gate = Gate::new(Reason::Asking, Duration::from_secs(300));
        tokio::time::advance(Duration::from_secs(60)).await;
        gate.stay_closed(Reason::Unreachable);
        assert!(!gate.is_open());
        assert_eq!(
            gate.describe(),
            "no peer has sent its registry, heartbeats are being collected; opens in 240 s at the latest"
        );
        gate.open(Reason::Collected { reached: false });
        gate.open(Reason::Late);
        gate.stay_closed(Reason::Peers);
        assert!(gate.is_open());
        assert!(gate.describe().ends_with("and no peer has sent its registry"), "{}", gate.describe());
    }

    #[test]
    fn reason_decides_how_a_gate_begins() {
        for (reason, open) in [(Reason::Asking, false), (Reason::Single, true), (Reason::Unneeded, true)] {
            assert_eq!(Gate::new(reason, Duration::ZERO).is_open(), open);
        }
    }
}
