//! Display of the settings in force.

use std::collections::HashSet;
use std::fmt;

use super::Settings;
use super::mask::{MASK, has_secret_placeholder, is_secret, masked_urls};
use super::names::relaxed;
use super::source::Entry;
use crate::untrusted::Excerpt;

/// Beginnings of the names that are shown. Other settings belong to other parts of the program.
const FAMILIES: [&str; 8] = [
    "eureka",
    "server",
    "management",
    "spring.application",
    "spring.cloud",
    "spring.config",
    "spring.profiles",
    "spring.main",
];

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profiles = {}", self.profiles().join(","))?;
        for line in self.shown() {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

impl Settings {
    /// Returns a line for each setting in force, ordered by name: `name = value (source)`.
    fn shown(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let is_shown = |entry: &&Entry| {
            !entry.is_unset()
                && !entry.is_service_link()
                && FAMILIES.iter().any(|family| entry.is_below(family))
                && seen.insert(relaxed(&entry.name))
        };
        let mut lines: Vec<_> =
            self.entries().filter(is_shown).map(|entry| (relaxed(&entry.name), self.line(entry))).collect();
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn line(&self, entry: &Entry) -> String {
        let Entry { name, origin, .. } = entry;
        if is_secret(name) || super::json::is_document(name) {
            return format!("{name} = {MASK} ({origin})");
        }
        match self.resolve(entry) {
            Ok(resolved) if resolved.is_secret => format!("{name} = {MASK} ({origin})"),
            Ok(resolved) => {
                format!("{name} = {} ({origin})", Excerpt(masked_urls(&resolved.text)))
            }
            Err(_) => {
                let shown = if has_secret_placeholder(&entry.text) { MASK.into() } else { masked_urls(&entry.text) };
                format!("{name} = {} ({origin}, with a placeholder that has no value)", Excerpt(shown))
            }
        }
    }
}
