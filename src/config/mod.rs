//! Settings from the environment, under the names that Spring applications use.
//!
//! Each Spring property has an environment form: in upper case, with underscores for dots and
//! without dashes. `eureka.client.registry-fetch-interval-seconds` is
//! `EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS`. Names are compared as Spring compares them, so the
//! form with an underscore for each dash and the dotted name itself are read as well.
//!
//! A placeholder (`${...}`) is not resolved and is an error. A variable that begins with `EUREKA_`
//! and has no effect causes a warning in a client. In a registry server it is an error if it is not
//! a setting at all.

#[cfg(feature = "client")]
mod client;
mod env;
mod instance;
pub(crate) mod names;
#[cfg(feature = "client")]
mod service_url;

#[cfg(feature = "client")]
pub(crate) use client::ClientConfig;
#[cfg(all(feature = "client", feature = "server"))]
pub(crate) use client::spring_properties;
pub(crate) use env::Env;
pub use env::InvalidSetting;
#[cfg(feature = "server")]
pub(crate) use env::{boolean, covers};
#[cfg(feature = "client")]
pub(crate) use service_url::{ServiceUrl, shown};
