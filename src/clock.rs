//! The one place that reads the wall clock. Everything else runs on tokio's clock, which tests can
//! pause.

#[cfg(any(feature = "client", feature = "server"))]
use std::time::Duration;
use std::time::SystemTime;

#[cfg(any(feature = "client", feature = "server"))]
use tokio::time::Instant;

/// A year. Longer waits than this are cut to it: the clock cannot tell every `Duration`.
pub(crate) const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// Milliseconds since the epoch, now.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
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

/// Moves the wall clock that this thread reads.
#[cfg(all(test, any(feature = "client", feature = "server")))]
pub(crate) fn move_wall_clock(by_ms: i64) {
    MOVED_MS.set(MOVED_MS.get() + by_ms);
}

/// A point in time by tokio's clock and by the wall clock. The former stands still while the
/// machine is suspended.
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

    /// Milliseconds since the epoch, by the wall clock of then.
    #[cfg(feature = "peers")]
    pub(crate) fn wall_ms(&self) -> i64 {
        self.wall_ms
    }

    /// Time since this moment, by the clock that counted more. A wall clock that was set back
    /// counts nothing.
    pub(crate) fn elapsed(&self) -> Duration {
        let by_wall_clock = wall_clock_ms().saturating_sub(self.wall_ms).try_into().unwrap_or(0);
        self.at.elapsed().max(Duration::from_millis(by_wall_clock))
    }
}

/// Epoch milliseconds that never jump: the wall clock as it stood at the start, plus the time that
/// tokio's clock has counted since.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch_ms: i64,
    start: Instant,
    /// The same moment by the system's monotonic clock, which tests cannot pause.
    system_start: std::time::Instant,
}

#[cfg(feature = "server")]
impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the wall clock is compared with the clock of the system")]
    pub(crate) fn start() -> Self {
        Self { epoch_ms: wall_clock_ms(), start: Instant::now(), system_start: std::time::Instant::now() }
    }

    /// Time since it was started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.epoch_ms.saturating_add(milliseconds(self.start.elapsed()))
    }

    /// Milliseconds that the wall clock has counted since the start beyond those of the monotonic
    /// clock: it was set, or the machine was suspended, when the monotonic clock stands still.
    pub(crate) fn wall_gain_ms(&self) -> i64 {
        let steady = self.epoch_ms.saturating_add(milliseconds(self.system_start.elapsed()));
        wall_clock_ms().saturating_sub(steady)
    }
}

#[cfg(feature = "server")]
fn milliseconds(duration: Duration) -> i64 {
    duration.as_millis().try_into().unwrap_or(i64::MAX)
}
