//! Delays: jitter, so that a fleet does not act in step, and back-off.

use std::time::Duration;

use crate::clock::LONGEST_WAIT;

/// The duration, up to a tenth shorter or longer.
pub(crate) fn jittered(duration: Duration) -> Duration {
    spread(duration, 0.1)
}

/// The duration, up to this part of it shorter or longer.
pub(crate) fn spread(duration: Duration, part: f64) -> Duration {
    duration.min(LONGEST_WAIT).mul_f64(1.0 - part + 2.0 * part * fastrand::f64())
}

/// Waits that double from the first to the last, each with jitter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last: last.max(first), next: first }
    }

    /// The wait before the next attempt.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = self.next.saturating_mul(2).min(self.last);
        jittered(wait)
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_bound_and_starts_over() {
        fastrand::seed(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for expected in [1, 2, 4, 5, 5] {
            let wait = backoff.next().as_secs_f64();
            assert!((wait / f64::from(expected) - 1.0).abs() <= 0.1, "{wait} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next() < Duration::from_millis(1101));
    }
}
