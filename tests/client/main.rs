//! Providers and consumers, with registries that do as they are told, and with ours.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "the functions around the tests are tests, too")]

mod address;
mod ask;
mod by_name;
#[cfg(feature = "server")]
mod calls;
#[path = "../support/captured_log.rs"]
mod captured_log;
mod changes;
mod common;
mod connections;
#[cfg(feature = "server")]
mod continuity;
mod credentials;
mod discover;
mod evidence;
mod fallback;
mod health;
mod hosts;
mod http1_required;
mod interest;
#[cfg(feature = "dns")]
#[path = "../support/name_server.rs"]
mod name_server;
mod not_found;
mod offline;
mod options;
mod overrides;
#[path = "../support/own_address.rs"]
mod own_address;
mod pages;
mod picked;
mod propagation;
mod provider;
mod provider_faults;
mod proxy;
#[path = "../support/raw_http2.rs"]
mod raw_http2;
mod registry_choice;
mod registry_faults;
mod registry_list;
mod remote_regions;
#[cfg(feature = "reqwest")]
mod reqwest;
#[cfg(feature = "files")]
mod settings_files;
mod shutdown;
mod slow_registration;
mod status;
mod switches;
#[cfg(feature = "testing")]
mod test_registry;
mod testing;
mod unread;
mod unreadable;
mod websocket;
