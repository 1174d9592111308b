//! Documents of files: their entries, and when they are active.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::builder::Source;
use crate::config::names::{rest_after, uniform};
use crate::config::profiles::Expression;
use crate::config::source::Entry;
use crate::config::{InvalidSetting, Settings};

/// Document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) entries: Source,
    /// Profiles at which the document is active: one of these expressions is met. Empty for a
    /// document without this condition.
    on_profile: Vec<Expression>,
    on_platform: Option<String>,
    /// Positions of the entries of `spring.config.import`.
    pub(super) imports: Vec<usize>,
    /// Folder to which the imports are relative.
    pub(super) folder: PathBuf,
}

impl Document {
    /// Creates a document from its entries. `is_specific` is true in the file of a profile.
    ///
    /// # Errors
    /// If a condition is malformed, or a document with a condition sets the active profiles.
    pub(super) fn new(entries: Vec<Entry>, folder: PathBuf, is_specific: bool) -> Result<Self, InvalidSetting> {
        let (mut on_profile, mut on_platform, mut imports) = (Vec::new(), None, Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let base = entry.uniform.split('[').next().unwrap_or_default();
            match base {
                "spring.config.activate.onprofile" => {
                    for text in entry.text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
                        let expected = "profiles such as prod & !eu, with parentheses where & and | are mixed";
                        let expression = Expression::parse(text);
                        on_profile
                            .push(expression.ok_or_else(|| {
                                InvalidSetting::expected(&entry.place(), expected, Some(&entry.text))
                            })?);
                    }
                }
                "spring.config.activate.oncloudplatform" => on_platform = Some(uniform(entry.text.trim())),
                "spring.config.import" => imports.push(index),
                "spring.profiles" => {
                    let cause = "has no effect since Spring Boot 2.4: write spring.config.activate.on-profile";
                    return Err(InvalidSetting::refused(&entry.place(), cause));
                }
                _ => {}
            }
        }
        if is_specific || !on_profile.is_empty() {
            let is_forbidden = |entry: &&Entry| {
                ["spring.profiles.active", "spring.profiles.default", "spring.profiles.include"]
                    .iter()
                    .any(|name| uniform(name) == entry.uniform || rest_after(name, &entry.name).is_some())
            };
            if let Some(entry) = entries.iter().find(is_forbidden) {
                let cause = "cannot be set where a profile is required: move it to a document without a profile";
                return Err(InvalidSetting::refused(&entry.place(), cause));
            }
        }
        Ok(Self { entries: Arc::new(entries), on_profile, on_platform, imports, folder })
    }

    /// Returns `true` if the document is active with these profiles on this platform. Documents
    /// with profiles are inactive while the profiles are not known.
    pub(super) fn is_active(&self, profiles: Option<&[String]>, platform: &str) -> bool {
        let is_met = match profiles {
            _ if self.on_profile.is_empty() => true,
            Some(profiles) => self.on_profile.iter().any(|expression| expression.is_met(profiles)),
            None => false,
        };
        is_met && self.on_platform.as_deref().is_none_or(|wanted| wanted == platform)
    }
}

/// Returns the cloud platform of this process as Spring detects it, or `none`.
pub(super) fn platform(settings: &Settings) -> Result<String, InvalidSetting> {
    if let Some(set) = settings.get("spring.main.cloud-platform")? {
        return Ok(uniform(&set));
    }
    let is_set = |name: &str| settings.entries().any(|entry| entry.is_variable() && entry.name == name);
    let platforms = [
        ("cloudfoundry", "VCAP_APPLICATION"),
        ("cloudfoundry", "VCAP_SERVICES"),
        ("heroku", "DYNO"),
        ("nomad", "NOMAD_ALLOC_ID"),
        ("kubernetes", "KUBERNETES_SERVICE_HOST"),
    ];
    let found = platforms.iter().find(|(_, variable)| is_set(variable));
    Ok(found.map_or("none", |(platform, _)| platform).to_owned())
}
