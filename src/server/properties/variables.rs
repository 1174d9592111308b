//! Check for environment variables that a registry server does not read.

#[cfg(feature = "client")]
use super::rules::client_properties;
use super::rules::{LISTENER, MISTYPED, asks, asks_for_protection, nearest_property, refused, switch_of};
use super::table::{JSON, NOT_YET, OF_SPRING_SERVERS, PROPERTIES, UNPROTECTED, WITHOUT_MEANING};
use crate::config::Env;
use crate::config::names::covers;
use crate::config::names::{after, nearest_within};
use crate::server::Error;

/// Kind of process that reads the variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// `SPRING_*` and `SERVER_*` belong to the application around the registry.
    Embedded,
    /// `SPRING_*` and `SERVER_*` are settings of the registry.
    Standalone,
}

const IGNORED: &str = "has no meaning here and is ignored";
#[cfg(feature = "client")]
const OF_CLIENTS: &str = "is a setting of clients, which a registry server does not read";
const NO_SETTING: &str = "is no setting";
/// Variables with JVM options.
const JVM_OPTIONS: [&str; 3] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS"];

/// Fails at the first variable that is set without an effect and cannot be ignored. Logs warnings
/// for the other variables without an effect.
pub(super) fn check(env: &Env<'_>, scope: Scope, is_off: &dyn Fn(&str) -> bool) -> Result<(), Error> {
    let mut of_spring = Vec::new();
    for (variable, value) in env.set() {
        match rule(scope, is_off, &variable, &value)? {
            Rule::None => {}
            Rule::Warn(why) => tracing::warn!("environment variable without effect: {variable} {why}"),
            Rule::OfSpring => of_spring.push(variable),
        }
    }
    if !of_spring.is_empty() {
        tracing::warn!(variables = of_spring.join(", "), "Spring variables without a meaning here ignored");
    }
    Ok(())
}

enum Rule {
    /// The variable is read, or does not concern the registry.
    None,
    Warn(&'static str),
    /// One warning names all variables of this kind.
    OfSpring,
}

/// First parts of the names of settings.
const FAMILIES: [&str; 4] = ["eureka", "spring", "server", "security"];

fn rule(scope: Scope, is_off: &dyn Fn(&str) -> bool, variable: &str, value: &str) -> Result<Rule, Error> {
    // Most variables belong to no family, and a comparison with all settings is slow.
    if !FAMILIES.into_iter().any(|family| after(family, variable).is_some()) {
        let is_jvm = scope == Scope::Standalone
            && JVM_OPTIONS.contains(&variable)
            && ["-Deureka.", "-Dspring.", "-Dserver."].into_iter().any(|option| value.contains(option));
        return Ok(if is_jvm { Rule::Warn("has settings of a JVM, which are not read") } else { Rule::None });
    }
    let is_set = |known: &str| covers(known, variable);
    let is_below = |family: &str| after(family, variable).is_some_and(|rest| rest.starts_with(['.', '_']));
    if PROPERTIES.iter().any(|property| is_set(property.name)) {
        return Ok(Rule::None);
    }
    if switch_of(variable).is_some_and(is_off) {
        return Ok(Rule::None);
    }
    if let Some((_, why)) = UNPROTECTED.iter().find(|(family, _)| is_set(family)) {
        return match scope {
            _ if !asks(value) => Ok(Rule::None),
            Scope::Standalone => Err(Error::refused(variable, why)),
            Scope::Embedded => Ok(Rule::Warn("has no effect on the registry in this process")),
        };
    }
    if let Some((known, nothing, expected)) = NOT_YET.iter().find(|(known, ..)| is_set(known)) {
        let is_of_spring = !known.starts_with("eureka.");
        let is_harmless = value.trim().eq_ignore_ascii_case(nothing) || is_of_spring && scope == Scope::Embedded;
        return if is_harmless { Ok(Rule::None) } else { Err(refused(variable, value, expected)) };
    }
    if WITHOUT_MEANING.iter().any(|known| is_set(known)) {
        return Ok(Rule::Warn(IGNORED));
    }
    #[cfg(feature = "client")]
    if client_properties().any(is_set) {
        return Ok(Rule::Warn(OF_CLIENTS));
    }
    if is_below("eureka") {
        let nearest = nearest_property(variable);
        // Other `eureka.*` names are used as placeholders in the files of Spring applications.
        let is_family = ["eureka.server", "eureka.client", "eureka.instance"].into_iter().any(is_below);
        return if is_family || nearest.is_some() {
            Err(Error::unknown_variable(variable, nearest))
        } else {
            Ok(Rule::Warn(NO_SETTING))
        };
    }
    if scope == Scope::Embedded {
        return Ok(Rule::None);
    }
    if is_set(JSON) {
        if let Some(name) = asks_for_protection(value, is_off) {
            return Err(Error::refused(&format!("{name} in {variable}"), "is set, but is not read by this server"));
        }
        return Ok(Rule::Warn("is not read: give its settings as arguments or as variables of their own"));
    }
    if is_below("spring") {
        let of_spring = PROPERTIES.iter().map(|property| property.name).filter(|name| name.starts_with("spring."));
        return match nearest_within(variable, of_spring, MISTYPED) {
            Some(nearest) => Err(Error::unknown_variable(variable, Some(nearest))),
            None => Ok(Rule::OfSpring),
        };
    }
    if is_below("server") {
        if LISTENER.into_iter().any(is_set) {
            return Ok(Rule::None);
        }
        if OF_SPRING_SERVERS.iter().any(|known| is_set(known)) {
            return Ok(Rule::OfSpring);
        }
        return Err(Error::unknown_variable(variable, nearest_property(variable)));
    }
    Ok(Rule::None)
}
