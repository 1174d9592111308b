//! Display of the settings in force.

use std::collections::HashSet;
use std::fmt;

use super::Settings;
use super::mask::{MASK, has_secret_placeholder, is_secret, masked_urls};
use super::names::relaxed;
use super::source::Entry;
use crate::untrusted::Sanitized;

/// Beginnings of the names that are shown. Other settings belong to other parts of the program.
const FAMILIES: [&str; 9] = [
    "eureka",
    "server",
    "management",
    "spring.application",
    "spring.cloud",
    "spring.config",
    "spring.lifecycle",
    "spring.profiles",
    "spring.main",
];

/// Returns the name of an entry for comparisons. An element of a list has the name of its list.
fn base(entry: &Entry) -> String {
    let is_index = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = &*entry.name;
    let list = if entry.is_variable() {
        name.trim_end_matches('_').rsplit_once('_').filter(|(_, index)| is_index(index)).map(|(list, _)| list)
    } else {
        name.match_indices('[').find_map(|(at, _)| {
            let (index, _) = name[at + 1..].split_once(']')?;
            is_index(index).then_some(&name[..at])
        })
    };
    relaxed(list.unwrap_or(name))
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profiles = {}", self.profiles().join(","))?;
        for line in self.lines(|entry| FAMILIES.iter().any(|family| entry.is_below(family))) {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

impl Settings {
    /// Returns a line for each of these settings that is in force, ordered by name: `name = value
    /// (source)`. Secrets are masked.
    pub(crate) fn lines(&self, is_shown: impl Fn(&Entry) -> bool) -> Vec<String> {
        let (mut lines, mut seen, mut above) = (Vec::new(), HashSet::new(), HashSet::new());
        for source in &self.0.sources {
            let is_set = |entry: &&Entry| !entry.is_unset() && !entry.is_service_link();
            let shown = source.iter().filter(is_set);
            for entry in shown.filter(|entry| is_shown(entry)) {
                let name = relaxed(&entry.name);
                // A list of a source above replaces the whole list.
                if !above.contains(&base(entry)) && seen.insert(name.clone()) {
                    lines.push((name, self.line(entry)));
                }
            }
            above.extend(source.iter().filter(is_set).map(base));
        }
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn line(&self, entry: &Entry) -> String {
        let (name, origin) = (Sanitized(&entry.name), &entry.origin);
        if is_secret(&entry.name) || super::json::is_document(&entry.name) {
            return format!("{name} = {MASK} ({origin})");
        }
        match self.resolve(entry) {
            Ok(resolved) if resolved.is_secret => format!("{name} = {MASK} ({origin})"),
            Ok(resolved) => {
                format!("{name} = {} ({origin})", Sanitized(masked_urls(&resolved.text)))
            }
            Err(_) => {
                let shown = if has_secret_placeholder(&entry.text) { MASK.into() } else { masked_urls(&entry.text) };
                format!("{name} = {} ({origin}, with a placeholder that has no value)", Sanitized(shown))
            }
        }
    }
}
