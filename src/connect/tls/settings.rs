use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Kind};

/// TLS settings of one client, or of the calls that a registry server makes to its peers.
///
/// Clones share the rustls configuration, which is created on first use.
#[derive(Clone, Default)]
pub(crate) struct TlsSettings {
    trust: Trust,
    config: Arc<OnceLock<Result<Arc<ClientConfig>, String>>>,
}

#[derive(Clone, Default)]
enum Trust {
    /// Trusts the CAs of the operating system.
    #[default]
    System,
    /// Trusts these CAs only.
    Roots(RootCertStore),
    /// Uses the user's configuration.
    Config(Arc<ClientConfig>),
}

impl TlsSettings {
    /// True if this build supports TLS.
    pub(crate) const SUPPORTED: bool = true;

    /// Uses this configuration for all connections.
    ///
    /// # Errors
    /// When CA files were added before. Their certificates belong into the configuration.
    pub(crate) fn with_config(self, config: Arc<ClientConfig>) -> Result<Self, Error> {
        match self.trust {
            Trust::Roots(_) => Err(conflict()),
            _ => Ok(Self { trust: Trust::Config(config), ..Self::default() }),
        }
    }

    /// Trusts the CAs in a PEM file, in addition to those of earlier files and instead of those of
    /// the operating system.
    ///
    /// # Errors
    /// When the file cannot be read or holds no usable certificate, or when a configuration was set
    /// before.
    pub(crate) fn add_ca_file(self, path: &Path) -> Result<Self, Error> {
        let mut roots = match self.trust {
            Trust::System => RootCertStore::empty(),
            Trust::Roots(roots) => roots,
            Trust::Config(_) => return Err(conflict()),
        };
        let unusable = |cause: String| {
            Error::new(Kind::Config, "read CA file")
                .server(path.display().to_string())
                .cause(cause)
                .advice("give a PEM file with the certificates of the CAs")
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| unusable(e.to_string()).with_source(e))?;
        if certificates.is_empty() {
            return Err(unusable("it holds no certificate".into()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|e| unusable(e.to_string()).with_source(e))?;
        }
        Ok(Self { trust: Trust::Roots(roots), ..Self::default() })
    }

    /// Verifies that handshakes are possible.
    ///
    /// # Errors
    /// With the reason, when they are not.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.config().map(drop)
    }

    /// Returns the rustls configuration. The first call reads the certificates of the operating
    /// system, which blocks for some milliseconds.
    ///
    /// # Errors
    /// With the reason, when no CA is trusted.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.config
            .get_or_init(|| match &self.trust {
                Trust::System => client_config(system_roots()?),
                Trust::Roots(roots) => client_config(roots.clone()),
                Trust::Config(config) => Ok(config.clone()),
            })
            .clone()
    }
}

/// Omits the configuration, which may hold a key.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.trust {
            Trust::System => "TlsSettings(CAs of the system)",
            Trust::Roots(_) => "TlsSettings(CA files)",
            Trust::Config(_) => "TlsSettings(user's configuration)",
        })
    }
}

fn conflict() -> Error {
    Error::new(Kind::Config, "read TLS settings")
        .cause("a TLS configuration and a CA file are both set")
        .advice("put the certificates of the CAs into the configuration")
}

/// Creates a configuration for TLS 1.2 and 1.3 with the crypto provider that the process installed,
/// or with ring.
fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
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
