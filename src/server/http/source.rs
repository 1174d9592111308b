//! Senders of request bodies, as the budget and the turns tell them apart.

use std::net::IpAddr;

use http::Extensions;

use crate::server::audit;

/// Network that a body comes from. All bodies of unknown senders have the same source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Source(Option<IpAddr>);

impl Source {
    pub(super) fn of(extensions: &Extensions) -> Self {
        Self(audit::address(extensions).map(|address| audit::network(address.ip())))
    }
}

#[cfg(test)]
impl Source {
    /// Returns the source of bodies from this address.
    pub(super) fn at(address: IpAddr) -> Self {
        Self(Some(address))
    }
}
