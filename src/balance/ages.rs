//! Pending calls that have lasted so long that they are no load: long polls, open streams.
//!
//! Calls begin in epochs of about 0.13 s. The first call of an epoch makes a mark where the latest mark is old enough: calls
//! that were pending at the mark before it, and still are, have become old, and the other pending calls are young. A call that
//! ends in the epoch in which it began, as most do, is neither and costs one comparison. All others settle their accounts
//! under a lock.
//!
//! The count of old calls never includes one that has ended, as `tests/cells.rs` shows. It may lack one that ended or began
//! while a mark was made, until the next mark.

use super::Mutex;
use super::atomic::{AtomicU32, Ordering};
use super::cells::Counts;

/// An epoch is 2^27 ns.
const EPOCH_BITS: u32 = 27;

/// Ticks of 2^20 ns.
const TICK_BITS: u32 = 20;

/// Most old calls that are told apart.
const MOST: u32 = 0xffff;

/// An epoch at most so far ahead, 8.6 s, is another thread's newer reading of the clock. Any other is one of the past: epochs
/// wrap after 2.4 hours, and an endpoint may get no call for any part of that.
const AHEAD: u32 = 64;

/// Epochs from one that has begun to one in which no call begins meanwhile. Within [`AHEAD`], so that nobody seems idle.
const NO_EPOCH: u32 = AHEAD / 2;

/// Number of old calls in the lower half, and in the upper half the epoch in which a call last began.
#[derive(Debug)]
pub(super) struct Ages(AtomicU32);

/// Account of the calls that did not end in the epoch in which they began. Times are nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    mark: u64,
    previous_mark: u64,
    /// Pending calls that began between the two marks.
    young: u32,
}

impl Ages {
    /// Without calls, as of this time.
    pub(super) fn new(now: u64) -> Self {
        Self(AtomicU32::new(epoch(now) << 16))
    }

    /// Returns `true` in the epoch in which a call last began.
    #[inline]
    pub(super) fn is_current(&self, time: u64) -> bool {
        self.0.load(Ordering::Relaxed) >> 16 == epoch(time)
    }

    /// Number of pending calls that are a load now, where none that has lasted for `patience` epochs is.
    #[inline]
    pub(super) fn load(&self, pending: u32, tick: u32, patience: impl FnOnce() -> f32) -> u32 {
        let word = self.0.load(Ordering::Relaxed);
        let idle = idle((tick >> (EPOCH_BITS - TICK_BITS)) & 0xffff, word >> 16);
        if idle > 0 && idle as f32 >= patience() { 0 } else { pending.saturating_sub(word & MOST) }
    }

    /// Notes that a call begins in a new epoch, before it is counted. `now` reads the clock.
    #[cold]
    pub(super) fn enter(
        &self,
        begin: u64,
        counts: &Counts,
        ledger: &Mutex<Ledger>,
        patience: f32,
        now: impl Fn() -> u64,
    ) {
        let mut ledger = ledger.lock();
        let word = self.0.load(Ordering::Relaxed);
        let (entered, last, old) = (epoch(begin), word >> 16, word & MOST);
        if entered == last || is_before(entered, last) {
            return;
        }
        // The epoch of no call: those that begin or end meanwhile come to the lock. Calls that end and are counted below do.
        self.0.store((entered + NO_EPOCH) << 16 | old, Ordering::Relaxed);
        let pending = counts.settled().pending();
        // Last: all that are counted began before.
        let now = now();
        let idle = idle(entered, last);
        let mut left = old;
        if idle > 0 && idle as f32 >= patience {
            *ledger = Ledger { mark: now, previous_mark: now, young: 0 };
            left = pending;
        } else if epochs(now.saturating_sub(ledger.mark)) >= patience.max(1.0) {
            left = (old + ledger.young).min(pending);
            *ledger = Ledger { mark: now, previous_mark: ledger.mark, young: pending - left };
        }
        self.0.store(entered << 16 | left.min(MOST), Ordering::Relaxed);
    }

    /// Settles a call that began in another epoch, after it is no longer counted.
    #[cold]
    pub(super) fn leave(&self, begin: u64, ledger: &Mutex<Ledger>) {
        let mut ledger = ledger.lock();
        let word = self.0.load(Ordering::Relaxed);
        if begin < ledger.previous_mark {
            if word & MOST > 0 {
                self.0.store(word - 1, Ordering::Relaxed);
            }
        } else if begin < ledger.mark {
            ledger.young = ledger.young.saturating_sub(1);
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

/// Returns `true` if one epoch is shortly before another, as where two threads read the clock.
#[inline]
fn is_before(one: u32, other: u32) -> bool {
    (1..=AHEAD).contains(&(other.wrapping_sub(one) & 0xffff))
}

/// Whole epochs between these.
#[inline]
fn idle(now: u32, last: u32) -> u32 {
    if is_before(now, last) { 0 } else { (now.wrapping_sub(last) & 0xffff).saturating_sub(1) }
}
