//! Netflix Eureka as a native part of a Tower stack.
//!
//! A provider registers itself and leaves without failed requests. A consumer calls
//! `http://orders/...` and reaches a healthy instance. The registry itself runs inside a Rust
//! process or as one small binary. All of it works with stock Netflix and Spring Cloud servers and
//! clients.
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn call() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower_eureka::Eureka;
//! use tower_eureka::client::HttpClient;
//!
//! let eureka = Eureka::builder().service_url("http://localhost:8761/eureka/").build()?;
//! let client: HttpClient<Full<Bytes>> = eureka.http_client(); // keep one, and clone it
//! let request = Request::get("http://orders/v1/42").body(Full::default())?;
//! let response = client.request(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Tasks
//!
//! | task | entry point |
//! |---|---|
//! | register a server and shut it down cleanly | [`Registrar::serve`](register::Registrar::serve) with [`shutdown_signal`] |
//! | register an axum or tonic server in one call | `axum::serve_registered` (feature `axum`), `tonic::serve_registered` (feature `tonic-server`) |
//! | register a server that runs in another way | [`Registrar::register`](register::Registrar::register), [`drain`](register::Registrar::drain), [`deregister`](register::Registrar::deregister) |
//! | call applications by name over HTTP | [`Eureka::http_client`], tuned by [`CallOptions`](client::CallOptions) |
//! | call applications by name over gRPC | [`Eureka::channel`] (feature `tonic`) |
//! | call by name through your own HTTP service | [`EurekaLayer`](client::EurekaLayer), or [`reqwest`](crate::reqwest) (feature `reqwest`) |
//! | open a WebSocket by name | [`HttpClient::upgrade`](client::HttpClient::upgrade) |
//! | choose an instance for another protocol | [`Eureka::choose`] |
//! | balance over services of your own | [`Eureka::discover`] and [`Balance`](balance::Balance) |
//! | wait for the registry, ask for its status and instances, watch it | [`Eureka::ready`], [`Eureka::status`], [`Eureka::instances`], [`Eureka::events`] |
//! | show the registry and the balancers to operators | [`DebugService`](debug::DebugService) |
//! | end a client with its calls and connections | [`Eureka::close`] |
//! | choose instances by status, VIP address or metadata | [`Selection`](discover::Selection) |
//! | read the settings of a Spring application | [`Settings`], [`Eureka::from_settings`], [`Instance::from_settings`] |
//! | test all of this without a socket | `testing` (feature `testing`), [`EurekaBuilder::instance_service`] |
//! | run the registry | [`EurekaServer`] (feature `server`) |
//! | send a single request to a registry | [`Eureka::transport`] |
//!
//! All of them except the registry start with a client, built by [`Eureka::builder`] or
//! [`Eureka::from_settings`].
//!
//! # Data flow
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
//!      │ applications that changed                ▲ requests in flight
//!      ▼                                          │
//!  EurekaDiscover (discover)                  RegistrationLayer ── your server
//!      │ insert, remove
//!      ▼
//!  Balance (balance) ──▶ HttpClient, EurekaLayer (client), Channel (tonic)
//! ```
//!
//! # Time
//!
//! All timers run on tokio's clock, with jitter. Each wait for an instance, a connection or a
//! registry server has a time limit, which the documentation of its setting states. A call waits
//! for its response without a limit, unless a [`Deadline`](client::Deadline) or
//! [`CallOptions::timeout`](client::CallOptions::timeout) sets one.
//!
//! # Metrics
//!
#![doc = include_str!("../docs/metrics.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod config;
pub mod model;

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub mod axum;
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
pub mod debug;
#[cfg(feature = "client")]
pub mod discover;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod eureka;
mod invisible;
#[cfg(feature = "client")]
mod metrics;
#[cfg(feature = "client")]
mod panics;
#[cfg(feature = "client")]
pub mod register;
#[cfg(any(feature = "tls", feature = "server"))]
mod regular_file;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
#[cfg(feature = "client")]
mod retry_after;
#[cfg(feature = "client")]
mod secret;
#[cfg(feature = "server")]
pub mod server;
#[cfg(all(feature = "cli", feature = "tls"))]
#[cfg(test)]
mod settings_table;
#[cfg(feature = "client")]
mod signal;
#[cfg(any(feature = "client", feature = "server"))]
mod sync;
#[cfg(feature = "client")]
mod table;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
#[cfg(any(feature = "client", feature = "server"))]
mod time;
#[cfg(feature = "tonic")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
pub mod tonic;
#[cfg(feature = "client")]
pub mod transport;
mod untrusted;

#[cfg(feature = "client")]
pub use config::BearerToken;
#[cfg(feature = "dns")]
#[cfg_attr(docsrs, doc(cfg(feature = "dns")))]
pub use config::DnsServers;
#[cfg(feature = "client")]
pub use config::Interest;
pub use config::Settings;
#[cfg(feature = "client")]
pub use error::{Error, ErrorKind};
#[cfg(feature = "client")]
pub use eureka::{Eureka, EurekaBuilder};
pub use model::Instance;
#[cfg(feature = "server")]
pub use server::EurekaServer;
#[cfg(feature = "client")]
pub use signal::shutdown_signal;

/// Compiles the code in the README.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the code in the documentation of calls without a registry.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../docs/offline.md")]
struct OfflinePage;

/// Compiles the code in the documentation of the settings.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../docs/settings.md")]
struct SettingsPage;

/// Compiles the code in the documentation of tests.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../docs/testing.md")]
struct TestingPage;

/// Compiles the code in the page for users of other clients.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../docs/coming-from.md")]
struct ComingFromPage;
