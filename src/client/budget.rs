//! How many further tries the calls of one application have earned.
//!
//! The rule is that of finagle's and tower's retry budget: a share of the calls of the last seconds, and some more per second for
//! who calls seldom. Tower's `TpsBudget` takes a lock and reads the clock for each call; here a call that is not tried again costs one
//! addition, at a time that is known already.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// In how many parts the window moves on.
const PARTS: u32 = 10;

/// What is left to spend on further tries.
#[derive(Debug)]
pub(super) struct Budget {
    base: Instant,
    part_nanos: u64,
    /// What there is without any call.
    reserve: f64,
    /// What each call adds to that.
    share: f64,
    calls: Window,
    spent: Window,
}

impl Budget {
    /// One further try for each `1 / share` calls in the last `window`, and `per_second` without any.
    pub(super) fn new(window: Duration, per_second: u32, share: f32) -> Self {
        Self {
            base: Instant::now(),
            part_nanos: (window / PARTS).as_nanos() as u64,
            reserve: f64::from(per_second) * window.as_secs_f64(),
            share: f64::from(share),
            calls: Window::default(),
            spent: Window::default(),
        }
    }

    /// A call was made.
    pub(super) fn deposit(&self, now: Instant) {
        self.calls.add(self.part(now), 1);
    }

    /// Takes what one further try costs, if that is left.
    #[must_use]
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let part = self.part(now);
        let earned = self.reserve + self.share * self.calls.sum(part) as f64;
        // Taken first, so that of many who ask at once no more get it than there is.
        self.spent.add(part, 1);
        // The tolerance is for shares such as 0.1, which are no binary fractions.
        let left = earned - self.spent.sum(part) as f64 > -1e-6;
        if !left {
            self.spent.take_back(part);
        }
        left
    }

    /// Which part of the window this is, counted from the beginning.
    fn part(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.base);
        ((since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())) / self.part_nanos) as u32
    }
}

/// Counts of the last parts: the number of the part in the upper half of each word, the count in the lower one.
#[derive(Debug, Default)]
struct Window([AtomicU64; PARTS as usize]);

impl Window {
    fn add(&self, part: u32, count: u32) {
        let word = &self.0[(part % PARTS) as usize];
        let mut current = word.load(Ordering::Relaxed);
        // Another part is PARTS older, or newer where this thread was late; then the call counts as one of that time.
        while is_older(of(current), part) {
            let begun = u64::from(part) << 32 | u64::from(count);
            match word.compare_exchange_weak(current, begun, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => current = newer,
            }
        }
        word.fetch_add(u64::from(count), Ordering::Relaxed);
    }

    fn take_back(&self, part: u32) {
        let word = &self.0[(part % PARTS) as usize];
        let less = |current| (of(current) == part && current as u32 > 0).then(|| current - 1);
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The count of the last parts up to this one.
    fn sum(&self, part: u32) -> u64 {
        let words = self.0.iter().map(|word| word.load(Ordering::Relaxed));
        words.filter(|word| part.wrapping_sub(of(*word)) < PARTS).map(|word| u64::from(word as u32)).sum()
    }
}

fn of(word: u64) -> u32 {
    (word >> 32) as u32
}

fn is_older(part: u32, than: u32) -> bool {
    part != than && than.wrapping_sub(part) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(budget: &Budget, now: Instant) -> usize {
        (0..1_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_calls_and_some_per_second() {
        for (per_second, share, calls, expected) in
            [(0, 0.2, 50, 10), (0, 0.1, 50, 5), (1, 0.5, 3, 11), (3, 0.0, 50, 30), (0, 2.0, 4, 8), (0, 0.2, 4, 0)]
        {
            let budget = Budget::new(Duration::from_secs(10), per_second, share);
            let now = Instant::now();
            (0..calls).for_each(|_| budget.deposit(now));
            assert_eq!(granted(&budget, now), expected, "{per_second} per second, {share} of {calls}");
            assert!(!budget.withdraw(now), "what was refused cost nothing, and what was granted was spent");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_earned_and_spent_is_forgotten_after_the_window() {
        let budget = Budget::new(Duration::from_secs(10), 1, 1.0);
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        (0..5).for_each(|_| budget.deposit(start));
        assert_eq!(granted(&budget, after(9_900)), 15);
        assert_eq!(granted(&budget, after(10_000)), 0, "the calls are forgotten, what they paid for not yet");
        assert_eq!(granted(&budget, after(18_999)), 0);
        assert_eq!(granted(&budget, after(19_000)), 10);
        (0..5).for_each(|_| budget.deposit(after(1_000_000)));
        assert_eq!(granted(&budget, after(1_000_000)), 15);
    }
}
