//! Log lines of a listener about faults that last.

use std::io;
use std::net::SocketAddr;

use super::Limits;
use super::places::Admitted;
use crate::server::audit::{self, Lasting, Ongoing};

const FEWER: &str = "fewer connections are taken than eureka.server.limits.connections, for want of file descriptors";

/// Faults of accepting connections. Each has a line when it begins, at most one a minute while it
/// lasts, and one when it is over.
#[derive(Debug)]
pub(super) struct AcceptLog {
    limit: usize,
    full: Ongoing,
    address: Ongoing,
    accept: Ongoing,
    slow: Ongoing,
    slow_closed: usize,
}

impl AcceptLog {
    pub(super) fn new(limits: &Limits) -> Self {
        let limit = limits.effective_connections();
        if limit < limits.connections {
            let (wanted, descriptors) = (limits.connections, limits.descriptors);
            // The reserve alone is no reason to warn at each start.
            if limit < wanted / 2 {
                tracing::warn!(limit, wanted, descriptors, "{FEWER}");
            } else {
                tracing::info!(limit, wanted, descriptors, "{FEWER}");
            }
        }
        Self {
            limit,
            full: Ongoing::default(),
            address: Ongoing::default(),
            accept: Ongoing::default(),
            slow: Ongoing::default(),
            slow_closed: 0,
        }
    }

    /// Notes a connection that has a place.
    pub(super) fn admitted(&self, Admitted { closed, is_full, .. }: &Admitted, connections: usize) {
        if *is_full {
            self.is_full(connections, *closed);
        }
        if let Some(Lasting { count, elapsed }) = self.accept.ended() {
            tracing::info!(connections, count, ?elapsed, "connections are accepted again");
        }
    }

    /// Notes a connection that was closed for want of a place.
    pub(super) fn refused(&self, peer: SocketAddr, is_full: bool, connections: usize) {
        if is_full {
            self.is_full(connections, 0);
        } else if let Some(Lasting { count, elapsed }) = self.address.occurred() {
            let origin = audit::canonical(peer);
            tracing::warn!(
                %origin,
                connections,
                count,
                ?elapsed,
                "connection closed: its address has its share of the connections, and all are in use"
            );
        }
    }

    fn is_full(&self, connections: usize, closed: usize) {
        if let Some(Lasting { count, elapsed }) = self.full.occurred() {
            let limit = self.limit;
            tracing::warn!(
                connections,
                limit,
                closed,
                count,
                ?elapsed,
                "connection limit reached, idle connections are closed for new ones"
            );
        }
    }

    /// Notes that a connection has ended.
    pub(super) fn ended(&self, connections: usize) {
        // Well below, so that a listener at its limit does not log each minute that it is over.
        if connections >= self.limit - self.limit / 8 {
            return;
        }
        if let Some(Lasting { count, elapsed }) = self.full.ended() {
            tracing::info!(connections, count, ?elapsed, "connection limit no longer reached");
        }
        self.address.ended();
    }

    /// Notes that the system refused a connection, for which so many were closed, and the number
    /// that is taken from now on.
    pub(super) fn failed(&mut self, error: &io::Error, connections: usize, closed: usize, limit: usize) {
        self.limit = limit;
        if let Some(Lasting { count, elapsed }) = self.accept.occurred() {
            tracing::warn!(%error, connections, closed, limit, count, ?elapsed, "cannot accept connections");
        }
    }

    /// Notes that so many connections were closed, or that the budget of unsent bytes is no longer
    /// short.
    pub(super) fn closed_slow(&mut self, closed: usize, is_short: bool, bytes: usize) {
        self.slow_closed += closed;
        let closed = self.slow_closed;
        if is_short {
            if let Some(Lasting { elapsed, .. }) = self.slow.occurred() {
                tracing::warn!(
                    bytes,
                    closed,
                    ?elapsed,
                    "clients take responses too slowly: lists may be up to 30 seconds old, slow connections are closed"
                );
            }
        } else {
            if let Some(Lasting { elapsed, .. }) = self.slow.ended() {
                tracing::info!(bytes, closed, ?elapsed, "clients take responses again");
            }
            self.slow_closed = 0;
        }
    }
}
