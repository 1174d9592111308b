//! Connections to instances, one set for each endpoint.

mod body;
mod endpoint;
mod health;
mod http1;
mod http2;
mod peer;

pub use body::InstanceBody;
pub(super) use endpoint::{Connections, Endpoint};
pub(super) use health::url as health_url;
