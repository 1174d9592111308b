//! Retry budget of one application.
//!
//! The rule is that of finagle's and tower's retry budgets: a share of the calls in the last
//! seconds, plus a number of retries per second for applications with few calls. Tower's
//! `TpsBudget` takes a lock and reads the clock for each call. Here a call without a retry costs
//! one atomic addition, at a time that is already known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Number of parts in which the window moves.
const PARTS: u32 = 10;

/// Number of retries that may still be made.
#[derive(Debug)]
pub(super) struct Budget {
    base: Instant,
    part_nanos: u64,
    /// Retries allowed without any call.
    reserve: f64,
    /// Retries added by each call.
    share: f64,
    calls: Window,
    spent: Window,
}

impl Budget {
    /// Allows `share` of the calls in the last `window` as retries, plus `per_second`.
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

    /// Records a call.
    pub(super) fn deposit(&self, now: Instant) {
        self.calls.add(self.part(now), 1);
    }

    /// Records a use of the application that is no call, which earns no retry.
    pub(super) fn touch(&self, now: Instant) {
        self.calls.add(self.part(now), 0);
    }

    /// Returns the time since the last call or other use, or since the start if there was none. It
    /// is precise to a tenth of the window.
    pub(super) fn idle_for(&self) -> Duration {
        let now = Instant::now();
        let last = u64::from(self.calls.last()).saturating_mul(self.part_nanos);
        now.saturating_duration_since(self.base).saturating_sub(Duration::from_nanos(last))
    }

    /// Takes one retry from the budget. Returns `false` if none is left.
    #[must_use]
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let part = self.part(now);
        let earned = self.reserve + self.share * self.calls.sum(part) as f64;
        // Taken before the check, so that concurrent retries cannot exceed the budget.
        self.spent.add(part, 1);
        // The tolerance covers shares such as 0.1, which have no exact binary fraction.
        let left = earned - self.spent.sum(part) as f64 > -1e-6;
        if !left {
            self.spent.take_back(part);
        }
        left
    }

    /// Number of the part that contains this time, counted from the start.
    fn part(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.base);
        ((since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())) / self.part_nanos) as u32
    }
}

/// Counters of the last parts. Each has the number of its part in the upper half, and the count in
/// the lower half.
#[derive(Debug, Default)]
struct Window([AtomicU64; PARTS as usize]);

impl Window {
    fn add(&self, part: u32, count: u32) {
        let counter = &self.0[(part % PARTS) as usize];
        let mut current = counter.load(Ordering::Relaxed);
        // The slot holds an older part, or a newer one if this thread was late. A late call counts
        // in the newer part.
        while is_older(part_of(current), part) {
            let first = u64::from(part) << 32 | u64::from(count);
            match counter.compare_exchange_weak(current, first, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => current = newer,
            }
        }
        counter.fetch_add(u64::from(count), Ordering::Relaxed);
    }

    fn take_back(&self, part: u32) {
        let counter = &self.0[(part % PARTS) as usize];
        let less = |current| (part_of(current) == part && current as u32 > 0).then(|| current - 1);
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Number of the latest part that was added to, or 0.
    fn last(&self) -> u32 {
        let counters = self.0.iter().map(|counter| counter.load(Ordering::Relaxed));
        counters.map(part_of).max().unwrap_or_default()
    }

    /// Sum of the last parts up to this one.
    fn sum(&self, part: u32) -> u64 {
        let counters = self.0.iter().map(|counter| counter.load(Ordering::Relaxed));
        counters
            .filter(|counter| part.wrapping_sub(part_of(*counter)) < PARTS)
            .map(|counter| u64::from(counter as u32))
            .sum()
    }
}

fn part_of(counter: u64) -> u32 {
    (counter >> 32) as u32
}

fn is_older(part: u32, than: u32) -> bool {
    part != than && than.wrapping_sub(part) < 1 << 31
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn withdrawn(budget: &Budget, now: Instant) -> usize {
        (0..1_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_counts_from_the_last_call() {
        let budget = Budget::new(Duration::from_secs(10), 1, 0.2);
        advance(Duration::from_secs(100)).await;
        assert_eq!(budget.idle_for(), Duration::from_secs(100));
        budget.deposit(Instant::now());
        advance(Duration::from_secs(1)).await;
        budget.deposit(Instant::now());
        advance(Duration::from_secs(60)).await;
        assert_eq!(budget.idle_for(), Duration::from_secs(60));
        budget.touch(Instant::now());
        assert_eq!(budget.idle_for(), Duration::ZERO);
        assert_eq!(withdrawn(&budget, Instant::now()), 10, "a use without a call earns no retry");
    }

    #[tokio::test(start_paused = true)]
    async fn budget_is_a_share_of_the_calls_plus_some_per_second() {
        for (per_second, share, calls, expected) in
            [(0, 0.2, 50, 10), (0, 0.1, 50, 5), (1, 0.5, 3, 11), (3, 0.0, 50, 30), (0, 2.0, 4, 8), (0, 0.2, 4, 0)]
        {
            let budget = Budget::new(Duration::from_secs(10), per_second, share);
            let now = Instant::now();
            (0..calls).for_each(|_| budget.deposit(now));
            assert_eq!(withdrawn(&budget, now), expected, "{per_second} per second, {share} of {calls}");
            assert!(!budget.withdraw(now), "refused retries are free, granted ones are spent");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deposits_and_withdrawals_expire_after_the_window() {
        let budget = Budget::new(Duration::from_secs(10), 1, 1.0);
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        (0..5).for_each(|_| budget.deposit(start));
        assert_eq!(withdrawn(&budget, after(9_900)), 15);
        assert_eq!(withdrawn(&budget, after(10_000)), 0, "the calls have expired, the retries have not");
        assert_eq!(withdrawn(&budget, after(18_999)), 0);
        assert_eq!(withdrawn(&budget, after(19_000)), 10);
        (0..5).for_each(|_| budget.deposit(after(1_000_000)));
        assert_eq!(withdrawn(&budget, after(1_000_000)), 15);
    }
}
