use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Upper limit of all waits, one year. Timers cannot represent every `Duration`.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Returns the instant after this wait. The wait is at most [`LONGEST_WAIT`].
#[cfg(feature = "client")]
pub(crate) fn add_capped(instant: Instant, wait: Duration) -> Instant {
    instant + wait.min(LONGEST_WAIT)
}

/// Returns the wall clock in milliseconds since the epoch.
#[allow(clippy::disallowed_methods, reason = "the only place that reads the wall clock")]
pub(crate) fn wall_clock_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis().try_into().unwrap_or(i64::MAX));
    #[cfg(test)]
    let now = now + MOVED_MS.get();
    now
}

#[cfg(test)]
thread_local! {
    static MOVED_MS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// Moves the wall clock of this thread.
#[cfg(test)]
pub(crate) fn move_wall_clock(by_ms: i64) {
    MOVED_MS.set(MOVED_MS.get() + by_ms);
}

/// Point in time on tokio's clock and on the wall clock. Tokio's clock stops while the machine is
/// suspended.
#[cfg(feature = "client")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instant,
    wall_ms: i64,
}

#[cfg(feature = "client")]
impl Moment {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), wall_ms: wall_clock_ms() }
    }

    /// Returns the wall clock of this moment, in milliseconds since the epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.wall_ms
    }

    /// Returns the time by which the wall clock advanced more than tokio's clock since this moment:
    /// the machine was suspended, or the wall clock set forward.
    pub(crate) fn skipped(&self) -> Duration {
        self.elapsed().saturating_sub(self.at.elapsed())
    }

    /// Returns the time since this moment, by the clock that advanced more. A wall clock that was
    /// set back counts as zero.
    pub(crate) fn elapsed(&self) -> Duration {
        let by_wall_clock = wall_clock_ms().saturating_sub(self.wall_ms).try_into().unwrap_or(0);
        self.at.elapsed().max(Duration::from_millis(by_wall_clock))
    }
}

/// Monotonic clock in epoch milliseconds: the wall clock at the start plus the time elapsed on
/// tokio's clock since then.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch_ms: i64,
    start: Instant,
    /// The start on the system's monotonic clock, which tests cannot pause.
    system_start: std::time::Instant,
}

#[cfg(feature = "server")]
impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the wall clock is compared with the system's monotonic clock")]
    pub(crate) fn start() -> Self {
        Self { epoch_ms: wall_clock_ms(), start: Instant::now(), system_start: std::time::Instant::now() }
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.epoch_ms.saturating_add(milliseconds(self.start.elapsed()))
    }

    /// Returns the milliseconds by which the wall clock advanced more than the monotonic clock
    /// since the start. It differs from zero after the wall clock was set, and after a suspension
    /// of the machine, which stops the monotonic clock.
    pub(crate) fn wall_gain_ms(&self) -> i64 {
        wall_clock_ms().saturating_sub(self.system_now_ms())
    }

    /// Returns the time that [`now_ms`](Self::now_ms) returns while tokio's clock is not paused.
    pub(crate) fn system_now_ms(&self) -> i64 {
        self.epoch_ms.saturating_add(milliseconds(self.system_start.elapsed()))
    }
}

/// Returns the duration in milliseconds, at most `i64::MAX`.
#[cfg(feature = "server")]
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}
