//! TLS of a listener: its files, and the server's side of the handshake.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error as TlsError, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use tokio_rustls::server::TlsStream;

use super::alpn::{HTTP1, HTTP2};
use super::files::{ConfigFiles, Contents, IdentityFiles, TrustFile, provider, unusable_config};
use super::handshake::tls_error;
use super::reload::Reload;
use super::store::Store;
use crate::error::{Error, Kind};
use crate::sync::Mutex;

/// Certificates that a listener requests from its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ClientCertificates {
    #[default]
    None,
    /// Clients may connect without one.
    Wanted,
    Required,
}

/// Certificates in the files of a listener.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "access"), allow(dead_code, reason = "certificates are read with the feature access"))]
pub(crate) struct ListenerCertificates {
    /// Certificate of the server and those of its issuers.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// CAs of client certificates.
    pub(crate) client_cas: Vec<CertificateDer<'static>>,
}

/// Files and options of a listener's TLS.
#[derive(Clone, Debug)]
pub(crate) struct ServerFiles {
    identity: IdentityFiles,
    trust: Vec<TrustFile>,
    pub(crate) client_certificates: ClientCertificates,
    /// Accepted versions, at least one.
    pub(crate) tls12: bool,
    pub(crate) tls13: bool,
    /// Certificates of the configuration that was created last.
    certificates: Arc<Mutex<ListenerCertificates>>,
}

impl ServerFiles {
    /// Creates the options for PEM files. Both may be one file.
    pub(crate) fn pem(certificates: &Path, key: &Path) -> Self {
        Self::new(IdentityFiles::Pem { certificates: certificates.to_owned(), key: key.to_owned() })
    }

    /// Creates the options for a key store.
    pub(crate) fn store(store: Store) -> Self {
        Self::new(IdentityFiles::Store(store))
    }

    fn new(identity: IdentityFiles) -> Self {
        Self {
            identity,
            trust: Vec::new(),
            client_certificates: ClientCertificates::None,
            tls12: true,
            tls13: true,
            certificates: Arc::default(),
        }
    }

    /// Adds the CAs of client certificates in a PEM file.
    pub(crate) fn add_client_ca(&mut self, file: PathBuf) {
        self.trust.push(TrustFile::Pem(file));
    }

    /// Adds the CAs of client certificates in a store.
    pub(crate) fn add_client_trust_store(&mut self, store: Store) {
        self.trust.push(TrustFile::Store(store));
    }
}

impl ConfigFiles for ServerFiles {
    type Config = ServerConfig;

    fn paths(&self) -> Vec<&Path> {
        self.identity.paths().into_iter().chain(self.trust.iter().map(TrustFile::path)).collect()
    }

    fn config(&self, contents: &Contents) -> Result<ServerConfig, Error> {
        let mut next = contents.in_order();
        let (chain, key) = self.identity.identity(&mut next)?;
        let mut roots = RootCertStore::empty();
        let mut certificates = ListenerCertificates { chain: chain.clone(), client_cas: Vec::new() };
        for file in &self.trust {
            certificates.client_cas.extend(file.add_to(&mut roots, next())?);
        }
        let versions: &[&SupportedProtocolVersion] = match (self.tls12, self.tls13) {
            (true, false) => &[&TLS12],
            (false, true) => &[&TLS13],
            _ => &[&TLS13, &TLS12],
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(unusable_config)?;
        let builder = if self.client_certificates == ClientCertificates::None {
            certificates.client_cas.clear();
            builder.with_no_client_auth()
        } else {
            if roots.is_empty() {
                return Err(Error::new(Kind::Config, "read client CA")
                    .cause("client certificates are requested, but no CA is trusted")
                    .advice("give the CAs of the clients: ServerTls::client_ca(), server.ssl.trust-certificate"));
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let is_wanted = self.client_certificates == ClientCertificates::Wanted;
            let verifier = if is_wanted { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(unusable_config)?)
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| self.identity.unusable(error))?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // A resumed session saves the signature. Its state is in the ticket, so that sessions take
        // no memory.
        config.ticketer = Ticketer::new().map_err(unusable_config)?;
        *self.certificates.lock() = certificates;
        Ok(config)
    }
}

/// TLS of one listener. Clones share the files and the rustls configuration.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<Reload<ServerFiles>>);

impl Acceptor {
    /// Reads the files, which blocks for some milliseconds.
    ///
    /// # Errors
    /// When a file cannot be read or is unusable.
    pub(crate) fn new(files: ServerFiles) -> Result<Self, Error> {
        let reload = Reload::new(files);
        reload.refresh()?;
        Ok(Self(Arc::new(reload)))
    }

    /// Reads the files again, which blocks for some milliseconds. The previous configuration stays
    /// in force if they are unusable.
    pub(crate) fn refresh(&self) {
        // There is a previous configuration, so there is no error.
        let _ = self.0.refresh();
    }

    /// Reads the files again if they were not read for some seconds.
    pub(crate) async fn check(&self) {
        // There is a previous configuration, so there is no error.
        let _ = self.0.config().await;
    }

    /// Returns the certificates of the present configuration.
    #[cfg(feature = "access")]
    pub(crate) fn certificates(&self) -> ListenerCertificates {
        self.0.files().certificates.lock().clone()
    }

    pub(crate) fn requests_certificates(&self) -> bool {
        self.0.files().client_certificates != ClientCertificates::None
    }

    /// Returns a receiver that is notified when connections get another configuration.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes()
    }

    /// Performs the handshake with a client that connected. Without `http2`, only HTTP/1.1 is
    /// selected by ALPN.
    pub(crate) async fn accept(&self, tcp: TcpStream, http2: bool) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let mut config = self.0.config().await.map_err(|error| HandshakeError::Config(error.to_string()))?;
        if !http2 {
            Arc::make_mut(&mut config).alpn_protocols = vec![HTTP1.to_vec()];
        }
        TlsAcceptor::from(config).accept(tcp).await.map_err(HandshakeError::Handshake)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(self.0.files()).finish()
    }
}

/// Error of a handshake with a client.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// No configuration is usable.
    Config(String),
    Handshake(io::Error),
}

impl HandshakeError {
    /// Returns `true` if the client closed the connection, as port scanners and TCP probes do.
    pub(crate) fn is_disconnect(&self) -> bool {
        use io::ErrorKind as Kind;

        let Self::Handshake(error) = self else { return false };
        let is_tls = tls_error(error).is_some();
        !is_tls && matches!(error.kind(), Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe)
    }

    /// Returns the reason in words that are the same for each such failure, if it is a frequent
    /// one.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        use AlertDescription as Alert;
        use CertificateError as Certificate;

        let Self::Handshake(error) = self else { return None };
        Some(match tls_error(error)? {
            TlsError::NoCertificatesPresented => "the client sent no certificate, and one is required",
            // A bad signature means that the CA has the name of a trusted one and another key.
            TlsError::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
                "the certificate of the client is of a CA that is not trusted here"
            }
            TlsError::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
                "the certificate of the client has expired"
            }
            TlsError::InvalidCertificate(_) => "the certificate of the client is unusable",
            TlsError::AlertReceived(Alert::UnknownCA) => {
                "the client does not trust the CA of this server's certificate"
            }
            TlsError::AlertReceived(Alert::CertificateExpired) => {
                "the client found that this server's certificate has expired"
            }
            TlsError::AlertReceived(Alert::BadCertificate | Alert::CertificateUnknown) => {
                "the client rejected this server's certificate"
            }
            TlsError::InvalidMessage(_) => "the client does not speak TLS",
            _ => return None,
        })
    }
}

/// Describes the failure to operators. The text of rustls is kept, since it has the names and dates
/// of the certificate.
impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.reason()) {
            (Self::Config(why), _) => f.write_str(why),
            (Self::Handshake(error), Some(reason)) => write!(f, "{reason} ({error})"),
            (Self::Handshake(error), None) => error.fmt(f),
        }
    }
}

impl StdError for HandshakeError {}
