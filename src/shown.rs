//! Values from outside, as log lines and errors show them.
//!
//! What a request, a peer, a registry or the DNS sent is neither short nor harmless: a line break
//! in it forges a line, an escape code acts on the terminal, a format character reorders the text.

use std::fmt::{self, Display, Write};

/// Maximum number of characters that are shown of a value from outside.
const SHOWN: usize = 100;

/// A value from outside, such as a name or an id: cut after 100 characters, and quoted and escaped
/// unless it is plain.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(SHOWN).map_or(self.0.len(), |(at, _)| at);
        let (text, cut) = (&self.0[..end], end < self.0.len());
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=');
        if !text.is_empty() && text.chars().all(is_plain) {
            f.write_str(text)?;
        } else {
            f.write_char('"')?;
            // A quotation mark of another kind needs no escape; what is invisible or turns the text
            // around does.
            for c in text.chars() {
                match c {
                    '\'' => f.write_char(c)?,
                    _ if is_invisible(c) => write!(f, "{}", c.escape_unicode())?,
                    _ => write!(f, "{}", c.escape_debug())?,
                }
            }
            f.write_char('"')?;
        }
        if cut { f.write_str("...") } else { Ok(()) }
    }
}

/// Words that may have a value from outside among them: control and format characters are escaped.
#[cfg(feature = "client")]
pub(crate) struct Words<T>(pub(crate) T);

#[cfg(feature = "client")]
impl<T: Display> Display for Words<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaped { inner: f, left: usize::MAX }, "{}", self.0)
    }
}

/// The same words, cut after 100 characters.
pub(crate) struct Excerpt<T>(pub(crate) T);

impl<T: Display> Display for Excerpt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = Escaped { inner: f, left: SHOWN };
        // Cutting it short is the one error beside those of the formatter, which comes up again.
        match write!(escaped, "{}", self.0) {
            Err(_) if escaped.left == 0 => f.write_str("..."),
            result => result,
        }
    }
}

/// Writes so many characters, and fails at one more.
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

/// Format characters that no terminal shows and that may reorder what it does show.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_from_a_stranger_is_escaped_and_cut() {
        for (value, shown) in [
            ("h:orders:1", "h:orders:1".to_owned()),
            ("", r#""""#.to_owned()),
            ("SERVICE REGISTRY", r#""SERVICE REGISTRY""#.to_owned()),
            ("X\n2099-01-01 INFO forged \u{1b}[31m", r#""X\n2099-01-01 INFO forged \u{1b}[31m""#.to_owned()),
            ("i status=UP", r#""i status=UP""#.to_owned()),
            ("a=b", r#""a=b""#.to_owned()),
            ("ü's \"x\"", r#""ü's \"x\"""#.to_owned()),
            ("a\u{202e}b\u{2028}c\u{200b}\u{85}", r#""a\u{202e}b\u{2028}c\u{200b}\u{85}""#.to_owned()),
            (&"x".repeat(100), "x".repeat(100)),
            (&"x".repeat(5_000_000), format!("{}...", "x".repeat(100))),
            (&"ä".repeat(101), format!("\"{}\"...", "ä".repeat(100))),
        ] {
            assert_eq!(Shown(value).to_string(), shown);
        }
    }

    #[test]
    fn words_with_a_value_from_a_stranger_are_escaped_and_excerpts_cut() {
        let forged = "answered 404: \"x\"\nFORGED \u{1b}[31m\u{9b}\u{2028}\u{2066}ü";
        let escaped = r#"answered 404: "x"\nFORGED \u{1b}[31m\u{9b}\u{2028}\u{2066}ü"#;
        assert_eq!([Words(forged).to_string(), Excerpt(forged).to_string()], [escaped; 2]);
        assert_eq!(Excerpt("x".repeat(100)).to_string(), "x".repeat(100));
        assert_eq!(Excerpt("ä".repeat(101)).to_string(), format!("{}...", "ä".repeat(100)));
        assert_eq!(Words("ä".repeat(101)).to_string(), "ä".repeat(101));
    }
}
