//! Repairs JSON that the parser refuses although its structure is clear.
//!
//! A registry sends back the text that instances registered with. Jackson, the parser of the Java
//! servers, accepts more than the standard allows, and other registries do not parse the text.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::CharIndices;

/// Maximum length in bytes of a text that is repaired.
const MAX_TEXT: usize = 16 << 20;
/// Maximum length in bytes of a word that becomes a string.
const MAX_WORD: usize = 64;
/// Maximum factor by which a repair may lengthen the text, and maximum number of bytes.
const MAX_GROWTH: (usize, usize) = (4, 1 << 20);

/// Returns the text in a form that the parser accepts, unless there is nothing to repair or the
/// text is too long.
///
/// Bytes that are not UTF-8 and surrogates without their other half become U+FFFD, and raw control
/// characters in strings become escapes. An unknown escape becomes the escaped character. A number
/// beyond the range of a double and any other unknown word, such as `NaN`, becomes a string.
pub(super) fn repaired(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let max_len = (text.len() * MAX_GROWTH.0).min(text.len() + MAX_GROWTH.1);
    let decoded = String::from_utf8_lossy(text);
    let mut output = String::with_capacity(decoded.len());
    let mut chars = decoded.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        match c {
            '"' => string(&decoded, &mut chars, &mut output, max_len),
            _ if is_punctuation(c) => output.push(c),
            _ => {
                let end = until_punctuation(&mut chars).unwrap_or(decoded.len());
                word(&decoded[start..end], &mut output);
            }
        }
        if output.len() > max_len {
            return None;
        }
    }
    (output.as_bytes() != text).then(|| output.into_bytes())
}

type Chars<'a> = Peekable<CharIndices<'a>>;

/// Returns `true` for a character that ends a number or another word.
fn is_punctuation(c: char) -> bool {
    matches!(c, '{' | '}' | '[' | ']' | ',' | ':' | '"' | ' ' | '\t' | '\n' | '\r')
}

/// Skips to the next punctuation character and returns its position.
fn until_punctuation(chars: &mut Chars<'_>) -> Option<usize> {
    loop {
        let (at, c) = *chars.peek()?;
        if is_punctuation(c) {
            return Some(at);
        }
        chars.next();
    }
}

/// Writes a number or another word.
fn word(text: &str, output: &mut String) {
    let is_known = matches!(text, "true" | "false" | "null") || serde_json::from_str::<f64>(text).is_ok();
    if is_known || text.len() > MAX_WORD {
        output.push_str(text);
        return;
    }
    output.push('"');
    for c in text.chars() {
        if c == '\\' { output.push_str("\\\\") } else { character(c, output) }
    }
    output.push('"');
}

/// Writes the string that begins before these characters, until the output is too long.
fn string(text: &str, chars: &mut Chars<'_>, output: &mut String, max_len: usize) {
    output.push('"');
    while let Some((_, c)) = chars.next().filter(|_| output.len() <= max_len) {
        match c {
            '"' => {
                output.push('"');
                return;
            }
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't'))) => output.extend(['\\', c]),
                Some((at, 'u')) => code_unit(text, at + 1, chars, output),
                Some((_, c)) => character(c, output),
                None => output.push('\\'),
            },
            _ => character(c, output),
        }
    }
}

/// Writes a character of a string. A control character is escaped.
fn character(c: char, output: &mut String) {
    if c < ' ' {
        write!(output, "\\u{:04x}", u32::from(c)).expect("write to String is infallible");
    } else {
        output.push(c);
    }
}

/// Writes the escape whose hexadecimal digits begin at this position. The second escape of a
/// surrogate pair is written as well.
fn code_unit(text: &str, at: usize, chars: &mut Chars<'_>, output: &mut String) {
    let escaped = |at: usize| {
        let digits = text.get(at..at + 4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u16::from_str_radix(digits, 16).ok()
    };
    let low = || text.get(at + 4..)?.strip_prefix("\\u").and_then(|_| escaped(at + 6));
    let length = match escaped(at) {
        Some(0xd800..=0xdbff) if matches!(low(), Some(0xdc00..=0xdfff)) => 10,
        Some(0xd800..=0xdfff) => {
            output.push('\u{fffd}');
            chars.nth(3);
            return;
        }
        Some(_) => 4,
        None => {
            output.push('\u{fffd}');
            return;
        }
    };
    output.push_str("\\u");
    output.push_str(&text[at..at + length]);
    chars.nth(length - 1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(text: &[u8]) -> Value {
        let repaired = repaired(text).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(text)));
        serde_json::from_slice(&repaired)
            .unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(&repaired)))
    }

    #[test]
    fn text_that_the_parser_refuses_is_repaired() {
        for (text, expected) in [
            (&br#"["\ud800"]"#[..], "\u{fffd}"),
            (br#"["\ud800\u0041"]"#, "\u{fffd}A"),
            (br#"["\uDC00\ud83d\ude00\ud83d"]"#, "\u{fffd}\u{1f600}\u{fffd}"),
            (br#"["\ud83d\ud83d\ude00"]"#, "\u{fffd}\u{1f600}"),
            (br#"["\u12"]"#, "\u{fffd}12"),
            (br#"["\u"]"#, "\u{fffd}"),
            (br#"["\q\'\x41"]"#, "q'x41"),
            (b"[\"\\\x01\"]", "\u{1}"),
            (b"[\"a\x00\x1f\tb\r\n\"]", "a\0\u{1f}\tb\r\n"),
            (b"[\"J\xf6rg \xc3\xb6 \xe2\x82\"]", "J\u{fffd}rg ö \u{fffd}"),
            (b"[1e400]", "1e400"),
            (b"[-1e400 ]", "-1e400"),
            (b"[NaN]", "NaN"),
            (b"[ -Infinity\n]", "-Infinity"),
            (b"[007]", "007"),
            (b"[.5]", ".5"),
            (b"[0x1F]", "0x1F"),
            (b"[\xff\\x\x01]", "\u{fffd}\\x\u{1}"),
        ] {
            assert_eq!(read(text), Value::from(vec![expected]), "{}", String::from_utf8_lossy(text));
        }
        let numbers = [
            &b"{\"a\":1E2,\"b\":-0.5,\"c\":99999999999999999999,\"d\":null,\"e\":[true,false,{}],\"\\ud800\":\""[..],
            b"\"}",
        ];
        assert_eq!(read(&numbers.concat()).as_object().unwrap().len(), 6);
    }

    #[test]
    fn text_that_grows_too_much_or_needs_no_repair_is_left() {
        for text in ["", "{}", r#"{"a\n\u00e9\ud83d\ude00":[1.5e3,"b",null]} "#, "\"a", "\"a\\"] {
            assert_eq!(repaired(text.as_bytes()), None, "{text}");
        }
        for (length, factor) in [(1_000, 1), (1 << 20, 1), (MAX_TEXT, 100)] {
            let control = (0..length).map(|at| if at % factor == 0 { 1 } else { b'a' });
            assert_eq!(repaired(&[vec![b'"'], control.collect(), vec![b'"']].concat()), None, "{length}");
        }
    }

    proptest! {
        /// Any text within a string yields a string.
        #[test]
        fn string_of_any_bytes_becomes_json(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&br#"\ud8c0"#[..])], 0..40),
        ) {
            let mut inner: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'"').collect();
            let backslashes = inner.iter().rev().take_while(|byte| **byte == b'\\').count();
            inner.extend(std::iter::repeat_n(b'\\', backslashes % 2));
            let text = [&b"[\"padding of the text\",\""[..], &inner, b"\"]"].concat();
            if let Some(repaired) = repaired(&text) {
                let length = text.len() * MAX_GROWTH.0;
                prop_assert!(repaired.len() <= length);
                prop_assert!(serde_json::from_slice::<Value>(&repaired).is_ok(), "{}", String::from_utf8_lossy(&repaired));
                prop_assert!(super::repaired(&repaired).is_none());
            } else {
                prop_assert!(serde_json::from_slice::<Value>(&text).is_ok() || inner.len() > 20);
            }
        }
    }
}
