/// Token bucket that behaves like Java's `RateLimiter`: it keeps the consumed tokens, and adds
/// whole tokens only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Time up to which tokens were added. Zero before the first use.
    refilled_at: i64,
    consumed: i64,
}

impl Bucket {
    /// Takes a token. Returns false if there is none. A burst or a rate of zero admits everything.
    /// `rate` is in tokens per second, and `now` in milliseconds.
    pub(super) fn acquire(&mut self, burst: u32, rate: u32, now: i64) -> bool {
        if burst == 0 || rate == 0 {
            return true;
        }
        let (burst, added) = (i64::from(burst), self.added(rate, now));
        if added > 0 {
            // A part of a token is not lost: the time moves by whole tokens.
            let step = added.saturating_mul(1000) / i64::from(rate);
            self.refilled_at = if self.refilled_at == 0 { now } else { self.refilled_at.saturating_add(step) };
            self.consumed = (self.consumed.min(burst) - added).max(0);
        }
        let is_admitted = self.consumed < burst;
        self.consumed += i64::from(is_admitted);
        is_admitted
    }

    /// Returns true if every token is there again, so that a new bucket admits as much.
    pub(super) fn is_full(&self, rate: u32, now: i64) -> bool {
        self.consumed <= self.added(rate, now)
    }

    /// Returns the number of tokens to add.
    fn added(&self, rate: u32, now: i64) -> i64 {
        let elapsed = i128::from(now.saturating_sub(self.refilled_at));
        i64::try_from(elapsed * i128::from(rate) / 1000).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_admits_a_burst_and_then_the_rate_in_whole_tokens() {
        let (mut bucket, start) = (Bucket::default(), 1_700_000_000_000);
        let mut admitted = |at: i64, tries: usize| (0..tries).filter(|_| bucket.acquire(10, 500, start + at)).count();
        for (at, expected) in [
            (0, 10),
            (1, 0),
            (2, 1),
            // The third millisecond counts later.
            (5, 1),
            (6, 1),
            (1_000, 10),
        ] {
            assert_eq!(admitted(at, 50), expected, "after {at} ms");
        }
    }

    #[test]
    fn burst_or_rate_of_zero_admits_everything() {
        for (burst, rate) in [(0, 5), (5, 0)] {
            let mut bucket = Bucket::default();
            assert!((0..100).all(|_| bucket.acquire(burst, rate, 1)));
        }
    }

    #[test]
    fn clock_far_ahead_or_back_overflows_nothing() {
        let mut bucket = Bucket::default();
        for now in [i64::MAX, 0, i64::MIN, i64::MAX] {
            bucket.acquire(u32::MAX, u32::MAX, now);
        }
        let mut bucket = Bucket::default();
        assert!(bucket.acquire(1, 1, 10_000) && !bucket.acquire(1, 1, 10_000));
        assert!(!bucket.is_full(1, 10_999) && bucket.is_full(1, 11_000));
        assert!(!bucket.acquire(1, 1, 5_000), "a clock that goes back adds no token");
    }
}
