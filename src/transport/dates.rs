//! Clock of a server, as the `Date` of its responses shows it.

use std::time::Duration;

use http::{HeaderMap, header};

use super::stack::date_ms;
use super::turns::SESSION;
use crate::sync::{Mutex, MutexGuard};
use crate::time::{Moment, wall_clock_ms};

/// A response that took longer than this says too little about the time at its server.
const PROMPT: Duration = Duration::from_secs(2);
/// Precision of a `Date`: a whole second, which some servers show for up to a second more.
const PRECISION_MS: i64 = 2_000;

/// Difference between the clock of a server and that of this machine.
#[derive(Debug, Default)]
pub(crate) struct ServerClock(Mutex<Option<Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Least difference that a response of this session proves, in milliseconds. Dates are rounded
    /// down, so the greatest of several is the best.
    ahead_ms: i64,
    since: Moment,
}

impl ServerClock {
    /// Milliseconds by which the clock of the server is ahead of the clock of this machine, negative
    /// if it is behind. `None` as long as no response told the time.
    pub(crate) fn ahead_ms(&self) -> Option<i64> {
        self.lock().map(|reading| reading.ahead_ms)
    }

    /// Reads the head of a response to a request that was sent at this time.
    pub(super) fn note(&self, headers: &HeaderMap, requested: &Moment) {
        // A cache shows the time at which it was filled.
        if requested.elapsed() > PROMPT || headers.contains_key(header::AGE) {
            return;
        }
        let Some(date_ms) = headers.get(header::DATE).and_then(|date| date_ms(date.to_str().ok()?)) else { return };
        self.add(date_ms, requested.wall_ms(), wall_clock_ms());
    }

    /// Adds a response with this date that was requested and received at these times.
    fn add(&self, date_ms: i64, requested_ms: i64, received_ms: i64) {
        let least = date_ms.saturating_sub(received_ms);
        let most = date_ms.saturating_add(PRECISION_MS).saturating_sub(requested_ms);
        let mut current = self.lock();
        let contradicts = |reading: &Reading| {
            least > reading.ahead_ms || most < reading.ahead_ms || reading.since.elapsed() > SESSION
        };
        if current.as_ref().is_none_or(contradicts) {
            *current = Some(Reading { ahead_ms: least, since: Moment::now() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Reading>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn several_dates_of_one_clock_narrow_the_difference() {
        for ahead in [0, HOUR, -HOUR, 7_300] {
            let clock = ServerClock::default();
            assert_eq!(clock.ahead_ms(), None);
            for n in 0..20 {
                let sent = 1_000_000_000_000 + n * 1_530;
                let date = (sent + 5 + ahead).div_euclid(1_000) * 1_000;
                clock.add(date, sent, sent + 10);
                let error = clock.ahead_ms().unwrap() - ahead;
                assert!((-1_010..=0).contains(&error), "{error} after {n}");
            }
            let error = clock.ahead_ms().unwrap() - ahead;
            assert!((-80..=0).contains(&error), "{error}");
        }
    }

    #[test]
    fn clock_that_is_set_is_noticed_in_both_directions() {
        let clock = ServerClock::default();
        for ahead in [0, HOUR, 0, -HOUR, 0, 9_000] {
            let sent = 1_000_000_000_500;
            clock.add((sent + ahead) / 1_000 * 1_000, sent, sent + 10);
            assert!((clock.ahead_ms().unwrap() - ahead).abs() <= 1_010, "{ahead}");
        }
    }

    #[test]
    fn response_from_a_cache_or_without_a_date_says_nothing() {
        let clock = ServerClock::default();
        let mut headers = HeaderMap::new();
        clock.note(&headers, &Moment::now());
        headers.insert(header::DATE, HeaderValue::from_static("no date"));
        clock.note(&headers, &Moment::now());
        headers.insert(header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        clock.note(&headers, &Moment::now());
        assert_eq!(clock.ahead_ms(), None);
        headers.remove(header::AGE);
        clock.note(&headers, &Moment::now());
        assert!(clock.ahead_ms().unwrap() < -HOUR);
    }
}
