//! Table of a listener's open connections by peer address. At a limit, it closes idle connections
//! for new ones.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Limits;
use super::activity::Activity;
use crate::server::audit;
use crate::sync::{Mutex, MutexGuard};

/// One in this many connections is closed at a time when the listener is full, so that the search
/// costs little per connection.
const BATCH: usize = 256;

/// A connection with a request is closed for a new one only if the request has made no progress for
/// this time. An idle connection has this time before one of a larger address replaces it.
const STALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for which the limit is lowered after the process ran out of descriptors. It may have been
/// another listener, or another part of the process, that took them.
const LOWERED_TIME: Duration = Duration::from_secs(300);

/// Open connections of a listener, within its limits.
#[derive(Debug)]
pub(super) struct ConnectionTable(Mutex<State>);

#[derive(Debug)]
struct State {
    limit: usize,
    /// Lower limit, and the time until which it applies.
    lowered: Option<(usize, Instant)>,
    limit_per_address: usize,
    next: u64,
    count: usize,
    addresses: HashMap<IpAddr, HashMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    activity: Arc<Activity>,
    /// `None` until the task is spawned.
    abort: Option<AbortHandle>,
}

/// Permit of one open connection. Released on drop.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    table: Arc<ConnectionTable>,
    address: IpAddr,
    id: u64,
}

/// Reason why a connection got no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All connections are in use. One may end soon.
    Full,
    /// The address has reached its share, and none of its connections can be closed.
    Address,
}

/// A new connection and its effect on others.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) permit: ConnectionPermit,
    /// Number of connections that were closed for it.
    pub(super) closed: usize,
    /// True if the listener was full.
    pub(super) is_full: bool,
}

impl ConnectionTable {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Mutex::new(State {
            limit: limits.effective_connections(),
            lowered: None,
            limit_per_address: limits.connections_per_address.max(1),
            next: 0,
            count: 0,
            addresses: HashMap::new(),
        }))
    }

    /// Returns a permit for a connection from this address. At the limit, closes idle connections,
    /// or else stalled requests: see [`State::make_room`].
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr, activity: &Arc<Activity>) -> Result<Admitted, Refused> {
        let address = audit::network(ip);
        let state = &mut *self.lock();
        let mut closed = 0;
        if state.of(address) >= state.limit_per_address {
            closed += state.close_idle_of(address);
            if closed == 0 {
                return Err(Refused::Address);
            }
        }
        let is_full = state.count >= state.limit();
        if is_full {
            let closed_for_it = state.make_room(Some(address), state.batch());
            if closed_for_it == 0 {
                return Err(Refused::Full);
            }
            closed += closed_for_it;
        }
        let id = state.next;
        state.next += 1;
        state.count += 1;
        let entry = Entry { activity: activity.clone(), abort: None };
        state.addresses.entry(address).or_default().insert(id, entry);
        Ok(Admitted { permit: ConnectionPermit { table: self.clone(), address, id }, closed, is_full })
    }

    /// Sets the task of a connection. Closing the connection aborts it.
    pub(super) fn set_task(&self, (address, id): (IpAddr, u64), abort: AbortHandle) {
        let state = &mut *self.lock();
        if let Some(entry) = state.addresses.get_mut(&address).and_then(|entries| entries.get_mut(&id)) {
            entry.abort = Some(abort);
        }
    }

    /// Closes idle connections after the system refused a new one, and returns their number. If the
    /// process ran out of descriptors, also lowers the limit for five minutes.
    pub(super) fn make_room(&self, out_of_descriptors: bool) -> usize {
        let state = &mut *self.lock();
        if out_of_descriptors {
            let connections = Some(state.limit());
            let found = Limits { connections, descriptors: state.count, ..Limits::default() };
            state.lowered = Some((found.effective_connections(), Instant::now() + LOWERED_TIME));
        }
        let number = state.count.saturating_sub(state.limit()).max(state.batch());
        state.make_room(None, number)
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit()
    }

    pub(super) fn is_full(&self) -> bool {
        let state = self.lock();
        state.count >= state.limit()
    }

    /// Returns the number of connections of this address.
    pub(super) fn count_of(&self, ip: IpAddr) -> usize {
        self.lock().of(audit::network(ip))
    }

    /// Returns true if this address has more than half of all connections.
    pub(super) fn has_most(&self, ip: IpAddr) -> bool {
        let state = self.lock();
        state.addresses.len() > 1 && state.of(audit::network(ip)) > state.limit() / 2
    }

    /// Closes the connections that have been slow for this time, and returns their number.
    pub(super) fn close_slow(&self, min_time: Duration) -> usize {
        let state = &mut *self.lock();
        let entries = state.addresses.iter().flat_map(|(&address, entries)| {
            entries.iter().filter(|(_, entry)| entry.activity.is_slow(min_time)).map(move |(&id, _)| (address, id))
        });
        let slow: Vec<_> = entries.collect();
        slow.iter().filter(|&&(address, id)| state.close(address, id)).count()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn limit(&self) -> usize {
        match self.lowered {
            Some((limit, until)) if Instant::now() < until => limit,
            _ => self.limit,
        }
    }

    fn of(&self, address: IpAddr) -> usize {
        self.addresses.get(&address).map_or(0, HashMap::len)
    }

    fn batch(&self) -> usize {
        (self.limit() / BATCH).max(1)
    }

    /// Closes at most this number of connections, for a new one of an address if there is one. The
    /// order is:
    ///
    /// 1. Idle connections: those of the address with the most connections first, the longest idle
    ///    one before others. One of a smaller address than the new one's has a second for its next
    ///    request, so that an address that connects all the time does not lock others out.
    /// 2. Stalled requests of addresses with at least two connections more than the new one's, in
    ///    the same order.
    /// 3. Stalled requests of the same address.
    fn make_room(&mut self, new_address: Option<IpAddr>, number: usize) -> usize {
        let now = Instant::now();
        let count = new_address.map_or(0, |new| self.of(new));
        let mut found = Vec::new();
        for (&address, entries) in &self.addresses {
            let is_own = new_address == Some(address);
            let is_larger = new_address.is_some() && entries.len() > count + 1;
            let is_smaller = entries.len() < count;
            for (&id, Entry { activity, .. }) in entries {
                let is_busy = activity.is_busy();
                let (since, is_timed) = if is_busy {
                    (activity.stalled_since().filter(|_| is_own || is_larger), true)
                } else {
                    (Some(activity.last_active()), is_smaller)
                };
                if let Some(since) = since.filter(|&since| !is_timed || since + STALL_TIMEOUT <= now) {
                    found.push(((is_busy, is_busy && is_own, Reverse(entries.len()), since), address, id));
                }
            }
        }
        // No request is closed if there is an idle connection.
        if found.iter().any(|&((is_busy, ..), ..)| !is_busy) {
            found.retain(|&((is_busy, ..), ..)| !is_busy);
        }
        if found.len() > number {
            found.select_nth_unstable_by_key(number, |&(rank, ..)| rank);
            found.truncate(number);
        }
        found.iter().filter(|&&(_, address, id)| self.close(address, id)).count()
    }

    /// Closes the connection of this address that has been idle for longest.
    fn close_idle_of(&mut self, address: IpAddr) -> usize {
        let entries = self.addresses.get(&address).into_iter().flatten();
        let idle = entries.filter(|(_, entry)| !entry.activity.is_busy());
        let longest = idle.min_by_key(|(_, entry)| entry.activity.last_active()).map(|(&id, _)| id);
        longest.is_some_and(|id| self.close(address, id)).into()
    }

    /// Aborts the task of a connection and releases its permit immediately.
    fn close(&mut self, address: IpAddr, id: u64) -> bool {
        match self.remove(address, id) {
            Some(Entry { abort: Some(abort), .. }) => {
                abort.abort();
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, address: IpAddr, id: u64) -> Option<Entry> {
        let entries = self.addresses.get_mut(&address)?;
        let entry = entries.remove(&id)?;
        if entries.is_empty() {
            self.addresses.remove(&address);
        }
        self.count -= 1;
        Some(entry)
    }
}

impl ConnectionPermit {
    /// Returns the key of the connection for [`ConnectionTable::set_task`].
    pub(super) fn key(&self) -> (IpAddr, u64) {
        (self.address, self.id)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.table.lock().remove(self.address, self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::super::activity::InFlight;
    use super::*;
    use crate::server::unsent::Unsent;

    const SECOND: Duration = Duration::from_secs(1);

    /// Connection whose task does nothing.
    struct Connection {
        permit: ConnectionPermit,
        activity: Arc<Activity>,
        task: JoinHandle<()>,
    }

    fn table(connections: usize) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable::new(&Limits { connections: Some(connections), ..Limits::default() }))
    }

    fn connect(table: &Arc<ConnectionTable>, address: &str) -> Result<Connection, Refused> {
        let activity = Arc::new(Activity::start(&Limits::default(), Arc::new(Unsent::new(0))));
        let permit = table.admit(address.parse().unwrap(), &activity)?.permit;
        let task = tokio::spawn(std::future::pending());
        table.set_task(permit.key(), task.abort_handle());
        Ok(Connection { permit, activity, task })
    }

    impl Connection {
        async fn is_closed(&self) -> bool {
            tokio::task::yield_now().await;
            self.task.is_finished()
        }
    }

    async fn closed(connections: &[Connection]) -> Vec<usize> {
        let mut closed = Vec::new();
        for (i, connection) in connections.iter().enumerate() {
            if connection.is_closed().await {
                closed.push(i);
            }
        }
        closed
    }

    #[tokio::test(start_paused = true)]
    async fn full_listener_closes_the_longest_idle_connection_of_the_largest_address() {
        let table = table(6);
        let mut open = Vec::new();
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.3"] {
            open.push(connect(&table, address).unwrap());
            advance(SECOND).await;
        }
        assert!(closed(&open).await.is_empty());
        open.push(connect(&table, "10.0.0.4").unwrap());
        assert_eq!(closed(&open).await, [1]);
        open.push(connect(&table, "10.0.0.4").unwrap());
        assert_eq!(
            closed(&open).await,
            [1, 2],
            "two addresses have two connections each, this one is idle for longest"
        );
        drop(open.remove(0));
        open.push(connect(&table, "10.0.0.5").unwrap());
        assert_eq!(table.count(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn full_listener_of_busy_connections_refuses_until_one_ends() {
        let table = table(2);
        let open = [connect(&table, "10.0.0.1").unwrap(), connect(&table, "10.0.0.2").unwrap()];
        let in_flight = open.each_ref().map(|connection| InFlight::new(connection.activity.clone()));
        advance(10 * SECOND).await;
        assert_eq!(connect(&table, "10.0.0.3").err(), Some(Refused::Full));
        drop(in_flight);
        let new = connect(&table, "10.0.0.3").unwrap();
        assert_eq!(closed(&open).await.len(), 1);
        drop(new);
        assert!(connect(&table, "10.0.0.3").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_requests_of_the_address_with_most_connections_are_closed_for_others() {
        let table = table(4);
        let mut open = vec![connect(&table, "10.0.0.2").unwrap()];
        for _ in 0..3 {
            open.push(connect(&table, "10.0.0.1").unwrap());
        }
        for connection in &open {
            connection.activity.hold();
        }
        assert_eq!(connect(&table, "10.0.0.2").err(), Some(Refused::Full), "no request has stalled for a second");
        advance(SECOND).await;
        open.push(connect(&table, "10.0.0.2").unwrap());
        assert_eq!(closed(&open).await.len(), 1);
        assert!(!open[0].is_closed().await);
        open[4].activity.hold();
        open.push(connect(&table, "10.0.0.2").unwrap());
        assert_eq!(closed(&open).await.len(), 2);
        assert!(open[0].is_closed().await, "both addresses have two connections: one gives way to its own");
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_requests_of_two_addresses_with_half_of_all_each_are_closed_for_others() {
        let table = table(6);
        let mut open = Vec::new();
        for address in ["10.0.0.1", "10.0.0.2"].repeat(3) {
            open.push(connect(&table, address).unwrap());
        }
        open.iter().for_each(|connection| connection.activity.hold());
        assert_eq!(connect(&table, "10.0.0.3").err(), Some(Refused::Full), "no request has stalled for a second");
        advance(SECOND).await;
        for number in 1..=2 {
            open.push(connect(&table, "10.0.0.3").unwrap());
            assert_eq!(closed(&open).await.len(), number);
            open.last().unwrap().activity.hold();
        }
        assert_eq!(connect(&table, "10.0.0.3").err(), Some(Refused::Full), "each address has two connections");
    }

    #[tokio::test(start_paused = true)]
    async fn new_connection_has_a_second_for_its_request_before_a_larger_address_replaces_it() {
        let table = table(4);
        let large = ["10.0.0.1"; 3].map(|address| connect(&table, address).unwrap());
        let _in_flight = large.each_ref().map(|connection| InFlight::new(connection.activity.clone()));
        let small = connect(&table, "10.0.0.2").unwrap();
        assert_eq!(connect(&table, "10.0.0.1").err(), Some(Refused::Full));
        advance(SECOND).await;
        assert!(connect(&table, "10.0.0.1").is_ok());
        assert!(small.is_closed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_requests_are_not_closed_together_with_idle_connections() {
        let table = table(2 * BATCH);
        let mut open = Vec::new();
        for _ in 0..2 * BATCH {
            open.push(connect(&table, "10.0.0.1").unwrap());
        }
        open[1..].iter().for_each(|connection| connection.activity.hold());
        advance(SECOND).await;
        assert_eq!(closed(&open).await.len(), 0);
        let new = connect(&table, "10.0.0.1").unwrap();
        assert_eq!(closed(&open).await, [0], "two are closed at a time, but only one is idle");
        new.activity.hold();
        assert!(connect(&table, "10.0.0.1").is_ok());
        assert_eq!(closed(&open).await.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn running_handlers_and_arriving_bodies_are_never_closed() {
        let table = table(4);
        let open = ["10.0.0.1"; 4].map(|address| connect(&table, address).unwrap());
        let _in_flight = open.each_ref().map(|connection| InFlight::new(connection.activity.clone()));
        for connection in &open[2..] {
            connection.activity.note_version(http::Version::HTTP_2);
            connection.activity.set_receiving(true);
        }
        advance(60 * SECOND).await;
        open[2].activity.note_transfer();
        open[3].activity.note_transfer();
        assert_eq!(connect(&table, "10.0.0.2").err(), Some(Refused::Full));
        open[2].activity.set_receiving(false);
        advance(SECOND).await;
        assert!(connect(&table, "10.0.0.2").is_ok());
        assert_eq!(closed(&open).await, [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_of_others_are_closed_before_stalled_requests() {
        let table = table(4);
        let mut open = vec![connect(&table, "10.0.0.2").unwrap()];
        for _ in 0..3 {
            open.push(connect(&table, "10.0.0.1").unwrap());
        }
        open[1..].iter().for_each(|connection| connection.activity.hold());
        advance(SECOND).await;
        open[0].activity.note_transfer();
        let new = connect(&table, "10.0.0.3").unwrap();
        assert_eq!(closed(&open).await, [0]);
        new.activity.hold();
        assert!(connect(&table, "10.0.0.4").is_ok());
        assert_eq!(closed(&open).await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn listener_out_of_descriptors_accepts_fewer_connections_for_five_minutes() {
        let table = table(20_000);
        let mut open = Vec::new();
        for _ in 0..8 {
            open.push(connect(&table, "10.0.0.1").unwrap());
            advance(SECOND).await;
        }
        assert_eq!(table.make_room(false), 8, "a batch of 20,000");
        open.clear();
        for _ in 0..8 {
            open.push(connect(&table, "10.0.0.1").unwrap());
            advance(SECOND).await;
        }
        assert_eq!((table.make_room(true), table.limit()), (2, 6));
        assert_eq!(closed(&open).await, [0, 1]);
        open.push(connect(&table, "10.0.0.2").unwrap());
        assert_eq!((closed(&open).await, table.count()), (vec![0, 1, 2], 6));
        advance(300 * SECOND).await;
        assert_eq!(table.limit(), 20_000, "something else may have taken the descriptors");
    }

    #[tokio::test(start_paused = true)]
    async fn address_at_its_own_limit_closes_its_longest_idle_connection() {
        let limits = Limits { connections_per_address: 2, ..Limits::default() };
        let table = Arc::new(ConnectionTable::new(&limits));
        let mut open = Vec::new();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"] {
            open.push(connect(&table, address).unwrap());
            advance(SECOND).await;
        }
        let first = InFlight::new(open[0].activity.clone());
        open.push(connect(&table, "2001:db8::3").unwrap());
        assert_eq!(closed(&open).await, [1]);
        let _last = InFlight::new(open[3].activity.clone());
        assert_eq!(connect(&table, "2001:db8::4").err(), Some(Refused::Address));
        drop(first);
        assert!(connect(&table, "2001:db8::4").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_reads_nothing_of_a_response_is_closed_as_slow() {
        let table = table(10);
        let open = [connect(&table, "10.0.0.1").unwrap(), connect(&table, "10.0.0.1").unwrap()];
        open[0].activity.hold();
        advance(SECOND).await;
        assert_eq!(table.close_slow(2 * SECOND), 0);
        advance(SECOND).await;
        assert_eq!(table.close_slow(2 * SECOND), 1);
        assert_eq!(closed(&open).await, [0]);
        assert_eq!((table.count(), open[1].permit.address), (1, "10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ipv6_addresses_count_by_their_first_64_bits_and_mapped_ones_as_ipv4() {
        for (ip, counted) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(audit::network(ip.parse().unwrap()), counted.parse::<IpAddr>().unwrap(), "{ip}");
        }
    }
}
