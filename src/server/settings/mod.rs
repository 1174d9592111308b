//! Settings of a server, by subject. The builder collects them.

mod about;
mod eviction;
mod limits;
#[cfg(feature = "peers")]
mod node;
#[cfg(feature = "peers")]
mod peers;
mod rate_limits;
#[cfg(feature = "peers")]
mod regions;
#[cfg(feature = "tls")]
mod ssl;

pub(crate) use self::about::About;
pub use self::eviction::Eviction;
pub use self::limits::Limits;
#[cfg(feature = "peers")]
pub use self::node::Node;
#[cfg(feature = "peers")]
pub use self::peers::Peers;
#[cfg(feature = "peers")]
pub(in crate::server) use self::peers::UNUSABLE_URL;
pub use self::rate_limits::RateLimits;
#[cfg(feature = "peers")]
pub use self::regions::Regions;
#[cfg(feature = "tls")]
pub(in crate::server) use self::ssl::SslKeys;

use super::Error;

/// Checks settings of which zero has no meaning: is it zero, its name, its property.
fn check_not_zero<'a>(settings: impl IntoIterator<Item = &'a (bool, &'static str, &'static str)>) -> Result<(), Error> {
    match settings.into_iter().find(|(is_zero, ..)| *is_zero) {
        Some((_, name, property)) => Err(Error::setting_of(name, property, "must not be zero")),
        None => Ok(()),
    }
}
