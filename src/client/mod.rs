//! Routes by name: `http://orders/v1/42` lands on an instance of ORDERS.
//!
//! ```text
//!  HttpClient ─┐                                                                ┌─▶ Endpoint ─ our connections (endpoint.rs; http1.rs, http2.rs, peer.rs)
//!  (http_client.rs) ├─▶ Routes ─ name from the URI ─▶ Route ─▶ Call ─ its Balance's ──┤
//!  EurekaLayer ┘   (calls.rs)                         (call.rs)     instance    └─▶ Aimed ─ the user's own service (layer.rs)
//!  (layer.rs)                                             ▲ │
//!                                                         └─┘ what failed goes to another instance: how often and when says
//!                                                             the RetryPolicy (retry.rs), with what body attempts.rs
//! ```
//!
//! Where the options want it, instances with connections of our own are asked for their health (health.rs).
//!
//! A gRPC channel takes the same way to the one application that it was made for (named.rs): its requests have no host.

mod address;

mod budget;
mod call;
mod connection;
mod deadline;
mod failure;
mod http_client;
mod layer;
#[cfg(feature = "tonic")]
mod named;
mod options;
mod presence;
mod replay;
mod retry;
mod routes;

pub use connection::InstanceBody;
pub use deadline::{Deadline, WaitForReady};
pub use http_client::{HttpClient, ResponseFuture};
pub use layer::{EurekaLayer, EurekaService};
#[cfg(feature = "tonic")]
pub(crate) use named::Named;
pub use options::{CallOptions, HostHeader, Http2, Ports};
pub use replay::AttemptBody;
pub use retry::RetryPolicy;

/// The body of an answer: the instance's own, watched until its end.
pub type ResponseBody = crate::balance::ResponseBody<InstanceBody>;
