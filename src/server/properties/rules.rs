//! Rules for names and values that arguments and variables share.

use super::property::is_called;
use super::table::{PROPERTIES, UNPROTECTED};
use crate::config::names::covers;
use crate::config::names::{self, nearest};
use crate::config::{Env, boolean};
use crate::server::Error;

/// Settings that the caller of [`from_env_standalone`](crate::server::EurekaServerBuilder::from_env_standalone)
/// reads.
pub(super) const LISTENER: [&str; 2] = ["server.port", "server.address"];
/// Maximum edit distance at which a name counts as mistyped, in families that have other valid
/// names.
pub(super) const MISTYPED: usize = 2;

/// Returns `true` for a value that enables something: one that is neither empty nor false.
pub(super) fn asks(value: &str) -> bool {
    !value.trim().is_empty() && boolean(value.trim()) != Some(false)
}

/// Families of settings with their switch. Spring does not read the family while the switch is
/// false.
const SWITCHES: [(&str, &str); 2] =
    [("server.ssl.*", "server.ssl.enabled"), ("eureka.client.tls.*", "eureka.client.tls.enabled")];

/// Returns the switch of this setting's family.
pub(super) fn switch_of(name: &str) -> Option<&'static str> {
    SWITCHES.iter().find(|(family, _)| covers(family, name)).map(|(_, switch)| *switch)
}

/// Returns `true` if the switch is false in its last argument, or in its variable if there is no
/// argument.
pub(super) fn is_off(switch: &str, env: &Env<'_>, arguments: &[(&str, &str)]) -> bool {
    let is_given = |(name, value): &&(&str, &str)| is_called(switch, name) && !value.trim().is_empty();
    match arguments.iter().rev().find(is_given) {
        Some((_, value)) => !asks(value),
        None => env.text(switch).ok().flatten().is_some_and(|value| !asks(&value)),
    }
}

/// Returns the error for a value that requires a missing feature. It does not contain passwords of
/// key stores.
pub(super) fn refused(name: &str, value: &str, expected: &'static str) -> Error {
    if value.contains("${") {
        return Error::placeholder(name);
    }
    let shown = if names::relaxed(name).contains("password") { "..." } else { value };
    Error::property(name, shown, expected)
}

/// Returns the known name that is most similar to an unknown one, settings of the listener
/// included.
pub(super) fn nearest_property(name: &str) -> Option<&'static str> {
    nearest(name, PROPERTIES.iter().map(|property| property.name).chain(LISTENER))
}

/// Returns the settings that Spring's clients read and this server does not.
#[cfg(feature = "client")]
pub(super) fn client_properties() -> impl Iterator<Item = &'static str> {
    let is_ours = |known: &str| {
        let start = known.trim_end_matches('*');
        PROPERTIES.iter().any(|property| names::after(start, property.name).is_some())
    };
    crate::eureka::spring_properties().filter(move |known| known.starts_with("eureka.") && !is_ours(known))
}

/// Returns the first setting in this JSON document that requires access control or TLS, unless its
/// switch is off in the document or outside.
pub(super) fn asks_for_protection(json: &str, is_off: &dyn Fn(&str) -> bool) -> Option<String> {
    fn flatten(name: String, value: &serde_json::Value, into: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(members) => {
                for (key, value) in members {
                    let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                    flatten(name, value, into);
                }
            }
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => into.push((name, text.clone())),
            value => into.push((name, value.to_string())),
        }
    }
    let mut settings = Vec::new();
    flatten(String::new(), &serde_json::from_str(json).ok()?, &mut settings);
    let is_off_here = |switch: &str| {
        settings.iter().any(|(name, value)| is_called(switch, name) && !value.trim().is_empty() && !asks(value))
    };
    let asks_for_it = |(name, value): &&(String, String)| {
        asks(value)
            && UNPROTECTED.iter().any(|(known, _)| is_called(known, name))
            && !switch_of(name).is_some_and(|switch| is_off(switch) || is_off_here(switch))
    };
    settings.iter().find(asks_for_it).map(|(name, _)| name.clone())
}
