//! Netflix Eureka as a native part of a Tower stack.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod model;

mod clock;

#[cfg(feature = "client")]
pub mod balance;
#[cfg(feature = "client")]
pub mod body;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub use error::Error;
pub use model::Instance;
#[cfg(feature = "server")]
pub use server::EurekaServer;
