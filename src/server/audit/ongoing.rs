//! Log lines about a lasting fault.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Minimum time between two lines about a fault that lasts.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// A fault that may last: logged when it begins, at most once a minute while it lasts, and when it
/// ends.
///
/// It counts occurrences and says when to log; the caller writes the line, which has the fields
/// `count` and `elapsed`. A fault that comes and goes has at most two lines a minute: one that
/// begins again within a minute after its last line continues the one before.
///
/// ```ignore
/// match send() {
///     Err(error) => if let Some(Lasting { count, elapsed }) = fault.occurred() {
///         tracing::warn!(%peer, %error, count, ?elapsed, "cannot send changes to a peer");
///     },
///     Ok(_) => if let Some(Lasting { count, elapsed }) = fault.ended() {
///         tracing::info!(%peer, count, ?elapsed, "peer takes changes again");
///     },
/// }
/// ```
#[derive(Debug, Default)]
pub(in crate::server) struct Ongoing {
    /// True while the fault lasts. Without a fault, success costs one relaxed load.
    lasts: AtomicBool,
    /// Number of all occurrences since the start.
    total: AtomicU64,
    state: Mutex<State>,
}

/// Fault that a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Lasting {
    /// Number of occurrences since the fault began.
    pub(in crate::server) count: u64,
    /// Time since the fault began.
    pub(in crate::server) elapsed: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// First occurrence of the fault that lasts, or of those without a line so far.
    since: Option<Instant>,
    count: u64,
    /// Time of the last line about an occurrence.
    logged: Option<Instant>,
    /// Set if the present fault has a line, so that its end gets one as well.
    is_known: bool,
}

impl Ongoing {
    /// Counts an occurrence. Returns the fault if a line about it is to be written now.
    pub(in crate::server) fn occurred(&self) -> Option<Lasting> {
        self.count(false)
    }

    /// Counts an occurrence with a line in any case, such as one with another cause. Only for
    /// occurrences that are rare.
    pub(in crate::server) fn occurred_anew(&self) -> Option<Lasting> {
        self.count(true)
    }

    fn count(&self, is_new: bool) -> Option<Lasting> {
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        self.lasts.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let since = *state.since.get_or_insert(now);
        state.count = state.count.saturating_add(1);
        if !is_new && state.logged.is_some_and(|logged| now < logged + REPEAT_INTERVAL) {
            return None;
        }
        state.logged = Some(now);
        state.is_known = true;
        Some(Lasting { count: state.count, elapsed: now - since })
    }

    /// Records that the fault is over. Returns the fault if a line about its end is to be written
    /// now.
    pub(in crate::server) fn ended(&self) -> Option<Lasting> {
        if !self.lasts.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        self.lasts.store(false, Ordering::Relaxed);
        // A fault without a line about its beginning is merged with the next one.
        if !std::mem::take(&mut state.is_known) {
            return None;
        }
        let since = state.since.take()?;
        let count = std::mem::take(&mut state.count);
        Some(Lasting { count, elapsed: since.elapsed() })
    }

    /// Returns the number of all occurrences since the start.
    #[cfg(feature = "prometheus")]
    pub(in crate::server) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lasting(count: u64, seconds: u64) -> Option<Lasting> {
        Some(Lasting { count, elapsed: Duration::from_secs(seconds) })
    }

    #[tokio::test(start_paused = true)]
    async fn lasting_fault_is_logged_at_its_begin_each_minute_and_at_its_end() {
        let fault = Ongoing::default();
        assert_eq!(fault.ended(), None);
        let mut lines = Vec::new();
        for second in 0..150 {
            lines.extend(fault.occurred().map(|line| (second, line)));
            advance(SECOND).await;
        }
        let expected = [(0, lasting(1, 0)), (60, lasting(61, 60)), (120, lasting(121, 120))];
        assert_eq!(lines, expected.map(|(second, line)| (second, line.unwrap())));
        assert_eq!(fault.ended(), lasting(150, 150));
        assert_eq!(fault.ended(), None);
        advance(60 * SECOND).await;
        assert_eq!(fault.occurred(), lasting(1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn occurrence_with_another_cause_has_a_line_of_its_own() {
        let fault = Ongoing::default();
        assert_eq!(fault.occurred(), lasting(1, 0));
        advance(SECOND).await;
        assert_eq!(fault.occurred(), None);
        assert_eq!(fault.occurred_anew(), lasting(3, 1));
        advance(59 * SECOND).await;
        assert_eq!(fault.occurred(), None, "the last line was less than a minute ago");
        assert_eq!(fault.ended(), lasting(4, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn fault_that_comes_and_goes_has_two_lines_a_minute() {
        let fault = Ongoing::default();
        let mut lines = Vec::new();
        for _ in 0..100 {
            lines.extend(fault.occurred());
            advance(SECOND).await;
            lines.extend(fault.ended());
            advance(SECOND).await;
        }
        let expected =
            [lasting(1, 0), lasting(1, 1), lasting(30, 58), lasting(30, 59), lasting(30, 58), lasting(30, 59)];
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert_eq!(lines[..6], expected.map(Option::unwrap));
    }
}
