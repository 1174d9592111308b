//! Dates of HTTP, and the header `Date` of responses by which peers measure the clock of this node.
//!
//! hyper adds a `Date` to responses without one, but after the wall clock was set back it repeats
//! the last value until the clock reaches it again. Peers convert the times of this node by this
//! header, so it has the time by which this node publishes.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::DATE;

use crate::server::http::state::ServerState;

thread_local! {
    /// Latest header of this thread, with its second since the epoch.
    static LATEST: RefCell<Option<(i64, HeaderValue)>> = const { RefCell::new(None) };
}

/// Returns a date such as `Thu, 26 Nov 2026 15:57:41 GMT`. Earlier times are shown as the beginning
/// of 1970.
pub(in crate::server) fn http_date(epoch_ms: i64) -> String {
    let since_epoch = Duration::from_millis(epoch_ms.try_into().unwrap_or(0));
    // The format ends with the year 9999.
    let latest = Duration::from_secs(253_402_300_799);
    httpdate::fmt_http_date(UNIX_EPOCH + since_epoch.min(latest))
}

/// Adds the published time to a response.
pub(super) fn dated(server: &ServerState, mut response: Response) -> Response {
    response.headers_mut().insert(DATE, header(server.node().date_ms()));
    response
}

fn header(epoch_ms: i64) -> HeaderValue {
    let second = epoch_ms / 1000;
    let formatted =
        || HeaderValue::from_maybe_shared(Bytes::from(http_date(epoch_ms))).expect("a date is visible ASCII");
    LATEST.with_borrow_mut(|latest| match latest {
        Some((of, header)) if *of == second => header.clone(),
        _ => latest.insert((second, formatted())).1.clone(),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::model::Instance;
    use crate::server::EurekaServer;
    use crate::server::outcome::Origin;
    use crate::time::{move_wall_clock, wall_clock_ms};

    #[test]
    fn date_of_any_time_is_formatted() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(http_date(i64::MIN), http_date(0));
    }

    #[test]
    fn date_is_formatted_anew_for_each_second_and_ends_with_the_year_9999() {
        for (epoch_ms, expected) in [
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778_000, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (784_108_177_000, "Sun, 06 Nov 1994 07:49:37 GMT"),
            (i64::MIN, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(header(epoch_ms), expected, "{epoch_ms}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn date_of_responses_to_peers_is_the_published_time_after_the_clock_was_set_back() {
        const HOUR: i64 = 3_600_000;
        let server = EurekaServer::builder().build().unwrap();
        let mut moved = 0;
        // A difference below a minute is not followed.
        for (by, published) in [(0, 0), (HOUR, HOUR), (-HOUR, 0), (55_000, 0), (-55_000, 0), (-HOUR, -HOUR)] {
            move_wall_clock(by);
            moved += by;
            let second = || (wall_clock_ms() - moved + published).div_euclid(1_000);
            let instance = Instance::builder("a").id("i").host_name("h").ip_addr("10.0.0.1").port(80).build().unwrap();
            server.state.node().register(instance, &Origin::Client.into()).unwrap();
            for line in [
                "GET /eureka/apps",
                "GET /eureka/apps",
                "GET /eureka/apps/",
                "GET /eureka/apps/delta",
                "GET /eureka/apps/A",
                "GET /eureka/apps/A/i",
                "GET /eureka/instances/i",
                "POST /eureka/peerreplication/batch",
            ] {
                let (method, target) = line.split_once(' ').unwrap();
                let body = Body::from(r#"{"replicationList":[]}"#);
                let request = Request::builder().method(method).uri(target).header("content-type", "application/json");
                let before = second();
                let response = server.service("/eureka").oneshot(request.body(body).unwrap()).await.unwrap();
                assert!(response.status().is_success(), "{line}: {}", response.status());
                let date = response.headers().get(DATE).unwrap_or_else(|| panic!("{line} has no date"));
                let date = httpdate::parse_http_date(date.to_str().unwrap()).unwrap();
                let date = date.duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap();
                assert!((before..=second()).contains(&date), "{line} after {by}: {date}");
            }
        }
    }
}
