//! Log lines about settings without an effect.

use std::fmt;

use super::Settings;
use super::key::is_name_of;
use super::names::{after, distance, map_parts, relaxed};
use super::source::{Entry, Place};

/// Known names of settings, for [`Settings::report`]. A name that ends in `*`, or has a part like
/// `<zone>`, stands for all names of this form.
pub(crate) struct Known<'k> {
    /// Names of settings that some part of the process reads.
    pub(crate) read: &'k [&'k str],
    /// Names of the Netflix client that are read, but not from variables.
    pub(crate) netflix: &'k [&'k str],
    /// Names of settings without a meaning here, each with the reason.
    pub(crate) without_meaning: &'k [(&'k str, &'k str)],
    /// Names of settings that would have a meaning, each with the remedy.
    pub(crate) unsupported: &'k [(&'k str, &'k str)],
}

impl Settings {
    /// Logs each setting below these names that has no effect: at info if it has no meaning here,
    /// and as a warning otherwise. Names each setting once, without its value.
    pub(crate) fn report(&self, families: &[&str], known: &Known<'_>) {
        for unused in self.unused(families, known).filter(|unused| unused.entry.report_once()) {
            match unused.why {
                Why::WithoutMeaning(_) => tracing::info!("setting ignored: {unused}"),
                _ => tracing::warn!("setting without effect: {unused}"),
            }
        }
    }

    /// Returns the settings that [`report`](Self::report) logs, also those logged before.
    pub(super) fn unused<'s>(
        &'s self,
        families: &'s [&'s str],
        known: &'s Known<'s>,
    ) -> impl Iterator<Item = Unused<'s>> {
        let is_concerned = |entry: &&Entry| !entry.is_unset() && families.iter().any(|family| entry.is_below(family));
        self.entries().filter(is_concerned).filter_map(|entry| {
            let named_in = |names: &'s [(&'s str, &'s str)]| names.iter().find(|(name, _)| is_name_of(name, entry));
            let netflix = known.netflix.iter().filter(|_| !entry.is_variable());
            if known.read.iter().chain(netflix).any(|name| is_name_of(name, entry)) {
                return None;
            }
            let why = if let Some((_, why)) = named_in(known.without_meaning) {
                Why::WithoutMeaning(why)
            } else if let Some((_, why)) = named_in(known.unsupported) {
                Why::Unsupported(why)
            } else if entry.is_service_link() {
                return None;
            } else {
                Why::Unknown(nearest_name(&entry.name, known.read))
            };
            Some(Unused { entry, why })
        })
    }
}

/// Returns the known name that is most similar. The user's keys in a map do not count.
fn nearest_name<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let last = name.rsplit(['.', '_']).next().unwrap_or_default();
    let with_keys = |known: &str| match map_parts(known) {
        None => known.to_owned(),
        Some((prefix, "")) => format!("{prefix}.{last}"),
        Some((prefix, suffix)) => {
            let rest = after(prefix, name).map(|rest| rest.trim_start_matches(['.', '_']));
            let key = rest.and_then(|rest| rest.split(['.', '_']).next()).unwrap_or_default();
            let second = suffix.split_once('<').map(|(suffix, _)| format!("{suffix}{last}"));
            format!("{prefix}.{key}{}", second.as_deref().unwrap_or(suffix))
        }
    };
    let distances = known.iter().map(|known| (distance(&relaxed(name), &relaxed(&with_keys(known))), *known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= relaxed(name).len() / 4).then_some(known)
}

/// Returns `true` for the variables that Kubernetes sets in containers for a service named `eureka`
/// or `eureka-...`.
pub(super) fn is_service_link(variable: &str, value: &str) -> bool {
    let numbered = |text: &str| text.split('_').next().is_some_and(|port| port.parse::<u16>().is_ok());
    variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_SERVICE_PORT")
        || variable.contains("_SERVICE_PORT_")
        || is_port_link(variable, value)
        || variable.match_indices("_PORT_").any(|(at, found)| numbered(&variable[at + found.len()..]))
}

/// Returns `true` for the variable with the URL of such a service: `SERVER_PORT=tcp://10.0.0.1:80`.
pub(super) fn is_port_link(variable: &str, value: &str) -> bool {
    variable.ends_with("_PORT") && value.contains("://")
}

/// Setting without an effect. Its `Display` is a clause for a log line.
#[derive(Debug)]
pub(super) struct Unused<'s> {
    pub(super) entry: &'s Entry,
    why: Why<'s>,
}

#[derive(Debug)]
enum Why<'s> {
    Unknown(Option<&'s str>),
    WithoutMeaning(&'s str),
    Unsupported(&'s str),
}

impl fmt::Display for Unused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place: Place<'_> = self.entry.place();
        match self.why {
            Why::Unknown(None) => write!(f, "{place} is no setting"),
            Why::Unknown(Some(nearest)) => write!(f, "{place} is no setting; did you mean {nearest}?"),
            Why::WithoutMeaning(why) | Why::Unsupported(why) => write!(f, "{place}: {why}"),
        }
    }
}
