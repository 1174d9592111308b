//! Entries of the sources: name, value and origin.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::names::{
    after, dotted_key, dotted_keys, middle_of, relaxed, rest_after, uniform, variable_key, variable_keys,
};
use super::report::{is_port_link, is_service_link};

/// Origin of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Set in code by its name.
    Code,
    /// Argument of the form `--name=value`.
    Argument,
    /// Member of the document in `SPRING_APPLICATION_JSON`.
    Json,
    /// Environment variable.
    Variable,
    /// Member of the document in this variable of Cloud Foundry.
    Cloud(&'static str),
    #[cfg_attr(not(feature = "files"), allow(dead_code, reason = "constructed by the readers of files"))]
    File { path: Arc<str>, line: usize },
    /// Default that the program sets.
    Default,
}

/// Setting as its source has it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Name as written.
    pub(crate) name: String,
    /// Value before placeholders are resolved.
    pub(crate) text: String,
    pub(crate) origin: Origin,
    /// Name for comparisons.
    pub(crate) uniform: String,
    /// True for an environment variable whose name has no dots.
    is_variable: bool,
    /// Set once a log line has named this entry.
    reported: AtomicBool,
}

impl Entry {
    pub(crate) fn new(name: impl Into<String>, text: impl Into<String>, origin: Origin) -> Self {
        let name = name.into();
        let is_variable = origin == Origin::Variable && !name.contains('.');
        let uniform = if is_variable { relaxed(&name) } else { uniform(&name) };
        Self { uniform, is_variable, name, text: text.into(), origin, reported: AtomicBool::new(false) }
    }

    /// Returns `true` for an environment variable whose name has no dots, so that its underscores
    /// separate parts or stand for nothing.
    pub(crate) fn is_variable(&self) -> bool {
        self.is_variable
    }

    /// Returns the user's key in the name of an entry of a map, between the prefix and the suffix
    /// of the setting. If the suffix ends in a second key, a slash separates both.
    pub(super) fn map_key(&self, prefix: &str, suffix: &str) -> Option<Cow<'_, str>> {
        let rest_of_variable = || after(prefix, &self.name)?.strip_prefix('_');
        if let Some(middle) = middle_of(suffix) {
            let keys = match self.is_variable() {
                true => variable_keys(rest_of_variable()?, middle),
                false => dotted_keys(prefix, middle, &self.name),
            };
            return keys.map(Cow::from);
        }
        if self.is_variable() {
            return variable_key(rest_of_variable()?, suffix).map(Cow::from);
        }
        // An element of a list has its index at the end.
        let of_list = || dotted_key(prefix, suffix, self.name.strip_suffix(']')?.rsplit_once('[')?.0);
        dotted_key(prefix, suffix, &self.name).or_else(of_list).map(Cow::from)
    }

    /// Returns `true` if the entry counts as unset: a blank value, or the URL that Kubernetes sets
    /// for a service named `server`. A blank value in a file or in JSON is none of them, and hides
    /// the sources below.
    pub(crate) fn is_unset(&self) -> bool {
        let is_document = matches!(self.origin, Origin::File { .. } | Origin::Json);
        self.text.trim().is_empty() && !is_document || self.is_port_link()
    }

    /// Returns `true` for the URL that Kubernetes sets for a service, as in
    /// `SERVER_PORT=tcp://10.0.0.1:80`.
    pub(crate) fn is_port_link(&self) -> bool {
        self.is_variable() && is_port_link(&self.name, &self.text)
    }

    /// Returns `true` if the entry's name begins with these parts, and has more.
    pub(crate) fn is_below(&self, family: &str) -> bool {
        if self.is_variable() {
            after(family, &self.name).is_some_and(|rest| rest.starts_with('_'))
        } else {
            rest_after(family, &self.name).is_some()
        }
    }

    /// Returns `true` for a variable that Kubernetes sets for a service.
    pub(crate) fn is_service_link(&self) -> bool {
        self.is_variable() && is_service_link(&self.name, &self.text)
    }

    pub(crate) fn is_from_environment(&self) -> bool {
        self.origin == Origin::Variable
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place { name: &self.name, origin: &self.origin }
    }

    /// Returns `true` at the first call only.
    pub(crate) fn report_once(&self) -> bool {
        !self.reported.swap(true, Ordering::Relaxed)
    }
}

/// Place of a setting in an error or log line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) origin: &'a Origin,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, origin } = self;
        match origin {
            Origin::Code => write!(f, "property {name}"),
            Origin::Argument => write!(f, "argument --{name}"),
            Origin::Json => write!(f, "SPRING_APPLICATION_JSON: {name}"),
            Origin::Variable => write!(f, "environment variable {name}"),
            Origin::Cloud(variable) => write!(f, "environment variable {variable}: {name}"),
            Origin::File { path, line: 0 } => write!(f, "{path}: {name}"),
            Origin::File { path, line } => write!(f, "{path}:{line}: {name}"),
            Origin::Default => write!(f, "default of {name}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code => f.write_str("code"),
            Self::Argument => f.write_str("argument"),
            Self::Json => f.write_str("SPRING_APPLICATION_JSON"),
            Self::Variable => f.write_str("environment"),
            Self::Cloud(variable) => f.write_str(variable),
            Self::File { path, line: 0 } => f.write_str(path),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
}
