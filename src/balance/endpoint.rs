//! The endpoints a pick chooses from, and the choice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::load::{Load, tick};

/// Tells the endpoints of one balancer apart. Never used again: an endpoint that was replaced has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndpointId(pub(super) u64);

/// One endpoint: its service and what is known about it.
#[derive(Clone)]
pub(super) struct Endpoint<S> {
    pub(super) id: EndpointId,
    pub(super) stats: Arc<Stats>,
    pub(super) service: S,
}

/// What a pick reads of an endpoint and a call writes. Fits in one cache line, and shares it with nobody.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Stats {
    pub(super) load: Load,
    pub(super) details: Box<Details>,
}

/// What only failures and logs need.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) app: Option<Arc<str>>,
    pub(super) instance: Arc<str>,
    pub(super) penalty: Duration,
}

/// What there is to choose from. Immutable: a change makes a new set.
///
/// The statistics are apart from the services, so that comparing two endpoints touches little memory.
pub(super) struct EndpointSet<S> {
    base: Instant,
    /// In the order of their ids, as the services.
    stats: Vec<Arc<Stats>>,
    services: Vec<(EndpointId, S)>,
}

/// The choice.
pub(super) struct Chosen<'a, S> {
    pub(super) id: EndpointId,
    pub(super) stats: &'a Arc<Stats>,
    pub(super) service: &'a S,
}

impl<S> EndpointSet<S> {
    /// `base` is the one that the endpoints' loads count from.
    pub(super) fn new(base: Instant, mut endpoints: Vec<Endpoint<S>>) -> Self {
        endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
        let (stats, services) =
            endpoints.into_iter().map(|Endpoint { id, stats, service }| (stats, (id, service))).unzip();
        Self { base, stats, services }
    }

    pub(super) fn len(&self) -> usize {
        self.stats.len()
    }

    #[cfg(test)]
    pub(super) fn stats(&self) -> impl Iterator<Item = &Stats> {
        self.stats.iter().map(|stats| &**stats)
    }

    /// The cheaper one of two drawn at random, leaving out those that were tried.
    pub(super) fn choose(&self, now: Instant, tried: &[EndpointId]) -> Option<Chosen<'_, S>> {
        let excluded = self.positions(tried);
        // Draws count only those not excluded: step over each excluded position up to there.
        let at = |drawn| excluded.iter().fold(drawn, |position, &gap| position + usize::from(gap <= position));
        let position = match self.len() - excluded.len() {
            0 => return None,
            1 => at(0),
            left => {
                let (first, second) = two_of(left);
                let (first, second) = (at(first), at(second));
                let now = tick(self.base, now);
                let cost = |position: usize| self.stats[position].load.metric(now);
                if cost(second) < cost(first) { second } else { first }
            }
        };
        let (id, service) = &self.services[position];
        Some(Chosen { id: *id, stats: &self.stats[position], service })
    }

    /// Where these are, ascending. Allocates nothing for none.
    fn positions(&self, ids: &[EndpointId]) -> Vec<usize> {
        let mut positions: Vec<_> =
            ids.iter().filter_map(|id| self.services.binary_search_by_key(id, |(id, _)| *id).ok()).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

/// Two different numbers below `n`, which is at least 2, from one draw.
fn two_of(n: usize) -> (usize, usize) {
    let random = fastrand::u64(..);
    // Half of the bits each, scaled to the range; its bias of n / 2^32 does not matter here.
    let below = |n: usize, bits: u64| (((bits & 0xffff_ffff) * n as u64) >> 32) as usize;
    let first = below(n, random >> 32);
    let second = below(n - 1, random);
    (first, if second >= first { second + 1 } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: u64) -> EndpointSet<()> {
        let base = Instant::now();
        let endpoint = |id| Endpoint {
            id: EndpointId(id),
            stats: Arc::new(Stats {
                load: Load::new(1e6, Duration::from_secs(10), base, base),
                details: Box::new(Details { app: None, instance: id.to_string().into(), penalty: Duration::ZERO }),
            }),
            service: (),
        };
        EndpointSet::new(base, (0..n).rev().map(|id| endpoint(id * 3)).collect())
    }

    #[test]
    fn draws_every_pair_and_never_twice_the_same() {
        fastrand::seed(7);
        let mut seen = [[0; 3]; 3];
        for _ in 0..9_000 {
            let (first, second) = two_of(3);
            seen[first][second] += 1;
        }
        for (first, row) in seen.iter().enumerate() {
            for (second, &count) in row.iter().enumerate() {
                let expected = if first == second { 0..=0 } else { 1_300..=1_700 };
                assert!(expected.contains(&count), "seed 7: ({first}, {second}) drawn {count} times");
            }
        }
    }

    #[test]
    fn leaves_out_the_tried_and_spreads_over_the_rest() {
        fastrand::seed(7);
        let set = set(5);
        let tried = [EndpointId(9), EndpointId(0), EndpointId(9), EndpointId(1_000)];
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..3_000 {
            *counts.entry(set.choose(Instant::now(), &tried).unwrap().id.0).or_insert(0) += 1;
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [3, 6, 12]);
        assert!(counts.values().all(|count| (850..=1_150).contains(count)), "seed 7: {counts:?}");
    }

    #[test]
    fn takes_the_last_one_left_and_none_when_all_were_tried() {
        let set = set(3);
        let all = [EndpointId(0), EndpointId(3), EndpointId(6)];
        assert_eq!(set.choose(Instant::now(), &all[..2]).unwrap().id, all[2]);
        assert!(set.choose(Instant::now(), &all).is_none());
        assert!(self::set(0).choose(Instant::now(), &[]).is_none());
    }

    #[test]
    fn prefers_the_one_with_fewer_pending_calls() {
        let set = set(2);
        set.stats[0].load.begin();
        for _ in 0..100 {
            assert_eq!(set.choose(Instant::now(), &[]).unwrap().id, EndpointId(3));
        }
    }

    #[test]
    fn what_a_pick_reads_fits_in_a_cache_line() {
        assert_eq!(size_of::<Stats>(), 64);
    }
}
