use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, Error as TlsError, RootCertStore};

use super::store::Store;
use crate::error::{Error, Kind};
use crate::regular_file;

/// Maximum size of a file in bytes.
const MAX_SIZE: u64 = 10 << 20;

/// Certificate chain and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Files with the trusted CAs and the identity of the client.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsFiles {
    /// Trusted CAs. If there are none, those of the operating system are trusted.
    pub(super) trust: Vec<TrustFile>,
    pub(super) identity: Option<IdentityFiles>,
}

#[derive(Clone, Debug)]
pub(super) enum TrustFile {
    Pem(PathBuf),
    Store(Store),
}

#[derive(Clone, Debug)]
pub(super) enum IdentityFiles {
    Pem { certificates: PathBuf, key: PathBuf },
    Store(Store),
}

/// Files from which a rustls configuration is created.
pub(super) trait ConfigFiles: Send + Sync + 'static {
    type Config: Send + Sync;

    fn paths(&self) -> Vec<&Path>;

    /// Creates the configuration from the content of the files.
    ///
    /// # Errors
    /// When a file has no usable content.
    fn config(&self, contents: &Contents) -> Result<Self::Config, Error>;
}

/// Bytes of all files, in the order of [`ConfigFiles::paths`].
pub(super) struct Contents {
    files: Vec<Vec<u8>>,
    /// Equal for equal bytes.
    pub(super) fingerprint: u64,
}

impl Contents {
    /// Reads all files, which blocks.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn read(files: &impl ConfigFiles) -> Result<Self, Error> {
        let files = files.paths().into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        Ok(Self { files, fingerprint: hasher.finish() })
    }

    /// Returns the bytes of one file after the other.
    pub(super) fn in_order<'a>(&'a self) -> impl FnMut() -> &'a [u8] {
        let mut files = self.files.iter();
        move || files.next().expect("there are the bytes of each file")
    }
}

impl TrustFile {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Pem(path) => path,
            Self::Store(store) => &store.path,
        }
    }

    /// Adds the CAs to those that are trusted, and returns them.
    ///
    /// # Errors
    /// When the file holds none, or an unusable one.
    pub(super) fn add_to(
        &self,
        roots: &mut RootCertStore,
        bytes: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certificates = match self {
            Self::Pem(path) => pem_certificates(path, bytes)?,
            Self::Store(store) => store.certificates(bytes)?,
        };
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|e| unusable_ca(self.path(), e.to_string()).with_source(e))?;
        }
        Ok(certificates)
    }
}

impl IdentityFiles {
    pub(super) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Pem { certificates, key } => vec![certificates, key],
            Self::Store(store) => vec![&store.path],
        }
    }

    /// Returns the chain and the key. Takes the bytes of its files.
    ///
    /// # Errors
    /// When a file has no usable content.
    pub(super) fn identity<'a>(&self, mut next: impl FnMut() -> &'a [u8]) -> Result<Identity, Error> {
        match self {
            Self::Pem { certificates, key } => Ok((pem_certificates(certificates, next())?, pem_key(key, next())?)),
            Self::Store(store) => store.identity(next()),
        }
    }

    /// Describes an error of rustls about the chain or the key.
    pub(super) fn unusable(&self, error: TlsError) -> Error {
        let unusable = unusable_identity(self.paths()[0]);
        match error {
            TlsError::InconsistentKeys(_) => unusable
                .cause("the certificate and the key do not belong together")
                .advice("put the certificate that the key was issued for first in its file"),
            e => unusable.cause(format!("the certificate or its key is unusable: {e}")).with_source(e),
        }
    }
}

/// Returns the crypto provider that the process installed, or ring.
pub(super) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}

/// Describes an error of rustls about a configuration.
pub(super) fn unusable_config(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Config, "configure TLS").cause(error.to_string()).with_source(error)
}

impl TlsFiles {
    pub(super) fn is_empty(&self) -> bool {
        self.trust.is_empty() && self.identity.is_none()
    }
}

impl ConfigFiles for TlsFiles {
    type Config = ClientConfig;

    fn paths(&self) -> Vec<&Path> {
        let trust = self.trust.iter().map(TrustFile::path);
        trust.chain(self.identity.iter().flat_map(IdentityFiles::paths)).collect()
    }

    /// Creates a configuration for TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// When a file has no usable content, or no CA is trusted.
    fn config(&self, contents: &Contents) -> Result<ClientConfig, Error> {
        let mut next = contents.in_order();
        let mut roots = RootCertStore::empty();
        for file in &self.trust {
            file.add_to(&mut roots, next())?;
        }
        if self.trust.is_empty() {
            roots = system_roots().map_err(|reason| Error::new(Kind::Config, "read CAs").cause(reason))?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable_config)?
            .with_root_certificates(roots);
        let Some(files) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let (chain, key) = files.identity(next)?;
        builder.with_client_auth_cert(chain, key).map_err(|error| files.unusable(error))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |cause: String| {
        let error = Error::new(Kind::Config, "read TLS file").server(path.display().to_string()).cause(cause);
        error.advice("check the path and the permissions of the file")
    };
    let mut bytes = Vec::new();
    let read = regular_file::open(path).and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes));
    read.map_err(|e: io::Error| unreadable(e.to_string()).with_source(e))?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(unreadable("it is larger than 10 MiB".into()));
    }
    Ok(bytes)
}

/// Returns the certificates in a PEM file.
pub(super) fn pem_certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    // The text of the error may hold a part of the file.
    let certificates = certificates.map_err(|_| unusable_ca(path, "it is not valid PEM".into()))?;
    if certificates.is_empty() {
        return Err(unusable_ca(path, "it holds no certificate".into()));
    }
    Ok(certificates)
}

/// Returns the first private key in a PEM file.
pub(super) fn pem_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(unusable_identity(path)
            .cause("its private key is encrypted")
            .advice("decrypt it with `openssl pkey -in KEY -out PLAIN_KEY`, or give a PKCS#12 store with a password"));
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|_| {
        unusable_identity(path)
            .cause("it holds no usable private key")
            .advice("give a PEM file with an unencrypted key (PKCS#8, PKCS#1 or SEC1)")
    })
}

fn unusable_ca(path: &Path, cause: String) -> Error {
    Error::new(Kind::Config, "read certificates")
        .server(path.display().to_string())
        .cause(cause)
        .advice("give a PEM file with certificates (BEGIN CERTIFICATE)")
}

fn unusable_identity(path: &Path) -> Error {
    Error::new(Kind::Config, "read certificate").server(path.display().to_string())
}

fn system_roots() -> Result<RootCertStore, String> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some stores hold certificates that no verifier can use. They are skipped.
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let reason = loaded.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("this machine has no CA certificates{reason}: install them, or give a CA file"));
    }
    Ok(roots)
}
