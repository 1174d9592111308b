//! The one place that reads the wall clock. Everything else runs on tokio's clock, which tests can pause.

#[cfg(feature = "server")]
use std::time::Duration;
use std::time::SystemTime;

#[cfg(feature = "server")]
use tokio::time::Instant;

/// A year. Longer waits than this are cut to it: the clock cannot tell every `Duration`.
pub(crate) const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// Milliseconds since the epoch, now.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn wall_clock_ms() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis().try_into().unwrap_or(i64::MAX))
}

/// Epoch milliseconds that never jump: the wall clock as it stood at the start, plus what tokio's clock has counted since.
#[cfg(feature = "server")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch_ms: i64,
    start: Instant,
}

#[cfg(feature = "server")]
impl Clock {
    pub(crate) fn start() -> Self {
        Self { epoch_ms: wall_clock_ms(), start: Instant::now() }
    }

    /// Time since it was started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.epoch_ms.saturating_add(self.start.elapsed().as_millis().try_into().unwrap_or(i64::MAX))
    }
}
