//! Limit on failed attempts to authenticate, by address and user.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// Maximum number of addresses with a count of their own, and of networks that count for further
/// addresses in them. Networks beyond are not limited: otherwise a sender with many addresses could
/// exclude all others.
const MAX_ADDRESSES: usize = 10_000;
/// Failures of an address with any names, as a multiple of those with one name.
const NAMES: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// Failed attempts of each address with each name: as many as fit into a minute at once, then one
/// whenever the time of one has passed. So one caller with a wrong password does not exclude the
/// others behind the same proxy. Names count whether there is such a user or not, so that the limit
/// does not show it.
#[derive(Debug)]
pub(super) struct Attempts {
    per_minute: u32,
    hasher: RandomState,
    state: Mutex<State>,
}

/// Name that failures count for, hashed with a random key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(u64);

impl Name {
    /// Credentials without a name, such as tokens.
    pub(super) const NONE: Self = Self(0);
}

#[derive(Debug, Default)]
struct State {
    /// Time at which the failures of an address with a name are forgotten.
    names: HashMap<(IpAddr, Name), Instant>,
    /// The same time for those with any name.
    forgotten: HashMap<IpAddr, Instant>,
    /// The same time for the networks of addresses beyond the maximum.
    networks: HashMap<IpAddr, Instant>,
    /// Time of the last removal of what is forgotten. It is at most one a second, since each reads
    /// all addresses.
    pruned: Option<Instant>,
}

impl Attempts {
    /// Creates a limit. Zero attempts a minute means that there is none.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, hasher: RandomState::new(), state: Mutex::default() }
    }

    pub(super) fn name(&self, user: &str) -> Name {
        Name(self.hasher.hash_one(user))
    }

    /// Counts a failure of an address with a name.
    pub(super) fn failed(&self, address: IpAddr, name: Name) {
        if self.per_minute == 0 {
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_full = state.forgotten.len().max(state.names.len()) >= MAX_ADDRESSES;
        if is_full && state.pruned.is_none_or(|pruned| now >= pruned + PRUNE_INTERVAL) {
            state.names.retain(|_, forgotten| *forgotten > now);
            state.forgotten.retain(|_, forgotten| *forgotten > now);
            state.networks.retain(|_, forgotten| *forgotten > now);
            state.pruned = Some(now);
        }
        count(&mut state.names, (address, name), self.cost(), now);
        let (counts, counted) = match state.is_counted(address) {
            true => (&mut state.forgotten, address),
            false => (&mut state.networks, network(address)),
        };
        count(counts, counted, self.cost() / NAMES, now);
    }

    /// Returns the time after which an address may try again with a name, if it has used up its
    /// attempts.
    pub(super) fn wait(&self, address: IpAddr, name: Name) -> Option<Duration> {
        if self.per_minute == 0 {
            return None;
        }
        let state = self.state.lock();
        let of_address = match state.is_counted(address) {
            true => state.forgotten.get(&address),
            false => state.networks.get(&network(address)),
        };
        let of_name = state.names.get(&(address, name)).map(|&forgotten| (forgotten, self.cost()));
        let of_address = of_address.map(|&forgotten| (forgotten, self.cost() / NAMES));
        let now = Instant::now();
        // The next attempt must fit into the minute.
        let wait = |(forgotten, cost): (Instant, Duration)| {
            (forgotten.saturating_duration_since(now) + cost).checked_sub(MINUTE)
        };
        of_name.into_iter().chain(of_address).filter_map(wait).max().filter(|wait| !wait.is_zero())
    }

    /// Returns the time of one attempt.
    fn cost(&self) -> Duration {
        MINUTE / self.per_minute
    }
}

/// Counts a failure that is forgotten after this time. Nothing is counted for a key beyond the
/// maximum.
fn count<K: Eq + Hash>(counts: &mut HashMap<K, Instant>, key: K, cost: Duration, now: Instant) {
    if counts.len() >= MAX_ADDRESSES && !counts.contains_key(&key) {
        return;
    }
    let forgotten = counts.entry(key).or_insert(now);
    // A limit that is reached does not last for more than a minute and one attempt.
    *forgotten = ((*forgotten).max(now) + cost).min(now + MINUTE + cost);
}

impl State {
    /// Returns true if the address has a count of its own, or would get one.
    fn is_counted(&self, address: IpAddr) -> bool {
        self.forgotten.len() < MAX_ADDRESSES || self.forgotten.contains_key(&address)
    }
}

/// Returns the network of an address: /24 of IPv4, /48 of IPv6, which is the usual size of a site.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() >> 8 << 8).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[tokio::test(start_paused = true)]
    async fn address_has_its_attempts_at_once_and_then_one_at_a_time() {
        let attempts = Attempts::new(10);
        for n in 0..10 {
            assert_eq!(attempts.wait(address(1), Name::NONE), None, "attempt {n}");
            attempts.failed(address(1), Name::NONE);
        }
        assert_eq!(attempts.wait(address(1), Name::NONE), Some(Duration::from_secs(6)));
        assert_eq!(attempts.wait(address(2), Name::NONE), None);
        advance(Duration::from_secs(6)).await;
        assert_eq!(attempts.wait(address(1), Name::NONE), None);
        attempts.failed(address(1), Name::NONE);
        assert!(attempts.wait(address(1), Name::NONE).is_some());
        advance(MINUTE).await;
        assert_eq!(attempts.wait(address(1), Name::NONE), None);
    }

    #[tokio::test(start_paused = true)]
    async fn name_has_its_attempts_and_an_address_ten_times_as_many() {
        let attempts = Attempts::new(10);
        let [a, b] = ["a", "b"].map(|user| attempts.name(user));
        for _ in 0..20 {
            attempts.failed(address(1), a);
        }
        assert!(attempts.wait(address(1), a).is_some());
        assert_eq!([attempts.wait(address(1), b), attempts.wait(address(2), a)], [None, None]);
        for n in 0..79 {
            attempts.failed(address(1), attempts.name(&n.to_string()));
        }
        assert_eq!(attempts.wait(address(1), b), None);
        attempts.failed(address(1), attempts.name("x"));
        assert_eq!(attempts.wait(address(1), b), Some(Duration::from_millis(600)));
    }

    #[tokio::test(start_paused = true)]
    async fn flood_blocks_its_address_for_no_longer_than_a_minute() {
        let attempts = Attempts::new(10);
        for _ in 0..100_000 {
            attempts.failed(address(1), Name::NONE);
        }
        assert!(attempts.wait(address(1), Name::NONE).unwrap() <= MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_addresses_takes_bounded_memory() {
        let attempts = Attempts::new(10);
        for n in 0..30_000 {
            attempts.failed(address(n), Name::NONE);
        }
        assert_eq!(attempts.state.lock().forgotten.len(), MAX_ADDRESSES);
        assert!(
            attempts.wait(address(29_900), Name::NONE).is_some(),
            "further addresses share the count of their network"
        );
        assert_eq!(attempts.wait(address(40_000), Name::NONE), None, "others are not affected");
        for n in 0..30_000 {
            attempts.failed(address(1_000_000 + 256 * n), Name::NONE);
        }
        assert_eq!(attempts.state.lock().networks.len(), MAX_ADDRESSES);
        advance(2 * MINUTE).await;
        attempts.failed(address(40_000), Name::NONE);
        let state = attempts.state.lock();
        assert_eq!((state.forgotten.len(), state.networks.len()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_site_exclude_no_other_site() {
        let attempts = Attempts::new(10);
        let address =
            |site: u128, net: u128| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | site << 80 | net << 64));
        for net in 0..30_000 {
            attempts.failed(address(1, net), Name::NONE);
        }
        assert!(attempts.wait(address(1, 40_000), Name::NONE).is_some());
        assert_eq!(attempts.wait(address(2, 0), Name::NONE), None);
    }
}
