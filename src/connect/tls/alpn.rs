/// HTTP/2 in ALPN.
#[cfg(feature = "tls")]
pub(in crate::connect) const HTTP2: &[u8] = b"h2";
/// HTTP/1.1 in ALPN.
#[cfg(feature = "tls")]
pub(in crate::connect) const HTTP1: &[u8] = b"http/1.1";

/// HTTP versions that a TLS handshake offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connect) enum Versions {
    Http1,
    Http2,
    /// HTTP/2 as the first choice, HTTP/1.1 as the second.
    Any,
}
