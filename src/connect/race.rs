//! Connects to the first of several addresses that accepts (happy eyeballs, RFC 8305).
//!
//! hyper-util's connector tries the addresses of one family one after the other, and divides the
//! time limit among them: one dead address delays a connection by half of its time.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

/// Time after which the next address is tried as well.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Orders addresses by turns of the families. The preferred family is the first, else that of the
/// first address.
pub(super) fn alternate(addresses: &[SocketAddr], prefer_ipv6: Option<bool>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let ipv6_first = prefer_ipv6.unwrap_or(first.is_ipv6());
    let (preferred, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == ipv6_first);
    let mut ordered = Vec::with_capacity(addresses.len());
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    loop {
        let before = ordered.len();
        ordered.extend(preferred.next());
        ordered.extend(other.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// Connects to the addresses, each a little later than the one before, or as soon as an attempt
/// fails. Returns the first connection, or the first error.
///
/// The delay is shorter if the time limit would not allow all attempts. The caller enforces the
/// limit. `None` without an address.
///
/// # Cancel safety
/// Dropping the future cancels all attempts.
pub(super) async fn race<T, E, F>(
    addresses: Vec<SocketAddr>,
    limit: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    if let [only] = addresses[..] {
        return Some(connect(only).await);
    }
    let delay = ATTEMPT_DELAY.min(limit / u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX));
    let mut left = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut first_error = None;
    loop {
        match left.next() {
            Some(address) => drop(attempts.spawn(connect(address))),
            None if attempts.is_empty() => return first_error.map(Err),
            None => {}
        }
        tokio::select! {
            biased;
            Some(joined) = attempts.join_next() => match joined {
                Ok(Ok(connected)) => return Some(Ok(connected)),
                Ok(Err(error)) => drop(first_error.get_or_insert(error)),
                // The attempt panicked, or the runtime is shutting down.
                Err(_) => {}
            },
            () = sleep(delay), if left.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace().map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect()
    }

    #[test]
    fn addresses_alternate_between_the_families() {
        for (given, prefer_ipv6, expected) in [
            ("1.1.1.1 2.2.2.2 ::1 ::2 ::3", None, "1.1.1.1 ::1 2.2.2.2 ::2 ::3"),
            ("1.1.1.1 2.2.2.2 ::1", Some(true), "::1 1.1.1.1 2.2.2.2"),
            ("::1 1.1.1.1 ::2", None, "::1 1.1.1.1 ::2"),
            ("::1 1.1.1.1 ::2", Some(false), "1.1.1.1 ::1 ::2"),
            ("1.1.1.1", Some(true), "1.1.1.1"),
            ("", None, ""),
        ] {
            assert_eq!(alternate(&addresses(given), prefer_ipv6), addresses(expected), "{given} {prefer_ipv6:?}");
        }
    }

    /// Races addresses whose last number says what happens: 1 accepts after 10 milliseconds, 2
    /// refuses at once, and 3 never responds. Returns the winner or the error, and the time.
    async fn raced(given: &str) -> (Option<Result<SocketAddr, SocketAddr>>, Duration) {
        let start = Instant::now();
        let winner = race(addresses(given), Duration::from_secs(2), |address| async move {
            match address.ip().to_string().chars().next_back() {
                Some('1') => sleep(Duration::from_millis(10)).await,
                Some('2') => return Err(address),
                _ => std::future::pending().await,
            }
            Ok(address)
        });
        (winner.await, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn first_address_that_accepts_is_used() {
        let ok = |ip: &str| Some(Ok(addresses(ip)[0]));
        for (given, winner, milliseconds) in [
            ("10.0.0.1", ok("10.0.0.1"), 10),
            ("10.0.0.2 10.0.0.1", ok("10.0.0.1"), 10),
            ("10.0.0.3 ::1", ok("::1"), 260),
            ("10.0.0.3 ::3 10.0.0.2 10.0.0.1", ok("10.0.0.1"), 510),
            ("10.0.0.2 ::2", Some(Err(addresses("10.0.0.2")[0])), 0),
            ("", None, 0),
        ] {
            assert_eq!(raced(given).await, (winner, Duration::from_millis(milliseconds)), "{given}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_many_addresses_are_tried_within_the_limit() {
        let given = format!("{} ::1", "10.0.0.3 ".repeat(30));
        let (winner, elapsed) = raced(&given).await;
        assert_eq!(winner, Some(Ok(addresses("::1")[0])));
        assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    }
}
