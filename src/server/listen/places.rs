//! Connections of a listener, counted by the address of their peers. When there are too many, some
//! of them give way to new ones.

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

/// Share of the connections that give way at once, so that the search for them costs little for
/// each.
const BATCH: usize = 256;

/// A connection with a request gives way only if it has waited for its peer for this long.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// The connections that are open.
#[derive(Debug)]
pub(super) struct Places(Mutex<Table>);

#[derive(Debug)]
struct Table {
    limit: usize,
    limit_per_address: usize,
    next: u64,
    count: usize,
    addresses: HashMap<IpAddr, HashMap<u64, Member>>,
}

#[derive(Debug)]
struct Member {
    activity: Arc<Activity>,
    /// Unset for a moment at the start.
    abort: Option<AbortHandle>,
}

/// Place of one connection, which becomes free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    id: u64,
}

/// Reason why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Every connection is in use. One may end soon.
    Full,
    /// The address has its share, and none of its connections is idle.
    Address,
}

/// A place for a connection.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) place: Place,
    /// Number of connections that gave way.
    pub(super) closed: usize,
    /// Set if the listener was full.
    pub(super) is_full: bool,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Mutex::new(Table {
            limit: limits.effective_connections(),
            limit_per_address: limits.connections_per_address.max(1),
            next: 0,
            count: 0,
            addresses: HashMap::new(),
        }))
    }

    /// Takes a place for a connection from this address. Where there is none, idle connections are
    /// closed: those of the address with the most connections first, the longest idle one of them
    /// before others.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr, activity: &Arc<Activity>) -> Result<Admitted, Refused> {
        let address = audit::network(ip);
        let table = &mut *self.lock();
        let mut closed = 0;
        if table.of(address) >= table.limit_per_address {
            closed += table.close_idle_of(address);
            if closed == 0 {
                return Err(Refused::Address);
            }
        }
        let is_full = table.count >= table.limit;
        if is_full {
            let gave_way = table.give_way(Some(address), table.batch());
            if gave_way == 0 {
                let has_most = table.is_majority(table.of(address)) && table.addresses.len() > 1;
                return Err(if has_most { Refused::Address } else { Refused::Full });
            }
            closed += gave_way;
        }
        let id = table.next;
        table.next += 1;
        table.count += 1;
        let member = Member { activity: activity.clone(), abort: None };
        table.addresses.entry(address).or_default().insert(id, member);
        Ok(Admitted { place: Place { places: self.clone(), address, id }, closed, is_full })
    }

    /// Sets the task of a connection, which ends when the connection gives way.
    pub(super) fn set_task(&self, (address, id): (IpAddr, u64), abort: AbortHandle) {
        let table = &mut *self.lock();
        if let Some(member) = table.addresses.get_mut(&address).and_then(|members| members.get_mut(&id)) {
            member.abort = Some(abort);
        }
    }

    /// Closes idle connections after the system refused another one, and returns their number. If
    /// this process ran out of descriptors, fewer connections are taken from now on.
    pub(super) fn give_way(&self, out_of_descriptors: bool) -> usize {
        let table = &mut *self.lock();
        if out_of_descriptors {
            let found = Limits { descriptors: table.count, ..Limits::default() };
            table.limit = table.limit.min(found.effective_connections());
        }
        let number = table.count.saturating_sub(table.limit).max(table.batch());
        table.give_way(None, number)
    }

    pub(super) fn limit(&self) -> usize {
        self.lock().limit
    }

    /// Closes the connections that have taken their responses too slowly for this time. Returns
    /// their number.
    pub(super) fn close_slow(&self, patience: Duration) -> usize {
        let table = &mut *self.lock();
        let members = table.addresses.iter().flat_map(|(&address, members)| {
            members.iter().filter(|(_, member)| member.activity.is_slow(patience)).map(move |(&id, _)| (address, id))
        });
        let slow: Vec<_> = members.collect();
        slow.iter().filter(|&&(address, id)| table.close(address, id)).count()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }
}

impl Table {
    fn of(&self, address: IpAddr) -> usize {
        self.addresses.get(&address).map_or(0, HashMap::len)
    }

    /// Returns true if so many connections are more than half of all.
    fn is_majority(&self, count: usize) -> bool {
        count > self.limit / 2
    }

    fn batch(&self) -> usize {
        (self.limit / BATCH).max(1)
    }

    /// Closes so many idle connections, if there are. An address other than the newcomer's that has
    /// more than half of all gives way first. Where idle ones are too few, its connections whose
    /// requests wait for their peer follow.
    fn give_way(&mut self, newcomer: Option<IpAddr>, number: usize) -> usize {
        let now = Instant::now();
        let mut found = Vec::new();
        for (&address, members) in &self.addresses {
            let has_most = self.is_majority(members.len()) && newcomer.is_some_and(|newcomer| newcomer != address);
            for (&id, Member { activity, .. }) in members {
                let is_busy = activity.is_busy();
                let since = if is_busy {
                    activity.stalled_since().filter(|&since| has_most && since + BUSY_PATIENCE <= now)
                } else {
                    Some(activity.moved())
                };
                if let Some(since) = since {
                    found.push(((is_busy, !has_most, Reverse(members.len()), since), address, id));
                }
            }
        }
        if found.len() > number {
            found.select_nth_unstable_by_key(number, |&(rank, ..)| rank);
            found.truncate(number);
        }
        found.iter().filter(|&&(_, address, id)| self.close(address, id)).count()
    }

    /// Closes the connection of this address that has been idle for longest.
    fn close_idle_of(&mut self, address: IpAddr) -> usize {
        let members = self.addresses.get(&address).into_iter().flatten();
        let idle = members.filter(|(_, member)| !member.activity.is_busy());
        let longest = idle.min_by_key(|(_, member)| member.activity.moved()).map(|(&id, _)| id);
        longest.is_some_and(|id| self.close(address, id)).into()
    }

    /// Ends the task of a connection. Its place is free at once.
    fn close(&mut self, address: IpAddr, id: u64) -> bool {
        match self.remove(address, id) {
            Some(Member { abort: Some(abort), .. }) => {
                abort.abort();
                true
            }
            _ => false,
        }
    }

    fn remove(&mut self, address: IpAddr, id: u64) -> Option<Member> {
        let members = self.addresses.get_mut(&address)?;
        let member = members.remove(&id)?;
        if members.is_empty() {
            self.addresses.remove(&address);
        }
        self.count -= 1;
        Some(member)
    }
}

impl Place {
    /// Identifies the place in [`Places::set_task`].
    pub(super) fn key(&self) -> (IpAddr, u64) {
        (self.address, self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().remove(self.address, self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::super::activity::Handling;
    use super::*;
    use crate::server::unsent::Unsent;

    const SECOND: Duration = Duration::from_secs(1);

    /// A connection that does nothing.
    struct Connection {
        place: Place,
        activity: Arc<Activity>,
        task: JoinHandle<()>,
    }

    fn places(connections: usize) -> Arc<Places> {
        Arc::new(Places::new(&Limits { connections, ..Limits::default() }))
    }

    fn connect(places: &Arc<Places>, address: &str) -> Result<Connection, Refused> {
        let activity = Arc::new(Activity::start(&Limits::default(), Arc::new(Unsent::new(0))));
        let place = places.admit(address.parse().unwrap(), &activity)?.place;
        let task = tokio::spawn(std::future::pending());
        places.set_task(place.key(), task.abort_handle());
        Ok(Connection { place, activity, task })
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
        let places = places(6);
        let mut open = Vec::new();
        for address in ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.3"] {
            open.push(connect(&places, address).unwrap());
            advance(SECOND).await;
        }
        assert!(closed(&open).await.is_empty());
        open.push(connect(&places, "10.0.0.4").unwrap());
        assert_eq!(closed(&open).await, [1]);
        open.push(connect(&places, "10.0.0.4").unwrap());
        assert_eq!(closed(&open).await, [1, 2], "two addresses have two each, this one is idle for longer");
        drop(open.remove(0));
        open.push(connect(&places, "10.0.0.5").unwrap());
        assert_eq!(places.count(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn full_listener_of_busy_connections_refuses_until_one_ends() {
        let places = places(2);
        let open = [connect(&places, "10.0.0.1").unwrap(), connect(&places, "10.0.0.2").unwrap()];
        let handling = open.each_ref().map(|connection| Handling::new(connection.activity.clone()));
        advance(10 * SECOND).await;
        assert_eq!(connect(&places, "10.0.0.3").err(), Some(Refused::Full));
        drop(handling);
        let newcomer = connect(&places, "10.0.0.3").unwrap();
        assert_eq!(closed(&open).await.len(), 1);
        drop(newcomer);
        assert!(connect(&places, "10.0.0.3").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_requests_of_an_address_with_most_connections_give_way_to_others() {
        let places = places(4);
        let mut open = vec![connect(&places, "10.0.0.2").unwrap()];
        for _ in 0..3 {
            open.push(connect(&places, "10.0.0.1").unwrap());
        }
        for connection in &open {
            connection.activity.holds();
        }
        assert_eq!(connect(&places, "10.0.0.2").err(), Some(Refused::Full), "they may move at any time");
        advance(SECOND).await;
        assert_eq!(connect(&places, "10.0.0.1").err(), Some(Refused::Address));
        assert!(connect(&places, "10.0.0.2").is_ok());
        assert_eq!(closed(&open).await.len(), 1);
        assert!(!open[0].is_closed().await);
    }

    #[tokio::test(start_paused = true)]
    async fn handlers_at_work_and_bodies_that_arrive_never_give_way() {
        let places = places(4);
        let open = ["10.0.0.1"; 4].map(|address| connect(&places, address).unwrap());
        let _handling = open.each_ref().map(|connection| Handling::new(connection.activity.clone()));
        for connection in &open[2..] {
            connection.activity.speaks(http::Version::HTTP_2);
            connection.activity.receives(true);
        }
        advance(60 * SECOND).await;
        open[2].activity.transferred();
        open[3].activity.transferred();
        assert_eq!(connect(&places, "10.0.0.2").err(), Some(Refused::Full));
        open[2].activity.receives(false);
        advance(SECOND).await;
        assert!(connect(&places, "10.0.0.2").is_ok());
        assert_eq!(closed(&open).await, [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_of_others_give_way_before_stalled_requests() {
        let places = places(4);
        let mut open = vec![connect(&places, "10.0.0.2").unwrap()];
        for _ in 0..3 {
            open.push(connect(&places, "10.0.0.1").unwrap());
        }
        open[1..].iter().for_each(|connection| connection.activity.holds());
        advance(SECOND).await;
        open[0].activity.transferred();
        let newcomer = connect(&places, "10.0.0.3").unwrap();
        assert_eq!(closed(&open).await, [0]);
        newcomer.activity.holds();
        assert!(connect(&places, "10.0.0.4").is_ok());
        assert_eq!(closed(&open).await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn listener_out_of_descriptors_takes_fewer_connections_from_then_on() {
        let places = places(20_000);
        let mut open = Vec::new();
        for _ in 0..8 {
            open.push(connect(&places, "10.0.0.1").unwrap());
            advance(SECOND).await;
        }
        assert_eq!(places.give_way(false), 8, "a batch of 20,000");
        open.clear();
        for _ in 0..8 {
            open.push(connect(&places, "10.0.0.1").unwrap());
            advance(SECOND).await;
        }
        assert_eq!((places.give_way(true), places.limit()), (2, 6));
        assert_eq!(closed(&open).await, [0, 1]);
        open.push(connect(&places, "10.0.0.2").unwrap());
        assert_eq!((closed(&open).await, places.count()), (vec![0, 1, 2], 6));
    }

    #[tokio::test(start_paused = true)]
    async fn address_at_its_own_limit_closes_its_longest_idle_connection() {
        let limits = Limits { connections_per_address: 2, ..Limits::default() };
        let places = Arc::new(Places::new(&limits));
        let mut open = Vec::new();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"] {
            open.push(connect(&places, address).unwrap());
            advance(SECOND).await;
        }
        let first = Handling::new(open[0].activity.clone());
        open.push(connect(&places, "2001:db8::3").unwrap());
        assert_eq!(closed(&open).await, [1]);
        let _last = Handling::new(open[3].activity.clone());
        assert_eq!(connect(&places, "2001:db8::4").err(), Some(Refused::Address));
        drop(first);
        assert!(connect(&places, "2001:db8::4").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_took_nothing_of_a_response_are_closed_as_slow() {
        let places = places(10);
        let open = [connect(&places, "10.0.0.1").unwrap(), connect(&places, "10.0.0.1").unwrap()];
        open[0].activity.holds();
        advance(SECOND).await;
        assert_eq!(places.close_slow(2 * SECOND), 0);
        advance(SECOND).await;
        assert_eq!(places.close_slow(2 * SECOND), 1);
        assert_eq!(closed(&open).await, [0]);
        assert_eq!((places.count(), open[1].place.address), (1, "10.0.0.1".parse().unwrap()));
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
