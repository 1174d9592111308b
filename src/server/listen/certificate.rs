//! Certificate of a client.

use std::fmt;

use bytes::Bytes;

/// Certificate with which a client identified itself in the TLS handshake of its connection.
///
/// A [`Listener`](super::Listener) with [`ServerTls`](super::ServerTls) inserts it into the
/// extensions of each request. It was verified: it was issued by a CA that the listener trusts, was
/// valid at the time of the handshake, and the client has its key. A request without it came over a
/// connection whose client sent no certificate.
///
/// An application that serves the router itself can insert it, too.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate(Bytes);

impl PeerCertificate {
    /// Creates it from a certificate in DER that was verified.
    pub fn verified(der: impl Into<Bytes>) -> Self {
        Self(der.into())
    }

    /// Returns the certificate in DER, without the chain of its issuers.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerCertificate({} bytes)", self.0.len())
    }
}
