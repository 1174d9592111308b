//! Setting of a registry server: its key and help text.

use std::fmt;

use crate::config::Key;
use crate::server::EurekaServerBuilder;

pub(super) type Builder = EurekaServerBuilder;

/// Setting of a registry server under its Spring name.
///
/// Its `Display` writes an entry of a help text: name, unit, meaning, default.
pub struct Property {
    pub(super) key: Key<Builder>,
    pub(super) unit: &'static str,
    pub(super) help: &'static str,
}

impl Property {
    /// Returns the name with dashes, such as `eureka.server.eviction-interval-timer-in-ms`. A name
    /// that ends in `<...>` stands for one name per key of the user's.
    pub fn name(&self) -> &'static str {
        self.key.name
    }

    /// Returns the default as the help text writes it. It is empty for a setting without one.
    pub fn default_text(&self) -> &'static str {
        self.key.default
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: Key { name, default, .. }, unit, help } = self;
        write!(f, "--{name} <{unit}>\n          {help}")?;
        if !default.is_empty() {
            write!(f, " [default: {default}]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property")
            .field("name", &self.key.name)
            .field("default", &self.key.default)
            .finish_non_exhaustive()
    }
}
