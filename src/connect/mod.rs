//! Connections to registry servers and to instances.
//!
//! [`Connector`] looks up the name, connects, through a proxy if there is one (`proxy/`), and
//! performs the TLS handshake of https URLs, all within one time limit. `names.rs` caches the
//! lookups of a [`Resolve`], `race.rs` tries all addresses of a name, and `dial.rs` holds what the
//! record of an instance adds to its URL. `tls/` holds the settings of TLS, reads their files again
//! when these change, and performs the handshake. Builds without the feature `tls` compile
//! `tls/disabled.rs` instead, which rejects https URLs.

mod connector;
mod dial;
mod error;
mod names;
mod proxy;
mod race;
mod resolve;
mod stream;
mod tls;
mod uri;

pub(crate) use connector::Connector;
pub(crate) use dial::{Dial, UseIp};
pub(crate) use error::{ConnectError, root_cause};
pub(crate) use names::Names;
pub(crate) use proxy::{Direct, Proxies};
pub use resolve::{Resolve, Resolved, Resolving};
#[cfg(all(feature = "tls", feature = "access"))]
pub(crate) use tls::ListenerCertificates;
#[cfg(feature = "tls")]
pub(crate) use tls::Store;
#[cfg(all(feature = "tls", feature = "server"))]
pub(crate) use tls::{Acceptor, ClientCertificates, HandshakeError, ServerFiles};
pub(crate) use tls::{StoreType, TlsSettings, is_rejected_handshake};
pub(crate) use uri::port_of;
