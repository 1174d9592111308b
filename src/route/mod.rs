//! Calls by name: `http://orders/v1/42` lands on an instance of ORDERS.
//!
//! ```text
//!  HttpClient ─ application from the URI's host ─▶ Balance ─ pick ─▶ Endpoint ─ its host and port ─▶ hyper
//!  (client.rs)                                        ▲                (endpoint.rs)
//!                                                     └── what failed before it was sent goes to another instance (attempts.rs)
//! ```

mod attempts;
mod body;
mod client;
mod endpoint;

pub use body::InstanceBody;
pub use client::{HttpClient, ResponseFuture};

/// The body of an answer: the instance's own, watched until its end.
pub type ResponseBody = crate::balance::ResponseBody<InstanceBody>;
