//! Set of the public keys that sign tokens (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde_json::Value;

use super::ALGORITHMS;

/// Maximum size of a set in bytes.
pub(in crate::server::access) const MAX_BYTES: usize = 1024 * 1024;
/// Maximum number of keys of a set, and of those that are tried for one token.
const MAX_KEYS: usize = 1024;
const MAX_TRIED: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Reads a set. Keys that do not verify signatures, or that are of an unknown type, are left
    /// out.
    ///
    /// # Errors
    /// Returns the reason for which the set is unusable.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(json).map_err(|error| format!("it is not JSON: {error}"))?;
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Err("it has no array \"keys\", as a JSON Web Key Set has".into());
        };
        let usable: Vec<_> = keys.iter().filter_map(Key::parse).take(MAX_KEYS).collect();
        if usable.is_empty() {
            return Err(format!(
                "none of its {} keys is a public RSA, EC (P-256, P-384) or Ed25519 key for signatures",
                keys.len()
            ));
        }
        Ok(Self(usable))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the keys that may have signed a token with this header.
    pub(super) fn of<'k>(
        &'k self,
        algorithm: Algorithm,
        id: Option<&'k str>,
    ) -> impl Iterator<Item = &'k DecodingKey> + 'k {
        let is_named = move |key: &Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let matching = self.0.iter().filter(move |key| key.algorithms.contains(&algorithm) && is_named(key));
        matching.take(MAX_TRIED).map(|key| &key.key)
    }
}

impl Key {
    fn parse(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => {
                ALGORITHMS.into_iter().filter(|algorithm| algorithm.family() == AlgorithmFamily::Rsa).collect()
            }
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => return None,
        };
        if let Some(named) = value.get("alg").and_then(Value::as_str) {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == named);
        }
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }
}
