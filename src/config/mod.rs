//! Settings from outside: service URLs, and the names under which Spring applications already know them.
//!
//! Every Spring property has an environment form, upper case with dots as underscores and without dashes:
//! `eureka.client.registry-fetch-interval-seconds` is `EUREKA_CLIENT_REGISTRYFETCHINTERVALSECONDS`. The form that keeps an
//! underscore for each dash is read too.

#[cfg(feature = "client")]
mod client;
mod env;
mod instance;
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
pub(crate) use service_url::ServiceUrl;
