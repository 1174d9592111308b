//! How an answer is judged, and when a call is over.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::Stats;

/// Judges the answers of endpoints, and says when a call is over.
///
/// The balancer hands every answer to its observer together with the call's [`Completion`]. The observer reports
/// [`success`](Completion::success) or [`failure`](Completion::failure) there and drops it when the call is over, at once or,
/// for an answer that is still being read, with a part of the answer that it wraps. A call that ends in `Err` is a failure
/// without being asked about.
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
}

/// Takes every answer for a success and for the end of its call.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyResponse;

impl<Res> Observe<Res> for AnyResponse {
    type Response = Res;

    fn observe(&self, mut completion: Completion, response: Res) -> Res {
        completion.success();
        response
    }
}

/// A call on its way: counts as pending at its endpoint until dropped.
///
/// Dropped without a verdict, as when the caller gave up waiting, it records the time that has passed as a lower bound of the
/// endpoint's latency.
pub struct Completion {
    stats: Arc<Stats>,
    start: Instant,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Success,
    Failure,
}

impl Completion {
    pub(super) fn begin(stats: Arc<Stats>, start: Instant) -> Self {
        stats.load.begin();
        Self { stats, start, verdict: Verdict::Open }
    }

    /// The endpoint answered: records how long that took. Does nothing after a first verdict.
    pub fn success(&mut self) {
        if self.verdict == Verdict::Open {
            self.verdict = Verdict::Success;
            let now = Instant::now();
            self.stats.load.record(now.saturating_duration_since(self.start), now);
        }
    }

    /// The endpoint failed: records the failure penalty, or the time it took to fail when that is longer.
    ///
    /// Also after a success, for an answer that began well. Does nothing after a first failure.
    pub fn failure(&mut self) {
        if self.verdict != Verdict::Failure {
            self.verdict = Verdict::Failure;
            let now = Instant::now();
            let elapsed = now.saturating_duration_since(self.start);
            self.stats.load.record(elapsed.max(self.stats.details.penalty), now);
        }
    }

    pub(super) fn app(&self) -> Option<&Arc<str>> {
        self.stats.details.app.as_ref()
    }

    pub(super) fn instance(&self) -> &Arc<str> {
        &self.stats.details.instance
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if self.verdict == Verdict::Open {
            let now = Instant::now();
            self.stats.load.record_at_least(now.saturating_duration_since(self.start), now);
        }
        self.stats.load.end();
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("endpoint", self.instance()).field("verdict", &self.verdict).finish()
    }
}
