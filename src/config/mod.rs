//! Settings from outside: service URLs, and the names under which Spring applications already know them.
//!
//! Every Spring property has an environment form, upper case with dots as underscores and without dashes:
//! `eureka.client.registry-fetch-interval-seconds` is `EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS`. Names are compared as
//! Spring does, so the form with an underscore for each dash and the dotted name itself are read too. Placeholders (`${...}`)
//! are not resolved and are errors. A client names variables that begin with `EUREKA_` and have no effect in a warning; for a registry
//! server, those that are no setting are errors.

#[cfg(feature = "client")]
mod client;
mod env;
mod instance;
mod names;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "client")]
mod service_url;

#[cfg(feature = "client")]
pub(crate) use client::ClientConfig;
pub(crate) use env::Env;
pub use env::InvalidSetting;
#[cfg(feature = "server")]
pub use server::Property;
#[cfg(feature = "client")]
pub(crate) use service_url::{ServiceUrl, shown};
