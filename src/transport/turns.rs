//! The order in which registry servers are tried.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::sync::{Mutex, MutexGuard};
use crate::time::jittered_by;

/// Number of servers that one operation is tried on, as in Java.
pub(super) const MAX_ATTEMPTS: usize = 3;
/// Time after which the first server of the configuration is preferred again, and connections are
/// established anew. Each session is up to a fifth shorter or longer.
pub(super) const SESSION: Duration = Duration::from_secs(300);
/// Longest `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Part of a lease for which writes obey a `Retry-After`: less than the shortest time between two
/// heartbeats, so that the lease lasts although one of them is not sent.
const PATIENCE: u32 = 4;
/// Lease that is assumed as long as none is known.
const USUAL_LEASE: Duration = Duration::from_secs(90);

/// The two kinds of operations. Each has a preferred server of its own, so that a server that
/// refuses writes and serves reads keeps neither from a server that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Remembers which server responded last, and which asked to be left alone.
#[derive(Debug)]
pub(super) struct Turns {
    servers: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    read: usize,
    write: usize,
    /// For each server, the pause that it asked for. Each kind of operation ends its own by a
    /// success: some servers limit reads alone.
    pauses: Vec<[Option<Pause>; 2]>,
    /// `None` before the first operation.
    session_ends: Option<Instant>,
    /// A quarter of the shortest lease that was registered.
    patience: Duration,
    /// The last write that was sent although all servers asked to be left alone.
    insisted: Option<Instant>,
}

/// Time for which a server asked to be left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    pub(super) status: StatusCode,
    since: Instant,
    until: Instant,
}

/// No server may be asked now.
#[derive(Debug)]
pub(super) struct AllPaused {
    pub(super) server: usize,
    pub(super) status: StatusCode,
    /// Time until the first of them may be asked again.
    pub(super) wait: Duration,
}

impl Turns {
    pub(super) fn new(servers: usize) -> Self {
        let state = State {
            read: 0,
            write: 0,
            pauses: vec![[None; 2]; servers],
            session_ends: None,
            patience: USUAL_LEASE / PATIENCE,
            insisted: None,
        };
        Self { servers, state: Mutex::new(state) }
    }

    /// The servers to try, in this order. In the `background` a server that asked to be left alone
    /// is left alone. A write asks one of them nevertheless when its lease would not last, once per
    /// quarter of the lease.
    pub(super) fn order(&self, access: Access, background: bool) -> Result<Vec<usize>, AllPaused> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.session_ends.is_none_or(|end| now >= end) {
            // Also the first time: then all are 0 anyway.
            (state.read, state.write) = (0, 0);
            state.session_ends = Some(now + jittered_by(SESSION, 0.2));
        }
        let first = state.preferred(access);
        let ring = (0..self.servers).map(|n| (first + n) % self.servers);
        let (paused, mut order): (Vec<_>, Vec<_>) =
            ring.partition(|&server| state.pause(access, server, now).is_some());
        if !background {
            order.extend(&paused);
        }
        order.truncate(MAX_ATTEMPTS);
        if !order.is_empty() {
            return Ok(order);
        }
        let pause = |server: usize| state.pause(access, server, now).expect("a server without a pause is in the order");
        let next = paused.iter().copied().min_by_key(|&server| pause(server).until).expect("there is a server");
        let mut until = pause(next).until;
        if access == Access::Write {
            let longest = paused.iter().copied().min_by_key(|&server| pause(server).since).unwrap_or(next);
            let since = state.insisted.map_or(pause(longest).since, |at| at.max(pause(longest).since));
            let insists = since + state.patience;
            if now >= insists {
                state.insisted = Some(now);
                return Ok(vec![longest]);
            }
            until = until.min(insists);
        }
        Err(AllPaused { server: next, status: pause(next).status, wait: until - now })
    }

    /// A server did it, after these others had been found unavailable. Operations of the other kind
    /// leave those as well.
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

    /// None of those tried did it, or the last one refused the request itself. The next operation
    /// begins behind it.
    pub(super) fn failed(&self, access: Access, last: usize) {
        *self.lock().preferred_mut(access) = (last + 1) % self.servers;
    }

    /// A server asked to be left alone.
    pub(super) fn pause(&self, server: usize, status: StatusCode, retry_after: Duration) {
        let since = Instant::now();
        let until = since + retry_after.min(MAX_RETRY_AFTER);
        self.lock().pauses[server] = [Some(Pause { status, since, until }); 2];
    }

    /// Notes the lease of an instance that is registered.
    pub(super) fn note_lease(&self, duration: Duration) {
        let mut state = self.lock();
        state.patience = state.patience.min(duration / PATIENCE);
    }

    /// Time for which writes obey a pause, and for which a heartbeat waits for one server before the
    /// next one is asked as well.
    pub(super) fn patience(&self) -> Duration {
        self.lock().patience
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

    fn order(turns: &Turns, access: Access) -> Vec<usize> {
        turns.order(access, true).unwrap()
    }

    /// In its first session.
    fn turns(servers: usize) -> Turns {
        let turns = Turns::new(servers);
        order(&turns, Access::Read);
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn read_at_a_server_that_refuses_writes_does_not_move_writes() {
        let turns = turns(3);
        turns.succeeded(Access::Write, 1, &[]);
        turns.succeeded(Access::Read, 0, &[]);
        assert_eq!(order(&turns, Access::Write), [1, 2, 0]);
        assert_eq!(order(&turns, Access::Read), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn unavailable_server_is_left_by_both_kinds() {
        let turns = turns(2);
        turns.succeeded(Access::Write, 1, &[0]);
        assert_eq!(order(&turns, Access::Read), [1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn session_end_returns_to_the_configured_order() {
        let turns = turns(2);
        turns.succeeded(Access::Read, 1, &[0]);
        advance(SESSION * 3 / 4).await;
        assert_eq!(order(&turns, Access::Read), [1, 0]);
        advance(SESSION / 2).await;
        assert_eq!(order(&turns, Access::Read), [0, 1]);
        assert_eq!(order(&turns, Access::Write), [0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn paused_server_is_left_alone_in_the_background_only() {
        let turns = turns(2);
        turns.pause(0, StatusCode::TOO_MANY_REQUESTS, 60 * SECOND);
        assert_eq!(order(&turns, Access::Read), [1]);
        assert_eq!(turns.order(Access::Read, false).unwrap(), [1, 0]);
        turns.pause(1, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
        let paused = turns.order(Access::Read, true).unwrap_err();
        assert_eq!((paused.server, paused.wait), (0, 60 * SECOND));
        advance(60 * SECOND).await;
        assert_eq!(order(&turns, Access::Read), [0]);
        advance(MAX_RETRY_AFTER - 60 * SECOND).await;
        assert_eq!(order(&turns, Access::Read), [0, 1], "the pause is capped");
    }

    #[tokio::test(start_paused = true)]
    async fn write_that_succeeds_does_not_end_the_pause_of_reads() {
        let turns = turns(1);
        turns.pause(0, StatusCode::SERVICE_UNAVAILABLE, 60 * SECOND);
        turns.succeeded(Access::Write, 0, &[]);
        assert_eq!(order(&turns, Access::Write), [0]);
        assert!(turns.order(Access::Read, true).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn write_asks_one_paused_server_per_quarter_of_the_lease() {
        let turns = turns(2);
        turns.note_lease(40 * SECOND);
        turns.pause(1, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
        advance(SECOND).await;
        turns.pause(0, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND);
        let mut asked = Vec::new();
        for second in 1..=30 {
            advance(SECOND).await;
            if let Ok(servers) = turns.order(Access::Write, true) {
                servers.iter().for_each(|&server| turns.pause(server, StatusCode::TOO_MANY_REQUESTS, 3600 * SECOND));
                asked.push((second, servers));
            }
            assert!(turns.order(Access::Read, true).is_err());
        }
        assert_eq!(asked, [(9, vec![1]), (19, vec![0]), (29, vec![1])]);
    }
}
