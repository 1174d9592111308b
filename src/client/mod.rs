//! Calls by name: a request for `http://orders/v1/42` is sent to an instance of ORDERS.
//!
//! ```text
//! HttpClient ───┐                                                  ┌─▶ connections (connection/)
//! EurekaLayer ──┼─▶ Routes ─ name ─▶ Route ─▶ call ─▶ attempt ─▶ send
//! tonic Channel ┘  (routes.rs)      Balance  (call.rs)             └─▶ user's service (layer.rs)
//! ```
//!
//! A *call* is the user's request. Each *attempt* goes to one instance, which the application's
//! balancer picks. Each *send* uses one connection. [`RetryPolicy`] decides whether a failed
//! attempt is followed by another one, and `replay.rs` keeps the request body for it. A call that
//! failed may be handled by a fallback (`fallback.rs`).
//!
//! The [`PickedInstance`] in the extensions of a response is the instance that sent it.
//! [`CallOptions::on_attempt`] changes the request of each attempt.
//!
//! - Start with [`HttpClient`], which has connections of its own.
//! - [`EurekaLayer`] adds calls by name to an existing HTTP service.
//! - [`CallOptions`] configure both.

mod address;
mod backoff;
mod budget;
mod call;
mod choose;
mod clients;
mod connection;
mod deadline;
mod failure;
mod fallback;
mod http_client;
mod instances;
mod layer;
#[cfg(feature = "tonic")]
mod named;
mod options;
mod picked;
mod presence;
mod replay;
mod retry;
mod routes;
mod upgrade;

pub use backoff::Backoff;
pub(crate) use choose::Chooser;
pub use choose::{Chosen, RequestHead};
#[cfg(feature = "tonic")]
pub(crate) use clients::Client;
pub(crate) use clients::{Clients, drained};
#[cfg(feature = "reqwest")]
pub(crate) use connection::SharedBody;
pub use connection::{InstanceBody, InstanceRequestBody};
pub(crate) use connection::{InstanceService, InstanceTransport};
pub use deadline::{Deadline, WaitForReady};
pub use fallback::Fallback;
#[cfg(feature = "tonic")]
pub(crate) use fallback::{BoxFallback, Condition, boxed as boxed_fallback};
pub use http_client::{HttpClient, ResponseFuture};
pub use layer::{EurekaLayer, EurekaService};
#[cfg(feature = "tonic")]
pub(crate) use named::Named;
pub use options::{CallOptions, ForwardedFor, HostHeader, Http2, InstanceAddress, InstanceScheme, Ports, UnknownName};
pub use picked::PickedInstance;
pub use replay::AttemptBody;
pub use retry::RetryPolicy;
#[cfg(feature = "reqwest")]
pub(crate) use upgrade::without_lb;
pub use upgrade::{Upgraded, parse_uri};

pub use crate::connect::{Resolve, Resolved, Resolving};

/// Response body of a call by name. The call stays pending in the balancer until its end.
pub type ResponseBody = crate::balance::ResponseBody<InstanceBody>;
