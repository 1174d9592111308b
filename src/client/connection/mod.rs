//! Connections to instances, each endpoint with its own.
//!
//! ```text
//!              ┌─▶ http1 ─ one request at a time per connection
//!  Endpoint ───┤
//!              └─▶ http2 ─ streams of few connections (streams.rs, frames.rs)
//!  DirectClient ─▶ hyper-util's client, for hosts that are not applications
//! ```
//!
//! With `EurekaBuilder::instance_service`, `service` takes the place of connections.
//!
//! `link` decides when an open connection is replaced. `health` sends the health checks of the
//! instances.

mod body;
mod direct;
mod endpoint;
mod health;
mod http1;
mod http2;
mod link;
mod read_after_close;
mod service;

pub use body::InstanceBody;
pub(super) use direct::DirectClient;
pub(super) use endpoint::{Endpoint, RequestBody};
pub(super) use health::url as health_url;
pub(super) use http1::NewConnection;
pub(super) use link::Link;
pub use service::InstanceRequestBody;
#[cfg(feature = "reqwest")]
pub(crate) use service::SharedBody;
pub(crate) use service::{InstanceService, InstanceTransport};
