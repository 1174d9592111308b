//! Choice between the delta and everything, by the results of earlier runs. No IO.

use std::time::Duration;

use tokio::time::Instant;

/// Maximum time between two runs for which a delta is sufficient. Java keeps a change in its delta
/// for three minutes.
pub(super) const MAX_GAP: Duration = Duration::from_secs(120);
/// Minimum time between two full runs because of a different hash. It doubles up to the second
/// value while full runs do not help.
const HASH_PAUSE: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(3600)];

/// Results of earlier runs that decide about the next one.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Begin of the last run that did not fail.
    last: Option<Instant>,
    /// The last run failed.
    pub(super) has_failed: bool,
    /// Runs in a row with a different apps hash.
    mismatches: u32,
    last_full: Option<Instant>,
    /// Minimum time between two full runs because of a different hash.
    pause: Duration,
    /// Number of changes that the queue of the peer had dropped at the last run.
    dropped: u64,
    /// The last run left differences.
    pub(super) is_incomplete: bool,
}

impl Schedule {
    /// Returns true if the next run has to fetch everything, given the number of dropped changes.
    pub(super) fn needs_full(&self, dropped: u64, now: Instant) -> bool {
        let by_hash = self.mismatches > 1 && self.last_full.is_none_or(|at| now >= at + self.pause);
        self.is_incomplete || dropped != self.dropped || self.last.is_none_or(|last| now > last + MAX_GAP) || by_hash
    }

    /// Records a run that began at this time.
    pub(super) fn record(&mut self, full: bool, same_hash: bool, dropped: u64, began: Instant) {
        if same_hash {
            self.mismatches = 0;
            self.pause = HASH_PAUSE[0];
        } else {
            self.mismatches += 1;
        }
        if full {
            self.last_full = Some(began);
            self.pause = if same_hash { HASH_PAUSE[0] } else { (self.pause * 2).clamp(HASH_PAUSE[0], HASH_PAUSE[1]) };
        }
        (self.last, self.dropped) = (Some(began), dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn full_runs_become_rarer_when_the_hash_stays_different() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert!(schedule.needs_full(0, start), "the first run");
        let mut full_runs = Vec::new();
        for second in (0..3 * 3600).step_by(30) {
            let now = start + second * SECOND;
            let full = schedule.needs_full(0, now);
            if full {
                full_runs.push(second / 60);
            }
            schedule.record(full, false, 0, now);
        }
        assert_eq!(full_runs, [0, 5, 15, 35, 75, 135]);
        schedule.record(false, true, 0, start + 3 * 3600 * SECOND);
        assert_eq!(schedule.pause, HASH_PAUSE[0]);
    }

    #[test]
    fn run_after_a_gap_or_dropped_changes_is_full() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.record(true, true, 0, start);
        assert!(!schedule.needs_full(0, start + MAX_GAP));
        assert!(schedule.needs_full(0, start + MAX_GAP + SECOND));
        assert!(schedule.needs_full(1, start + SECOND), "the queue overflowed");
        schedule.is_incomplete = true;
        assert!(schedule.needs_full(0, start + SECOND));
    }
}
