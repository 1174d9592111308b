//! Log lines about faults of clients.

use std::collections::VecDeque;
use std::fmt::{self, Display, Write};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use crate::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// Minimum time between two lines about the same fault.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of lines within that time.
const LINES: usize = 20;

/// Faults of clients. Each is logged at once, then at most once a minute, and once when it has not
/// occurred for a minute. There are at most 20 lines a minute for all clients.
///
/// A fault is identified by its description. Faults beyond the limit are counted together.
#[derive(Debug, Default)]
pub(in crate::server) struct Repeats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Faults with a line, the one with the oldest line first.
    faults: VecDeque<Fault>,
    /// Occurrences of faults without one, and the time when their number was logged last.
    others: u64,
    logged_others: Option<Instant>,
}

#[derive(Debug)]
struct Fault {
    key: u64,
    description: String,
    first: Instant,
    last: Instant,
    /// Time of its last line.
    logged: Instant,
    count: u64,
    /// Occurrences since its last line.
    suppressed: u64,
}

impl Repeats {
    /// Counts an occurrence. Returns the number of those without a line since the last line about
    /// this fault, if a line may be written now.
    pub(in crate::server) fn pass(&self, fault: impl Display) -> Option<u64> {
        let mut hash = Hash(DefaultHasher::new());
        write!(hash, "{fault}").expect("write to a hasher is infallible");
        let key = hash.0.finish();
        let now = Instant::now();
        let mut state = self.state();
        if let Some(at) = state.faults.iter().position(|fault| fault.key == key) {
            let fault = &mut state.faults[at];
            fault.count += 1;
            fault.last = now;
            if now < fault.logged + REPEAT_INTERVAL {
                fault.suppressed += 1;
                return None;
            }
            fault.logged = now;
            let suppressed = std::mem::take(&mut fault.suppressed);
            let fault = state.faults.remove(at);
            state.faults.extend(fault);
            return Some(suppressed);
        }
        if state.faults.len() >= LINES {
            let oldest = state.faults.front().filter(|oldest| oldest.logged + REPEAT_INTERVAL <= now);
            let Some(suppressed) = oldest.map(|oldest| oldest.suppressed) else {
                state.others += 1;
                return None;
            };
            state.others += suppressed;
            state.faults.pop_front();
        }
        let description = fault.to_string();
        let fault = Fault { key, description, first: now, last: now, logged: now, count: 1, suppressed: 0 };
        state.faults.push_back(fault);
        Some(0)
    }

    /// Logs the faults that have not been seen for a minute, and once a minute the number of those
    /// without a line. Must be called periodically.
    pub(in crate::server) fn flush(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let is_over = |fault: &Fault| fault.last + REPEAT_INTERVAL <= now;
        let (over, faults): (VecDeque<_>, _) = state.faults.drain(..).partition(is_over);
        state.faults = faults;
        let mut others = 0;
        if state.others > 0 && state.logged_others.is_none_or(|logged| logged + REPEAT_INTERVAL <= now) {
            others = std::mem::take(&mut state.others);
            state.logged_others = Some(now);
        }
        drop(state);
        // A single occurrence has its line already.
        for Fault { description, first, last, count, .. } in over.into_iter().filter(|fault| fault.count > 1) {
            tracing::info!(fault = description, count, elapsed = ?last - first, "fault of a client not seen for a minute");
        }
        if others > 0 {
            tracing::warn!(count = others, "further faults of clients not logged singly");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// Hashes a text without allocating it.
struct Hash(DefaultHasher);

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn repeated_fault_has_a_line_a_minute_with_the_count_of_those_between() {
        let faults = Repeats::default();
        let mut lines = Vec::new();
        for second in 0..150 {
            lines.extend(faults.pass("a").map(|suppressed| (second, suppressed)));
            advance(SECOND).await;
        }
        assert_eq!(lines, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!((faults.pass("b"), faults.pass("b")), (Some(0), None));
    }

    #[tokio::test(start_paused = true)]
    async fn faults_of_any_number_have_20_lines_a_minute() {
        let faults = Repeats::default();
        let mut lines = Vec::new();
        for n in 0..6_000 {
            lines.extend(faults.pass(n).map(|_| n / 100));
            advance(SECOND / 100).await;
        }
        assert_eq!(lines, [0; LINES]);
        assert_eq!(faults.pass("a"), Some(0));
        let state = faults.state();
        assert_eq!((state.faults.len(), state.others), (LINES, 6_000 - LINES as u64));
    }

    #[tokio::test(start_paused = true)]
    async fn number_of_faults_without_a_line_is_said_once_a_minute() {
        let faults = Repeats::default();
        let mut said = 0;
        for n in 0..12_000 {
            faults.pass(n);
            let others = faults.state().others;
            faults.flush();
            said += usize::from(faults.state().others < others);
            advance(SECOND / 100).await;
        }
        assert_eq!(said, 2, "in two minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn fault_that_is_over_is_forgotten() {
        let faults = Repeats::default();
        for _ in 0..3 {
            faults.pass("a");
        }
        advance(59 * SECOND).await;
        faults.flush();
        assert_eq!(faults.state().faults.len(), 1);
        advance(SECOND).await;
        faults.flush();
        assert_eq!(faults.state().faults.len(), 0);
        assert_eq!(faults.pass("a"), Some(0));
    }
}
