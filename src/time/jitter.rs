//! Random delays, so that the members of a fleet do not act at the same time.

use std::time::Duration;

#[cfg(feature = "client")]
use super::clock::LONGEST_WAIT;

/// Returns the duration, shorter or longer by up to 10 %.
#[cfg(feature = "client")]
pub(crate) fn jittered(duration: Duration) -> Duration {
    jittered_by(duration, 0.1)
}

/// Returns the duration, shorter or longer by up to this fraction of it.
#[cfg(feature = "client")]
pub(crate) fn jittered_by(duration: Duration, fraction: f64) -> Duration {
    duration.min(LONGEST_WAIT).mul_f64(1.0 - fraction + 2.0 * fraction * fastrand::f64())
}

/// Returns the duration, longer by up to 10 % and never shorter.
pub(crate) fn lengthened(duration: Duration) -> Duration {
    duration.mul_f64(1.0 + 0.1 * fastrand::f64())
}

/// Returns a random part of the duration, from nothing to nearly all of it.
#[cfg(feature = "client")]
pub(crate) fn random_part(duration: Duration) -> Duration {
    duration.mul_f64(fastrand::f64())
}

/// Exponential backoff: delays double from the first to the maximum, each with jitter.
#[cfg(feature = "client")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

#[cfg(feature = "client")]
impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max: max.max(first), next: first }
    }

    /// Returns the delay before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = self.next.saturating_mul(2).min(self.max);
        jittered(delay)
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn backoff_without_success_doubles_to_its_maximum_until_reset() {
        fastrand::seed(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for expected in [1, 2, 4, 5, 5] {
            let delay = backoff.next().as_secs_f64();
            assert!((delay / f64::from(expected) - 1.0).abs() <= 0.1, "{delay} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next() < Duration::from_millis(1101));
    }
}
