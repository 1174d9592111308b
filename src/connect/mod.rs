//! Connections to registry servers and to instances.
//!
//! [`Connector`] resolves the name, connects, through a proxy if there is one (`proxy/`), and
//! performs the TLS handshake of https URLs, all within one time limit. `tls/` holds the settings
//! of TLS, reads their files again when these change, and performs the handshake. Builds without
//! the feature `tls` compile `tls/disabled.rs` instead, which rejects https URLs.

mod connector;
mod error;
mod proxy;
mod stream;
mod tls;

pub(crate) use connector::Connector;
pub(crate) use error::{ConnectError, root_cause};
pub(crate) use proxy::{Direct, Proxies};
#[cfg(feature = "tls")]
pub(crate) use tls::Store;
pub(crate) use tls::{StoreType, TlsSettings, is_rejected_handshake};
