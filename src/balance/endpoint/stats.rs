//! Measurements of an endpoint, read by picks and written by calls.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::ages::{AgeMarks, Ages};
use super::counters::{CountsSnapshot, HalfOpen, History, Permit};
use super::id::EndpointId;
use super::load::Load;
use super::missing_responses::MissingResponses;
use super::primitives::atomic::{AtomicU32, AtomicU64, Ordering};
use super::timestamp::{Tick, Timestamp, elapsed};
use crate::balance::outlier::{Cause, Rules, SILENT_CALLS};
use crate::metrics::{Metrics, PickCounter};
use crate::sync::Mutex;

/// Minimum time between two evaluations of a failing endpoint, in ticks (about 0.1 seconds).
const EVALUATION_PAUSE: Tick = 100;

/// A call that lasts this many times the expected latency is no load.
const LONG_CALL: f32 = 8.0;

/// Epoch of [`Ages`] in nanoseconds.
const EPOCH: f32 = (1u64 << 27) as f32;

/// A call without a response is silent if it waited for this many times the expected latency, and
/// at least for this time.
const SILENT_FACTOR: u32 = 3;
const MIN_SILENT: Duration = Duration::from_millis(100);

/// Minimum waiting time if the endpoint is half-open, and so under suspicion already.
const MIN_SILENT_HALF_OPEN: Duration = Duration::from_millis(10);

/// Calls that began closer together than this count as one.
const MIN_BEGIN_DISTANCE: Duration = Duration::from_millis(2);

/// Pending calls that ended closer together than this count as one. A stalled client ends many
/// calls within a few milliseconds before it reads a response.
const MIN_END_DISTANCE: Duration = Duration::from_millis(10);

/// Minimum expected latency of an endpoint that has not responded since it was added or restored:
/// it may have to establish a connection, and to load data.
const MIN_EXPECTED_UNMEASURED: Duration = Duration::from_millis(100);

/// Measurements of one endpoint. Fills a cache line together with the two counts of its `Arc`.
#[repr(C)]
pub(crate) struct Stats {
    pub(crate) load: Load,
    pub(crate) history: History,
    pub(crate) half_open: HalfOpen,
    pub(crate) ages: Ages,
    pub(crate) details: Box<Details>,
}

/// Parts that only failures and logs need.
pub(crate) struct Details {
    pub(crate) id: EndpointId,
    pub(crate) app: Option<Arc<str>>,
    pub(crate) instance: Arc<str>,
    pub(crate) penalty: Duration,
    /// Shared by the endpoints of a balancer, whose settings may change.
    pub(crate) rules: Arc<ArcSwap<Rules>>,
    /// Shared by the endpoints of a balancer.
    pub(crate) missing_responses: Arc<MissingResponses>,
    pub(crate) detector: Weak<dyn OutlierDetector>,
    /// Failed calls since the last sweep.
    pub(crate) failed: AtomicU32,
    /// Time of the latest lost call that counted, in nanoseconds; 0 for none.
    pub(crate) lost_at: AtomicU64,
    /// Tick of the last evaluation for an ejection; 0 for none.
    pub(crate) evaluated: AtomicU32,
    /// Number of responses at the last reset of the measurements.
    pub(crate) responses: AtomicU32,
    /// Silent calls in a row.
    pub(crate) silent: Mutex<SilentCalls>,
    pub(crate) marks: Mutex<AgeMarks>,
    pub(crate) metrics: Metrics,
    pub(crate) picks: PickCounter,
}

/// Distinct calls in a row that ended while nothing came from the endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SilentCalls {
    pub(crate) calls: u32,
    /// Begin of the first of them.
    pub(crate) first: Option<Timestamp>,
    /// Begin and end of the latest one that counted.
    latest: Option<(Timestamp, Timestamp)>,
    /// Time of the latest call that was recorded as slow for lack of a response.
    recorded_at: Option<Timestamp>,
    /// Number of responses when the count began.
    responses: u32,
}

/// Evidence about an endpoint from a call without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The endpoint responded meanwhile, or the call did not wait long enough.
    None,
    /// The call was silent, but too few calls in a row were.
    Few,
    /// Several calls in a row were silent.
    Enough,
}

impl Stats {
    pub(crate) fn new(load: Load, details: Details, now: Timestamp) -> Self {
        let ages = Ages::new(now.nanos());
        Self { load, history: History::new(), half_open: HalfOpen::new(), ages, details: Box::new(details) }
    }

    /// Expected cost of one more call; lower is better.
    #[inline]
    pub(crate) fn expected_cost(&self, now: Tick) -> f32 {
        let (calls, cost) = (self.load.calls(), self.load.cost(now));
        if calls.pending() == 0 {
            return cost;
        }
        if calls.waiting() > 0
            && let Some(silence) = self.load.silence(cost, now)
        {
            return silence * (calls.pending() + 1) as f32;
        }
        cost * (self.active_calls_of(calls, cost, now) + 1) as f32
    }

    /// Returns `true` while several calls wait for longer than expected, without activity.
    pub(crate) fn is_silent(&self, now: Tick) -> bool {
        self.load.calls().waiting() > 0 && self.load.silence(self.load.cost(now), now).is_some()
    }

    /// Number of pending calls, without those that last far longer than expected.
    #[inline]
    pub(crate) fn active_calls(&self, now: Tick) -> u32 {
        let calls = self.load.calls();
        if calls.pending() == 0 { 0 } else { self.active_calls_of(calls, self.load.cost(now), now) }
    }

    #[inline]
    fn active_calls_of(&self, calls: CountsSnapshot, cost: f32, now: Tick) -> u32 {
        self.ages.load(calls.pending(), now, || long_call_epochs(cost))
    }

    /// Counts a new call. Returns the number of responses before.
    #[inline(always)]
    pub(crate) fn begin(&self, now: Timestamp) -> u32 {
        if !self.ages.is_current(now.nanos()) {
            self.enter(now);
        }
        // Read separately, so that nothing waits for the result of the write.
        let responses = self.load.calls().responses();
        self.load.begin(now);
        responses
    }

    #[cold]
    fn enter(&self, now: Timestamp) {
        let clock = || Timestamp::now().nanos();
        let long = long_call_epochs(self.load.cost(now.tick()));
        self.ages.enter(now.nanos(), self.load.counts(), &self.details.marks, long, clock);
    }

    /// Counts the end of a call that began then.
    #[inline]
    pub(crate) fn leave(&self, begin: Timestamp) {
        if !self.ages.is_current(begin.nanos()) {
            self.ages.leave(begin.nanos(), &self.details.marks);
        }
    }

    /// Records the end of a call without a response, given its begin and the number of responses at
    /// that time. Notifies the balancer of silent calls.
    pub(crate) fn record_missing_response(&self, begin: Timestamp, responses_before: u32, now: Timestamp) -> Evidence {
        let elapsed = now.since(begin);
        let responses = self.load.calls().responses();
        let is_silent = responses == responses_before;
        let least = if self.half_open.is_half_open() { MIN_SILENT_HALF_OPEN } else { MIN_SILENT };
        if elapsed < least.max(self.expected(now).saturating_mul(SILENT_FACTOR)) {
            return Evidence::None;
        }
        if !is_silent {
            self.details.missing_responses.record(now);
            return Evidence::None;
        }
        let mut silent = self.details.silent.lock();
        if silent.calls == 0 || silent.responses != responses {
            silent.calls = 1;
            silent.first = Some(begin);
            silent.responses = responses;
        } else {
            // Calls that began or ended together are one event, such as a client that disconnects
            // or was stalled.
            let begun = self.expected(now).min(MIN_BEGIN_DISTANCE);
            let is_near = |latest: (Timestamp, Timestamp)| {
                begin < latest.1 && (distance(latest.0, begin) < begun || distance(latest.1, now) < MIN_END_DISTANCE)
            };
            if silent.latest.is_some_and(is_near) {
                return Evidence::None;
            }
            silent.calls = silent.calls.saturating_add(1);
        }
        silent.latest = Some((begin, now));
        let SilentCalls { calls, .. } = *silent;
        drop(silent);
        let (id, rules) = (&self.details.id, self.details.rules.load());
        let required = |calls| self.details.missing_responses.required(calls, now);
        if calls == 1 && rules.silent_calls != u32::MAX {
            self.details.notify(|detector| detector.on_first_silent_call(*id));
        } else if calls >= required(rules.silent_calls) && self.may_evaluate(now) {
            self.details.notify(|detector| detector.on_suspect(*id, Cause::Silent));
        }
        if calls >= required(SILENT_CALLS) { Evidence::Enough } else { Evidence::Few }
    }

    /// Records a call that began then and has no response as slow, unless it began before the
    /// latest call so recorded: calls that end together are one event.
    pub(crate) fn record_without_response(&self, begin: Timestamp, now: Timestamp) {
        let mut silent = self.details.silent.lock();
        if silent.recorded_at.is_none_or(|recorded_at| recorded_at <= begin) {
            silent.recorded_at = Some(now);
            drop(silent);
            self.load.record_without_response(now.nanos_since(begin), now);
        }
    }

    /// Latency of a call that would not be unusual.
    fn expected(&self, now: Timestamp) -> Duration {
        let expected = Duration::from_nanos(self.load.cost(now.tick()) as u64);
        if self.is_unmeasured() { expected.max(MIN_EXPECTED_UNMEASURED) } else { expected }
    }

    /// Number of silent calls since the last response, and the begin of the first of them.
    pub(crate) fn silent_calls(&self) -> (u32, Option<Timestamp>) {
        let silent = *self.details.silent.lock();
        if silent.responses == self.load.calls().responses() { (silent.calls, silent.first) } else { (0, None) }
    }

    /// Records a failure, of a call that began then if it was lost: it got no response, or one that
    /// broke off. Of those that one event ended, all but the first count only for the share of
    /// failures. Notifies the balancer of a suspect.
    pub(crate) fn failed(&self, cause: Cause, lost: Option<Timestamp>, now: Timestamp) {
        self.details.failed.fetch_add(1, Ordering::Relaxed);
        if lost.is_some_and(|begin| !self.count_lost(begin, now)) {
            return;
        }
        self.history.record_failure();
        let rules = self.details.rules.load();
        let suspicion = rules.suspect(cause, self.history.consecutive_failures(), self.history.failures());
        let Some(cause) = suspicion else { return };
        if cause.is_certain() || self.may_evaluate(now) {
            self.details.notify(|detector| detector.on_suspect(self.details.id, cause));
        }
    }

    /// Counts a lost call. Returns `false` if it was pending when the latest one was counted, and
    /// no call succeeded since. That is one event, such as the end of a connection with all its
    /// streams, which their readers may notice one after the other.
    fn count_lost(&self, begin: Timestamp, now: Timestamp) -> bool {
        let is_new = |latest: u64| self.history.consecutive_failures() == 0 || begin.nanos() >= latest;
        let next = |latest| is_new(latest).then_some(now.nanos());
        self.details.lost_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Limits evaluations, each of which reads all endpoints. If all endpoints fail alike, none is
    /// ejected, and failures would evaluate them again and again.
    fn may_evaluate(&self, now: Timestamp) -> bool {
        let now = now.tick().max(1);
        let evaluated = self.details.evaluated.load(Ordering::Relaxed);
        let may = evaluated == 0 || elapsed(evaluated, now) >= EVALUATION_PAUSE;
        if may {
            self.details.evaluated.store(now, Ordering::Relaxed);
        }
        may
    }

    /// Resets the measurements to those of a new endpoint with this cost.
    pub(crate) fn reset(&self, cost: f32, now: Timestamp) {
        self.history.clear();
        self.details.evaluated.store(0, Ordering::Relaxed);
        *self.details.silent.lock() = SilentCalls::default();
        self.load.reset(cost, now);
        self.details.responses.store(self.load.calls().responses(), Ordering::Relaxed);
    }

    /// Returns `true` if there is no response since the last reset.
    pub(crate) fn is_unmeasured(&self) -> bool {
        self.load.calls().responses() == self.details.responses.load(Ordering::Relaxed)
    }

    /// Returns the number of failures since the last time.
    pub(crate) fn take_failed(&self) -> u32 {
        self.details.failed.swap(0, Ordering::Relaxed)
    }
}

/// Duration after which a call is no load, in epochs.
fn long_call_epochs(cost: f32) -> f32 {
    LONG_CALL * cost / EPOCH
}

fn distance(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

impl Details {
    /// Reports to the balancer, unless it was dropped.
    pub(crate) fn notify(&self, report: impl FnOnce(&dyn OutlierDetector)) {
        if let Some(detector) = self.detector.upgrade() {
            report(&*detector);
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

/// Decides on ejections from the reports of calls: the balancer.
pub(crate) trait OutlierDetector: Send + Sync {
    /// A first call to an endpoint was silent.
    fn on_first_silent_call(&self, id: EndpointId);

    /// An endpoint may have to be ejected.
    fn on_suspect(&self, id: EndpointId, cause: Cause);

    /// A call that decides on a half-open endpoint ended.
    fn on_half_open_call(&self, id: EndpointId, permit: Permit, result: Result<(), Cause>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_fill_a_cache_line_with_the_counts_of_their_arc() {
        assert_eq!((size_of::<Stats>(), align_of::<Stats>()), (48, 8));
    }
}
