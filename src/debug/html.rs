//! Untrusted text in HTML.

use std::fmt::{self, Display, Write};

use crate::untrusted::{Excerpt, Sanitized};

/// Displays a text in HTML, in an element or in a quoted attribute. Control and format characters
/// are visible.
pub(super) struct Text<T>(pub(super) T);

/// Displays a text like [`Text`], truncated after 100 characters.
pub(super) struct Short<T>(pub(super) T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Entities(f), "{}", Sanitized(&self.0))
    }
}

impl<T: Display> Display for Short<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Entities(f), "{}", Excerpt(&self.0))
    }
}

/// Writer that replaces the characters with a meaning in HTML by entities.
struct Entities<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Entities<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                _ => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_quotes_and_invisible_characters_are_escaped() {
        let hostile = "<script>alert('x')</script>\" onload=\"&\u{202e}\n";
        let escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; onload=&quot;&amp;\\u{202e}\\n";
        assert_eq!(Text(hostile).to_string(), escaped);
        assert_eq!(Short("<".repeat(101)).to_string(), format!("{}...", "&lt;".repeat(100)));
    }
}
