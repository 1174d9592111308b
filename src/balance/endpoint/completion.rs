//! Pending call, and the record of its outcome.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::counters::Permit;
use super::id::EndpointId;
use super::stats::{Evidence, Stats};
use super::timestamp::{Timestamp, nanos};
use crate::balance::outcome::Outcome;
use crate::balance::outlier::Cause;
use crate::metrics::Event;

/// Maximum time for which an endpoint's `Retry-After` counts as its latency.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Number of other responses during a call that do not yet show that the call is an exception.
const OTHER_RESPONSES: u32 = 4;

/// Handle of a pending call. The call counts as pending at its endpoint until the handle is
/// dropped.
///
/// A handle that is dropped without an outcome, as when the caller cancels the call, is nearly no
/// evidence about the endpoint: the call may have been a long poll. Only several such calls in a
/// row during which nothing came from the endpoint count against it, see
/// [`Ejection::silent_calls`](crate::balance::Ejection::silent_calls). A call whose service
/// panicked is a failure.
// The handle is moved a few times within each call, right after it was written. Its fields are
// therefore whole words in this order, also within an `Option`: reading back in other pieces than
// were written stalls until the processor has stored them.
#[repr(C)]
pub struct Completion {
    start: Timestamp,
    state: CallState,
    stats: Arc<Stats>,
}

/// State of the call in the lowest bits, and above it the endpoint's number of responses when the
/// call began. The upper half is the probe permit of a call to a half-open endpoint.
///
/// One word, since it is moved right after it was written. Not an enum, in which an `Option` would
/// keep its own state.
#[derive(Clone, Copy, PartialEq, Eq)]
struct CallState(u64);

impl CallState {
    const OPEN: u64 = 0;
    const SUCCESS: u64 = 1;
    const FAILURE: u64 = 2;
    /// Excluded from the endpoint's counters for now.
    const PAUSED: u64 = 3;
    /// Ended together with its outcome.
    const OVER: u64 = 4;

    const STATE: u64 = 7;
    const RESPONSES: u32 = 3;
    const PERMIT: u32 = 32;

    #[inline]
    fn open(responses: u32, permit: Permit) -> Self {
        Self(u64::from(permit.number()) << Self::PERMIT | u64::from(responses << Self::RESPONSES) | Self::OPEN)
    }

    #[inline]
    fn get(self) -> u64 {
        self.0 & Self::STATE
    }

    #[inline]
    fn set(&mut self, state: u64) {
        self.0 = self.0 & !Self::STATE | state;
    }

    fn responses_before(self) -> u32 {
        self.0 as u32 >> Self::RESPONSES
    }

    #[inline]
    fn take_permit(&mut self) -> Permit {
        let permit = Permit::of_number((self.0 >> Self::PERMIT) as u32);
        if permit.is_some() {
            self.0 &= (1 << Self::PERMIT) - 1;
        }
        permit
    }
}

impl Completion {
    #[inline(always)]
    pub(crate) fn begin(stats: Arc<Stats>, start: Timestamp, permit: Permit) -> Self {
        let responses = stats.begin(start);
        stats.details.picks.increment();
        Self { start, state: CallState::open(responses, permit), stats }
    }

    /// Records that the endpoint responded, and the latency. Does nothing after a first outcome.
    pub fn success(&mut self) {
        self.outcome(Outcome::Success);
    }

    /// Records a failure. Its latency is the scaled
    /// [failure penalty](crate::balance::Builder::failure_penalty), or the call's own duration if
    /// that is longer.
    ///
    /// May follow a success, for a response that breaks off later. Does nothing after a first
    /// failure.
    pub fn failure(&mut self) {
        self.outcome(Outcome::Failure { retry_after: None });
    }

    /// Excludes the call from the endpoint's counters, since it waits for something else.
    pub(crate) fn pause(&mut self) {
        self.cancel();
        self.state.set(CallState::PAUSED);
    }

    /// Counts the call from now on, if it was paused.
    pub(crate) fn resume(&mut self) {
        if self.state.get() == CallState::PAUSED {
            self.start = Timestamp::now();
            let responses = self.stats.begin(self.start);
            self.state = CallState::open(responses, self.state.take_permit());
        }
    }

    /// Records a success and ends the call.
    #[inline]
    pub(crate) fn finish(mut self) {
        let now = Timestamp::now();
        self.stats.load.measure(now.nanos_since(self.start), now, || self.is_outpaced());
        self.stats.details.metrics.record(Event::Succeeded { elapsed: now.since(self.start) });
        self.stats.load.respond_and_end(now);
        self.stats.leave(self.start);
        self.stats.history.record_success();
        let permit = self.state.take_permit();
        // A constant, so that the destructor is optimized away.
        self.state = CallState(CallState::OVER);
        if permit.is_some() {
            self.half_open_call_ended(permit, Ok(()));
        }
    }

    /// Records the outcome of the call. Only the first outcome counts, except for a failure after a
    /// success.
    pub fn outcome(&mut self, outcome: Outcome) {
        self.record(outcome, false);
    }

    /// Records the outcome of a call that got no response, or one that broke off. One event may end
    /// many of them, so their failures [count once](Stats::failed).
    pub(crate) fn lost(&mut self, outcome: Outcome) {
        self.record(outcome, true);
    }

    fn record(&mut self, outcome: Outcome, is_lost: bool) {
        match (self.state.get(), outcome) {
            (CallState::FAILURE | CallState::OVER, _) | (CallState::SUCCESS, Outcome::Success) => return,
            _ => {}
        }
        let now = Timestamp::now();
        let elapsed = now.since(self.start);
        if self.state.get() == CallState::PAUSED {
            self.state.set(CallState::OVER);
            self.return_permit();
            return self.record_metrics(outcome, elapsed);
        }
        self.record_metrics(outcome, elapsed);
        if matches!(outcome, Outcome::TimedOut | Outcome::Cancelled | Outcome::Unprocessed) {
            return self.end_without_response(outcome, now);
        }
        if self.state.get() == CallState::OPEN {
            self.stats.load.respond(now);
        }
        let limited = |retry_after: Option<Duration>| retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        match outcome {
            Outcome::Success => {
                self.state.set(CallState::SUCCESS);
                self.stats.load.measure(nanos(elapsed), now, || self.is_outpaced());
                return self.succeeded();
            }
            Outcome::Failure { retry_after } => {
                self.failed(Cause::Failed, is_lost, elapsed.max(limited(retry_after)), now);
            }
            Outcome::Unreachable => self.failed(Cause::Unreachable, false, elapsed, now),
            Outcome::TimedOut | Outcome::Cancelled | Outcome::Unprocessed => {}
            Outcome::Overloaded { retry_after } => {
                // First, since the end of the half-open state resets the measurements.
                self.report(Ok(()));
                let penalty = self.penalty(self.stats.history.failures().max(1));
                self.stats.load.record(nanos(elapsed.max(limited(retry_after)).max(penalty)), now);
            }
        }
        self.state.set(CallState::FAILURE);
    }

    /// Records an outcome that is no evidence, or none about this endpoint.
    fn end_without_response(&mut self, outcome: Outcome, now: Timestamp) {
        if outcome != Outcome::TimedOut {
            self.return_permit();
        }
        if self.state.get() != CallState::OPEN {
            // Follows a response, such as the status of a stream that met its deadline.
            return self.state.set(CallState::FAILURE);
        }
        if outcome == Outcome::TimedOut {
            self.record_missing_response(now);
        }
        self.cancel();
        self.state.set(CallState::OVER);
    }

    /// Records that something came from the endpoint, whatever the outcome of the call.
    pub(crate) fn record_activity(&mut self) {
        if self.state.get() == CallState::OPEN {
            self.stats.load.respond(Timestamp::now());
            self.state.set(CallState::SUCCESS);
        }
    }

    /// Ends the call, since another one that was sent beside it was faster. No evidence, unless it
    /// is always so.
    pub(crate) fn cancel_hedge(mut self) {
        if self.state.get() == CallState::OPEN {
            let now = Timestamp::now();
            self.stats.record_without_response(self.start, now);
            self.outcome(Outcome::Cancelled);
        }
    }

    /// Removes the call, which has no response, from the endpoint's counters.
    fn cancel(&self) {
        self.stats.load.cancel();
        self.stats.leave(self.start);
    }

    /// Lets another call decide on a half-open endpoint, if this call was to.
    #[cold]
    fn return_permit(&mut self) {
        let permit = self.state.take_permit();
        if permit.is_some() {
            self.stats.half_open.release(permit);
        }
    }

    fn record_metrics(&self, outcome: Outcome, elapsed: Duration) {
        let metrics = &self.stats.details.metrics;
        match outcome {
            Outcome::Success => metrics.record(Event::Succeeded { elapsed }),
            Outcome::Overloaded { .. } => metrics.record(Event::Overloaded { elapsed }),
            Outcome::Failure { .. } | Outcome::Unreachable | Outcome::TimedOut => {
                metrics.record(Event::Failed { elapsed })
            }
            Outcome::Cancelled | Outcome::Unprocessed => {}
        }
    }

    #[inline(always)]
    fn succeeded(&mut self) {
        self.stats.history.record_success();
        self.report(Ok(()));
    }

    fn failed(&mut self, cause: Cause, is_lost: bool, latency: Duration, now: Timestamp) {
        self.report(Err(cause));
        self.stats.failed(cause, is_lost.then_some(self.start), now);
        let latency = latency.max(self.penalty(self.stats.history.failures()));
        self.stats.load.record(nanos(latency), now);
    }

    /// Reports the result to the balancer, if this call has the probe permit.
    #[inline]
    fn report(&mut self, result: Result<(), Cause>) {
        let permit = self.state.take_permit();
        if permit.is_some() {
            self.half_open_call_ended(permit, result);
        }
    }

    #[cold]
    fn half_open_call_ended(&self, permit: Permit, result: Result<(), Cause>) {
        self.stats.details.notify(|detector| detector.on_half_open_call(self.stats.details.id, permit, result));
    }

    /// Failure penalty, scaled by the share of recent failures: a single failure need not keep all
    /// calls away.
    fn penalty(&self, failures: u32) -> Duration {
        self.stats.details.penalty.saturating_mul(failures) / 64
    }

    /// Records that the endpoint's service panicked.
    pub(crate) fn panicked(mut self) {
        if self.state.get() == CallState::PAUSED {
            return self.return_permit();
        }
        let now = Timestamp::now();
        self.failed(Cause::Failed, false, now.since(self.start), now);
        self.cancel();
        self.state.set(CallState::OVER);
    }

    /// Returns `true` if the endpoint responded to many more calls meanwhile than if all of them
    /// took as long as this one.
    fn is_outpaced(&self) -> bool {
        let calls = self.stats.load.calls();
        calls.responses_since(self.state.responses_before()) > 2 * calls.pending() + OTHER_RESPONSES
    }

    /// Ends a call that was dropped without an outcome.
    #[cold]
    fn dropped(&self) {
        self.record_missing_response(Timestamp::now());
        self.cancel();
    }

    /// Records that the caller did not wait for the response, or had no more time.
    fn record_missing_response(&self, now: Timestamp) {
        let evidence = self.stats.record_missing_response(self.start, self.state.responses_before(), now);
        match evidence {
            Evidence::Enough => self.stats.load.record_at_least(now.nanos_since(self.start), now),
            Evidence::Few => {}
            Evidence::None if self.is_outpaced() => {}
            Evidence::None => self.stats.record_without_response(self.start, now),
        }
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.stats.details.id
    }

    pub(crate) fn app(&self) -> Option<&Arc<str>> {
        self.stats.details.app.as_ref()
    }

    pub(crate) fn instance(&self) -> &Arc<str> {
        &self.stats.details.instance
    }

    /// Returns the id of the endpoint, as [`Candidates::id`](crate::balance::Candidates::id) does.
    pub fn endpoint(&self) -> &str {
        self.instance()
    }
}

impl Drop for Completion {
    #[inline(always)]
    fn drop(&mut self) {
        match self.state.get() {
            CallState::OPEN => self.dropped(),
            CallState::SUCCESS | CallState::FAILURE => {
                self.stats.load.end();
                self.stats.leave(self.start);
            }
            CallState::PAUSED => self.return_permit(),
            _ => {}
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("endpoint", self.instance()).finish_non_exhaustive()
    }
}
