//! Settings of a registry server under the names of a Spring Cloud Eureka server.
//!
//! One table lists their names, units, defaults and setters. Command line, environment and help are
//! derived from it. Names are compared as in Spring, without dashes and case:
//! `peer-node-read-timeout-ms` equals `peerNodeReadTimeoutMs`. Settings that Java does not have are
//! named `eureka.server.limits.*`.

mod property;
mod rules;
mod table;
mod variables;

pub use self::property::Property;
use self::property::is_called;
#[cfg(feature = "client")]
use self::rules::client_properties;
use self::rules::{MISTYPED, asks, is_off, nearest_property, refused, switch_of};
use self::table::{JSON, NOT_YET, OF_SPRING_SERVERS, PROPERTIES, UNPROTECTED, WITHOUT_MEANING};
use self::variables::Scope;
use super::{Error, EurekaServerBuilder};
use crate::config::Env;
#[cfg(feature = "peers")]
use crate::config::names;
use crate::config::names::nearest_within;

impl Property {
    /// Returns all settings.
    pub fn all() -> &'static [Self] {
        PROPERTIES
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
    /// Dashes and case do not matter. A Spring property without a meaning here is ignored with a
    /// warning. [`eviction`](Self::eviction), [`limits`](Self::limits) and the other setters of a
    /// whole subject discard the properties of their subject that were set before.
    ///
    /// # Errors
    /// Fails if the property is unknown, or if the value is invalid or has a placeholder, `${...}`.
    /// Placeholders are not resolved.
    pub fn property(self, name: &str, value: &str) -> Result<Self, Error> {
        self.set(name, value, &|_| false)
    }

    fn set(self, name: &str, value: &str, is_off: &dyn Fn(&str) -> bool) -> Result<Self, Error> {
        if switch_of(name).is_some_and(is_off) {
            return Ok(self);
        }
        if value.contains("${") {
            return Err(Error::placeholder(name));
        }
        for property in PROPERTIES {
            if let Some(key) = property.matches(name) {
                return property.apply(self, name, key, value);
            }
        }
        if let Some((_, why)) = UNPROTECTED.iter().find(|(known, _)| is_called(known, name)) {
            return if asks(value) { Err(Error::refused(name, why)) } else { Ok(self) };
        }
        if let Some((_, nothing, expected)) = NOT_YET.iter().find(|(known, ..)| is_called(known, name)) {
            let is_nothing = value.trim().is_empty() || value.trim().eq_ignore_ascii_case(nothing);
            return if is_nothing { Ok(self) } else { Err(refused(name, value, expected)) };
        }
        if is_called(JSON, name) {
            let why = "is not read by this server: give its settings as arguments of their own";
            return if value.trim().is_empty() { Ok(self) } else { Err(Error::refused(name, why)) };
        }
        #[cfg(feature = "client")]
        if client_properties().any(|known| is_called(known, name)) {
            tracing::warn!(name, "setting of a client ignored, a registry server does not read it");
            return Ok(self);
        }
        let is_spring = name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("spring."))
            && nearest_within(name, PROPERTIES.iter().map(|property| property.name), MISTYPED).is_none();
        if is_spring || WITHOUT_MEANING.iter().chain(OF_SPRING_SERVERS).any(|known| is_called(known, name)) {
            tracing::warn!(name, "setting without a meaning here ignored");
            return Ok(self);
        }
        Err(Error::unknown_property(name, nearest_property(name)))
    }

    /// Reads the environment variables of the properties, such as
    /// `EUREKA_SERVER_EVICTIONINTERVALTIMERINMS`. Settings without a variable are unchanged.
    ///
    /// An unknown variable that begins with `EUREKA_SERVER_`, `EUREKA_CLIENT_` or
    /// `EUREKA_INSTANCE_` is an error, as is any other `EUREKA_*` variable that is similar to a
    /// setting. A warning names the variables without an effect. Variables that Kubernetes sets for
    /// a service named `eureka` or `eureka-...` are ignored.
    ///
    /// Of the properties that end in a key of the user's, it reads those of all zones, and those of
    /// remote regions whose names have no dash, such as
    /// `EUREKA_SERVER_REMOTEREGIONURLSWITHNAME_EU`. It reads the white lists of all regions and of
    /// `global`.
    ///
    /// # Errors
    /// Fails if a variable is unknown, or if its value is invalid or has a placeholder, `${...}`.
    pub fn from_env(self) -> Result<Self, Error> {
        self.from(&Env::process(), Scope::Embedded, &[])
    }

    /// Reads environment variables and arguments of a process that is only a registry server. Reads
    /// the variables as [`from_env`](Self::from_env) does, and `SERVER_*` and `SPRING_*` as well.
    /// Then sets each argument, a name and a value, as [`property`](Self::property) does.
    ///
    /// A warning names the Spring variables without a meaning here. `SERVER_PORT` and
    /// `SERVER_ADDRESS` are left to the caller, which binds the listener. If `server.ssl.enabled`
    /// or `eureka.client.tls.enabled` is false, the other settings of its family are ignored in
    /// variables and arguments. For these two switches an argument takes precedence over a
    /// variable.
    ///
    /// # Errors
    /// Fails as [`from_env`](Self::from_env) and [`property`](Self::property) do. Also fails if a
    /// `SERVER_*` variable is unknown, or if `SPRING_SECURITY_*` or `SERVER_SSL_*` requires
    /// protection that this server does not have.
    pub fn from_env_standalone<'a>(
        self,
        arguments: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Error> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        self.from(&Env::process(), Scope::Standalone, &arguments)
    }

    fn from(self, env: &Env<'_>, scope: Scope, arguments: &[(&str, &str)]) -> Result<Self, Error> {
        let is_off = |switch: &str| is_off(switch, env, arguments);
        variables::check(env, scope, &is_off)?;
        let builder = self.variables(env)?;
        arguments.iter().try_fold(builder, |builder, (name, value)| builder.set(name, value, &is_off))
    }

    fn variables(mut self, env: &Env<'_>) -> Result<Self, Error> {
        // The region is read first, since the names of its zones are parts of other names.
        for property in PROPERTIES.iter().filter(|property| !property.name.contains('<')) {
            if let Some(value) = env.text(property.name).map_err(Error::variable)? {
                self = property.apply(self, property.name, "", &value)?;
            }
        }
        #[cfg(feature = "peers")]
        {
            let region = self.peers.region_name().to_owned();
            if let Some(zones) =
                env.text(&format!("eureka.client.availability-zones.{region}")).map_err(Error::variable)?
            {
                self = self.peers_with(|peers| peers.availability_zones(region, zones));
            }
            // Zones of other regions are read as well, since an argument may change the region.
            for (key, zones) in env.map("eureka.client.availability-zones").map_err(Error::variable)? {
                if names::relaxed(&key) != names::relaxed(self.peers.region_name()) {
                    self = self.peers_with(|peers| peers.availability_zones(key.replace('.', "-"), zones));
                }
            }
            for zone in self.peers.zone_names() {
                if let Some(urls) = env.text(&format!("eureka.client.service-url.{zone}")).map_err(Error::variable)? {
                    self = self.peers_with(|peers| peers.replace_zone_urls(&zone, &urls));
                }
            }
            // URLs of other zones have no effect unless an argument names the zone. `build` warns
            // about them.
            for (key, urls) in env.map("eureka.client.service-url").map_err(Error::variable)? {
                let is_it = |zone: &String| names::relaxed(zone) == names::relaxed(&key);
                if !self.peers.zone_names().iter().any(is_it) {
                    self = self.peers_with(|peers| peers.replace_zone_urls(&key.replace('.', "-"), &urls));
                }
            }
            let regions = "eureka.server.remote-region-urls-with-name";
            for (variable, region, url) in env.entries(regions).map_err(Error::variable)? {
                // The name of a variable has no dashes, so that `US_EAST_1` is ambiguous.
                if region.contains('.') && !variable.contains('.') {
                    return Err(Error::property(
                        &format!("{regions}.{}", region.replace('.', "_")),
                        "",
                        "no variable of its own: set that of the whole property to REGION;URL,REGION;URL",
                    ));
                }
                self = self.regions_with(|regions| regions.region(&region, &url));
            }
            let whitelists = "eureka.server.remote-region-app-whitelist";
            let regions = self.regions.names();
            for region in regions.iter().map(String::as_str).chain(["global"]) {
                if let Some(apps) = env.text(&format!("{whitelists}.{region}")).map_err(Error::variable)? {
                    self = self.regions_with(|regions| regions.whitelist(region, apps));
                }
            }
            // White lists of other regions have no effect. `build` warns about them.
            for (key, apps) in env.map(whitelists).map_err(Error::variable)? {
                let is_it = |region: &String| names::relaxed(region) == names::relaxed(&key);
                if !regions.iter().any(is_it) {
                    self = self.regions_with(|regions| regions.whitelist(key.replace('.', "-"), apps));
                }
            }
            // Common spellings: with a dash in `default-zone`, or with the dashes of `service-url`.
            for name in ["eureka.client.service-url.default-zone", "eureka.client.serviceurl.default-zone"] {
                if let Some(urls) = env.text(name).map_err(Error::variable)? {
                    self = self.peers_with(|peers| peers.replace_zone_urls("defaultZone", &urls));
                }
            }
        }
        Ok(self)
    }
}

/// Returns the settings of a registry server, those without a meaning here included.
#[cfg(feature = "client")]
pub(crate) fn property_names() -> Vec<&'static str> {
    let names = PROPERTIES.iter().map(|property| property.name).chain(WITHOUT_MEANING.iter().copied());
    // The caller is a client, where `eureka.client.*` has another meaning.
    names.filter(|name| !name.starts_with("eureka.client.")).collect()
}

#[cfg(test)]
mod tests;
