//! Subsets, for callers with more endpoints than they should hold connections to.
//!
//! ```text
//! rendezvous   every caller ranks the endpoints in an order of its own, and takes the first ones
//!
//! aperture     endpoints  ├── a ──┼── b ──┼── c ──┼── d ──┤
//!              callers    ├─ 0 ─────────┤
//!                         ──┤      ├── 1 ──────
//!                         ───────────┤       ├─ 2
//! ```
//!
//! An aperture is a section of a ring, on which endpoints lie in proportion to their weights. It
//! begins at the caller's rank among its siblings and is wide enough for `size` endpoints, rounded
//! up so that every point of the ring is covered by equally many callers.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::zone::{Callers, zone};
use crate::model::Application;

/// Limits the number of endpoints that a caller connects to.
///
/// Endpoints outside the subset get no calls and no probes, so a service that connects on its first
/// call never connects there. An endpoint that leaves the subset keeps its idle connections for as
/// long as its service does. Membership depends on the endpoints' ids only, not on the order of
/// discovery. If endpoints are added or removed, few others change. Zones and labels do not
/// influence the choice. If calls are [split by zone](super::ZoneAware), endpoints outside count
/// for the capacity of their zone.
///
/// If more than half of a subset cannot take calls, the subset is extended until half of its size
/// is available again, up to all endpoints. It shrinks when they are restored.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    size: usize,
    kind: Kind,
    seed: u64,
    /// True if the seed is a random number.
    is_random: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Rendezvous,
    Aperture,
}

impl Subset {
    /// Takes the first `size` endpoints, at least 1, in an order that each caller has for itself.
    ///
    /// It needs no knowledge of other callers. The number of callers that choose an endpoint is
    /// random, with a mean of `callers · size / endpoints` and a relative deviation of at most one
    /// over the root of that mean. With 100 callers that take 20 of 100 endpoints each, an endpoint
    /// has 20 ± 4 callers. Weights do not influence the choice, only the shares of the chosen
    /// endpoints.
    pub fn rendezvous(size: usize) -> Self {
        Self::new(size, Kind::Rendezvous)
    }

    /// Takes the endpoints of a section of a ring that begins at the caller's rank among its
    /// [siblings](super::Siblings) and is wide enough for `size` endpoints, at least 1. This is
    /// Finagle's deterministic aperture.
    ///
    /// The sections of all callers cover every endpoint equally often. So every endpoint gets
    /// exactly its share of the calls if all callers know the same siblings and call equally often.
    /// An endpoint at the edge of a section has a part of its weight there. If a caller is added or
    /// removed, the sections of the others move. While the caller is not among its siblings, it
    /// uses a [rendezvous](Self::rendezvous) subset. A `size` of 12 is a good start, since 12
    /// endpoints are hardly ever unavailable at once.
    pub fn aperture(size: usize) -> Self {
        Self::new(size, Kind::Aperture)
    }

    fn new(size: usize, kind: Kind) -> Self {
        Self { size: size.max(1), kind, seed: fastrand::u64(..), is_random: true }
    }

    /// Sets the seed of a rendezvous subset's order. Defaults to a random number, so that a caller
    /// that restarts has another subset. An aperture with known siblings does not use it.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        (self.seed, self.is_random) = (seed, false);
        self
    }

    /// Returns `true` if the subset equals another one but for a random seed.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let is_same_order = self.is_random && other.is_random || self.seed == other.seed;
        self.size == other.size && self.kind == other.kind && is_same_order
    }

    /// Returns the share of its weight that each endpoint has in the subset, or `None` outside.
    pub(super) fn choose(&self, endpoints: &[SubsetCandidate<'_>], siblings: Option<&Siblings>) -> Vec<Option<f64>> {
        if endpoints.len() <= self.size {
            return vec![Some(1.0); endpoints.len()];
        }
        let rank = siblings.and_then(Siblings::rank);
        let ranking = match (self.kind, rank) {
            (Kind::Aperture, Some(rank)) => aperture(self.size, endpoints, rank),
            (Kind::Rendezvous | Kind::Aperture, _) => rendezvous(self.size, endpoints, self.seed),
        };
        let proper = ranking.iter().filter(|(_, part)| part.is_some()).count();
        let mut chosen = vec![None; endpoints.len()];
        let mut available = 0;
        for (at, part) in ranking {
            if part.is_none() && 2 * available >= proper {
                break;
            }
            chosen[at] = Some(part.unwrap_or(1.0));
            available += usize::from(endpoints[at].available);
        }
        chosen
    }
}

/// Endpoint to choose from.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubsetCandidate<'a> {
    pub(super) id: &'a str,
    pub(super) weight: f64,
    pub(super) available: bool,
}

/// All endpoints in the order in which they are taken. Those of the subset proper have the share of
/// their weight.
type Ranking = Vec<(usize, Option<f64>)>;

fn rendezvous(size: usize, endpoints: &[SubsetCandidate<'_>], seed: u64) -> Ranking {
    let score = |id: &str| {
        let mut hasher = DefaultHasher::new();
        (seed, id).hash(&mut hasher);
        hasher.finish()
    };
    let mut order: Vec<_> =
        endpoints.iter().enumerate().map(|(at, endpoint)| (score(endpoint.id), endpoint.id, at)).collect();
    order.sort_unstable();
    order.into_iter().enumerate().map(|(rank, (_, _, at))| (at, (rank < size).then_some(1.0))).collect()
}

/// Smaller shares come from rounding, not from an overlap.
const NEGLIGIBLE: f64 = 1e-9;

fn aperture(size: usize, endpoints: &[SubsetCandidate<'_>], (rank, callers): (usize, usize)) -> Ranking {
    let caller = 1.0 / callers as f64;
    let (start, width) = (rank as f64 * caller, width(size, endpoints.len(), callers));
    let mut order: Vec<_> = (0..endpoints.len()).collect();
    order.sort_unstable_by_key(|&at| endpoints[at].id);
    let total: f64 = endpoints.iter().map(|endpoint| endpoint.weight).sum();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut left = 0.0;
    for at in order {
        let length = endpoints[at].weight / total;
        let right = left + length;
        // The section may extend over the end of the ring and continue at its start.
        let covered = |from: f64, to: f64| (right.min(to) - left.max(from)).max(0.0);
        let part = (covered(start, start + width) + covered(start - 1.0, start - 1.0 + width)) / length;
        // Clockwise from the start of the section.
        let distance = (left - start).rem_euclid(1.0);
        match part > NEGLIGIBLE {
            true => inside.push((at, Some(part.min(1.0)))),
            false => outside.push((distance, at)),
        }
        left = right;
    }
    outside.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    inside.extend(outside.into_iter().map(|(_, at)| (at, None)));
    inside
}

/// Width of a section as a part of the ring: enough for this many endpoints, and a multiple of the
/// distance between two callers.
fn width(size: usize, endpoints: usize, callers: usize) -> f64 {
    let multiple = (size * callers).div_ceil(endpoints);
    (multiple as f64 / callers as f64).min(1.0)
}

/// Fleet that a caller belongs to: all instances of its own application, including itself.
///
/// It determines the distribution of callers over the [zones](super::ZoneAware), and the start of
/// the caller's [aperture](Subset::aperture).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Siblings {
    callers: Callers,
    rank: Option<(usize, usize)>,
}

impl Siblings {
    /// Creates a fleet from the caller's own id and from the ids and zones of all siblings, the
    /// caller included, in any order. Without the own id among them, the caller has no
    /// [aperture](Subset::aperture) of its own.
    pub fn new<'a, Z: AsRef<str>>(own: &str, siblings: impl IntoIterator<Item = (&'a str, Option<Z>)>) -> Self {
        let (mut ids, mut callers) = (BTreeSet::new(), Callers::new());
        for (id, name) in siblings {
            if ids.insert(id) {
                *callers.entry(zone(name.as_ref().map(AsRef::as_ref))).or_default() += 1.0;
            }
        }
        let rank = ids.iter().position(|id| *id == own).map(|rank| (rank, ids.len()));
        Self { callers, rank }
    }

    /// Creates a fleet from the UP instances of an application in the registry, and the caller's
    /// own id.
    pub fn of(application: &Application, own: &str) -> Self {
        Self::new(own, application.up().map(|instance| (instance.id(), instance.zone())))
    }

    /// Returns the caller's rank and the number of siblings. `None` if the caller is not among
    /// them.
    fn rank(&self) -> Option<(usize, usize)> {
        self.rank
    }

    /// Returns the distribution over zones, if any sibling is known.
    pub(super) fn callers(&self) -> Option<&Callers> {
        (!self.callers.is_empty()).then_some(&self.callers)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.0.0.{i}:orders:8080")).collect()
    }

    fn candidates<'a>(ids: &'a [String], is_available: impl Fn(&str) -> bool) -> Vec<SubsetCandidate<'a>> {
        ids.iter().map(|id| SubsetCandidate { id, weight: 1.0, available: is_available(id) }).collect()
    }

    fn siblings(own: usize, n: usize) -> Siblings {
        let ids: Vec<_> = (0..n).map(|i| format!("{i:04}")).collect();
        Siblings::new(&ids[own], ids.iter().rev().map(|id| (id.as_str(), None::<&str>)))
    }

    /// Chosen endpoints with their shares.
    fn chosen<'a>(
        subset: &Subset,
        endpoints: &[SubsetCandidate<'a>],
        siblings: Option<&Siblings>,
    ) -> HashMap<&'a str, f64> {
        let parts = subset.choose(endpoints, siblings);
        endpoints.iter().zip(parts).filter_map(|(endpoint, part)| Some((endpoint.id, part?))).collect()
    }

    #[test]
    fn few_endpoints_are_all_in_the_subset() {
        let ids = ids(5);
        let endpoints = candidates(&ids, |_| true);
        for subset in [Subset::rendezvous(5), Subset::aperture(9)] {
            assert_eq!(subset.choose(&endpoints, Some(&siblings(1, 3))), [Some(1.0); 5]);
        }
    }

    #[test]
    fn subset_is_independent_of_order_and_changes_little() {
        let (ids, more) = (ids(100), ids(101));
        let endpoints = candidates(&ids, |_| true);
        let mut reversed = endpoints.clone();
        reversed.reverse();
        for subset in [Subset::rendezvous(20).seed(1), Subset::aperture(20)] {
            let siblings = siblings(7, 30);
            let before = chosen(&subset, &endpoints, Some(&siblings));
            assert_eq!(before, chosen(&subset, &reversed, Some(&siblings)));
            let after = chosen(&subset, &candidates(&more, |_| true), Some(&siblings));
            let lost = before.keys().filter(|id| !after.contains_key(*id)).count();
            assert!(lost <= 1, "{lost} changed for one newcomer");
        }
        let other = chosen(&Subset::rendezvous(20).seed(2), &endpoints, None);
        assert_ne!(chosen(&Subset::rendezvous(20).seed(1), &endpoints, None), other);
    }

    #[test]
    fn rendezvous_subsets_have_their_size_and_the_computed_balance() {
        let ids = ids(100);
        let endpoints = candidates(&ids, |_| true);
        let (callers, size) = (1_000_u64, 20);
        let mut load = HashMap::<&str, f64>::new();
        for seed in 0..callers {
            let chosen = chosen(&Subset::rendezvous(size).seed(seed), &endpoints, None);
            assert_eq!(chosen.len(), size);
            chosen.keys().for_each(|id| *load.entry(id).or_default() += 1.0);
        }
        // Binomial: 200 ± 12.6. Of 100 endpoints, one is more than 5 deviations away in one of
        // 30,000 tests.
        let (mean, share) = (callers as f64 * 0.2, 0.2_f64);
        let deviation = (mean * (1.0 - share)).sqrt();
        assert_eq!(load.len(), 100);
        for (id, load) in &load {
            assert!((load - mean).abs() < 5.0 * deviation, "{id}: {load} callers, expected {mean} ± {deviation}");
        }
        let squares: f64 = load.values().map(|load| (load - mean).powi(2)).sum();
        let measured = (squares / 100.0).sqrt();
        assert!((0.7..1.3).contains(&(measured / deviation)), "deviation {measured}, computed {deviation}");
    }

    #[test]
    fn apertures_of_all_callers_load_every_endpoint_equally() {
        for (servers, callers, size) in
            [(10, 3, 4), (100, 30, 12), (97, 31, 12), (7, 100, 3), (1_000, 7, 12), (13, 1, 5)]
        {
            let ids = ids(servers);
            let endpoints = candidates(&ids, |_| true);
            let mut load = HashMap::<&str, f64>::new();
            for rank in 0..callers {
                let chosen = chosen(&Subset::aperture(size), &endpoints, Some(&siblings(rank, callers)));
                let covered: f64 = chosen.values().sum();
                let expected = width(size, servers, callers) * servers as f64;
                assert!((covered - expected).abs() < 1e-6, "{covered} of {servers}, computed {expected}");
                assert!(covered >= size as f64 - 1e-6 && chosen.len() as f64 <= expected.ceil() + 1.0);
                chosen.iter().for_each(|(id, part)| *load.entry(id).or_default() += part / covered);
            }
            let fair = callers as f64 / servers as f64;
            assert_eq!(load.len(), servers);
            let even = load.values().all(|load| (load - fair).abs() < 1e-6);
            assert!(even, "{servers} servers, {callers} callers, {size}: {load:?}");
        }
    }

    #[test]
    fn apertures_follow_weights() {
        let ids = ids(20);
        let mut endpoints = candidates(&ids, |_| true);
        endpoints.iter_mut().enumerate().for_each(|(i, endpoint)| endpoint.weight = 1.0 + (i % 4) as f64);
        let mut load = HashMap::<&str, f64>::new();
        for rank in 0..9 {
            let chosen = chosen(&Subset::aperture(5), &endpoints, Some(&siblings(rank, 9)));
            let weight = |id: &str| endpoints.iter().find(|endpoint| endpoint.id == id).unwrap().weight;
            let total: f64 = chosen.iter().map(|(id, part)| weight(id) * part).sum();
            chosen.iter().for_each(|(id, part)| *load.entry(id).or_default() += weight(id) * part / total);
        }
        for endpoint in &endpoints {
            let expected = 9.0 * endpoint.weight / 50.0;
            assert!((load[endpoint.id] - expected).abs() < 1e-6, "{} instead of {expected}", load[endpoint.id]);
        }
    }

    #[test]
    fn width_follows_the_formula() {
        // `min(1, ceil(aperture / servers * callers) / callers)`.
        for (size, servers, callers, expected) in
            [(12, 100, 10, 0.2), (12, 100, 100, 0.12), (12, 100, 7, 1.0 / 7.0), (12, 10, 3, 1.0), (3, 9, 3, 1.0 / 3.0)]
        {
            assert!((width(size, servers, callers) - expected).abs() < 1e-12, "{size} of {servers} by {callers}");
        }
    }

    #[test]
    fn subset_is_extended_until_half_of_its_size_is_available() {
        let ids = ids(50);
        for (subset, siblings) in [(Subset::rendezvous(10).seed(3), None), (Subset::aperture(10), Some(siblings(2, 5)))]
        {
            let all = candidates(&ids, |_| true);
            let full = chosen(&subset, &all, siblings.as_ref());
            assert_eq!(full.len(), 10);
            let first: Vec<_> = {
                let mut ids: Vec<_> = full.keys().copied().collect();
                ids.sort_unstable();
                ids
            };
            for out in [0, 4, 5] {
                let some = candidates(&ids, |id| !first[..out].contains(&id));
                assert_eq!(chosen(&subset, &some, siblings.as_ref()), full, "{out} ejected");
            }
            for out in [6, 8, 10] {
                let some = candidates(&ids, |id| !first[..out].contains(&id));
                let wider = chosen(&subset, &some, siblings.as_ref());
                assert_eq!(wider.len(), 10 + out - 5);
                assert!(full.keys().all(|id| wider.contains_key(id)));
            }
            assert_eq!(chosen(&subset, &candidates(&ids, |_| false), siblings.as_ref()).len(), 50);
        }
    }

    #[test]
    fn caller_outside_its_siblings_uses_rendezvous() {
        let ids = ids(50);
        let endpoints = candidates(&ids, |_| true);
        let stranger = Siblings::new("stranger", [("a", Some("z1")), ("b", None)]);
        let expected = chosen(&Subset::rendezvous(10).seed(8), &endpoints, None);
        assert_eq!(chosen(&Subset::aperture(10).seed(8), &endpoints, Some(&stranger)), expected);
        assert_eq!(chosen(&Subset::aperture(10).seed(8), &endpoints, None), expected);
        assert_eq!(stranger.callers().unwrap().len(), 2);
    }
}
