//! Rate limits of requests: Java's limit on fetches of the whole server, and a limit for each
//! client address. Both are off by default. Then a request costs one check of a pointer.
//!
//! ```text
//!  request ──▶ bucket of its address ──▶ 429 ┐
//!         └──▶ buckets of fetches ────▶ 503  ├─▶ with Retry-After
//!                (Java's, whole server)      ┘
//! ```

mod addresses;
mod bucket;
mod fetches;

use std::net::IpAddr;

use http::{HeaderMap, Method};

use self::addresses::Addresses;
use self::fetches::{Fetch, Fetches};
use super::settings::RateLimits as Settings;

/// Limits that the settings enable.
#[derive(Debug)]
pub(in crate::server) struct RateLimits {
    fetches: Option<Fetches>,
    addresses: Option<Addresses>,
}

/// Limit that a request exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Exceeded {
    /// Rate of requests from one address.
    Address,
    /// Java's rate of fetches of the whole server.
    Fetches,
}

impl RateLimits {
    /// Creates the limits, or `None` if all are off.
    pub(in crate::server) fn new(settings: &Settings) -> Option<Box<Self>> {
        let (fetches, addresses) = (Fetches::new(settings), Addresses::new(settings));
        (fetches.is_some() || addresses.is_some()).then(|| Box::new(Self { fetches, addresses }))
    }

    /// Returns the limit that a request exceeds, if it exceeds one. `network` is the part of the
    /// sender's address that counts as one sender.
    pub(in crate::server) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        network: Option<IpAddr>,
        now: i64,
    ) -> Option<Exceeded> {
        // An address that the server does not know has no bucket, since all of them would share it.
        if let (Some(addresses), Some(network)) = (&self.addresses, network)
            && !addresses.admit(network, now)
        {
            return Some(Exceeded::Address);
        }
        let fetches = self.fetches.as_ref()?;
        let fetch = Fetch::of(method, path)?;
        (!fetches.is_privileged(headers) && !fetches.admit(fetch, now)).then_some(Exceeded::Fetches)
    }
}
