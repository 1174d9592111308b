//! REST operations of a registry server as typed calls.
//! [`Eureka::transport`](crate::Eureka::transport) returns a client for them.
//!
//! ```text
//!  Transport (operations.rs)   one method per operation (request.rs), reads the response;
//!      │                       lists (lists.rs) and parts of them (resource.rs), pages and overrides (operator.rs)
//!      │
//!  Servers (failover.rs)       tries one server after the other (server_order.rs, errors.rs),
//!      │                       looks up the list of servers (servers/, dns.rs)
//!      │
//!  HttpStack (stack.rs)        credentials (authorize.rs, token.rs), redirects, bodies: gzip, lists, limits (body.rs)
//!      │
//!  Sessions (session.rs)       hyper over crate::connect, or the user's own HTTP service
//! ```
//!
//! `server_clock.rs` measures the clock of a server.

mod authorize;
mod body;
#[cfg(feature = "dns")]
mod dns;
mod errors;
mod failover;
mod lists;
mod operations;
mod operator;
mod regions;
mod request;
mod resource;
mod response;
mod server_clock;
mod server_order;
mod servers;
mod session;
mod stack;
mod token;

#[cfg(all(feature = "dns", feature = "peers"))]
pub(crate) use dns::DnsLookup;
pub(crate) use lists::{Fetched, Full, Origin};
#[cfg(feature = "peers")]
pub(crate) use operations::Replicated;
pub use operations::{Renewal, Transport};
pub use request::RequestBody;
pub(crate) use request::is_overload;
pub(crate) use resource::{NotFound, Part, Resource};
pub(crate) use server_clock::{ResponseDate, ServerClock};
pub use servers::RegistryServer;
pub(crate) use stack::HttpStack;
