//! Comparison of options that are in use with those that replace them.

use super::{CallOptions, HealthCheck};

impl CallOptions {
    /// Returns `true` if endpoints that were made with these options can be used with the other
    /// ones. Otherwise their services are made anew, with new connections.
    ///
    /// All fields are listed, so that a new one is either compared here or known not to influence
    /// the service of an endpoint.
    pub(in crate::client) fn makes_same_endpoints(&self, other: &Self) -> bool {
        let Self {
            prefer_ipv6,
            connections,
            http2,
            http2_connections,
            removal_grace,
            health_check: HealthCheck { interval: _, target },
            // Read by each call, by the balancer or by the choice of the address.
            policy: _,
            labels: _,
            responses: _,
            ejection: _,
            zones: _,
            slow_start: _,
            subset: _,
            caller: _,
            own_zone: _,
            retry: _,
            ports: _,
            scheme: _,
            port_key: _,
            address: _,
            server_name: _,
            host: _,
            deadline_header: _,
            timeout: _,
            wait_for_ready: _,
            ready_timeout: _,
            unknown_name: _,
            selection: _,
            hints: _,
            pass_through: _,
            attempts: _,
            applications: _,
        } = self;
        *prefer_ipv6 == other.prefer_ipv6
            && *connections == other.connections
            && *http2 == other.http2
            && *http2_connections == other.http2_connections
            && *removal_grace == other.removal_grace
            && *target == other.health_check.target
    }
}
