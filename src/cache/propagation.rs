use std::time::Duration;

use crate::time::wall_clock_ms;
use crate::transport::{Origin, ResponseDate, ServerClock};

/// Measures the time that changes take from the registry server to this client: from
/// `lastUpdatedTimestamp`, which the server sets at a registration, cancellation or change of the
/// status, until now.
///
/// The server's clock may differ from the local one. The difference is taken from the `Date`
/// headers of its responses.
#[derive(Debug, Default)]
pub(super) struct Propagation {
    server: Option<Server>,
}

/// Server of the latest list.
#[derive(Debug)]
struct Server {
    origin: Origin,
    clock: ServerClock,
    /// Greatest timestamp of its lists so far. Each list repeats earlier changes.
    newest_ms: i64,
}

impl Propagation {
    /// Returns the age of each change in this list that was in no earlier list of the server.
    ///
    /// The result is empty for the first list of a server, since nothing tells which of its changes
    /// are new.
    pub(super) fn observe(
        &mut self,
        origin: &Origin,
        date: Option<ResponseDate>,
        updated_ms: impl Iterator<Item = i64>,
    ) -> Vec<Duration> {
        let is_known = self.server.as_ref().is_some_and(|server| server.origin == *origin);
        if !is_known {
            self.server = None;
        }
        let server = self.server.get_or_insert_with(|| Server {
            origin: origin.clone(),
            clock: ServerClock::default(),
            newest_ms: i64::MIN,
        });
        if let Some(date) = date {
            server.clock.add(date);
        }
        let now_ms = wall_clock_ms().saturating_add(server.clock.ahead_ms().unwrap_or(0));
        let before = server.newest_ms;
        let mut lags = Vec::new();
        for updated_ms in updated_ms {
            server.newest_ms = server.newest_ms.max(updated_ms);
            if is_known && updated_ms > before {
                let lag = u64::try_from(now_ms.saturating_sub(updated_ms)).unwrap_or(0);
                lags.push(Duration::from_millis(lag));
            }
        }
        lags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    /// Observes changes of these ages, by the clock of a server that is ahead by `ahead_ms`.
    fn observe(propagation: &mut Propagation, server: usize, ahead_ms: i64, ages: &[i64]) -> Vec<Duration> {
        let now = wall_clock_ms();
        let date_ms = (now + ahead_ms).div_euclid(1_000) * 1_000;
        let date = ResponseDate { date_ms, requested_ms: now - 5, received_ms: now };
        let updated: Vec<i64> = ages.iter().map(|age| now + ahead_ms - age).collect();
        propagation.observe(&Origin::of(server), Some(date), updated.into_iter())
    }

    #[test]
    fn new_changes_are_measured_by_the_clock_of_the_server() {
        for ahead_ms in [0, HOUR, -HOUR] {
            let mut propagation = Propagation::default();
            assert!(observe(&mut propagation, 0, ahead_ms, &[90_000, 60_000]).is_empty());
            let lags = observe(&mut propagation, 0, ahead_ms, &[90_100, 20_000, 10_000]);
            let [older, newer] = lags[..] else { panic!("{lags:?} with a clock ahead by {ahead_ms}") };
            for (lag, expected) in [(older, 20), (newer, 10)] {
                let error = lag.as_secs_f64() - f64::from(expected);
                assert!((-1.2..=0.2).contains(&error), "{lag:?} with a clock ahead by {ahead_ms}");
            }
            assert!(observe(&mut propagation, 0, ahead_ms, &[20_000, 10_100]).is_empty(), "repeated changes");
        }
    }

    #[test]
    fn first_list_of_another_server_measures_nothing() {
        let mut propagation = Propagation::default();
        observe(&mut propagation, 0, 0, &[60_000]);
        assert!(observe(&mut propagation, 1, 0, &[1_000]).is_empty());
        assert!(observe(&mut propagation, 0, 0, &[500]).is_empty());
        assert_eq!(observe(&mut propagation, 0, 0, &[0]).len(), 1);
    }

    #[test]
    fn change_in_the_future_of_a_server_without_dates_counts_as_zero() {
        let mut propagation = Propagation::default();
        let origin = Origin::of(0);
        propagation.observe(&origin, None, [1].into_iter());
        let lags = propagation.observe(&origin, None, [wall_clock_ms() + HOUR].into_iter());
        assert!(matches!(lags[..], [Duration::ZERO]), "{lags:?}");
    }
}
