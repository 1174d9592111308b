//! Texts of the page: durations, names and addresses.

use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::untrusted::{Excerpt, Sanitized};

/// Characters of a query parameter that need no encoding.
const PARAMETER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Duration in its two largest units, such as `3 min 20 s`. The script has the same format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// Creates a duration from milliseconds. A negative one counts as zero.
    pub(super) fn millis(ms: i64) -> Self {
        Self(Duration::from_millis(ms.try_into().unwrap_or(0)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
        match seconds {
            ..60 => write!(f, "{seconds} s"),
            60..3_600 => write!(f, "{minutes} min {} s", seconds % 60),
            3_600..86_400 => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}

/// Returns an untrusted text without invisible characters, truncated after 100 characters. The
/// template escapes it.
pub(super) fn short(text: &str) -> String {
    Excerpt(text).to_string()
}

/// Returns an untrusted text without invisible characters. The template escapes it.
pub(super) fn visible(text: &str) -> String {
    Sanitized(text).to_string()
}

/// Returns a text as the value of a query parameter.
pub(super) fn parameter(text: &str) -> String {
    utf8_percent_encode(text, PARAMETER).to_string()
}

/// Returns the query that names an instance. It has no character with a meaning in HTML except `&`.
pub(super) fn query_of(app: &str, id: &str) -> String {
    format!("app={}&id={}", parameter(app), parameter(id))
}

/// Returns a URL of an instance if a browser may open it. Other schemes may run scripts.
pub(super) fn link(url: Option<&str>) -> Option<String> {
    let url = url?.trim();
    let is_web = ["http://", "https://"].iter().any(|scheme| {
        url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)) && url.len() > scheme.len()
    });
    // A URL has no such character, and browsers drop some of them.
    let is_plain = !url.chars().any(|c| c.is_control() || c.is_whitespace());
    (is_web && is_plain && !url.contains('@')).then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (200, "3 min 20 s"),
            (3_600, "1 h 0 min"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), text);
        }
        assert_eq!(Span::millis(-5).to_string(), "0 s");
    }

    #[test]
    fn links_lead_to_web_pages_only() {
        for (url, expected) in [
            ("http://h/", Some("http://h/")),
            (" HTTPS://h:8443/x?y=1 ", Some("HTTPS://h:8443/x?y=1")),
            ("javascript:alert(1)", None),
            ("java\nscript:alert(1)", None),
            ("data:text/html,x", None),
            ("//h/", None),
            ("/relative", None),
            ("http://", None),
            ("http://h/\u{0}", None),
            ("http://user:password@h/", None),
            ("", None),
        ] {
            assert_eq!(link(Some(url)).as_deref(), expected, "{url:?}");
        }
    }

    #[test]
    fn query_of_an_instance_has_no_markup() {
        assert_eq!(query_of("A&B", "<i>'\"/ü"), "app=A%26B&id=%3Ci%3E%27%22%2F%C3%BC");
    }
}
