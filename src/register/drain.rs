use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::lifecycle::Lifecycle;
use crate::clock::LONGEST_WAIT;

/// How a server leaves: each wait has its bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainConfig {
    /// No new request for so long: everybody knows.
    pub(super) quiet_time: Duration,
    /// Enough, even if requests keep coming.
    pub(super) max_drain: Duration,
    /// For requests in flight, once no more are accepted.
    pub(super) grace: Duration,
    /// For one word with the registry: DOWN, DELETE.
    pub(super) registry_timeout: Duration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            quiet_time: Duration::from_secs(5),
            max_drain: Duration::from_secs(30),
            grace: Duration::from_secs(20),
            registry_timeout: Duration::from_secs(3),
        }
    }
}

/// Waits until callers have stopped calling.
///
/// Who knows that this instance is DOWN stops calling it, so silence tells that everybody knows. A server that never had a
/// request has no callers and does not wait; one whose requests are not seen, for lack of the layer, waits for the quiet time.
pub(super) async fn quiet(lifecycle: &Lifecycle, config: &DrainConfig) {
    if lifecycle.is_layered() && !lifecycle.has_served() {
        return;
    }
    let start = Instant::now();
    let limit = later(start, config.max_drain);
    loop {
        let silent_since = lifecycle.last_request().unwrap_or(start).max(start);
        let quiet_at = later(silent_since, config.quiet_time).min(limit);
        if Instant::now() >= quiet_at {
            return;
        }
        sleep_until(quiet_at).await;
    }
}

fn later(instant: Instant, wait: Duration) -> Instant {
    instant + wait.min(LONGEST_WAIT)
}

/// Completes at a SIGTERM or Ctrl-C that comes from now on: a second one, where the first began the drain.
pub(super) async fn next_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    interrupt.await;
}
