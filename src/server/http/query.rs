//! Parameters of a query.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Returns the decoded parameters of a query in their order.
pub(in crate::server) fn pairs(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

/// Returns the first value of a parameter.
pub(super) fn first<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

fn decode(text: &str) -> Cow<'_, str> {
    // The query of a heartbeat is plain.
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_in_order_and_the_first_of_a_name_counts() {
        let query = Some("a=1&b=x+y%26z&a=2&c&=v&%C3%A4=%2B");
        let all: Vec<_> = pairs(query).map(|(k, v)| format!("{k}|{v}")).collect();
        assert_eq!(all, ["a|1", "b|x y&z", "a|2", "c|", "|v", "ä|+"]);
        assert_eq!(first(query, "a").as_deref(), Some("1"));
        assert_eq!(first(query, "d"), None);
        assert_eq!(pairs(None).count(), 0);
    }
}
