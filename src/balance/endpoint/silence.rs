//! Calls that wait for a response while nothing comes from the endpoint.

use super::timestamp::{AHEAD, TICK, Tick};

/// Number of calls, begun since the last activity, from which on their waiting time counts as
/// latency.
pub(super) const SEVERAL: u32 = 2;

/// Time for which the waiting time of several calls counts, as a multiple of the expected latency,
/// and its minimum in ticks (about 0.13 seconds). Each further call without a response extends it.
const SILENCE_FACTOR: f32 = 8.0;
const MIN_SILENCE: f32 = 128.0;
const SILENCE_GROWTH: f32 = 16.0;

/// Maximum waiting time that counts, in ticks (one minute). A longer one may be that of a call that
/// is not polled.
pub(super) const MAX_SILENCE: Tick = 57_220;

/// Number of calls since the last activity in the lower three bits, and a tick: that of the
/// activity or, from [`SEVERAL`] calls on, that at which they began to wait.
///
/// Written without a lock. An activity that is lost because a call began at the same moment is
/// corrected by the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence(pub(super) u32);

const SILENT_CALLS: u32 = 7;

impl Silence {
    #[inline]
    pub(super) fn after_activity(now: Tick) -> Self {
        Self(now << 3)
    }

    #[inline]
    pub(super) fn calls(self) -> u32 {
        self.0 & SILENT_CALLS
    }

    #[inline]
    pub(super) fn with_call(self) -> Self {
        self.with_calls((self.calls() + 1).min(SILENT_CALLS))
    }

    #[inline]
    pub(super) fn with_calls(self, calls: u32) -> Self {
        Self(self.0 & !SILENT_CALLS | calls)
    }

    pub(super) fn at(self, now: Tick) -> Self {
        Self(now << 3 | self.calls())
    }

    /// Ticks since then. Wraps after six days, when nothing waits any more.
    pub(super) fn elapsed(self, now: Tick) -> Tick {
        let elapsed = (now << 3).wrapping_sub(self.0 & !SILENT_CALLS) >> 3;
        if elapsed > (Tick::MAX >> 3) - AHEAD { 0 } else { elapsed }
    }

    /// Ticks for which the waiting time of several calls counts as latency, at this expected cost.
    pub(super) fn counts_for(self, cost: f32) -> Tick {
        let least = MIN_SILENCE.max(SILENCE_FACTOR * cost / TICK);
        let limit = (SEVERAL..self.calls()).fold(least, |limit, _| limit * SILENCE_GROWTH);
        (limit as Tick).min(MAX_SILENCE)
    }
}
