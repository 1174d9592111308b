//! Order in which registry servers are tried.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::servers::{RegistryServer, ServerChange, shuffle};
use crate::config::{ListedServer, ServerSettings, ServiceUrl};
use crate::sync::{Mutex, MutexGuard};
use crate::time::{add_capped, jittered_by};

/// Maximum number of servers that one operation tries, as in Java.
pub(super) const MAX_SERVERS: usize = 3;
/// Maximum time for which a server that failed is left out.
const QUARANTINE: Duration = Duration::from_secs(300);
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

/// List of servers, the preferred ones, those that failed, and those that asked for a pause with
/// `Retry-After`.
///
/// ```text
///  list: own zone, next zone, ...; each shuffled at the start of a session
///    └▶ preferred server, then the others in the order of the list
///         └▶ servers in quarantine and paused servers last
/// ```
#[derive(Debug)]
pub(super) struct ServerOrder {
    /// Mean duration of a session. A session is shorter or longer by up to 50 %.
    session: Duration,
    /// Share of the servers in quarantine at which the quarantine ends.
    quarantine_threshold: f64,
    shuffle: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    servers: Vec<Server>,
    /// Positions at which reads and writes begin.
    starts: [Start; 2],
    /// End of the session. `None` before the first operation.
    session_ends: Option<Instant>,
    /// A quarter of the shortest lease that was registered.
    quarter_lease: Duration,
}

/// Time of the last write of a background loop, such as the one of an instance. While all servers
/// are paused, the next one waits for a quarter of the lease from then on. Each loop has its own
/// time, so that the refusals of one instance do not delay the heartbeats of another.
#[derive(Debug, Default)]
pub(super) struct LastWrite(Mutex<Option<Instant>>);

/// Server with its state for reads and for writes. A refusal pauses its kind only, and a success
/// ends the pause of its kind only, since some servers limit the rate of one kind alone.
#[derive(Debug)]
struct Server {
    listed: ListedServer,
    pauses: [Option<Pause>; 2],
    quarantined_until: [Option<Instant>; 2],
}

/// Position in the list at which operations begin.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// Server that responded. The others follow by their zones.
    Preferred(usize),
    /// The list is walked from here, whatever the zones, so that each server is tried.
    From(usize),
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
    pub(super) server: ServiceUrl,
    pub(super) status: StatusCode,
    /// Time until the next request is permitted.
    pub(super) wait: Duration,
}

impl ServerOrder {
    /// Creates the order of an empty list.
    pub(super) fn new(settings: &ServerSettings) -> Self {
        let state = State {
            servers: Vec::new(),
            starts: [Start::From(0); 2],
            session_ends: None,
            quarter_lease: DEFAULT_LEASE / 4,
        };
        Self {
            session: settings.session,
            quarantine_threshold: settings.quarantine_threshold,
            shuffle: settings.shuffle,
            state: Mutex::new(state),
        }
    }

    /// Replaces the list, which must not have the same URL twice. Returns `None` if it is the
    /// present one. The order within a zone counts only if the list is not shuffled.
    ///
    /// A server in both lists keeps its state, and stays preferred.
    pub(super) fn replace(&self, mut list: Vec<ListedServer>) -> Option<ServerChange> {
        if !self.shuffle {
            list.sort_by_key(|server| server.rank);
        }
        let mut state = self.lock();
        let is_in = |list: &[Server], url: &ServiceUrl| list.iter().any(|known| known.is(url));
        let same_rank = |server: &Server, new: &ListedServer| {
            server.is(&new.url) && server.listed.rank == new.rank && server.listed.zone == new.zone
        };
        let is_present = |(position, new): (usize, &ListedServer)| match self.shuffle {
            true => state.servers.iter().any(|server| same_rank(server, new)),
            false => same_rank(&state.servers[position], new),
        };
        if list.len() == state.servers.len() && list.iter().enumerate().all(is_present) {
            for server in &mut state.servers {
                // The credentials may be new.
                if let Some(new) = list.iter().find(|new| server.is(&new.url)) {
                    server.listed = new.clone();
                }
            }
            return None;
        }
        let preferred = state.starts.map(|start| match start {
            Start::Preferred(server) => Some(state.servers[server].listed.url.clone()),
            Start::From(_) => None,
        });
        let old = std::mem::take(&mut state.servers);
        let added = list.iter().filter(|new| !is_in(&old, &new.url)).map(|new| new.url.as_str().clone()).collect();
        let removed = old.iter().filter(|old| !list.iter().any(|new| old.is(&new.url)));
        let removed = removed.map(|old| old.listed.url.as_str().clone()).collect();
        state.servers = list
            .into_iter()
            .map(|listed| {
                let known = old.iter().find(|old| old.is(&listed.url));
                Server {
                    pauses: known.map_or([None; 2], |known| known.pauses),
                    quarantined_until: known.map_or([None; 2], |known| known.quarantined_until),
                    listed,
                }
            })
            .collect();
        self.shuffle(&mut state);
        let position = |url: Option<ServiceUrl>| url.and_then(|url| state.position(&url));
        let starts = preferred.map(|url| position(url).map_or(Start::From(0), Start::Preferred));
        state.starts = starts;
        Some(ServerChange { added, removed })
    }

    /// Shuffles each zone, unless lists keep their order. They are sorted by zones in any case.
    fn shuffle(&self, state: &mut State) {
        if self.shuffle {
            shuffle(&mut state.servers, |server| (server.listed.rank, server.listed.url.as_str().clone()));
        }
    }

    /// Returns the servers to try, in order, at most three. The result is empty only if the list
    /// is.
    ///
    /// Paused servers come last, or are left out if the operation belongs to a `background` loop. A
    /// background write is sent to one paused server nevertheless, a quarter of the lease after the
    /// last write of its loop, so that the lease does not expire. A quarter is less than the
    /// shortest time between two heartbeats.
    pub(super) fn select(
        &self,
        access: Access,
        background: Option<&LastWrite>,
    ) -> Result<Vec<ServiceUrl>, AllServersPaused> {
        let mut order = self.select_all(access, background)?;
        order.truncate(MAX_SERVERS);
        Ok(order)
    }

    /// Returns the servers by the rules of [`select`](Self::select), but all of them.
    pub(super) fn select_all(
        &self,
        access: Access,
        background: Option<&LastWrite>,
    ) -> Result<Vec<ServiceUrl>, AllServersPaused> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.session_ends.is_none_or(|end| now >= end) {
            // A list is shuffled once before the first session. Two shuffles would skip a server.
            if state.session_ends.is_some() {
                self.shuffle(&mut state);
            }
            state.starts = [Start::From(0); 2];
            state.session_ends = Some(add_capped(now, jittered_by(self.session, 0.5)));
        }
        self.release(&mut state, access, now);
        let (paused, mut order): (Vec<_>, Vec<_>) =
            state.order(access, now).into_iter().partition(|&server| state.servers[server].is_paused(access, now));
        match background {
            Some(last_write) if order.is_empty() && !paused.is_empty() => {
                return state.select_paused(&paused, access, last_write, now).map(|server| vec![server]);
            }
            Some(LastWrite(last_write)) if access == Access::Write => *last_write.lock() = Some(now),
            Some(_) => {}
            None => order.extend(&paused),
        }
        Ok(order.into_iter().map(|server| state.servers[server].listed.url.clone()).collect())
    }

    /// Ends the quarantine if most servers are in it. Otherwise few servers would get all requests.
    fn release(&self, state: &mut State, access: Access, now: Instant) {
        let quarantined = state.servers.iter().filter(|server| server.is_quarantined(access, now)).count();
        if quarantined >= threshold(state.servers.len(), self.quarantine_threshold) {
            state.servers.iter_mut().for_each(|server| server.quarantined_until[access as usize] = None);
        }
    }

    /// Leaves a server out that failed: for both kinds of operations if it is `unavailable`.
    pub(super) fn attempt_failed(&self, access: Access, server: &ServiceUrl, unavailable: bool) {
        let until = Some(Instant::now() + QUARANTINE);
        if let Some(server) = self.lock().find(server) {
            server.quarantined_until[access as usize] = until;
            if unavailable {
                server.quarantined_until = [until; 2];
            }
        }
    }

    /// Prefers the server that completed an operation. The other kind of operations prefers it as
    /// well if its own preferred server is among the `unavailable` ones.
    pub(super) fn succeeded(&self, access: Access, server: &ServiceUrl, unavailable: &[&ServiceUrl]) {
        let mut state = self.lock();
        // It may have been removed from the list meanwhile.
        let Some(number) = state.position(server) else { return };
        state.servers[number].pauses[access as usize] = None;
        state.servers[number].quarantined_until[access as usize] = None;
        state.starts[access as usize] = Start::Preferred(number);
        let other = 1 - access as usize;
        let first = state.preferred(state.starts[other]);
        if first.is_some_and(|first| unavailable.iter().any(|url| first.is(url))) {
            state.starts[other] = Start::Preferred(number);
        }
    }

    /// Begins behind the last server tried, after all servers failed or the last one rejected the
    /// request itself.
    pub(super) fn failed(&self, access: Access, last: &ServiceUrl) {
        let mut state = self.lock();
        if let Some(last) = state.position(last) {
            state.starts[access as usize] = Start::From((last + 1) % state.servers.len());
        }
    }

    /// Begins the next operation behind this server.
    pub(super) fn leave(&self, access: Access, url: &str) {
        let mut state = self.lock();
        let count = state.servers.len();
        if let Some(server) = state.servers.iter().position(|server| &**server.listed.url.as_str() == url)
            && count > 1
        {
            state.starts[access as usize] = Start::From((server + 1) % count);
        }
    }

    /// Pauses a server that responded with this status and `Retry-After`.
    pub(super) fn pause(&self, access: Access, server: &ServiceUrl, status: StatusCode, retry_after: Duration) {
        let since = Instant::now();
        let until = since + retry_after.min(MAX_RETRY_AFTER);
        if let Some(server) = self.lock().find(server) {
            server.pauses[access as usize] = Some(Pause { status, since, until });
        }
    }

    /// Returns an error if this server is paused, for an operation that no other server completes.
    pub(super) fn check_pause(&self, access: Access, server: &ServiceUrl) -> Result<(), AllServersPaused> {
        let now = Instant::now();
        let pause = self.lock().find(server).and_then(|server| server.pause(access, now));
        match pause {
            Some(Pause { status, until, .. }) => {
                Err(AllServersPaused { server: server.clone(), status, wait: until - now })
            }
            None => Ok(()),
        }
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

    pub(super) fn is_empty(&self) -> bool {
        self.lock().servers.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().servers.len()
    }

    /// Returns the URLs in the order of the list.
    pub(super) fn urls(&self) -> Vec<ServiceUrl> {
        self.lock().servers.iter().map(|server| server.listed.url.clone()).collect()
    }

    /// Returns the servers with their states, in the order of the list.
    pub(super) fn status(&self) -> Vec<RegistryServer> {
        let (now, state) = (Instant::now(), self.lock());
        let preferred = state.starts.map(|start| match start {
            Start::Preferred(server) => Some(server),
            Start::From(_) => None,
        });
        let status = |(number, server): (usize, &Server)| {
            let kinds = [Access::Read, Access::Write];
            let pauses = server.pauses.iter().flatten().filter(|pause| now < pause.until);
            RegistryServer {
                url: server.listed.url.as_str().clone(),
                zone: Some(server.listed.zone.clone()).filter(|zone| !zone.is_empty()),
                serves: preferred.map(|preferred| preferred == Some(number)),
                is_quarantined: kinds.iter().any(|&access| server.is_quarantined(access, now)),
                pause: pauses.map(|pause| pause.until - now).max(),
            }
        };
        state.servers.iter().enumerate().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Returns all servers in the order of preference, those in quarantine last.
    fn order(&self, access: Access, now: Instant) -> Vec<usize> {
        let count = self.servers.len();
        let ring = |first: usize| (0..count).map(move |n| (first + n) % count).collect::<Vec<_>>();
        let mut order = match self.starts[access as usize] {
            Start::From(first) => ring(first),
            Start::Preferred(first) => {
                let mut order = ring(first);
                order[1..].sort_by_key(|&server| self.servers[server].listed.rank);
                order
            }
        };
        order.sort_by_key(|&server| self.servers[server].is_quarantined(access, now));
        order
    }

    /// Returns the server that a write of a background loop is sent to although all servers are
    /// `paused`, if it is time.
    fn select_paused(
        &self,
        paused: &[usize],
        access: Access,
        LastWrite(last_write): &LastWrite,
        now: Instant,
    ) -> Result<ServiceUrl, AllServersPaused> {
        let servers = || paused.iter().map(|&server| &self.servers[server]);
        let paused = || servers().filter_map(|server| Some((server.pause(access, now)?, &server.listed.url)));
        let (next, server) = paused().min_by_key(|(pause, _)| pause.until).expect("every server is paused");
        let (longest, forced) = paused().min_by_key(|(pause, _)| pause.since).expect("every server is paused");
        let mut until = next.until;
        if access == Access::Write {
            let mut last_write = last_write.lock();
            let forced_from = *last_write.get_or_insert(longest.since) + self.quarter_lease;
            if now >= forced_from {
                *last_write = Some(now);
                return Ok(forced.clone());
            }
            until = until.min(forced_from);
        }
        Err(AllServersPaused { server: server.clone(), status: next.status, wait: until - now })
    }

    /// Returns the server at which operations begin.
    fn preferred(&self, start: Start) -> Option<&Server> {
        let (Start::Preferred(server) | Start::From(server)) = start;
        self.servers.get(server)
    }

    fn position(&self, url: &ServiceUrl) -> Option<usize> {
        self.servers.iter().position(|server| server.is(url))
    }

    fn find(&mut self, url: &ServiceUrl) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.is(url))
    }
}

impl Server {
    fn is(&self, url: &ServiceUrl) -> bool {
        self.listed.url.as_str() == url.as_str()
    }

    /// Returns the pause that is in force.
    fn pause(&self, access: Access, now: Instant) -> Option<Pause> {
        self.pauses[access as usize].filter(|pause| now < pause.until)
    }

    fn is_paused(&self, access: Access, now: Instant) -> bool {
        self.pause(access, now).is_some()
    }

    fn is_quarantined(&self, access: Access, now: Instant) -> bool {
        self.quarantined_until[access as usize].is_some_and(|until| now < until)
    }
}

/// Returns the number of servers in quarantine at which the quarantine ends.
fn threshold(servers: usize, share: f64) -> usize {
    ((servers as f64 * share) as usize).min(servers)
}

#[cfg(test)]
mod tests;
