use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError};

use super::alpn::{HTTP1, HTTP2, Versions};
use super::settings::TlsSettings;
use crate::connect::error::ConnectError;
use crate::connect::stream::Stream;
use crate::connect::uri::without_brackets;
use crate::error::chain;

/// Performs the TLS handshake if the scheme of the URI is https. The certificate must be valid for
/// the server name, which defaults to the host of the URI, a name or an address.
///
/// If only HTTP/2 is offered, the server must select it by ALPN, since the behaviour of a server
/// that ignores the offer is unknown. If HTTP/1.1 is offered, the server need not select anything,
/// since all servers speak it.
pub(in crate::connect) async fn handshake_if_https(
    tcp: TcpStream,
    uri: &Uri,
    server_name: Option<&str>,
    tls: &TlsSettings,
    versions: Versions,
) -> Result<Stream, ConnectError> {
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Ok(Stream::Plain(tcp));
    }
    let host = without_brackets(server_name.or(uri.host()).unwrap_or_default());
    let failed = |reason: &str| ConnectError::new(format!("no TLS with {host}: {reason}"));
    let name = ServerName::try_from(host.to_owned()).map_err(|_| failed("it is not a valid server name"))?;
    let mut config = ClientConfig::clone(&*tls.config().await.map_err(|reason| failed(&reason))?);
    config.alpn_protocols = match versions {
        Versions::Http1 => vec![HTTP1.to_vec()],
        Versions::Http2 => vec![HTTP2.to_vec()],
        Versions::Any => vec![HTTP2.to_vec(), HTTP1.to_vec()],
    };
    let http2 = versions == Versions::Http2;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|error| failed(&describe(&error)).with_source(error))?;
    if http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err(failed("the server did not select HTTP/2, the only version offered (ALPN)"));
    }
    Ok(Stream::Tls(Box::new(stream)))
}

/// Describes a failed handshake to users. The text of rustls is kept, since it has the names and
/// dates of the certificate.
fn describe(error: &io::Error) -> String {
    let invalid = match tls_error(error) {
        Some(TlsError::InvalidCertificate(invalid)) => invalid,
        Some(TlsError::InvalidMessage(_)) => return format!("the port does not speak TLS ({error})"),
        Some(TlsError::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            return format!("the server does not speak the HTTP version that was offered ({error})");
        }
        Some(TlsError::AlertReceived(_)) => return format!("the server rejected the handshake ({error})"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => return "the server closed the connection".into(),
        _ => return error.to_string(),
    };
    let text = match invalid {
        // A bad signature means that the CA has the name of a trusted one and another key.
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
    format!("{text} ({invalid})")
}

/// Returns `true` if an established connection failed because the server rejected the handshake.
///
/// With TLS 1.3 the client's handshake is complete before the server has verified the client's
/// certificate, so a rejection arrives with the first request. These alerts are sent in handshakes
/// only: the server did not process the request.
pub(crate) fn is_rejected_handshake(error: &(dyn StdError + 'static)) -> bool {
    use AlertDescription as Alert;
    chain(error).filter_map(|error| error.downcast_ref().and_then(tls_error)).any(|error| {
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

/// Returns the error of rustls behind an error of a stream.
pub(super) fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
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
    fn late_alert_on_the_client_certificate_is_a_rejected_handshake() {
        let received = |alert| Outer(io::Error::other(TlsError::AlertReceived(alert)));
        assert!(is_rejected_handshake(&received(AlertDescription::CertificateRequired)));
        assert!(is_rejected_handshake(&received(AlertDescription::UnknownCA)));
        // This alert may arrive at any time.
        assert!(!is_rejected_handshake(&received(AlertDescription::InternalError)));
        assert!(!is_rejected_handshake(&Outer(io::ErrorKind::ConnectionReset.into())));
    }
}
