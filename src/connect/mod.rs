//! Connections to registry servers and to instances.
//!
//! [`Connector`] resolves the name, connects, and performs the TLS handshake of https URLs, all
//! within one time limit. `tls/` holds the settings of TLS and the handshake. Builds without the
//! feature `tls` compile `tls/disabled.rs` instead, which rejects https URLs.

mod connector;
mod error;
mod tls;

pub(crate) use connector::Connector;
pub(crate) use error::{ConnectError, root_cause};
pub(crate) use tls::{TlsSettings, is_rejected_handshake};
