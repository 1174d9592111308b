//! JSON Web Tokens: their keys, and the identities that they stand for.

mod keys;
mod ring;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use self::keys::Keys;
pub(super) use self::keys::MAX_BYTES;
use super::identity::{Applications, Identity, Kind, Roles};

/// Difference of the clocks of this server and of the issuer of a token that is allowed, in
/// seconds.
const LEEWAY: u64 = 30;
/// Maximum length of a subject.
const MAX_SUBJECT: usize = 256;
/// Algorithms with a public key. Others, such as `none`, are refused before a key is used.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Keys and rules by which JSON Web Tokens of callers are verified.
///
/// A token needs a signature by one of the keys (RS, PS, ES256, ES384 or EdDSA), `exp`, and `sub`,
/// which is the name of the identity. If it has an audience, it must be one of
/// [`audience`](Self::audience). Its roles are those in the claim [`roles_claim`](Self::roles_claim),
/// and its applications those in the claim `applications`, unless a row of the policy names the
/// subject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "keys do nothing until they are set by `Access::jwt`"]
pub struct JwtKeys {
    pub(super) source: Source,
    issuer: Option<String>,
    audiences: Vec<String>,
    roles_claim: String,
    #[cfg(feature = "peers")]
    pub(super) allows_insecure_url: bool,
}

/// Source of a set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Text(String),
    #[cfg(feature = "peers")]
    Url(String),
}

impl JwtKeys {
    /// Reads the keys from a JSON Web Key Set in a file. The file is read again when it changes.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::of(Source::File(path.into()))
    }

    /// Uses the keys of this JSON Web Key Set.
    pub fn json(keys: impl Into<String>) -> Self {
        Self::of(Source::Text(keys.into()))
    }

    /// Fetches the keys from this URL, at the start, every 5 minutes, and when a token has an
    /// unknown key. Until they were fetched, the response to tokens is 503.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn url(url: impl Into<String>) -> Self {
        Self::of(Source::Url(url.into()))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            issuer: None,
            audiences: Vec::new(),
            roles_claim: "roles".into(),
            #[cfg(feature = "peers")]
            allows_insecure_url: false,
        }
    }

    /// Allows an [`url`](Self::url) that begins with `http://` and names another machine. Defaults
    /// to `false`.
    ///
    /// Whoever can change the response may sign any token. Enable it only where the network itself
    /// authenticates the server, as in a service mesh.
    #[cfg(feature = "peers")]
    #[cfg_attr(docsrs, doc(cfg(feature = "peers")))]
    pub fn allow_insecure_url(mut self, allowed: bool) -> Self {
        self.allows_insecure_url = allowed;
        self
    }

    /// Sets the issuer that tokens must have. Defaults to any.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// Adds an audience for which tokens are accepted. Defaults to none: tokens must then have no
    /// audience, since one that was issued for another server must not be valid here.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Sets the claim with the roles: an array or a text with names, such as `eureka:read` or
    /// `read`. Other names are ignored. Dots lead into objects, such as `realm_access.roles`.
    /// Defaults to `roles`.
    pub fn roles_claim(mut self, claim: impl Into<String>) -> Self {
        self.roles_claim = claim.into();
        self
    }
}

/// Verifier of tokens.
#[derive(Debug)]
pub(super) struct Jwt {
    pub(super) config: JwtKeys,
    keys: ArcSwap<Keys>,
}

/// Token that is valid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) subject: String,
    roles: Roles,
    applications: Applications,
    /// Time of the wall clock at which it expires.
    pub(super) valid_until_ms: i64,
}

/// Reason for which a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum TokenFault {
    /// No set of keys was read yet.
    NoKeys,
    UnknownKey,
    Unreadable,
    Algorithm,
    Signature,
    Expired,
    NotYetValid,
    NoExpiry,
    Issuer,
    NoAudienceConfigured,
    Audience,
    Subject,
    Critical,
    Claims,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKeys => "the keys of tokens were not fetched yet",
            Self::UnknownKey => "the token is signed by an unknown key",
            Self::Unreadable => "the token is neither a known one nor a JSON Web Token",
            Self::Algorithm => "the algorithm of the token is not accepted",
            Self::Signature => "the signature of the token is wrong",
            Self::Expired => "the token is expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::NoExpiry => "the token has no valid exp",
            Self::Issuer => "the token has another issuer",
            Self::NoAudienceConfigured => {
                "the token has an audience, but eureka.server.access.jwt.audience is not set to it"
            }
            Self::Audience => "the token has another audience",
            Self::Subject => "the token has no sub of 1 to 256 bytes",
            Self::Critical => "the token has critical extensions, which are unknown here",
            Self::Claims => "the claims of the token are not valid",
        })
    }
}

impl Jwt {
    /// Creates a verifier without keys.
    pub(super) fn new(config: JwtKeys) -> Self {
        ring::install();
        Self { config, keys: ArcSwap::default() }
    }

    /// Replaces the keys by a set in JSON, and returns their number.
    ///
    /// # Errors
    /// Returns the reason for which the set is unusable. The keys stay as they are.
    pub(super) fn set_keys(&self, json: &[u8]) -> Result<usize, String> {
        let keys = Keys::parse(json)?;
        let count = keys.len();
        self.keys.store(Arc::new(keys));
        Ok(count)
    }

    /// Returns the number of keys.
    pub(super) fn key_count(&self) -> usize {
        self.keys.load().len()
    }

    /// Checks the parts of a token that need no signature.
    pub(super) fn check_header(&self, token: &str) -> Result<(), TokenFault> {
        let (keys, header) = (self.keys.load(), self.header(token)?);
        let mut usable = keys.of(header.alg, header.kid.as_deref());
        usable.next().map(|_| ()).ok_or(TokenFault::UnknownKey)
    }

    /// Verifies a token. Each signature takes up to some hundred microseconds.
    pub(super) fn verify(&self, token: &str) -> Result<Verified, TokenFault> {
        let (keys, header) = (self.keys.load(), self.header(token)?);
        let validation = self.validation(header.alg);
        let mut fault = TokenFault::UnknownKey;
        for key in keys.of(header.alg, header.kid.as_deref()) {
            match decode::<Map<String, Value>>(token, key, &validation) {
                Ok(token) => return self.verified(&token.claims),
                Err(error) => fault = self.fault(error.kind()),
            }
            if fault != TokenFault::Signature {
                break;
            }
        }
        Err(fault)
    }

    /// Reads the header of a token that may be valid.
    fn header(&self, token: &str) -> Result<Header, TokenFault> {
        let header = decode_header(token).map_err(|_| match claims_none(token) {
            true => TokenFault::Algorithm,
            false => TokenFault::Unreadable,
        })?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(TokenFault::Algorithm);
        }
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        if self.keys.load().is_empty() {
            return Err(TokenFault::NoKeys);
        }
        Ok(header)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        if let Some(issuer) = &self.config.issuer {
            validation.set_issuer(&[issuer]);
            validation.set_required_spec_claims(&["exp", "iss"]);
        }
        if !self.config.audiences.is_empty() {
            validation.set_audience(&self.config.audiences);
            validation.required_spec_claims.insert("aud".into());
        }
        validation
    }

    fn fault(&self, kind: &ErrorKind) -> TokenFault {
        match kind {
            ErrorKind::InvalidSignature => TokenFault::Signature,
            ErrorKind::ExpiredSignature => TokenFault::Expired,
            ErrorKind::ImmatureSignature => TokenFault::NotYetValid,
            ErrorKind::InvalidIssuer => TokenFault::Issuer,
            ErrorKind::InvalidAudience if self.config.audiences.is_empty() => TokenFault::NoAudienceConfigured,
            ErrorKind::InvalidAudience => TokenFault::Audience,
            ErrorKind::InvalidAlgorithm => TokenFault::Algorithm,
            ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match &**claim {
                "exp" => TokenFault::NoExpiry,
                "iss" => TokenFault::Issuer,
                "aud" => TokenFault::Audience,
                _ => TokenFault::Claims,
            },
            ErrorKind::Json(_) => TokenFault::Claims,
            _ => TokenFault::Signature,
        }
    }

    fn verified(&self, claims: &Map<String, Value>) -> Result<Verified, TokenFault> {
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return Err(TokenFault::Subject);
        }
        let mut roles_claim = self.config.roles_claim.split('.');
        let first = claims.get(roles_claim.next().unwrap_or_default());
        let roles = roles_claim.try_fold(first, |value, name| Some(value?.get(name))).flatten();
        let roles = words(roles).filter_map(role).fold(Roles::NONE, Roles::with);
        let applications = match claims.get("applications") {
            None | Some(Value::Null) => Applications::Unclaimed,
            // An issuer that lists no application permits none.
            some => Applications::only(words(some)),
        };
        let expires = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        let valid_until_ms = ((expires + LEEWAY as f64) * 1000.0) as i64;
        Ok(Verified { subject: subject.into(), roles, applications, valid_until_ms })
    }
}

impl Verified {
    /// Returns the identity by the claims of the token.
    pub(super) fn identity(&self) -> Identity {
        Identity::of_kind(Kind::Subject, self.subject.as_str().into(), self.roles, self.applications.clone())
    }
}

/// Returns the texts in an array, or the words of a text.
fn words(value: Option<&Value>) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Some(Value::Array(values)) => Box::new(values.iter().filter_map(Value::as_str)),
        Some(Value::String(text)) => Box::new(text.split([' ', ',']).filter(|word| !word.is_empty())),
        _ => Box::new(std::iter::empty()),
    }
}

/// Returns the role of this name, which may begin with `eureka:`, `eureka.` or `eureka-`.
fn role(name: &str) -> Option<Roles> {
    let own = name.strip_prefix("eureka").and_then(|rest| rest.strip_prefix([':', '.', '-']));
    Roles::named(own.unwrap_or(name))
}

/// Returns true for a token without a signature.
fn claims_none(token: &str) -> bool {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    let header = token.split('.').next().and_then(|header| BASE64_URL_SAFE_NO_PAD.decode(header).ok());
    let header = header.and_then(|header| serde_json::from_slice::<Value>(&header).ok());
    let algorithm = header.as_ref().and_then(|header| header.get("alg")).and_then(Value::as_str);
    algorithm.is_some_and(|algorithm| algorithm.eq_ignore_ascii_case("none"))
}
