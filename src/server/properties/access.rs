//! Setters of the access control, and the settings of a protection that must not be blank.

use super::property::Builder;
use crate::config::{InvalidSetting, Value};
#[cfg(feature = "access")]
use crate::server::access::JwtSettings;
use crate::server::access::{SpringUser, UserSettings};

type Set = Result<Builder, InvalidSetting>;

/// Returns true for a setting that must have a value if it is present, unless other settings are
/// [sufficient] without it.
pub(super) fn is_protection(name: &str) -> bool {
    let families = ["eureka.server.access.", "spring.security.", "server.ssl."];
    families.into_iter().any(|family| name.starts_with(family)) && name != "server.ssl.enabled"
}

/// Names of settings, all of which are set.
type Group = &'static [&'static str];

/// Certificate and key of the server, in each form.
const CERTIFICATE: &[Group] =
    &[&["server.ssl.key-store"], &["server.ssl.certificate", "server.ssl.certificate-private-key"]];
/// Credentials of one user.
const CREDENTIALS: &[Group] = &[
    &["eureka.server.access.users.<name>.password"],
    &["eureka.server.access.users.<name>.token"],
    &["eureka.server.access.users.<name>.certificate"],
    &["eureka.server.access.users.<name>.subject"],
];
/// Keys of tokens.
const KEYS: &[Group] = &[
    &["eureka.server.access.jwt.keys-file"],
    &["eureka.server.access.jwt.keys-url"],
    &["spring.security.oauth2.resourceserver.jwt.jwk-set-uri"],
];
/// Settings that begin the access control. Without them, blank roles of callers without credentials
/// would leave the registry open.
const IDENTITIES: &[Group] = &[
    &["spring.security.user.password"],
    &["eureka.server.access.users-file"],
    &["eureka.server.access.users.<name>.password"],
    &["eureka.server.access.users.<name>.token"],
    &["eureka.server.access.users.<name>.certificate"],
    &["eureka.server.access.users.<name>.subject"],
    &["eureka.server.access.jwt.keys-file"],
    &["eureka.server.access.jwt.keys-url"],
    &["spring.security.oauth2.resourceserver.jwt.jwk-set-uri"],
];
/// The default is never weaker.
const ALWAYS: &[Group] = &[&[]];

/// Returns the groups of settings of which one is as strong a protection without this setting.
/// There is none for a setting whose default may be weaker than a value.
pub(super) fn sufficient(name: &str) -> &'static [Group] {
    const USERS: &str = "eureka.server.access.users.<name>.";

    match name {
        "server.ssl.client-auth" | "server.ssl.enabled-protocols" => &[],
        // Client certificates without their CAs are an error in any case.
        _ if name.starts_with("server.ssl.") => CERTIFICATE,
        "spring.security.user.name" => &[&["spring.security.user.password"]],
        "eureka.server.access.anonymous" => IDENTITIES,
        "eureka.server.access.failed-attempts-per-minute" | "eureka.server.access.jwt.allow-insecure-keys-url" => {
            ALWAYS
        }
        _ if KEYS.iter().any(|keys| keys.contains(&name)) => KEYS,
        // Without roles and applications, a user may do more, and others may register its
        // applications.
        _ if name.strip_prefix(USERS).is_some_and(|last| !matches!(last, "roles" | "applications")) => CREDENTIALS,
        _ => &[],
    }
}

/// Changes the user of a Spring server.
pub(super) fn spring(builder: Builder, value: &Value, set: impl FnOnce(&mut SpringUser, String)) -> Set {
    builder.access_with(|access| Ok(access.spring_with(|user| set(user, value.exact().to_owned()))))
}

/// Changes one user of a map.
pub(super) fn user(builder: Builder, value: &Value, set: impl FnOnce(&mut UserSettings, String)) -> Set {
    builder.access_with(|access| Ok(access.user_with(value.key(), |user| set(user, value.exact().to_owned()))))
}

/// Changes the verification of tokens.
#[cfg(feature = "access")]
pub(super) fn jwt(builder: Builder, value: &Value, set: impl FnOnce(&mut JwtSettings, String)) -> Set {
    builder.access_with(|access| Ok(access.jwt_with(|jwt| set(jwt, value.text().to_owned()))))
}

#[cfg(feature = "access")]
pub(super) fn audiences(builder: Builder, value: &Value) -> Set {
    let audiences: Vec<_> = value.list().into_iter().map(str::to_owned).collect();
    jwt(builder, value, |jwt, _| jwt.audiences = audiences)
}

#[cfg(all(feature = "access", feature = "peers"))]
pub(super) fn insecure_keys_url(builder: Builder, value: &Value) -> Set {
    let allowed = value.flag()?;
    jwt(builder, value, |jwt, _| jwt.allows_insecure_url = allowed)
}

pub(super) fn users_file(builder: Builder, value: &Value) -> Set {
    builder.access_with(|access| Ok(access.users_file(path(value.text()))))
}

pub(super) fn anonymous(builder: Builder, value: &Value) -> Set {
    builder.access_with(|access| access.anonymous_named(value.text()).map_err(|cause| value.invalid(cause)))
}

pub(super) fn attempts(builder: Builder, value: &Value) -> Set {
    let attempts = value.count()?.try_into().unwrap_or(u32::MAX);
    builder.access_with(|access| Ok(access.failed_attempts_per_minute(attempts)))
}

/// Returns the path of a file that is written as a path or a `file:` URL.
pub(super) fn path(text: &str) -> String {
    let path = text.strip_prefix("file:").unwrap_or(text);
    path.strip_prefix("//").unwrap_or(path).to_owned()
}
