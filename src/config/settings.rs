use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, OnceLock};

use super::builder::{SettingsBuilder, Source};
use super::key::Key;
use super::names::{map_parts, relaxed, uniform};
use super::placeholder::{Resolution, Resolved};
use super::source::Entry;
use super::value::{Unit, Value};
use super::{InvalidSetting, builtin};

/// Settings under the names of Spring, from several sources.
///
/// A setting has the value of the source with the highest precedence that has it:
///
/// 1. properties and arguments given to [`Settings::builder`];
/// 2. the JSON document in the variable `SPRING_APPLICATION_JSON`;
/// 3. environment variables;
/// 4. `application-PROFILE.properties`, `.yml` and `.yaml` of the active profiles, the last profile
///    first;
/// 5. `application.properties`, `.yml` and `.yaml`.
///
/// Files are read with the feature `files` only, from `./config/*/`, `./config/` and `./`, in this
/// order. Names are compared as Spring compares them, and placeholders such as
/// `${HOSTNAME:localhost}` are resolved over all sources; see [the module](crate::config).
///
/// ```no_run
/// # #[cfg(feature = "client")]
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_eureka::{Eureka, Instance, Settings};
///
/// let settings = Settings::load()?;
/// let eureka = Eureka::from_settings(&settings)?;
/// let instance = Instance::from_settings(&settings)?.build()?;
/// println!("{settings:?}");
/// # Ok(())
/// # }
/// ```
///
/// Its `Debug` lists the settings in force, one a line, each with its source:
/// `eureka.client.region = eu (application.yml:14)`. Secrets are masked.
///
/// Clones are cheap and share everything. Values do not change after they were read. A random value
/// (`${random.uuid}`) is the same each time its setting is read.
#[derive(Clone)]
pub struct Settings(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// Highest precedence first.
    pub(super) sources: Vec<Source>,
    /// Active profiles.
    pub(super) profiles: Vec<String>,
    random: RandomState,
    /// Host name of this machine, once it was looked up.
    host_name: OnceLock<String>,
}

impl Settings {
    /// Reads the environment and, with the feature `files`, the files of the working directory.
    ///
    /// # Errors
    /// If `SPRING_APPLICATION_JSON` or a file cannot be read, or the settings that name files and
    /// profiles are invalid.
    pub fn load() -> Result<Self, InvalidSetting> {
        Self::builder().load()
    }

    /// Reads the environment only.
    ///
    /// # Errors
    /// If `SPRING_APPLICATION_JSON` or `SPRING_PROFILES_ACTIVE` is invalid.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        Self::builder().without_files().load()
    }

    /// Creates a builder, for arguments, files and profiles given in code.
    pub fn builder() -> SettingsBuilder {
        SettingsBuilder::default()
    }

    /// Returns the active profiles, in ascending precedence: `["default"]` if none is active.
    pub fn profiles(&self) -> &[String] {
        &self.0.profiles
    }

    /// Returns the value of any setting, with placeholders resolved.
    ///
    /// Blanks around the value are removed, unless its name shows that it is a secret, such as
    /// `my.password`.
    ///
    /// # Errors
    /// If the value has a placeholder that cannot be resolved, or is not Unicode text.
    pub fn get(&self, name: &str) -> Result<Option<String>, InvalidSetting> {
        let text = |value: &Value| if value.is_secret() { value.exact() } else { value.text() }.to_owned();
        Ok(self.find(name, Unit::Text)?.as_ref().map(text))
    }

    /// Returns the source of a setting for messages, such as `environment variable SERVER_PORT` or
    /// `application.yml:14: server.port`. Returns `None` for a setting that is not set.
    pub fn source(&self, name: &str) -> Option<String> {
        self.entry(name).map(|entry| entry.place().to_string())
    }

    /// Returns the host and port to listen on, for `TcpListener::bind`: `server.address` and
    /// `server.port`.
    ///
    /// The port defaults to 8080. Port 0 selects a free port. The host defaults to all interfaces:
    /// `::` where it includes IPv4, else `0.0.0.0`.
    ///
    /// # Errors
    /// If `server.port` is no port, or a placeholder cannot be resolved.
    pub fn listen_address(&self) -> Result<(String, u16), InvalidSetting> {
        let port = match self.find("server.port", Unit::Port)? {
            Some(value) => value.text().parse().map_err(|_| value.invalid("a port, 0 to 65535"))?,
            None => 8080,
        };
        let host = match self.find("server.address", Unit::Text)? {
            Some(value) => value.text().trim_start_matches('[').trim_end_matches(']').to_owned(),
            None => builtin::all_interfaces().to_owned(),
        };
        Ok((host, port))
    }

    /// Returns the text of an environment variable with exactly this name.
    #[cfg(feature = "client")]
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let variable = self.entries().find(|entry| entry.is_from_environment() && entry.name == name);
        variable.map(|entry| &*entry.text)
    }

    pub(super) fn new(sources: Vec<Source>, profiles: Vec<String>) -> Self {
        Self(Arc::new(Inner { sources, profiles, random: RandomState::new(), host_name: OnceLock::new() }))
    }

    /// Returns the entries of all sources, those with the highest precedence first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.sources.iter().flat_map(|source| source.iter())
    }

    /// Returns the entry of a setting, without resolving its value.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.0.sources.iter().find_map(|source| in_source(source, name, true).first().copied())
    }

    /// Returns the value of a setting. A blank value counts as unset.
    pub(crate) fn find(&self, name: &str, unit: Unit) -> Result<Option<Value>, InvalidSetting> {
        self.find_any(&[(name, unit)])
    }

    /// Returns the value that has the first of these names in the source with the highest
    /// precedence. Environment variables are read under the first name only.
    fn find_any(&self, names: &[(&str, Unit)]) -> Result<Option<Value>, InvalidSetting> {
        for source in &self.0.sources {
            for (index, (name, unit)) in names.iter().enumerate() {
                let found = in_source(source, name, index == 0);
                if let Some(value) = self.value(&found, *unit)? {
                    return Ok(Some(value).filter(|value| !value.text().is_empty()));
                }
            }
        }
        Ok(None)
    }

    /// Returns the value of a key, if it is set.
    pub(super) fn value_of<B>(&self, key: &Key<B>) -> Result<Option<Value>, InvalidSetting> {
        self.find_any(&key.names())
    }

    /// Returns the values of a key that is a map, each with the user's key, ordered by precedence
    /// of their sources.
    ///
    /// The key of an environment variable is in lower case, with dots for underscores, unless
    /// another source has the same key in another spelling.
    pub(super) fn map_of<B>(&self, key: &Key<B>) -> Result<Vec<Value>, InvalidSetting> {
        let mut map: Vec<(bool, Value)> = Vec::new();
        for source in self.0.sources.iter().rev() {
            for (name, unit) in key.names().into_iter().rev() {
                let is_first = name == key.name;
                for (is_variable, user_key, entries) in map_in_source(source, name, is_first) {
                    let Some(mut value) = self.value(&entries, unit)? else { continue };
                    let is_same = |(other_variable, other): &(bool, Value)| {
                        *other.key == user_key
                            || (is_variable || *other_variable) && relaxed(&other.key) == relaxed(&user_key)
                    };
                    let before = map.iter().position(is_same);
                    value.key = match before {
                        Some(at) if is_variable => map[at].1.key.clone(),
                        _ => user_key,
                    };
                    match before {
                        Some(at) => map[at] = (is_variable, value),
                        None => map.push((is_variable, value)),
                    }
                }
            }
        }
        Ok(map.into_iter().map(|(_, value)| value).filter(|value| !value.is_blank()).collect())
    }

    /// Returns the value of the entries of one setting: several if it is a list.
    fn value(&self, entries: &[&Entry], unit: Unit) -> Result<Option<Value>, InvalidSetting> {
        let Some(first) = entries.first() else { return Ok(None) };
        if let [entry] = entries
            && !is_indexed(entry)
        {
            let Resolved { text, is_secret } = self.resolve(entry)?;
            return Ok(Some(Value::new(entry, text, unit, is_secret)));
        }
        let (mut items, mut any_secret) = (Vec::new(), false);
        for entry in entries {
            let Resolved { text, is_secret } = self.resolve(entry)?;
            items.push(text);
            any_secret |= is_secret;
        }
        let mut value = Value::new(first, items.join(","), unit, any_secret);
        value.items = Some(items);
        Ok(Some(value))
    }

    pub(super) fn resolve(&self, entry: &Entry) -> Result<Resolved, InvalidSetting> {
        if entry.text.contains(char::REPLACEMENT_CHARACTER) && entry.is_from_environment() {
            return Err(InvalidSetting::expected(&entry.place(), "Unicode text", None));
        }
        if !entry.text.contains("${") {
            return Ok(Resolved { text: entry.text.clone(), is_secret: false });
        }
        Resolution::resolve(self, &entry.name, &entry.text)
            .map_err(|cause| InvalidSetting::refused(&entry.place(), cause))
    }

    /// Returns the entry that a placeholder names. It has an effect, whatever its name.
    pub(super) fn placeholder_entry(&self, name: &str) -> Option<&Entry> {
        let (dotted, flat) = (uniform(name), relaxed(name));
        let is_it = |entry: &&Entry| entry.uniform == if entry.is_variable() { &*flat } else { &*dotted };
        let found = self.entries().filter(|entry| !entry.is_port_link()).find(is_it)?;
        found.report_once();
        Some(found)
    }

    /// Returns the value of a placeholder that no source has.
    pub(super) fn built_in(&self, name: &str) -> Option<String> {
        builtin::value(self, name)
    }

    /// Returns the host name of this machine, which is looked up once. The look-up may block; see
    /// [`Instance::from_settings`](crate::Instance::from_settings).
    pub(crate) fn host_name(&self) -> Option<String> {
        if let Some(name) = self.0.host_name.get() {
            return Some(name.clone());
        }
        let name = super::instance::host_name(self)?;
        Some(self.0.host_name.get_or_init(|| name).clone())
    }

    /// Returns a source of random numbers that depends on the place of a placeholder.
    pub(super) fn seed(&self, place: impl Hash) -> impl Fn(u64) -> u64 {
        move |n| self.0.random.hash_one((&place, n))
    }
}

/// Returns the entries of a setting: one, or several if it is a list.
fn in_source<'e>(source: &'e [Entry], name: &str, with_variables: bool) -> Vec<&'e Entry> {
    let (dotted, flat) = (uniform(name), relaxed(name));
    let rest_of = |entry: &'e Entry| -> Option<&'e str> {
        match entry.is_variable() {
            true if with_variables => entry.uniform.strip_prefix(&*flat),
            true => None,
            false => entry.uniform.strip_prefix(&*dotted),
        }
    };
    let mut items = Vec::new();
    for entry in source {
        let Some(rest) = rest_of(entry).filter(|_| !entry.is_unset()) else { continue };
        if rest.is_empty() {
            return vec![entry];
        }
        let index = if entry.is_variable() {
            let is_item = entry.name.trim_end_matches('_').ends_with(&format!("_{rest}"));
            rest.parse::<usize>().ok().filter(|_| is_item)
        } else {
            rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|index| index.parse().ok())
        };
        items.extend(index.map(|index| (index, entry)));
    }
    items.sort_by_key(|(index, _)| *index);
    items.dedup_by_key(|(index, _)| *index);
    items.into_iter().map(|(_, entry)| entry).collect()
}

fn is_indexed(entry: &Entry) -> bool {
    entry.uniform.ends_with(']') && index_of(&entry.uniform).is_some()
}

/// Returns the position of the brackets of a list's element at the end of a name, and the index.
fn index_of(name: &str) -> Option<(usize, usize)> {
    let at = name.strip_suffix(']')?.rfind('[').filter(|at| *at > 0)?;
    Some((at, name[at + 1..name.len() - 1].parse().ok()?))
}

/// Entries of one key of a map: if they are environment variables, the user's key, and the entries.
type MapEntries<'e> = (bool, String, Vec<&'e Entry>);

/// Returns the entries of a setting that is a map. The name is `prefix.<key>`, and may end in
/// further parts.
fn map_in_source<'e>(source: &'e [Entry], name: &str, with_variables: bool) -> Vec<MapEntries<'e>> {
    let Some((prefix, suffix)) = map_parts(name) else { return Vec::new() };
    let mut found: Vec<MapEntries<'e>> = Vec::new();
    for entry in source.iter().filter(|entry| !entry.is_unset()) {
        if entry.is_variable() && !with_variables {
            continue;
        }
        let Some(key) = entry.map_key(prefix, suffix).filter(|key| !key.is_empty()) else { continue };
        let key = if entry.is_variable() { key.to_ascii_lowercase().replace('_', ".") } else { key.into_owned() };
        let key = match index_of(&key) {
            Some((at, _)) => key[..at].to_owned(),
            None => without_brackets(&key),
        };
        match found.iter_mut().find(|(_, known, _)| *known == key) {
            // Of two spellings the first counts.
            Some((.., entries)) => {
                if entries.iter().all(|entry| is_indexed(entry)) && is_indexed(entry) {
                    entries.push(entry);
                }
            }
            None => found.push((entry.is_variable(), key, vec![entry])),
        }
    }
    for (.., entries) in &mut found {
        entries.sort_by_key(|entry| index_of(&entry.uniform));
    }
    found
}

/// Removes the brackets around parts of a key: `[a.b].c` is `a.b.c`.
fn without_brackets(key: &str) -> String {
    key.trim_start_matches('[').replace(".[", ".").replace('[', ".").replace(']', "")
}
