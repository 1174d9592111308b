use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::lifecycle::Lifecycle;
use crate::signal::shutdown_signal;
use crate::time::LONGEST_WAIT;

/// Times of a shutdown. All steps share one budget, and each has a bound of its own within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainConfig {
    /// The whole, from the signal to the end of the last step.
    pub(super) shutdown_timeout: Duration,
    /// Time without a new request after which the callers are taken to know.
    pub(super) quiet_time: Duration,
    /// Bound of the drain, even if requests keep coming.
    pub(super) max_drain: Duration,
    /// Bound of the requests in flight, once no more are accepted.
    pub(super) grace: Duration,
    /// Bound of one request to the registry: DOWN, DELETE.
    pub(super) registry_timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            shutdown_timeout: Duration::from_secs(25),
            quiet_time: Duration::from_secs(5),
            max_drain: Duration::from_secs(15),
            grace: Duration::from_secs(20),
            registry_timeout: Duration::from_secs(3),
        }
    }
}

impl DrainConfig {
    /// Divides the budget of a shutdown that begins now.
    pub(super) fn begin(&self) -> Budget {
        let start = Instant::now();
        let total = self.shutdown_timeout.min(LONGEST_WAIT);
        let registry = self.registry_timeout.min(total / 4);
        Budget {
            registry,
            // The requests in flight keep a fifth, the DELETE what it may take.
            drain_end: start + (total - registry - total / 5),
            grace_end: start + (total - registry),
            end: start + total,
        }
    }
}

/// Budget of one shutdown: the latest end of each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Bound of the DOWN, and of the DELETE.
    pub(super) registry: Duration,
    drain_end: Instant,
    grace_end: Instant,
    end: Instant,
}

impl Budget {
    /// Time for the requests in flight, from now.
    pub(super) fn grace(&self, config: &DrainConfig) -> Duration {
        config.grace.min(self.grace_end.saturating_duration_since(Instant::now()))
    }

    /// Time for the DELETE, from now. Some is left even where a step before took longer than it
    /// should.
    pub(super) fn delete(&self, config: &DrainConfig) -> Duration {
        let left = self.end.saturating_duration_since(Instant::now());
        config.registry_timeout.min(left.max(self.registry))
    }
}

/// Waits until callers have stopped calling.
///
/// A caller that knows that this instance is DOWN stops calling it, so silence shows that all
/// callers know. A server that never had a request has no callers and does not wait; a server whose
/// requests are not seen, for lack of the layer, waits for the quiet time.
pub(super) async fn quiet(lifecycle: &Lifecycle, config: &DrainConfig, budget: &Budget) {
    if lifecycle.is_layered() && !lifecycle.has_served() {
        return;
    }
    let start = Instant::now();
    let limit = later(start, config.max_drain).min(budget.drain_end);
    loop {
        let silent_since = lifecycle.last_request().unwrap_or(start).max(start);
        let quiet_at = later(silent_since, config.quiet_time).min(limit);
        if Instant::now() >= quiet_at {
            return;
        }
        sleep_until(quiet_at).await;
    }
}

fn later(instant: Instant, wait: Duration) -> Instant {
    instant + wait.min(LONGEST_WAIT)
}

/// Time in which a further signal is the same one: a supervisor signals the process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Completes at a SIGTERM or Ctrl-C that comes from now on and is not the same as the one `since`
/// when this waits.
pub(super) async fn next_signal(since: Instant) {
    another(since, shutdown_signal).await;
}

/// Completes at the first signal that comes long enough after the one before.
async fn another<F: Future<Output = ()>>(since: Instant, signal: impl Fn() -> F) {
    loop {
        signal().await;
        if since.elapsed() >= SAME_SIGNAL {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(config: DrainConfig) -> [u64; 4] {
        let start = Instant::now();
        let budget = config.begin();
        let at = |instant: Instant| (instant - start).as_millis() as u64;
        [budget.registry.as_millis() as u64, at(budget.drain_end), at(budget.grace_end), at(budget.end)]
    }

    #[tokio::test(start_paused = true)]
    async fn budget_keeps_a_reserve_for_each_later_step() {
        assert_eq!(after(DrainConfig::default()), [3000, 17_000, 22_000, 25_000]);
        let config = |total| DrainConfig { shutdown_timeout: total, ..DrainConfig::default() };
        assert_eq!(after(config(Duration::from_secs(10))), [2500, 5500, 7500, 10_000]);
        assert_eq!(after(config(Duration::ZERO)), [0, 0, 0, 0]);
        after(config(Duration::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn signal_that_follows_at_once_is_the_same() {
        let start = Instant::now();
        let every_200_ms = || tokio::time::sleep(Duration::from_millis(200));
        another(start, every_200_ms).await;
        assert_eq!(start.elapsed(), Duration::from_millis(600));
    }
}
