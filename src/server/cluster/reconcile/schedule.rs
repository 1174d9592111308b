//! Choice between the delta and everything, by the results of earlier runs. No IO.

use std::time::Duration;

use tokio::time::Instant;

use crate::server::replication::LostChanges;

/// Maximum time between two runs for which a delta is sufficient. Java keeps a change in its delta
/// for three minutes.
pub(super) const MAX_GAP: Duration = Duration::from_secs(120);
/// Minimum time between two full runs because of a different hash. It doubles up to the second
/// value while full runs do not help.
const HASH_PAUSE: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(3600)];

/// Minimum time between two full runs because of refused changes. It doubles up to the second value
/// while the peer refuses further ones.
const REFUSAL_PAUSE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];

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
    /// Changes that the peer had not received: dropped ones at the last run, refused ones at the
    /// last full run.
    lost: LostChanges,
    /// Minimum time between two full runs because of refused changes, if there was one.
    refusal_pause: Duration,
    /// The last run left differences.
    pub(super) is_incomplete: bool,
}

impl Schedule {
    /// Returns true if the next run has to fetch everything.
    pub(super) fn needs_full(&self, lost: LostChanges, now: Instant) -> bool {
        let is_due = |pause| self.last_full.is_none_or(|at| now >= at + pause);
        self.is_incomplete
            || self.last.is_none_or(|last| now > last + MAX_GAP)
            || lost.dropped != self.lost.dropped
            || self.has_refused(lost) && is_due(self.refusal_pause.max(REFUSAL_PAUSE[0]))
            || self.mismatches > 1 && is_due(self.pause)
    }

    /// Returns true if the peer refused changes since the last full run.
    pub(super) fn has_refused(&self, lost: LostChanges) -> bool {
        lost.refused != self.lost.refused
    }

    /// Records a run that began at this time.
    pub(super) fn record(&mut self, full: bool, same_hash: bool, lost: LostChanges, began: Instant) {
        if same_hash {
            self.mismatches = 0;
            self.pause = HASH_PAUSE[0];
        } else {
            self.mismatches += 1;
        }
        self.lost.dropped = lost.dropped;
        if !self.has_refused(lost) {
            self.refusal_pause = Duration::ZERO;
        } else if full {
            self.refusal_pause = doubled(self.refusal_pause, REFUSAL_PAUSE);
        }
        if full {
            self.last_full = Some(began);
            self.lost.refused = lost.refused;
            self.pause = if same_hash { HASH_PAUSE[0] } else { doubled(self.pause, HASH_PAUSE) };
        }
        self.last = Some(began);
    }
}

fn doubled(pause: Duration, [min, max]: [Duration; 2]) -> Duration {
    (pause * 2).clamp(min, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NONE: LostChanges = LostChanges { dropped: 0, refused: 0 };

    #[test]
    fn full_runs_become_rarer_when_the_hash_stays_different() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert!(schedule.needs_full(NONE, start), "the first run");
        let mut full_runs = Vec::new();
        for second in (0..3 * 3600).step_by(30) {
            let now = start + second * SECOND;
            let full = schedule.needs_full(NONE, now);
            if full {
                full_runs.push(second / 60);
            }
            schedule.record(full, false, NONE, now);
        }
        assert_eq!(full_runs, [0, 5, 15, 35, 75, 135]);
        schedule.record(false, true, NONE, start + 3 * 3600 * SECOND);
        assert_eq!(schedule.pause, HASH_PAUSE[0]);
    }

    #[test]
    fn run_after_a_gap_or_dropped_changes_is_full() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.record(true, true, NONE, start);
        assert!(!schedule.needs_full(NONE, start + MAX_GAP));
        assert!(schedule.needs_full(NONE, start + MAX_GAP + SECOND));
        assert!(schedule.needs_full(LostChanges { dropped: 1, ..NONE }, start + SECOND), "the queue overflowed");
        schedule.is_incomplete = true;
        assert!(schedule.needs_full(NONE, start + SECOND));
    }

    #[test]
    fn refused_changes_make_full_runs_that_become_rarer() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.record(true, true, NONE, start);
        let full_runs = (30..1200).step_by(30).filter(|&second| {
            // The peer refuses one change every 30 seconds for five minutes.
            let lost = LostChanges { refused: second.min(300) / 30, ..NONE };
            let now = start + u32::try_from(second).unwrap() * SECOND;
            let full = schedule.needs_full(lost, now);
            schedule.record(full, true, lost, now);
            full
        });
        assert_eq!(full_runs.collect::<Vec<_>>(), [60, 120, 240, 480]);
    }
}
