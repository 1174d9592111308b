//! Spread of clients over the servers of a zone.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of shuffles in this process, from a random start. The clients of one process begin at
/// different servers, and those of different processes at random ones.
static SHUFFLES: LazyLock<AtomicUsize> = LazyLock::new(|| AtomicUsize::new(fastrand::usize(..)));

/// Sorts the servers by rank, and shuffles those of the same rank. The key is the rank and a name
/// that gives all clients the same order of servers.
pub(crate) fn shuffle<T, N: Ord>(servers: &mut [T], key: impl Fn(&T) -> (usize, N)) {
    servers.sort_by_cached_key(&key);
    let number = SHUFFLES.fetch_add(1, Ordering::Relaxed);
    for zone in servers.chunk_by_mut(|a, b| key(a).0 == key(b).0) {
        let first = number % zone.len();
        zone.swap(0, first);
        fastrand::shuffle(&mut zone[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_a_process_begin_evenly_and_continue_at_random() {
        let mut firsts = [0; 3];
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let mut servers = [(1, 3), (0, 2), (0, 0), (1, 4), (0, 1)];
            shuffle(&mut servers, |server| *server);
            assert!(servers[..3].iter().all(|server| server.0 == 0), "{servers:?}");
            firsts[servers[0].1] += 1;
            orders.insert(servers);
        }
        // Other tests of the process shuffle as well.
        assert!(firsts.iter().all(|&count| (60..=140).contains(&count)), "{firsts:?}");
        assert_eq!(orders.len(), 6 * 2, "every order occurs");
    }
}
