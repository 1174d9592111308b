//! Rate limits of requests: Java's limit on fetches of the whole server, and a limit for each
//! client address. Both are off by default. Then a request costs one check of a pointer.
//!
//! ```text
//!  request ──▶ bucket of its address ──▶ access control ──▶ buckets of fetches ──▶ response
//!                       │                                    (Java's, whole server)
//!                      429                                            503, both with Retry-After
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

    /// Returns false if a sender exceeds the rate of its address. `network` is the part of the
    /// address that counts as one sender.
    pub(in crate::server) fn admits_sender(&self, network: Option<IpAddr>, now: i64) -> bool {
        // An address that the server does not know has no bucket, since all of them would share it.
        let (Some(addresses), Some(network)) = (&self.addresses, network) else { return true };
        addresses.admit(network, now)
    }

    /// Returns false if a fetch exceeds a rate of the whole server. It is checked for callers that
    /// may fetch only, since others would use up the tokens of all.
    pub(in crate::server) fn admits_fetch(&self, method: &Method, path: &str, headers: &HeaderMap, now: i64) -> bool {
        let Some(fetches) = &self.fetches else { return true };
        let Some(fetch) = Fetch::of(method, path) else { return true };
        fetches.is_privileged(headers) || fetches.admit(fetch, now)
    }
}
