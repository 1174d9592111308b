use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::{Entry, Origin};
use super::{InvalidSetting, Settings, files, json, profiles, vcap};

/// Entries of one source, shared by the settings that are made from it.
pub(super) type Source = Arc<Vec<Entry>>;

/// Builder of [`Settings`], created by [`Settings::builder`].
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until `load`"]
pub struct SettingsBuilder {
    /// Properties and arguments. The last one of a name counts.
    in_code: Vec<(String, String, Origin)>,
    defaults: Vec<(String, String)>,
    profiles: Vec<String>,
    /// `None` for the environment of the process.
    environment: Option<Vec<(String, String)>>,
    without_files: bool,
    directory: Option<PathBuf>,
    locations: Vec<String>,
}

impl SettingsBuilder {
    /// Adds the arguments of the form `--name=value`, which take precedence over all other sources.
    /// Other arguments are left to the program.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tower_eureka::Settings;
    ///
    /// let arguments = ["--server.port=0", "orders"];
    /// let settings = Settings::builder().arguments(arguments).without_files().load()?;
    /// assert_eq!(settings.listen_address()?.1, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn arguments<A: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        for argument in arguments {
            if let Some((name, value)) = argument.as_ref().strip_prefix("--").and_then(|rest| rest.split_once('=')) {
                self.in_code.push((name.to_owned(), value.to_owned(), Origin::Argument));
            }
        }
        self
    }

    /// Sets a property, with the precedence of an argument: environment and files do not change it.
    /// Its name is the one in a file, such as `eureka.client.enabled`.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.in_code.push((name.into(), value.into(), Origin::Code));
        self
    }

    /// Sets the value of a property that neither arguments, code, environment nor files set. Its
    /// name is the one in a file, such as `eureka.client.enabled`.
    pub fn default_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.defaults.push((name.into(), value.into()));
        self
    }

    /// Adds an active profile, whose files are read as well. Profiles in code replace
    /// `spring.profiles.active`.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profiles.push(name.into());
        self
    }

    /// Replaces the environment of the process by these variables, as names and values. Defaults to
    /// the variables that the process has.
    pub fn environment<N: Into<String>, V: Into<String>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.environment = Some(variables.collect());
        self
    }

    /// Reads no files, also none that [`file`](Self::file) adds. By default, the files of the
    /// [directory](Self::directory) are read, such as `application.yml`.
    pub fn without_files(mut self) -> Self {
        self.without_files = true;
        self
    }

    /// Adds a file, or a folder if the path ends in `/`, with precedence over the files of the
    /// working directory. [`load`](Self::load) fails if it does not exist, unless the path begins
    /// with `optional:`.
    pub fn file(mut self, path: impl Into<String>) -> Self {
        self.locations.push(path.into());
        self
    }

    /// Sets the directory that contains the files, and to which relative paths refer. Defaults to
    /// the working directory.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Reads all sources.
    ///
    /// The files are read at once, on the calling thread. They are limited in number, size and
    /// depth.
    ///
    /// # Errors
    /// If `SPRING_APPLICATION_JSON` or a file cannot be read, a file that is not optional does not
    /// exist, or the settings that name files and profiles are invalid. Invalid values of other
    /// settings are errors of their readers.
    pub fn load(self) -> Result<Settings, InvalidSetting> {
        let in_code = self.in_code.into_iter().rev();
        let in_code = in_code.map(|(name, text, origin)| Entry::new(name, text, origin)).collect();
        let environment = variables(self.environment.unwrap_or_else(process_environment));
        if let Some(link) = environment.iter().find(|entry| entry.name == "SERVER_PORT" && entry.is_service_link()) {
            tracing::warn!("{} is ignored: Kubernetes sets it for a service named server", link.place());
        }
        let defaults = self.defaults.into_iter().rev();
        let defaults = defaults.map(|(name, text)| Entry::new(name, text, Origin::Default)).collect();
        let cloud = vcap::entries(&environment);
        let mut above: Vec<Source> = vec![Arc::new(in_code), Arc::new(environment)];
        let below = vec![Arc::new(defaults)];

        // The values in the document may have placeholders. The document has none.
        let document = Settings::new(above.clone(), Vec::new());
        if let Some(entry) = document.entry(json::NAME) {
            above.insert(1, Arc::new(json::entries(&entry.place(), &entry.text)?));
        }
        above.insert(1, Arc::new(cloud));
        if self.without_files {
            let sources = [above, below].concat();
            let active = profiles::active(&Settings::new(sources.clone(), Vec::new()), &self.profiles)?;
            return Ok(Settings::new(sources, active));
        }
        let directory = self.directory.as_deref().unwrap_or(Path::new(""));
        files::load(above, below, directory, &self.locations, &self.profiles)
    }
}

/// Shows no values, since they may be secrets.
impl fmt::Debug for SettingsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.in_code.iter().map(|(name, ..)| name).collect();
        f.debug_struct("SettingsBuilder")
            .field("properties", &names)
            .field("profiles", &self.profiles)
            .field("files", &!self.without_files)
            .field("locations", &self.locations)
            .finish_non_exhaustive()
    }
}

/// Returns the environment of this process.
fn process_environment() -> Vec<(String, String)> {
    // A value that is not Unicode gets a replacement character, which `resolve` refuses.
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Returns the variables as entries. Of several spellings of one setting, the first one counts:
/// upper case before lower case, and without underscores for dashes.
fn variables(variables: Vec<(String, String)>) -> Vec<Entry> {
    let mut entries: Vec<_> =
        variables.into_iter().map(|(name, value)| Entry::new(name, value, Origin::Variable)).collect();
    entries.sort_by_cached_key(|entry| {
        let is_upper = !entry.name.contains(|c: char| c.is_ascii_lowercase() || c == '.');
        (!is_upper, entry.name.matches('_').count(), entry.name.clone())
    });
    entries
}
