//! Text from a registry, made harmless for terminals.
//!
//! Ids, metadata and other values are chosen by whoever registers. A terminal obeys the control
//! characters in them, and format characters reorder what it shows.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::invisible::is_invisible;

/// Maximum number of characters of a value in a table.
const MAX_CHARS: usize = 120;
/// Maximum number of characters of a name in a table.
const MAX_NAME_CHARS: usize = 1_000;
/// Beginning of an escaped character.
const ESCAPE: &str = "\\u{";

/// Returns the text with each character escaped that a terminal would obey or not show. It is cut
/// off after 120 characters.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len().min(4 * MAX_CHARS));
    for (number, c) in text.chars().enumerate() {
        if number == MAX_CHARS {
            cleaned.push_str("...");
            break;
        }
        match c {
            // Otherwise an escaped character would look like one that was written so.
            '\\' => cleaned.push_str("\\\\"),
            _ if is_plain(c) => cleaned.push(c),
            _ => cleaned.extend(c.escape_unicode()),
        }
    }
    cleaned
}

/// Returns the name of an application or the id of an instance with each character escaped that a
/// terminal would obey or not show. It is cut off after 1,000 characters.
///
/// [`parse_name`] reads it. If a character is escaped, or one seems to be, backslashes are doubled.
pub(crate) fn clean_name(text: &str) -> String {
    let is_escaped = text.contains(ESCAPE) || !text.chars().all(is_plain);
    let mut shown = String::with_capacity(text.len().min(4 * MAX_CHARS));
    for (number, c) in text.chars().enumerate() {
        if number == MAX_NAME_CHARS {
            shown.push_str("...");
            break;
        }
        match c {
            '\\' if is_escaped => shown.push_str("\\\\"),
            _ if is_plain(c) => shown.push(c),
            _ => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

/// Returns the name that [`clean_name`] shows so.
pub(crate) fn parse_name(text: &str) -> String {
    let (mut parsed, mut rest) = (String::with_capacity(text.len()), text);
    if !text.contains(ESCAPE) {
        return text.to_owned();
    }
    while let Some(c) = rest.chars().next() {
        let escaped = rest.strip_prefix(ESCAPE).and_then(|code| code.split_once('}'));
        let character = escaped.and_then(|(code, after)| {
            let code = u32::from_str_radix(code, 16).ok()?;
            Some((char::from_u32(code)?, after))
        });
        let doubled = rest.strip_prefix(r"\\").map(|after| ('\\', after));
        let (c, after) = character.or(doubled).unwrap_or((c, &rest[c.len_utf8()..]));
        parsed.push(c);
        rest = after;
    }
    parsed
}

/// Returns `true` if the character is visible and moves nothing but the cursor, by one column or
/// two.
fn is_plain(c: char) -> bool {
    // The standard library escapes control characters, unassigned ones, and those that combine with
    // the one before.
    matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1 && !is_invisible(c)
}

/// Returns the document in one line, with each character escaped that a terminal would obey or not
/// show. Parsers read the same values.
pub(crate) fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        if is_plain(c) {
            line.push(c);
        } else {
            // Such characters occur in strings only.
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(line, "\\u{unit:04x}").expect("write to String is infallible");
            }
        }
    }
    line
}

/// Returns a duration in its two largest units, such as `3d 4h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Returns the number of things with its noun.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Returns the time in milliseconds since the epoch.
#[allow(clippy::disallowed_methods, reason = "people compare the times that servers send with the wall clock")]
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(i64::MAX)
}

/// Returns the time of day in UTC.
pub(crate) fn time_of_day(ms: i64) -> String {
    let seconds = ms.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn characters_that_terminals_obey_are_escaped() {
        for (text, expected) in [
            ("10.0.0.1:orders:8080", "10.0.0.1:orders:8080"),
            ("ü 漢 'a' \"b\"", "ü 漢 'a' \"b\""),
            ("\u{1b}]0;x\u{7}\u{1b}[2J\r\n\t", "\\u{1b}]0;x\\u{7}\\u{1b}[2J\\u{d}\\u{a}\\u{9}"),
            ("\u{9b}31m\u{90}\u{9d}\u{7f}\0", "\\u{9b}31m\\u{90}\\u{9d}\\u{7f}\\u{0}"),
            ("\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}", "\\u{202e}\\u{2066}\\u{200b}\\u{feff}\\u{e0041}"),
            ("e\u{301}\u{301}", "e\\u{301}\\u{301}"),
            ("\\u{1b}", "\\\\u{1b}"),
        ] {
            assert_eq!(clean(text), expected);
        }
        assert_eq!(clean(&"ä".repeat(120)), "ä".repeat(120));
        assert_eq!(clean(&"ä".repeat(1_000_000)), format!("{}...", "ä".repeat(120)));
    }

    #[test]
    fn name_is_parsed_as_it_is_shown() {
        for (text, shown) in [
            ("10.0.0.1:orders:8080", "10.0.0.1:orders:8080"),
            (r"\\server\share\", r"\\server\share\"),
            ("a\u{3164}b\n", r"a\u{3164}b\u{a}"),
            (r"\u{1b}", r"\\u{1b}"),
            ("\\\u{1b}", r"\\\u{1b}"),
            (r"a\\u{1b}\u{", r"a\\\\u{1b}\\u{"),
            (&"ä".repeat(1_000), &"ä".repeat(1_000)),
        ] {
            assert_eq!(clean_name(text), shown);
            assert_eq!(parse_name(shown), text);
        }
        for text in ["", "}", r"\", r"\u", r"\u{", r"\u{x}", r"\u{d800}", r"\u{ffffffffff}"] {
            assert_eq!(parse_name(text), text);
        }
        assert_eq!(clean_name(&"ä".repeat(1_001)), format!("{}...", "ä".repeat(1_000)));
    }

    #[test]
    fn json_with_escaped_characters_has_the_same_values() {
        let value = json!({ "a\u{9b}\u{1b}": "\u{7f}\u{202e}\u{e0041}ü漢\\\"\u{1f600}", "b": [1, true, null] });
        let line = json_line(&value);
        assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}' && c != '\u{e0041}'), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn times_are_short() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_725, "1h 2m"), (100_000, "1d 3h")] {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(time_of_day(86_400_000 * 20_000 + 3_723_999), "01:02:03Z");
        assert_eq!((count(1, "instance"), count(0, "instance")), ("1 instance".into(), "0 instances".into()));
    }
}
