//! Identity of endpoints.

/// Identifies an endpoint of one balancer. Ids are never reused: an endpoint that was replaced has
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(crate) u64);
