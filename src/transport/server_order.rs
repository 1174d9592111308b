//! Order in which registry servers are tried.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::sync::{Mutex, MutexGuard};
use crate::time::jittered_by;

/// Maximum number of servers that one operation tries, as in Java.
pub(super) const MAX_SERVERS: usize = 3;
/// Duration of a session, shorter or longer by up to 20 %. After a session the first configured
/// server is preferred again, and connections are established anew.
pub(super) const SESSION_DURATION: Duration = Duration::from_secs(300);
/// Longest `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Lease that is assumed before the first registration.
const DEFAULT_LEASE: Duration = Duration::from_secs(90);

/// Kind of an operation. Each kind has a preferred server of its own, so that a server that refuses
/// writes and serves reads affects writes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Preferred servers, and the servers that asked for a pause with `Retry-After`.
#[derive(Debug)]
pub(super) struct ServerOrder {
    servers: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Preferred server of reads.
    read: usize,
    /// Preferred server of writes.
    write: usize,
    /// Pause of each server, for reads and for writes. A success ends the pause of its kind only,
    /// since some servers limit the rate of reads alone.
    pauses: Vec<[Option<Pause>; 2]>,
    /// End of the session. `None` before the first operation.
    session_ends: Option<Instant>,
    /// A quarter of the shortest lease that was registered.
    quarter_lease: Duration,
    /// Time of the last write that was sent although all servers were paused.
    last_forced_write: Option<Instant>,
}

/// Pause that a server asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    pub(super) status: StatusCode,
    since: Instant,
    until: Instant,
}

/// Error of an operation while all servers are paused.
#[derive(Debug)]
pub(super) struct AllServersPaused {
    /// Server whose pause ends first.
    pub(super) server: usize,
    pub(super) status: StatusCode,
    /// Time until the next request is permitted.
    pub(super) wait: Duration,
}

impl ServerOrder {
    pub(super) fn new(servers: usize) -> Self {
        let state = State {
            read: 0,
            write: 0,
            pauses: vec![[None; 2]; servers],
            session_ends: None,
            quarter_lease: DEFAULT_LEASE / 4,
            last_forced_write: None,
        };
        Self { servers, state: Mutex::new(state) }
    }

    /// Returns the servers to try, in order.
    ///
    /// Paused servers come last, or are left out if the operation runs in the `background`. A
    /// background write is sent to one paused server nevertheless, once per quarter of the lease,
    /// so that the lease does not expire. A quarter is less than the shortest time between two
    /// heartbeats, so one of them may be skipped.
    pub(super) fn select(&self, access: Access, background: bool) -> Result<Vec<usize>, AllServersPaused> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.session_ends.is_none_or(|end| now >= end) {
            (state.read, state.write) = (0, 0);
            state.session_ends = Some(now + jittered_by(SESSION_DURATION, 0.2));
        }
        let first = state.preferred(access);
        let ring = (0..self.servers).map(|n| (first + n) % self.servers);
        let (paused, mut order): (Vec<_>, Vec<_>) =
            ring.partition(|&server| state.pause(access, server, now).is_some());
        if !background {
            order.extend(&paused);
        }
        order.truncate(MAX_SERVERS);
        if !order.is_empty() {
            return Ok(order);
        }
        let pause = |server: usize| state.pause(access, server, now).expect("every server is paused");
        let next = paused.iter().copied().min_by_key(|&server| pause(server).until).expect("servers are not empty");
        let mut until = pause(next).until;
        if access == Access::Write {
            let longest = paused.iter().copied().min_by_key(|&server| pause(server).since).unwrap_or(next);
            let since = state.last_forced_write.map_or(pause(longest).since, |at| at.max(pause(longest).since));
            let forced_from = since + state.quarter_lease;
            if now >= forced_from {
                state.last_forced_write = Some(now);
                return Ok(vec![longest]);
            }
            until = until.min(forced_from);
        }
        Err(AllServersPaused { server: next, status: pause(next).status, wait: until - now })
    }

    /// Prefers the server that completed an operation. The other kind of operations prefers it as
    /// well if its own preferred server is among the `unavailable` ones.
    pub(super) fn succeeded(&self, access: Access, server: usize, unavailable: &[usize]) {
        let mut state = self.lock();
        *state.preferred_mut(access) = server;
        state.pauses[server][access as usize] = None;
        let other = match access {
            Access::Read => Access::Write,
            Access::Write => Access::Read,
        };
        if unavailable.contains(&state.preferred(other)) {
            *state.preferred_mut(other) = server;
        }
    }

    /// Prefers the server behind the last one tried, after all servers failed or the last one
    /// rejected the request itself.
    pub(super) fn failed(&self, access: Access, last: usize) {
        *self.lock().preferred_mut(access) = (last + 1) % self.servers;
    }

    /// Pauses a server that responded with this status and `Retry-After`.
    pub(super) fn pause(&self, server: usize, status: StatusCode, retry_after: Duration) {
        let since = Instant::now();
        let until = since + retry_after.min(MAX_RETRY_AFTER);
        self.lock().pauses[server] = [Some(Pause { status, since, until }); 2];
    }

    /// Records the lease of an instance that is being registered.
    pub(super) fn record_lease(&self, duration: Duration) {
        let mut state = self.lock();
        state.quarter_lease = state.quarter_lease.min(duration / 4);
    }

    /// Returns a quarter of the shortest lease: the time for which writes obey a pause, and for
    /// which a heartbeat waits for one server before it is sent to the next one as well.
    pub(super) fn quarter_lease(&self) -> Duration {
        self.lock().quarter_lease
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn preferred(&self, access: Access) -> usize {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
        }
    }

    fn preferred_mut(&mut self, access: Access) -> &mut usize {
        match access {
            Access::Read => &mut self.read,
            Access::Write => &mut self.write,
        }
    }

    fn pause(&self, access: Access, server: usize, now: Instant) -> Option<Pause> {
        self.pauses[server][access as usize].filter(|pause| now < pause.until)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn select(order: &ServerOrder, access: Access) -> Vec<usize> {
        order.select(access, true).unwrap()
    }

    /// Returns an order whose first session has begun.
    fn order_of(servers: usize) -> ServerOrder {
        let order = ServerOrder::new(servers);
        select(&order, Access::Read);
        order
    }

    #[tokio::test(start_paused = true)]
    async fn read_at_a_server_that_refuses_writes_does_not_move_writes() {
        let order = order_of(3);
        order.succeeded(Access::Write, 1, &[]);
        order.succeeded(Access::Read, 0, &[]);
        assert_eq!(select(&order, Access::Write), [1, 2, 0]);
        assert_eq!(select(&order, Access::Read), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn unavailable_server_is_left_by_both_kinds() {
        let order = order_of(2);
        order.succeeded(Access::Write, 1, &[0]);
        assert_eq!(select(&order, Access::Read), [1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn session_end_returns_to_the_configured_order() {
        let order = order_of(2);
        order.succeeded(Access::Read, 1, &[0]);
        advance(SESSION_DURATION * 3 / 4).await;
        assert_eq!(select(&order, Access::Read), [1, 0]);
        advance(SESSION_DURATION / 2).await;
        assert_eq!(select(&order, Access::Read), [0, 1]);
        assert_eq!(select(&order, Access::Write), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn paused_server_is_skipped_in_the_background_only() {
        let order = order_of(2);
        order.pause(0, StatusCode::TOO_MANY_REQUESTS, 60 * SECOND);
        assert_eq!(select(&order, Access::Read), [1]);
        assert_eq!(order.select(Access::Read, false).unwrap(), [1, 0]);
        order.pause(1, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
        let paused = order.select(Access::Read, true).unwrap_err();
        assert_eq!((paused.server, paused.wait), (0, 60 * SECOND));
        advance(60 * SECOND).await;
        assert_eq!(select(&order, Access::Read), [0]);
        advance(MAX_RETRY_AFTER - 60 * SECOND).await;
        assert_eq!(select(&order, Access::Read), [0, 1], "the pause is capped");
    }

    #[tokio::test(start_paused = true)]
    async fn write_that_succeeds_does_not_end_the_pause_of_reads() {
        let order = order_of(1);
        order.pause(0, StatusCode::SERVICE_UNAVAILABLE, 60 * SECOND);
        order.succeeded(Access::Write, 0, &[]);
        assert_eq!(select(&order, Access::Write), [0]);
        assert!(order.select(Access::Read, true).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn write_is_sent_to_one_paused_server_per_quarter_of_the_lease() {
        let order = order_of(2);
        order.record_lease(40 * SECOND);
        order.pause(1, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
        advance(SECOND).await;
        order.pause(0, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
        let mut sent = Vec::new();
        for second in 1..=30 {
            advance(SECOND).await;
            if let Ok(servers) = order.select(Access::Write, true) {
                servers.iter().for_each(|&server| order.pause(server, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND));
                sent.push((second, servers));
            }
            assert!(order.select(Access::Read, true).is_err());
        }
        assert_eq!(sent, [(9, vec![1]), (19, vec![0]), (29, vec![1])]);
    }
}
