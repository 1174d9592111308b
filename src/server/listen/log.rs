//! Log messages of a listener about lasting faults.

use std::io;
use std::net::SocketAddr;

use super::Limits;
use super::table::{Admitted, ConnectionTable};
use crate::server::audit::{self, Lasting, Ongoing};

const LITTLE_MEMORY: &str =
    "connection limit lowered to a third of the memory, unless eureka.server.limits.connections is set";
const TOO_MANY: &str = "eureka.server.limits.connections exceeds a third of the memory, which may not suffice";
const FEWER: &str = "connection limit lowered: too few file descriptors for eureka.server.limits.connections";

/// Lasting faults of accepting connections. Logs each fault when it begins, at most once a minute
/// while it lasts, and when it is over.
#[derive(Debug)]
pub(super) struct AcceptLog {
    full: Ongoing,
    address: Ongoing,
    accept: Ongoing,
    slow: Ongoing,
    slow_closed: usize,
}

impl AcceptLog {
    pub(super) fn new(limits: &Limits) -> Self {
        let (limit, wanted) = (limits.effective_connections(), limits.wanted_connections());
        let (memory, fitting) = (limits.memory, limits.connections_in_memory());
        if limit > fitting.max(1) {
            tracing::warn!(limit, fitting, memory, "{TOO_MANY}");
        } else if limits.connections.is_none() && wanted < Limits::DEFAULT_CONNECTIONS {
            tracing::info!(limit, wanted = Limits::DEFAULT_CONNECTIONS, memory, "{LITTLE_MEMORY}");
        }
        if limit < wanted {
            let descriptors = limits.descriptors;
            // No warning at each start if only the reserve of the default is missing.
            if limits.connections.is_some() || descriptors < wanted {
                tracing::warn!(limit, wanted, descriptors, "{FEWER}");
            } else {
                tracing::info!(limit, wanted, descriptors, "{FEWER}");
            }
        }
        Self {
            full: Ongoing::default(),
            address: Ongoing::default(),
            accept: Ongoing::default(),
            slow: Ongoing::default(),
            slow_closed: 0,
        }
    }

    /// Records a connection that got a permit.
    pub(super) fn admitted(&self, Admitted { closed, is_full, .. }: &Admitted, table: &ConnectionTable) {
        if *is_full {
            self.is_full(table, *closed);
        }
        if let Some(Lasting { count, elapsed }) = self.accept.ended() {
            tracing::info!(connections = table.count(), count, ?elapsed, "accepting connections again");
        }
    }

    /// Records a connection that got no permit and was closed.
    pub(super) fn refused(&self, peer: SocketAddr, is_full: bool, table: &ConnectionTable) {
        if is_full {
            self.is_full(table, 0);
        } else if let Some(Lasting { count, elapsed }) = self.address.occurred() {
            let origin = audit::canonical(peer);
            tracing::warn!(
                %origin,
                connections = table.count(),
                count,
                ?elapsed,
                "connection closed: its address has reached its share of connections, and all are in use"
            );
        }
    }

    fn is_full(&self, table: &ConnectionTable, closed: usize) {
        if let Some(Lasting { count, elapsed }) = self.full.occurred() {
            tracing::warn!(
                connections = table.count(),
                limit = table.limit(),
                closed,
                count,
                ?elapsed,
                "connection limit reached, closing idle connections for new ones"
            );
        }
    }

    /// Records the end of a connection.
    pub(super) fn ended(&self, table: &ConnectionTable) {
        let (connections, limit) = (table.count(), table.limit());
        // Well below the limit, so that a listener near its limit does not log both lines each
        // minute.
        if connections >= limit - limit / 8 {
            return;
        }
        if let Some(Lasting { count, elapsed }) = self.full.ended() {
            tracing::info!(connections, count, ?elapsed, "connection limit no longer reached");
        }
        self.address.ended();
    }

    /// Records that the system refused a connection, the number of connections closed for it, and
    /// the limit for the next minutes.
    pub(super) fn failed(&self, error: &io::Error, connections: usize, closed: usize, limit: usize) {
        if let Some(Lasting { count, elapsed }) = self.accept.occurred() {
            tracing::warn!(%error, connections, closed, limit, count, ?elapsed, "cannot accept connections");
        }
    }

    /// Records the number of slow connections that were closed, or that the budget of unsent bytes
    /// is no longer short.
    pub(super) fn closed_slow(&mut self, closed: usize, is_short: bool, bytes: usize) {
        self.slow_closed += closed;
        let closed = self.slow_closed;
        if is_short {
            if let Some(Lasting { elapsed, .. }) = self.slow.occurred() {
                tracing::warn!(
                    bytes,
                    closed,
                    ?elapsed,
                    "clients read responses too slowly: closing slow connections, lists may be up to 30 seconds old"
                );
            }
        } else {
            if let Some(Lasting { elapsed, .. }) = self.slow.ended() {
                tracing::info!(bytes, closed, ?elapsed, "clients read responses again");
            }
            self.slow_closed = 0;
        }
    }
}
