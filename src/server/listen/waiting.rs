//! Accepted connections that wait for a permit while others are accepted.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::table::ConnectionTable;

/// Maximum time that a new connection waits for a permit. It is longer than the second after which
/// stalled requests are closed for it, by two intervals.
const PERMIT_TIMEOUT: Duration = Duration::from_millis(1_100);
/// Interval between two searches for a connection that a waiting one can replace.
pub(super) const PERMIT_INTERVAL: Duration = Duration::from_millis(50);
/// Maximum number of waiting connections. They take fewer descriptors than the listener reserves.
const MAX_WAITING: usize = 64;

/// Queue of accepted connections without a permit. Those of the address with the fewest connections
/// come first.
#[derive(Debug)]
pub(super) struct Waiting<T = TcpStream>(Vec<Pending<T>>);

/// Accepted connection without a permit.
#[derive(Debug)]
pub(super) struct Pending<T = TcpStream> {
    pub(super) stream: T,
    pub(super) peer: SocketAddr,
    accepted: Instant,
    /// Time of the last attempt to get a permit.
    attempted: Option<Instant>,
}

impl<T> Pending<T> {
    pub(super) fn new(stream: T, peer: SocketAddr) -> Self {
        Self { stream, peer, accepted: Instant::now(), attempted: None }
    }

    /// Returns true unless the last attempt was less than a [`PERMIT_INTERVAL`] ago. On a full
    /// listener, each attempt searches all connections.
    pub(super) fn is_due(&self) -> bool {
        self.attempted.is_none_or(|attempted| attempted.elapsed() >= PERMIT_INTERVAL)
    }

    pub(super) fn note_attempt(&mut self) {
        self.attempted = Some(Instant::now());
    }

    /// Returns the position in the queue: the open connections of the address, and the arrival.
    fn rank(&self, table: &ConnectionTable) -> (usize, Instant) {
        (table.count_of(self.peer.ip()), self.accepted)
    }
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, pending: Pending<T>) {
        self.0.push(pending);
    }

    /// Removes the connection that gets the next permit: the oldest one of the address with the
    /// fewest open connections.
    pub(super) fn pop(&mut self, table: &ConnectionTable) -> Option<Pending<T>> {
        let (next, _) = self.0.iter().enumerate().min_by_key(|(_, pending)| pending.rank(table))?;
        Some(self.0.remove(next))
    }

    /// Removes a connection that is to be refused: one that has waited for too long, or else, if
    /// too many wait, the newest one of the address with the most open connections.
    pub(super) fn pop_refused(&mut self, table: &ConnectionTable) -> Option<Pending<T>> {
        let is_late = |pending: &Pending<T>| pending.accepted.elapsed() >= PERMIT_TIMEOUT;
        if let Some(late) = self.0.iter().position(is_late) {
            return Some(self.0.remove(late));
        }
        if self.0.len() <= (table.limit() / 4).clamp(1, MAX_WAITING) {
            return None;
        }
        let (last, _) = self.0.iter().enumerate().max_by_key(|(_, pending)| pending.rank(table))?;
        Some(self.0.remove(last))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::super::Limits;
    use super::super::activity::{Activity, InFlight};
    use super::super::table::{ConnectionPermit, Refused};
    use super::*;
    use crate::server::unsent::Unsent;

    const MS: Duration = Duration::from_millis(1);

    fn pending(address: &str) -> Pending<()> {
        Pending::new((), SocketAddr::new(address.parse().unwrap(), 1))
    }

    fn admit(table: &Arc<ConnectionTable>, address: &str) -> Result<(ConnectionPermit, InFlight), Refused> {
        let activity = Arc::new(Activity::start(&Limits::default(), Arc::new(Unsent::new(0))));
        let permit = table.admit(address.parse().unwrap(), &activity)?.permit;
        Ok((permit, InFlight::new(activity)))
    }

    fn full(addresses: &[&str]) -> (Arc<ConnectionTable>, Vec<(ConnectionPermit, InFlight)>) {
        let table = ConnectionTable::new(&Limits { connections: Some(addresses.len()), ..Limits::default() });
        let table = Arc::new(table);
        let open = addresses.iter().map(|address| admit(&table, address).unwrap()).collect();
        (table, open)
    }

    fn address(pending: Option<Pending<()>>) -> Option<String> {
        pending.map(|pending| pending.peer.ip().to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn connection_of_the_address_with_the_fewest_connections_gets_the_next_permit() {
        let (table, _open) = full(&["10.0.0.1", "10.0.0.1", "10.0.0.2"]);
        let mut waiting = Waiting::new();
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"] {
            waiting.push(pending(address));
            advance(MS).await;
        }
        for expected in ["10.0.0.3", "10.0.0.4", "10.0.0.2", "10.0.0.1"] {
            assert_eq!(address(waiting.pop(&table)).as_deref(), Some(expected));
        }
        assert!(waiting.pop(&table).is_none() && waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn connection_is_refused_after_a_second_without_a_permit() {
        let (table, _open) = full(&["10.0.0.1"; 100]);
        let mut waiting = Waiting::new();
        waiting.push(pending("10.0.0.1"));
        advance(700 * MS).await;
        waiting.push(pending("10.0.0.2"));
        advance(399 * MS).await;
        assert!(waiting.pop_refused(&table).is_none());
        advance(MS).await;
        assert_eq!(address(waiting.pop_refused(&table)).as_deref(), Some("10.0.0.1"));
        assert!(waiting.pop_refused(&table).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_waiting_connections_refuse_the_newest_of_the_address_with_the_most() {
        let (table, _open) = full(&["10.0.0.1"; 16]);
        let mut waiting = Waiting::new();
        for _ in 0..4 {
            waiting.push(pending("10.0.0.1"));
            advance(MS).await;
        }
        assert!(waiting.pop_refused(&table).is_none());
        waiting.push(pending("10.0.0.2"));
        let refused = waiting.pop_refused(&table).unwrap();
        assert_eq!((refused.peer.ip().to_string().as_str(), refused.accepted.elapsed()), ("10.0.0.1", MS));
        assert!(waiting.pop_refused(&table).is_none());
        assert_eq!(address(waiting.pop(&table)).as_deref(), Some("10.0.0.2"));
    }
}
