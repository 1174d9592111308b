//! Pauses between the attempts of a call.

use std::time::Duration;

use crate::time::LONGEST_WAIT;

/// Pauses between the attempts of a call. Passed to
/// [`RetryPolicy::backoff`](super::RetryPolicy::backoff).
///
/// The first pause is `first`, each further one is longer by the [factor](Self::factor), up to
/// `max`. Each is shortened by a random part of itself, the [jitter](Self::jitter), so that the
/// calls that failed together are not repeated together.
///
/// ```
/// use std::time::Duration;
/// use tower_eureka::client::{Backoff, RetryPolicy};
///
/// let pauses = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// let policy = RetryPolicy::new().statuses([503]).backoff(pauses);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "pauses do nothing until a retry policy has them"]
pub struct Backoff {
    first: Duration,
    max: Duration,
    factor: f64,
    jitter: f64,
}

impl Backoff {
    /// Creates pauses that double from `first` to `max`, with a [jitter](Self::jitter) of 0.5. Both
    /// are at most a year, and `first` is at most `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        let max = max.min(LONGEST_WAIT);
        Self { first: first.min(max), max, factor: 2.0, jitter: 0.5 }
    }

    /// Sets the factor by which each pause is longer than the one before. Defaults to 2, and is at
    /// least 1.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// Sets the part of a pause that is random, from 0 to 1. Defaults to 0.5: a pause of 20
    /// milliseconds lasts 10 to 20 milliseconds.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) };
        self
    }

    /// Returns the pause after this number of attempts, at least 1.
    pub(super) fn pause(&self, attempts: usize) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        // The factor is infinite after many attempts.
        let factor = self.factor.powi(exponent).min(f64::MAX);
        let seconds = self.first.as_secs_f64() * factor;
        let longest = Duration::try_from_secs_f64(seconds).unwrap_or(self.max).min(self.max);
        longest.mul_f64(1.0 - self.jitter * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pauses_grow_by_the_factor_up_to_the_maximum() {
        let backoff = Backoff::new(ms(20), ms(100)).jitter(0.0);
        assert_eq!([1, 2, 3, 4, 5_000].map(|attempts| backoff.pause(attempts)), [20, 40, 80, 100, 100].map(ms));
        assert_eq!([1, 2, 3].map(|attempts| backoff.factor(3.0).pause(attempts)), [20, 60, 100].map(ms));
        assert_eq!([1, 2].map(|attempts| backoff.factor(f64::NAN).pause(attempts)), [20, 20].map(ms));
        assert_eq!(Backoff::new(ms(50), ms(10)).jitter(0.0).pause(1), ms(10));
        assert_eq!(Backoff::new(Duration::ZERO, Duration::MAX).pause(usize::MAX), Duration::ZERO);
    }

    #[test]
    fn pauses_are_shortened_by_their_jitter() {
        let backoff = Backoff::new(ms(100), ms(100)).jitter(0.4);
        let pauses: Vec<_> = (0..200).map(|_| backoff.pause(1)).collect();
        assert!(pauses.iter().all(|pause| (ms(60)..=ms(100)).contains(pause)), "{pauses:?}");
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*most - *least > ms(20), "{least:?} to {most:?}");
    }
}
