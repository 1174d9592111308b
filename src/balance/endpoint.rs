//! Measurements of an endpoint, which picks read and calls write.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::ages::{Ages, Ledger};
use super::atomic::{AtomicU32, Ordering};
use super::cells::{Counted, History, Trial};
use super::eject::{Cause, Control, Rules, SILENT_CALLS};
use super::load::{Load, Moment, Tick, elapsed};
use crate::metrics::{Metrics, PickCounter};
use crate::sync::Mutex;

/// Tells the endpoints of one balancer apart. Never used again: an endpoint that was replaced has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(super) u64);

/// How long after a look at a failing endpoint the next one may be, in ticks: about a tenth of a second.
const LOOK_AGAIN: Tick = 100;

/// A call that lasts for so many times the expected latency is no load, and has had its chance to be answered.
const LONG: f32 = 8.0;

/// An epoch of [`Ages`] in nanoseconds.
const EPOCH: f32 = (1u64 << 27) as f32;

/// A call without a response is silent if it waited for so many times the expected latency, and at least so long.
const PATIENCE: u32 = 3;
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

/// The same where the endpoint is half-open, and so in doubt already.
const LEAST_PATIENCE_HALF_OPEN: Duration = Duration::from_millis(10);

/// Calls that began closer together than this are one sign.
const BEGUN_APART: Duration = Duration::from_millis(2);

/// So are calls at the same time that ended closer together than this. A client that was stalled ends many calls within
/// some milliseconds, before it reads a response.
const ENDED_APART: Duration = Duration::from_millis(10);

/// Latency expected at least of an endpoint that has not responded since it joined or was restored: it may have a
/// connection to establish, and much to load.
const EXPECTED_AT_FIRST: Duration = Duration::from_millis(100);

/// The measurements of one endpoint. As long as a cache line together with the two counts of its `Arc`.
#[repr(C)]
pub(super) struct Stats {
    pub(super) load: Load,
    pub(super) history: History,
    /// What of a probation is open.
    pub(super) trial: Trial,
    pub(super) ages: Ages,
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
    /// Calls in a row that got no sign of life.
    pub(super) silent: Mutex<SilentCalls>,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) metrics: Metrics,
    pub(super) picks: PickCounter,
}

/// Distinct calls in a row that ended without any sign of life from the endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SilentCalls {
    pub(super) calls: u32,
    /// Begin of the first of them.
    pub(super) first: Option<Moment>,
    /// Begin and end of the latest one that counted.
    latest: Option<(Moment, Moment)>,
    /// When a call last cast doubt on the latency.
    doubted: Option<Moment>,
    /// Count of responses since which there was none.
    answered: u32,
}

/// Verdict about an endpoint after a call without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The endpoint responded meanwhile, or the call did not wait long enough.
    None,
    /// The call was silent, but too few were in a row.
    Few,
    /// Several calls in a row were silent.
    Enough,
}

impl Stats {
    pub(super) fn new(load: Load, details: Details, now: Moment) -> Self {
        let ages = Ages::new(now.nanos());
        Self { load, history: History::new(), trial: Trial::new(), ages, details: Box::new(details) }
    }

    /// Expected cost of one more call; lower is better.
    #[inline]
    pub(super) fn metric(&self, now: Tick) -> f32 {
        let (calls, cost) = (self.load.calls(), self.load.cost(now));
        if calls.pending() == 0 {
            return cost;
        }
        if calls.waiting() > 0
            && let Some(silence) = self.load.silence(cost, now)
        {
            return silence * (calls.pending() + 1) as f32;
        }
        cost * (self.busy_with(calls, cost, now) + 1) as f32
    }

    /// Returns `true` while several calls wait for longer than expected, without a sign of life.
    pub(super) fn is_silent(&self, now: Tick) -> bool {
        self.load.calls().waiting() > 0 && self.load.silence(self.load.cost(now), now).is_some()
    }

    /// Pending calls, without those that last far longer than expected.
    #[inline]
    pub(super) fn busy(&self, now: Tick) -> u32 {
        let calls = self.load.calls();
        if calls.pending() == 0 { 0 } else { self.busy_with(calls, self.load.cost(now), now) }
    }

    #[inline]
    fn busy_with(&self, calls: Counted, cost: f32, now: Tick) -> u32 {
        self.ages.load(calls.pending(), now, || epochs_of_patience(cost))
    }

    /// A call begins. Returns the count of responses before.
    #[inline(always)]
    pub(super) fn begin(&self, now: Moment) -> u32 {
        if !self.ages.is_current(now.nanos()) {
            self.enter(now);
        }
        // Read apart, so that nothing has to wait for what the write returns.
        let answered = self.load.calls().answered();
        self.load.begin(now);
        answered
    }

    #[cold]
    fn enter(&self, now: Moment) {
        let clock = || Moment::now().nanos();
        let patience = epochs_of_patience(self.load.cost(now.tick()));
        self.ages.enter(now.nanos(), self.load.counts(), &self.details.ledger, patience, clock);
    }

    /// A call that began then is no longer counted.
    #[inline]
    pub(super) fn leave(&self, begin: Moment) {
        if !self.ages.is_current(begin.nanos()) {
            self.ages.leave(begin.nanos(), &self.details.ledger);
        }
    }

    /// A call that began then, when there were so many responses, ends without one. Tells the balancer where it is silent.
    pub(super) fn unanswered(&self, begin: Moment, answered: u32, now: Moment) -> Evidence {
        let elapsed = now.since(begin);
        let responses = self.load.calls().answered();
        let is_silent = responses == answered;
        let least = if self.trial.is_on() { LEAST_PATIENCE_HALF_OPEN } else { LEAST_PATIENCE };
        if !is_silent || elapsed < least.max(self.expected(now).saturating_mul(PATIENCE)) {
            return Evidence::None;
        }
        let mut silent = self.details.silent.lock();
        if silent.calls == 0 || silent.answered != responses {
            silent.calls = 1;
            silent.first = Some(begin);
            silent.answered = responses;
        } else {
            // Calls that began or ended together are one event, such as a client that disconnects or was stalled.
            let begun = self.expected(now).min(BEGUN_APART);
            let is_near = |latest: (Moment, Moment)| {
                begin < latest.1 && (distance(latest.0, begin) < begun || distance(latest.1, now) < ENDED_APART)
            };
            if silent.latest.is_some_and(is_near) {
                return Evidence::None;
            }
            silent.calls = silent.calls.saturating_add(1);
        }
        silent.latest = Some((begin, now));
        let SilentCalls { calls, .. } = *silent;
        drop(silent);
        let Details { id, rules, .. } = &*self.details;
        if calls == 1 && rules.silent_calls != u32::MAX {
            self.details.tell(|control| control.doubted(*id));
        } else if calls >= rules.silent_calls && self.may_look(now) {
            self.details.tell(|control| control.suspected(*id, Cause::Silent));
        }
        if calls >= SILENT_CALLS { Evidence::Enough } else { Evidence::Few }
    }

    /// A call that began then took so long without a response. Counts as a doubt about the latency unless it began before
    /// the latest doubt: calls that end together are one event.
    pub(super) fn doubt(&self, begin: Moment, now: Moment) {
        let mut silent = self.details.silent.lock();
        if silent.doubted.is_none_or(|doubted| doubted <= begin) {
            silent.doubted = Some(now);
            drop(silent);
            self.load.doubt(now.nanos_since(begin), now);
        }
    }

    /// Latency of a call that would not be strange.
    fn expected(&self, now: Moment) -> Duration {
        let expected = Duration::from_nanos(self.load.cost(now.tick()) as u64);
        if self.is_new() { expected.max(EXPECTED_AT_FIRST) } else { expected }
    }

    /// Silent calls since the last response, and the begin of the first of them.
    pub(super) fn silent_calls(&self) -> (u32, Option<Moment>) {
        let silent = *self.details.silent.lock();
        if silent.answered == self.load.calls().answered() { (silent.calls, silent.first) } else { (0, None) }
    }

    /// A call failed. Tells the balancer where that is one failure too many.
    pub(super) fn failed(&self, cause: Cause, now: Moment) {
        self.history.failed();
        self.details.failed.fetch_add(1, Ordering::Relaxed);
        let suspicion = self.details.rules.suspect(cause, self.history.in_a_row(), self.history.failures());
        let Some(cause) = suspicion else { return };
        if cause.is_certain() || self.may_look(now) {
            self.details.tell(|control| control.suspected(self.details.id, cause));
        }
    }

    /// Where all fail alike nobody is ejected: then not every failure should look at all endpoints again.
    fn may_look(&self, now: Moment) -> bool {
        let now = now.tick().max(1);
        let looked = self.details.looked.load(Ordering::Relaxed);
        let may = looked == 0 || elapsed(looked, now) >= LOOK_AGAIN;
        if may {
            self.details.looked.store(now, Ordering::Relaxed);
        }
        may
    }

    /// Takes it for one that has just joined, at this cost.
    pub(super) fn renew(&self, cost: f32, now: Moment) {
        self.history.forget();
        self.details.looked.store(0, Ordering::Relaxed);
        *self.details.silent.lock() = SilentCalls::default();
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

/// Time after which a call is no load, in epochs.
fn epochs_of_patience(cost: f32) -> f32 {
    LONG * cost / EPOCH
}

fn distance(one: Moment, other: Moment) -> Duration {
    one.since(other).max(other.since(one))
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
