//! Senders of requests: their role, and the network that their bodies count for.

use std::net::IpAddr;

use http::{Extensions, HeaderMap};

use crate::server::audit;
use crate::server::outcome::Origin;

/// Network that a body comes from. All bodies of unknown senders have the same source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Source(Option<IpAddr>);

impl Source {
    pub(super) fn of(extensions: &Extensions) -> Self {
        Self(audit::address(extensions).map(|address| audit::network(address.ip())))
    }
}

/// Returns the role of the sender. Java compares the header with exactly `true`.
pub(super) fn origin(headers: &HeaderMap) -> Origin {
    match headers.get("x-netflix-discovery-replication") {
        Some(value) if value == "true" => Origin::Replica,
        _ => Origin::Client,
    }
}

#[cfg(test)]
impl Source {
    /// Returns the source of bodies from this address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self(Some(address))
    }
}
