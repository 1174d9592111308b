//! The header `Retry-After`.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, header};

use crate::time::{LONGEST_WAIT, wall_clock_ms};

/// Returns the pause that `Retry-After` asks for, in seconds or as a date, limited to
/// [`LONGEST_WAIT`]. A date is compared with the server's own clock if the response has a `Date`.
/// Of several values the longest counts.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
    values.filter_map(|value| pause(value.trim(), headers)).max()
}

/// Parses one value, which a proxy may have joined from several.
fn pause(text: &str, headers: &HeaderMap) -> Option<Duration> {
    if let Some(date) = date_ms(text) {
        let now = date_of(headers, header::DATE).unwrap_or_else(wall_clock_ms);
        return Some(Duration::from_millis(date.saturating_sub(now).try_into().unwrap_or(0)).min(LONGEST_WAIT));
    }
    text.split(',').filter_map(|value| seconds(value.trim())).max()
}

/// Parses a number of seconds. A part of a second is rounded up.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(part) {
        return None;
    }
    let more = u64::from(part.bytes().any(|digit| digit != b'0'));
    // It has digits only, so it can only be too large.
    let seconds = whole.parse().unwrap_or(u64::MAX).saturating_add(more);
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Returns a header with an HTTP date in milliseconds since the epoch.
pub(crate) fn date_of(headers: &HeaderMap, name: HeaderName) -> Option<i64> {
    date_ms(headers.get(name)?.to_str().ok()?)
}

/// Parses an HTTP date into milliseconds since the epoch.
fn date_ms(text: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    since.as_millis().try_into().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn pause_of(values: &[&'static str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
        for value in values {
            headers.append(header::RETRY_AFTER, HeaderValue::from_static(value));
        }
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_a_number_of_any_length_or_a_date_of_the_servers_clock() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (text, expected) in [
            ("60", seconds(60)),
            (" 0 ", seconds(0)),
            ("1.5", seconds(2)),
            ("60.0", seconds(60)),
            ("18446744073709551615", Some(LONGEST_WAIT)),
            ("18446744073709551616", Some(LONGEST_WAIT)),
            ("99999999999999999999999999.9", Some(LONGEST_WAIT)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", seconds(60)),
            ("Sun Nov  6 08:50:37 1994", seconds(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(LONGEST_WAIT)),
            ("10, 60", seconds(60)),
            ("10, soon", seconds(10)),
            ("soon", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            (".5", None),
            ("5.", None),
            ("", None),
        ] {
            assert_eq!(pause_of(&[text]), expected, "{text:?}");
        }
        assert_eq!(pause_of(&[]), None);
    }

    #[test]
    fn longest_of_several_retry_after_headers_counts() {
        assert_eq!(pause_of(&["10", "Sun, 06 Nov 1994 08:50:37 GMT"]), Some(Duration::from_secs(60)));
        assert_eq!(pause_of(&["120", "soon", "60"]), Some(Duration::from_secs(120)));
    }
}
