//! The REST operations of a registry server as typed calls.
//!
//! A call goes through three layers: [`Transport`] builds the request and reads the answer (`operations.rs`), chooses the server
//! and tries the next one where that helps (`failover.rs`), and sends through a Tower stack that unpacks gzip, follows a few
//! redirects and bounds size and time (`stack.rs`). The bottom of that stack is hyper over our connections, plain or with TLS
//! (`connector.rs`, `tls.rs`), or the user's own service.

mod connector;
mod failover;
mod operations;
mod stack;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;

pub(crate) use connector::Connector;
pub(crate) use failover::root_cause;
pub use operations::{Renewal, Transport};
pub(crate) use stack::HttpStack;
pub use stack::RequestBody;
pub(crate) use tls::is_refused_handshake;
