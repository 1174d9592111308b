//! Credentials in the `Authorization` header of a request.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Maximum length of a value of the header. A token of an identity provider with many roles has up
/// to 8 KiB.
const MAX_VALUE: usize = 16 * 1024;
/// Maximum length of a name or a password.
const MAX_BASIC: usize = 1024;

/// Some clients leave out the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials of a request. Its `Debug` shows no secret.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    Basic { user: String, password: String },
    Bearer(&'a str),
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic ***",
            Self::Bearer(_) => "Bearer ***",
        })
    }
}

/// Reason for which a header is no credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Malformed {
    Several,
    TooLong,
    NoText,
    Scheme,
    Base64,
    NoColon,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Several => "there are several Authorization headers",
            Self::TooLong => "the credentials are too long",
            Self::NoText => "the Authorization header is not ASCII text",
            Self::Scheme => "the Authorization header has neither the scheme Basic nor Bearer",
            Self::Base64 => "the Basic credentials are not valid Base64 of UTF-8",
            Self::NoColon => "the Basic credentials have no colon between name and password",
        })
    }
}

/// Returns the value of the one `Authorization` header, or `None` if there is no such header.
pub(super) fn header(headers: &HeaderMap) -> Result<Option<&[u8]>, Malformed> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed::Several);
    }
    if value.len() > MAX_VALUE {
        return Err(Malformed::TooLong);
    }
    Ok(Some(value.as_bytes()))
}

/// Scheme and text of credentials that are not decoded. Those of the same credentials are equal,
/// however the header is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sent<'a> {
    Basic(&'a str),
    Bearer(&'a str),
}

/// Splits the value of an `Authorization` header.
pub(super) fn split(value: &[u8]) -> Result<Sent<'_>, Malformed> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.is_ascii()).ok_or(Malformed::NoText)?;
    let (scheme, rest) = text.trim().split_once(' ').ok_or(Malformed::Scheme)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Ok(Sent::Bearer(rest));
    }
    if !scheme.eq_ignore_ascii_case("Basic") {
        return Err(Malformed::Scheme);
    }
    Ok(Sent::Basic(rest.trim_end_matches('=')))
}

/// Decodes credentials.
pub(super) fn decode(sent: Sent<'_>) -> Result<Credentials<'_>, Malformed> {
    let rest = match sent {
        Sent::Bearer(token) => return Ok(Credentials::Bearer(token)),
        Sent::Basic(rest) => rest,
    };
    let decoded = BASE64.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(Malformed::Base64)?;
    let (user, password) = decoded.split_once(':').ok_or(Malformed::NoColon)?;
    if user.len() > MAX_BASIC || password.len() > MAX_BASIC {
        return Err(Malformed::TooLong);
    }
    Ok(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parse(value: &[u8]) -> Result<Credentials<'_>, Malformed> {
        decode(split(value)?)
    }

    #[test]
    fn same_credentials_are_equal_however_they_are_written() {
        let is_same = |one: &[u8], other: &[u8]| split(one).ok().unwrap() == split(other).ok().unwrap();
        for other in ["Basic dTpwYQ", "bAsIc dTpwYQ==", " Basic   dTpwYQ=  "] {
            assert!(is_same(b"Basic dTpwYQ==", other.as_bytes()), "{other}");
        }
        assert!(is_same(b"Bearer a.b", b"BEARER  a.b "));
        assert!(!is_same(b"Bearer dTpwYQ", b"Basic dTpwYQ") && !is_same(b"Bearer a", b"Bearer a="));
    }

    fn basic(text: &[u8]) -> Vec<u8> {
        format!("Basic {}", BASE64.encode(text)).into_bytes()
    }

    #[test]
    fn credentials_are_read() {
        let expected = |user: &str, password: &str| {
            Ok(Credentials::Basic { user: user.to_owned(), password: password.to_owned() })
        };
        assert_eq!(parse(&basic(b"user:pass")), expected("user", "pass"));
        assert_eq!(parse(&basic("ü:a:b".as_bytes())), expected("ü", "a:b"));
        assert_eq!(parse(b"bAsIc   dXNlcjpwYXNz "), expected("user", "pass"));
        assert_eq!(parse(b"Basic dTpw"), expected("u", "p"), "without padding");
        assert_eq!(parse(b"BEARER a.b.c"), Ok(Credentials::Bearer("a.b.c")));
        assert_eq!(parse(b"Bearer "), Err(Malformed::Scheme));
    }

    #[test]
    fn malformed_credentials_are_refused_with_their_cause() {
        for (value, expected) in [
            (b"".to_vec(), Malformed::Scheme),
            (b"Basic".to_vec(), Malformed::Scheme),
            (b"Digest username=x".to_vec(), Malformed::Scheme),
            (b"Basic !!!".to_vec(), Malformed::Base64),
            (basic(b"\xff\xfe:x"), Malformed::Base64),
            (basic(b"user"), Malformed::NoColon),
            (b"Basic \xff".to_vec(), Malformed::NoText),
            (basic(&[&[b'x'; 2000][..], b":p"].concat()), Malformed::TooLong),
        ] {
            assert_eq!(parse(&value), Err(expected), "{}", String::from_utf8_lossy(&value));
        }
    }

    #[test]
    fn header_is_one_and_bounded() {
        let mut headers = HeaderMap::new();
        assert_eq!(header(&headers), Ok(None));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(header(&headers), Ok(Some(&b"Bearer a"[..])));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(header(&headers), Err(Malformed::Several));
        headers.insert(AUTHORIZATION, HeaderValue::try_from("x".repeat(MAX_VALUE + 1)).unwrap());
        assert_eq!(header(&headers), Err(Malformed::TooLong));
    }
}
