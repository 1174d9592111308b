//! Which state of a list a client has: the tag of the answer, and what it sends back.

use http::HeaderValue;

use crate::server::bodies::{Encoding, Form, Variant};

/// Which revisions a tag counts: those of the registry, of the delta, or of one application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Registry,
    Delta,
    Application,
}

/// A strong tag: the same one means the same bytes. `run` tells a registry from others and from itself before a restart.
pub(super) fn tag(run: u64, kind: Kind, revision: u64, Variant { form, encoding }: Variant) -> HeaderValue {
    let kind = match kind {
        Kind::Registry => 'r',
        Kind::Delta => 'd',
        Kind::Application => 'a',
    };
    let form = match form {
        Form::Json => 'j',
        Form::CompactJson => 'c',
        #[cfg(feature = "xml")]
        Form::Xml => 'x',
        #[cfg(feature = "xml")]
        Form::CompactXml => 'y',
    };
    let encoding = match encoding {
        Encoding::Identity => 'i',
        Encoding::Gzip => 'g',
    };
    HeaderValue::try_from(format!("\"{run:x}-{kind}{revision:x}-{form}{encoding}\"")).expect("ASCII without controls")
}

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
        let variant = Variant { form: Form::Json, encoding: Encoding::Gzip };
        let tag = tag(0xab, Kind::Delta, 31, variant);
        assert_eq!(tag, r#""ab-d1f-jg""#);
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
