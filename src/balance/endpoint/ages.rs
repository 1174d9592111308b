//! Number of pending calls that last so long that they are no load: long polls, open streams.
//!
//! Time is divided into epochs of about 0.13 seconds. The first call of an epoch sets a new mark if
//! the latest mark is old enough. Calls that were pending at the mark before it and still are
//! become *old*; the other pending calls are *young*. A call that ends in the epoch in which it
//! began, as most do, is neither and costs one comparison. All other calls are accounted for under
//! a lock.
//!
//! The number of old calls never includes a call that has ended, as `tests/counters.rs` shows. It
//! may lack a call that ended or began while a mark was set, until the next mark.

use super::counters::CallCounts;
use super::primitives::Mutex;
use super::primitives::atomic::{AtomicU32, Ordering};

/// An epoch is 2^27 nanoseconds.
const EPOCH_BITS: u32 = 27;

/// A tick is 2^20 nanoseconds.
const TICK_BITS: u32 = 20;

/// Maximum number of old calls that are counted.
const MAX_OLD: u32 = 0xffff;

/// An epoch up to this far ahead (8.6 seconds) comes from another thread's newer reading of the
/// clock. Any other one is in the past: epochs wrap after 2.4 hours, and an endpoint may get no
/// call for any part of that time.
const AHEAD: u32 = 64;

/// Distance from an epoch that has begun to one in which no call begins meanwhile. Less than
/// [`AHEAD`], so that no endpoint seems idle.
const NO_EPOCH: u32 = AHEAD / 2;

/// Number of old calls in the lower half. The upper half is the epoch in which a call last began.
#[derive(Debug)]
pub(crate) struct Ages(AtomicU32);

/// Marks, and the calls between them. Times are nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct AgeMarks {
    mark: u64,
    previous_mark: u64,
    /// Pending calls that began between the two marks.
    young: u32,
}

impl Ages {
    /// Starts at this time, without calls.
    pub(crate) fn new(now: u64) -> Self {
        Self(AtomicU32::new(epoch(now) << 16))
    }

    /// Returns `true` in the epoch in which a call last began.
    #[inline]
    pub(crate) fn is_current(&self, time: u64) -> bool {
        self.0.load(Ordering::Relaxed) >> 16 == epoch(time)
    }

    /// Returns the number of pending calls that are a load now. A call that has lasted for
    /// `long` epochs is none.
    #[inline]
    pub(crate) fn load(&self, pending: u32, tick: u32, long: impl FnOnce() -> f32) -> u32 {
        let word = self.0.load(Ordering::Relaxed);
        let idle = idle((tick >> (EPOCH_BITS - TICK_BITS)) & 0xffff, word >> 16);
        if idle > 0 && idle as f32 >= long() { 0 } else { pending.saturating_sub(word & MAX_OLD) }
    }

    /// Notes that a call begins in a new epoch, before it is counted. `now` reads the clock.
    #[cold]
    pub(crate) fn enter(
        &self,
        begin: u64,
        counts: &CallCounts,
        marks: &Mutex<AgeMarks>,
        long: f32,
        now: impl Fn() -> u64,
    ) {
        let mut marks = marks.lock();
        let word = self.0.load(Ordering::Relaxed);
        let (entered, last, old) = (epoch(begin), word >> 16, word & MAX_OLD);
        if entered == last || is_before(entered, last) {
            return;
        }
        // No call begins in this epoch, so that calls that begin or end meanwhile take the lock,
        // among them those that are counted below and end.
        self.0.store((entered + NO_EPOCH) << 16 | old, Ordering::Relaxed);
        let pending = counts.settled().pending();
        // Read last: all calls that are counted began before.
        let now = now();
        let idle = idle(entered, last);
        let mut left = old;
        if idle > 0 && idle as f32 >= long {
            *marks = AgeMarks { mark: now, previous_mark: now, young: 0 };
            left = pending;
        } else if epochs(now.saturating_sub(marks.mark)) >= long.max(1.0) {
            left = (old + marks.young).min(pending);
            *marks = AgeMarks { mark: now, previous_mark: marks.mark, young: pending - left };
        }
        self.0.store(entered << 16 | left.min(MAX_OLD), Ordering::Relaxed);
    }

    /// Accounts for a call that began in another epoch, after it is no longer counted.
    #[cold]
    pub(crate) fn leave(&self, begin: u64, marks: &Mutex<AgeMarks>) {
        let mut marks = marks.lock();
        let word = self.0.load(Ordering::Relaxed);
        if begin < marks.previous_mark {
            if word & MAX_OLD > 0 {
                self.0.store(word - 1, Ordering::Relaxed);
            }
        } else if begin < marks.mark {
            marks.young = marks.young.saturating_sub(1);
        }
    }
}

#[inline]
fn epoch(time: u64) -> u32 {
    (time >> EPOCH_BITS) as u32 & 0xffff
}

fn epochs(time: u64) -> f32 {
    time as f32 / (1u64 << EPOCH_BITS) as f32
}

/// Returns `true` if one epoch is shortly before another, as if two threads had read the clock.
#[inline]
fn is_before(one: u32, other: u32) -> bool {
    (1..=AHEAD).contains(&(other.wrapping_sub(one) & 0xffff))
}

/// Number of whole epochs in between.
#[inline]
fn idle(now: u32, last: u32) -> u32 {
    if is_before(now, last) { 0 } else { (now.wrapping_sub(last) & 0xffff).saturating_sub(1) }
}
