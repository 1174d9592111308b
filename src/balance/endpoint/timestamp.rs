//! Readings of the clock.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// Reading of the clock for measurements: nanoseconds since [`BASE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(pub(super) u64);

/// Earlier than all clocks of runtimes, which tests can stop and advance.
static BASE: LazyLock<Instant> = LazyLock::new(|| {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(365 * 24 * 3_600)).unwrap_or(now)
});

/// A tick is 2^20 nanoseconds, about a millisecond. 32 bits of ticks last 52 days.
const TICK_BITS: u32 = 20;

/// Nanoseconds in a tick.
pub(super) const TICK: f32 = (1u64 << TICK_BITS) as f32;

/// A stamp up to this far ahead (about a minute) is another thread's newer reading of the clock,
/// not one that is 52 days old.
pub(super) const AHEAD: u32 = 1 << 16;

/// Coarse point in time that wraps.
pub(crate) type Tick = u32;

impl Timestamp {
    /// Reads the clock.
    #[inline]
    pub(crate) fn now() -> Self {
        Self::of(Instant::now())
    }

    #[inline]
    pub(crate) fn of(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(*BASE);
        // 64 bits of nanoseconds last 584 years.
        Self(since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos()))
    }

    /// Returns the tick, which wraps after 52 days by intent.
    #[inline]
    pub(crate) fn tick(self) -> Tick {
        (self.0 >> TICK_BITS) as Tick
    }

    /// Nanoseconds since the base.
    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        self.0
    }

    /// Duration since an earlier timestamp.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same duration as a cost.
    #[inline]
    pub(crate) fn nanos_since(self, earlier: Self) -> f32 {
        // Signed, since processors convert that in one step.
        self.0.saturating_sub(earlier.0) as i64 as f32
    }
}

#[inline]
pub(crate) fn nanos(duration: Duration) -> f32 {
    duration.as_secs() as f32 * 1e9 + duration.subsec_nanos() as f32
}

#[inline]
pub(crate) fn elapsed(stamp: Tick, now: Tick) -> u32 {
    let elapsed = now.wrapping_sub(stamp);
    if elapsed > Tick::MAX - AHEAD { 0 } else { elapsed }
}
