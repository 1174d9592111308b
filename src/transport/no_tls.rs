//! What stands in for TLS where the feature `tls` is off: plain connections, and a clear word on all others.

use http::Uri;
use http::uri::Scheme;
use tokio::net::TcpStream;

use super::connector::{ConnectError, Versions};
use crate::tls::Tls;

pub(crate) type Stream = TcpStream;

pub(super) async fn secure_if_asked(tcp: TcpStream, uri: &Uri, _: &Tls, _: Versions) -> Result<Stream, ConnectError> {
    if uri.scheme() == Some(&Scheme::HTTPS) {
        return Err(ConnectError::new("HTTPS is not built in: switch on the feature `tls` of tower-eureka"));
    }
    Ok(tcp)
}

/// Without TLS nobody refuses a handshake.
pub(crate) fn is_refused_handshake(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}
