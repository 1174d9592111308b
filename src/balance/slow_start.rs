//! Slow start: endpoints that have just come up get a growing share of the calls.

use std::time::Duration;

use tokio::time::Instant;

/// Number of steps in which weights follow the curve.
const STEPS: u32 = 100;

/// Minimum time between two steps.
const MIN_STEP: Duration = Duration::from_millis(50);

/// Reduces the weight of endpoints that have just come up. The weight grows over a window, while
/// caches fill, code is compiled and pools establish connections.
///
/// After the part `t` of the window, an endpoint has `max(min_share, t^(1/aggression))` of its
/// weight, as in Envoy. The window starts at
/// [`Attributes::up_since_ms`](super::Attributes::up_since_ms), so it is the same for all callers,
/// including one that has just started. A start in the future, because of different clocks, counts
/// as now. If all endpoints are equally new, their shares are equal.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    pub(super) window: Duration,
    min_share: f64,
    aggression: f64,
}

impl SlowStart {
    /// Creates a slow start with this window between an endpoint's start and its full weight. Zero
    /// disables it.
    pub fn new(window: Duration) -> Self {
        Self { window, min_share: 0.1, aggression: 1.0 }
    }

    /// Sets the initial share of the weight, from 0.001 to 1. Defaults to 0.1.
    #[must_use]
    pub fn min_share(mut self, share: f64) -> Self {
        self.min_share = if share.is_nan() { 0.001 } else { share.clamp(0.001, 1.0) };
        self
    }

    /// Sets the shape of the curve. With 1 the weight grows in proportion to the time, with more it
    /// grows faster at first, and with less slower. Defaults to 1, and is at least 0.01.
    #[must_use]
    pub fn aggression(mut self, aggression: f64) -> Self {
        self.aggression = aggression.max(0.01);
        self
    }

    /// Returns `false` if the window is zero.
    pub(super) fn is_enabled(&self) -> bool {
        !self.window.is_zero()
    }

    /// Returns the share of its weight that an endpoint of this age has, or `None` after the
    /// window.
    pub(super) fn factor(&self, age: Duration) -> Option<f64> {
        if age >= self.window {
            return None;
        }
        let t = age.as_secs_f64() / self.window.as_secs_f64();
        Some(t.powf(1.0 / self.aggression).max(self.min_share))
    }

    /// Returns the time for which a weight may be used.
    pub(super) fn step(&self) -> Duration {
        (self.window / STEPS).max(MIN_STEP)
    }
}

/// Time for which an endpoint has been up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    /// Age by the wall clock when it was read.
    then: Duration,
    read: Instant,
}

impl Age {
    /// Creates the age of an endpoint from the start of its life and the wall clock, both in
    /// milliseconds of the epoch.
    pub(super) fn new(up_since_ms: u64, wall_clock_ms: i64, read: Instant) -> Self {
        let wall_clock_ms = u64::try_from(wall_clock_ms).unwrap_or_default();
        Self { then: Duration::from_millis(wall_clock_ms.saturating_sub(up_since_ms)), read }
    }

    pub(super) fn at(&self, now: Instant) -> Duration {
        self.then.saturating_add(now.saturating_duration_since(self.read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percents(slow: &SlowStart, ages: &[u64]) -> Vec<Option<u32>> {
        let percent = |age: &u64| slow.factor(Duration::from_secs(*age)).map(|factor| (factor * 100.0).round() as u32);
        ages.iter().map(percent).collect()
    }

    #[test]
    fn factor_follows_the_formula() {
        let ages = [0, 5, 25, 50, 81, 99, 100, 1_000];
        let slow = SlowStart::new(Duration::from_secs(100));
        let linear = [Some(10), Some(10), Some(25), Some(50), Some(81), Some(99), None, None];
        assert_eq!(percents(&slow, &ages), linear);
        let eager = [Some(10), Some(22), Some(50), Some(71), Some(90), Some(99), None, None];
        assert_eq!(percents(&slow.clone().aggression(2.0), &ages), eager);
        let late = [Some(30), Some(30), Some(30), Some(30), Some(66), Some(98), None, None];
        assert_eq!(percents(&slow.aggression(0.5).min_share(0.3), &ages), late);
        assert_eq!(SlowStart::new(Duration::ZERO).factor(Duration::ZERO), None);
    }

    #[tokio::test(start_paused = true)]
    async fn age_grows_with_the_monotonic_clock_and_is_zero_for_a_future_start() {
        let age = |since| Age::new(since, 10_000, Instant::now());
        let (old, ahead, never) = (age(4_000), age(60_000), age(0));
        tokio::time::advance(Duration::from_secs(2)).await;
        let seconds = [old, ahead, never].map(|age| age.at(Instant::now()).as_secs());
        assert_eq!(seconds, [8, 2, 12]);
        assert_eq!(Age::new(5, -1, Instant::now()).at(Instant::now()), Duration::ZERO);
    }
}
