use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::{InvalidSetting, Value};
use crate::connect::{StoreType, TlsSettings};
use crate::error::{Error, Kind};
use crate::secret::Secret;

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
#[derive(Clone, Debug, Default)]
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

    fn path(&self, key: &str) -> Result<Option<PathBuf>, Error> {
        let path = self.location.as_deref().map(path).transpose();
        path.map_err(|why| invalid(format!("eureka.client.tls.{key}: {why}")))
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
        use crate::connect::Store;

        let store = |keys: &StoreKeys, path: PathBuf| {
            let store = Store::new(&path, keys.password.clone().unwrap_or_default());
            keys.store_type.map_or_else(|| store.clone(), |store_type| store.clone().with_type(store_type))
        };
        if let Some(path) = self.trust_store.path("trust-store")? {
            tls = tls.add_trust_store(store(&self.trust_store, path))?;
        }
        if let Some(path) = self.key_store.path("key-store")? {
            let store = store(&self.key_store, path);
            let key_password = self.key_password.clone();
            tls = tls
                .with_key_store(key_password.map_or_else(|| store.clone(), |it| store.clone().with_key_password(it)))?;
        }
        Ok(tls)
    }

    #[cfg(not(feature = "tls"))]
    fn add_stores(&self, tls: TlsSettings) -> Result<TlsSettings, Error> {
        self.trust_store.path("trust-store")?;
        self.key_store.path("key-store")?;
        Ok(tls)
    }
}

fn invalid(cause: String) -> Error {
    Error::new(Kind::Config, "read settings").cause(cause)
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
        ] {
            match (path(location), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, PathBuf::from(expected)),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (result, _) => panic!("{location}: {result:?}"),
            }
        }
    }
}
