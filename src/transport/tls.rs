//! TLS over a connection that stands.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError};

use super::connector::{ConnectError, Versions};
use crate::tls::Tls;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// A connection, with TLS on it or without.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Shakes hands if the scheme of the URI is https. The URI's host is the name, or the address, that the certificate must be for.
///
/// A server that was asked for HTTP/2 alone must agree to it: what it would do with HTTP/2 else is anyone's guess. One that is
/// asked for HTTP/1.1 need not say anything, as all servers speak that.
pub(super) async fn secure_if_asked(
    tcp: TcpStream,
    uri: &Uri,
    tls: &Tls,
    versions: Versions,
) -> Result<Stream, ConnectError> {
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Ok(Stream::Plain(tcp));
    }
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let failed = |why: &str| ConnectError::new(format!("no TLS with {host}: {why}"));
    let name = ServerName::try_from(host.to_owned()).map_err(|_| failed("no certificate can be for such a name"))?;
    let mut config = ClientConfig::clone(&*tls.config().map_err(|why| failed(&why))?);
    config.alpn_protocols = match versions {
        Versions::Http1 => vec![HTTP1.to_vec()],
        Versions::Http2 => vec![HTTP2.to_vec()],
        Versions::Any => vec![HTTP2.to_vec(), HTTP1.to_vec()],
    };
    let http2 = versions == Versions::Http2;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|error| failed(&reason(&error)).because(error))?;
    if http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err(failed("HTTP/2 was asked for, and the server did not agree to it (ALPN)"));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

/// Why there was no handshake, for people. What rustls says is kept: it names the names and dates.
fn reason(error: &io::Error) -> String {
    let why = match tls_error(error) {
        Some(TlsError::InvalidCertificate(why)) => why,
        Some(TlsError::InvalidMessage(_)) => return format!("the port does not speak TLS ({error})"),
        Some(TlsError::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            return format!("the server does not speak the HTTP version asked for ({error})");
        }
        Some(TlsError::AlertReceived(_)) => return format!("the server refuses ({error})"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => return "the server hung up".into(),
        _ => return error.to_string(),
    };
    let words = match why {
        // A bad signature: the CA has the name of one that is trusted here, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of a CA that is not trusted here"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        _ => "its certificate is unusable",
    };
    format!("{words} ({why})")
}

/// Returns true if an established connection failed because the other side had refused the handshake.
///
/// With TLS 1.3 a client has finished before its own certificate is judged, so the verdict meets the first request. These
/// alerts end handshakes only: nothing of the request was looked at.
pub(crate) fn is_refused_handshake(error: &(dyn StdError + 'static)) -> bool {
    use AlertDescription as Alert;
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref().and_then(tls_error))
        .any(|error| {
            matches!(
                error,
                TlsError::AlertReceived(
                    Alert::CertificateRequired
                        | Alert::BadCertificate
                        | Alert::UnsupportedCertificate
                        | Alert::CertificateRevoked
                        | Alert::CertificateExpired
                        | Alert::CertificateUnknown
                        | Alert::UnknownCA
                        | Alert::AccessDenied
                )
            )
        })
}

fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(tcp) => tcp.connected(),
            Self::Tls(tls) => {
                let (tcp, session) = tls.get_ref();
                let connected = tcp.connected();
                if session.alpn_protocol() == Some(HTTP2) { connected.negotiated_h2() } else { connected }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("outer")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_late_verdict_on_the_clients_certificate_is_a_refused_handshake() {
        let received = |alert| Outer(io::Error::other(TlsError::AlertReceived(alert)));
        assert!(is_refused_handshake(&received(AlertDescription::CertificateRequired)));
        assert!(is_refused_handshake(&received(AlertDescription::UnknownCA)));
        // May come at any time.
        assert!(!is_refused_handshake(&received(AlertDescription::InternalError)));
        assert!(!is_refused_handshake(&Outer(io::ErrorKind::ConnectionReset.into())));
    }
}
