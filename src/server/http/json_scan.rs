//! Scan of a JSON text for its depth and number of values, without decoding it.

use std::slice;

/// Maximum depth of a document, which no document of the protocol comes near.
const MAX_DEPTH: usize = 64;

/// Limit that a text exceeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Depth,
    Values,
}

/// Returns a lower bound for the number of values in a text, which need not be valid JSON: the
/// number of separators. Fails if the text is deeper than [`MAX_DEPTH`] or has more than `max`
/// values.
///
/// A decoded value can take many times the memory of its text: `"":"",` becomes an entry of a map.
/// The number of values bounds this memory for any document.
pub(super) fn count_values(text: &[u8], max: usize) -> Result<usize, Excess> {
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

/// Skips the rest of a string, its closing quote included.
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
    fn brackets_in_strings_do_not_count_as_depth() {
        let strings = format!(r#"{{"a":["{}","\"{}"]}}"#, "[".repeat(100), "{".repeat(100));
        assert_eq!(count_values(strings.as_bytes(), 10), Ok(2));
        assert_eq!(count_values("[".repeat(65).as_bytes(), 10), Err(Excess::Depth));
        assert_eq!(count_values("[]".repeat(1_000).as_bytes(), 10), Ok(1));
        assert_eq!(count_values(("[".repeat(64) + &"]".repeat(64)).as_bytes(), 10), Ok(1));
    }

    #[test]
    fn commas_in_strings_do_not_count_as_values() {
        assert_eq!(count_values(br#"{"a":",,,,","b":[1,2,{"c":3,"d":"\",,"}]}"#, 5), Ok(5));
        assert_eq!(count_values(b"1,2,3", 2), Err(Excess::Values));
    }
}
