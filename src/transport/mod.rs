//! The REST operations of a registry server as typed calls.
//!
//! A call goes through three layers: [`Transport`] builds the request (`operations.rs`, `call.rs`)
//! and reads the response; `failover.rs` chooses the server in the order that `turns.rs` keeps, and
//! tries the next one where that helps; a Tower stack follows a few redirects, unpacks gzip and
//! bounds size and time (`stack.rs`, `gunzip.rs`), and reads the clock of the server (`dates.rs`). The bottom of that stack is hyper over our
//! connections, plain or with TLS (`session.rs`, `crate::connect`), or the user's own
//! service.

mod call;
#[cfg(feature = "peers")]
mod dates;
#[cfg(feature = "dns")]
mod dns;
mod failover;
mod faults;
mod gunzip;
mod operations;
mod session;
mod stack;
mod turns;

#[cfg(feature = "peers")]
pub(crate) use dates::ServerClock;
#[cfg(feature = "dns")]
pub(crate) use dns::DnsUrls;
#[cfg(feature = "peers")]
pub(crate) use operations::Replicated;
pub(crate) use operations::{Fetched, Full, Origin};
pub use operations::{Renewal, Transport};
pub(crate) use stack::HttpStack;
pub use stack::RequestBody;
