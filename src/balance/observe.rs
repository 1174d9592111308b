//! How an answer is judged, and when a call is over.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cells::Ticket;
use super::eject::Cause;
use super::endpoint::{EndpointId, Evidence, Stats};
use super::load::{Moment, nanos};
use crate::metrics::Event;

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
    /// The caller's time was over before a response came. Says nothing about the endpoint, unless nothing at all came from it
    /// during several such calls in a row.
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

/// Number of other responses during a call that say nothing.
const OTHERS: u32 = 4;

/// A call on its way: counts as pending at its endpoint until dropped.
///
/// Dropped without an outcome, as when the caller gave up waiting, it says next to nothing about the endpoint: the call may
/// have been a long poll. Only where nothing came from the endpoint during several such calls in a row, they are held
/// against it; see [`Ejection::silent_calls`](super::Ejection::silent_calls). A call whose service panicked is a failure.
///
/// It is moved a few times within each call, right after it was written. So its fields are in this order and of whole words, also
/// within an `Option`: reading back in other pieces than were written waits until the processor has stored them.
#[repr(C)]
pub struct Completion {
    start: Moment,
    verdict: Verdict,
    stats: Arc<Stats>,
}

/// State of the call in the lower bits, above it the count of responses of the endpoint when the call began, and in the
/// upper half the call's part in the endpoint's probation.
///
/// One word, since it is moved right after it was written. No enum, in which an `Option` would keep its own state.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Verdict(u64);

impl Verdict {
    const OPEN: u64 = 0;
    const SUCCESS: u64 = 1;
    const FAILURE: u64 = 2;
    /// Taken off the endpoint for now.
    const PAUSED: u64 = 3;
    /// Ended in one step with its verdict.
    const OVER: u64 = 4;

    const STATE: u64 = 7;
    const ANSWERED: u32 = 3;
    const TICKET: u32 = 32;

    #[inline]
    fn open(answered: u32, ticket: Ticket) -> Self {
        Self(u64::from(ticket.number()) << Self::TICKET | u64::from(answered << Self::ANSWERED) | Self::OPEN)
    }

    #[inline]
    fn is(self) -> u64 {
        self.0 & Self::STATE
    }

    #[inline]
    fn becomes(&mut self, state: u64) {
        self.0 = self.0 & !Self::STATE | state;
    }

    fn answered_before(self) -> u32 {
        self.0 as u32 >> Self::ANSWERED
    }

    #[inline]
    fn take_ticket(&mut self) -> Ticket {
        let ticket = Ticket::of_number((self.0 >> Self::TICKET) as u32);
        if ticket.is_some() {
            self.0 &= (1 << Self::TICKET) - 1;
        }
        ticket
    }
}

impl Completion {
    #[inline(always)]
    pub(super) fn begin(stats: Arc<Stats>, start: Moment, ticket: Ticket) -> Self {
        let answered = stats.begin(start);
        stats.details.picks.increment();
        Self { start, verdict: Verdict::open(answered, ticket), stats }
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
        self.give_up();
        self.verdict.becomes(Verdict::PAUSED);
    }

    /// The call begins now, if it was paused.
    pub(super) fn resume(&mut self) {
        if self.verdict.is() == Verdict::PAUSED {
            self.start = Moment::now();
            let answered = self.stats.begin(self.start);
            self.verdict = Verdict::open(answered, self.verdict.take_ticket());
        }
    }

    /// Success and end in one.
    #[inline]
    pub(super) fn finish(mut self) {
        let now = Moment::now();
        self.stats.load.measure(now.nanos_since(self.start), now, || self.is_outpaced());
        self.stats.details.metrics.record(Event::Succeeded { elapsed: now.since(self.start) });
        self.stats.load.answer_and_end(now);
        self.stats.leave(self.start);
        self.stats.history.succeeded();
        let ticket = self.verdict.take_ticket();
        // A constant, so that nothing of the drop is left here.
        self.verdict = Verdict(Verdict::OVER);
        if ticket.is_some() {
            self.tried(ticket, Ok(()));
        }
    }

    /// Says how the call went. Only the first outcome counts, but for a failure after a success.
    pub fn outcome(&mut self, outcome: Outcome) {
        match (self.verdict.is(), outcome) {
            (Verdict::FAILURE | Verdict::OVER, _) | (Verdict::SUCCESS, Outcome::Success) => return,
            _ => {}
        }
        let now = Moment::now();
        let elapsed = now.since(self.start);
        if self.verdict.is() == Verdict::PAUSED {
            self.verdict.becomes(Verdict::OVER);
            self.give_permit_back();
            return self.record(outcome, elapsed);
        }
        self.record(outcome, elapsed);
        if matches!(outcome, Outcome::TimedOut | Outcome::GivenUp | Outcome::Unprocessed) {
            return self.ended_unanswered(outcome, now);
        }
        if self.verdict.is() == Verdict::OPEN {
            self.stats.load.answer(now);
        }
        let hint = |retry_after: Option<Duration>| retry_after.unwrap_or_default().min(LONGEST_HINT);
        match outcome {
            Outcome::Success => {
                self.verdict.becomes(Verdict::SUCCESS);
                self.stats.load.measure(nanos(elapsed), now, || self.is_outpaced());
                return self.succeeded();
            }
            Outcome::Failure { retry_after } => self.failed(Cause::Failed, elapsed.max(hint(retry_after)), now),
            Outcome::Unreachable => self.failed(Cause::Unreachable, elapsed, now),
            Outcome::TimedOut | Outcome::GivenUp | Outcome::Unprocessed => {}
            Outcome::Overloaded { retry_after } => {
                // First, since the end of a probation forgets what was measured.
                self.report(Ok(()));
                let penalty = self.penalty(self.stats.history.failures().max(1));
                self.stats.load.record(nanos(elapsed.max(hint(retry_after)).max(penalty)), now);
            }
        }
        self.verdict.becomes(Verdict::FAILURE);
    }

    /// The call ended, and the endpoint has not responded to it, or not in a way that tells anything.
    fn ended_unanswered(&mut self, outcome: Outcome, now: Moment) {
        if outcome != Outcome::TimedOut {
            self.give_permit_back();
        }
        if self.verdict.is() != Verdict::OPEN {
            // What follows a response, such as the status of a stream that met its deadline.
            return self.verdict.becomes(Verdict::FAILURE);
        }
        if outcome == Outcome::TimedOut {
            self.unanswered(now);
        }
        self.give_up();
        self.verdict.becomes(Verdict::OVER);
    }

    /// Something came from the endpoint, whatever the outcome of the call.
    pub(super) fn sign_of_life(&mut self) {
        if self.verdict.is() == Verdict::OPEN {
            self.stats.load.answer(Moment::now());
            self.verdict.becomes(Verdict::SUCCESS);
        }
    }

    /// Another call was faster, which was made beside this one for that purpose: says nothing, unless it is always so.
    pub(super) fn lost(mut self) {
        if self.verdict.is() == Verdict::OPEN {
            let now = Moment::now();
            self.stats.doubt(self.start, now);
            self.outcome(Outcome::GivenUp);
        }
    }

    /// Takes the call, which has no response, off the endpoint.
    fn give_up(&self) {
        self.stats.load.give_up();
        self.stats.leave(self.start);
    }

    /// Lets another call decide about the endpoint, if this one was to.
    #[cold]
    fn give_permit_back(&mut self) {
        let ticket = self.verdict.take_ticket();
        if ticket.is_some() {
            self.stats.trial.give_back(ticket);
        }
    }

    fn record(&self, outcome: Outcome, elapsed: Duration) {
        let metrics = &self.stats.details.metrics;
        match outcome {
            Outcome::Success => metrics.record(Event::Succeeded { elapsed }),
            Outcome::Overloaded { .. } => metrics.record(Event::Overloaded { elapsed }),
            Outcome::Failure { .. } | Outcome::Unreachable | Outcome::TimedOut => {
                metrics.record(Event::Failed { elapsed })
            }
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
        let ticket = self.verdict.take_ticket();
        if ticket.is_some() {
            self.tried(ticket, result);
        }
    }

    #[cold]
    fn tried(&self, ticket: Ticket, result: Result<(), Cause>) {
        self.stats.details.tell(|control| control.tried(self.stats.details.id, ticket, result));
    }

    /// The failure penalty in proportion to how much of late failed: a single failure is no reason to keep all calls away.
    fn penalty(&self, failures: u32) -> Duration {
        self.stats.details.penalty.saturating_mul(failures) / 64
    }

    /// The endpoint's service panicked.
    pub(super) fn panicked(mut self) {
        if self.verdict.is() == Verdict::PAUSED {
            return self.give_permit_back();
        }
        let now = Moment::now();
        self.failed(Cause::Failed, now.since(self.start), now);
        self.give_up();
        self.verdict.becomes(Verdict::OVER);
    }

    /// Returns `true` if the endpoint responded to many more calls meanwhile than if all took as long as this one.
    fn is_outpaced(&self) -> bool {
        let calls = self.stats.load.calls();
        calls.answered_since(self.verdict.answered_before()) > 2 * calls.pending() + OTHERS
    }

    /// Dropped without an outcome.
    #[cold]
    fn dropped(&self) {
        self.unanswered(Moment::now());
        self.give_up();
    }

    /// The caller did not wait for a response, or had no more time.
    fn unanswered(&self, now: Moment) {
        let evidence = self.stats.unanswered(self.start, self.verdict.answered_before(), now);
        match evidence {
            Evidence::Enough => self.stats.load.record_at_least(now.nanos_since(self.start), now),
            Evidence::Few => {}
            Evidence::None => self.stats.doubt(self.start, now),
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
    #[inline(always)]
    fn drop(&mut self) {
        match self.verdict.is() {
            Verdict::OPEN => self.dropped(),
            Verdict::SUCCESS | Verdict::FAILURE => {
                self.stats.load.end();
                self.stats.leave(self.start);
            }
            Verdict::PAUSED => self.give_permit_back(),
            _ => {}
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("endpoint", self.instance()).finish_non_exhaustive()
    }
}
