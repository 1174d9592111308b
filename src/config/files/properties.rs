//! Reader of Java's `.properties` files.
//!
//! Lines are `key=value`, `key: value` or `key value`. A backslash at the end of a line continues
//! it, and `\n`, `\t` and `\u00e4` are characters. As in Spring, a comment `#---` begins a further
//! document.

use std::sync::Arc;

use crate::config::source::{Entry, Origin};

/// Returns the entries of each document. The last one of a key counts. The error is the line and
/// the cause.
pub(super) fn documents(text: &str, path: &Arc<str>) -> Result<Vec<Vec<Entry>>, (usize, String)> {
    let mut documents = vec![Vec::new()];
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = text.split('\n').zip(1..);
    while let Some((line, number)) = lines.next() {
        let trimmed = line.trim_start_matches(BLANKS);
        if matches!(line.trim_end(), "#---" | "!---") {
            documents.push(Vec::new());
        }
        if trimmed.is_empty() || trimmed.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = trimmed.to_owned();
        while is_continued(&logical) {
            logical.pop();
            let Some((next, _)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(BLANKS));
        }
        let (key, value) = split(&logical);
        let key = unescape(key).map_err(|cause| (number, cause))?;
        let value = unescape(value).map_err(|cause| (number, cause))?;
        let entry = Entry::new(key, value, Origin::File { path: path.clone(), line: number });
        if let Some(entries) = documents.last_mut() {
            entries.push(entry);
        }
    }
    // The reader takes the first entry of a name.
    documents.iter_mut().for_each(|entries| entries.reverse());
    Ok(documents)
}

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// Returns `true` if an odd number of backslashes ends the line.
fn is_continued(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Splits a line at its separator: the first `=`, `:` or blank that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = line.char_indices().find(|(_, c)| {
        let is_end = !is_escaped && (matches!(c, '=' | ':') || BLANKS.contains(c));
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    });
    let Some((end, _)) = end else { return (line, "") };
    let rest = line[end..].trim_start_matches(BLANKS);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(BLANKS))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let unescaped = match c {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = characters.by_ref().take(4).collect();
                    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                    units.push(unit.ok_or("malformed \\u escape: expected four hexadecimal digits")?);
                    continue;
                }
                Some(other) => other,
                None => continue,
            },
            c => c,
        };
        units.extend_from_slice(unescaped.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).map_err(|_| "malformed \\u escape: half of a surrogate pair".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, text and line of an entry.
    type Flat = (String, String, usize);

    fn entries(text: &str) -> Vec<Vec<Flat>> {
        let flat = |entry: Entry| match entry.origin {
            Origin::File { line, .. } => (entry.name, entry.text, line),
            other => panic!("{other:?}"),
        };
        let documents = documents(text, &"a.properties".into()).unwrap();
        documents.into_iter().map(|entries| entries.into_iter().rev().map(flat).collect()).collect()
    }

    #[test]
    fn properties_are_read_as_by_java() {
        let text =
            "# comment\n! comment\r\na=1\r\n  b : 2\nc 3\nd\\ e\\=f=g\\\r\n   h\\u00e4\\\\\n\\u0065 = \\tx \n\nlast";
        let expected =
            [("a", "1", 3), ("b", "2", 4), ("c", "3", 5), ("d e=f", "ghä\\", 6), ("e", "\tx ", 8), ("last", "", 10)];
        let expected = expected.map(|(name, text, line)| (name.to_owned(), text.to_owned(), line));
        assert_eq!(entries(text), [expected]);
    }

    #[test]
    fn comment_with_dashes_begins_a_document() {
        let documents = entries("a=1\n#---\na=2\n!---\nb=3\n");
        assert_eq!(documents.iter().map(|entries| &*entries[0].1).collect::<Vec<_>>(), ["1", "2", "3"]);
    }

    #[test]
    fn malformed_escape_is_an_error_with_its_line() {
        for text in ["a=1\nb=\\u12", "a=1\nb=\\u12xy", "a=1\nb=\\ud800"] {
            assert_eq!(documents(text, &"x".into()).unwrap_err().0, 2, "{text}");
        }
    }
}
