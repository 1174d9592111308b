//! Conversion of metadata keys to element names and back, like the name coder of XStream.
//! `docs/protocol.md`, "Metadata keys in XML".

use std::borrow::Cow;
use std::fmt::Write;

/// Returns the element name of a key.
///
/// Unlike in Java, a colon is escaped: there it makes an undeclared prefix, which namespace-aware
/// readers refuse. So are letters that only newer readers accept in a name, such as `ẞ`.
pub(super) fn escape(key: &str) -> Cow<'_, str> {
    if key
        .bytes()
        .enumerate()
        .all(|(i, b)| b.is_ascii_alphabetic() || i > 0 && (b.is_ascii_digit() || b"-.".contains(&b)))
    {
        return Cow::Borrowed(key);
    }
    let mut name = String::with_capacity(key.len() + 8);
    for (i, c) in key.chars().enumerate() {
        match c {
            '_' => name.push_str("__"),
            '$' => name.push_str("_-"),
            c if starts_name(c) || i > 0 && continues_name(c) => name.push(c),
            c => {
                // Java escapes each unit of UTF-16.
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(name, "_.{unit:04x}").expect("write to String is infallible");
                }
            }
        }
    }
    Cow::Owned(name)
}

/// Returns the key of an element name. An underscore that begins no escape is kept.
pub(super) fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut key = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('_') {
        key.extend(rest[..at].encode_utf16());
        let escaped = &rest[at + 1..];
        let hex = escaped
            .strip_prefix('.')
            .and_then(|hex| hex.get(..4))
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        rest = if let Some(unit) = hex.and_then(|hex| u16::from_str_radix(hex, 16).ok()) {
            key.push(unit);
            &escaped[5..]
        } else if let Some(rest) = escaped.strip_prefix('_') {
            key.push('_' as u16);
            rest
        } else if let Some(rest) = escaped.strip_prefix('-') {
            key.push('$' as u16);
            rest
        } else {
            key.push('_' as u16);
            escaped
        };
    }
    key.extend(rest.encode_utf16());
    Cow::Owned(String::from_utf16_lossy(&key))
}

/// Returns `true` for characters with which a name begins in all editions of XML 1.0.
///
/// Other letters are escaped. The fifth edition, which is that of XStream, has more of them, but
/// the parsers of Java and Go, and expat, refuse a document with one. Only common scripts are
/// listed, as far as a range has no gap.
fn starts_name(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ı' | 'Σ'..='ώ' | 'Ў'..='я' | 'ぁ'..='ゔ' | 'ァ'..='ヺ'
            | '一'..='\u{9fa5}' | '가'..='힣')
}

fn continues_name(c: char) -> bool {
    starts_name(c) || c.is_ascii_digit() || matches!(c, '-' | '.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_escaped_as_by_xstream() {
        for (key, name) in [
            ("zone", "zone"),
            ("build_id", "build__id"),
            ("a$b", "a_-b"),
            ("a b", "a_.0020b"),
            ("8g", "_.0038g"),
            ("-x", "_.002dx"),
            ("a.b-c", "a.b-c"),
            ("über", "über"),
            ("中文", "中文"),
            ("a\u{301}", "a_.0301"),
            ("€", "_.20ac"),
            ("№", "_.2116"),
            ("ẞ", "_.1e9e"),
            ("Ĳ", "_.0132"),
            ("、", "_.3001"),
            ("\u{200c}", "_.200c"),
            ("\u{feff}", "_.feff"),
            ("\u{fffd}", "_.fffd"),
            ("\u{3400}", "_.3400"),
            ("a&b", "a_.0026b"),
            ("a:b", "a_.003ab"),
            ("😀", "_.d83d_.de00"),
            ("_.0041", "__.0041"),
        ] {
            assert_eq!(escape(key), name);
            assert_eq!(unescape(name), key);
        }
        for (name, key) in
            [("e_f", "e_f"), ("a_", "a_"), ("a_.00", "a_.00"), ("a_.00é0", "a_.00é0"), ("_.d83d", "\u{fffd}")]
        {
            assert_eq!(unescape(name), key);
        }
    }

    proptest! {
        #[test]
        fn key_survives_a_round_trip(key in any::<String>()) {
            let name = escape(&key);
            prop_assert_eq!(unescape(&name), key.as_str());
        }

        #[test]
        fn arbitrary_name_is_unescaped_without_a_panic(name in any::<String>()) {
            let _ = unescape(&name);
        }
    }
}
