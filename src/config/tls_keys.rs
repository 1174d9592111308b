use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::{InvalidSetting, Value};
#[cfg(feature = "tls")]
use crate::connect::Store;
use crate::connect::{StoreType, TlsSettings};
use crate::error::{Error, Kind};
use crate::secret::Secret;

const KEY_STORE: &str = "eureka.client.tls.key-store";
const TRUST_STORE: &str = "eureka.client.tls.trust-store";

/// Values of Spring's `eureka.client.tls.*`. They are applied together, since a store consists of
/// several of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsKeys {
    pub(crate) enabled: bool,
    pub(crate) key_store: StoreKeys,
    pub(crate) key_password: Option<Secret>,
    pub(crate) trust_store: StoreKeys,
}

/// Location, type and password of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreKeys {
    pub(crate) location: Option<String>,
    pub(crate) store_type: Option<StoreType>,
    pub(crate) password: Option<Secret>,
}

/// Parses the type of a store.
pub(crate) fn store_type(value: &Value) -> Result<StoreType, InvalidSetting> {
    StoreType::parse(value.text()).ok_or_else(|| value.invalid("PKCS12, JKS or PEM"))
}

impl StoreKeys {
    fn is_empty(&self) -> bool {
        self.location.is_none() && self.password.is_none()
    }

    /// Returns the path of the store, which the setting of this name has.
    fn path(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        self.location.as_deref().map(|location| path_of(name, location)).transpose()
    }

    /// Returns the store, if the setting of this name has its location.
    ///
    /// # Errors
    /// When the location is no path.
    #[cfg(feature = "tls")]
    pub(crate) fn store(&self, name: &str) -> Result<Option<Store>, Error> {
        let Some(path) = self.path(name)? else { return Ok(None) };
        let store = Store::new(&path, self.password.clone().unwrap_or_default());
        Ok(Some(match self.store_type {
            Some(store_type) => store.with_type(store_type),
            None => store,
        }))
    }
}

impl TlsKeys {
    /// Adds the stores to the settings, and logs a warning for values without effect.
    ///
    /// # Errors
    /// When the location of a store is no path, or this build has no TLS.
    pub(crate) fn apply(&self, tls: TlsSettings) -> Result<TlsSettings, Error> {
        let (key_store, trust_store) = (&self.key_store, &self.trust_store);
        let has_values = !key_store.is_empty() || !trust_store.is_empty() || self.key_password.is_some();
        if !self.enabled {
            if has_values {
                tracing::warn!("eureka.client.tls.* has no effect, since eureka.client.tls.enabled is not true");
            }
            return Ok(tls);
        }
        if !TlsSettings::SUPPORTED {
            return Err(invalid("eureka.client.tls.enabled: switch on the feature `tls` of tower-eureka".into()));
        }
        if key_store.location.is_none() && (key_store.password.is_some() || self.key_password.is_some()) {
            tracing::warn!("passwords in eureka.client.tls have no effect without eureka.client.tls.key-store");
        }
        if trust_store.location.is_none() && trust_store.password.is_some() {
            tracing::warn!(
                "eureka.client.tls.trust-store-password has no effect without eureka.client.tls.trust-store"
            );
        }
        self.add_stores(tls)
    }

    #[cfg(feature = "tls")]
    fn add_stores(&self, mut tls: TlsSettings) -> Result<TlsSettings, Error> {
        if let Some(store) = self.trust_store.store(TRUST_STORE)? {
            tls = tls.add_trust_store(store)?;
        }
        if let Some(store) = self.key_store.store(KEY_STORE)? {
            tls = tls.with_key_store(match &self.key_password {
                Some(password) => store.with_key_password(password.clone()),
                None => store,
            })?;
        }
        Ok(tls)
    }

    #[cfg(not(feature = "tls"))]
    fn add_stores(&self, tls: TlsSettings) -> Result<TlsSettings, Error> {
        self.trust_store.path(TRUST_STORE)?;
        self.key_store.path(KEY_STORE)?;
        Ok(tls)
    }
}

fn invalid(cause: String) -> Error {
    Error::new(Kind::Config, "read settings").cause(cause)
}

/// Converts the location that the setting of this name has into a path.
///
/// # Errors
/// When the location is no path.
pub(crate) fn path_of(name: &str, location: &str) -> Result<PathBuf, Error> {
    path(location).map_err(|why| invalid(format!("{name}: {why}")))
}

/// Converts a location of Spring, which is a path or a URL with `file:`, into a path.
fn path(location: &str) -> Result<PathBuf, &'static str> {
    let location = location.trim();
    if let Some(file) = location.strip_prefix("file:") {
        let path = file.strip_prefix("//").unwrap_or(file);
        let path = percent_decode_str(path).decode_utf8().map_err(|_| "the path is not UTF-8")?;
        return Ok(PathBuf::from(&*path));
    }
    if location.starts_with("classpath:") {
        return Err("a classpath exists in Java only, give the path of a file (file:/etc/eureka/store.p12)");
    }
    if location.starts_with("-----BEGIN") {
        return Err("the content of a PEM file is not supported, give its path");
    }
    match location.split_once(':') {
        // A single letter is a drive of Windows.
        Some((scheme, _)) if scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            Err("only a path or file: is supported")
        }
        _ => Ok(PathBuf::from(location)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_a_path_or_a_file_url() {
        for (location, expected) in [
            ("/etc/a.p12", Ok("/etc/a.p12")),
            (" a.p12 ", Ok("a.p12")),
            ("file:/etc/a%20b.p12", Ok("/etc/a b.p12")),
            ("file:///etc/a.p12", Ok("/etc/a.p12")),
            ("file:a.p12", Ok("a.p12")),
            ("C:\\a.p12", Ok("C:\\a.p12")),
            ("classpath:a.p12", Err("classpath")),
            ("https://host/a.p12", Err("only a path")),
            ("-----BEGIN CERTIFICATE-----\nMII:", Err("give its path")),
        ] {
            match (path(location), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, PathBuf::from(expected)),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (result, _) => panic!("{location}: {result:?}"),
            }
        }
    }
}
