//! What a call to an endpoint is expected to cost: a peak-sensitive moving average of its latency, and the calls pending there.
//!
//! An endpoint that takes calls and answers none looks idle to an average of answers. So as long as calls wait there, the time
//! since anything last came from it counts as its latency when that is longer.
//!
//! The average rises at once to a slower answer (a peak) and falls slowly to faster ones. It also falls while nothing is
//! measured, so that an endpoint that was slow or failing is tried again some time. Reading never writes: a pick computes
//! what the stored value has decayed to by now. Both numbers of the average share one word, which makes an update one
//! compare-and-swap.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::cells::{Counted, Counts};

/// A millisecond. Below it, differences between latencies are noise that would send most calls of a small fleet to one
/// instance, and only the pending calls count. It also keeps a decayed cost above zero, where they would not count at all.
const FLOOR: f32 = 1_000_000.0;

/// Nanoseconds since [`BASE`]: a reading of the clock, as all that measures wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

/// Before all clocks of runtimes, which tests can stop and move ahead.
static BASE: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(365 * 24 * 3_600)).unwrap_or(now)
});

/// A tick is 2^20 ns, about a millisecond; 32 bits of them last 52 days.
const TICK_BITS: u32 = 20;

/// Nanoseconds in a tick.
const TICK: f32 = (1u64 << TICK_BITS) as f32;

/// Less than this power of two, a part in 1,500, is not taken off the average but waits until it is more: with the default decay that
/// is 7 ms. So most looks at an endpoint need no power, and most calls do not write its average.
const NOTHING: f32 = -0.001;

/// A silence of more ticks than this, a minute, says nothing any more: what waits so long may be a call that nobody polls. Then a
/// new call shows how the endpoint is.
const LONGEST_SILENCE: Tick = 57_220;

/// A stamp at most so far ahead, about a minute, is another thread's newer reading of the clock, not one 52 days old.
const AHEAD: u32 = 1 << 16;

/// The load of one endpoint. Costs are nanoseconds.
#[derive(Debug)]
pub(super) struct Load {
    /// Cost (`f32` bits, upper half) as of the tick in the lower half.
    cost: AtomicU64,
    calls: Counts,
    /// The tick of the last sign of life while calls wait for an answer: the first one's start, or the last answer.
    progress: AtomicU32,
    /// By what the logarithm of the cost, to base 2, changes in a tick.
    rate: f32,
}

impl Load {
    /// An idle endpoint with the given cost, stamped `now`.
    pub(super) fn new(cost: f32, decay: Duration, now: Moment) -> Self {
        let decay_ticks = nanos(decay) / TICK;
        Self {
            cost: AtomicU64::new(pack(cost, now.tick())),
            calls: Counts::new(),
            progress: AtomicU32::new(0),
            rate: -std::f32::consts::LOG2_E / decay_ticks,
        }
    }

    /// What one more call is expected to cost; lower is better.
    #[inline]
    pub(super) fn metric(&self, now: Tick) -> f32 {
        let calls = self.calls.get();
        self.latency_with(calls, now) * (calls.pending() + 1) as f32
    }

    /// The latency expected now, without regard to pending calls unless they wait longer than that already.
    #[inline]
    pub(super) fn latency(&self, now: Tick) -> f32 {
        self.latency_with(self.calls.get(), now)
    }

    #[inline]
    fn latency_with(&self, calls: Counted, now: Tick) -> f32 {
        let cost = self.cost(now);
        if calls.waiting() == 0 {
            return cost;
        }
        let silence = elapsed(self.progress.load(Ordering::Relaxed), now);
        if silence > LONGEST_SILENCE { cost } else { cost.max(silence as f32 * TICK) }
    }

    /// The average of measured latencies.
    #[inline]
    pub(super) fn cost(&self, now: Tick) -> f32 {
        let (cost, stamp) = unpack(self.cost.load(Ordering::Relaxed));
        if cost <= FLOOR {
            return FLOOR;
        }
        // Without a multiplication by 1: which of two is the cheaper waits for all that is worked out here.
        match self.decay(elapsed(stamp, now)) {
            None => cost,
            Some(kept) => (cost * kept).max(FLOOR),
        }
    }

    /// Forgets what was measured.
    pub(super) fn reset(&self, cost: f32, now: Moment) {
        self.cost.store(pack(cost, now.tick()), Ordering::Relaxed);
    }

    /// Calls that are not over.
    pub(super) fn pending(&self) -> usize {
        self.calls.get().pending() as usize
    }

    /// The counts of calls now.
    pub(super) fn calls(&self) -> Counted {
        self.calls.get()
    }

    /// A call begins: it is pending, and waits for its answer.
    #[inline]
    pub(super) fn begin(&self, now: Moment) {
        let now = now.tick();
        if self.calls.begin().waiting() == 0 || elapsed(self.progress.load(Ordering::Relaxed), now) > LONGEST_SILENCE {
            self.progress.store(now, Ordering::Relaxed);
        }
    }

    /// Its answer has begun, or it failed.
    pub(super) fn answer(&self, now: Moment) {
        self.progress.store(now.tick(), Ordering::Relaxed);
        self.calls.answer();
    }

    /// It is over after its answer.
    pub(super) fn end(&self) {
        self.calls.end();
    }

    /// Its answer was all there was to it: [`answer`](Self::answer) and [`end`](Self::end) in one.
    #[inline]
    pub(super) fn answer_and_end(&self, now: Moment) {
        self.progress.store(now.tick(), Ordering::Relaxed);
        self.calls.answer_and_end();
    }

    /// It was given up before an answer.
    pub(super) fn give_up(&self) {
        self.calls.give_up();
    }

    /// Whether nothing at all has come from the endpoint since this call began there.
    pub(super) fn silent_since(&self, start: Moment) -> bool {
        // An answer in the very tick of the start may have come before it. One much older is still older: the sign counts.
        self.progress.load(Ordering::Relaxed).wrapping_sub(start.tick()) as i32 <= 0
    }

    /// Records a measured latency.
    #[inline]
    pub(super) fn record(&self, latency: f32, now: Moment) {
        self.update(now, |projected, kept| projected + latency * (1.0 - kept), latency);
    }

    /// Records that a call took at least so long: only ever raises the average. Otherwise it is no measurement, and leaves the
    /// time of the last one alone.
    pub(super) fn record_at_least(&self, latency: f32, now: Moment) {
        if latency > self.cost(now.tick()) {
            self.update(now, |projected, _| projected, latency);
        }
    }

    /// As long as nothing decays, calls leave the average alone unless they are peaks, which spares most writes under high load.
    #[inline]
    fn update(&self, now: Moment, fall: impl Fn(f32, f32) -> f32, latency: f32) {
        let now = now.tick();
        let mut current = self.cost.load(Ordering::Relaxed);
        loop {
            let (cost, stamp) = unpack(current);
            let updated = match self.decay(elapsed(stamp, now)) {
                None if latency <= cost => return,
                None => pack(latency, stamp),
                Some(kept) => {
                    let projected = cost * kept;
                    pack(if latency > projected { latency } else { fall(projected, kept) }, now)
                }
            };
            match self.cost.compare_exchange_weak(current, updated, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => current = newer,
            }
        }
    }

    /// The share of the cost that is left after so many ticks; `None` as long as next to nothing is lost.
    #[inline]
    fn decay(&self, elapsed: u32) -> Option<f32> {
        let power = elapsed as f32 * self.rate;
        (power <= NOTHING).then(|| exp2(power))
    }
}

/// A coarse point in time that wraps.
pub(super) type Tick = u32;

impl Moment {
    /// What time it is.
    #[inline]
    pub(super) fn now() -> Self {
        Self::of(Instant::now())
    }

    #[inline]
    pub(super) fn of(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(*BASE);
        // 64 bits of nanoseconds last 584 years.
        Self(since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos()))
    }

    /// Coarsely. Wraps after 52 days by intent.
    #[inline]
    pub(super) fn tick(self) -> Tick {
        (self.0 >> TICK_BITS) as Tick
    }

    /// How long after another one.
    #[inline]
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same as a cost.
    #[inline]
    pub(super) fn nanos_since(self, earlier: Self) -> f32 {
        // Signed, as processors convert that in one step.
        self.0.saturating_sub(earlier.0) as i64 as f32
    }
}

#[inline]
pub(super) fn nanos(duration: Duration) -> f32 {
    duration.as_secs() as f32 * 1e9 + duration.subsec_nanos() as f32
}

#[inline]
pub(super) fn elapsed(stamp: Tick, now: Tick) -> u32 {
    let elapsed = now.wrapping_sub(stamp);
    if elapsed > Tick::MAX - AHEAD { 0 } else { elapsed }
}

/// 2 to the power of what is not positive, to a part in 8,000: the whole part is the exponent, a polynomial that is exact at both
/// ends does the rest. The library's own cost as much as the rest of a look at an endpoint.
#[inline]
fn exp2(x: f32) -> f32 {
    let x = x.max(-126.0);
    let whole = x as i32 - 1;
    let rest = x - whole as f32;
    let power = f32::from_bits(((whole + 127) as u32) << 23);
    power * (1.0 + rest * (0.695 + rest * (0.227_488 + rest * 0.077_512)))
}

fn pack(cost: f32, stamp: Tick) -> u64 {
    u64::from(cost.to_bits()) << 32 | u64::from(stamp)
}

fn unpack(packed: u64) -> (f32, Tick) {
    (f32::from_bits((packed >> 32) as u32), packed as Tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);
    const MS: f32 = 1e6;

    const START: Moment = Moment(0);

    fn load(cost: f32) -> Load {
        Load::new(cost, DECAY, START)
    }

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn near(actual: f32, expected: f32) {
        assert!((actual - expected).abs() <= expected * 0.01, "{actual} is not about {expected}");
    }

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let load = load(30.0 * MS);
        load.record(200.0 * MS, START);
        near(load.cost(0), 200.0 * MS);
        load.record(50.0 * MS, at(10_000));
        let e = std::f32::consts::E;
        near(load.cost(at(10_000).tick()), 200.0 * MS / e + 50.0 * MS * (1.0 - 1.0 / e));
    }

    #[test]
    fn decays_without_being_written() {
        let load = load(5_000.0 * MS);
        let later = at(20_000).tick();
        near(load.cost(later), 5_000.0 * MS * (-2.0_f32).exp());
        near(load.cost(later), 5_000.0 * MS * (-2.0_f32).exp());
        assert_eq!(load.cost(at(3_600_000).tick()), FLOOR);
    }

    #[test]
    fn pending_calls_count_even_when_the_cost_has_decayed() {
        let load = load(0.0);
        let idle = load.metric(0);
        load.begin(START);
        assert_eq!(load.metric(0), 2.0 * idle);
        load.give_up();
        assert_eq!(load.metric(0), idle);
    }

    #[test]
    fn each_step_of_a_call_moves_its_counts_only() {
        let load = load(0.0);
        let counts = || (load.calls().pending(), load.calls().waiting(), load.calls().answered());
        load.begin(START);
        load.begin(START);
        assert_eq!(counts(), (2, 2, 0));
        load.answer(START);
        assert_eq!(counts(), (2, 1, 1));
        load.end();
        assert_eq!(counts(), (1, 1, 1));
        load.give_up();
        assert_eq!(counts(), (0, 0, 1));
        for answers in 2..=1 << 20 {
            load.begin(START);
            load.answer_and_end(START);
            assert_eq!(counts(), (0, 0, answers % (1 << 20)));
        }
    }

    #[test]
    fn one_that_keeps_calls_waiting_is_as_slow_as_they_have_waited() {
        let load = load(5.0 * MS);
        load.begin(START);
        near(load.latency(at(2_000).tick()), 2_000.0 * MS);
        load.begin(at(1_000));
        load.answer(at(1_500));
        near(load.latency(at(2_000).tick()), 500.0 * MS);
        assert!(load.silent_since(at(1_600)) && !load.silent_since(at(1_000)));
        // Not for ever: the next call begins a new silence.
        near(load.latency(at(59_000).tick()), 57_500.0 * MS);
        near(load.latency(at(61_600).tick()), FLOOR);
        load.begin(at(62_000));
        near(load.latency(at(63_000).tick()), 1_000.0 * MS);
        load.give_up();
        // What still streams has been answered.
        load.answer(at(63_000));
        near(load.latency(at(123_000).tick()), FLOOR);
        assert_eq!(load.pending(), 2);
    }

    #[test]
    fn is_silent_however_long_another_call_has_waited() {
        let load = load(5.0 * MS);
        load.begin(START);
        let later = at(3_600_000);
        load.begin(later);
        assert!(load.silent_since(later));
        load.answer(at(3_600_100));
        assert!(!load.silent_since(later));
    }

    #[test]
    fn a_lower_bound_never_lowers_the_cost() {
        let load = load(30.0 * MS);
        load.record_at_least(1.0 * MS, at(5));
        near(load.cost(at(5).tick()), 30.0 * MS);
        load.record_at_least(90.0 * MS, at(5));
        near(load.cost(at(5).tick()), 90.0 * MS);
    }

    #[test]
    fn powers_are_those_of_the_library() {
        for tenth in 0..1_400 {
            let x = -0.1 * tenth as f32;
            assert!((exp2(x) - x.exp2()).abs() <= x.exp2() / 8_000.0 + f32::MIN_POSITIVE, "{x}: {}", exp2(x));
        }
        assert_eq!(exp2(0.0), 1.0);
    }

    #[test]
    fn survives_the_wrap_of_the_stamp_and_a_clock_read_earlier() {
        assert_eq!(elapsed(Tick::MAX - 1, 3), 5);
        assert_eq!(elapsed(7, 5), 0);
        let load = Load::new(30.0 * MS, DECAY, at(50));
        load.record(60.0 * MS, START);
        near(load.cost(at(50).tick()), 60.0 * MS);
    }
}
