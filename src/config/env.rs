use super::InvalidSetting;
use super::names::{after, relaxed};
use super::report::is_service_link;
use super::source::{Origin, Place};

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

    /// Returns the variables that are set, ordered by name, without those that Kubernetes sets for
    /// a service.
    pub(crate) fn set(&self) -> Vec<(String, String)> {
        let mut names = (self.names)();
        names.sort();
        let values = names.into_iter().filter_map(|name| (self.lookup)(&name).map(|value| (name, value)));
        values.filter(|(name, value)| !value.trim().is_empty() && !is_service_link(name, value)).collect()
    }
}

/// Refuses a value that no setting can have.
fn checked(name: String, value: String) -> Result<(String, String), InvalidSetting> {
    let place = Place { name: &name, origin: &Origin::Variable };
    // The value may be a URL with a password.
    if value.contains("${") {
        let expected = "a value without placeholders, since ${...} is not resolved here";
        return Err(InvalidSetting::expected(&place, expected, None));
    }
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(InvalidSetting::expected(&place, "Unicode text", None));
    }
    Ok((name, value))
}
