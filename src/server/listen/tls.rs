//! TLS of a listener: its settings and the handshake of a connection.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::stream::Transport;
pub(crate) use crate::connect::Acceptor;
use crate::connect::{ClientCertificates, HandshakeError, ServerFiles};
use crate::server::access::PeerCertificate;
use crate::time::random_part;

/// Response to a client that speaks plain HTTP. Its length is that of the text.
const HTTPS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 49\r\n\
    connection: close\r\n\r\nthis port speaks HTTPS only: begin with https://\n";

/// Client certificates that a listener requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// No certificate is requested.
    #[default]
    None,
    /// A certificate is requested. A client without one is accepted. One with a certificate that
    /// cannot be verified is not.
    Wanted,
    /// A client without a valid certificate is not accepted.
    Required,
}

/// TLS settings of a [`Listener`](super::Listener): TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1 by
/// ALPN.
///
/// The files are read again when they changed: a new connection checks this at most every 5
/// seconds. Files that are unusable then are logged once, and the previous ones stay in force.
/// Connections that exist keep their certificates, but those of clients with a certificate end
/// within 20 seconds after the change, since its CA may have been removed. For that, a listener
/// that requests certificates checks the files every 5 seconds. With the feature `access`, they
/// also end when the certificate of the client expires.
///
/// ```no_run
/// use tokio::net::TcpListener;
/// use tower_eureka::EurekaServer;
/// use tower_eureka::server::{ClientAuth, ServerTls};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = EurekaServer::builder().build()?;
/// let tls = ServerTls::new("tls.crt", "tls.key").client_ca("clients.pem").client_auth(ClientAuth::Wanted);
/// let listener = registry.listener(TcpListener::bind("[::]:8761").await?).tls(tls)?;
/// listener.serve(registry.service("/eureka"), tower_eureka::shutdown_signal()).await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "TLS settings do nothing until `Listener::tls`"]
pub struct ServerTls(ServerFiles);

impl ServerTls {
    /// Creates the settings for a PEM file with the certificate of the server, followed by those of
    /// its issuers, and a PEM file with the unencrypted key. Both may be one file.
    pub fn new(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        Self(ServerFiles::pem(certificates.as_ref(), key.as_ref()))
    }

    /// Adds a PEM file with CAs of client certificates.
    pub fn client_ca(mut self, file: impl AsRef<Path>) -> Self {
        self.0.add_client_ca(file.as_ref().to_owned());
        self
    }

    /// Sets which client certificates are requested. Defaults to none.
    ///
    /// [`client_ca`](Self::client_ca) has no effect otherwise. Handlers find the certificate as
    /// [`PeerCertificate`] in the extensions of the request.
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.0.client_certificates = match auth {
            ClientAuth::None => ClientCertificates::None,
            ClientAuth::Wanted => ClientCertificates::Wanted,
            ClientAuth::Required => ClientCertificates::Required,
        };
        self
    }

    pub(in crate::server) fn into_files(self) -> ServerFiles {
        self.0
    }
}

/// Reason for which a connection has no TLS session.
#[derive(Debug)]
pub(super) enum Failure {
    TimedOut,
    PlainHttp,
    Handshake(HandshakeError),
}

impl Failure {
    /// Returns `true` for a failure that needs no attention: the client closed the connection, or
    /// sent nothing.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::PlainHttp => false,
            Self::Handshake(error) => error.is_disconnect(),
        }
    }

    /// Returns the failure without details that differ each time.
    pub(super) fn summary(&self) -> String {
        match self {
            Self::Handshake(error) => error.reason().map_or_else(|| error.to_string(), str::to_owned),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("the handshake took too long"),
            Self::PlainHttp => f.write_str("the client speaks plain HTTP (use https:// in its URL)"),
            Self::Handshake(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

/// Maximum time for which a connection with a client certificate lasts after the files of the
/// listener have changed, and requests in flight. The connections end spread over this time.
const OUTDATED_TIME: Duration = Duration::from_secs(10);

/// Completes when a connection with a client certificate has to end, since the files of the
/// listener have changed, as the CA of the certificate may have been removed, or since the
/// certificate has expired. The client connects again with its present certificate, and is verified
/// by the new files.
pub(super) async fn outdated(mut changes: watch::Receiver<()>, certificate: PeerCertificate) {
    let expired = async {
        match certificate.expires_in() {
            Some(left) => sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let changed = async {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        sleep(random_part(OUTDATED_TIME)).await;
    };
    tokio::select! {
        () = expired => {}
        () = changed => {}
    }
}

/// Interval at which the files are checked if there may be connections with client certificates.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Checks the files of a listener that requests client certificates, so that connections end also
/// while no client connects. Never completes.
pub(super) async fn check_files(acceptor: Option<Acceptor>) {
    let Some(acceptor) = acceptor.filter(Acceptor::requests_certificates) else { return std::future::pending().await };
    loop {
        sleep(CHECK_INTERVAL).await;
        acceptor.check().await;
    }
}

/// Performs the handshake of a new connection within this time.
pub(super) async fn handshake(
    acceptor: &Acceptor,
    stream: TcpStream,
    http2: bool,
    limit: Duration,
) -> Result<(Transport, Option<PeerCertificate>), Failure> {
    let handshake = async {
        let stream = refuse_plain_http(stream).await?;
        acceptor.accept(stream, http2).await.map_err(Failure::Handshake)
    };
    let stream = timeout(limit, handshake).await.unwrap_or(Err(Failure::TimedOut))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().map(|leaf| PeerCertificate::verified(leaf.to_vec()));
    Ok((Transport::Tls(Box::new(stream)), certificate))
}

/// Responds to a client that speaks plain HTTP, which would see a TLS alert otherwise. A TLS
/// handshake never begins with a letter.
async fn refuse_plain_http(mut stream: TcpStream) -> Result<TcpStream, Failure> {
    let failed = |error| Failure::Handshake(HandshakeError::Handshake(error));
    let mut first = [0];
    stream.peek(&mut first).await.map_err(failed)?;
    if !first[0].is_ascii_uppercase() {
        return Ok(stream);
    }
    // The response would be lost if the connection were closed with unread bytes.
    let mut head = [0; 8 * 1024];
    let _ = stream.read(&mut head).await;
    let _ = stream.write_all(HTTPS_ONLY).await;
    let _ = stream.shutdown().await;
    Err(Failure::PlainHttp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "access")]
    #[tokio::test(start_paused = true)]
    async fn connection_of_a_client_ends_when_its_certificate_expires() {
        use crate::time::{move_wall_clock, wall_clock_ms};

        let mut params = rcgen::CertificateParams::new(["orders.internal".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let moved = params.not_after.unix_timestamp() * 1000 - 3_600_000 - wall_clock_ms();
        move_wall_clock(moved);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (_files, changes) = watch::channel(());
        let began = tokio::time::Instant::now();
        outdated(changes, PeerCertificate::verified(certificate.der().to_vec())).await;
        let lasted = began.elapsed().as_secs();
        assert!((3_599..=3_601).contains(&lasted), "{lasted}");
        move_wall_clock(-moved);
    }

    #[test]
    fn response_to_plain_http_has_the_length_of_its_text() {
        let response = std::str::from_utf8(HTTPS_ONLY).unwrap();
        let (head, text) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", text.len())), "{response}");
    }
}
