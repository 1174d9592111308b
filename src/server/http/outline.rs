//! Outline of a JSON text: how deep it nests and how many values it has, found without decoding it.

use std::slice;

/// Maximum depth of a document. No document of the protocol is nearly as deep.
const MAX_DEPTH: usize = 64;

/// Reason why a text is not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Depth,
    Values,
}

/// Counts the values of a text that need not be JSON, at least: the separators between them. Stops
/// where it nests deeper than [`MAX_DEPTH`] or has more than `max` values.
///
/// What a decoder builds costs many times the bytes that it is built from: `"":"",` becomes an entry
/// of a map. The number of values bounds that, whatever the document.
pub(super) fn values(text: &[u8], max: usize) -> Result<usize, Excess> {
    let (mut depth, mut values) = (0usize, 1usize);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Excess::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => {
                values += 1;
                if values > max {
                    return Err(Excess::Values);
                }
            }
            _ => {}
        }
    }
    Ok(values)
}

/// Skips the rest of a string and the quote at its end.
fn skip_string(bytes: &mut slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.find(|byte| matches!(byte, b'"' | b'\\')) {
        if *byte == b'"' {
            break;
        }
        bytes.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_outside_of_strings() {
        let strings = format!(r#"{{"a":["{}","\"{}"]}}"#, "[".repeat(100), "{".repeat(100));
        assert_eq!(values(strings.as_bytes(), 10), Ok(2));
        assert_eq!(values("[".repeat(65).as_bytes(), 10), Err(Excess::Depth));
        assert_eq!(values("[]".repeat(1_000).as_bytes(), 10), Ok(1));
        assert_eq!(values(("[".repeat(64) + &"]".repeat(64)).as_bytes(), 10), Ok(1));
    }

    #[test]
    fn values_count_outside_of_strings() {
        assert_eq!(values(br#"{"a":",,,,","b":[1,2,{"c":3,"d":"\",,"}]}"#, 5), Ok(5));
        assert_eq!(values(b"1,2,3", 2), Err(Excess::Values));
    }
}
