//! Files of settings without the feature `files`.

use std::path::Path;

use super::EXTENSIONS;
use crate::config::builder::Source;
use crate::config::{InvalidSetting, Settings, profiles};

/// Creates the settings without files. Logs a warning for each file that would be read with the
/// feature `files`.
pub(in crate::config) fn load(
    above: Vec<Source>,
    below: Vec<Source>,
    directory: &Path,
    locations: &[String],
    in_code: &[String],
) -> Result<Settings, InvalidSetting> {
    let sources = [above, below].concat();
    let active = profiles::active(&Settings::new(sources.clone(), Vec::new()), in_code)?;
    let settings = Settings::new(sources, active);
    for folder in ["config", "."] {
        let stems = std::iter::once("application".to_owned());
        for stem in stems.chain(settings.profiles().iter().map(|profile| format!("application-{profile}"))) {
            for extension in EXTENSIONS {
                let path = directory.join(folder).join(format!("{stem}.{extension}"));
                if path.exists() {
                    tracing::warn!("{} is not read: enable the feature files of tower-eureka", path.display());
                }
            }
        }
    }
    let named = ["spring.config.location", "spring.config.additional-location", "spring.config.import"];
    let settings_with_files = named.iter().filter_map(|name| settings.entry(name)).map(|entry| entry.place());
    if let Some(place) = settings_with_files.into_iter().next() {
        return Err(InvalidSetting::refused(&place, "files are not read: enable the feature files of tower-eureka"));
    }
    match locations.first() {
        Some(path) => Err(InvalidSetting::other(format!(
            "cannot read {path}: files are not read (enable the feature files of tower-eureka)"
        ))),
        None => Ok(settings),
    }
}
