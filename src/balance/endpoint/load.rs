//! Expected cost of a call to an endpoint: a peak-sensitive moving average of its latency, and the
//! number of pending calls.
//!
//! One call is little evidence about its endpoint: it may be a long poll, or a report. Therefore, a
//! response that took far longer than expected counts only if the response before it did so as
//! well, and a call without a response counts for almost nothing. The waiting time of calls counts
//! as latency only if several calls that began since the last activity of the endpoint wait for
//! longer than expected. It counts for a limited time. Then one more call shows whether the
//! endpoint responds.
//!
//! The average rises at once to a slower response (a peak) and falls slowly to faster ones. It also
//! falls while nothing is measured, so that a slow or failing endpoint is tried again after some
//! time. Reads never write: a pick computes the decayed value from the stored one. Both numbers of
//! the average share one word, so an update is one compare-and-swap.

use std::time::Duration;

use super::counters::{CallCounts, CountsSnapshot};
use super::primitives::atomic::{AtomicU32, AtomicU64, Ordering};
use super::silence::{MAX_SILENCE, SEVERAL, Silence};
use super::timestamp::{TICK, Tick, Timestamp, elapsed, nanos};

/// Minimum cost, one millisecond. Below it, differences between latencies are noise that would send
/// most calls of a small fleet to one instance; only pending calls count then. It also keeps a
/// decayed cost above zero, at which pending calls would not count.
const FLOOR: f32 = 1_000_000.0;

/// A decay by less than this power of two (a part in 1,500) is not applied but accumulates. With
/// the default decay that is 7 milliseconds. So most reads of an endpoint compute no power, and
/// most calls do not write the average.
const NEGLIGIBLE: f32 = -0.001;

/// A latency of this many times the expected one is far off.
const FAR_OFF: f32 = 4.0;

/// Load of one endpoint. Costs are nanoseconds.
#[derive(Debug)]
pub(crate) struct Load {
    /// Cost as `f32` bits in the upper half, as of the tick in the lower half.
    cost: AtomicU64,
    calls: CallCounts,
    silence: AtomicU32,
    /// Change of the cost's binary logarithm in a tick.
    rate: f32,
}

impl Load {
    /// Creates the load of an idle endpoint with the given cost.
    pub(crate) fn new(cost: f32, decay: Duration, now: Timestamp) -> Self {
        let decay_ticks = nanos(decay) / TICK;
        Self {
            cost: AtomicU64::new(pack(cost, SUSPECT, now.tick())),
            calls: CallCounts::new(),
            silence: AtomicU32::new(Silence::after_activity(now.tick()).0),
            rate: -std::f32::consts::LOG2_E / decay_ticks,
        }
    }

    /// Expected latency now. Pending calls count only if several of them wait for longer than that
    /// already.
    #[inline]
    pub(crate) fn latency(&self, now: Tick) -> f32 {
        self.latency_with(self.calls.get(), now)
    }

    #[inline]
    fn latency_with(&self, calls: CountsSnapshot, now: Tick) -> f32 {
        let cost = self.cost(now);
        if calls.waiting() == 0 { cost } else { self.silence(cost, now).unwrap_or(cost) }
    }

    /// Time for which several calls have waited without activity, if that is longer than expected.
    #[inline]
    pub(crate) fn silence(&self, cost: f32, now: Tick) -> Option<f32> {
        let silence = Silence(self.silence.load(Ordering::Relaxed));
        if silence.calls() < SEVERAL {
            return None;
        }
        let waited = silence.elapsed(now);
        let latency = waited as f32 * TICK;
        (latency > cost && waited <= silence.counts_for(cost)).then_some(latency)
    }

    /// Average of the measured latencies.
    #[inline]
    pub(crate) fn cost(&self, now: Tick) -> f32 {
        let (cost, _, stamp) = unpack(self.cost.load(Ordering::Relaxed));
        if cost <= FLOOR {
            return FLOOR;
        }
        // Without a multiplication by 1: the comparison of two endpoints waits for this result.
        match self.decay(elapsed(stamp, now)) {
            None => cost,
            Some(kept) => (cost * kept).max(FLOOR),
        }
    }

    /// Resets the measurements. The next response counts, however long it takes.
    pub(crate) fn reset(&self, cost: f32, now: Timestamp) {
        self.cost.store(pack(cost, SUSPECT, now.tick()), Ordering::Relaxed);
    }

    /// Number of pending calls.
    pub(crate) fn pending(&self) -> usize {
        self.calls.get().pending() as usize
    }

    /// Current counts of calls.
    #[inline]
    pub(crate) fn calls(&self) -> CountsSnapshot {
        self.calls.get()
    }

    pub(crate) fn counts(&self) -> &CallCounts {
        &self.calls
    }

    /// Counts a new call as pending and without a response.
    #[inline]
    pub(crate) fn begin(&self, now: Timestamp) {
        // Read before the counts are written, since that write delays all reads after it.
        let silence = Silence(self.silence.load(Ordering::Relaxed));
        let before = self.calls.begin();
        if silence.calls() == 0 {
            self.silence.store(silence.with_call().0, Ordering::Relaxed);
        } else if before.waiting() > 0 || silence.calls() >= SEVERAL {
            self.begin_in_silence(silence, before, now.tick());
        }
    }

    #[cold]
    fn begin_in_silence(&self, silence: Silence, before: CountsSnapshot, now: Tick) {
        let waited = silence.elapsed(now);
        let next = if silence.calls() < SEVERAL || waited > MAX_SILENCE {
            silence.at(now).with_calls(silence.calls().max(SEVERAL))
        } else if before.waiting() == 0 || waited > silence.counts_for(self.cost(now)) {
            // The calls before it were cancelled, or have waited for their time: this one may pass,
            // and only this one.
            silence.with_call()
        } else {
            return;
        };
        self.silence.store(next.0, Ordering::Relaxed);
    }

    /// Counts a response, or a failure in its place.
    pub(crate) fn respond(&self, now: Timestamp) {
        self.record_activity(now);
        self.calls.respond();
    }

    /// Records that something came from the endpoint.
    #[inline]
    pub(crate) fn record_activity(&self, now: Timestamp) {
        self.silence.store(Silence::after_activity(now.tick()).0, Ordering::Relaxed);
    }

    /// Ticks since the last activity. `None` while several calls wait for a response.
    pub(crate) fn since_activity(&self, now: Tick) -> Option<Tick> {
        let silence = Silence(self.silence.load(Ordering::Relaxed));
        (silence.calls() < SEVERAL).then(|| silence.elapsed(now))
    }

    /// Counts the end of a call after its response.
    pub(crate) fn end(&self) {
        self.calls.end();
    }

    /// Does the same as [`respond`](Self::respond) and [`end`](Self::end) in one step.
    #[inline]
    pub(crate) fn respond_and_end(&self, now: Timestamp) {
        self.record_activity(now);
        self.calls.respond_and_end();
    }

    /// Counts the end of a call without a response.
    pub(crate) fn cancel(&self) {
        self.calls.cancel();
    }

    /// Records the latency of a response. One that is far above the expected latency counts only if
    /// the one before it was as well, and then raises the average by a limited factor. It does not
    /// count if `is_outpaced` returns `true`: the endpoint responded to many other calls meanwhile.
    #[inline]
    pub(crate) fn measure(&self, latency: f32, now: Timestamp, is_outpaced: impl Fn() -> bool) {
        self.update(now, latency, |projected, kept, suspect| {
            let expected = projected.max(FLOOR);
            if latency <= projected {
                (projected + latency * (1.0 - kept), 0)
            } else if latency <= FAR_OFF * expected {
                (latency, 0)
            } else if is_outpaced() {
                (projected, suspect)
            } else if suspect == 0 {
                (projected, SUSPECT)
            } else {
                (latency.min(FAR_OFF * FAR_OFF * expected), SUSPECT)
            }
        });
    }

    /// Records a latency that is certain, or that is meant to keep calls away.
    pub(crate) fn record(&self, latency: f32, now: Timestamp) {
        self.update(now, latency, |projected, kept, suspect| {
            (if latency > projected { latency } else { projected + latency * (1.0 - kept) }, suspect)
        });
    }

    /// Records a lower bound of the latency of several calls. Only ever raises the average, and
    /// otherwise does not count as a measurement.
    pub(crate) fn record_at_least(&self, latency: f32, now: Timestamp) {
        if latency > self.cost(now.tick()) {
            self.update(now, latency, |_, _, _| (latency, SUSPECT));
        }
    }

    /// Records a lower bound of the latency of one call without a response. The first one only
    /// makes the next one count, which raises the average by a small factor.
    pub(crate) fn record_without_response(&self, latency: f32, now: Timestamp) {
        if latency > self.cost(now.tick()) {
            self.update(now, latency, |projected, _, suspect| {
                if suspect == 0 {
                    (projected, SUSPECT)
                } else {
                    (latency.min(FAR_OFF * projected.max(FLOOR)).max(projected), SUSPECT)
                }
            });
        }
    }

    /// Updates the average. While nothing has decayed, calls write it only if they are peaks, which
    /// saves most writes under high load. `judge` returns the new average and its suspect bit, from
    /// the old average, the share of it that counts, and the old bit.
    #[inline]
    fn update(&self, now: Timestamp, latency: f32, judge: impl Fn(f32, f32, u64) -> (f32, u64)) {
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

    /// Share of the cost that is left after this many ticks. `None` as long as almost nothing has
    /// decayed.
    #[inline]
    fn decay(&self, elapsed: u32) -> Option<f32> {
        let power = elapsed as f32 * self.rate;
        (power <= NEGLIGIBLE).then(|| exp2(power))
    }
}

/// Returns 2 to the power of a number that is not positive, with an error of at most a part in
/// 8,000. The whole part is the exponent; a polynomial that is exact at both ends computes the
/// rest. The standard library's function takes as long as the rest of a read.
#[inline]
fn exp2(x: f32) -> f32 {
    let x = x.max(-126.0);
    let whole = x as i32 - 1;
    let rest = x - whole as f32;
    let power = f32::from_bits(((whole + 127) as u32) << 23);
    power * (1.0 + rest * (0.695 + rest * (0.227_488 + rest * 0.077_512)))
}

/// Replaces the sign bit while the last call took far longer than expected, and before the first
/// one.
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

    const START: Timestamp = Timestamp(0);

    fn load(cost: f32) -> Load {
        Load::new(cost, DECAY, START)
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000_000)
    }

    fn near(actual: f32, expected: f32) {
        assert!((actual - expected).abs() <= expected * 0.01, "{actual} is not about {expected}");
    }

    #[test]
    fn cost_rises_at_once_and_falls_slowly() {
        let load = load(30.0 * MS);
        load.measure(100.0 * MS, START, || false);
        near(load.cost(0), 100.0 * MS);
        load.measure(30.0 * MS, at(10_000), || false);
        let e = std::f32::consts::E;
        near(load.cost(at(10_000).tick()), 100.0 * MS / e + 30.0 * MS * (1.0 - 1.0 / e));
    }

    #[test]
    fn slow_response_counts_only_if_the_next_one_is_slow_as_well() {
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
    fn slow_responses_beside_many_others_do_not_count() {
        let load = load(5.0 * MS);
        load.measure(5.0 * MS, START, || false);
        for _ in 0..10 {
            load.measure(30_000.0 * MS, START, || true);
        }
        near(load.cost(0), 5.0 * MS);
    }

    #[test]
    fn first_response_counts_however_long_it_took() {
        let load = load(5.0 * MS);
        load.measure(60.0 * MS, START, || false);
        near(load.cost(0), 60.0 * MS);
        load.reset(5.0 * MS, START);
        load.measure(60.0 * MS, START, || false);
        near(load.cost(0), 60.0 * MS);
    }

    #[test]
    fn call_without_response_counts_little_and_only_after_another_one() {
        let load = load(5.0 * MS);
        load.measure(5.0 * MS, START, || false);
        load.record_without_response(30_000.0 * MS, START);
        near(load.cost(0), 5.0 * MS);
        load.record_without_response(30_000.0 * MS, START);
        near(load.cost(0), 20.0 * MS);
        load.record_without_response(10.0 * MS, START);
        near(load.cost(0), 20.0 * MS);
    }

    #[test]
    fn cost_decays_without_a_write() {
        let load = load(5_000.0 * MS);
        let later = at(20_000).tick();
        near(load.cost(later), 5_000.0 * MS * (-2.0_f32).exp());
        near(load.cost(later), 5_000.0 * MS * (-2.0_f32).exp());
        assert_eq!(load.cost(at(3_600_000).tick()), FLOOR);
    }

    #[test]
    fn step_of_a_call_changes_its_own_counts_only() {
        let load = load(0.0);
        let counts = || (load.calls().pending(), load.calls().waiting(), load.calls().responses());
        load.begin(START);
        load.begin(START);
        assert_eq!(counts(), (2, 2, 0));
        load.respond(START);
        assert_eq!(counts(), (2, 1, 1));
        load.end();
        assert_eq!(counts(), (1, 1, 1));
        load.cancel();
        assert_eq!(counts(), (0, 0, 1));
        for responses in 2..=1 << 20 {
            load.begin(START);
            load.respond_and_end(START);
            assert_eq!(counts(), (0, 0, responses % (1 << 20)));
        }
    }

    #[test]
    fn one_waiting_call_does_not_raise_the_latency() {
        let load = load(5.0 * MS);
        load.begin(START);
        for ms in [10, 1_000, 30_000] {
            near(load.latency(at(ms).tick()), load.cost(at(ms).tick()));
        }
        // Nor beside calls that have a response.
        for ms in (1_000..2_000).step_by(20) {
            load.begin(at(ms));
            assert!(load.latency(at(ms + 5).tick()) < 6.0 * MS);
            load.respond(at(ms + 6));
            load.end();
        }
        near(load.latency(at(2_000).tick()), load.cost(at(2_000).tick()));
    }

    #[test]
    fn several_waiting_calls_raise_the_latency_for_a_limited_time() {
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
        load.respond(at(40_000));
        assert!(!waits(40_010));
    }

    #[test]
    fn activity_ends_a_silence() {
        let load = load(5.0 * MS);
        assert_eq!(load.since_activity(at(100).tick()), Some(at(100).tick()));
        load.begin(at(100));
        load.respond(at(200));
        load.begin(at(300));
        assert_eq!(load.since_activity(at(400).tick()), Some(at(400).tick() - at(200).tick()));
        load.begin(at(500));
        assert_eq!(load.since_activity(at(500).tick()), None);
        load.record_activity(at(600));
        assert_eq!(load.since_activity(at(600).tick()), Some(0));
    }

    #[test]
    fn lower_bound_never_lowers_the_cost() {
        let load = load(30.0 * MS);
        load.record_at_least(1.0 * MS, at(5));
        near(load.cost(at(5).tick()), 30.0 * MS);
        load.record_at_least(90.0 * MS, at(5));
        near(load.cost(at(5).tick()), 90.0 * MS);
    }

    #[test]
    fn exp2_equals_the_standard_library() {
        for tenth in 0..1_400 {
            let x = -0.1 * tenth as f32;
            assert!((exp2(x) - x.exp2()).abs() <= x.exp2() / 8_000.0 + f32::MIN_POSITIVE, "{x}: {}", exp2(x));
        }
        assert_eq!(exp2(0.0), 1.0);
    }

    #[test]
    fn elapsed_is_right_after_a_wrap_and_for_an_earlier_clock() {
        assert_eq!(elapsed(Tick::MAX - 1, 3), 5);
        assert_eq!(elapsed(7, 5), 0);
        let latest = Silence::after_activity((Tick::MAX >> 3) - 1);
        assert_eq!((latest.elapsed(Tick::MAX >> 3), latest.elapsed((1 << 29) + 3)), (1, 5));
        assert_eq!(Silence::after_activity(7).elapsed(5), 0);
        let load = Load::new(30.0 * MS, DECAY, at(50));
        load.record(60.0 * MS, START);
        near(load.cost(at(50).tick()), 60.0 * MS);
    }
}
