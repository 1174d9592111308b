//! Passwords and tokens: their encodings and their comparison.

use std::fmt;

use subtle::ConstantTimeEq;

/// Maximum length of a password or token in plain text.
const MAX_PLAIN: usize = 1024;
/// Encodings of Spring that are not supported. Errors name no other one, since a word in braces may
/// be part of a password.
const OTHER_ENCODINGS: [&str; 9] = [
    "ldap",
    "MD4",
    "MD5",
    "pbkdf2",
    "pbkdf2@SpringSecurity_v5_8",
    "scrypt",
    "scrypt@SpringSecurity_v5_8",
    "SHA-1",
    "SHA-256",
];
/// Maximum memory of one verification in KiB, and its maximum number of passes over it.
#[cfg(feature = "access")]
const MAX_MEMORY_KIB: u32 = 256 * 1024;
#[cfg(feature = "access")]
const MAX_PASSES: u32 = 32;
/// Maximum cost of a bcrypt hash. Each further one doubles the time, and 14 takes a second.
#[cfg(feature = "access")]
const MAX_BCRYPT_COST: u32 = 14;

/// Microseconds that a bcrypt hash of cost 0 would take. Each further cost doubles the time.
#[cfg(feature = "access")]
const BCRYPT_MICROS: u64 = 60;

/// Password in the form that the policy contains. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Password {
    Plain(String),
    #[cfg(feature = "access")]
    Argon2(String),
    #[cfg(feature = "access")]
    Bcrypt(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Password {
    /// Reads a password: an Argon2 hash, a hash behind `{argon2}` or `{bcrypt}`, or plain text,
    /// which may stand behind `{noop}`.
    ///
    /// # Errors
    /// Returns the reason for which the password is unusable. It contains no secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(plain) = text.strip_prefix("{noop}") {
            return Self::plain(plain);
        }
        if text.starts_with("$argon2") {
            return argon2(text);
        }
        match text.strip_prefix('{').and_then(|text| text.split_once('}')) {
            Some(("argon2" | "argon2@SpringSecurity_v5_8", hash)) => argon2(hash),
            Some(("bcrypt", hash)) => bcrypt(hash),
            Some((encoding, _)) if is_encoding(encoding) => {
                let known = OTHER_ENCODINGS.iter().find(|known| known.eq_ignore_ascii_case(encoding));
                let name = known.map_or("in braces".into(), |known| format!("{{{known}}}"));
                Err(format!(
                    "the password encoding {name} is not supported: use {{argon2}}, {{bcrypt}}, or {{noop}} for plain text"
                ))
            }
            // Otherwise the hash itself would be the password.
            _ if is_bcrypt(text) => Err("a bcrypt hash stands behind {bcrypt}".into()),
            _ => Self::plain(text),
        }
    }

    fn plain(text: &str) -> Result<Self, String> {
        match text.len() {
            0 => Err("the password is empty".into()),
            1..=MAX_PLAIN => Ok(Self::Plain(text.into())),
            _ => Err(format!("the password is longer than {MAX_PLAIN} bytes")),
        }
    }

    /// Returns true if the text says how it is encoded. A file of users requires it.
    pub(super) fn is_explicit(text: &str) -> bool {
        text.starts_with("$argon2") || text.starts_with('{')
    }

    /// Returns true if a verification takes milliseconds.
    pub(super) fn is_slow(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Returns the approximate time of a verification in microseconds. Zero for plain text.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            // A pass over one KiB takes about a microsecond.
            #[cfg(feature = "access")]
            Self::Argon2(hash) => {
                params(hash).map_or(0, |params| u64::from(params.m_cost()) * u64::from(params.t_cost()))
            }
            #[cfg(feature = "access")]
            Self::Bcrypt(hash) => hash.parse().map_or(0, |parts: bcrypt::HashParts| BCRYPT_MICROS << parts.get_cost()),
        }
    }

    /// Returns the memory of a verification in KiB.
    pub(super) fn memory_kib(&self) -> u32 {
        match self {
            #[cfg(feature = "access")]
            Self::Argon2(hash) => params(hash).map_or(0, |params| params.m_cost()),
            _ => 0,
        }
    }

    /// Compares the password with one that a caller sent.
    pub(super) fn verify(&self, sent: &str) -> bool {
        match self {
            Self::Plain(password) => is_equal(password, sent),
            #[cfg(feature = "access")]
            Self::Argon2(hash) => {
                argon2::PasswordVerifier::verify_password(&argon2::Argon2::default(), sent.as_bytes(), hash.as_str())
                    .is_ok()
            }
            #[cfg(feature = "access")]
            Self::Bcrypt(hash) => bcrypt::verify(sent, hash).unwrap_or(false),
        }
    }
}

/// Returns true for text with the form of a bcrypt hash: `$2a$10$` and 53 further characters.
fn is_bcrypt(text: &str) -> bool {
    let is_version = ["$2a$", "$2b$", "$2x$", "$2y$"].into_iter().any(|version| text.starts_with(version));
    is_version && text.len() == 60
}

/// Returns true for a word that Spring uses as the name of an encoding. Other texts in braces are
/// part of a plain password.
fn is_encoding(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '@');
    !text.is_empty() && text.chars().all(is_part)
}

#[cfg(feature = "access")]
fn params(hash: &str) -> Option<argon2::Params> {
    argon2::Params::try_from(&argon2::PasswordHash::new(hash).ok()?).ok()
}

#[cfg(feature = "access")]
fn argon2(hash: &str) -> Result<Password, String> {
    use argon2::{Algorithm, Params, PasswordHash};

    let broken = "the Argon2 hash is not valid: it looks like $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH";
    let parsed = PasswordHash::new(hash).map_err(|_| broken)?;
    let params = Params::try_from(&parsed).map_err(|_| broken)?;
    if Algorithm::try_from(parsed.algorithm.as_str()).is_err() || parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(broken.into());
    }
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES {
        return Err(format!(
            "the Argon2 hash is too expensive: at most {MAX_MEMORY_KIB} KiB (m) and {MAX_PASSES} passes (t) are used for each log-in"
        ));
    }
    Ok(Password::Argon2(hash.into()))
}

#[cfg(feature = "access")]
fn bcrypt(hash: &str) -> Result<Password, String> {
    let parts: bcrypt::HashParts =
        hash.parse().map_err(|_| "the bcrypt hash is not valid: it looks like $2a$10$ and 53 further characters")?;
    if parts.get_cost() > MAX_BCRYPT_COST {
        return Err(format!("the bcrypt hash is too expensive: its cost is at most {MAX_BCRYPT_COST}"));
    }
    Ok(Password::Bcrypt(hash.into()))
}

#[cfg(not(feature = "access"))]
fn argon2(_: &str) -> Result<Password, String> {
    Err("password hashes need the feature access".into())
}

#[cfg(not(feature = "access"))]
fn bcrypt(_: &str) -> Result<Password, String> {
    Err("password hashes need the feature access".into())
}

/// Compares two secrets in a time that depends on neither, nor on their lengths.
pub(super) fn is_equal(known: &str, sent: &str) -> bool {
    let padded = |text: &str| {
        let mut bytes = [0; MAX_PLAIN];
        let length = text.len().min(MAX_PLAIN);
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        bytes
    };
    let is_same_length = (known.len() as u64).ct_eq(&(sent.len() as u64));
    bool::from(padded(known)[..].ct_eq(&padded(sent)[..]) & is_same_length) && sent.len() <= MAX_PLAIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_passwords_are_compared_whole() {
        for (text, password) in [("secret", "secret"), ("{noop}secret", "secret"), ("{noop}{bcrypt}", "{bcrypt}")] {
            let known = Password::parse(text).unwrap();
            assert!(known.verify(password) && !known.is_slow(), "{text}");
            for wrong in ["", "secre", "secret ", "Secret", "secret\0"] {
                assert!(!known.verify(wrong), "{text} {wrong}");
            }
        }
        let longest = "x".repeat(MAX_PLAIN);
        assert!(Password::parse(&longest).unwrap().verify(&longest));
        assert!(!Password::parse(&longest).unwrap().verify(&format!("{longest}x")));
        assert!(Password::parse("{not an encoding}").unwrap().verify("{not an encoding}"));
    }

    #[test]
    fn unusable_passwords_are_refused_without_showing_them() {
        for (text, expected) in [
            ("", "empty"),
            ("{noop}", "empty"),
            ("{pbkdf2}hunter2", "{pbkdf2} is not supported"),
            ("{sha-256}hunter2", "{SHA-256} is not supported"),
            ("{hunter2}x", "encoding in braces is not supported"),
            ("$argon2id$hunter2", ""),
            ("{argon2}hunter2", ""),
            ("{bcrypt}hunter2", ""),
            ("$2a$04$cTAhGU8QIYEnCBXLv3WKyOQhkz.2cPc3HnGdJK/cppB1QKwOR.zqi", "stands behind {bcrypt}"),
            (&"hunter2".repeat(1000), "longer than 1024 bytes"),
        ] {
            let error = Password::parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
        assert_eq!(format!("{:?}", Password::parse("hunter2").unwrap()), "***");
    }

    #[cfg(feature = "access")]
    #[test]
    fn hashes_of_other_programs_are_verified() {
        // By argon2-cffi 25.1, which is the reference implementation of Argon2 (the second hash has
        // the parameters of Spring Security), bcrypt for Python, and the crypt library of Debian.
        // htpasswd writes `$2y$`, too.
        for hash in [
            "$argon2id$v=19$m=1024,t=1,p=1$c2l4dGVlbiBieXRlIHNsdA$Ugd28M4s4i5w2GrDjrPQEa2uTvvWx07VxpTip4nkf0U",
            "{argon2@SpringSecurity_v5_8}$argon2id$v=19$m=16384,t=2,p=1$c2l4dGVlbiBieXRlIHNsdA$AzQQsOTjsLr9jz0PfZodDUuQVJQIQmHeSqjbobL1vcA",
            "{argon2}$argon2i$v=19$m=1024,t=1,p=1$c2l4dGVlbiBieXRlIHNsdA$+xnRL+3D9xodmOWzWONyskIhgnJ7qtNY0jGskVBUYPQ",
            "{bcrypt}$2a$04$cTAhGU8QIYEnCBXLv3WKyOQhkz.2cPc3HnGdJK/cppB1QKwOR.zqi",
            "{bcrypt}$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
            "{bcrypt}$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
        ] {
            let password = Password::parse(hash).unwrap();
            assert!(password.is_slow() && password.verify("correct horse"), "{hash}");
            assert!(!password.verify("correct horsf") && !password.verify(""), "{hash}");
        }
        for expensive in [
            "$argon2id$v=19$m=4194304,t=1,p=1$c2l4dGVlbiBieXRlIHNsdA$Ugd28M4s4i5w2GrDjrPQEa2uTvvWx07VxpTip4nkf0U",
            "{bcrypt}$2a$20$cTAhGU8QIYEnCBXLv3WKyOQhkz.2cPc3HnGdJK/cppB1QKwOR.zqi",
        ] {
            assert!(Password::parse(expensive).unwrap_err().contains("too expensive"), "{expensive}");
        }
    }
}
