//! HTTPS to registry servers, peers and instances, with certificates that the tests create: trusted
//! CAs, server names, and errors.
#![cfg(all(feature = "tls", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

mod access;
mod calls;
#[path = "../support/captured_log.rs"]
mod captured_log;
mod files;
#[cfg(feature = "tonic")]
mod grpc;
mod health_check;
#[cfg(feature = "cli")]
mod health_verb;
#[cfg(all(feature = "access", feature = "peers"))]
mod keys;
mod listener;
#[path = "../support/own_address.rs"]
mod own_address;
#[cfg(feature = "peers")]
mod peers;
mod secrets;
#[cfg(feature = "pkcs12")]
mod stores;
mod websocket;
mod world;
