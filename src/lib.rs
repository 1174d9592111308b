//! Netflix Eureka as a native part of a Tower stack.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod config;
pub mod model;

mod clock;

#[cfg(feature = "client")]
pub mod balance;
#[cfg(feature = "client")]
pub mod body;
#[cfg(feature = "client")]
pub mod discover;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod eureka;
#[cfg(feature = "client")]
pub mod register;
#[cfg(feature = "client")]
pub mod registry;
#[cfg(feature = "client")]
pub mod route;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "client")]
mod timer;
#[cfg(feature = "client")]
pub mod transport;

#[cfg(feature = "client")]
pub use error::Error;
#[cfg(feature = "client")]
pub use eureka::{Eureka, EurekaBuilder};
pub use model::Instance;
#[cfg(feature = "server")]
pub use server::EurekaServer;
