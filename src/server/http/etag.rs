//! Whether a client has a list already: the tags that it sends back.

use http::HeaderValue;

/// Whether the values of `If-None-Match` name this tag. A proxy may have made it weak.
pub(super) fn matches(known: &[HeaderValue], tag: &HeaderValue) -> bool {
    known.iter().any(|value| {
        let mut tags = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        tags.any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_one_by_one() {
        let tag = HeaderValue::from_static(r#""ab-d1f-jg""#);
        for (known, expected) in [
            (r#""ab-d1f-jg""#, true),
            (r#"W/"ab-d1f-jg""#, true),
            (r#""x" , "ab-d1f-jg""#, true),
            ("*", true),
            (r#""ab-d1f-ji""#, false),
            ("ab-d1f-jg", false),
            ("", false),
        ] {
            assert_eq!(matches(&[HeaderValue::from_static(known)], &tag), expected, "{known}");
        }
        assert!(!matches(&[], &tag));
    }
}
