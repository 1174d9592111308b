use std::time::Duration;

use tokio::time::Instant;

/// Number of changes that are registered without a pause.
const BURST: u128 = 2;
const MINUTE_MS: u128 = 60_000;

/// Limit of the registrations that changes cause: a token bucket of two, as the replicator of Java
/// clients has. It is refilled at `60 * 2 / interval` tokens per minute, in whole numbers. An
/// interval of more than 120 seconds gives 0, which switches the limit off.
#[derive(Debug)]
pub(super) struct Limiter {
    per_minute: u128,
    consumed: u128,
    refilled: Option<Instant>,
}

impl Limiter {
    pub(super) fn new(interval: Duration) -> Self {
        // A part of a second counts as a whole one.
        let seconds = interval.as_millis().div_ceil(1000).max(1);
        Self { per_minute: 60 * BURST / seconds, consumed: 0, refilled: None }
    }

    /// Returns the time at which there is a token if there is none now.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), Instant> {
        if self.per_minute == 0 {
            return Ok(());
        }
        match self.refilled {
            None => self.refilled = Some(now),
            Some(refilled) => {
                let new = (now - refilled).as_millis() * self.per_minute / MINUTE_MS;
                if new > 0 {
                    self.refilled = Some(refilled + self.time_of(new));
                    self.consumed = self.consumed.saturating_sub(new);
                }
            }
        }
        if self.consumed < BURST { Ok(()) } else { Err(self.refilled.unwrap_or(now) + self.time_of(1)) }
    }

    /// Takes a token, of which a [check](Self::check) has shown that there is one.
    pub(super) fn take(&mut self) {
        self.consumed += 1;
    }

    /// Returns the time in which this number of tokens is refilled.
    fn time_of(&self, tokens: u128) -> Duration {
        let millis = (tokens * MINUTE_MS).div_ceil(self.per_minute);
        Duration::from_millis(millis.try_into().unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(limiter: &mut Limiter, now: Instant) -> Result<(), Instant> {
        limiter.check(now).map(|()| limiter.take())
    }

    #[tokio::test]
    async fn tokens_are_granted_as_by_the_java_replicator() {
        let (mut limiter, start) = (Limiter::new(Duration::from_secs(30)), Instant::now());
        let attempts = [0, 10, 20, 14_999, 15_000, 15_001, 30_000, 45_000, 45_001];
        let granted = attempts.map(|ms| take(&mut limiter, start + Duration::from_millis(ms)).is_ok());
        assert_eq!(granted, [true, true, false, false, true, false, true, true, false]);
    }

    #[tokio::test]
    async fn refused_token_is_granted_at_the_returned_time() {
        for seconds in [1, 7, 30, 120] {
            let (mut limiter, mut now) = (Limiter::new(Duration::from_secs(seconds)), Instant::now());
            for _ in 0..20 {
                if let Err(at) = take(&mut limiter, now) {
                    assert!(at > now);
                    now = at;
                    assert_eq!(take(&mut limiter, now), Ok(()), "{seconds} s");
                }
            }
        }
    }

    #[tokio::test]
    async fn interval_of_more_than_two_minutes_switches_the_limit_off() {
        let (mut limiter, now) = (Limiter::new(Duration::from_secs(121)), Instant::now());
        assert!((0..100).all(|_| take(&mut limiter, now).is_ok()));
    }
}
