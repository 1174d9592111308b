//! Setters of the access control. A blank value is an error.

use super::property::Builder;
use crate::config::{InvalidSetting, Value};
#[cfg(feature = "access")]
use crate::server::access::JwtSettings;
use crate::server::access::{SpringUser, UserSettings};

type Set = Result<Builder, InvalidSetting>;

/// Returns true for a setting that must have a value if it is present.
pub(super) fn is_protection(name: &str) -> bool {
    let families = ["eureka.server.access.", "spring.security.", "server.ssl."];
    families.into_iter().any(|family| name.starts_with(family)) && name != "server.ssl.enabled"
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
