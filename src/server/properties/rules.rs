//! Rules for the settings that a registry server does not read.

use super::has_value;
use super::property::Property;
use super::table::{NOT_YET, OF_SPRING_SERVERS, OF_SSL, PROPERTIES, UNPROTECTED, WITHOUT_MEANING};
use crate::config::names::{nearest, nearest_within, relaxed};
use crate::config::{Entry, InvalidSetting, Origin, Settings, boolean, is_name_of};

/// Kind of process that reads the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// `spring.*` and `server.*` belong to the application around the registry.
    Embedded,
    /// `spring.*` and `server.*` are settings of the registry.
    Standalone,
}

/// Settings that the caller of
/// [`from_settings_standalone`](crate::server::EurekaServerBuilder::from_settings_standalone) reads.
const LISTENER: [&str; 5] = [
    "server.port",
    "server.address",
    "management.server.port",
    "management.server.address",
    "management.server.ssl.enabled",
];
/// Settings that [`Settings`] reads itself.
const OF_SOURCES: [&str; 11] = [
    "spring.config.name",
    "spring.config.location",
    "spring.config.additional-location",
    "spring.config.import",
    "spring.config.activate.*",
    "spring.profiles.active",
    "spring.profiles.default",
    "spring.profiles.include",
    "spring.profiles.group.*",
    "spring.application.json",
    "spring.main.cloud-platform",
];
/// Maximum edit distance at which a name counts as mistyped, in families that have other valid
/// names.
const MISTYPED: usize = 2;
/// Families of settings with their switch. Spring does not read the family while the switch is
/// false.
const SWITCHES: [(&str, &str); 2] =
    [("server.ssl.*", "server.ssl.enabled"), ("eureka.client.tls.*", "eureka.client.tls.enabled")];
/// Meaning of settings that protect the application around an embedded registry.
const OF_APPLICATION: &str = "has no effect on the registry in this process";
/// Error of a setting of TLS if there is no certificate.
const WITHOUT_CERTIFICATE: &str = "is set, but there is no certificate: set server.ssl.certificate and \
                                   server.ssl.certificate-private-key, or server.ssl.enabled=false";
/// Variables with JVM options.
const JVM_OPTIONS: [&str; 3] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS"];

/// Effect of a setting that is not read.
enum Rule {
    /// The setting is read, or does not concern the registry.
    None,
    /// A setting that is known and ignored, with the reason.
    Ignored(&'static str),
    /// One log line names all settings of this kind.
    OfSpring,
    Warning(String),
}

/// Fails at the first setting without an effect that cannot be ignored. Logs the others.
pub(super) fn check(settings: &Settings, scope: Scope) -> Result<(), InvalidSetting> {
    let mut of_spring = Vec::new();
    for entry in settings.entries().filter(|entry| !entry.is_unset()) {
        match rule(settings, scope, entry)? {
            Rule::None => {}
            Rule::Ignored(why) if entry.report_once() => {
                tracing::info!("setting ignored: {}: {why}", entry.place());
            }
            Rule::Warning(why) if entry.report_once() => {
                tracing::warn!("setting without effect: {} {why}", entry.place());
            }
            Rule::OfSpring if entry.report_once() => of_spring.push(entry.name.as_str()),
            _ => {}
        }
    }
    if !of_spring.is_empty() {
        tracing::info!(settings = of_spring.join(", "), "Spring settings without a meaning here ignored");
    }
    Ok(())
}

fn rule(settings: &Settings, scope: Scope, entry: &Entry) -> Result<Rule, InvalidSetting> {
    let is = |known: &str| is_name_of(known, entry);
    let [is_eureka, is_spring, is_server, is_management, is_security] =
        ["eureka", "spring", "server", "management", "security"].map(|family| entry.is_below(family));
    // Most settings belong to no family, and a comparison with all settings is slow.
    if !(is_eureka || is_spring || is_server || is_management || is_security) {
        let is_jvm = scope == Scope::Standalone
            && JVM_OPTIONS.contains(&&*entry.name)
            && ["-Deureka.", "-Dspring.", "-Dserver."].into_iter().any(|option| entry.text.contains(option));
        return Ok(if is_jvm { Rule::Warning("has settings of a JVM, which are not read".into()) } else { Rule::None });
    }
    let is_of_listener = entry.is_below("server.ssl") || entry.is_below("management");
    if scope == Scope::Embedded && is_of_listener {
        let is_ssl = entry.is_below("server.ssl") && !is_off(settings, "server.ssl.enabled") && asks(&entry.text);
        return Ok(if is_ssl {
            Rule::Warning("has no effect on the registry in this process: see EurekaServerBuilder::tls".into())
        } else {
            Rule::None
        });
    }
    if scope == Scope::Embedded && is("spring.security.*") {
        return Ok(if asks(&entry.text) { Rule::Warning(OF_APPLICATION.into()) } else { Rule::None });
    }
    if PROPERTIES.iter().any(|property| is(property.key.name)) || OF_SOURCES.into_iter().any(is) {
        return Ok(Rule::None);
    }
    if SWITCHES.iter().any(|(family, switch)| is(family) && is_off(settings, switch)) || entry.is_service_link() {
        return Ok(Rule::None);
    }
    if let Some((_, why)) = OF_SSL.iter().find(|(name, _)| is(name)) {
        // An operator who sets it expects HTTPS.
        let has_certificate =
            ["server.ssl.certificate", "server.ssl.key-store"].into_iter().any(|name| has_value(settings, name, None));
        return match has_certificate || !asks(&entry.text) {
            true => Ok(Rule::Warning((*why).to_owned())),
            false => Err(InvalidSetting::clause(&entry.place(), WITHOUT_CERTIFICATE)),
        };
    }
    if let Some((_, why)) = UNPROTECTED.iter().find(|(family, _)| is(family)) {
        return match scope {
            _ if !asks(&entry.text) => Ok(Rule::None),
            Scope::Standalone => Err(InvalidSetting::clause(&entry.place(), why)),
            Scope::Embedded => Ok(Rule::Warning(OF_APPLICATION.into())),
        };
    }
    if let Some((known, nothing, expected)) = NOT_YET.iter().find(|(known, ..)| is(known)) {
        let is_of_spring = !known.starts_with("eureka.");
        let text = entry.text.trim();
        if text.eq_ignore_ascii_case(nothing) || text.is_empty() || is_of_spring && scope == Scope::Embedded {
            return Ok(Rule::None);
        }
        let is_secret = relaxed(&entry.name).contains("password") || text.contains("${");
        return Err(InvalidSetting::expected(&entry.place(), expected, (!is_secret).then_some(text)));
    }
    if WITHOUT_MEANING.iter().any(|known| is(known)) {
        return Ok(Rule::Ignored("a registry server has no use for it"));
    }
    if scope == Scope::Standalone && LISTENER.into_iter().any(is) {
        return Ok(Rule::None);
    }
    #[cfg(feature = "client")]
    if !is_server && crate::eureka::spring_properties().any(is) {
        return Ok(Rule::Ignored("it is a setting of clients, which a registry server does not read"));
    }
    let unknown = |nearest: Option<&str>| match nearest {
        Some(nearest) => format!("is no setting; did you mean {nearest}?"),
        None => "is no setting".to_owned(),
    };
    // A file may belong to several applications, and JSON is the file of a container.
    let is_strict = !matches!(entry.origin, Origin::File { .. } | Origin::Json | Origin::Default);
    if is_eureka {
        let nearest = nearest_property(&entry.name);
        // Other `eureka.*` names are used as placeholders in the files of Spring applications.
        let is_family =
            ["eureka.server", "eureka.client", "eureka.instance"].into_iter().any(|family| entry.is_below(family));
        return if is_strict && (is_family || nearest.is_some()) {
            Err(InvalidSetting::clause(&entry.place(), unknown(nearest)))
        } else {
            Ok(Rule::Warning(unknown(nearest)))
        };
    }
    if scope == Scope::Embedded {
        return Ok(Rule::None);
    }
    if is_spring {
        let of_spring = PROPERTIES.iter().map(Property::name).filter(|name| name.starts_with("spring."));
        return match nearest_within(&entry.name, of_spring.chain(OF_SOURCES), MISTYPED) {
            Some(nearest) if is_strict => Err(InvalidSetting::clause(&entry.place(), unknown(Some(nearest)))),
            _ => Ok(Rule::OfSpring),
        };
    }
    // `management.server.*` is the listener. The rest configures Spring's endpoints.
    if is_management && !entry.is_below("management.server") {
        return Ok(Rule::OfSpring);
    }
    if is_server || is_management {
        if OF_SPRING_SERVERS.iter().any(|known| is(known)) {
            return Ok(Rule::OfSpring);
        }
        let unknown = unknown(nearest_property(&entry.name));
        return if is_strict {
            Err(InvalidSetting::clause(&entry.place(), unknown))
        } else {
            Ok(Rule::Warning(unknown))
        };
    }
    Ok(Rule::None)
}

/// Returns `true` for a value that enables something: one that is neither empty nor false.
fn asks(value: &str) -> bool {
    !value.trim().is_empty() && boolean(value.trim()) != Some(false)
}

/// Returns `true` if the switch of a family is false.
fn is_off(settings: &Settings, switch: &str) -> bool {
    settings.get(switch).ok().flatten().is_some_and(|value| !asks(&value))
}

/// Returns `true` for a setting of a family whose switch is false.
pub(super) fn is_switched_off(settings: &Settings, name: &str) -> bool {
    let is_of = |family: &str, switch: &str| name != switch && name.starts_with(family.trim_end_matches('*'));
    SWITCHES.iter().any(|(family, switch)| is_of(family, switch) && is_off(settings, switch))
}

/// Returns `true` if a registry server, or its listener, reads this setting.
pub(super) fn is_in_force(settings: &Settings, entry: &Entry) -> bool {
    let is_read = |name: &str| is_name_of(name, entry) && !is_switched_off(settings, name);
    PROPERTIES.iter().any(|property| is_read(property.name())) || LISTENER.iter().any(|known| is_name_of(known, entry))
}

/// Returns `true` for a setting that belongs to the application around an embedded registry.
pub(super) fn is_of_application(scope: Scope, name: &str) -> bool {
    scope == Scope::Embedded && ["spring.security.", "server.ssl."].into_iter().any(|family| name.starts_with(family))
}

/// Returns the known name that is most similar to an unknown one, settings of the listener
/// included.
fn nearest_property(name: &str) -> Option<&'static str> {
    nearest(name, PROPERTIES.iter().map(Property::name).chain(LISTENER))
}
