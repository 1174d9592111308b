//! How an answer is judged, and when a call is over.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cells::Ticket;
use super::eject::Cause;
use super::endpoint::{EndpointId, Stats};
use super::load::{Moment, nanos};

/// Judges the answers of endpoints, and says when a call is over.
///
/// The balancer hands every answer to its observer together with the call's [`Completion`]. The observer reports an
/// [`Outcome`] there and drops it when the call is over, at once or, for an answer that is still being read, with a part of the
/// answer that it wraps. Ejection, load, metrics and retries all go by that one outcome. A call that ends in `Err` is a failure
/// without being asked about, unless [`observe_error`](Self::observe_error) says otherwise.
///
/// [`HttpResponses`](super::HttpResponses) is the default; [`AnyResponse`] is for everything that is not HTTP.
///
/// ```
/// use tower_eureka::balance::{Completion, Observe};
///
/// /// An answer of a cache that may not be in service yet.
/// enum Reply {
///     Value(String),
///     Loading,
/// }
///
/// #[derive(Clone)]
/// struct LoadingIsFailing;
///
/// impl Observe<Reply> for LoadingIsFailing {
///     type Response = Reply;
///
///     fn observe(&self, mut completion: Completion, reply: Reply) -> Reply {
///         match reply {
///             Reply::Value(_) => completion.success(),
///             Reply::Loading => completion.failure(),
///         }
///         reply
///     }
/// }
/// ```
pub trait Observe<Res> {
    /// What the caller gets: the answer, or a wrapper of it that holds the completion.
    type Response;

    /// Judges `response` and keeps `completion` as long as the call goes on.
    fn observe(&self, completion: Completion, response: Res) -> Self::Response;

    /// Judges an error. By default, one that says in its chain of sources that no connection came about means
    /// [`Unreachable`](Outcome::Unreachable): this crate's, hyper-util's and the operating system's are understood. Every other is a
    /// [`Failure`](Outcome::Failure).
    fn observe_error(&self, error: &(dyn std::error::Error + 'static)) -> Outcome {
        super::connect::outcome(error)
    }
}

/// What a call says about the endpoint that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It answered.
    Success,
    /// It failed, and may have said when to come again.
    Failure {
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// It refused this call because it has enough to do. Weighs on its load, but does not count for an ejection.
    Overloaded {
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// No connection came about: nothing was sent, and nothing else would be received now.
    Unreachable,
    /// The caller's time was over before an answer came.
    TimedOut,
    /// The call ended for a reason of the caller's, such as a body that broke off: says nothing about the endpoint.
    GivenUp,
    /// The endpoint stated that it did not process the request, as HTTP/2 does with `GOAWAY` and `REFUSED_STREAM`. Says nothing
    /// about the endpoint: such a request may be sent again on another connection, whatever its method.
    Unprocessed,
}

impl Outcome {
    /// Whether the endpoint did what it was asked to.
    pub fn is_success(self) -> bool {
        self == Self::Success
    }
}

/// Takes every answer for a success and for the end of its call.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyResponse;

impl<Res> Observe<Res> for AnyResponse {
    type Response = Res;

    fn observe(&self, completion: Completion, response: Res) -> Res {
        completion.finish();
        response
    }
}

/// An endpoint's wish to be left alone counts for at most so long.
const LONGEST_HINT: Duration = Duration::from_secs(300);

/// A call given up is a failure if it had twice the expected latency, and reason enough to eject if it had ten times that.
const PATIENCE: u32 = 2;
const LONG_PATIENCE: u32 = 10;
/// Both at least this, and this where the endpoint is on probation.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);
const LEAST_PATIENCE_ON_PROBATION: Duration = Duration::from_millis(10);
/// What is expected at least of an endpoint that has not answered since it joined or came back: it may have a connection to make, and much to load.
const EXPECTED_AT_FIRST: Duration = Duration::from_millis(30);

/// A call on its way: counts as pending at its endpoint until dropped.
///
/// Dropped without an outcome, as when the caller gave up waiting, it records the time that has passed as a lower bound of the
/// endpoint's latency. If that is long, and nothing at all came from the endpoint meanwhile, it is held against it like a failure.
/// So is a call whose service panicked.
///
/// It is moved a few times within each call, right after it was written. So its fields are in this order and of whole words, also
/// within an `Option`: reading back in other pieces than were written waits until the processor has stored them.
#[repr(C)]
pub struct Completion {
    start: Moment,
    verdict: Verdict,
    /// Its part in the endpoint's probation.
    ticket: Ticket,
    stats: Arc<Stats>,
}

/// No enum, in which an `Option` would keep its own state.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Verdict(u32);

impl Verdict {
    const OPEN: Self = Self(0);
    const SUCCESS: Self = Self(1);
    const FAILURE: Self = Self(2);
    /// Taken off the endpoint for now.
    const PAUSED: Self = Self(3);
    /// Ended in one step with its verdict.
    const OVER: Self = Self(4);
}

impl Completion {
    #[inline]
    pub(super) fn begin(stats: Arc<Stats>, start: Moment, ticket: Ticket) -> Self {
        stats.load.begin(start);
        stats.details.picks.count();
        Self { start, verdict: Verdict::OPEN, ticket, stats }
    }

    /// The endpoint answered: records how long that took. Does nothing after a first outcome.
    pub fn success(&mut self) {
        self.outcome(Outcome::Success);
    }

    /// The endpoint failed: records a latency that keeps calls away, or the time it took to fail when that is longer.
    ///
    /// Also after a success, for an answer that began well. Does nothing after a first failure.
    pub fn failure(&mut self) {
        self.outcome(Outcome::Failure { retry_after: None });
    }

    /// Takes the call off the endpoint, since it waits for something else.
    pub(super) fn pause(&mut self) {
        self.stats.load.give_up();
        self.verdict = Verdict::PAUSED;
    }

    /// The call begins now, if it was paused.
    pub(super) fn resume(&mut self) {
        if self.verdict == Verdict::PAUSED {
            self.start = Moment::now();
            self.stats.load.begin(self.start);
            self.verdict = Verdict::OPEN;
        }
    }

    /// Success and end in one.
    #[inline]
    pub(super) fn finish(mut self) {
        let now = Moment::now();
        self.stats.load.record(now.nanos_since(self.start), now);
        self.stats.details.meters.succeeded(now.since(self.start));
        self.stats.load.answer_and_end(now);
        self.verdict = Verdict::OVER;
        self.succeeded();
    }

    /// Says how the call went. Only the first outcome counts, but for a failure after a success.
    pub fn outcome(&mut self, outcome: Outcome) {
        match (self.verdict, outcome) {
            (Verdict::FAILURE | Verdict::OVER, _) | (Verdict::SUCCESS, Outcome::Success) => return,
            _ => {}
        }
        let now = Moment::now();
        let elapsed = now.since(self.start);
        if self.verdict == Verdict::PAUSED {
            self.verdict = Verdict::OVER;
            return self.meter(outcome, elapsed);
        }
        let silent = self.verdict == Verdict::OPEN && self.stats.load.silent_since(self.start);
        if self.verdict == Verdict::OPEN {
            self.stats.load.answer(now);
        }
        let hint = |retry_after: Option<Duration>| retry_after.unwrap_or_default().min(LONGEST_HINT);
        self.meter(outcome, elapsed);
        match outcome {
            Outcome::Success => {
                self.verdict = Verdict::SUCCESS;
                self.stats.load.record(nanos(elapsed), now);
                return self.succeeded();
            }
            Outcome::Failure { retry_after } => self.failed(Cause::Failed, elapsed.max(hint(retry_after)), now),
            Outcome::Unreachable => self.failed(Cause::Unreachable, elapsed, now),
            // A caller with hardly any time says nothing about the endpoint.
            Outcome::TimedOut if elapsed < LEAST_PATIENCE => self.stats.load.record_at_least(nanos(elapsed), now),
            Outcome::TimedOut => self.failed(if silent { Cause::Silent } else { Cause::Failed }, elapsed, now),
            Outcome::GivenUp | Outcome::Unprocessed => {}
            Outcome::Overloaded { retry_after } => {
                // First, since the end of a probation forgets what was measured.
                self.report(Ok(()));
                let penalty = self.penalty(self.stats.history.failures().max(1));
                self.stats.load.record(nanos(elapsed.max(hint(retry_after)).max(penalty)), now);
            }
        }
        self.verdict = Verdict::FAILURE;
    }

    fn meter(&self, outcome: Outcome, elapsed: Duration) {
        let meters = &self.stats.details.meters;
        match outcome {
            Outcome::Success => meters.succeeded(elapsed),
            Outcome::Overloaded { .. } => meters.overloaded(elapsed),
            Outcome::Failure { .. } | Outcome::Unreachable | Outcome::TimedOut => meters.failed(elapsed),
            Outcome::GivenUp | Outcome::Unprocessed => {}
        }
    }

    #[inline(always)]
    fn succeeded(&mut self) {
        self.stats.history.succeeded();
        self.report(Ok(()));
    }

    fn failed(&mut self, cause: Cause, latency: Duration, now: Moment) {
        self.report(Err(cause));
        self.stats.failed(cause, now);
        let latency = latency.max(self.penalty(self.stats.history.failures()));
        self.stats.load.record(nanos(latency), now);
    }

    /// Tells the balancer how it went, if the endpoint's probation hangs on this call.
    #[inline]
    fn report(&mut self, result: Result<(), Cause>) {
        let ticket = std::mem::replace(&mut self.ticket, Ticket::NONE);
        if ticket.is_some() {
            self.stats.details.tell(|control| control.tried(self.stats.details.id, ticket, result));
        }
    }

    /// The failure penalty in proportion to how much of late failed: a single failure is no reason to keep all calls away.
    fn penalty(&self, failures: u32) -> Duration {
        self.stats.details.penalty.saturating_mul(failures) / 64
    }

    /// The endpoint's service panicked.
    pub(super) fn panicked(mut self) {
        if self.verdict == Verdict::PAUSED {
            return;
        }
        let now = Moment::now();
        self.failed(Cause::Failed, now.since(self.start), now);
        self.stats.load.give_up();
        self.verdict = Verdict::OVER;
    }

    /// A call dropped without an outcome.
    fn given_up(&mut self) {
        let now = Moment::now();
        let elapsed = now.since(self.start);
        match self.held_against(elapsed, now) {
            Some(cause) => self.failed(cause, elapsed, now),
            None => self.stats.load.record_at_least(nanos(elapsed), now),
        }
        self.stats.load.give_up();
    }

    /// What a call given up after this time says about the endpoint.
    fn held_against(&self, elapsed: Duration, now: Moment) -> Option<Cause> {
        let mut expected = Duration::from_nanos(self.stats.load.cost(now.tick()) as u64);
        if self.stats.is_new() {
            expected = expected.max(EXPECTED_AT_FIRST);
        }
        let silent = || self.stats.load.silent_since(self.start);
        let beyond = |times: u32, least: Duration| elapsed >= least.max(expected.saturating_mul(times));
        if beyond(LONG_PATIENCE, LEAST_PATIENCE) || self.ticket.is_some() && elapsed >= LEAST_PATIENCE_ON_PROBATION {
            silent().then_some(Cause::Silent)
        } else if beyond(PATIENCE, LEAST_PATIENCE) {
            silent().then_some(Cause::Failed)
        } else {
            None
        }
    }

    pub(super) fn id(&self) -> EndpointId {
        self.stats.details.id
    }

    pub(super) fn app(&self) -> Option<&Arc<str>> {
        self.stats.details.app.as_ref()
    }

    pub(super) fn instance(&self) -> &Arc<str> {
        &self.stats.details.instance
    }

    /// The id of the endpoint: the instance's, where instances are balanced.
    pub fn endpoint(&self) -> &str {
        self.instance()
    }
}

impl Drop for Completion {
    #[inline]
    fn drop(&mut self) {
        match self.verdict {
            Verdict::OPEN => self.given_up(),
            Verdict::SUCCESS | Verdict::FAILURE => self.stats.load.end(),
            _ => {}
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("endpoint", self.instance()).finish_non_exhaustive()
    }
}
