//! Limits on the info lines about changes within a second. Changes beyond them are debug lines,
//! with one info line that has their number.
//!
//! Each sender has a budget of its own, so that one that changes its metadata all the time does not
//! hide the changes of others. Changes of instances that another sender registered have a further
//! budget, which other changes cannot use up.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Mutex, MutexGuard};

const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of lines of one sender within an interval.
const SENDER_LINES: u64 = 100;
/// Maximum number of lines of all senders together.
const LINES: u64 = 1_000;
/// Further lines for changes of instances that another sender registered.
const OTHER_LINES: u64 = 200;

/// Sender that lines are counted for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Budget {
    /// Key of an identity.
    Identity(Arc<str>),
    Network(IpAddr),
    /// This process, or a sender whose address is unknown.
    Other,
}

/// Lines of the present interval.
#[derive(Debug, Default)]
pub(super) struct Bursts(Mutex<Burst>);

#[derive(Debug, Default)]
struct Burst {
    since: Option<Instant>,
    /// Number of lines by sender. The limit of all lines is that of their number, too.
    senders: HashMap<Budget, u64>,
    lines: u64,
    other_lines: u64,
    quiet: u64,
}

impl Burst {
    fn passes(&mut self, sender: Budget, is_other: bool) -> bool {
        if self.lines < LINES {
            let lines = self.senders.entry(sender).or_default();
            if *lines < SENDER_LINES {
                *lines += 1;
                self.lines += 1;
                return true;
            }
        }
        let passes = is_other && self.other_lines < OTHER_LINES;
        if passes {
            self.other_lines += 1;
        } else {
            self.quiet += 1;
        }
        passes
    }
}

impl Bursts {
    /// Returns true if a change gets an info line, and the number of changes without one in earlier
    /// intervals.
    pub(super) fn pass(&self, sender: Budget, is_other: bool) -> (bool, u64) {
        let (mut burst, count) = self.current();
        (burst.passes(sender, is_other), count)
    }

    /// Returns the number of changes without an info line in earlier intervals.
    pub(super) fn flush(&self) -> u64 {
        self.current().1
    }

    fn current(&self) -> (MutexGuard<'_, Burst>, u64) {
        let mut burst = self.0.lock();
        let now = Instant::now();
        if burst.since.is_some_and(|since| now < since + INTERVAL) {
            return (burst, 0);
        }
        let Burst { quiet, .. } = std::mem::replace(&mut *burst, Burst { since: Some(now), ..Burst::default() });
        (burst, quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sender_of_many_changes_hides_neither_others_nor_changes_of_their_instances() {
        let bursts = Bursts::default();
        let identity = |name: &str| Budget::Identity(name.into());
        let lines = |name: &str, is_other, times: u64| {
            (0..times).filter(|_| bursts.pass(identity(name), is_other).0).count() as u64
        };
        assert_eq!(lines("user:a", false, 500), SENDER_LINES);
        assert_eq!(lines("user:b", false, 5), 5);
        assert_eq!(lines("user:a", true, 500), OTHER_LINES);
        assert_eq!(lines("user:b", true, 5), 5, "its own budget");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(bursts.flush(), 400 + 300);
        assert_eq!(lines("user:a", false, 1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_senders_have_a_limit_together() {
        let bursts = Bursts::default();
        let of = |n: u8, is_other| bursts.pass(Budget::Network([10, 0, 0, n].into()), is_other).0;
        let lines = (0..20).flat_map(|n| std::iter::repeat_n(n, 100)).filter(|&n| of(n, false)).count();
        assert_eq!(lines as u64, LINES);
        assert!(!of(30, false) && of(30, true));
        assert!(bursts.0.lock().senders.len() as u64 <= LINES);
    }
}
