//! A registry for tests: in this process, without a socket, with faults, and on paused time.
//!
//! ```text
//! Eureka (client) ─▶ in-process transport ─▶ EurekaServer
//!                     │ records the request (registry.rs)
//!                     └ applies the fault (fault.rs)
//! ```
//!
//! [`TestRegistry`] takes the place of the registry. With
//! [`instance_service`](crate::EurekaBuilder::instance_service), a service takes the place of the
//! instances, so that a test opens no socket at all:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use axum::{Router, routing::get};
//! # use http::Request;
//! # use tower_eureka::{Instance, testing::TestRegistry};
//! let registry = TestRegistry::new();
//! registry.insert(Instance::builder("orders").ip_addr("10.0.0.1").port(80).build()?);
//! let orders = Router::new().route("/v1", get(async || "2 books"));
//! let client = registry.client().instance_service(orders).build()?.http_client();
//! assert_eq!(client.request(Request::get("http://orders/v1").body(String::new())?).await?.status(), 200);
//! # Ok(())
//! # }
//! ```

mod fault;
mod registry;

pub use self::fault::Fault;
pub use self::registry::TestRegistry;
