//! Refused deltas, and the full lists that are fetched in their place.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Kind;
use crate::time::{jittered, random_part};
use crate::transport;

/// Time for which deltas are refused before a full list is fetched. It is as long as servers keep
/// changes. A server that refuses deltas forever sends a full list once per such time.
const REFUSED_PERIOD: Duration = Duration::from_secs(180);
/// The same time if the status means that the server is overloaded.
const OVERLOAD_PERIOD: Duration = Duration::from_secs(600);
/// Number of rejections in a row after which a server counts as one without deltas.
const REJECTIONS: u32 = 2;
/// Time after which a delta is requested again from such a server.
const REJECTED_PERIOD: Duration = Duration::from_secs(600);

/// Refused deltas in a row. A delta that is received ends the row.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Time of the first refusal, or of the full list that was fetched later.
    since: Option<Instant>,
    /// Random time by which this client waits longer, since all clients may be refused at once.
    spread: Duration,
    /// Set if the latest delta was refused: the time until a full list is fetched.
    period: Option<Duration>,
    /// Time before which a full list that failed is not repeated.
    retry_at: Option<Instant>,
    /// Number of statuses in a row that reject the request itself.
    rejections: u32,
    /// End of the time without deltas after several rejections.
    off_until: Option<Instant>,
}

impl Refusals {
    /// Records that a delta was received, or that the server offers none.
    pub(super) fn ended(&mut self) {
        *self = Self::default();
    }

    /// Records the error of a delta. Returns `true` if the server rejects deltas repeatedly, so
    /// that it offers none.
    pub(super) fn failed(&mut self, error: Kind) -> bool {
        if matches!(error, Kind::Connect | Kind::Call | Kind::Paused(_)) {
            // Without a response, a refusal neither begins nor ends.
            return false;
        }
        self.period = period(error);
        let Some(period) = self.period else {
            self.since = None;
            return false;
        };
        if self.since.is_none() {
            (self.since, self.spread) = (Some(Instant::now()), random_part(period / 4));
        }
        if !is_rejection(error) {
            return false;
        }
        self.rejections += 1;
        self.rejections >= REJECTIONS
    }

    /// Requests no delta for some minutes, since the server rejects them and sends full lists.
    pub(super) fn turn_deltas_off(&mut self) {
        if self.off_until.is_none() {
            tracing::info!("registry server rejects deltas, fetching full lists instead");
        }
        self.pause_deltas();
    }

    /// Requests no delta for some minutes.
    pub(super) fn pause_deltas(&mut self) {
        (self.off_until, self.period) = (Some(Instant::now() + jittered(REJECTED_PERIOD)), None);
    }

    /// Returns `true` if no delta should be requested.
    pub(super) fn are_deltas_off(&self) -> bool {
        self.off_until.is_some_and(|until| Instant::now() < until)
    }

    /// Returns `true` if the latest delta was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.period.is_some()
    }

    /// Returns `true` if deltas have been refused for so long that a full list is due.
    pub(super) fn is_full_due(&self) -> bool {
        let Some((since, period)) = self.since.zip(self.period) else { return false };
        let now = Instant::now();
        now >= since + period + self.spread && self.retry_at.is_none_or(|at| now >= at)
    }

    /// Records the error of a full list. An overloaded server is spared as if it had sent the list.
    /// Otherwise the list is requested again after one or two intervals, so that clients spread.
    pub(super) fn full_failed(&mut self, error: Kind, interval: Duration) {
        if is_overload(error) {
            return self.full_fetched();
        }
        self.retry_at = Some(Instant::now() + interval + random_part(interval));
    }

    /// Records that a full list was received.
    pub(super) fn full_fetched(&mut self) {
        (self.period, self.retry_at) = (None, None);
        if let Some(since) = &mut self.since {
            *since = Instant::now();
        }
    }
}

/// Returns the time for which deltas are refused before a full list is fetched. `None` if the error
/// is no refusal.
fn period(error: Kind) -> Option<Duration> {
    match error {
        _ if is_overload(error) => Some(OVERLOAD_PERIOD),
        Kind::Status(_) => Some(REFUSED_PERIOD),
        _ => None,
    }
}

/// Returns `true` if the error is a sign of overload.
pub(super) fn is_overload(error: Kind) -> bool {
    match error {
        Kind::Status(status) => transport::is_overload(status) || matches!(status, 502 | 504),
        kind => kind == Kind::Timeout,
    }
}

/// Returns `true` if the status rejects the request itself. Statuses of overload do not.
fn is_rejection(error: Kind) -> bool {
    matches!(error, Kind::Status(400..=499)) && !matches!(error, Kind::Status(408 | 420 | 429))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn full_list_is_due_a_period_after_the_first_refusal_and_after_each_full_list() {
        let mut refusals = Refusals::default();
        for row in 0..2 {
            refusals.failed(Kind::Status(503));
            assert!(!refusals.is_full_due(), "{row}");
            advance(OVERLOAD_PERIOD - Duration::from_secs(1)).await;
            refusals.failed(Kind::Status(503));
            assert!(!refusals.is_full_due(), "{row}");
            advance(OVERLOAD_PERIOD / 4 + Duration::from_secs(1)).await;
            refusals.failed(Kind::Status(503));
            assert!(refusals.is_full_due(), "{row}");
            refusals.full_fetched();
        }
        advance(OVERLOAD_PERIOD * 2).await;
        refusals.ended();
        refusals.failed(Kind::Status(503));
        assert!(!refusals.is_full_due());
    }

    #[tokio::test(start_paused = true)]
    async fn error_without_a_response_does_not_end_a_refusal() {
        for error in [Kind::Connect, Kind::Call, Kind::Paused(503)] {
            let mut refusals = Refusals::default();
            refusals.failed(error);
            assert!(!refusals.is_refused(), "{error:?}");
            refusals.failed(Kind::Status(503));
            advance(OVERLOAD_PERIOD / 2).await;
            refusals.failed(error);
            assert!(refusals.is_refused() && !refusals.is_full_due(), "{error:?}");
            refusals.failed(Kind::Status(503));
            advance(OVERLOAD_PERIOD * 3 / 4).await;
            assert!(refusals.is_full_due(), "{error:?}: it counts from the first refusal");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_list_that_failed_is_due_again_after_one_or_two_intervals() {
        let (mut refusals, interval) = (Refusals::default(), Duration::from_secs(30));
        refusals.failed(Kind::Status(500));
        advance(REFUSED_PERIOD * 5 / 4).await;
        assert!(refusals.is_full_due());
        refusals.full_failed(Kind::Status(500), interval);
        refusals.failed(Kind::Status(500));
        advance(interval - Duration::from_secs(1)).await;
        assert!(!refusals.is_full_due());
        advance(interval + Duration::from_secs(1)).await;
        assert!(refusals.is_full_due());
        for error in [Kind::Status(503), Kind::Timeout] {
            refusals.full_failed(error, interval);
            refusals.failed(Kind::Status(500));
            advance(REFUSED_PERIOD - Duration::from_secs(1)).await;
            assert!(!refusals.is_full_due(), "{error:?}");
            advance(REFUSED_PERIOD / 2).await;
            assert!(refusals.is_full_due(), "{error:?}");
        }
    }

    #[test]
    fn statuses_of_overload_are_no_rejections() {
        for status in [408, 420, 429, 500, 503] {
            let mut refusals = Refusals::default();
            assert!((0..5).all(|_| !refusals.failed(Kind::Status(status))), "{status}");
        }
        let mut refusals = Refusals::default();
        assert_eq!([401, 400, 406].map(|status| refusals.failed(Kind::Status(status))), [false, true, true]);
    }
}
