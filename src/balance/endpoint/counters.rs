//! Lock-free counters of one endpoint: pending calls, recent outcomes and the probe permit.
//!
//! Each of them is one atomic word, so that values that belong together change together. Nothing
//! else depends on their order, so relaxed ordering suffices, except for the number of calls that
//! the ages of pending calls are derived from. `tests/counters.rs` checks all interleavings with
//! loom.

use super::primitives::atomic::{AtomicU32, AtomicU64, Ordering};

/// Number of pending calls, of those without a response, and of responses.
#[derive(Debug)]
pub(crate) struct CallCounts(AtomicU64);

/// [`CallCounts`] at one moment: 22 bits of pending calls (as many need gigabytes), 22 bits of
/// calls without a response, 20 bits of responses, which wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountsSnapshot(u64);

const PENDING: u64 = 1;
const WAITING: u64 = 1 << 22;
const RESPONSES: u64 = 1 << 44;

impl CountsSnapshot {
    #[inline]
    pub(crate) fn pending(self) -> u32 {
        (self.0 & (WAITING - 1)) as u32
    }

    #[inline]
    pub(crate) fn waiting(self) -> u32 {
        ((self.0 / WAITING) & (WAITING - 1)) as u32
    }

    #[inline]
    pub(crate) fn responses(self) -> u32 {
        (self.0 / RESPONSES) as u32
    }

    /// Number of responses since an earlier moment, if fewer than wrap.
    pub(crate) fn responses_since(self, earlier: u32) -> u32 {
        self.responses().wrapping_sub(earlier) & 0xf_ffff
    }
}

impl CallCounts {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn get(&self) -> CountsSnapshot {
        CountsSnapshot(self.0.load(Ordering::Relaxed))
    }

    /// Returns the counts, ordered after all earlier writes: a call that ends later sees these.
    pub(crate) fn settled(&self) -> CountsSnapshot {
        CountsSnapshot(self.0.fetch_add(0, Ordering::AcqRel))
    }

    /// Counts a new call as pending and without a response. Returns the counts before.
    #[inline]
    pub(crate) fn begin(&self) -> CountsSnapshot {
        CountsSnapshot(self.0.fetch_add(PENDING + WAITING, Ordering::AcqRel))
    }

    /// Counts a response, or a failure in its place.
    pub(crate) fn respond(&self) {
        self.0.fetch_add(RESPONSES - WAITING, Ordering::AcqRel);
    }

    /// Counts the end of a call after its response.
    pub(crate) fn end(&self) {
        self.0.fetch_sub(PENDING, Ordering::AcqRel);
    }

    /// Does the same as [`respond`](Self::respond) and [`end`](Self::end) in one step.
    #[inline]
    pub(crate) fn respond_and_end(&self) {
        self.0.fetch_add(RESPONSES - WAITING - PENDING, Ordering::AcqRel);
    }

    /// Counts the end of a call without a response.
    pub(crate) fn cancel(&self) {
        self.0.fetch_sub(PENDING + WAITING, Ordering::AcqRel);
    }
}

/// Outcomes of the last 64 calls, the latest in the lowest bit: 1 is a failure. Starts as if all
/// had succeeded.
#[derive(Debug)]
pub(crate) struct History(AtomicU64);

impl History {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Number of failures.
    pub(crate) fn failures(&self) -> u32 {
        self.0.load(Ordering::Relaxed).count_ones()
    }

    /// Number of failures in a row, up to the latest call.
    pub(crate) fn consecutive_failures(&self) -> u32 {
        self.0.load(Ordering::Relaxed).trailing_ones()
    }

    /// Does not write unless there is a recent failure, which is rare.
    #[inline]
    pub(crate) fn record_success(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.push(0);
        }
    }

    pub(crate) fn record_failure(&self) {
        self.push(1);
    }

    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn push(&self, bit: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |history| Some(history << 1 | bit));
    }
}

/// Probe permit of a half-open endpoint: at most one call at a time decides on the endpoint.
///
/// Holds a state and, in the upper bits, the number of the half-open period. That number separates
/// late results from current ones. Periods start and stop under the pool's lock; calls acquire the
/// permit without one.
#[derive(Debug)]
pub(crate) struct HalfOpen(AtomicU32);

/// No call decides.
const CLOSED: u32 = 0;
/// The next call acquires the permit.
const FREE: u32 = 1;
/// A call has the permit.
const TAKEN: u32 = 2;
/// Every call decides.
const ALL: u32 = 3;
const STATE: u32 = 3;

/// Permit of a call that decides on its endpoint: the number of the half-open period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permit(u32);

impl Permit {
    /// No permit.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn is_some(self) -> bool {
        self != Self::NONE
    }

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) fn of_number(number: u32) -> Self {
        Self(number)
    }
}

impl HalfOpen {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(CLOSED))
    }

    /// Starts a period with one permit.
    pub(crate) fn start(&self) {
        self.next(FREE);
    }

    /// Stops the period. Late results do not count.
    pub(crate) fn stop(&self) {
        self.next(CLOSED);
    }

    /// Starts or stops a period in which every call decides. Keeps a period that is in that state
    /// already.
    pub(crate) fn admit_all(&self, all: bool) {
        let is_open = self.0.load(Ordering::Relaxed) & STATE == ALL;
        if all != is_open {
            self.next(if all { ALL } else { CLOSED });
        }
    }

    /// Issues the permit again in the same period if a call has it. Returns `true` if one had.
    pub(crate) fn reissue(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        let is_taken = word & STATE == TAKEN;
        if is_taken {
            self.0.store(word & !STATE | FREE, Ordering::Relaxed);
        }
        is_taken
    }

    /// Returns the permit of a call without evidence, so that the next call can acquire it.
    pub(crate) fn release(&self, permit: Permit) {
        let (taken, wanted) = (permit.0 | TAKEN, permit.0 | FREE);
        let _ = self.0.compare_exchange(taken, wanted, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns `true` if calls decide one at a time.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.0.load(Ordering::Relaxed) & STATE, FREE | TAKEN)
    }

    /// Acquires the permit for a call, if it is free.
    #[inline]
    pub(crate) fn acquire(&self) -> Permit {
        let word = self.0.load(Ordering::Relaxed);
        match word & STATE {
            FREE => {
                let taken = word & !STATE | TAKEN;
                match self.0.compare_exchange(word, taken, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => Permit(word & !STATE),
                    Err(_) => Permit::NONE,
                }
            }
            ALL => Permit(word & !STATE),
            _ => Permit::NONE,
        }
    }

    /// Returns `true` if the permit belongs to the current period.
    pub(crate) fn is_current(&self, permit: Permit) -> bool {
        self.0.load(Ordering::Relaxed) & !STATE == permit.0
    }

    fn next(&self, state: u32) {
        let number = (self.0.load(Ordering::Relaxed) & !STATE).wrapping_add(STATE + 1);
        // Zero is not a number of a period.
        let number = if number == 0 { STATE + 1 } else { number };
        self.0.store(number | state, Ordering::Relaxed);
    }
}
