//! Settings of a registry server under the names of a Spring Cloud Eureka server.
//!
//! One table lists their names, units, defaults and setters. Sources, help and documentation are
//! derived from it. Names are compared as in Spring, without dashes and case:
//! `peer-node-read-timeout-ms` equals `peerNodeReadTimeoutMs`. Settings that Java does not have are
//! named `eureka.server.limits.*`, or are marked as such.

mod access;
#[cfg(feature = "peers")]
mod keyed;
mod property;
mod rules;
#[cfg(feature = "tls")]
mod ssl;
mod table;

pub use self::property::Property;
use self::rules::{Scope, check, is_in_force, is_of_application, is_switched_off};
use self::table::PROPERTIES;
#[cfg(feature = "client")]
use self::table::WITHOUT_MEANING;
use super::{Error, EurekaServerBuilder};
use crate::config::Settings;

impl Property {
    /// Returns all settings.
    pub fn all() -> &'static [Self] {
        PROPERTIES
    }

    /// Returns the settings that a registry server reads and that have a value, each as `name =
    /// value (source)`, for a log. Secrets are masked. Unknown settings are left out, since their
    /// values may be secrets.
    pub fn in_force(settings: &Settings) -> Vec<String> {
        settings.lines(|entry| is_in_force(settings, entry))
    }
}

impl EurekaServerBuilder {
    /// Sets the property with this name, such as `eureka.server.eviction-interval-timer-in-ms`.
    /// [`Property::all`] lists the properties.
    ///
    /// Properties that a Spring server does not have begin with `eureka.server.limits`. The limits
    /// of connections among them apply to
    /// [`EurekaServer::listener`](crate::EurekaServer::listener).
    ///
    /// Dashes and case do not matter. A Spring property without a meaning here is ignored and
    /// logged. [`eviction`](Self::eviction), [`limits`](Self::limits) and the other setters of a
    /// whole subject discard the properties of their subject that were set before.
    ///
    /// # Errors
    /// Fails if the property is unknown, or if the value is invalid or has a placeholder without a
    /// value, `${...}`.
    pub fn property(self, name: &str, value: &str) -> Result<Self, Error> {
        let settings = Settings::builder().environment([("", ""); 0]).without_files().property(name, value);
        self.read(&settings.load().map_err(Error::variable)?, Scope::Standalone)
    }

    /// Reads the settings of a registry server inside another application. Settings without a value
    /// are unchanged.
    ///
    /// An unknown argument or variable that begins with `eureka.server.`, `eureka.client.` or
    /// `eureka.instance.` is an error, as is any other `eureka.*` that is similar to a setting. An
    /// unknown setting in a file is logged as a warning. Settings without a meaning here are logged
    /// at info. Variables that Kubernetes sets for a service named `eureka` or `eureka-...` are
    /// ignored.
    ///
    /// Of the settings that end in a key of the user's, variables have those of all zones, and
    /// those of remote regions whose names have no dash, such as
    /// `EUREKA_SERVER_REMOTEREGIONURLSWITHNAME_EU`.
    ///
    /// # Errors
    /// Fails if a setting is unknown or invalid.
    pub fn from_settings(self, settings: &Settings) -> Result<Self, Error> {
        self.read(settings, Scope::Embedded)
    }

    /// Reads the settings of a process that is only a registry server: those that
    /// [`from_settings`](Self::from_settings) reads, and `server.*` and `spring.*` as well.
    ///
    /// `server.port`, `server.address` and `management.server.*` are left to the caller, which
    /// binds the listeners. `server.ssl.*` is the TLS of
    /// [`EurekaServer::listener`](crate::EurekaServer::listener) (feature `tls`). If
    /// `server.ssl.enabled` or `eureka.client.tls.enabled` is false, the other settings of its
    /// family are ignored.
    ///
    /// # Errors
    /// Fails as [`from_settings`](Self::from_settings). Also fails if a `server.*` setting is
    /// unknown, or if `spring.security.*` or `server.ssl.*` requires protection that this server
    /// does not have.
    pub fn from_settings_standalone(self, settings: &Settings) -> Result<Self, Error> {
        self.read(settings, Scope::Standalone)
    }

    /// Reads the environment variables of the settings, such as
    /// `EUREKA_SERVER_EVICTIONINTERVALTIMERINMS`, as [`from_settings`](Self::from_settings) does.
    /// Files are not read.
    ///
    /// # Errors
    /// Fails if a variable is unknown or invalid.
    pub fn from_env(self) -> Result<Self, Error> {
        self.from_settings(&Settings::from_env().map_err(Error::variable)?)
    }

    fn read(self, settings: &Settings, scope: Scope) -> Result<Self, Error> {
        check(settings, scope).map_err(Error::variable)?;
        let is_read = |name: &str| !is_of_application(scope, name) && !is_switched_off(settings, name);
        let mut properties = PROPERTIES.iter().filter(|property| is_read(property.name()));
        // Without its value, such a setting would leave the registry open, or on plain HTTP.
        let mut protections = properties.clone().filter(|property| access::is_protection(property.name()));
        let may_be_blank = |property: &Property, key: Option<&str>| {
            access::sufficient(property.name())
                .iter()
                .any(|group| group.iter().all(|name| has_value(settings, name, key)))
        };
        protections
            .try_for_each(|property| property.key.check_not_blank(settings, |key| may_be_blank(property, key)))
            .map_err(Error::variable)?;
        properties.try_fold(self, |builder, property| property.key.apply(settings, builder)).map_err(Error::variable)
    }
}

/// Returns true if a setting has a value: of a map, for this key of the user's if the setting is
/// one of the same family.
fn has_value(settings: &Settings, name: &str, key: Option<&str>) -> bool {
    let property = PROPERTIES.iter().find(|property| property.name() == name);
    // The error of a value is reported when the value is read.
    property.is_some_and(|property| property.key.has_value(settings, key).unwrap_or(true))
}

/// Returns the settings of a registry server, those without a meaning here included.
#[cfg(feature = "client")]
pub(crate) fn property_names() -> Vec<&'static str> {
    let names = PROPERTIES.iter().map(Property::name).chain(WITHOUT_MEANING.iter().copied());
    // The caller is a client, where `eureka.client.*` has another meaning.
    names.filter(|name| !name.starts_with("eureka.client.")).collect()
}

/// Returns the rows of the table, for the documentation.
#[cfg(all(test, feature = "cli", feature = "tls"))]
pub(crate) fn property_keys() -> impl Iterator<Item = &'static crate::config::Key<EurekaServerBuilder>> {
    PROPERTIES.iter().map(|property| &property.key)
}

#[cfg(test)]
mod tests;
