//! The words of an endpoint that calls write at the same time, without a lock: counts, outcomes, and who may be the probe.
//!
//! Each is one atomic word, so that what belongs together changes together, and nothing else hangs on their order: relaxed
//! ordering suffices but for the counts, by which the ages of pending calls are told. `tests/cells.rs` tries all interleavings
//! under loom.

use super::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many calls are pending, how many of these wait for their answer, and how many were answered.
#[derive(Debug)]
pub(super) struct Counts(AtomicU64);

/// [`Counts`] at one moment: 22 bits of pending calls (as many as need gigabytes), 22 of waiting ones, 20 of answers that wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted(u64);

const PENDING: u64 = 1;
const WAITING: u64 = 1 << 22;
const ANSWERED: u64 = 1 << 44;

impl Counted {
    #[inline]
    pub(super) fn pending(self) -> u32 {
        (self.0 & (WAITING - 1)) as u32
    }

    #[inline]
    pub(super) fn waiting(self) -> u32 {
        ((self.0 / WAITING) & (WAITING - 1)) as u32
    }

    #[inline]
    pub(super) fn answered(self) -> u32 {
        (self.0 / ANSWERED) as u32
    }

    /// How many answers there were since an earlier moment, if fewer than wrap.
    pub(super) fn answered_since(self, earlier: u32) -> u32 {
        self.answered().wrapping_sub(earlier) & 0xf_ffff
    }
}

impl Counts {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(super) fn get(&self) -> Counted {
        Counted(self.0.load(Ordering::Relaxed))
    }

    /// The counts now, ordered after what was written before: a call that ends later sees that.
    pub(super) fn settled(&self) -> Counted {
        Counted(self.0.fetch_add(0, Ordering::AcqRel))
    }

    /// A call begins: it is pending, and waits for its answer. Returns the counts before.
    #[inline]
    pub(super) fn begin(&self) -> Counted {
        Counted(self.0.fetch_add(PENDING + WAITING, Ordering::AcqRel))
    }

    /// Its answer has begun, or it failed.
    pub(super) fn answer(&self) {
        self.0.fetch_add(ANSWERED - WAITING, Ordering::AcqRel);
    }

    /// It is over after its answer.
    pub(super) fn end(&self) {
        self.0.fetch_sub(PENDING, Ordering::AcqRel);
    }

    /// [`answer`](Self::answer) and [`end`](Self::end) in one.
    #[inline]
    pub(super) fn answer_and_end(&self) {
        self.0.fetch_add(ANSWERED - WAITING - PENDING, Ordering::AcqRel);
    }

    /// It was given up before an answer.
    pub(super) fn give_up(&self) {
        self.0.fetch_sub(PENDING + WAITING, Ordering::AcqRel);
    }
}

/// The outcomes of the last 64 calls, the newest in the lowest bit: 1 for a failure. Starts as if all had been answered.
#[derive(Debug)]
pub(super) struct History(AtomicU64);

impl History {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// How many failed.
    pub(super) fn failures(&self) -> u32 {
        self.0.load(Ordering::Relaxed).count_ones()
    }

    /// How many of the last ones failed in a row.
    pub(super) fn in_a_row(&self) -> u32 {
        self.0.load(Ordering::Relaxed).trailing_ones()
    }

    /// Without a recent failure, the usual case, it is not even written to.
    #[inline]
    pub(super) fn succeeded(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.remember(0);
        }
    }

    pub(super) fn failed(&self) {
        self.remember(1);
    }

    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn remember(&self, bit: u64) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |history| Some(history << 1 | bit));
    }
}

/// Which call decides on an endpoint that is out: a state, and in the upper bits the number of the trial, which tells a late
/// result from a current one. Begun and ended under the roster's lock, taken by calls without one.
#[derive(Debug)]
pub(super) struct Trial(AtomicU32);

/// No call decides anything.
const CLOSED: u32 = 0;
/// The next call that comes does.
const WANTED: u32 = 1;
/// A call is on its way that does.
const TAKEN: u32 = 2;
/// Every call does.
const OPEN: u32 = 3;
const STATE: u32 = 3;

/// The part of a call in a trial, by the trial's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u32);

impl Ticket {
    /// That of a call on which nothing hangs.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn is_some(self) -> bool {
        self != Self::NONE
    }

    #[inline]
    pub(super) fn number(self) -> u32 {
        self.0
    }

    #[inline]
    pub(super) fn of_number(number: u32) -> Self {
        Self(number)
    }
}

impl Trial {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(CLOSED))
    }

    /// Begins anew, one call at a time.
    pub(super) fn begin(&self) {
        self.next(WANTED);
    }

    /// Ends it: what comes late does not count.
    pub(super) fn end(&self) {
        self.next(CLOSED);
    }

    /// Begins or ends one of which every call is a part; goes on with the one there is.
    pub(super) fn open(&self, open: bool) {
        let is_open = self.0.load(Ordering::Relaxed) & STATE == OPEN;
        if open != is_open {
            self.next(if open { OPEN } else { CLOSED });
        }
    }

    /// Asks for one more call in the same trial if there was one already, whether or not that is over. Returns whether
    /// there was.
    pub(super) fn ask_again(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        let is_taken = word & STATE == TAKEN;
        if is_taken {
            self.0.store(word & !STATE | WANTED, Ordering::Relaxed);
        }
        is_taken
    }

    /// Gives the permit of a call that says nothing to the next call.
    pub(super) fn give_back(&self, ticket: Ticket) {
        let (taken, wanted) = (ticket.0 | TAKEN, ticket.0 | WANTED);
        let _ = self.0.compare_exchange(taken, wanted, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether calls decide one at a time.
    pub(super) fn is_on(&self) -> bool {
        matches!(self.0.load(Ordering::Relaxed) & STATE, WANTED | TAKEN)
    }

    /// Makes this call a part of the trial, if it is wanted.
    #[inline]
    pub(super) fn take(&self) -> Ticket {
        let word = self.0.load(Ordering::Relaxed);
        match word & STATE {
            WANTED => {
                let taken = word & !STATE | TAKEN;
                match self.0.compare_exchange(word, taken, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => Ticket(word & !STATE),
                    Err(_) => Ticket::NONE,
                }
            }
            OPEN => Ticket(word & !STATE),
            _ => Ticket::NONE,
        }
    }

    /// Whether this call is part of what goes on now.
    pub(super) fn is_current(&self, ticket: Ticket) -> bool {
        self.0.load(Ordering::Relaxed) & !STATE == ticket.0
    }

    fn next(&self, state: u32) {
        let number = (self.0.load(Ordering::Relaxed) & !STATE).wrapping_add(STATE + 1);
        // Zero is no number.
        let number = if number == 0 { STATE + 1 } else { number };
        self.0.store(number | state, Ordering::Relaxed);
    }
}
