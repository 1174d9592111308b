use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;
use crate::timer::spread;
use crate::transport::Origin;

/// Longest time between two responses over which a delta is taken to continue the copy: half of the
/// time for which servers keep changes, since some of them serve responses that are up to 30
/// seconds old.
pub(super) const MAX_GAP: Duration = Duration::from_secs(90);
/// Time between two full fetches that only verify the copy, up to half of it shorter or longer so
/// that clients spread.
const INSURANCE: Duration = Duration::from_secs(600);

/// Proof that a delta continues the copy.
///
/// A delta holds the changes of the last three minutes, and its hash only counts statuses. After a
/// longer gap, or from another server, it may agree with the copy and still lack what happened in
/// between.
#[derive(Debug)]
pub(super) struct Continuity {
    last: Option<Response>,
    insured_until: Instant,
}

/// The last response that the copy agreed with.
#[derive(Debug)]
struct Response {
    /// Everything that happened before this is part of the copy.
    requested: Moment,
    origin: Origin,
    /// Number of the delta, which a server counts from its start.
    version: Option<i64>,
}

impl Continuity {
    pub(super) fn new() -> Self {
        Self { last: None, insured_until: Instant::now() }
    }

    /// Returns true while a delta of the same server can continue the copy.
    pub(super) fn is_recent(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.requested.elapsed() <= MAX_GAP)
    }

    /// Returns true if a full fetch is due although nothing speaks against the copy. It is due
    /// once, also if it fails.
    pub(super) fn takes_insurance(&mut self) -> bool {
        let is_due = Instant::now() >= self.insured_until;
        if is_due {
            self.insured_until = Instant::now() + spread(INSURANCE, 0.5);
        }
        is_due
    }

    /// Returns true if this delta, which arrived now, continues the copy: if it comes from the same
    /// run of the same server, within the time for which that keeps changes.
    pub(super) fn is_continued_by(&self, origin: &Origin, version: Option<i64>) -> bool {
        self.is_recent() && self.last.as_ref().is_some_and(|last| last.origin == *origin && last.version <= version)
    }

    /// The copy agrees with a delta.
    pub(super) fn continued(&mut self, origin: Origin, version: Option<i64>, requested: Moment) {
        self.last = Some(Response { requested, origin, version });
    }

    /// The copy is the whole list that this server sent.
    pub(super) fn renewed(&mut self, origin: Origin, requested: Moment) {
        self.last = Some(Response { requested, origin, version: None });
        self.insured_until = Instant::now() + spread(INSURANCE, 0.5);
    }

    /// Something was missed.
    pub(super) fn lost(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::clock::move_wall_clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// After a full response of server 0.
    fn continuity() -> Continuity {
        let mut continuity = Continuity::new();
        continuity.renewed(Origin::of(0), Moment::now());
        continuity
    }

    #[tokio::test(start_paused = true)]
    async fn gap_by_either_clock_ends_the_continuity() {
        let continuity = continuity();
        advance(MAX_GAP).await;
        assert!(continuity.is_recent() && continuity.is_continued_by(&Origin::of(0), Some(1)));
        advance(SECOND).await;
        assert!(!continuity.is_recent() && !continuity.is_continued_by(&Origin::of(0), Some(1)));

        // A machine that was suspended: tokio's clock stood still.
        let continuity = self::continuity();
        move_wall_clock(80_000);
        assert!(continuity.is_recent());
        move_wall_clock(3_600_000);
        assert!(!continuity.is_recent());

        // A clock that was set back.
        let continuity = self::continuity();
        move_wall_clock(-3_600_000);
        assert!(continuity.is_recent());
        advance(MAX_GAP + SECOND).await;
        assert!(!continuity.is_recent());
    }

    #[tokio::test(start_paused = true)]
    async fn gap_counts_from_the_request_of_the_last_good_response() {
        let mut continuity = continuity();
        let requested = Moment::now();
        advance(60 * SECOND).await;
        continuity.continued(Origin::of(0), Some(1), requested);
        advance(31 * SECOND).await;
        assert!(!continuity.is_recent());
    }

    #[tokio::test(start_paused = true)]
    async fn other_server_or_run_does_not_continue_the_copy() {
        let mut continuity = continuity();
        assert!(!continuity.is_continued_by(&Origin::of(1), Some(1)));
        continuity.continued(Origin::of(0), Some(7), Moment::now());
        for (version, expected) in [(Some(7), true), (Some(8), true), (Some(6), false), (None, false)] {
            assert_eq!(continuity.is_continued_by(&Origin::of(0), version), expected, "{version:?}");
        }
        continuity.lost();
        assert!(!continuity.is_recent() && !continuity.is_continued_by(&Origin::of(0), Some(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn insurance_is_due_once_per_five_to_fifteen_minutes() {
        let mut continuity = continuity();
        let mut due = Vec::new();
        for minute in 0..600 {
            if continuity.takes_insurance() {
                due.push(minute);
            }
            advance(60 * SECOND).await;
        }
        assert!(due.windows(2).all(|pair| (5..=16).contains(&(pair[1] - pair[0]))), "{due:?}");
        assert!((40..=110).contains(&due.len()), "{due:?}");
    }
}
