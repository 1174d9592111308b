//! Key stores and trust stores: several certificates, and possibly a key, in one file.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::files::{Identity, pem_certificates, pem_key};
use super::store_type::StoreType;
use crate::error::{Error, Kind};
use crate::secret::Secret;

/// File of a key store or trust store.
///
/// The format is recognized by the content, as Java does for JKS and PKCS#12.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(super) path: PathBuf,
    password: Secret,
    /// Password of the key, if it is not that of the store.
    key_password: Option<Secret>,
    /// `None` accepts all types.
    store_type: Option<StoreType>,
}

impl Store {
    pub(crate) fn new(path: &Path, password: Secret) -> Self {
        Self { path: path.to_owned(), password, key_password: None, store_type: None }
    }

    pub(crate) fn with_key_password(self, password: Secret) -> Self {
        Self { key_password: Some(password), ..self }
    }

    pub(crate) fn with_type(self, store_type: StoreType) -> Self {
        Self { store_type: Some(store_type), ..self }
    }

    /// Returns the certificates of a trust store.
    pub(super) fn certificates(&self, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certificates = match self.format(bytes)? {
            StoreType::Pem => pem_certificates(&self.path, bytes)?,
            _ => pkcs12::certificates(bytes, self.password.expose()).map_err(|why| self.unusable(why))?,
        };
        if certificates.is_empty() {
            return Err(self.unusable((
                "it holds no trusted certificate".into(),
                "add the certificate of the CA with `keytool -importcert -keystore STORE -file CA`",
            )));
        }
        Ok(certificates)
    }

    /// Returns the certificate chain and key of a key store.
    pub(super) fn identity(&self, bytes: &[u8]) -> Result<Identity, Error> {
        match self.format(bytes)? {
            StoreType::Pem => Ok((pem_certificates(&self.path, bytes)?, pem_key(&self.path, bytes)?)),
            _ => {
                let other = self.key_password.as_ref().filter(|password| **password != self.password);
                if other.is_some_and(|password| !password.expose().is_empty()) {
                    return Err(self.unusable((
                        "the password of the key differs from that of the store, but a PKCS#12 store has one password"
                            .into(),
                        "set both passwords to that of the store",
                    )));
                }
                pkcs12::identity(bytes, self.password.expose()).map_err(|why| self.unusable(why))
            }
        }
    }

    fn format(&self, bytes: &[u8]) -> Result<StoreType, Error> {
        match bytes {
            // The magic numbers of JKS and JCEKS.
            [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => Err(self.unusable((
                "it is a JKS store, which is not supported".into(),
                "convert it with `keytool -importkeystore -srckeystore STORE -destkeystore STORE.p12 -deststoretype PKCS12`",
            ))),
            [0x30, ..] if self.store_type != Some(StoreType::Pem) => Ok(StoreType::Pkcs12),
            _ if bytes.windows(11).any(|part| part == b"-----BEGIN ") => Ok(StoreType::Pem),
            _ => Err(self.unusable((
                match self.store_type {
                    Some(StoreType::Pem) => "it is not PEM".into(),
                    _ => "it is neither PKCS#12 nor PEM".into(),
                },
                "check that the path leads to the store, and that its type is right",
            ))),
        }
    }

    fn unusable(&self, (cause, advice): (String, &'static str)) -> Error {
        let error = Error::new(Kind::Config, "read key store").server(self.path.display().to_string());
        error.cause(cause).advice(advice)
    }
}

#[cfg(feature = "pkcs12")]
mod pkcs12 {
    use p12_keystore::error::Error;
    use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12Archive, Pkcs12ImportPolicy};
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

    use super::Identity;

    type Unusable = (String, &'static str);

    /// Returns all certificates that do not belong to a key. Java trusts those with its own
    /// attribute only, which other tools do not set.
    pub(super) fn certificates(bytes: &[u8], password: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
        let archive = Pkcs12Archive::from_pkcs12(bytes, password).map_err(unusable)?;
        let trusted = archive.certs.into_iter().filter(|certificate| certificate.local_key_id.is_none());
        Ok(trusted.map(|certificate| CertificateDer::from(certificate.cert.as_der().to_vec())).collect())
    }

    pub(super) fn identity(bytes: &[u8], password: &str) -> Result<Identity, Unusable> {
        let store = KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Strict).map_err(unusable)?;
        let mut chains = store.entries().filter_map(|(alias, entry)| match entry {
            KeyStoreEntry::PrivateKeyChain(chain) => Some((alias, chain)),
            _ => None,
        });
        let (alias, chain) = chains.next().ok_or_else(|| {
            let advice = "create it with `openssl pkcs12 -export -in CERTIFICATES -inkey KEY -out STORE`";
            ("it holds no private key with a certificate".to_owned(), advice)
        })?;
        if chains.next().is_some() {
            tracing::info!(alias, "key store has several keys, using the first by alias");
        }
        let certificates = chain.certs().iter().map(|certificate| CertificateDer::from(certificate.as_der().to_vec()));
        Ok((certificates.collect(), PrivatePkcs8KeyDer::from(chain.key().as_der().to_vec()).into()))
    }

    fn unusable(error: Error) -> Unusable {
        match error {
            Error::MacError(_) | Error::UnpadError | Error::Pkcs5Error(_) => (
                "its password is wrong, or it is damaged".into(),
                "check the password with `keytool -list -keystore STORE`",
            ),
            error => (
                format!("it cannot be read: {error}"),
                "write it again with `keytool -importkeystore`, or convert it to PEM with `openssl pkcs12`",
            ),
        }
    }
}

#[cfg(not(feature = "pkcs12"))]
mod pkcs12 {
    use tokio_rustls::rustls::pki_types::CertificateDer;

    use super::Identity;

    type Unusable = (String, &'static str);

    pub(super) fn certificates(_: &[u8], _: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
        Err(not_built_in())
    }

    pub(super) fn identity(_: &[u8], _: &str) -> Result<Identity, Unusable> {
        Err(not_built_in())
    }

    fn not_built_in() -> Unusable {
        (
            "PKCS#12 stores are not built in: switch on the feature `pkcs12` of tower-eureka".into(),
            "or convert it to PEM with `openssl pkcs12 -in STORE -out STORE.pem -nodes`",
        )
    }
}
