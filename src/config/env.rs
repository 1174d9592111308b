use std::fmt;
use std::time::Duration;

/// Where settings are read from: the process environment, or a table in a test.
pub(crate) struct Env<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    #[cfg(feature = "peers")]
    names: &'a dyn Fn() -> Vec<String>,
}

impl Env<'static> {
    /// The environment of this process. A variable that is not Unicode counts as unset.
    pub(crate) fn process() -> Self {
        Self {
            lookup: &|name| std::env::var(name).ok(),
            #[cfg(feature = "peers")]
            names: &|| std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
        }
    }
}

impl<'a> Env<'a> {
    #[cfg(test)]
    pub(crate) fn table(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            #[cfg(feature = "peers")]
            names: &Vec::new,
        }
    }

    #[cfg(all(test, feature = "peers"))]
    pub(crate) fn with_names(self, names: &'a dyn Fn() -> Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// The value of a Spring property, and the variable that held it. An empty variable counts as unset.
    fn find(&self, property: &str) -> Option<(String, String)> {
        let upper = property.to_ascii_uppercase().replace('.', "_");
        [upper.replace('-', ""), upper.replace('-', "_")]
            .into_iter()
            .find_map(|name| (self.lookup)(&name).filter(|value| !value.trim().is_empty()).map(|value| (name, value)))
    }

    pub(crate) fn text(&self, property: &str) -> Option<String> {
        self.find(property).map(|(_, value)| value.trim().to_owned())
    }

    /// The keys that variables give of a property that is a map, in lower case: `eu` for `EUREKA_SERVER_URLS_EU`.
    #[cfg(feature = "peers")]
    pub(crate) fn keys(&self, property: &str) -> Vec<String> {
        let start = property.to_ascii_uppercase().replace('.', "_").replace('-', "") + "_";
        let names = (self.names)();
        let keys = names.iter().filter_map(|name| name.strip_prefix(&start)).filter(|key| !key.is_empty());
        keys.map(str::to_ascii_lowercase).collect()
    }

    pub(crate) fn seconds(&self, property: &str) -> Result<Option<Duration>, InvalidSetting> {
        let Some((name, value)) = self.find(property) else { return Ok(None) };
        match value.trim().parse::<u32>() {
            Ok(seconds @ 1..) => Ok(Some(Duration::from_secs(seconds.into()))),
            _ => Err(InvalidSetting { name, value, expected: "whole seconds, at least 1" }),
        }
    }

    #[cfg(feature = "client")]
    pub(crate) fn flag(&self, property: &str) -> Result<Option<bool>, InvalidSetting> {
        let Some((name, value)) = self.find(property) else { return Ok(None) };
        match value.trim().to_ascii_lowercase().parse() {
            Ok(flag) => Ok(Some(flag)),
            Err(_) => Err(InvalidSetting { name, value, expected: "true or false" }),
        }
    }
}

/// A variable whose value cannot be what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    name: String,
    value: String,
    expected: &'static str,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "environment variable {} is '{}': expected {}", self.name, self.value, self.expected)
    }
}

impl std::error::Error for InvalidSetting {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_name_are_read() {
        for name in ["EUREKA_CLIENT_FETCHINTERVAL", "EUREKA_CLIENT_FETCH_INTERVAL"] {
            let lookup = |asked: &str| (asked == name).then(|| " 7 ".to_owned());
            let found = Env::table(&lookup).seconds("eureka.client.fetch-interval");
            assert_eq!(found, Ok(Some(Duration::from_secs(7))));
        }
    }

    #[test]
    fn a_bad_value_names_the_variable_and_what_was_expected() {
        let lookup = |_: &str| Some("30s".to_owned());
        let error = Env::table(&lookup).seconds("eureka.client.fetch-interval").unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable EUREKA_CLIENT_FETCHINTERVAL is '30s': expected whole seconds, at least 1"
        );
        let lookup = |_: &str| Some("0".to_owned());
        assert!(Env::table(&lookup).seconds("x").is_err());
    }

    #[test]
    fn an_empty_variable_is_unset() {
        let lookup = |_: &str| Some(" ".to_owned());
        assert_eq!(Env::table(&lookup).seconds("x"), Ok(None));
    }
}
