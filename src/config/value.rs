//! Values of settings: their text, and their conversions.

use std::fmt::Display;
use std::time::Duration;

use super::InvalidSetting;
use super::mask::is_secret;
use super::source::{Entry, Origin, Place};
#[cfg(feature = "client")]
use crate::secret::Secret;

/// Unit of a setting: the kind of its values, and the meaning of a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "which units the tables use depends on the features")]
pub(crate) enum Unit {
    Text,
    /// Text that a file may set to nothing, in a map.
    TextOrNothing,
    Flag,
    /// Duration. A bare number is in seconds.
    Seconds,
    /// Duration. A bare number is in milliseconds.
    Millis,
    Port,
    Count,
    /// Number between 0 and 1.
    Share,
    /// Texts, separated by commas or as a list.
    List,
    /// URLs, separated by commas or as a list.
    Urls,
    /// File or resource: a path, `file:PATH` or `file:///PATH`.
    Path,
    /// Password or token. Never shown.
    Secret,
}

impl Unit {
    /// Returns the unit as the tables of the documentation write it.
    #[allow(dead_code, reason = "the table of the documentation is made by a test")]
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Text | Self::TextOrNothing => "text",
            Self::Flag => "true or false",
            Self::Seconds => "seconds",
            Self::Millis => "milliseconds",
            Self::Port => "port",
            Self::Count => "number",
            Self::Share => "0 to 1",
            Self::List => "list",
            Self::Urls => "URLs",
            Self::Path => "path",
            Self::Secret => "secret",
        }
    }
}

/// Value of a setting, with placeholders resolved.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// Name as written in the source.
    name: String,
    /// Key of the user's, for a setting that is a map.
    pub(super) key: String,
    text: String,
    /// Elements of a value that is a list in its source.
    pub(super) items: Option<Vec<String>>,
    pub(super) origin: Origin,
    unit: Unit,
    is_secret: bool,
    is_variable: bool,
}

#[allow(dead_code, reason = "which conversions the tables use depends on the features")]
impl Value {
    /// Creates the value of an entry. It is secret if the entry's name is, or if a placeholder
    /// brought in a secret.
    pub(super) fn new(entry: &Entry, text: String, unit: Unit, from_secret: bool) -> Self {
        let is_secret = from_secret || unit == Unit::Secret || is_secret(&entry.name);
        Self {
            name: entry.name.clone(),
            key: String::new(),
            text,
            items: None,
            origin: entry.origin.clone(),
            unit,
            is_secret,
            is_variable: entry.is_variable(),
        }
    }

    /// Returns the text without blanks around it.
    pub(crate) fn text(&self) -> &str {
        self.text.trim()
    }

    /// Returns the text as the source has it, since blanks may be part of a secret.
    pub(crate) fn exact(&self) -> &str {
        &self.text
    }

    /// Returns `true` if the value may hold a secret.
    pub(super) fn is_secret(&self) -> bool {
        self.is_secret
    }

    /// Returns a password or token, with the blanks around it.
    #[cfg(feature = "client")]
    pub(crate) fn secret(&self) -> Secret {
        Secret::new(self.exact())
    }

    /// Returns the user's key of a setting that is a map.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns the same value with another key of the user's.
    #[cfg(feature = "client")]
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// Returns `true` if the user's key comes from the name of a variable, which has no dashes.
    pub(crate) fn has_variable_key(&self) -> bool {
        self.is_variable
    }

    /// Returns `true` for an empty value that counts as unset.
    pub(super) fn is_blank(&self) -> bool {
        self.text().is_empty() && self.unit != Unit::TextOrNothing
    }

    /// Returns the elements of a value that is a list in its source.
    pub(crate) fn elements(&self) -> Option<&[String]> {
        self.items.as_deref()
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place { name: &self.name, origin: &self.origin }
    }

    /// Returns name and meaning for a message: `EUREKA_CLIENT_ENABLED=false`.
    pub(crate) fn shown_as(&self, meaning: &str) -> String {
        match &self.origin {
            Origin::File { .. } => format!("{}={meaning} in {}", self.name, self.origin),
            _ => format!("{}={meaning}", self.name),
        }
    }

    /// Creates the error of a value that is not as expected.
    pub(crate) fn invalid(&self, expected: impl Display) -> InvalidSetting {
        let shown = super::mask::masked_urls(self.text());
        InvalidSetting::expected(&self.place(), expected, (!self.is_secret).then_some(&*shown))
    }

    /// Creates the error of a value that another part of the crate refused. The cause must not
    /// contain a secret.
    pub(crate) fn refused(&self, cause: impl Display) -> InvalidSetting {
        InvalidSetting::refused(&self.place(), cause)
    }

    pub(crate) fn flag(&self) -> Result<bool, InvalidSetting> {
        boolean(self.text()).ok_or_else(|| self.invalid("true or false"))
    }

    /// Returns a duration, whose bare numbers are in the unit of the setting.
    pub(crate) fn duration(&self) -> Result<Duration, InvalidSetting> {
        let (unit, expected) = match self.unit {
            Unit::Millis => (Duration::from_millis(1), "milliseconds"),
            _ => (Duration::from_secs(1), "seconds"),
        };
        duration(self.text(), unit).ok_or_else(|| self.invalid(expected))
    }

    /// Returns a duration that is not zero.
    pub(crate) fn positive_duration(&self) -> Result<Duration, InvalidSetting> {
        let duration = self.duration()?;
        if duration.is_zero() { Err(self.invalid("more than zero")) } else { Ok(duration) }
    }

    /// Returns a duration of at least one second, in whole seconds.
    pub(crate) fn whole_seconds(&self) -> Result<Duration, InvalidSetting> {
        let duration = self.positive_duration()?;
        if duration.subsec_nanos() != 0 { Err(self.invalid("whole seconds")) } else { Ok(duration) }
    }

    pub(crate) fn port(&self) -> Result<u16, InvalidSetting> {
        self.text().parse().ok().filter(|&port| port != 0).ok_or_else(|| self.invalid("a port, 1 to 65535"))
    }

    pub(crate) fn count(&self) -> Result<usize, InvalidSetting> {
        self.text().parse().map_err(|_| self.invalid("a whole number"))
    }

    pub(crate) fn number(&self) -> Result<f64, InvalidSetting> {
        self.text().parse().map_err(|_| self.invalid("a number like 0.85"))
    }

    /// Returns a number from 0 to 1, which may be written as a percentage.
    pub(crate) fn share(&self) -> Result<f64, InvalidSetting> {
        let parsed = match self.text().strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
            None => self.text().parse::<f64>(),
        };
        let share = parsed.ok().filter(|share| (0.0..=1.0).contains(share));
        share.ok_or_else(|| self.invalid("a number from 0 to 1, such as 0.85"))
    }

    /// Returns the elements of a list: those of a list in a file, else those between commas.
    pub(crate) fn list(&self) -> Vec<&str> {
        let trimmed = |item: &'_ str| !item.is_empty();
        match &self.items {
            Some(items) => items.iter().map(|item| item.trim()).filter(|item| trimmed(item)).collect(),
            None => self.text().split(',').map(str::trim).filter(|item| trimmed(item)).collect(),
        }
    }
}

/// Parses a boolean as Spring does, without regard to case.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match &*text.to_ascii_lowercase() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Parses a duration as Spring does: `30` in this unit, `30s`, `500ms` or `PT30S`.
pub(crate) fn duration(text: &str, unit: Duration) -> Option<Duration> {
    let text = text.trim().strip_prefix('+').unwrap_or(text.trim());
    let letters = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(letters);
    if digits.is_empty() {
        return iso_duration(text);
    }
    let factor = match &*suffix.to_ascii_lowercase() {
        "" => unit,
        "ns" => Duration::from_nanos(1),
        "us" => Duration::from_micros(1),
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(86_400),
        _ => return None,
    };
    let nanos = digits.parse::<u128>().ok()?.checked_mul(factor.as_nanos())?;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// Parses a duration of ISO 8601: `PT30S`, `P1DT2H3M4.5S`.
fn iso_duration(text: &str) -> Option<Duration> {
    let upper = text.to_ascii_uppercase();
    let mut rest = upper.strip_prefix('P')?;
    let (mut total, mut in_time, mut parts) = (Duration::ZERO, false, 0);
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T').filter(|_| !in_time) {
            (rest, in_time) = (time, true);
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = (&rest[..end], rest.as_bytes()[end]);
        rest = &rest[end + 1..];
        let seconds = match (unit, in_time) {
            (b'D', false) => 86_400,
            (b'H', true) => 3600,
            (b'M', true) => 60,
            (b'S', true) => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if number.contains('.') && (unit != b'S' || fraction.len() > 9) {
            return None;
        }
        let nanos = format!("{fraction:0<9}").parse().ok()?;
        let whole = whole.parse::<u64>().ok()?.checked_mul(seconds)?;
        total = total.checked_add(Duration::new(whole, nanos))?;
        parts += 1;
    }
    (parts > 0).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_read_in_each_form() {
        let second = Duration::from_secs(1);
        for (text, millis) in [
            ("30", 30_000),
            ("+30", 30_000),
            ("30s", 30_000),
            ("30S", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("1000us", 1),
            ("1000000ns", 1),
            ("PT30S", 30_000),
            ("pt1m", 60_000),
            ("PT1.5S", 1500),
            ("P1DT2H3M4S", 93_784_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text, second), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("30", Duration::from_millis(1)), Some(Duration::from_millis(30)));
        for text in [
            "soon",
            "",
            "-1",
            "1.5",
            "30 s",
            "3w",
            "P",
            "PT",
            "P1H",
            "PT1",
            "PT1.5M",
            "1e3",
            "99999999999999999999999999999999999d",
        ] {
            assert_eq!(duration(text, second), None, "{text}");
        }
    }
}
