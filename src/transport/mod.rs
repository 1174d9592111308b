//! The REST operations of a registry server as typed calls.
//!
//! A call goes through three layers: [`Transport`] builds the request and reads the answer (`operations.rs`), chooses the server
//! and tries the next one where that helps (`failover.rs`), and sends through a Tower stack that unpacks gzip, follows a few
//! redirects and bounds size and time (`stack.rs`). The bottom of that stack is hyper, or the user's own service.

mod connector;
#[cfg(feature = "dns")]
mod dns;
mod failover;
mod operations;
mod stack;

pub(crate) use connector::Connector;
#[cfg(feature = "dns")]
pub(crate) use dns::DnsUrls;
pub(crate) use failover::root_cause;
pub use operations::{Renewal, Transport};
pub(crate) use stack::HttpStack;
pub use stack::RequestBody;
