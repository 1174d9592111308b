//! How an answer is judged, and when a call is over.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::eject::Cause;
use super::endpoint::Stats;

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
        if super::connect::is_connect(error) { Outcome::Unreachable } else { Outcome::Failure { retry_after: None } }
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

/// A call given up is held against the endpoint only if it had so many times the expected latency, and at least this.
const PATIENCE: f32 = 10.0;
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

/// A call on its way: counts as pending at its endpoint until dropped.
///
/// Dropped without an outcome, as when the caller gave up waiting, it records the time that has passed as a lower bound of the
/// endpoint's latency. If that is long, and nothing at all came from the endpoint meanwhile, it is held against it like a failure.
pub struct Completion {
    stats: Arc<Stats>,
    start: Instant,
    verdict: Verdict,
    /// Whether the endpoint's probation hangs on this call.
    probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Success,
    Failure,
    /// Ended in one step with its verdict.
    Over,
}

impl Completion {
    pub(super) fn begin(stats: Arc<Stats>, start: Instant, probe: bool) -> Self {
        stats.load.begin(start);
        Self { stats, start, verdict: Verdict::Open, probe }
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

    /// Success and end in one.
    pub(super) fn finish(mut self) {
        let now = Instant::now();
        self.stats.load.record(now.saturating_duration_since(self.start), now);
        self.stats.load.answer_and_end(now);
        self.verdict = Verdict::Over;
        self.succeeded();
    }

    /// Says how the call went. Only the first outcome counts, but for a failure after a success.
    pub fn outcome(&mut self, outcome: Outcome) {
        match (self.verdict, outcome) {
            (Verdict::Failure | Verdict::Over, _) | (Verdict::Success, Outcome::Success) => return,
            _ => {}
        }
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.start);
        let silent = self.verdict == Verdict::Open && self.stats.load.silent_since(self.start);
        if self.verdict == Verdict::Open {
            self.stats.load.answer(now);
        }
        let hint = |retry_after: Option<Duration>| retry_after.unwrap_or_default().min(LONGEST_HINT);
        match outcome {
            Outcome::Success => {
                self.verdict = Verdict::Success;
                self.stats.load.record(elapsed, now);
                return self.succeeded();
            }
            Outcome::Failure { retry_after } => self.failed(Cause::Failed, elapsed.max(hint(retry_after)), now),
            Outcome::Unreachable => self.failed(Cause::Unreachable, elapsed, now),
            Outcome::TimedOut => self.failed(if silent { Cause::Silent } else { Cause::Failed }, elapsed, now),
            Outcome::Overloaded { retry_after } => {
                let penalty = self.penalty(self.stats.failures().max(1));
                self.stats.load.record(elapsed.max(hint(retry_after)).max(penalty), now);
                self.give_probe_back();
            }
        }
        self.verdict = Verdict::Failure;
    }

    fn succeeded(&mut self) {
        self.stats.succeeded();
        if std::mem::take(&mut self.probe) {
            self.stats.details.tell(|control| control.probed(self.stats.details.id, true));
        }
    }

    fn failed(&mut self, cause: Cause, latency: Duration, now: Instant) {
        if std::mem::take(&mut self.probe) {
            self.stats.details.tell(|control| control.probed(self.stats.details.id, false));
        }
        self.stats.failed(cause, now);
        self.stats.load.record(latency.max(self.penalty(self.stats.failures())), now);
    }

    /// The failure penalty in proportion to how much of late failed: a single failure is no reason to keep all calls away.
    fn penalty(&self, failures: u32) -> Duration {
        self.stats.details.penalty * failures / 64
    }

    fn give_probe_back(&mut self) {
        if std::mem::take(&mut self.probe) {
            self.stats.return_probe();
        }
    }

    /// A call dropped without an outcome.
    fn given_up(&mut self) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.start);
        let expected = Duration::from_nanos((self.stats.load.cost_at(now) * PATIENCE) as u64);
        let patient = elapsed >= LEAST_PATIENCE.max(expected);
        if patient && self.stats.load.silent_since(self.start) {
            self.failed(Cause::Silent, elapsed, now);
        } else {
            self.stats.load.record_at_least(elapsed, now);
            self.give_probe_back();
        }
        self.stats.load.give_up();
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
    fn drop(&mut self) {
        match self.verdict {
            Verdict::Open => self.given_up(),
            Verdict::Success | Verdict::Failure => self.stats.load.end(),
            Verdict::Over => {}
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("endpoint", self.instance()).field("verdict", &self.verdict).finish()
    }
}
