//! Setting of a registry server: its name, help text and setter.

use std::fmt;
use std::time::Duration;

use crate::config::boolean;
use crate::server::{Error, EurekaServerBuilder};

pub(super) type Builder = EurekaServerBuilder;

/// Setting of a registry server under its Spring name.
///
/// Its `Display` writes an entry of a help text: name, unit, meaning, default.
#[derive(Clone, Copy)]
pub struct Property {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Flag(fn(Builder, bool) -> Builder),
    Millis(fn(Builder, Duration) -> Builder),
    Seconds(fn(Builder, Duration) -> Builder),
    Share(fn(Builder, f64) -> Builder),
    Count(fn(Builder, usize) -> Builder),
    #[cfg(all(feature = "peers", feature = "dns"))]
    Port(fn(Builder, u16) -> Builder),
    #[cfg(feature = "peers")]
    Text(fn(Builder, &str) -> Builder),
    /// The user's key is the last part of the name.
    #[cfg(feature = "peers")]
    Keyed(fn(Builder, &str, &str) -> Builder),
}

impl Property {
    /// Returns the name with dashes, such as `eureka.server.eviction-interval-timer-in-ms`. A name
    /// that ends in `<...>` stands for one name per key of the user's.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the user's key in a name of this property, which follows a dot or is in brackets.
    /// The key is empty if the property has none. Returns `None` for the name of another property.
    pub(super) fn matches<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self.name.split_once(".<") {
            None => (relaxed(self.name) == relaxed(name)).then_some(""),
            Some((fixed, _)) => {
                // The key may contain dots.
                let dots = fixed.matches('.').count();
                let behind_dot = || name.match_indices('.').nth(dots).map(|(at, _)| (&name[..at], &name[at + 1..]));
                let in_brackets = name.strip_suffix(']').and_then(|name| name.split_once('['));
                let (given, key) = in_brackets.or_else(behind_dot)?;
                (relaxed(fixed) == relaxed(given) && !key.is_empty() && !key.contains(['[', ']'])).then_some(key)
            }
        }
    }

    pub(super) fn apply(&self, builder: Builder, name: &str, key: &str, value: &str) -> Result<Builder, Error> {
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
            #[cfg(all(feature = "peers", feature = "dns"))]
            Kind::Port(set) => {
                let port = value.parse().ok().filter(|port| *port != 0);
                set(builder, port.ok_or_else(|| invalid("a port, 1 to 65535"))?)
            }
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

/// Normalizes a property's name for comparisons: lower case, without dashes and underscores. The
/// dots between its parts count.
pub(super) fn relaxed(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns `true` if `name` equals `known`, or begins with it if `known` ends in `*`.
pub(super) fn is_called(known: &str, name: &str) -> bool {
    match known.strip_suffix('*') {
        Some(start) => relaxed(name).starts_with(&relaxed(start)),
        None => relaxed(known) == relaxed(name),
    }
}
