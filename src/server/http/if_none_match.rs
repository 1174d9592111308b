//! Conditional requests with `If-None-Match`.

use http::HeaderValue;

/// Returns true if one of the header's values is this etag. Weak values match, since a proxy may
/// have weakened the etag.
pub(in crate::server) fn matches<'a>(values: impl IntoIterator<Item = &'a HeaderValue>, etag: &HeaderValue) -> bool {
    values.into_iter().any(|value| {
        let mut tags = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        tags.any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_matches_any_value_of_the_header() {
        let etag = HeaderValue::from_static(r#""ab-d1f-jg""#);
        for (value, expected) in [
            (r#""ab-d1f-jg""#, true),
            (r#"W/"ab-d1f-jg""#, true),
            (r#""x" , "ab-d1f-jg""#, true),
            ("*", true),
            (r#""ab-d1f-ji""#, false),
            ("ab-d1f-jg", false),
            ("", false),
        ] {
            assert_eq!(matches(&[HeaderValue::from_static(value)], &etag), expected, "{value}");
        }
        assert!(!matches(&[], &etag));
    }
}
