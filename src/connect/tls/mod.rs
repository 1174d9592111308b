//! TLS settings and the handshake: as a client in `handshake.rs`, as a server in `server.rs`.
//!
//! `files.rs` reads certificates and keys, `store.rs` those in key stores, and `reload.rs` holds
//! the rustls configuration and creates it again when a file changed.

mod alpn;
#[cfg(not(feature = "tls"))]
mod disabled;
#[cfg(feature = "tls")]
mod files;
#[cfg(feature = "tls")]
mod handshake;
#[cfg(feature = "tls")]
mod reload;
#[cfg(all(feature = "tls", feature = "server"))]
mod server;
#[cfg(feature = "tls")]
mod settings;
#[cfg(feature = "tls")]
mod store;
mod store_type;

#[cfg(feature = "tls")]
pub(super) use alpn::HTTP2;
pub(super) use alpn::Versions;
#[cfg(not(feature = "tls"))]
pub(super) use disabled::handshake_if_https;
#[cfg(not(feature = "tls"))]
pub(crate) use disabled::{TlsSettings, is_rejected_handshake};
#[cfg(feature = "tls")]
pub(super) use handshake::handshake_if_https;
#[cfg(feature = "tls")]
pub(crate) use handshake::is_rejected_handshake;
#[cfg(all(feature = "tls", feature = "access"))]
pub(crate) use server::ListenerCertificates;
#[cfg(all(feature = "tls", feature = "server"))]
pub(crate) use server::{Acceptor, ClientCertificates, HandshakeError, ServerFiles};
#[cfg(feature = "tls")]
pub(crate) use settings::TlsSettings;
#[cfg(feature = "tls")]
pub(crate) use store::Store;
pub(crate) use store_type::StoreType;
