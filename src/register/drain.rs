use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::lifecycle::Lifecycle;
use crate::config::RegistrarConfig;
use crate::signal::shutdown_signal;
use crate::time::{LONGEST_WAIT, add_capped};

/// Time limits of a shutdown. All steps share one budget, and each has its own limit within it.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainConfig {
    /// Limit of the whole shutdown, from the signal to the end of the last step.
    pub(super) shutdown_timeout: Duration,
    /// Time without a new call after which the drain ends.
    pub(super) quiet_time: Duration,
    /// Limit of the drain if calls continue.
    pub(super) max_drain: Duration,
    /// Limit of the requests in flight once the server has stopped accepting.
    pub(super) grace: Duration,
    /// Limit of each request to the registry: DOWN and DELETE.
    pub(super) registry_timeout: Duration,
    /// True if a server that no caller can know waits as well.
    pub(super) waits_uncalled: bool,
    /// Time after which the orchestrator kills the process.
    pub(super) termination_grace: Option<Duration>,
}

/// Set of time limits of a shutdown, for [`Registrar::shutdown_preset`](super::Registrar::shutdown_preset).
///
/// | limit | `Fast` | `Adaptive` | `FullPropagation` |
/// |---|---|---|---|
/// | [`shutdown_timeout`](super::Registrar::shutdown_timeout) | 10 s | 25 s | 130 s |
/// | [`quiet_time`](super::Registrar::quiet_time) | 1 s | 5 s | 100 s |
/// | [`max_drain`](super::Registrar::max_drain) | 3 s | 15 s | 100 s |
/// | [`grace`](super::Registrar::grace) | 5 s | 20 s | 20 s |
/// | [`registry_timeout`](super::Registrar::registry_timeout) | 1 s | 3 s | 3 s |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownPreset {
    /// Leaves soon. For development, and for callers that try another instance by themselves.
    Fast,
    /// Serves until callers have stopped calling, at least for the quiet time, and fits into the 30
    /// seconds of an orchestrator.
    #[default]
    Adaptive,
    /// Serves for 100 seconds after the signal, whether called or not, until the last Java caller
    /// with default settings has learned that the instance leaves: 30 seconds in the server's
    /// response cache, 30 until the caller's next fetch, 35 in its load balancer's cache. The
    /// orchestrator has to wait for more than 130 seconds before it kills the process.
    FullPropagation,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            shutdown_timeout: Duration::from_secs(25),
            quiet_time: Duration::from_secs(5),
            max_drain: Duration::from_secs(15),
            grace: Duration::from_secs(20),
            registry_timeout: Duration::from_secs(3),
            waits_uncalled: false,
            termination_grace: None,
        }
    }
}

/// Part of a shutdown's time beyond that of the requests in flight.
const BEYOND_GRACE: Duration = Duration::from_secs(5);

impl DrainConfig {
    /// Applies the settings of Spring for the requests in flight. A request that is in flight at
    /// the signal has the time that they set.
    pub(super) fn with_settings(mut self, settings: &RegistrarConfig) -> Self {
        if let Some(grace) = settings.grace {
            self.grace = grace;
            self.shutdown_timeout = self.shutdown_timeout.max(grace.saturating_add(BEYOND_GRACE));
        }
        if !settings.is_graceful {
            self.grace = Duration::ZERO;
        }
        self
    }

    /// Replaces all limits but that of the orchestrator.
    pub(super) fn with_preset(self, preset: ShutdownPreset) -> Self {
        let seconds = |[total, quiet, drain, grace, registry]: [u64; 5]| Self {
            shutdown_timeout: Duration::from_secs(total),
            quiet_time: Duration::from_secs(quiet),
            max_drain: Duration::from_secs(drain),
            grace: Duration::from_secs(grace),
            registry_timeout: Duration::from_secs(registry),
            waits_uncalled: preset == ShutdownPreset::FullPropagation,
            termination_grace: self.termination_grace,
        };
        match preset {
            ShutdownPreset::Fast => seconds([10, 1, 3, 5, 1]),
            ShutdownPreset::Adaptive => Self { termination_grace: self.termination_grace, ..Self::default() },
            ShutdownPreset::FullPropagation => seconds([130, 100, 100, 20, 3]),
        }
    }

    /// Starts a shutdown and divides its budget.
    pub(super) fn begin(&self) -> Budget {
        let start = Instant::now();
        let total = self.shutdown_timeout.min(LONGEST_WAIT);
        let registry = self.registry_timeout.min(total / 4);
        Budget {
            registry,
            // A fifth is reserved for the requests in flight, and the registry timeout for the
            // DELETE.
            drain_end: start + (total - registry - total / 5),
            grace_end: start + (total - registry),
            end: start + total,
        }
    }
}

/// Budget of one shutdown, as the latest end of each step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Limit of the DOWN and of the DELETE.
    pub(super) registry: Duration,
    drain_end: Instant,
    grace_end: Instant,
    end: Instant,
}

impl Budget {
    /// Returns the time that the requests in flight have from now on.
    pub(super) fn grace(&self, config: &DrainConfig) -> Duration {
        config.grace.min(self.grace_end.saturating_duration_since(Instant::now()))
    }

    /// Returns the time that the DELETE has from now on. It is never zero, even if an earlier step
    /// took too long.
    pub(super) fn delete(&self, config: &DrainConfig) -> Duration {
        let left = self.end.saturating_duration_since(Instant::now());
        config.registry_timeout.min(left.max(self.registry))
    }
}

/// Waits until callers have stopped calling.
///
/// A caller that has learned that the instance is DOWN stops calling it. Without new calls, all
/// callers have learned it. A server that was never called waits for the quiet time as well, since
/// callers may have it in their lists, unless it was never UP in the registry.
pub(super) async fn wait_until_quiet(lifecycle: &Lifecycle, config: &DrainConfig, budget: &Budget) {
    if lifecycle.is_layered() && !lifecycle.may_be_called() && !config.waits_uncalled {
        return;
    }
    let start = Instant::now();
    let limit = add_capped(start, config.max_drain).min(budget.drain_end);
    loop {
        let silent_since = lifecycle.last_request().unwrap_or(start).max(start);
        let quiet_at = add_capped(silent_since, config.quiet_time).min(limit);
        if Instant::now() >= quiet_at {
            return;
        }
        sleep_until(quiet_at).await;
    }
}

/// Time after a signal that counted in which further ones are ignored, since a supervisor signals
/// both the process and its process group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Waits for a SIGTERM or Ctrl-C that counts, after the last one that did at `since`.
pub(super) async fn next_signal(since: Instant) {
    next_distinct(since, shutdown_signal).await;
}

/// Waits for the first signal that is not ignored after the one at `since`.
async fn next_distinct<F: Future<Output = ()>>(since: Instant, signal: impl Fn() -> F) {
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

    fn steps_of(config: DrainConfig) -> [u64; 4] {
        let start = Instant::now();
        let budget = config.begin();
        let at = |instant: Instant| (instant - start).as_millis() as u64;
        [budget.registry.as_millis() as u64, at(budget.drain_end), at(budget.grace_end), at(budget.end)]
    }

    #[tokio::test(start_paused = true)]
    async fn budget_keeps_a_reserve_for_each_later_step() {
        assert_eq!(steps_of(DrainConfig::default()), [3000, 17_000, 22_000, 25_000]);
        let config = |total| DrainConfig { shutdown_timeout: total, ..DrainConfig::default() };
        assert_eq!(steps_of(config(Duration::from_secs(10))), [2500, 5500, 7500, 10_000]);
        assert_eq!(steps_of(config(Duration::ZERO)), [0, 0, 0, 0]);
        steps_of(config(Duration::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn settings_of_spring_limit_the_requests_in_flight() {
        let read = |grace: Option<u64>, is_graceful| {
            let grace = grace.map(Duration::from_secs);
            let config = DrainConfig::default();
            let config = config.with_settings(&RegistrarConfig { grace, is_graceful, ..RegistrarConfig::default() });
            [config.grace.as_secs(), config.shutdown_timeout.as_secs()]
        };
        assert_eq!(read(None, true), [20, 25]);
        assert_eq!(read(Some(10), true), [10, 25]);
        assert_eq!(read(Some(60), true), [60, 65]);
        assert_eq!(read(Some(10), false), [0, 25]);
        let longest = RegistrarConfig { grace: Some(Duration::MAX), ..RegistrarConfig::default() };
        steps_of(DrainConfig::default().with_settings(&longest));
    }

    #[tokio::test(start_paused = true)]
    async fn presets_leave_room_for_each_step() {
        for (preset, drain) in
            [(ShutdownPreset::Fast, 3), (ShutdownPreset::Adaptive, 15), (ShutdownPreset::FullPropagation, 100)]
        {
            let config = DrainConfig::default().with_preset(preset);
            assert_eq!(config.max_drain, Duration::from_secs(drain));
            let [_, drain_end, ..] = steps_of(config);
            assert!(drain_end >= drain * 1000, "{preset:?} drains until {drain_end} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn signal_within_half_a_second_is_ignored() {
        let start = Instant::now();
        let every_200_ms = || tokio::time::sleep(Duration::from_millis(200));
        next_distinct(start, every_200_ms).await;
        assert_eq!(start.elapsed(), Duration::from_millis(600));
    }
}
