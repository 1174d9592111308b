//! Expected cost of a call to an endpoint: a peak-sensitive moving average of its latency, and the calls pending there.
//!
//! One call says little about its endpoint: it may be a long poll, or a report. So an answer that took far longer than
//! expected counts only if the one before it did as well, and a call that got no answer counts for next to nothing. Only
//! where several calls that began since the last sign of life wait for longer than expected does their wait count as
//! latency. It counts for a limited time, after which one more call shows whether the endpoint responds.
//!
//! The average rises at once to a slower response (a peak) and falls slowly to faster ones. It also falls while nothing is
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

/// A latency of so many times what is expected is far off.
const FAR: f32 = 4.0;

/// Number of calls, begun since the last sign of life, whose wait counts as latency.
const SEVERAL: u32 = 2;

/// Time for which the wait of several calls counts, as a multiple of the expected latency, and the least in ticks, about
/// 0.13 s. Each further call that gets no response makes it longer.
const SILENCE: f32 = 8.0;
const LEAST_SILENCE: f32 = 128.0;
const SILENCE_GROWTH: f32 = 16.0;

/// A wait of more ticks than this, a minute, says nothing any more: it may be that of a call that nobody polls.
const LONGEST_SILENCE: Tick = 57_220;

/// A stamp at most so far ahead, about a minute, is another thread's newer reading of the clock, not one 52 days old.
const AHEAD: u32 = 1 << 16;

/// The load of one endpoint. Costs are nanoseconds.
#[derive(Debug)]
pub(super) struct Load {
    /// Cost (`f32` bits, upper half) as of the tick in the lower half.
    cost: AtomicU64,
    calls: Counts,
    silence: AtomicU32,
    /// By what the logarithm of the cost, to base 2, changes in a tick.
    rate: f32,
}

impl Load {
    /// An idle endpoint with the given cost, stamped `now`.
    pub(super) fn new(cost: f32, decay: Duration, now: Moment) -> Self {
        let decay_ticks = nanos(decay) / TICK;
        Self {
            cost: AtomicU64::new(pack(cost, SUSPECT, now.tick())),
            calls: Counts::new(),
            silence: AtomicU32::new(Silence::after_sign(now.tick()).0),
            rate: -std::f32::consts::LOG2_E / decay_ticks,
        }
    }

    /// Expected latency now, without regard to pending calls unless several wait longer than that already.
    #[inline]
    pub(super) fn latency(&self, now: Tick) -> f32 {
        self.latency_with(self.calls.get(), now)
    }

    #[inline]
    fn latency_with(&self, calls: Counted, now: Tick) -> f32 {
        let cost = self.cost(now);
        if calls.waiting() == 0 { cost } else { self.silence(cost, now).unwrap_or(cost) }
    }

    /// Time for which several calls have waited without a sign of life, if that is longer than expected.
    #[inline]
    pub(super) fn silence(&self, cost: f32, now: Tick) -> Option<f32> {
        let silence = Silence(self.silence.load(Ordering::Relaxed));
        if silence.calls() < SEVERAL {
            return None;
        }
        let waited = silence.elapsed(now);
        let latency = waited as f32 * TICK;
        (latency > cost && waited <= silence.counts_for(cost)).then_some(latency)
    }

    /// The average of measured latencies.
    #[inline]
    pub(super) fn cost(&self, now: Tick) -> f32 {
        let (cost, _, stamp) = unpack(self.cost.load(Ordering::Relaxed));
        if cost <= FLOOR {
            return FLOOR;
        }
        // Without a multiplication by 1: which of two is the cheaper waits for all that is worked out here.
        match self.decay(elapsed(stamp, now)) {
            None => cost,
            Some(kept) => (cost * kept).max(FLOOR),
        }
    }

    /// Forgets what was measured. The next response is believed, however long it takes.
    pub(super) fn reset(&self, cost: f32, now: Moment) {
        self.cost.store(pack(cost, SUSPECT, now.tick()), Ordering::Relaxed);
    }

    /// Calls that are not over.
    pub(super) fn pending(&self) -> usize {
        self.calls.get().pending() as usize
    }

    /// The counts of calls now.
    #[inline]
    pub(super) fn calls(&self) -> Counted {
        self.calls.get()
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.calls
    }

    /// A call begins: it is pending, and waits for its response.
    #[inline]
    pub(super) fn begin(&self, now: Moment) {
        // Read before the counts are written, as that holds up all reading after it.
        let silence = Silence(self.silence.load(Ordering::Relaxed));
        let before = self.calls.begin();
        if silence.calls() == 0 {
            self.silence.store(silence.with_call().0, Ordering::Relaxed);
        } else if before.waiting() > 0 || silence.calls() >= SEVERAL {
            self.begin_in_silence(silence, before, now.tick());
        }
    }

    #[cold]
    fn begin_in_silence(&self, silence: Silence, before: Counted, now: Tick) {
        let waited = silence.elapsed(now);
        let next = if silence.calls() < SEVERAL || waited > LONGEST_SILENCE {
            silence.at(now).with_calls(silence.calls().max(SEVERAL))
        } else if before.waiting() == 0 || waited > silence.counts_for(self.cost(now)) {
            // Those before were given up, or have waited for their time: it is let through, and alone.
            silence.with_call()
        } else {
            return;
        };
        self.silence.store(next.0, Ordering::Relaxed);
    }

    /// Its response has begun, or it failed.
    pub(super) fn answer(&self, now: Moment) {
        self.sign_of_life(now);
        self.calls.answer();
    }

    /// Something came from the endpoint.
    #[inline]
    pub(super) fn sign_of_life(&self, now: Moment) {
        self.silence.store(Silence::after_sign(now.tick()).0, Ordering::Relaxed);
    }

    /// Ticks since the last sign of life, if that is known: not while several calls wait for one.
    pub(super) fn since_sign_of_life(&self, now: Tick) -> Option<Tick> {
        let silence = Silence(self.silence.load(Ordering::Relaxed));
        (silence.calls() < SEVERAL).then(|| silence.elapsed(now))
    }

    /// It is over after its response.
    pub(super) fn end(&self) {
        self.calls.end();
    }

    /// Its response was all there was to it: [`answer`](Self::answer) and [`end`](Self::end) in one.
    #[inline]
    pub(super) fn answer_and_end(&self, now: Moment) {
        self.sign_of_life(now);
        self.calls.answer_and_end();
    }

    /// It was given up before a response.
    pub(super) fn give_up(&self) {
        self.calls.give_up();
    }

    /// Records the latency of a response. One that is far above what is expected counts only if the one before was as
    /// well, and raises the average by a limited factor. It does not count where `is_outpaced` tells that the endpoint
    /// responded to many other calls meanwhile.
    #[inline]
    pub(super) fn measure(&self, latency: f32, now: Moment, is_outpaced: impl Fn() -> bool) {
        self.update(now, latency, |projected, kept, suspect| {
            let expected = projected.max(FLOOR);
            if latency <= projected {
                (projected + latency * (1.0 - kept), 0)
            } else if latency <= FAR * expected {
                (latency, 0)
            } else if is_outpaced() {
                (projected, suspect)
            } else if suspect == 0 {
                (projected, SUSPECT)
            } else {
                (latency.min(FAR * FAR * expected), SUSPECT)
            }
        });
    }

    /// Records a latency that is certain, or meant to keep calls away.
    pub(super) fn record(&self, latency: f32, now: Moment) {
        self.update(now, latency, |projected, kept, suspect| {
            (if latency > projected { latency } else { projected + latency * (1.0 - kept) }, suspect)
        });
    }

    /// Records that several calls took at least so long: only ever raises the average. Otherwise it is no measurement, and
    /// leaves the time of the last one alone.
    pub(super) fn record_at_least(&self, latency: f32, now: Moment) {
        if latency > self.cost(now.tick()) {
            self.update(now, latency, |_, _, _| (latency, SUSPECT));
        }
    }

    /// Records that one call took at least so long, and got no response. Alone it only makes the next one count, which
    /// raises the average by a small factor.
    pub(super) fn doubt(&self, latency: f32, now: Moment) {
        if latency > self.cost(now.tick()) {
            self.update(now, latency, |projected, _, suspect| {
                if suspect == 0 {
                    (projected, SUSPECT)
                } else {
                    (latency.min(FAR * projected.max(FLOOR)).max(projected), SUSPECT)
                }
            });
        }
    }

    /// As long as nothing decays, calls leave the average alone unless they are peaks, which spares most writes under high load.
    /// `judge` makes the new average, and whether it is in doubt, of the old one, the share of it that counts, and the doubt.
    #[inline]
    fn update(&self, now: Moment, latency: f32, judge: impl Fn(f32, f32, u64) -> (f32, u64)) {
        let now = now.tick();
        let mut current = self.cost.load(Ordering::Relaxed);
        loop {
            let (cost, suspect, stamp) = unpack(current);
            let updated = match self.decay(elapsed(stamp, now)) {
                None if latency <= cost && suspect == 0 => return,
                None => {
                    let (cost, suspect) = judge(cost, 1.0, suspect);
                    pack(cost, suspect, stamp)
                }
                Some(kept) => {
                    let (cost, suspect) = judge(cost * kept, kept, suspect);
                    pack(cost, suspect, now)
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

/// Calls begun since the last sign of life, in the lower three bits, and a tick: that of the sign or, from [`SEVERAL`] calls
/// on, that from which they wait.
///
/// Written without a lock: a sign of life that is lost because a call began at the same moment is made up for by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Silence(u32);

const SILENT_CALLS: u32 = 7;

impl Silence {
    #[inline]
    fn after_sign(now: Tick) -> Self {
        Self(now << 3)
    }

    #[inline]
    fn calls(self) -> u32 {
        self.0 & SILENT_CALLS
    }

    #[inline]
    fn with_call(self) -> Self {
        self.with_calls((self.calls() + 1).min(SILENT_CALLS))
    }

    #[inline]
    fn with_calls(self, calls: u32) -> Self {
        Self(self.0 & !SILENT_CALLS | calls)
    }

    fn at(self, now: Tick) -> Self {
        Self(now << 3 | self.calls())
    }

    /// Ticks since then. Wraps after six days, when nothing waits any more.
    fn elapsed(self, now: Tick) -> Tick {
        let elapsed = (now << 3).wrapping_sub(self.0 & !SILENT_CALLS) >> 3;
        if elapsed > (Tick::MAX >> 3) - AHEAD { 0 } else { elapsed }
    }

    /// Ticks for which the wait of several calls counts as latency, where this is expected.
    fn counts_for(self, cost: f32) -> Tick {
        let least = LEAST_SILENCE.max(SILENCE * cost / TICK);
        let limit = (SEVERAL..self.calls()).fold(least, |limit, _| limit * SILENCE_GROWTH);
        (limit as Tick).min(LONGEST_SILENCE)
    }
}

/// A coarse point in time that wraps.
pub(super) type Tick = u32;

impl Moment {
    /// The time now.
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

    /// Nanoseconds since the base.
    #[inline]
    pub(super) fn nanos(self) -> u64 {
        self.0
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

/// Set in the place of the sign while the last call took far longer than expected, and before the first one.
const SUSPECT: u64 = 1 << 63;

fn pack(cost: f32, suspect: u64, stamp: Tick) -> u64 {
    suspect | u64::from(cost.to_bits()) << 32 | u64::from(stamp)
}

fn unpack(packed: u64) -> (f32, u64, Tick) {
    (f32::from_bits(((packed & !SUSPECT) >> 32) as u32), packed & SUSPECT, packed as Tick)
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
        load.measure(100.0 * MS, START, || false);
        near(load.cost(0), 100.0 * MS);
        load.measure(30.0 * MS, at(10_000), || false);
        let e = std::f32::consts::E;
        near(load.cost(at(10_000).tick()), 100.0 * MS / e + 30.0 * MS * (1.0 - 1.0 / e));
    }

    #[test]
    fn one_response_that_took_far_too_long_counts_only_if_the_next_one_does_as_well() {
        let load = load(5.0 * MS);
        load.measure(5.0 * MS, START, || false);
        load.measure(30_000.0 * MS, START, || false);
        near(load.cost(0), 5.0 * MS);
        load.measure(5.0 * MS, START, || false);
        load.measure(30_000.0 * MS, START, || false);
        near(load.cost(0), 5.0 * MS);
        load.measure(50.0 * MS, START, || false);
        near(load.cost(0), 50.0 * MS);
        load.measure(30_000.0 * MS, START, || false);
        near(load.cost(0), 16.0 * 50.0 * MS);
    }

    #[test]
    fn responses_that_took_far_too_long_beside_many_others_do_not_count() {
        let load = load(5.0 * MS);
        load.measure(5.0 * MS, START, || false);
        for _ in 0..10 {
            load.measure(30_000.0 * MS, START, || true);
        }
        near(load.cost(0), 5.0 * MS);
    }

    #[test]
    fn the_first_response_counts_however_long_it_took() {
        let load = load(5.0 * MS);
        load.measure(60.0 * MS, START, || false);
        near(load.cost(0), 60.0 * MS);
        load.reset(5.0 * MS, START);
        load.measure(60.0 * MS, START, || false);
        near(load.cost(0), 60.0 * MS);
    }

    #[test]
    fn a_call_without_response_counts_little_and_only_if_the_one_before_had_none_either() {
        let load = load(5.0 * MS);
        load.measure(5.0 * MS, START, || false);
        load.doubt(30_000.0 * MS, START);
        near(load.cost(0), 5.0 * MS);
        load.doubt(30_000.0 * MS, START);
        near(load.cost(0), 20.0 * MS);
        load.doubt(10.0 * MS, START);
        near(load.cost(0), 20.0 * MS);
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
    fn one_call_that_waits_says_nothing() {
        let load = load(5.0 * MS);
        load.begin(START);
        for ms in [10, 1_000, 30_000] {
            near(load.latency(at(ms).tick()), load.cost(at(ms).tick()));
        }
        // Nor beside calls that are answered.
        for ms in (1_000..2_000).step_by(20) {
            load.begin(at(ms));
            assert!(load.latency(at(ms + 5).tick()) < 6.0 * MS);
            load.answer(at(ms + 6));
            load.end();
        }
        near(load.latency(at(2_000).tick()), load.cost(at(2_000).tick()));
    }

    #[test]
    fn several_calls_that_wait_count_for_a_while_then_one_more_is_let_through() {
        let load = load(5.0 * MS);
        let waits = |ms: u64| {
            let latency = load.latency(at(ms).tick());
            latency > 2.0 * load.cost(at(ms).tick())
        };
        load.begin(START);
        load.begin(at(10));
        assert!(!waits(12) && waits(50) && waits(130));
        assert!(!waits(160));
        load.begin(at(200));
        assert!(waits(210) && waits(2_000) && !waits(2_300));
        load.begin(at(2_400));
        assert!(waits(2_410) && waits(30_000) && !waits(40_000));
        load.answer(at(40_000));
        assert!(!waits(40_010));
    }

    #[test]
    fn a_sign_of_life_ends_a_silence() {
        let load = load(5.0 * MS);
        assert_eq!(load.since_sign_of_life(at(100).tick()), Some(at(100).tick()));
        load.begin(at(100));
        load.answer(at(200));
        load.begin(at(300));
        assert_eq!(load.since_sign_of_life(at(400).tick()), Some(at(400).tick() - at(200).tick()));
        load.begin(at(500));
        assert_eq!(load.since_sign_of_life(at(500).tick()), None);
        load.sign_of_life(at(600));
        assert_eq!(load.since_sign_of_life(at(600).tick()), Some(0));
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
        let latest = Silence::after_sign((Tick::MAX >> 3) - 1);
        assert_eq!((latest.elapsed(Tick::MAX >> 3), latest.elapsed((1 << 29) + 3)), (1, 5));
        assert_eq!(Silence::after_sign(7).elapsed(5), 0);
        let load = Load::new(30.0 * MS, DECAY, at(50));
        load.record(60.0 * MS, START);
        near(load.cost(at(50).tick()), 60.0 * MS);
    }
}
