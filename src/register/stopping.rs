use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// Time after which calls are refused, once the server was asked to stop. Calls that arrive earlier
/// may have been sent before the caller could know: on a connection that was accepted last, or on
/// an HTTP/2 connection whose `GOAWAY` is still on its way.
const GRACE_OF_CALLS: Duration = Duration::from_secs(1);

/// Last phase of a shutdown, in which calls on kept connections are refused.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    /// True while `since` is set, so that calls take no lock before.
    has_begun: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl Stopping {
    /// Begins the phase. Called when the server is asked to stop accepting.
    pub(super) fn begin(&self) {
        self.since.lock().get_or_insert_with(Instant::now);
        self.has_begun.store(true, Ordering::Relaxed);
    }

    /// Ends the phase, since the instance is registered again.
    pub(super) fn reset(&self) {
        self.has_begun.store(false, Ordering::Relaxed);
        *self.since.lock() = None;
    }

    /// Returns `true` if a call that arrives now is refused.
    pub(super) fn refuses(&self) -> bool {
        let elapsed = || self.since.lock().map(|since| since.elapsed());
        self.has_begun.load(Ordering::Relaxed) && elapsed().is_some_and(|elapsed| elapsed >= GRACE_OF_CALLS)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_are_refused_one_second_after_the_server_was_asked_to_stop() {
        let stopping = Stopping::default();
        advance(Duration::from_secs(100)).await;
        assert!(!stopping.refuses());
        stopping.begin();
        advance(Duration::from_millis(999)).await;
        stopping.begin();
        assert!(!stopping.refuses());
        advance(Duration::from_millis(1)).await;
        assert!(stopping.refuses());
        stopping.reset();
        assert!(!stopping.refuses());
    }
}
