//! Untrusted values in log lines and error messages.
//!
//! Text from a request, a peer, a registry or the DNS may be long or malicious: a line break forges
//! a log line, an escape code controls the terminal, a format character reorders the text.

use std::fmt::{self, Display, Write};

use crate::invisible::is_invisible;

/// Maximum number of characters of an untrusted value.
const MAX_CHARS: usize = 100;

/// Displays an untrusted value such as a name or an id. It is truncated after 100 characters, and
/// quoted and escaped unless it is plain.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(MAX_CHARS).map_or(self.0.len(), |(at, _)| at);
        let (text, truncated) = (&self.0[..end], end < self.0.len());
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=');
        if !text.is_empty() && text.chars().all(is_plain) {
            f.write_str(text)?;
        } else {
            f.write_char('"')?;
            // Invisible characters are escaped, and single quotes are not.
            for c in text.chars() {
                match c {
                    '\'' => f.write_char(c)?,
                    _ if is_invisible(c) => write!(f, "{}", c.escape_unicode())?,
                    _ => write!(f, "{}", c.escape_debug())?,
                }
            }
            f.write_char('"')?;
        }
        if truncated { f.write_str("...") } else { Ok(()) }
    }
}

/// Displays a text that contains untrusted values, with control and format characters escaped.
pub(crate) struct Sanitized<T>(pub(crate) T);

impl<T: Display> Display for Sanitized<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaped { inner: f, left: usize::MAX }, "{}", self.0)
    }
}

/// Displays a text like `Sanitized`, truncated after 100 characters.
pub(crate) struct Excerpt<T>(pub(crate) T);

impl<T: Display> Display for Excerpt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = Escaped { inner: f, left: MAX_CHARS };
        // If the formatter failed at this point, writing the ellipsis fails as well.
        match write!(escaped, "{}", self.0) {
            Err(_) if escaped.left == 0 => f.write_str("..."),
            result => result,
        }
    }
}

/// Writer that escapes characters and fails after `left` of them.
struct Escaped<'a, 'b> {
    inner: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            match c {
                _ if c.is_control() => write!(self.inner, "{}", c.escape_debug())?,
                _ if is_invisible(c) => write!(self.inner, "{}", c.escape_unicode())?,
                _ => self.inner.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_value_is_escaped_and_truncated() {
        for (value, expected) in [
            ("h:orders:1", "h:orders:1".to_owned()),
            ("", r#""""#.to_owned()),
            ("SERVICE REGISTRY", r#""SERVICE REGISTRY""#.to_owned()),
            ("X\n2099-01-01 INFO forged \u{1b}[31m", r#""X\n2099-01-01 INFO forged \u{1b}[31m""#.to_owned()),
            ("i status=UP", r#""i status=UP""#.to_owned()),
            ("a=b", r#""a=b""#.to_owned()),
            ("ü's \"x\"", r#""ü's \"x\"""#.to_owned()),
            ("a\u{202e}b\u{2028}c\u{200b}\u{85}", r#""a\u{202e}b\u{2028}c\u{200b}\u{85}""#.to_owned()),
            ("a\u{3164}\u{ffa0}\u{fe0f}", r#""a\u{3164}\u{ffa0}\u{fe0f}""#.to_owned()),
            (&"x".repeat(100), "x".repeat(100)),
            (&"x".repeat(5_000_000), format!("{}...", "x".repeat(100))),
            (&"ä".repeat(101), format!("\"{}\"...", "ä".repeat(100))),
        ] {
            assert_eq!(Quoted(value).to_string(), expected);
        }
    }

    #[test]
    fn text_with_untrusted_values_is_escaped_and_excerpts_are_truncated() {
        let forged = "responded with 404: \"x\"\nFORGED \u{1b}[31m\u{9b}\u{2028}\u{2066}\u{34f}\u{180e}\u{e0041}ü";
        let escaped = r#"responded with 404: "x"\nFORGED \u{1b}[31m\u{9b}\u{2028}\u{2066}\u{34f}\u{180e}\u{e0041}ü"#;
        assert_eq!([Sanitized(forged).to_string(), Excerpt(forged).to_string()], [escaped; 2]);
        assert_eq!(Excerpt("x".repeat(100)).to_string(), "x".repeat(100));
        assert_eq!(Excerpt("ä".repeat(101)).to_string(), format!("{}...", "ä".repeat(100)));
        assert_eq!(Sanitized("ä".repeat(101)).to_string(), "ä".repeat(101));
    }
}
