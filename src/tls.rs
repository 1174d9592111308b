//! Whom TLS connections trust and what they show.
//!
//! Settings only: `EurekaBuilder` fills them for a client, `EurekaServerBuilder` for a registry server's calls of its peers. All
//! connections of the one or the other share them, and `transport/tls.rs` shakes hands with what [`Tls::config`] makes of them.
//! `no_tls.rs` stands in where the feature `tls` is off.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Kind};

/// The TLS settings of one client, or of one registry server's. Clones share what was made of them.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    trust: Trust,
    made: Arc<OnceLock<Result<Arc<ClientConfig>, String>>>,
}

#[derive(Clone, Default)]
enum Trust {
    /// Who the operating system trusts.
    #[default]
    System,
    /// These and nobody else.
    Roots(RootCertStore),
    /// Who the user's own configuration trusts.
    Own(Arc<ClientConfig>),
}

impl Tls {
    /// Whether this build can speak TLS.
    pub(crate) const BUILT_IN: bool = true;

    /// Takes this configuration for everything.
    ///
    /// # Errors
    /// When certificates were given before: they belong into the configuration.
    pub(crate) fn own(self, config: Arc<ClientConfig>) -> Result<Self, Error> {
        match self.trust {
            Trust::Roots(_) => Err(both()),
            _ => Ok(Self { trust: Trust::Own(config), ..Self::default() }),
        }
    }

    /// Trusts the certificates in a PEM file, beside those of earlier files and instead of the operating system's.
    ///
    /// # Errors
    /// When the file cannot be read or holds no usable certificate, or a whole configuration was given before.
    pub(crate) fn trust_file(self, path: &Path) -> Result<Self, Error> {
        let mut roots = match self.trust {
            Trust::System => RootCertStore::empty(),
            Trust::Roots(roots) => roots,
            Trust::Own(_) => return Err(both()),
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

    /// Whether a handshake can be tried at all; what is missing otherwise.
    pub(crate) fn usable(&self) -> Result<(), String> {
        self.config().map(drop)
    }

    /// What to shake hands with. The operating system's certificates are read when they are first needed, which blocks for some
    /// milliseconds, and then kept.
    ///
    /// # Errors
    /// With the reason, when there is nobody to trust.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.made
            .get_or_init(|| match &self.trust {
                Trust::System => client_config(system_roots()?),
                Trust::Roots(roots) => client_config(roots.clone()),
                Trust::Own(config) => Ok(config.clone()),
            })
            .clone()
    }
}

/// Not the configuration itself, which may hold a key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.trust {
            Trust::System => "Tls(the system's CAs)",
            Trust::Roots(_) => "Tls(CA files)",
            Trust::Own(_) => "Tls(own configuration)",
        })
    }
}

fn both() -> Error {
    Error::new(Kind::Config, "read TLS settings")
        .cause("a whole configuration and a CA file were both given")
        .advice("put the certificates of the CAs into the configuration")
}

/// TLS 1.2 and 1.3 with the process's provider of cryptography, if it has chosen one.
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
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Stores hold certificates that no verifier can use: one of them is no reason to trust nobody.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("this machine has no CA certificates{why}: install them, or give a CA file"));
    }
    Ok(roots)
}
