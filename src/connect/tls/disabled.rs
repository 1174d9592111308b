//! Replacement for TLS in builds without the feature `tls`: plain connections only.

use http::Uri;
use http::uri::Scheme;
use tokio::net::TcpStream;

use super::alpn::Versions;
use crate::connect::error::ConnectError;
use crate::connect::stream::Stream;

/// TLS settings, of which this build has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsSettings {}

impl TlsSettings {
    /// True if this build supports TLS.
    pub(crate) const SUPPORTED: bool = false;

    /// Does nothing, since there are no files.
    pub(crate) fn check_files(&self) -> Result<(), crate::Error> {
        Ok(())
    }

    /// Returns the reason for which no handshake is possible.
    pub(crate) fn check(&self) -> Result<(), String> {
        Err("it is not built in, switch on the feature `tls` of tower-eureka".into())
    }
}

/// Returns the plain connection, or an error if the scheme is https.
pub(in crate::connect) async fn handshake_if_https(
    tcp: TcpStream,
    uri: &Uri,
    _: Option<&str>,
    _: &TlsSettings,
    _: Versions,
) -> Result<Stream, ConnectError> {
    if uri.scheme() == Some(&Scheme::HTTPS) {
        return Err(ConnectError::new("HTTPS is not built in: switch on the feature `tls` of tower-eureka"));
    }
    Ok(Stream::Plain(tcp))
}

/// Returns `false`, since without TLS there is no handshake.
pub(crate) fn is_rejected_handshake(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}
