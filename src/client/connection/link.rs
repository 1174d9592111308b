//! Lifetime of open connections: idle time, age, and addresses that the host no longer has.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::client::options::Limits;
use crate::time::{add_capped, jittered_by};

/// Maximum time between two checks of the connections to an instance.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(30);
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Number of checks in a row that must not find the address of a connection among those of its
/// host. A name server may return a part of many addresses.
const MAX_MISSES: u8 = 2;

impl Limits {
    /// Time between two checks of the connections.
    pub(super) fn check_interval(&self) -> Duration {
        let shortest = self.max_age.map_or(self.idle, |age| age.min(self.idle));
        (shortest / 3).clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL)
    }

    /// Returns `true` if a connection may have been idle for the idle time. `since` is the first
    /// check at which it was idle.
    pub(super) fn is_idle_too_long(&self, since: &mut Option<Instant>, now: Instant) -> bool {
        // It was idle before that check for up to one interval.
        now.duration_since(*since.get_or_insert(now)) + self.check_interval() >= self.idle
    }
}

/// End of the life of a connection that is open.
#[derive(Debug, Default)]
pub(super) struct Lifetime {
    peer: Option<IpAddr>,
    expires: Option<Instant>,
    /// Number of checks in a row that did not find the peer's address.
    misses: AtomicU8,
}

impl Lifetime {
    /// Lifetime of a new connection.
    pub(super) fn new(peer: Option<IpAddr>, limits: &Limits) -> Self {
        let expires = limits.max_age.map(|age| add_capped(Instant::now(), jittered_by(age, 0.1)));
        Self { peer, expires, misses: AtomicU8::new(0) }
    }

    /// Returns `true` if the connection is to be replaced. Called once in each check, with the
    /// addresses of the host, if they are known.
    pub(super) fn is_over(&self, now: Instant, addresses: Option<&[SocketAddr]>) -> bool {
        let is_missing = match (self.peer, addresses) {
            (Some(peer), Some(addresses)) => addresses.iter().all(|address| address.ip() != peer),
            _ => false,
        };
        let misses = if is_missing { self.misses.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
        self.misses.store(misses, Ordering::Relaxed);
        misses >= MAX_MISSES || self.expires.is_some_and(|expires| expires <= now)
    }
}

/// State of a connection that carries one call at a time.
#[derive(Debug, Default)]
pub(in crate::client) struct Link {
    /// Wakes the call on this connection when the endpoint is dropped, and when the connection
    /// ends.
    pub(in crate::client) waker: AtomicWaker,
    pub(super) lifetime: Lifetime,
    /// Set when the connection is to be closed after its call.
    pub(super) is_retired: AtomicBool,
    /// Set when the connection switches to another protocol.
    pub(super) is_upgraded: Arc<AtomicBool>,
    /// Place among the maximum number of connections.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

impl Link {
    #[inline]
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn address_that_the_host_lost_in_two_checks_ends_a_connection() {
        let here = Some(IpAddr::from([10, 0, 0, 1]));
        let lifetime = Lifetime::new(here, &Limits::default());
        let of = |last: u8| [SocketAddr::from(([10, 0, 0, last], 0))];
        let now = Instant::now();
        for (addresses, is_over) in
            [(Some(of(2)), false), (Some(of(1)), false), (Some(of(2)), false), (None, false), (Some(of(2)), false)]
        {
            assert_eq!(lifetime.is_over(now, addresses.as_ref().map(|a| &a[..])), is_over);
        }
        assert!(lifetime.is_over(now, Some(&of(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connection_is_closed_at_the_last_check_before_its_timeout() {
        for idle in [0, 300, 9_000, 90_000, u64::MAX].map(Duration::from_millis) {
            let limits = Limits { idle, ..Limits::default() };
            let interval = limits.check_interval();
            let (start, mut since) = (Instant::now(), None);
            // The connection became idle just after a check.
            let closed = (1..1_000).find(|&check| limits.is_idle_too_long(&mut since, start + check * interval));
            let expected = (idle < Duration::from_secs(1_000)).then_some(idle.max(interval));
            assert_eq!(closed.map(|check| check * interval), expected);
        }
    }
}
