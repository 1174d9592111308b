//! TLS settings and the client's side of the handshake.

mod alpn;
#[cfg(not(feature = "tls"))]
mod disabled;
#[cfg(feature = "tls")]
mod handshake;
#[cfg(feature = "tls")]
mod settings;
#[cfg(feature = "tls")]
mod stream;

pub(super) use alpn::Versions;
#[cfg(not(feature = "tls"))]
pub(super) use disabled::handshake_if_https;
#[cfg(not(feature = "tls"))]
pub(crate) use disabled::{Stream, TlsSettings, is_rejected_handshake};
#[cfg(feature = "tls")]
pub(super) use handshake::handshake_if_https;
#[cfg(feature = "tls")]
pub(crate) use handshake::is_rejected_handshake;
#[cfg(feature = "tls")]
pub(crate) use settings::TlsSettings;
#[cfg(feature = "tls")]
pub(crate) use stream::Stream;
