//! Limit on failed attempts to authenticate, by address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// Maximum number of addresses with a count of their own, and of networks that count for further
/// addresses in them. Networks beyond are not limited: otherwise a sender with many addresses could
/// exclude all others.
const MAX_ADDRESSES: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// Failed attempts of each address: as many as fit into a minute at once, then one whenever the
/// time of one has passed.
#[derive(Debug)]
pub(super) struct Attempts {
    per_minute: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Time at which the failures of an address are forgotten.
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
        Self { per_minute, state: Mutex::default() }
    }

    /// Counts a failure of an address.
    pub(super) fn failed(&self, address: IpAddr) {
        if self.per_minute == 0 {
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.forgotten.len() >= MAX_ADDRESSES && state.pruned.is_none_or(|pruned| now >= pruned + PRUNE_INTERVAL) {
            state.forgotten.retain(|_, forgotten| *forgotten > now);
            state.networks.retain(|_, forgotten| *forgotten > now);
            state.pruned = Some(now);
        }
        let cost = MINUTE / self.per_minute;
        let until = |since: Option<Instant>| {
            let since = since.unwrap_or(now).max(now);
            // A limit that is reached does not last for more than a minute and one attempt.
            (since + cost).min(now + MINUTE + cost)
        };
        let (counts, counted) = match state.is_counted(address) {
            true => (&mut state.forgotten, address),
            false => (&mut state.networks, network(address)),
        };
        if counts.len() < MAX_ADDRESSES || counts.contains_key(&counted) {
            let forgotten = until(counts.get(&counted).copied());
            counts.insert(counted, forgotten);
        }
    }

    /// Returns the time after which an address may try again, if it has used up its attempts.
    pub(super) fn wait(&self, address: IpAddr) -> Option<Duration> {
        if self.per_minute == 0 {
            return None;
        }
        let state = self.state.lock();
        let forgotten = match state.is_counted(address) {
            true => state.forgotten.get(&address),
            false => state.networks.get(&network(address)),
        };
        let forgotten = forgotten.copied()?;
        // The next attempt must fit into the minute.
        let wait = forgotten.saturating_duration_since(Instant::now()) + MINUTE / self.per_minute;
        wait.checked_sub(MINUTE).filter(|wait| !wait.is_zero())
    }
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
            assert_eq!(attempts.wait(address(1)), None, "attempt {n}");
            attempts.failed(address(1));
        }
        assert_eq!(attempts.wait(address(1)), Some(Duration::from_secs(6)));
        assert_eq!(attempts.wait(address(2)), None);
        advance(Duration::from_secs(6)).await;
        assert_eq!(attempts.wait(address(1)), None);
        attempts.failed(address(1));
        assert!(attempts.wait(address(1)).is_some());
        advance(MINUTE).await;
        assert_eq!(attempts.wait(address(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn flood_blocks_its_address_for_no_longer_than_a_minute() {
        let attempts = Attempts::new(10);
        for _ in 0..100_000 {
            attempts.failed(address(1));
        }
        assert!(attempts.wait(address(1)).unwrap() <= MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_addresses_takes_bounded_memory() {
        let attempts = Attempts::new(10);
        for n in 0..30_000 {
            attempts.failed(address(n));
        }
        assert_eq!(attempts.state.lock().forgotten.len(), MAX_ADDRESSES);
        assert!(attempts.wait(address(29_999)).is_some(), "further addresses share the count of their network");
        assert_eq!(attempts.wait(address(40_000)), None, "others are not affected");
        for n in 0..30_000 {
            attempts.failed(address(1_000_000 + 256 * n));
        }
        assert_eq!(attempts.state.lock().networks.len(), MAX_ADDRESSES);
        advance(2 * MINUTE).await;
        attempts.failed(address(40_000));
        let state = attempts.state.lock();
        assert_eq!((state.forgotten.len(), state.networks.len()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_of_one_site_exclude_no_other_site() {
        let attempts = Attempts::new(10);
        let address =
            |site: u128, net: u128| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | site << 80 | net << 64));
        for net in 0..30_000 {
            attempts.failed(address(1, net));
        }
        assert!(attempts.wait(address(1, 40_000)).is_some());
        assert_eq!(attempts.wait(address(2, 0)), None);
    }
}
