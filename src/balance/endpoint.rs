//! What a pick reads of an endpoint and a call writes.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::atomic::{AtomicU32, Ordering};
use super::cells::{History, Trial};
use super::eject::{Cause, Control, Rules};
use super::load::{Load, Moment, Tick, elapsed};
use crate::meters::{Meters, Picks};

/// Tells the endpoints of one balancer apart. Never used again: an endpoint that was replaced has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(super) u64);

/// How long after a look at a failing endpoint the next one may be, in ticks: about a tenth of a second.
const LOOK_AGAIN: Tick = 100;

/// The measurements of one endpoint. As long as a cache line together with the two counts of its `Arc`.
#[repr(C)]
pub(super) struct Stats {
    pub(super) load: Load,
    pub(super) history: History,
    /// What of a probation is open.
    pub(super) trial: Trial,
    pub(super) details: Box<Details>,
}

/// What only failures and logs need.
pub(super) struct Details {
    pub(super) id: EndpointId,
    pub(super) app: Option<Arc<str>>,
    pub(super) instance: Arc<str>,
    pub(super) penalty: Duration,
    pub(super) rules: Rules,
    pub(super) control: Weak<dyn Control>,
    /// How many calls failed since the last sweep.
    pub(super) failed: AtomicU32,
    /// When it was last looked at for an ejection; 0 for never.
    pub(super) looked: AtomicU32,
    /// What its count of answers was when what was measured of it was forgotten last.
    pub(super) answered: AtomicU32,
    pub(super) meters: Meters,
    pub(super) picks: Picks,
}

impl Stats {
    pub(super) fn new(load: Load, details: Details) -> Self {
        Self { load, history: History::new(), trial: Trial::new(), details: Box::new(details) }
    }

    /// A call failed. Tells the balancer where that is one failure too many.
    pub(super) fn failed(&self, cause: Cause, now: Moment) {
        self.history.failed();
        self.details.failed.fetch_add(1, Ordering::Relaxed);
        let suspicion = self.details.rules.suspect(cause, self.history.in_a_row(), self.history.failures());
        let Some(cause) = suspicion else { return };
        let now = now.tick().max(1);
        let looked = self.details.looked.load(Ordering::Relaxed);
        // Where all fail alike nobody is ejected: then not every failure should look at everybody again.
        if cause.is_certain() || looked == 0 || elapsed(looked, now) >= LOOK_AGAIN {
            self.details.looked.store(now, Ordering::Relaxed);
            self.details.tell(|control| control.suspected(self.details.id, cause));
        }
    }

    /// Takes it for one that has just joined, at this cost.
    pub(super) fn renew(&self, cost: f32, now: Moment) {
        self.history.forget();
        self.details.looked.store(0, Ordering::Relaxed);
        self.load.reset(cost, now);
        self.details.answered.store(self.load.calls().answered(), Ordering::Relaxed);
    }

    /// Whether nothing has been measured of it yet.
    pub(super) fn is_new(&self) -> bool {
        self.load.calls().answered() == self.details.answered.load(Ordering::Relaxed)
    }

    /// How many calls failed since this was last asked.
    pub(super) fn take_failed(&self) -> u32 {
        self.details.failed.swap(0, Ordering::Relaxed)
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
            .field("failures", &self.history.failures())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_write_is_a_cache_line_with_the_counts_of_its_arc() {
        assert_eq!((size_of::<Stats>(), align_of::<Stats>()), (48, 8));
    }
}
