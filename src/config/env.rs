use std::fmt;
use std::time::Duration;

use super::names::{after, nearest, relaxed};

/// Source of settings: the process environment, or a table in a test.
pub(crate) struct Env<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    names: &'a dyn Fn() -> Vec<String>,
}

impl Env<'static> {
    /// Reads the environment of this process.
    pub(crate) fn process() -> Self {
        Self {
            // A value that is not Unicode gets a replacement character, which `checked` refuses.
            lookup: &|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()),
            names: &|| std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
        }
    }
}

impl<'a> Env<'a> {
    #[cfg(test)]
    pub(crate) fn table(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, names: &Vec::new }
    }

    #[cfg(test)]
    pub(crate) fn with_names(self, names: &'a dyn Fn() -> Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// Returns the name and value of the variable that holds a Spring property. An empty variable
    /// counts as unset.
    ///
    /// Names are compared as Spring does, without regard to case, dots, dashes and underscores:
    /// `EUREKA_CLIENT_REGISTERWITHEUREKA`, `EUREKA_CLIENT_REGISTER_WITH_EUREKA` and
    /// `eureka.client.registerWithEureka` are one setting. If several are set, the first of these
    /// forms has precedence.
    fn find(&self, property: &str) -> Result<Option<(String, String)>, InvalidSetting> {
        let upper = property.to_ascii_uppercase().replace('.', "_");
        let wanted = relaxed(property);
        let mut others = (self.names)();
        others.retain(|name| relaxed(name) == wanted);
        others.sort();
        let found = [upper.replace('-', ""), upper.replace('-', "_")]
            .into_iter()
            .chain(others)
            .find_map(|name| (self.lookup)(&name).filter(|value| !value.trim().is_empty()).map(|value| (name, value)));
        found.map(|(name, value)| checked(name, value)).transpose()
    }

    pub(crate) fn text(&self, property: &str) -> Result<Option<String>, InvalidSetting> {
        Ok(self.find(property)?.map(|(_, value)| value.trim().to_owned()))
    }

    /// Returns the entries of a property that is a map, as Spring reads them.
    ///
    /// The key of a variable is converted to lower case, with dots for underscores. The key in a
    /// dotted name stays unchanged: `eureka.instance.metadata-map.gRPC_port`.
    pub(crate) fn map(&self, property: &str) -> Result<Vec<(String, String)>, InvalidSetting> {
        Ok(self.entries(property)?.into_iter().map(|(_, key, value)| (key, value)).collect())
    }

    /// Returns the entries of a [map](Self::map) as variable, key and value.
    pub(crate) fn entries(&self, property: &str) -> Result<Vec<(String, String, String)>, InvalidSetting> {
        let mut entries = Vec::new();
        let mut names = (self.names)();
        names.sort();
        for name in names {
            let Some(rest) = after(property, &name).filter(|rest| rest.starts_with(['.', '_', '['])) else { continue };
            let key = if name.contains('.') {
                rest.trim_start_matches(['.', '[']).trim_end_matches(']').to_owned()
            } else {
                rest[1..].to_ascii_lowercase().replace('_', ".")
            };
            let value = (self.lookup)(&name).filter(|value| !key.is_empty() && !value.trim().is_empty());
            if let Some(value) = value {
                let (name, value) = checked(name, value)?;
                entries.push((name, key, value.trim().to_owned()));
            }
        }
        Ok(entries)
    }

    pub(crate) fn port(&self, property: &str) -> Result<Option<u16>, InvalidSetting> {
        let Some((name, value)) = self.find(property)? else { return Ok(None) };
        match value.trim().parse() {
            Ok(port @ 1..) => Ok(Some(port)),
            _ => Err(InvalidSetting { name, value: Some(value), expected: "a port, 1 to 65535" }),
        }
    }

    pub(crate) fn seconds(&self, property: &str) -> Result<Option<Duration>, InvalidSetting> {
        let Some((name, value)) = self.find(property)? else { return Ok(None) };
        match value.trim().parse::<u32>() {
            Ok(seconds @ 1..) => Ok(Some(Duration::from_secs(seconds.into()))),
            _ => Err(InvalidSetting { name, value: Some(value), expected: "whole seconds, at least 1" }),
        }
    }

    pub(crate) fn flag(&self, property: &str) -> Result<Option<bool>, InvalidSetting> {
        Ok(self.switch(property)?.map(|(_, flag)| flag))
    }

    /// Returns the variable that holds a flag, and its value.
    pub(crate) fn switch(&self, property: &str) -> Result<Option<(String, bool)>, InvalidSetting> {
        let Some((name, value)) = self.find(property)? else { return Ok(None) };
        match boolean(value.trim()) {
            Some(flag) => Ok(Some((name, flag))),
            None => Err(InvalidSetting { name, value: Some(value), expected: "true or false" }),
        }
    }

    /// Returns the variables that are set, ordered by name, without those that Kubernetes sets for
    /// a service.
    #[cfg(feature = "server")]
    pub(crate) fn set(&self) -> Vec<(String, String)> {
        let mut names = (self.names)();
        names.sort();
        let values = names.into_iter().filter_map(|name| (self.lookup)(&name).map(|value| (name, value)));
        values.filter(|(name, value)| !value.trim().is_empty() && !is_service_link(name, value)).collect()
    }

    /// Returns the variables that are set and have no effect: those that begin with `prefix`
    /// (`eureka`) and are not in `read`, and those in `unsupported`, which holds the reasons.
    ///
    /// All names are names of properties. A name that ends in `*`, or in a part like `<zone>`,
    /// stands for all names with the same beginning.
    pub(crate) fn unused<'k>(
        &self,
        prefix: &str,
        read: &[&'k str],
        unsupported: &[(&str, &'k str)],
    ) -> Vec<Unused<'k>> {
        let mut names = (self.names)();
        names.sort();
        let unused = names.into_iter().filter_map(|variable| {
            let value = (self.lookup)(&variable).filter(|value| !value.trim().is_empty())?;
            if read.iter().any(|known| covers(known, &variable)) || is_service_link(&variable, &value) {
                return None;
            }
            if let Some((_, why)) = unsupported.iter().find(|(known, _)| covers(known, &variable)) {
                return Some(Unused { variable, why: Why::Unsupported(why) });
            }
            after(prefix, &variable).filter(|rest| rest.starts_with(['.', '_']))?;
            let nearest = nearest(&variable, read.iter().copied());
            Some(Unused { variable, why: Why::Unknown { nearest } })
        });
        unused.collect()
    }

    /// Logs a warning for each of the [`unused`](Self::unused) variables, without their values.
    pub(crate) fn warn_of_unused(&self, prefix: &str, read: &[&str], unsupported: &[(&str, &str)]) {
        for unused in self.unused(prefix, read, unsupported) {
            tracing::warn!("environment variable without effect: {unused}");
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

/// Returns `true` if `known`, which may end in a wildcard, covers this name.
pub(crate) fn covers(known: &str, name: &str) -> bool {
    match known.split_once(['*', '<']) {
        Some((start, _)) => {
            after(start, name).is_some_and(|rest| !start.ends_with('.') || rest.starts_with(['.', '_', '[']))
        }
        None => relaxed(known) == relaxed(name),
    }
}

/// Returns `true` for the variables that Kubernetes sets in containers for a service named `eureka`
/// or `eureka-...`.
fn is_service_link(variable: &str, value: &str) -> bool {
    let numbered = |text: &str| text.split('_').next().is_some_and(|port| port.parse::<u16>().is_ok());
    variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_SERVICE_PORT")
        || variable.contains("_SERVICE_PORT_")
        || variable.ends_with("_PORT") && value.contains("://")
        || variable.match_indices("_PORT_").any(|(at, found)| numbered(&variable[at + found.len()..]))
}

/// Refuses a value that no setting can have.
fn checked(name: String, value: String) -> Result<(String, String), InvalidSetting> {
    // The value may be a URL with a password.
    if value.contains("${") {
        let expected = "a value without placeholders, since ${...} is not resolved here";
        return Err(InvalidSetting { name, value: None, expected });
    }
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(InvalidSetting { name, value: None, expected: "Unicode text" });
    }
    Ok((name, value))
}

/// Variable that is set and has no effect. Its `Display` is a clause for a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unused<'k> {
    variable: String,
    why: Why<'k>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why<'k> {
    Unknown {
        nearest: Option<&'k str>,
    },
    /// Spring reads it.
    Unsupported(&'k str),
}

impl fmt::Display for Unused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)?;
        match self.why {
            Why::Unknown { nearest: None } => f.write_str(" is no setting"),
            Why::Unknown { nearest: Some(nearest) } => write!(f, " is no setting; did you mean {nearest}?"),
            Why::Unsupported(why) => write!(f, " {why}"),
        }
    }
}

/// Error of an environment variable with an invalid value.
#[derive(Clone, PartialEq, Eq)]
pub struct InvalidSetting {
    name: String,
    /// `None` if it may hold a secret.
    value: Option<String>,
    expected: &'static str,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, expected } = self;
        match value {
            Some(value) => write!(f, "environment variable {name} is '{value}': expected {expected}"),
            None => write!(f, "environment variable {name} is invalid: expected {expected}"),
        }
    }
}

/// Contains the message, since a `main` that returns an error prints its `Debug`.
impl fmt::Debug for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvalidSetting({self})")
    }
}

impl std::error::Error for InvalidSetting {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn property_is_found_in_every_relaxed_form() {
        for name in [
            "EUREKA_CLIENT_FETCHINTERVAL",
            "EUREKA_CLIENT_FETCH_INTERVAL",
            "eureka_client_fetch_interval",
            "eureka.client.fetch-interval",
            "eureka.client.fetchInterval",
        ] {
            let lookup = |asked: &str| (asked == name).then(|| " 7 ".to_owned());
            let names = || vec!["HOME".to_owned(), name.to_owned()];
            let found = Env::table(&lookup).with_names(&names).seconds("eureka.client.fetch-interval");
            assert_eq!(found, Ok(Some(Duration::from_secs(7))), "{name}");
        }
    }

    #[test]
    fn invalid_value_is_an_error_with_the_variable_and_the_expectation() {
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
    fn empty_variable_counts_as_unset() {
        let lookup = |_: &str| Some(" ".to_owned());
        assert_eq!(Env::table(&lookup).seconds("x"), Ok(None));
    }

    #[test]
    fn placeholder_is_an_error_without_the_value() {
        for value in ["${HOST}", "http://u:secret@${HOST}:8761/eureka/", "a${b:secret}"] {
            let lookup = |_: &str| Some(value.to_owned());
            let error = Env::table(&lookup).text("eureka.instance.hostname").unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("EUREKA_INSTANCE_HOSTNAME") && text.contains("not resolved"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn value_that_is_not_unicode_is_an_error() {
        let lookup = |_: &str| Some("h\u{FFFD}".to_owned());
        assert!(Env::table(&lookup).text("x").is_err());
    }

    #[test]
    fn unused_variables_are_reported_with_the_nearest_setting() {
        let set = [
            "EUREKA_CLIENT_ENABLED",
            "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE",
            "EUREKA_CLIENT_FETCH_REGISTY",
            "EUREKA_INSTANCE_VIRTUALHOSTNAME",
            "eureka.instnace.hostname",
            "EUREKA_HOST",
            "EUREKA_CLIENT_EMPTY",
            "EUREKA_SERVICE_HOST",
            "EUREKA_PORT",
            "EUREKA_SERVER_PORT_8761_TCP_ADDR",
            "EUREKASIDE_X",
            "SERVER_PORT",
            "PATH",
        ];
        let lookup = |name: &str| match name {
            "EUREKA_CLIENT_EMPTY" => Some(" ".to_owned()),
            "EUREKA_PORT" => Some("tcp://10.0.0.1:8761".to_owned()),
            name => set.contains(&name).then(|| "x".to_owned()),
        };
        let names = || set.map(str::to_owned).to_vec();
        let read = [
            "eureka.client.enabled",
            "eureka.client.fetch-registry",
            "eureka.client.service-url.<zone>",
            "eureka.instance.hostname",
        ];
        let unsupported =
            [("eureka.instance.virtual-host-name", "is not supported yet"), ("server.port", "is the listener's")];
        let env = Env::table(&lookup).with_names(&names);
        let unused: Vec<_> = env.unused("eureka", &read, &unsupported).iter().map(ToString::to_string).collect();
        assert_eq!(
            unused,
            [
                "EUREKA_CLIENT_FETCH_REGISTY is no setting; did you mean eureka.client.fetch-registry?",
                "EUREKA_HOST is no setting",
                "EUREKA_INSTANCE_VIRTUALHOSTNAME is not supported yet",
                "SERVER_PORT is the listener's",
                "eureka.instnace.hostname is no setting; did you mean eureka.instance.hostname?",
            ]
        );
    }
}
