use std::time::Duration;

use tokio::time::Instant;

use crate::time::{Moment, jittered_by};
use crate::transport::Origin;

/// Maximum time between two responses for a delta to continue the copy. It is half of the time for
/// which servers keep changes, since some servers send responses that are up to 30 seconds old.
pub(super) const MAX_GAP: Duration = Duration::from_secs(90);
/// Time between two full fetches that only verify the copy, shorter or longer by up to 50 % so that
/// clients spread.
const VERIFY_INTERVAL: Duration = Duration::from_secs(600);
/// The same interval if one URL leads to several nodes, shorter or longer by up to 20 %.
const NODES_VERIFY_INTERVAL: Duration = Duration::from_secs(150);
/// Two decreases of the counter within this time mean that several nodes respond. The restart of
/// one server decreases it only once.
const NODES_DETECTED_WITHIN: Duration = Duration::from_secs(1200);
/// Time without a decrease of the counter after which the counter is used again.
const NODES_REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// Proof that a delta continues the copy.
///
/// A delta has the changes of the last three minutes, and its hash only counts statuses. After a
/// longer gap, or from another server, the hash may match although changes in between are missing.
///
/// A load balancer in front of several nodes looks like a server that restarts repeatedly, since
/// each node has its own counter of deltas. After the second decrease the counter is ignored. The
/// time and the counts then prove a delta, and the whole registry is fetched more often.
#[derive(Debug)]
pub(super) struct Continuity {
    last: Option<Response>,
    decrease: Option<Decrease>,
    verify_at: Instant,
}

/// Last response that matched the copy.
#[derive(Debug)]
struct Response {
    /// All changes before this time are part of the copy.
    requested: Moment,
    origin: Origin,
    /// Number of the delta. A server counts its deltas from its start.
    version: Option<i64>,
}

/// Last decrease of the counter of deltas.
#[derive(Debug)]
struct Decrease {
    origin: Origin,
    at: Instant,
    /// True if another decrease came shortly before.
    again: bool,
}

impl Continuity {
    pub(super) fn new() -> Self {
        Self { last: None, decrease: None, verify_at: Instant::now() }
    }

    /// Returns `true` while a delta of the same server can continue the copy.
    pub(super) fn is_recent(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.requested.elapsed() <= MAX_GAP)
    }

    /// Returns `true` if a full fetch that verifies the copy is due, and schedules the next one. A
    /// fetch that fails is not repeated.
    pub(super) fn take_due_verification(&mut self) -> bool {
        let is_due = Instant::now() >= self.verify_at;
        if is_due {
            self.verify_at = self.next_verification();
        }
        is_due
    }

    /// Returns `true` if this delta continues the copy. It must have arrived just now, from the
    /// same run of the same server, within the time for which the server keeps changes.
    pub(super) fn is_continued_by(&mut self, origin: &Origin, version: Option<i64>) -> bool {
        let Some(last) = self.last.as_ref().filter(|last| last.origin == *origin) else { return false };
        let increases = last.version <= version;
        if !increases && version.is_some() {
            self.decreased(origin);
        }
        self.is_recent() && (increases || version.is_some() && self.has_several_nodes(origin))
    }

    fn decreased(&mut self, origin: &Origin) {
        let (now, known) = (Instant::now(), self.has_several_nodes(origin));
        let last = self.decrease.as_ref().filter(|last| last.origin == *origin);
        let again = known || last.is_some_and(|last| now.duration_since(last.at) <= NODES_DETECTED_WITHIN);
        self.decrease = Some(Decrease { origin: origin.clone(), at: now, again });
        if again && !known {
            self.verify_at = self.verify_at.min(self.next_verification());
            tracing::info!("several registry servers respond behind one URL, comparing deltas by counts");
        }
    }

    fn has_several_nodes(&self, origin: &Origin) -> bool {
        let last = self.decrease.as_ref().filter(|last| last.again && last.origin == *origin);
        last.is_some_and(|last| last.at.elapsed() <= NODES_REMEMBERED_FOR)
    }

    /// Returns the time of the next full fetch that only verifies the copy.
    fn next_verification(&self) -> Instant {
        let several = self.last.as_ref().is_some_and(|last| self.has_several_nodes(&last.origin));
        Instant::now()
            + if several { jittered_by(NODES_VERIFY_INTERVAL, 0.2) } else { jittered_by(VERIFY_INTERVAL, 0.5) }
    }

    /// Records a delta that matches the copy.
    pub(super) fn continued(&mut self, origin: Origin, version: Option<i64>, requested: Moment) {
        self.last = Some(Response { requested, origin, version });
    }

    /// Records a full response that replaced the copy.
    pub(super) fn renewed(&mut self, origin: Origin, requested: Moment) {
        self.last = Some(Response { requested, origin, version: None });
        self.verify_at = self.next_verification();
    }

    /// Records that changes were missed.
    pub(super) fn lost(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::time::move_wall_clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the state after a full response of server 0.
    fn continuity() -> Continuity {
        let mut continuity = Continuity::new();
        continuity.renewed(Origin::of(0), Moment::now());
        continuity
    }

    #[tokio::test(start_paused = true)]
    async fn gap_by_either_clock_ends_the_continuity() {
        let mut continuity = continuity();
        advance(MAX_GAP).await;
        assert!(continuity.is_recent() && continuity.is_continued_by(&Origin::of(0), Some(1)));
        advance(SECOND).await;
        assert!(!continuity.is_recent() && !continuity.is_continued_by(&Origin::of(0), Some(1)));

        // Suspension of the machine: tokio's clock stops.
        let continuity = self::continuity();
        move_wall_clock(80_000);
        assert!(continuity.is_recent());
        move_wall_clock(3_600_000);
        assert!(!continuity.is_recent());

        // Wall clock that was set back.
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
    async fn counter_that_decreases_twice_is_ignored_until_it_rises_for_an_hour() {
        for (apart, several) in [(60, true), (6 * 3600, false)] {
            let mut continuity = continuity();
            continuity.continued(Origin::of(0), Some(7), Moment::now());
            assert!(!continuity.is_continued_by(&Origin::of(0), Some(1)));
            advance(apart * SECOND).await;
            continuity.continued(Origin::of(0), Some(7), Moment::now());
            assert_eq!(continuity.is_continued_by(&Origin::of(0), Some(1)), several, "{apart} s apart");
            assert!(
                !continuity.is_continued_by(&Origin::of(1), Some(9))
                    && !continuity.is_continued_by(&Origin::of(0), None)
            );
            advance(NODES_REMEMBERED_FOR + SECOND).await;
            continuity.continued(Origin::of(0), Some(7), Moment::now());
            assert!(!continuity.is_continued_by(&Origin::of(0), Some(1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn verification_is_due_once_per_five_to_fifteen_minutes() {
        let mut continuity = continuity();
        let mut due = Vec::new();
        for minute in 0..600 {
            if continuity.take_due_verification() {
                due.push(minute);
            }
            advance(60 * SECOND).await;
        }
        assert!(due.windows(2).all(|pair| (5..=16).contains(&(pair[1] - pair[0]))), "{due:?}");
        assert!((40..=110).contains(&due.len()), "{due:?}");
    }
}
