//! Netflix Eureka as a native part of a Tower stack.
//!
//! A provider registers itself and leaves without a failed request, a consumer calls `http://orders/...` and lands on a healthy
//! instance, and the registry itself runs inside a Rust process. All of it works with stock Netflix and Spring Cloud servers and
//! clients.
//!
//! # Where to begin
//!
//! | to | take |
//! |---|---|
//! | register a server | [`Eureka::registrar`], then [`Registrar::serve`](register::Registrar::serve) and [`layer`](register::Registrar::layer) |
//! | call applications by name | [`Eureka::http_client`]; by gRPC `Eureka::channel` (feature `tonic`) |
//! | call them through an HTTP service of your own | [`EurekaLayer`](client::EurekaLayer) |
//! | balance over your own services | [`Eureka::discover`] and [`Balance`](balance::Balance) |
//! | run the registry | [`EurekaServer`] |
//! | do a single thing to a registry | [`Eureka::transport`] |
//!
//! # How it hangs together
//!
//! ```text
//!  consumer                                   provider
//!
//!  registry servers                           registry servers, or EurekaServer (server)
//!      │ full or delta                            ▲ register, heartbeat, DELETE
//!      ▼                                          │
//!  Transport (transport)                      Transport (transport)
//!      │                                          ▲
//!      ▼                                          │
//!  Snapshot (cache)                           Registrar (register)
//!      │ the applications that changed            ▲ requests in flight
//!      ▼                                          │
//!  EurekaDiscover (discover)                  RegistrationLayer ── your server
//!      │ insert, remove
//!      ▼
//!  Balance (balance) ──▶ HttpClient, EurekaLayer (client), Channel (tonic)
//! ```
//!
//! # Time
//!
//! All timers run on tokio's clock, with jitter. Each wait that a caller can meet has a bound, named where it is set.
//!
//! # Metrics
//!
#![doc = include_str!("../docs/metrics.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod config;
pub mod model;

#[cfg(feature = "client")]
pub mod balance;
#[cfg(feature = "client")]
pub mod body;
#[cfg(feature = "client")]
pub mod cache;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
mod connect;
#[cfg(feature = "client")]
pub mod discover;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod eureka;
#[cfg(feature = "client")]
mod metrics;
#[cfg(feature = "client")]
mod panics;
#[cfg(feature = "client")]
pub mod register;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "client")]
mod signal;
#[cfg(any(feature = "client", feature = "server"))]
mod sync;
#[cfg(any(feature = "client", feature = "server"))]
mod time;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod tonic;
#[cfg(feature = "client")]
pub mod transport;
mod untrusted;

#[cfg(feature = "client")]
pub use error::Error;
#[cfg(feature = "client")]
pub use eureka::{Eureka, EurekaBuilder};
pub use model::Instance;
#[cfg(feature = "server")]
pub use server::EurekaServer;
#[cfg(feature = "client")]
pub use signal::shutdown_signal;

/// The README's code compiles.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
