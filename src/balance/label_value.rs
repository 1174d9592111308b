//! Comparison of the values of labels.

use std::collections::HashMap;

/// Key of the metadata with the version of an API in Spring.
pub(crate) const API_VERSION: &str = "API_VERSION";

/// Value of a label, in the form in which values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LabelValue<'v> {
    Text(&'v str),
    /// Major, minor and patch.
    Version([i32; 3]),
}

impl<'v> LabelValue<'v> {
    /// Reads a value of this label.
    ///
    /// Values of [`API_VERSION`] are compared as versions, as Spring does: `1`, `v1` and `1.0.0`
    /// are equal. A value that is no version is compared as text, like the values of all other
    /// labels.
    pub(super) fn new(key: &str, value: &'v str) -> Self {
        let version = if key == API_VERSION { version(value) } else { None };
        version.map_or(Self::Text(value), Self::Version)
    }
}

/// Parses one to three numbers, as Spring does: characters before the first digit are skipped, and
/// a missing number is 0.
fn version(value: &str) -> Option<[i32; 3]> {
    let (_, numbers) = value.split_at(value.find(|first: char| first.is_ascii_digit())?);
    let mut version = [0; 3];
    for (at, number) in numbers.split('.').enumerate() {
        // `parse` accepts a sign.
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        *version.get_mut(at)? = number.parse().ok().filter(|_| is_number)?;
    }
    Some(version)
}

/// Map from the values of one label.
pub(super) struct ByLabelValue<T> {
    texts: HashMap<Box<str>, T>,
    versions: HashMap<[i32; 3], T>,
}

impl<T> ByLabelValue<T> {
    pub(super) fn get(&self, value: LabelValue<'_>) -> Option<&T> {
        match value {
            LabelValue::Text(text) => self.texts.get(text),
            LabelValue::Version(version) => self.versions.get(&version),
        }
    }
}

impl<'v, T> FromIterator<(LabelValue<'v>, T)> for ByLabelValue<T> {
    fn from_iter<I: IntoIterator<Item = (LabelValue<'v>, T)>>(values: I) -> Self {
        let (mut texts, mut versions) = (HashMap::new(), HashMap::new());
        for (value, item) in values {
            match value {
                LabelValue::Text(text) => drop(texts.insert(text.into(), item)),
                LabelValue::Version(version) => drop(versions.insert(version, item)),
            }
        }
        Self { texts, versions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_equal(key: &str, a: &str, b: &str) -> bool {
        LabelValue::new(key, a) == LabelValue::new(key, b)
    }

    #[test]
    fn version_is_parsed_as_by_spring() {
        for (value, expected) in [
            ("0", [0, 0, 0]),
            ("0.3", [0, 3, 0]),
            ("4.5", [4, 5, 0]),
            ("6.7.8", [6, 7, 8]),
            ("v01", [1, 0, 0]),
            ("version-1.2", [1, 2, 0]),
            ("1.02.2147483647", [1, 2, i32::MAX]),
        ] {
            assert_eq!(version(value), Some(expected), "{value}");
        }
        for value in
            ["", "v", "1a", "1.0a", "1.0.0a", "1.0.0.", "1.0.0-", "1.", "1..0", "1.+1", "1.0.0.0", "1 ", "2147483648"]
        {
            assert_eq!(version(value), None, "{value}");
        }
    }

    #[test]
    fn api_versions_are_compared_by_value_and_other_labels_as_text() {
        for (a, b) in [("1", "1.0"), ("1", "v1.0.0"), ("1.2", "1.2.0"), ("v2", "2"), ("blue", "blue"), ("", "")] {
            assert!(are_equal(API_VERSION, a, b), "{a} {b}");
        }
        for (a, b) in [("1", "1.1"), ("1", "10"), ("1.0.1", "1"), ("1a", "1"), ("blue", "Blue"), ("", "0")] {
            assert!(!are_equal(API_VERSION, a, b), "{a} {b}");
        }
        assert!(!are_equal("version", "1", "1.0"));
    }
}
