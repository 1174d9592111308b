use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;

use super::files::{IdentityFiles, TlsFiles, TrustFile};
use super::reload::Reload;
use super::store::Store;
use crate::error::{Error, Kind};

/// TLS settings of one client, or of the calls that a registry server makes to its peers.
///
/// Clones share the rustls configuration, which is created on first use.
#[derive(Clone)]
pub(crate) struct TlsSettings(Source);

#[derive(Clone)]
enum Source {
    /// Files, or the CAs of the operating system if there are none.
    Files(Arc<Reload<TlsFiles>>),
    /// The user's configuration.
    Config(Arc<ClientConfig>),
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self(Source::Files(Arc::new(Reload::new(TlsFiles::default()))))
    }
}

impl TlsSettings {
    /// True if this build supports TLS.
    pub(crate) const SUPPORTED: bool = true;

    /// Uses this configuration for all connections.
    ///
    /// # Errors
    /// When files were added before. Their certificates and keys belong into the configuration.
    pub(crate) fn with_config(self, config: Arc<ClientConfig>) -> Result<Self, Error> {
        match self.0 {
            Source::Files(reload) if !reload.files().is_empty() => Err(conflict()),
            _ => Ok(Self(Source::Config(config))),
        }
    }

    /// Trusts the CAs in a PEM file, in addition to those of earlier files and instead of those of
    /// the operating system. The file is read by [`check_files`](Self::check_files).
    ///
    /// # Errors
    /// When a configuration was set before.
    pub(crate) fn add_ca_file(self, path: &Path) -> Result<Self, Error> {
        self.with_files(|files| files.trust.push(TrustFile::Pem(path.to_owned())))
    }

    /// Trusts the CAs in a store, as [`add_ca_file`](Self::add_ca_file) does.
    pub(crate) fn add_trust_store(self, store: Store) -> Result<Self, Error> {
        self.with_files(|files| files.trust.push(TrustFile::Store(store)))
    }

    /// Sends the certificate chain in a PEM file to servers that request one.
    ///
    /// # Errors
    /// As [`add_ca_file`](Self::add_ca_file).
    pub(crate) fn with_identity_file(self, certificates: &Path, key: &Path) -> Result<Self, Error> {
        let (certificates, key) = (certificates.to_owned(), key.to_owned());
        self.with_files(|files| files.identity = Some(IdentityFiles::Pem { certificates, key }))
    }

    /// Sends the certificate chain in a store, as
    /// [`with_identity_file`](Self::with_identity_file) does.
    pub(crate) fn with_key_store(self, store: Store) -> Result<Self, Error> {
        self.with_files(|files| files.identity = Some(IdentityFiles::Store(store)))
    }

    fn with_files(self, change: impl FnOnce(&mut TlsFiles)) -> Result<Self, Error> {
        let Source::Files(reload) = self.0 else { return Err(conflict()) };
        let mut files = reload.files().clone();
        change(&mut files);
        Ok(Self(Source::Files(Arc::new(Reload::new(files)))))
    }

    /// Verifies that the files are usable. Without files it does nothing.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub(crate) fn check_files(&self) -> Result<(), Error> {
        match &self.0 {
            Source::Files(reload) if !reload.files().is_empty() => self.prepare(),
            _ => Ok(()),
        }
    }

    /// Creates the rustls configuration. This reads files, which blocks for some milliseconds.
    ///
    /// # Errors
    /// When a file cannot be read or is unusable, or no CA is trusted.
    fn prepare(&self) -> Result<(), Error> {
        match &self.0 {
            Source::Config(_) => Ok(()),
            Source::Files(reload) if reload.current().is_some() => Ok(()),
            Source::Files(reload) => reload.refresh().map(drop),
        }
    }

    /// Verifies that handshakes are possible.
    ///
    /// # Errors
    /// With the reason, when they are not.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.prepare().map_err(|error| error.to_string())
    }

    /// Returns the rustls configuration for a new connection. Reads the files again if they were
    /// not read for some seconds.
    ///
    /// # Errors
    /// With the reason, when no CA is trusted.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        match &self.0 {
            Source::Config(config) => Ok(config.clone()),
            Source::Files(reload) => reload.config().await.map_err(|error| error.to_string()),
        }
    }
}

/// Omits the configuration, which may hold a key.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Config(_) => f.write_str("TlsSettings(user's configuration)"),
            Source::Files(reload) if reload.files().is_empty() => f.write_str("TlsSettings(CAs of the system)"),
            Source::Files(reload) => f.debug_tuple("TlsSettings").field(reload.files()).finish(),
        }
    }
}

fn conflict() -> Error {
    Error::new(Kind::Config, "read TLS settings")
        .cause("a TLS configuration and a file are both set")
        .advice("put the certificates of the CAs, and the identity of the client, into the configuration")
}
