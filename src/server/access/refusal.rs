//! Reasons for which a request is refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::credentials::Malformed;
use super::identity::{Identity, Role};
#[cfg(feature = "access")]
use super::jwt::TokenFault;
use crate::server::outcome::name_of;
use crate::untrusted::Quoted;

/// Reason for which a request is refused. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Refusal {
    /// There are no credentials, and callers without them may not do this.
    Missing { certificate: Option<String> },
    /// The credentials are wrong. `user` is set if there is such a user.
    Wrong { cause: Cause, user: Option<Arc<str>> },
    /// The address failed too often.
    TooMany(Duration),
    /// The credentials cannot be verified at present.
    Busy(&'static str),
    /// The identity lacks a permission.
    Forbidden { by: Arc<str>, cause: Denial },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Cause {
    Malformed(Malformed),
    Password,
    Token,
    #[cfg(feature = "access")]
    Jwt(TokenFault),
    ExpiredCertificate,
}

/// Failure of a caller that is limited by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Guessed password or token.
    Guess,
    /// Token with a wrong signature.
    #[cfg(feature = "access")]
    Forgery,
}

/// Permission that an identity lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum Denial {
    Role(Role),
    /// The policy names other applications for the identity.
    Application(Arc<str>),
    /// The policy names the application for another identity.
    Reserved(Arc<str>),
    /// Another identity registered the instance, or other instances of the application.
    Owned {
        app: Arc<str>,
        /// Key of the identity.
        owner: Arc<str>,
    },
    /// The registry server itself registered the instance.
    Server(Arc<str>),
    Replication,
}

impl Refusal {
    pub(super) fn wrong(cause: Cause) -> Self {
        Self::Wrong { cause, user: None }
    }

    pub(super) fn forbidden(identity: &Identity, cause: Denial) -> Self {
        Self::Forbidden { by: identity.shared_name().clone(), cause }
    }

    pub(in crate::server) fn status(&self) -> StatusCode {
        match self {
            Self::Missing { .. } | Self::Wrong { .. } => StatusCode::UNAUTHORIZED,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
        }
    }

    /// Returns the kind of the refusal, without names.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "no credentials",
            Self::Wrong { cause: Cause::Malformed(_), .. } => "malformed credentials",
            Self::Wrong { cause: Cause::Password, .. } => "wrong password",
            Self::Wrong { cause: Cause::ExpiredCertificate, .. } => "expired certificate",
            Self::Wrong { .. } => "wrong token",
            Self::TooMany(_) => "too many failed log-ins",
            Self::Busy(why) => why,
            Self::Forbidden { cause: Denial::Role(_) | Denial::Replication, .. } => "a role is missing",
            Self::Forbidden { .. } => "the application has another owner",
        }
    }

    /// Returns true if the same credentials stay wrong for a while.
    pub(super) fn is_lasting(&self) -> bool {
        #[cfg(feature = "access")]
        if let Self::Wrong { cause: Cause::Jwt(TokenFault::UnknownKey | TokenFault::NotYetValid), .. } = self {
            return false;
        }
        matches!(self, Self::Wrong { .. })
    }

    /// Returns the failure that counts for the address of the caller.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self {
            #[cfg(feature = "access")]
            Self::Wrong { cause: Cause::Jwt(fault), .. } => match fault {
                TokenFault::Unreadable => Some(Failure::Guess),
                TokenFault::Signature => Some(Failure::Forgery),
                // The issuer signed the token, or no key was used.
                _ => None,
            },
            // A header that is no credentials guesses nothing.
            Self::Wrong { cause: Cause::Malformed(_), .. } => None,
            Self::Wrong { .. } => Some(Failure::Guess),
            _ => None,
        }
    }

    /// Returns the seconds after which the caller may try again.
    pub(in crate::server) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooMany(wait) => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
            Self::Busy(_) => Some(1),
            _ => None,
        }
    }

    /// Returns the schemes of credentials that the caller may use.
    pub(in crate::server) fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::Missing { .. } => Some(HeaderValue::from_static(BASIC)),
            #[cfg(feature = "access")]
            Self::Wrong { cause: Cause::Jwt(_), .. } => Some(HeaderValue::from_static(BEARER)),
            Self::Wrong { cause: Cause::Token, .. } => Some(HeaderValue::from_static(BEARER)),
            Self::Wrong { .. } => Some(HeaderValue::from_static(BASIC)),
            _ => None,
        }
    }

    /// Returns the text for the caller. It does not say which part of the credentials is wrong, and
    /// not who owns an application.
    pub(in crate::server) fn public(&self) -> String {
        match self {
            Self::Missing { .. } => "credentials are required".into(),
            Self::Wrong { cause: Cause::Malformed(malformed), .. } => malformed.to_string(),
            #[cfg(feature = "access")]
            Self::Wrong { cause: Cause::Jwt(fault), .. } => fault.to_string(),
            Self::Wrong { cause: Cause::ExpiredCertificate, .. } => "the client certificate is expired".into(),
            Self::Wrong { .. } => "the credentials are wrong".into(),
            Self::TooMany(_) => "too many failed log-ins from this address".into(),
            Self::Busy(why) => (*why).into(),
            Self::Forbidden { by, cause: Denial::Owned { app, .. } } => {
                format!("{} may not change {}: another identity registered it", Quoted(by), Quoted(app))
            }
            Self::Forbidden { .. } => self.to_string(),
        }
    }
}

const BASIC: &str = r#"Basic realm="tower-eureka", charset="UTF-8""#;
const BEARER: &str = r#"Bearer realm="tower-eureka", error="invalid_token""#;

/// Formats the reason for the log.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { certificate: None } => f.write_str("no credentials"),
            Self::Missing { certificate: Some(subject) } => {
                write!(f, "no credentials, and no rule for the client certificate {}", Quoted(subject))
            }
            Self::Wrong { cause, user } => {
                match cause {
                    Cause::Malformed(malformed) => malformed.fmt(f)?,
                    Cause::Password if user.is_none() => f.write_str("unknown user")?,
                    Cause::Password => f.write_str("wrong password")?,
                    Cause::Token => f.write_str("unknown token")?,
                    #[cfg(feature = "access")]
                    Cause::Jwt(fault) => fault.fmt(f)?,
                    Cause::ExpiredCertificate => f.write_str("the client certificate is expired or not valid yet")?,
                }
                user.as_ref().map_or(Ok(()), |user| write!(f, " of {}", Quoted(user)))
            }
            Self::TooMany(_) => f.write_str("too many failed log-ins from this address"),
            Self::Busy(why) => f.write_str(why),
            Self::Forbidden { by, cause } => {
                let by = Quoted(by);
                match cause {
                    Denial::Role(role) => write!(f, "{by} lacks the role {role}"),
                    Denial::Replication => write!(f, "{by} lacks the role peer, which replication needs"),
                    Denial::Application(app) => {
                        write!(f, "{by} may not change {}: the policy names other applications for it", Quoted(app))
                    }
                    Denial::Reserved(app) => {
                        write!(f, "{by} may not change {}: the policy names it for another identity", Quoted(app))
                    }
                    Denial::Owned { app, owner } => {
                        write!(f, "{by} may not change {}: {} registered it", Quoted(app), Quoted(name_of(owner)))
                    }
                    Denial::Server(app) => write!(f, "{by} may not change {}: this server registered it", Quoted(app)),
                }
            }
        }
    }
}
