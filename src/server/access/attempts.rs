//! Limit on failed attempts to authenticate, by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// Maximum number of addresses with a count of their own. Further ones share one count.
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
    /// The same time for the addresses beyond the maximum.
    others: Option<Instant>,
    /// Time of the last removal of what is forgotten. It is at most one a second, since each looks
    /// at all addresses.
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
            state.pruned = Some(now);
        }
        let cost = MINUTE / self.per_minute;
        let until = |since: Option<Instant>| {
            let since = since.unwrap_or(now).max(now);
            // A limit that is reached does not last for more than a minute and one attempt.
            (since + cost).min(now + MINUTE + cost)
        };
        if state.forgotten.len() < MAX_ADDRESSES || state.forgotten.contains_key(&address) {
            let forgotten = until(state.forgotten.get(&address).copied());
            state.forgotten.insert(address, forgotten);
        } else {
            state.others = Some(until(state.others));
        }
    }

    /// Returns the time after which an address may try again, if it has used up its attempts.
    pub(super) fn wait(&self, address: IpAddr) -> Option<Duration> {
        if self.per_minute == 0 {
            return None;
        }
        let state = self.state.lock();
        let is_other = state.forgotten.len() >= MAX_ADDRESSES;
        let forgotten =
            state.forgotten.get(&address).copied().or_else(|| if is_other { state.others } else { None })?;
        // The next attempt must fit into the minute.
        let wait = forgotten.saturating_duration_since(Instant::now()) + MINUTE / self.per_minute;
        wait.checked_sub(MINUTE).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
        assert!(attempts.wait(address(40_000)).is_some(), "further addresses share one count");
        advance(2 * MINUTE).await;
        attempts.failed(address(40_000));
        assert_eq!(attempts.state.lock().forgotten.len(), 1);
        assert_eq!(attempts.wait(address(50_000)), None);
    }
}
