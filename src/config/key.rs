//! Keys of settings: one row per key, from which everything else is derived.

#[cfg(feature = "server")]
use super::names::relaxed;
use super::names::{covers, map_parts, rest_after, uniform};
use super::source::Entry;
use super::value::{Unit, Value};
use super::{InvalidSetting, Settings};

/// Row of a table of settings, for a builder `B`.
///
/// ```text
/// Key::new("eureka.client.registry-fetch-interval-seconds", Unit::Seconds, "30", "fetch_interval",
///     |builder, value| Ok(builder.fetch_interval(value.positive_duration()?)))
///     .netflix("eureka.client.refresh.interval"),
/// ```
///
/// The setter of a map, whose name ends in a part like `.<zone>`, is called for each of the user's
/// keys, which [`Value::key`] returns.
pub(crate) struct Key<B> {
    /// Spring's name.
    pub(crate) name: &'static str,
    /// Names in the properties of the Netflix client, each with its unit. Not read from environment
    /// variables.
    pub(crate) netflix: &'static [(&'static str, Unit)],
    /// Unit of the values, and of bare numbers among them.
    pub(crate) unit: Unit,
    /// Default for the documentation.
    #[cfg_attr(not(test), allow(dead_code, reason = "the tables of the documentation are made by a test"))]
    pub(crate) default: &'static str,
    /// Method of the builder for the documentation.
    #[cfg_attr(not(test), allow(dead_code, reason = "the tables of the documentation are made by a test"))]
    pub(crate) method: &'static str,
    /// Calls the method.
    pub(crate) set: fn(B, &Value) -> Result<B, InvalidSetting>,
}

impl<B> Key<B> {
    pub(crate) const fn new(
        name: &'static str,
        unit: Unit,
        default: &'static str,
        method: &'static str,
        set: fn(B, &Value) -> Result<B, InvalidSetting>,
    ) -> Self {
        Self { name, netflix: &[], unit, default, method, set }
    }

    /// Adds Netflix names with their units.
    pub(crate) const fn netflix(mut self, names: &'static [(&'static str, Unit)]) -> Self {
        self.netflix = names;
        self
    }

    /// Returns `true` if the user's own keys follow the name.
    pub(crate) fn is_map(&self) -> bool {
        self.name.contains(".<")
    }

    /// Returns all names, Spring's first, each with its unit.
    pub(super) fn names(&self) -> Vec<(&'static str, Unit)> {
        [(self.name, self.unit)].into_iter().chain(self.netflix.iter().copied()).collect()
    }

    /// Returns the name of the environment variable, as Spring's documentation writes it.
    #[cfg_attr(not(test), allow(dead_code, reason = "the tables of the documentation are made by a test"))]
    pub(crate) fn variable(&self) -> String {
        self.name.to_ascii_uppercase().replace('.', "_").replace('-', "")
    }

    /// Returns an error if the settings have this key without a value: each of its entries that
    /// counts is blank. `may_be_blank` returns true for a user's key with which that is no error.
    #[cfg(feature = "server")]
    pub(crate) fn check_not_blank(
        &self,
        settings: &Settings,
        may_be_blank: impl Fn(Option<&str>) -> bool,
    ) -> Result<(), InvalidSetting> {
        let parts = map_parts(self.name);
        let key_of =
            |entry: &Entry| parts.and_then(|(prefix, suffix)| entry.map_key(prefix, suffix)).as_deref().map(relaxed);
        for entry in settings.entries().filter(|entry| is_name_of(self.name, entry)) {
            // A placeholder without a value is an error of the value that counts.
            if settings.resolve(entry).is_ok_and(|resolved| !resolved.text.trim().is_empty()) {
                continue;
            }
            let key = key_of(entry);
            if !self.has_value(settings, key.as_deref())? && !may_be_blank(key.as_deref()) {
                return Err(InvalidSetting::clause(&entry.place(), "is blank: set it, or remove it"));
            }
        }
        Ok(())
    }

    /// Returns true if the settings have a value for this key: of a map, for this key of the user's
    /// in lower case without dashes, or for any.
    #[cfg(feature = "server")]
    pub(crate) fn has_value(&self, settings: &Settings, key: Option<&str>) -> Result<bool, InvalidSetting> {
        if !self.is_map() {
            return Ok(settings.value_of(self)?.is_some());
        }
        let values = settings.map_of(self)?;
        Ok(values.iter().any(|value| key.is_none_or(|key| relaxed(value.key()) == key)))
    }

    /// Sets the value that the settings have for this key, if they have one.
    pub(crate) fn apply(&self, settings: &Settings, builder: B) -> Result<B, InvalidSetting> {
        if self.is_map() {
            let mut values = settings.map_of(self)?.into_iter();
            return values.try_fold(builder, |builder, value| (self.set)(builder, &value));
        }
        match settings.value_of(self)? {
            Some(value) => (self.set)(builder, &value),
            None => Ok(builder),
        }
    }
}

/// Sets the values of all keys, in the order of the table.
pub(crate) fn apply<B>(settings: &Settings, keys: &[Key<B>], builder: B) -> Result<B, InvalidSetting> {
    keys.iter().try_fold(builder, |builder, key| key.apply(settings, builder))
}

/// Returns Spring's names of a table, for [`Settings::report`].
pub(crate) fn names_of<B>(keys: &'static [Key<B>]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

/// Returns the Netflix names of a table, for [`Settings::report`].
pub(crate) fn netflix_names_of<B>(keys: &'static [Key<B>]) -> impl Iterator<Item = &'static str> {
    keys.iter().flat_map(|key| key.netflix.iter().map(|(name, _)| *name))
}

/// Returns `true` if a known name, which may have a wildcard, is the name of this entry. Elements
/// of a list belong to its name.
pub(crate) fn is_name_of(known: &str, entry: &Entry) -> bool {
    let with_suffix = map_parts(known).filter(|(_, suffix)| !suffix.is_empty());
    if let Some((prefix, suffix)) = with_suffix {
        return entry.map_key(prefix, suffix).is_some();
    }
    if entry.is_variable() {
        let whole = entry.name.trim_end_matches('_');
        let list = whole.rsplit_once('_').filter(|(_, index)| index.bytes().all(|digit| digit.is_ascii_digit()));
        return covers(known, &entry.name) || list.is_some_and(|(list, _)| covers(known, list));
    }
    match known.split_once(['*', '<']) {
        Some((prefix, _)) => match prefix.strip_suffix('.') {
            Some(prefix) => rest_after(prefix, &entry.name).is_some(),
            None => entry.uniform.starts_with(&uniform(prefix)),
        },
        None => {
            let rest = entry.uniform.strip_prefix(&*uniform(known));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('[') && rest.ends_with(']'))
        }
    }
}
