//! Sanitizer of log lines: one line each, without control characters, of bounded length.
//!
//! The registry escapes and truncates external values where it logs them. This covers lines of
//! other libraries, and values that were forgotten.

use std::fmt::Write;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::Format;
use crate::invisible::is_invisible;

/// Maximum length of a line in bytes.
const LINE_BYTES: usize = 8 * 1024;
/// Number of characters of a JSON line that are logged if the line is too long.
const EXCERPT_CHARS: usize = 1024;

/// Returns the sanitized line with a line break at its end.
pub(super) fn clean(text: &str, format: Format, ansi: bool) -> Vec<u8> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let mut line = if is_plain && text.len() <= LINE_BYTES { text.to_owned() } else { escaped(text, format, ansi) };
    line.push('\n');
    line.into_bytes()
}

/// Returns a line of the log itself in the format of tracing.
pub(super) fn own(format: Format, level: &str, message: &str) -> Vec<u8> {
    clean(&own_text(format, level, message, None), format, false)
}

fn own_text(format: Format, level: &str, message: &str, excerpt: Option<&str>) -> String {
    let (time, target) = (timestamp(), "tower_eureka::log");
    match (format, excerpt) {
        (Format::Text, _) => format!("{time} {level:>5} {target}: {message}"),
        (Format::Json, None) => {
            serde_json::json!({ "timestamp": time, "level": level, "message": message, "target": target }).to_string()
        }
        (Format::Json, Some(line)) => {
            serde_json::json!({ "timestamp": time, "level": level, "message": message, "line": line, "target": target })
                .to_string()
        }
    }
}

fn timestamp() -> String {
    let mut time = String::new();
    // The time is left empty if it cannot be formatted.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

fn escaped(text: &str, format: Format, ansi: bool) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES) + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if line.len() >= LINE_BYTES {
            return match format {
                Format::Text => line + &format!("... ({} bytes)", text.len()),
                // A truncated object is not valid JSON, so an excerpt is logged as a value.
                Format::Json => {
                    let excerpt: String = text.chars().take(EXCERPT_CHARS).filter(|&c| !is_unsafe(c)).collect();
                    let message = format!("log line of {} bytes was cut", text.len());
                    own_text(Format::Json, "WARN", &message, Some(&excerpt))
                }
            };
        }
        let colour = if ansi { colour_length(rest) } else { 0 };
        if colour > 0 {
            line.push_str(&rest[..colour]);
            rest = &rest[colour..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        let written = match (c, format) {
            (c, _) if !is_unsafe(c) => line.write_char(c),
            // In a JSON object such a character is always within a string.
            (c, Format::Json) => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(line, "\\u{unit:04x}")),
            (c, Format::Text) if c.is_control() => write!(line, "{}", c.escape_debug()),
            (c, Format::Text) => write!(line, "{}", c.escape_unicode()),
        };
        written.expect("write to String is infallible");
    }
    line
}

/// Returns true for control characters and for format characters that break or reorder a line.
fn is_unsafe(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// Returns the length of the colour code at the start of the text, as tracing writes it: ESC [
/// digits m.
fn colour_length(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("\u{1b}[") else { return 0 };
    let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    if rest.as_bytes().get(digits) == Some(&b'm') { "\u{1b}[".len() + digits + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn text(text: &str) -> String {
        String::from_utf8(clean(text, Format::Text, false)).unwrap()
    }

    #[test]
    fn external_text_becomes_one_line_without_control_characters() {
        for (line, expected) in [
            ("INFO plain a=b", "INFO plain a=b\n"),
            ("INFO plain a=b\n", "INFO plain a=b\n"),
            ("INFO a=ü\n", "INFO a=ü\n"),
            ("a\nFORGED\r\n\u{1b}[31mred\u{7f}\u{85}\u{9b}", r"a\nFORGED\r\n\u{1b}[31mred\u{7f}\u{85}\u{9b}"),
            ("a\u{2028}b\u{202e}c\u{2066}d\tq\0", r"a\u{2028}b\u{202e}c\u{2066}d\tq\0"),
        ] {
            assert_eq!(text(line).trim_end(), expected.trim_end(), "{line:?}");
            assert!(text(line).ends_with('\n'));
        }
    }

    #[test]
    fn colour_codes_are_kept_and_other_escapes_are_not() {
        let line = clean("\u{1b}[2mtime\u{1b}[0m \u{1b}[2J\u{1b}]0;title\u{7}", Format::Text, true);
        assert_eq!(String::from_utf8(line).unwrap(), "\u{1b}[2mtime\u{1b}[0m \\u{1b}[2J\\u{1b}]0;title\\u{7}\n");
    }

    #[test]
    fn json_line_stays_an_object_with_the_same_values() {
        let object = serde_json::json!({ "app": "a\u{85}\u{202e}\u{7f}ü\n\u{2028}\u{3164}\u{e0041}", "level": "INFO" });
        let line = String::from_utf8(clean(&object.to_string(), Format::Json, false)).unwrap();
        assert!(!line.trim_end().chars().any(is_unsafe), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), object);
    }

    #[test]
    fn line_of_any_length_is_cut_to_8_kib() {
        let long = text(&"ä".repeat(5_000_000));
        assert!(long.len() < LINE_BYTES + 100 && long.ends_with("... (10000000 bytes)\n"));
        let object = serde_json::json!({ "message": "\n".repeat(1_000_000) }).to_string();
        let line = String::from_utf8(clean(&object, Format::Json, false)).unwrap();
        let read: Value = serde_json::from_str(&line).unwrap();
        assert!(line.len() < LINE_BYTES && read["message"] == "log line of 2000014 bytes was cut", "{line}");
        assert!(read["line"].as_str().unwrap().starts_with(r#"{"message":"\n"#));
    }

    #[test]
    fn own_line_has_the_format_of_tracing() {
        let line = String::from_utf8(own(Format::Text, "WARN", "3 log lines\nwere dropped")).unwrap();
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000Z".len(), "{line}");
        assert_eq!(rest, " WARN tower_eureka::log: 3 log lines\\nwere dropped\n");
        let object: Value = serde_json::from_slice(&own(Format::Json, "WARN", "a\"b")).unwrap();
        assert_eq!((&object["level"], &object["message"]), (&"WARN".into(), &"a\"b".into()));
    }
}
