//! Readers of scalars that senders write with different types.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Value of any type. Objects and arrays are skipped and become [`Scalar::Other`].
pub(super) enum Scalar<'de> {
    Null,
    Bool(bool),
    Int(i64),
    /// Number beyond the range of [`Scalar::Int`].
    Large(u64),
    Float(f64),
    Text(Cow<'de, str>),
    Other,
}

impl<'de> Scalar<'de> {
    /// Returns a string. Numbers and flags are converted.
    pub(super) fn text(self) -> Option<Arc<str>> {
        self.word().map(Into::into)
    }

    /// Returns a string that is borrowed if possible. Numbers and flags are converted.
    pub(super) fn word(self) -> Option<Cow<'de, str>> {
        Some(match self {
            Self::Null | Self::Other => return None,
            Self::Bool(flag) => flag.to_string().into(),
            Self::Int(number) => number.to_string().into(),
            Self::Large(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
            Self::Text(text) => text,
        })
    }

    /// Returns a number, or the number in a string, without its fraction. Other strings count as 0,
    /// as in the Java reader.
    pub(super) fn number(self) -> Option<i64> {
        Some(match self {
            Self::Null | Self::Other => return None,
            Self::Bool(flag) => flag.into(),
            Self::Int(number) => number,
            Self::Large(_) => i64::MAX,
            Self::Float(number) => number as i64,
            Self::Text(text) => parse(text.trim()),
        })
    }

    /// Returns [`number`](Self::number) for a field of 32 bits, at most its limits.
    pub(super) fn int(self) -> Option<i32> {
        self.number().map(|n| n.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }

    /// Returns a flag. The string `true` in any case and whole numbers other than 0 are `true`;
    /// other strings and fractions are `false`, as in the Java reader.
    pub(super) fn flag(self) -> Option<bool> {
        Some(match self {
            Self::Null | Self::Other => return None,
            Self::Bool(flag) => flag,
            Self::Int(number) => number != 0,
            Self::Large(_) => true,
            Self::Float(_) => false,
            Self::Text(text) => text.trim().eq_ignore_ascii_case("true"),
        })
    }
}

impl From<u64> for Scalar<'_> {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Large(number), Self::Int)
    }
}

/// Parses a number like the Java reader: `"7.9"` is 7 and `"1e3"` is 1000.
fn parse(text: &str) -> i64 {
    let is_fraction = || text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'));
    text.parse().unwrap_or_else(|_| if is_fraction() { text.parse::<f64>().unwrap_or(0.0) as i64 } else { 0 })
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(value.into())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// Metadata value: a string, or the JSON of any other value as it was sent (`1.50` stays `1.50`).
pub(super) struct Verbatim(pub(super) Arc<str>);

impl<'de> Deserialize<'de> for Verbatim {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            None => return Ok(Self(raw.into())),
            Some(text) if !text.contains('\\') => return Ok(Self(text.into())),
            Some(_) => {}
        }
        serde_json::from_str::<Cow<'_, str>>(raw).map(|text| Self(text.into())).map_err(D::Error::custom)
    }
}
