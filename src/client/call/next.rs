//! Picks the instance of the next attempt, within the limits of the retry policy and the budget.

use std::time::Duration;

use http_body::Body;
use tokio::time::{Instant, sleep};
use tower::BoxError;

use super::{AttemptOutcome, Call, ConnectRetry};
use crate::balance::{HttpResponses, Picked};
use crate::client::address::HasAddress;
use crate::metrics::Event;
use crate::time::{Backoff, jittered};

/// Maximum time that a call searches for an instance that can be connected to.
const CONNECT_BUDGET: Duration = Duration::from_secs(10);

/// Number of further instances for an unsent call that are free of the retry budget.
const FREE_UNSENT: usize = 3;
/// Maximum number of further instances for an unsent call.
const MAX_UNSENT: usize = 10;

/// Number of sends after unprocessed ones that are free of the retry budget.
const FREE_REFUSALS: usize = 3;
/// Number of these that go to the same instance.
const REFUSALS_PER_INSTANCE: usize = 2;
/// Maximum number of sends after unprocessed ones.
const MAX_REFUSALS: usize = 8;
/// Pause before the second send after an unprocessed one. It doubles up to the maximum.
const FIRST_REFUSAL_PAUSE: Duration = Duration::from_millis(10);
const MAX_REFUSAL_PAUSE: Duration = Duration::from_millis(200);

impl<E, B> Call<E, B>
where
    E: Clone + HasAddress + Send + Sync + 'static,
    B: Body<Error: Into<BoxError>>,
{
    /// Returns the instance of the next attempt. `None` ends the call.
    pub(super) async fn next(&mut self, outcome: AttemptOutcome) -> Option<Picked<E, HttpResponses>> {
        let reason = match outcome {
            AttemptOutcome::Final => return None,
            AttemptOutcome::Unsent => return Box::pin(self.next_reachable()).await,
            AttemptOutcome::Unprocessed { is_busy } => return Box::pin(self.next_after_refusal(is_busy)).await,
            AttemptOutcome::Refused => "refused",
            AttemptOutcome::Lost | AttemptOutcome::TimedOut => "lost",
        };
        self.sent += 1;
        self.has_lost |= outcome == AttemptOutcome::Lost;
        let retry = &self.options().retry;
        let may_retry = retry.allows(&self.request.parts.method) && self.sent < retry.max_attempts();
        let pause = retry.pause(self.sent);
        // After such a pause there would be no time for an attempt.
        let is_too_late = !pause.is_zero() && self.deadline.remaining().is_some_and(|left| left <= pause);
        if !may_retry || is_too_late || !self.request.wait_until_repeatable().await || !self.withdraw_budget(reason) {
            return None;
        }
        if !pause.is_zero() {
            self.route.metrics.record(Event::BackedOff { pause });
            Box::pin(sleep(pause)).await;
        }
        self.pick().or_else(|| {
            // The connection may have ended, not the instance.
            self.tried.clear();
            self.pick()
        })
    }

    /// Returns the next instance for an unsent request. Without one, waits for a reachable instance
    /// as long as the caller waits for a ready one.
    async fn next_reachable(&mut self) -> Option<Picked<E, HttpResponses>> {
        let ready_timeout = self.deadline.ready_timeout().unwrap_or_default();
        if self.connect_retry().since.elapsed() >= CONNECT_BUDGET.max(ready_timeout) {
            return None;
        }
        if !self.request.wait_until_repeatable().await {
            return None;
        }
        self.unsent += 1;
        if self.unsent <= MAX_UNSENT
            && self.permit_retry("unsent", self.unsent <= FREE_UNSENT)
            && let Some(picked) = self.pick()
        {
            return Some(picked);
        }
        self.wait_for_instance().await
    }

    /// Waits for an instance up to the caller's limit, with a pause before tried ones are used
    /// again.
    pub(super) async fn wait_for_instance(&mut self) -> Option<Picked<E, HttpResponses>> {
        self.route.record_use();
        let ready_timeout = self.deadline.ready_timeout().unwrap_or_default();
        loop {
            let connect_retry = self.connect_retry();
            let left = ready_timeout.saturating_sub(connect_retry.since.elapsed());
            let pause = connect_retry.backoff.next();
            let left = self.deadline.remaining().map_or(left, |deadline| deadline.min(left));
            if left.is_zero() {
                return None;
            }
            if self.route.is_ready() {
                sleep(pause.min(left)).await;
            } else {
                self.route.balance.ready(Some(left)).await;
            }
            self.tried.clear();
            self.latest = None;
            if let Some(picked) = self.pick() {
                return Some(picked);
            }
        }
    }

    fn connect_retry(&mut self) -> &mut ConnectRetry {
        self.connect_retry.get_or_insert_with(|| {
            let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            ConnectRetry { since: Instant::now(), backoff }
        })
    }

    /// Returns the next instance for an unprocessed request: the same one, perhaps over another
    /// connection. After several refusals, or if it is busy, another one.
    async fn next_after_refusal(&mut self, is_busy: bool) -> Option<Picked<E, HttpResponses>> {
        self.refusals += 1;
        self.refusals_in_a_row += 1;
        if self.refusals > MAX_REFUSALS
            || !self.request.wait_until_repeatable().await
            || !self.permit_retry("unprocessed", self.refusals <= FREE_REFUSALS)
        {
            return None;
        }
        if self.refusals > 1 {
            sleep(pause_after(self.refusals, self.deadline.remaining())).await;
        }
        if !is_busy
            && self.refusals_in_a_row <= REFUSALS_PER_INSTANCE
            && let Some(latest) = self.latest
            && let Some(picked) = self.route.balance.pick_again(latest)
        {
            return Some(picked);
        }
        self.refusals_in_a_row = 0;
        let picked = self.pick();
        if picked.is_some() || is_busy {
            return picked;
        }
        self.tried.clear();
        self.pick()
    }

    /// Returns `true` if a request that was not received may be sent again. Takes from the retry
    /// budget unless `is_free`.
    fn permit_retry(&self, reason: &'static str, is_free: bool) -> bool {
        if is_free {
            self.route.metrics.record(Event::Retried { reason });
        }
        is_free || self.withdraw_budget(reason)
    }

    /// Takes one attempt from the retry budget. Returns `false` if none is left.
    pub(super) fn withdraw_budget(&self, reason: &'static str) -> bool {
        let is_allowed = self.route.budget.withdraw(Instant::now());
        if is_allowed {
            self.route.metrics.record(Event::Retried { reason });
        } else {
            self.route.metrics.record(Event::RetryBudgetExhausted);
        }
        is_allowed
    }

    /// Picks an instance for a hedge within the retry budget. Ejected instances are skipped, since
    /// they would only fail faster.
    pub(super) fn pick_hedge(&mut self) -> Option<Picked<E, HttpResponses>> {
        self.tried.extend(self.latest.take());
        let picked = match self.route.balance.pick_available(&self.request.parts, &self.tried) {
            // After the pick, since a hedge without an instance costs nothing.
            Some(picked) if !self.withdraw_budget("hedge") => {
                picked.cancel();
                None
            }
            picked => picked,
        };
        // Without a hedge, the first attempt is the latest one.
        self.latest = picked.as_ref().map(Picked::id).or_else(|| self.tried.pop());
        picked
    }

    pub(super) fn pick(&mut self) -> Option<Picked<E, HttpResponses>> {
        self.tried.extend(self.latest.take());
        let picked = self.route.balance.pick(&self.request.parts, &self.tried)?;
        self.latest = Some(picked.id());
        Some(picked)
    }
}

/// Pause after this number of refusals, with jitter and within the remaining time.
fn pause_after(refusals: usize, left: Option<Duration>) -> Duration {
    let pause = FIRST_REFUSAL_PAUSE.saturating_mul(1 << (refusals - 2)).min(MAX_REFUSAL_PAUSE);
    let pause = jittered(pause);
    left.map_or(pause, |left| left.min(pause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_after_refusals_has_jitter_with_and_without_a_deadline() {
        for left in [None, Some(Duration::from_secs(60))] {
            let pauses: Vec<_> = (0..20).map(|_| pause_after(4, left)).collect();
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{left:?}: {pauses:?}");
        }
        assert_eq!(pause_after(2, Some(Duration::ZERO)), Duration::ZERO);
    }
}
