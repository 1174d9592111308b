//! The settings of a Spring Cloud Eureka server, under the names that it has for them.
//!
//! One table says what each is called, what it takes and where it goes; command line, environment and help are made from it. Names are
//! compared as Spring does, without dashes and case: `peer-node-read-timeout-ms` is `peerNodeReadTimeoutMs`. What Java has no name for is
//! called `eureka.server.limits.*`.

mod table;

use std::fmt;
use std::time::Duration;

use self::table::{NOT_YET, PROPERTIES, WITHOUT_MEANING};
use super::Env;
use super::env::boolean;
use super::names::nearest;
use crate::server::{Error, EurekaServerBuilder};

type Builder = EurekaServerBuilder;

/// A setting of a registry server under its Spring name.
///
/// Its `Display` is a line of a help text: name, unit, default, meaning.
#[derive(Clone, Copy)]
pub struct Property {
    name: &'static str,
    unit: &'static str,
    default: &'static str,
    help: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Flag(fn(Builder, bool) -> Builder),
    Millis(fn(Builder, Duration) -> Builder),
    Seconds(fn(Builder, Duration) -> Builder),
    Share(fn(Builder, f64) -> Builder),
    Count(fn(Builder, usize) -> Builder),
    #[cfg(feature = "peers")]
    Text(fn(Builder, &str) -> Builder),
    /// The name ends in a key of the user's.
    #[cfg(feature = "peers")]
    Keyed(fn(Builder, &str, &str) -> Builder),
}

impl Property {
    /// The name, dashes and all: `eureka.server.eviction-interval-timer-in-ms`. One that ends in `<...>` stands for many.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// All of them.
    pub fn all() -> &'static [Self] {
        PROPERTIES
    }

    /// The user's part of a name, if this is the property that it names: behind a dot or in brackets.
    fn matches<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self.name.split_once(".<") {
            None => (relaxed(self.name) == relaxed(name)).then_some(""),
            Some((fixed, _)) => {
                // The user's part keeps its dots.
                let dots = fixed.matches('.').count();
                let behind_dot = || name.match_indices('.').nth(dots).map(|(at, _)| (&name[..at], &name[at + 1..]));
                let in_brackets = name.strip_suffix(']').and_then(|name| name.split_once('['));
                let (given, key) = in_brackets.or_else(behind_dot)?;
                (relaxed(fixed) == relaxed(given) && !key.is_empty() && !key.contains(['[', ']'])).then_some(key)
            }
        }
    }

    fn apply(&self, builder: Builder, name: &str, key: &str, value: &str) -> Result<Builder, Error> {
        let value = value.trim();
        let invalid = |expected| Error::property(name, value, expected);
        let _ = key;
        Ok(match self.kind {
            Kind::Flag(set) => set(builder, boolean(value).ok_or_else(|| invalid("true or false"))?),
            Kind::Millis(set) => {
                set(builder, Duration::from_millis(value.parse().map_err(|_| invalid("whole milliseconds"))?))
            }
            Kind::Seconds(set) => {
                set(builder, Duration::from_secs(value.parse().map_err(|_| invalid("whole seconds"))?))
            }
            Kind::Share(set) => set(builder, value.parse().map_err(|_| invalid("a number like 0.85"))?),
            Kind::Count(set) => set(builder, value.parse().map_err(|_| invalid("a whole number"))?),
            #[cfg(feature = "peers")]
            Kind::Text(set) => set(builder, value),
            #[cfg(feature = "peers")]
            Kind::Keyed(set) => set(builder, key, value),
        })
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, default, help, .. } = self;
        write!(f, "--{name} <{unit}>\n          {help}")?;
        if !default.is_empty() {
            write!(f, " [default: {default}]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property").field("name", &self.name).field("default", &self.default).finish_non_exhaustive()
    }
}

impl EurekaServerBuilder {
    /// Sets what a Spring server calls by this name, such as `eureka.server.eviction-interval-timer-in-ms`; see [`Property::all`].
    ///
    /// What it has no name for begins with `eureka.server.limits`; of these, the limits of connections count for
    /// [`EurekaServer::listener`](crate::EurekaServer::listener).
    ///
    /// Dashes and case do not matter. A property without meaning here is ignored with a warning.
    ///
    /// # Errors
    /// When there is no such property, its value is not what it takes, or the value has a
    /// placeholder, `${...}`: placeholders are not resolved.
    pub fn property(self, name: &str, value: &str) -> Result<Self, Error> {
        if value.contains("${") {
            return Err(Error::placeholder(name));
        }
        for property in PROPERTIES {
            if let Some(key) = property.matches(name) {
                return property.apply(self, name, key, value);
            }
        }
        if let Some((_, nothing, expected)) = NOT_YET.iter().find(|(known, ..)| is_called(known, name)) {
            if value.trim().eq_ignore_ascii_case(nothing) {
                return Ok(self);
            }
            // Those of key stores, which are no business of an error's readers.
            let shown = if relaxed(name).contains("password") { "..." } else { value };
            return Err(Error::property(name, shown, expected));
        }
        if WITHOUT_MEANING.iter().any(|known| is_called(known, name)) {
            tracing::warn!(name, "this setting has no meaning here, it is ignored");
            return Ok(self);
        }
        Err(Error::unknown_property(name, nearest(name, PROPERTIES.iter().map(|property| property.name))))
    }

    /// Reads the variables with Spring names, `EUREKA_SERVER_EVICTIONINTERVALTIMERINMS`, and keeps
    /// the other settings. A variable that begins with `EUREKA_` and has no effect is named in a
    /// warning, and so are `SPRING_SECURITY_*` and `SERVER_SSL_*`.
    ///
    /// Of the properties with a name of the user's at the end it reads those of the zones in use, and `defaultZone`; the remote regions whose
    /// names have no dash, as `EUREKA_SERVER_REMOTEREGIONURLSWITHNAME_EU`; and the white lists of these, of the others in
    /// `EUREKA_SERVER_REMOTEREGIONURLSWITHNAME`, and `global`.
    ///
    /// # Errors
    /// When a variable holds something else than it must, or a placeholder, `${...}`.
    pub fn from_env(self) -> Result<Self, Error> {
        self.from(&Env::process())
    }

    fn from(mut self, env: &Env<'_>) -> Result<Self, Error> {
        for (name, nothing, expected) in NOT_YET.iter().filter(|(name, ..)| !name.ends_with('*')) {
            if let Some(value) = env.text(name).map_err(Error::variable)?
                && !value.eq_ignore_ascii_case(nothing)
            {
                return Err(Error::property(name, &value, expected));
            }
        }
        warn_of_unused(env);
        // The region first: the names of its zones are parts of other names.
        for property in PROPERTIES.iter().filter(|property| !property.name.contains('<')) {
            if let Some(value) = env.text(property.name).map_err(Error::variable)? {
                self = property.apply(self, property.name, "", &value)?;
            }
        }
        #[cfg(feature = "peers")]
        {
            let region = self.peers.region().to_owned();
            if let Some(zones) =
                env.text(&format!("eureka.client.availability-zones.{region}")).map_err(Error::variable)?
            {
                self = self.availability_zones(region, zones);
            }
            for zone in self.peers.zones() {
                if let Some(urls) = env.text(&format!("eureka.client.service-url.{zone}")).map_err(Error::variable)? {
                    self = self.replace_zone_urls(&zone, &urls);
                }
            }
            // Those of other zones have no effect unless an argument names the zone; the server
            // says so when it is built.
            for (key, urls) in env.map("eureka.client.service-url").map_err(Error::variable)? {
                let is_it = |zone: &String| super::names::relaxed(zone) == super::names::relaxed(&key);
                if !self.peers.zones().iter().any(is_it) {
                    self = self.replace_zone_urls(&key.replace('.', "-"), &urls);
                }
            }
            let regions = "eureka.server.remote-region-urls-with-name";
            for region in env.keys(regions) {
                let name = format!("{regions}.{region}");
                // A variable's name has no dashes, so that `US_EAST_1` may be any of several.
                if region.contains('_') {
                    return Err(Error::property(
                        &name,
                        "",
                        "no variable for it: write REGION;URL,REGION;URL into that of the whole property",
                    ));
                }
                if let Some(url) = env.text(&name).map_err(Error::variable)? {
                    self = self.remote_region(&region, &url);
                }
            }
            for region in self.regions.names().into_iter().chain(["global".to_owned()]) {
                if let Some(apps) =
                    env.text(&format!("eureka.server.remote-region-app-whitelist.{region}")).map_err(Error::variable)?
                {
                    self = self.remote_region_whitelist(region, apps);
                }
            }
            // As often written: a dash in it, or the dashes of the first part kept.
            for name in ["eureka.client.service-url.default-zone", "eureka.client.serviceurl.default-zone"] {
                if let Some(urls) = env.text(name).map_err(Error::variable)? {
                    self = self.replace_zone_urls("defaultZone", &urls);
                }
            }
        }
        Ok(self)
    }
}

const IGNORED: &str = "has no meaning here, it is ignored";
#[cfg(feature = "client")]
const OF_CLIENTS: &str = "is a setting of clients, which a registry server does not read";

/// Names of variables that a Spring server reads for what this one cannot do. Operators who set them
/// expect protection.
const UNPROTECTED: [(&str, &str); 2] = [
    ("spring.security.*", "has no effect: this server has no access control, put one in front of it"),
    ("server.ssl.*", "has no effect: this server speaks plain HTTP, put something with TLS in front of it"),
];

/// Logs a warning for each variable that is set and has no effect.
fn warn_of_unused(env: &Env<'_>) {
    // Those that cannot be had yet were looked at one by one.
    let refused = NOT_YET.iter().map(|(name, ..)| *name).filter(|name| !name.ends_with('*'));
    let read: Vec<_> = PROPERTIES.iter().map(|property| property.name).chain(refused).collect();
    let mut unsupported = UNPROTECTED.to_vec();
    unsupported.extend(WITHOUT_MEANING.iter().map(|&name| (name, IGNORED)));
    unsupported.extend(NOT_YET.iter().map(|&(name, ..)| (name, "is not supported by this server")));
    #[cfg(feature = "client")]
    unsupported.extend(super::client::of_clients().map(|name| (name, OF_CLIENTS)));
    env.warn_of_unused("eureka", &read, &unsupported);
}

/// Names of settings that a registry server takes, those without meaning here as well.
#[cfg(feature = "client")]
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    let names = PROPERTIES.iter().map(|property| property.name).chain(WITHOUT_MEANING.iter().copied());
    // Those of clients have another meaning there.
    names.filter(|name| !name.starts_with("eureka.client."))
}

/// A name as Spring compares it.
fn relaxed(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether it is this known name, or begins like one that ends in `*`.
fn is_called(known: &str, name: &str) -> bool {
    match known.strip_suffix('*') {
        Some(start) => relaxed(name).starts_with(&relaxed(start)),
        None => relaxed(known) == relaxed(name),
    }
}

#[cfg(test)]
mod tests;
