//! TLS of the listener under Spring's names.

use crate::config::{StoreKeys, path_of};
use crate::connect::{ClientCertificates, ServerFiles};
use crate::error::{Error, Kind};
use crate::secret::Secret;

const CERTIFICATE: &str = "server.ssl.certificate";
const PRIVATE_KEY: &str = "server.ssl.certificate-private-key";
const TRUST_CERTIFICATE: &str = "server.ssl.trust-certificate";

/// Values of Spring's `server.ssl.*`. They are applied together, since they depend on each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct SslKeys {
    pub(in crate::server) enabled: Option<bool>,
    pub(in crate::server) certificate: Option<String>,
    pub(in crate::server) private_key: Option<String>,
    pub(in crate::server) trust_certificate: Option<String>,
    pub(in crate::server) key_store: StoreKeys,
    pub(in crate::server) key_password: Option<Secret>,
    pub(in crate::server) trust_store: StoreKeys,
    pub(in crate::server) client_certificates: Option<ClientCertificates>,
    pub(in crate::server) versions: Option<[bool; 2]>,
}

impl SslKeys {
    /// Returns the TLS settings. `None` means plain HTTP.
    ///
    /// # Errors
    /// When a setting lacks another one, or a location is no path.
    pub(in crate::server) fn files(&self) -> Result<Option<ServerFiles>, Error> {
        if self.enabled == Some(false) {
            return Ok(None);
        }
        let Some(mut files) = self.identity()? else { return Ok(None) };
        if let Some(location) = &self.trust_certificate {
            files.add_client_ca(path_of(TRUST_CERTIFICATE, location)?);
        }
        if let Some(store) = self.trust_store.store("server.ssl.trust-store")? {
            files.add_client_trust_store(store);
        }
        files.client_certificates = self.client_certificates.unwrap_or_default();
        if files.client_certificates == ClientCertificates::None
            && (self.trust_certificate.is_some() || self.trust_store.location.is_some())
        {
            tracing::warn!(
                "server.ssl.trust-certificate and trust-store have no effect without server.ssl.client-auth: want or need"
            );
        }
        [files.tls12, files.tls13] = self.versions.unwrap_or([true; 2]);
        Ok(Some(files))
    }

    /// Returns the certificate and key of the server.
    fn identity(&self) -> Result<Option<ServerFiles>, Error> {
        let store = self.key_store.store("server.ssl.key-store")?;
        match (&self.certificate, &self.private_key, store) {
            (Some(certificate), Some(key), None) => {
                Ok(Some(ServerFiles::pem(&path_of(CERTIFICATE, certificate)?, &path_of(PRIVATE_KEY, key)?)))
            }
            (None, None, Some(store)) => Ok(Some(ServerFiles::store(match &self.key_password {
                Some(password) => store.with_key_password(password.clone()),
                None => store,
            }))),
            (None, None, None) if *self == Self::default() => Ok(None),
            (None, None, None) => Err(invalid("server.ssl has settings, but no certificate")),
            (Some(_), None, None) => Err(invalid("server.ssl.certificate has no key")),
            (None, Some(_), None) => Err(invalid("server.ssl.certificate-private-key has no certificate")),
            (_, _, Some(_)) => Err(invalid("server.ssl has both a certificate and a key store")),
        }
    }
}

fn invalid(cause: &str) -> Error {
    Error::new(Kind::Config, "read settings")
        .cause(cause)
        .advice("set server.ssl.certificate and server.ssl.certificate-private-key, or server.ssl.key-store")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::connect::StoreType;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn incomplete_or_contradictory_settings_are_errors() {
        let store = StoreKeys { location: some("a.p12"), ..StoreKeys::default() };
        for (keys, why) in [
            (SslKeys { enabled: Some(true), ..SslKeys::default() }, "no certificate"),
            (
                SslKeys { client_certificates: Some(ClientCertificates::Required), ..SslKeys::default() },
                "no certificate",
            ),
            (SslKeys { certificate: some("a.pem"), ..SslKeys::default() }, "has no key"),
            (SslKeys { private_key: some("a.key"), ..SslKeys::default() }, "has no certificate"),
            (SslKeys { certificate: some("a.pem"), key_store: store.clone(), ..SslKeys::default() }, "both"),
            (
                SslKeys { certificate: some("classpath:a"), private_key: some("a.key"), ..SslKeys::default() },
                "server.ssl.certificate: a classpath",
            ),
        ] {
            let error = keys.files().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn any_setting_without_a_certificate_is_an_error() {
        let set: [fn(&mut SslKeys); 6] = [
            |keys| keys.versions = Some([false, true]),
            |keys| keys.key_store.store_type = Some(StoreType::Pkcs12),
            |keys| keys.trust_store.password = Some(Secret::new("geheim")),
            |keys| keys.trust_store.store_type = Some(StoreType::Pkcs12),
            |keys| keys.client_certificates = Some(ClientCertificates::None),
            |keys| keys.key_password = Some(Secret::new("geheim")),
        ];
        for (n, set) in set.into_iter().enumerate() {
            let mut keys = SslKeys::default();
            set(&mut keys);
            assert!(keys.files().unwrap_err().to_string().contains("no certificate"), "{n}");
        }
    }

    #[test]
    fn disabled_or_absent_settings_are_plain_http() {
        let disabled = SslKeys { enabled: Some(false), certificate: some("a.pem"), ..SslKeys::default() };
        assert!(disabled.files().unwrap().is_none());
        assert!(SslKeys::default().files().unwrap().is_none());
        let complete = SslKeys { certificate: some("file:/a.pem"), private_key: some("a.key"), ..SslKeys::default() };
        let files = format!("{:?}", complete.files().unwrap());
        assert!(files.contains(&format!("{:?}", Path::new("/a.pem"))), "{files}");
    }
}
