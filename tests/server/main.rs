//! The registry from the outside: clients, peers and operators.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

mod access;
mod audit;
#[cfg(all(feature = "cli", unix))]
mod binary;
mod bodies;
mod bounds;
#[cfg(all(feature = "cli", unix))]
mod browser;
#[path = "../support/captured_log.rs"]
mod captured_log;
#[cfg(feature = "peers")]
mod client_spread;
#[cfg(feature = "peers")]
mod clocks;
#[cfg(feature = "peers")]
mod cluster;
#[cfg(feature = "peers")]
mod cold_start;
mod common;
mod connections;
mod digest;
#[cfg(all(feature = "dns", feature = "peers"))]
mod dns;
mod embedding;
mod hostile_log;
mod http;
#[cfg(feature = "peers")]
mod late_changes;
mod limits;
mod lists;
mod log;
#[cfg(all(feature = "peers", feature = "prometheus"))]
mod metrics;
#[cfg(all(feature = "dns", feature = "peers"))]
#[path = "../support/name_server.rs"]
mod name_server;
#[cfg(feature = "peers")]
mod network;
#[cfg(feature = "peers")]
mod operations;
#[cfg(feature = "peers")]
mod own_url;
#[cfg(feature = "peers")]
mod owners;
#[cfg(all(feature = "cli", unix))]
mod page;
#[cfg(all(feature = "cli", unix))]
mod process;
#[cfg(all(feature = "prometheus", unix))]
mod prometheus;
mod quirks;
mod rate_limits;
#[cfg(feature = "peers")]
mod reconcile;
mod recordings;
#[cfg(feature = "peers")]
mod refused_copies;
#[cfg(feature = "peers")]
mod regions;
mod registrations;
#[cfg(feature = "peers")]
mod settings;
#[cfg(all(feature = "cli", unix))]
mod variables;
#[cfg(all(feature = "cli", unix))]
mod verbs;
#[cfg(feature = "xml")]
mod xml;
