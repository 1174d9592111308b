//! How an endpoint that just came up grows into its share of the calls.

use std::time::Duration;

use tokio::time::Instant;

/// In how many steps the weights follow the curve.
const STEPS: u32 = 100;

/// The shortest time between two steps.
const SHORTEST_STEP: Duration = Duration::from_millis(50);

/// Gives endpoints that just came up less than their share of the calls, more from moment to moment: caches fill, code gets
/// compiled, pools open their connections.
///
/// After `t` of the window the endpoint has `max(min_share, t^(1/aggression))` of its weight, as in Envoy. When it came up is told
/// by [`Attributes::up_since_ms`](super::Attributes::up_since_ms), so the window is the same for all callers, also for one that started just
/// now. A time that lies ahead, because the clocks differ, counts as now. Where all endpoints are equally new, none gets less than another.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    pub(super) window: Duration,
    min_share: f64,
    aggression: f64,
}

impl SlowStart {
    /// With this window from the start of an endpoint to its full share. Zero switches it off.
    pub fn new(window: Duration) -> Self {
        Self { window, min_share: 0.1, aggression: 1.0 }
    }

    /// What part of its weight an endpoint has from the first moment on, above 0 to 1. Default 0.1.
    #[must_use]
    pub fn min_share(mut self, share: f64) -> Self {
        self.min_share = share.clamp(0.001, 1.0);
        self
    }

    /// How fast the first calls come: above 1, sooner than in proportion to the time; below 1, later. Default 1.
    #[must_use]
    pub fn aggression(mut self, aggression: f64) -> Self {
        self.aggression = aggression.max(0.01);
        self
    }

    /// What part of its weight an endpoint of this age has; `None` once it is past the window.
    pub(super) fn factor(&self, age: Duration) -> Option<f64> {
        if age >= self.window {
            return None;
        }
        let t = age.as_secs_f64() / self.window.as_secs_f64();
        Some(t.powf(1.0 / self.aggression).max(self.min_share))
    }

    /// How long a weight may be used before it is worked out again.
    pub(super) fn step(&self) -> Duration {
        (self.window / STEPS).max(SHORTEST_STEP)
    }
}

/// For how long an endpoint has been up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    /// By the wall clock, when it was read.
    then: Duration,
    read: Instant,
}

impl Age {
    /// Of an endpoint up since then, in milliseconds of the epoch, as `wall_clock_ms` is.
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
    fn follows_the_formula() {
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
    async fn an_age_grows_with_our_own_clock_and_a_start_ahead_of_it_is_now() {
        let age = |since| Age::new(since, 10_000, Instant::now());
        let (old, ahead, never) = (age(4_000), age(60_000), age(0));
        tokio::time::advance(Duration::from_secs(2)).await;
        let seconds = [old, ahead, never].map(|age| age.at(Instant::now()).as_secs());
        assert_eq!(seconds, [8, 2, 12]);
        assert_eq!(Age::new(5, -1, Instant::now()).at(Instant::now()), Duration::ZERO);
    }
}
