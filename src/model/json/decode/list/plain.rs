//! Reads the usual forms of values without a JSON parser. Each reader returns `None` for any other
//! form, valid or not, which is then left to the parser.

use memchr::memchr;

use crate::model::LeaseInfo;

/// Maximum number of digits of a number that is read here.
const MAX_DIGITS: usize = 18;

/// Reads a string without escapes.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    // Without an early return, which is faster for short strings.
    let is_plain = !text.iter().fold(false, |other, &byte| other | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    std::str::from_utf8(text).ok().filter(|_| is_plain)
}

/// Reads digits, or a string of digits.
pub(super) fn number(value: &[u8]) -> Option<i64> {
    match value.strip_prefix(b"\"") {
        Some(rest) => digits(rest.strip_suffix(b"\"")?),
        // JSON has no numbers with leading zeros.
        None => digits(value).filter(|_| value.len() == 1 || value[0] != b'0'),
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > MAX_DIGITS {
        return None;
    }
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Members of a lease in the order of the Java servers: the beginning of each, and what sets it.
const LEASE: [(&[u8], SetMember); 6] = [
    (b"\"renewalIntervalInSecs\":", |lease, number| set_seconds(&mut lease.renewal_interval_secs, number)),
    (b"\"durationInSecs\":", |lease, number| set_seconds(&mut lease.duration_secs, number)),
    (b"\"registrationTimestamp\":", |lease, number| set(&mut lease.registration_timestamp, number)),
    (b"\"lastRenewalTimestamp\":", |lease, number| set(&mut lease.last_renewal_timestamp, number)),
    (b"\"evictionTimestamp\":", |lease, number| set(&mut lease.eviction_timestamp, number)),
    (b"\"serviceUpTimestamp\":", |lease, number| set(&mut lease.service_up_timestamp, number)),
];

/// Sets a member of a lease. Returns `None` if the number is out of its range.
type SetMember = fn(&mut LeaseInfo, i64) -> Option<()>;

fn set(timestamp: &mut i64, number: i64) -> Option<()> {
    *timestamp = number;
    Some(())
}

fn set_seconds(seconds: &mut i32, number: i64) -> Option<()> {
    *seconds = i32::try_from(number).ok().filter(|&seconds| seconds > 0)?;
    Some(())
}

/// Reads a lease whose members are known and have numbers.
pub(super) fn lease(value: &[u8]) -> Option<LeaseInfo> {
    let mut lease = LeaseInfo::default();
    let mut rest = value.strip_prefix(b"{")?;
    // Position of the member that probably follows.
    let mut next = 0;
    loop {
        let begins = |at: usize| Some((at, rest.strip_prefix(LEASE.get(at)?.0)?));
        let (at, after) = begins(next).or_else(|| (0..LEASE.len()).find_map(begins))?;
        let (number, after) = leading_number(after)?;
        LEASE[at].1(&mut lease, number)?;
        next = at + 1;
        match after {
            [b',', more @ ..] => rest = more,
            b"}" => return Some(lease),
            _ => return None,
        }
    }
}

/// Reads the digits at the start. Returns the rest, too. JSON has no numbers with leading zeros.
fn leading_number(text: &[u8]) -> Option<(i64, &[u8])> {
    let (mut number, mut length) = (0, 0);
    while let Some(digit) = text.get(length).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        if length == MAX_DIGITS {
            return None;
        }
        number = number * 10 + i64::from(digit);
        length += 1;
    }
    (length == 1 || length > 1 && text[0] != b'0').then(|| (number, &text[length..]))
}

/// Reads an object whose names and values are strings without escapes.
pub(super) fn texts<'a>(value: &'a [u8], entries: &mut Vec<(&'a str, &'a str)>) -> Option<()> {
    let mut rest = value.strip_prefix(b"{")?;
    if rest == b"}" {
        return Some(());
    }
    loop {
        let (_, after) = name(rest)?;
        let key = text(&rest[..rest.len() - after.len() - 1])?;
        let end = memchr(b'"', after.get(1..)?)? + 2;
        entries.push((key, text(&after[..end])?));
        match &after[end..] {
            [b',', more @ ..] => rest = more,
            b"}" => return Some(()),
            _ => return None,
        }
    }
}

/// Reads a name up to its first quote, and the colon behind it. Returns the rest, too.
fn name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"\"")?;
    let end = memchr(b'"', text)?;
    Some((&text[..end], text[end..].strip_prefix(b"\":")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_forms_are_left_to_the_parser() {
        assert_eq!((text(b"\"\""), text("\"ä b\"".as_bytes())), (Some(""), Some("ä b")));
        for other in ["", "\"", "a", "\"a", "\"\\u0041\"", "\"\\\"", "\"a\"b\"", " \"a\"", "\"a\n\"", "\"\0\""] {
            assert_eq!(text(other.as_bytes()), None, "{other}");
        }
        assert_eq!(text(b"\"\xff\""), None);
        for (form, read) in [("0", 0), ("17", 17), ("\"0017\"", 17), ("999999999999999999", 999_999_999_999_999_999)] {
            assert_eq!(number(form.as_bytes()), Some(read), "{form}");
        }
        for other in ["", "\"\"", "017", "-1", "1.0", "\" 1\"", "\"1", "1000000000000000000", "1e3"] {
            assert_eq!(number(other.as_bytes()), None, "{other}");
        }
        let read = lease(br#"{"durationInSecs":3,"lastRenewalTimestamp":17,"durationInSecs":4}"#).unwrap();
        assert_eq!(read, LeaseInfo { duration_secs: 4, last_renewal_timestamp: 17, ..LeaseInfo::default() });
        let read = lease(br#"{"serviceUpTimestamp":0,"registrationTimestamp":999999999999999999}"#).unwrap();
        assert_eq!((read.service_up_timestamp, read.registration_timestamp), (0, 999_999_999_999_999_999));
        for other in [
            "{}",
            "null",
            r#"{"durationInSecs":0}"#,
            r#"{"durationInSecs":3000000000}"#,
            r#"{"durationInSecs":"3"}"#,
            r#"{"durationInSecs": 3}"#,
            r#"{"durationInSecs":3"#,
            r#"{"durationInSecs":3}}"#,
            r#"{"durationInSecs":}"#,
            r#"{"durationInSecs":3,}"#,
            r#"{"durationInSecs":03}"#,
            r#"{"durationInSecs":1.5}"#,
            r#"{"evictionTimestamp":1000000000000000000}"#,
            r#"{"unknown":3}"#,
        ] {
            assert_eq!(lease(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn object_of_strings_is_read_in_order() {
        let read = |value: &'static str| {
            let mut entries = Vec::new();
            texts(value.as_bytes(), &mut entries).map(|()| entries)
        };
        assert_eq!(read("{}").unwrap(), []);
        assert_eq!(read(r#"{"b":"1","":"","b":"ä"}"#).unwrap(), [("b", "1"), ("", ""), ("b", "ä")]);
        for other in [
            "",
            "{",
            "[]",
            "{} ",
            r#"{"a":1}"#,
            r#"{"a":"1",}"#,
            r#"{"a":"1"}}"#,
            r#"{"a":"1""#,
            r#"{"a":"1"#,
            r#"{"a":"#,
            r#"{"a":"\"","b":"1"}"#,
            r#"{"\\":"1"}"#,
            r#"{"a" :"1"}"#,
            r#"{"a":"1""b":"2"}"#,
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
