//! Clock of a server, measured by the `Date` headers of its responses.
//!
//! Peers of a registry server compare timestamps by it, and consumers measure with it the time that
//! a change takes to reach them.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::session::CONNECTION_AGE;
use crate::retry_after::date_of;
use crate::sync::{Mutex, MutexGuard};
use crate::time::{Moment, wall_clock_ms};

/// Maximum duration of a request whose response is measured. The error of a slower one is too
/// large.
const MAX_DURATION: Duration = Duration::from_secs(2);
/// Maximum age of a `Date`: it is rounded down to a second, and some servers update it a second
/// late.
const MAX_DATE_AGE_MS: i64 = 2_000;

/// Date of a response by the server's clock, with the times of the request and of the response head
/// by the local clock. All are milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseDate {
    pub(crate) date_ms: i64,
    pub(crate) requested_ms: i64,
    pub(crate) received_ms: i64,
}

impl ResponseDate {
    /// Returns the date of a response whose head has just arrived. `None` if it cannot be used as a
    /// measurement.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, requested: &Moment) -> Option<Self> {
        // An error may be the response of a proxy, which has its own clock. A registry of this
        // crate dates only the others by the clock of its published times.
        if status.is_client_error() || status.is_server_error() {
            return None;
        }
        // A cache sends the date at which it was filled.
        if requested.elapsed() > MAX_DURATION || headers.contains_key(header::AGE) {
            return None;
        }
        let date_ms = date_of(headers, header::DATE)?;
        Some(Self { date_ms, requested_ms: requested.wall_ms(), received_ms: wall_clock_ms() })
    }
}

/// Difference between the clock of a server and that of this machine.
#[derive(Debug, Default)]
pub(crate) struct ServerClock(Mutex<Option<Estimate>>);

#[derive(Clone, Copy, Debug)]
struct Estimate {
    /// Lower bound of the difference that the responses of this session prove, in milliseconds.
    /// Dates are rounded down, so the greatest bound of several responses is the best.
    ahead_ms: i64,
    since: Moment,
}

impl ServerClock {
    /// Returns the milliseconds by which the server's clock is ahead of the local clock, negative
    /// if it is behind. `None` before the first response with a date.
    pub(crate) fn ahead_ms(&self) -> Option<i64> {
        self.lock().map(|estimate| estimate.ahead_ms)
    }

    /// Adds the date of a response.
    pub(crate) fn add(&self, date: ResponseDate) {
        let ResponseDate { date_ms, requested_ms, received_ms } = date;
        let least = date_ms.saturating_sub(received_ms);
        let most = date_ms.saturating_add(MAX_DATE_AGE_MS).saturating_sub(requested_ms);
        let mut current = self.lock();
        let contradicts = |estimate: &Estimate| {
            least > estimate.ahead_ms || most < estimate.ahead_ms || estimate.since.elapsed() > CONNECTION_AGE
        };
        if current.as_ref().is_none_or(contradicts) {
            *current = Some(Estimate { ahead_ms: least, since: Moment::now() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Estimate>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn several_dates_of_one_clock_narrow_the_estimate() {
        for ahead in [0, HOUR, -HOUR, 7_300] {
            let clock = ServerClock::default();
            assert_eq!(clock.ahead_ms(), None);
            for n in 0..20 {
                let sent = 1_000_000_000_000 + n * 1_530;
                let date = (sent + 5 + ahead).div_euclid(1_000) * 1_000;
                clock.add(ResponseDate { date_ms: date, requested_ms: sent, received_ms: sent + 10 });
                let error = clock.ahead_ms().unwrap() - ahead;
                assert!((-1_010..=0).contains(&error), "{error} after {n}");
            }
            let error = clock.ahead_ms().unwrap() - ahead;
            assert!((-80..=0).contains(&error), "{error}");
        }
    }

    #[test]
    fn clock_that_is_set_forward_or_back_is_measured_anew() {
        let clock = ServerClock::default();
        for ahead in [0, HOUR, 0, -HOUR, 0, 9_000] {
            let sent = 1_000_000_000_500;
            let date_ms = (sent + ahead) / 1_000 * 1_000;
            clock.add(ResponseDate { date_ms, requested_ms: sent, received_ms: sent + 10 });
            assert!((clock.ahead_ms().unwrap() - ahead).abs() <= 1_010, "{ahead}");
        }
    }

    #[test]
    fn response_from_a_cache_without_a_date_or_with_an_error_is_ignored() {
        let of = |status, headers: &HeaderMap| ResponseDate::of(status, headers, &Moment::now());
        let mut headers = HeaderMap::new();
        assert!(of(StatusCode::OK, &headers).is_none());
        headers.insert(header::DATE, HeaderValue::from_static("no date"));
        assert!(of(StatusCode::OK, &headers).is_none());
        headers.insert(header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        headers.insert(header::AGE, HeaderValue::from_static("0"));
        assert!(of(StatusCode::OK, &headers).is_none());
        headers.remove(header::AGE);
        assert!(of(StatusCode::NOT_FOUND, &headers).is_none());
        assert!(of(StatusCode::SERVICE_UNAVAILABLE, &headers).is_none());
        let clock = ServerClock::default();
        clock.add(of(StatusCode::OK, &headers).unwrap());
        assert!(clock.ahead_ms().unwrap() < -HOUR);
    }
}
