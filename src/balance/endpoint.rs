//! What a pick reads of an endpoint and a call writes.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::eject::{Cause, Control, Rules};
use super::load::{Load, Tick, elapsed, tick};

/// Tells the endpoints of one balancer apart. Never used again: an endpoint that was replaced has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(super) u64);

/// How long after a look at a failing endpoint the next one may be, in ticks: about a tenth of a second.
const LOOK_AGAIN: Tick = 100;

/// The measurements of one endpoint. Fits in one cache line, and shares it with nobody.
#[repr(align(64))]
pub(super) struct Stats {
    pub(super) load: Load,
    /// The last 64 calls, the newest in the lowest bit: 1 for a failure. Starts as if all had been answered.
    history: AtomicU64,
    /// What of a probation is open: see the constants.
    probe: AtomicU8,
    pub(super) details: Box<Details>,
}

/// Not in probation.
const NO_PROBE: u8 = 0;
/// The next call that comes is the probe.
const PROBE_WANTED: u8 = 1;
/// A call is on its way that decides.
const PROBE_TAKEN: u8 = 2;

/// What only failures and logs need.
pub(super) struct Details {
    pub(super) id: EndpointId,
    pub(super) app: Option<Arc<str>>,
    pub(super) instance: Arc<str>,
    pub(super) penalty: Duration,
    pub(super) rules: Rules,
    pub(super) control: Weak<dyn Control>,
    pub(super) base: Instant,
    /// How many calls failed since the last sweep.
    pub(super) failed: AtomicU32,
    /// When it was last looked at for an ejection; 0 for never.
    pub(super) looked: AtomicU32,
}

impl Stats {
    pub(super) fn new(load: Load, details: Details) -> Self {
        Self { load, history: AtomicU64::new(0), probe: AtomicU8::new(NO_PROBE), details: Box::new(details) }
    }

    /// How many of the last 64 calls failed.
    pub(super) fn failures(&self) -> u32 {
        self.history.load(Ordering::Relaxed).count_ones()
    }

    /// How many of the last calls failed in a row.
    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.history.load(Ordering::Relaxed).trailing_ones()
    }

    /// A call succeeded. An endpoint without a recent failure, the usual case, is not even written to.
    pub(super) fn succeeded(&self) {
        if self.history.load(Ordering::Relaxed) != 0 {
            self.remember(0);
        }
    }

    /// A call failed. Tells the balancer where that is one failure too many.
    pub(super) fn failed(&self, cause: Cause, now: Instant) {
        self.remember(1);
        self.details.failed.fetch_add(1, Ordering::Relaxed);
        let Some(cause) = self.details.rules.suspect(cause, self.failures_in_a_row(), self.failures()) else { return };
        let now = tick(self.details.base, now).max(1);
        let looked = self.details.looked.load(Ordering::Relaxed);
        // Where all fail alike nobody is ejected: then not every failure should look at everybody again.
        if cause.is_certain() || looked == 0 || elapsed(looked, now) >= LOOK_AGAIN {
            self.details.looked.store(now, Ordering::Relaxed);
            self.details.tell(|control| control.suspected(self.details.id, cause));
        }
    }

    fn remember(&self, bit: u64) {
        let shift = |history: u64| Some(history << 1 | bit);
        let _ = self.history.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shift);
    }

    /// Forgets failures, as after a probation that went well.
    pub(super) fn forgive(&self) {
        self.history.store(0, Ordering::Relaxed);
        self.details.looked.store(0, Ordering::Relaxed);
    }

    /// How many calls failed since this was last asked.
    pub(super) fn take_failed(&self) -> u32 {
        self.details.failed.swap(0, Ordering::Relaxed)
    }

    /// Begins or ends a probation.
    pub(super) fn on_probation(&self, is: bool) {
        self.probe.store(if is { PROBE_WANTED } else { NO_PROBE }, Ordering::Relaxed);
    }

    pub(super) fn is_on_probation(&self) -> bool {
        self.probe.load(Ordering::Relaxed) != NO_PROBE
    }

    /// Makes this call the probe, if one is wanted.
    pub(super) fn take_probe(&self) -> bool {
        // Nearly always: a read is cheaper than an attempt to write.
        if self.probe.load(Ordering::Relaxed) != PROBE_WANTED {
            return false;
        }
        let taken = self.probe.compare_exchange(PROBE_WANTED, PROBE_TAKEN, Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok()
    }

    /// Leaves the probe to another call: this one was given up or says nothing.
    pub(super) fn return_probe(&self) {
        let _ = self.probe.compare_exchange(PROBE_TAKEN, PROBE_WANTED, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Details {
    /// Reaches the balancer, unless that is gone.
    pub(super) fn tell(&self, what: impl FnOnce(&dyn Control)) {
        if let Some(control) = self.control.upgrade() {
            what(&*control);
        }
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats")
            .field("instance", &self.details.instance)
            .field("load", &self.load)
            .field("failures", &self.failures())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pick_reads_fits_in_a_cache_line() {
        assert_eq!(size_of::<Stats>(), 64);
    }
}
