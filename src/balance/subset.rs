//! Which endpoints a caller uses at all, where there are more than it should hold connections to.
//!
//! ```text
//! rendezvous   every caller ranks the endpoints in an order of its own, and takes the first ones
//!
//! aperture     endpoints  ├── a ──┼── b ──┼── c ──┼── d ──┤     on a ring, as wide as they weigh
//!              callers    ├─ 0 ─────────┤                       each begins at its rank among its peers and is wide enough for
//!                         ──┤      ├── 1 ──────                 `size` endpoints, rounded up so that every point of the ring
//!                         ───────────┤       ├─ 2               lies under equally many callers
//! ```

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::zone::{Callers, zone};
use crate::model::Application;

/// Limits to how many endpoints a caller connects.
///
/// Endpoints outside the subset get no calls and no probes, so a service that connects when it is called never connects there; one
/// that leaves the subset keeps its idle connections for as long as its service does. Which ones are in it depends on their ids alone, not on the order
/// in which discovery names them, and when endpoints come or go few others change places. Zones and labels do not matter for
/// the choice; where calls are [split by zone](super::ZoneAware), endpoints outside count for what their zone can take.
///
/// When more than half of a subset cannot take calls, it is widened until half of its size is available again, if need be to all endpoints
/// there are; it shrinks when they are back.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    size: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Rendezvous { seed: u64 },
    Aperture { fallback: u64 },
}

impl Subset {
    /// The `size` endpoints that come first in an order that is each caller's own, at least 1.
    ///
    /// Needs to know nothing of other callers. How many of `callers` choose an endpoint is a matter of chance, with a mean of
    /// `callers · size / endpoints` and a relative deviation of at most one over the root of it: with 100 callers that take 20 of 100 endpoints
    /// each, 20 ± 4. Weights do not matter for the choice, only for the shares of those that were chosen.
    pub fn rendezvous(size: usize) -> Self {
        Self { size: size.max(1), kind: Kind::Rendezvous { seed: fastrand::u64(..) } }
    }

    /// A section of the ring of endpoints that begins at the caller's own rank among its [peers](super::Peers), wide enough for
    /// `size` endpoints, at least 1. Finagle's deterministic aperture.
    ///
    /// The sections of all callers together lie over every endpoint equally often, so every endpoint gets exactly its share of the calls,
    /// if all callers know the same peers and call equally much. An endpoint at the edge of a section gets a part of its weight there.
    /// When a caller comes or goes, the sections of the others move. As long as the caller does not find itself among its peers, it uses a
    /// [rendezvous](Self::rendezvous) subset. A `size` of 12 is large enough that hardly ever all of it are out at once.
    pub fn aperture(size: usize) -> Self {
        Self { size: size.max(1), kind: Kind::Aperture { fallback: fastrand::u64(..) } }
    }

    /// From what the order of a rendezvous subset is made. By default a random number, so that a caller that starts again has another
    /// subset. Does not matter for an aperture of known peers.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        match &mut self.kind {
            Kind::Rendezvous { seed: own } | Kind::Aperture { fallback: own } => *own = seed,
        }
        self
    }

    /// What part of its weight each of these has in the subset; `None` for those outside.
    pub(super) fn choose(&self, endpoints: &[Applicant<'_>], peers: Option<&Peers>) -> Vec<Option<f64>> {
        if endpoints.len() <= self.size {
            return vec![Some(1.0); endpoints.len()];
        }
        let place = peers.and_then(Peers::place);
        let ranking = match (&self.kind, place) {
            (Kind::Aperture { .. }, Some(place)) => aperture(self.size, endpoints, place),
            (Kind::Rendezvous { seed } | Kind::Aperture { fallback: seed }, _) => {
                rendezvous(self.size, endpoints, *seed)
            }
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

/// What the choice needs to know of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applicant<'a> {
    pub(super) id: &'a str,
    pub(super) weight: f64,
    pub(super) available: bool,
}

/// All endpoints in the order in which they are taken; those of the subset proper with the part of their weight that counts.
type Ranking = Vec<(usize, Option<f64>)>;

fn rendezvous(size: usize, endpoints: &[Applicant<'_>], seed: u64) -> Ranking {
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

/// Parts this small come from rounding, not from overlap.
const NOTHING: f64 = 1e-9;

fn aperture(size: usize, endpoints: &[Applicant<'_>], (rank, callers): (usize, usize)) -> Ranking {
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
        // The section may reach over the end of the ring, which begins again there.
        let covered = |from: f64, to: f64| (right.min(to) - left.max(from)).max(0.0);
        let part = (covered(start, start + width) + covered(start - 1.0, start - 1.0 + width)) / length;
        // Clockwise from where the section begins.
        let distance = (left - start).rem_euclid(1.0);
        match part > NOTHING {
            true => inside.push((at, Some(part.min(1.0)))),
            false => outside.push((distance, at)),
        }
        left = right;
    }
    outside.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    inside.extend(outside.into_iter().map(|(_, at)| (at, None)));
    inside
}

/// The part of the ring that a section covers: enough for so many endpoints, and a multiple of the distance between two callers.
fn width(size: usize, endpoints: usize, callers: usize) -> f64 {
    let multiple = (size * callers).div_ceil(endpoints);
    (multiple as f64 / callers as f64).min(1.0)
}

/// The fleet that a caller is one of: all instances of its own application, itself included.
///
/// Tells how callers are spread over the [zones](super::ZoneAware), and where this one's [aperture](Subset::aperture) begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers {
    callers: Callers,
    place: Option<(usize, usize)>,
}

impl Peers {
    /// The ids of all peers with their zones, and the own id. Their order does not matter.
    pub fn new<'a, Z: AsRef<str>>(own: &str, peers: impl IntoIterator<Item = (&'a str, Option<Z>)>) -> Self {
        let (mut ids, mut callers) = (BTreeSet::new(), Callers::new());
        for (id, name) in peers {
            if ids.insert(id) {
                *callers.entry(zone(name.as_ref().map(AsRef::as_ref))).or_default() += 1.0;
            }
        }
        let place = ids.iter().position(|id| *id == own).map(|rank| (rank, ids.len()));
        Self { callers, place }
    }

    /// The instances of an application that are UP, as the registry shows them, and the id of the own one.
    pub fn of(application: &Application, own: &str) -> Self {
        Self::new(own, application.up().map(|instance| (instance.id(), instance.zone())))
    }

    /// The own rank, and the number of all. `None` if the own id is not among them.
    fn place(&self) -> Option<(usize, usize)> {
        self.place
    }

    /// How they are spread, if any is known.
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

    fn applicants<'a>(ids: &'a [String], is_available: impl Fn(&str) -> bool) -> Vec<Applicant<'a>> {
        ids.iter().map(|id| Applicant { id, weight: 1.0, available: is_available(id) }).collect()
    }

    fn peers(own: usize, n: usize) -> Peers {
        let ids: Vec<_> = (0..n).map(|i| format!("{i:04}")).collect();
        Peers::new(&ids[own], ids.iter().rev().map(|id| (id.as_str(), None::<&str>)))
    }

    /// The chosen ones with their parts.
    fn chosen<'a>(subset: &Subset, endpoints: &[Applicant<'a>], peers: Option<&Peers>) -> HashMap<&'a str, f64> {
        let parts = subset.choose(endpoints, peers);
        endpoints.iter().zip(parts).filter_map(|(endpoint, part)| Some((endpoint.id, part?))).collect()
    }

    #[test]
    fn few_endpoints_are_all_in() {
        let ids = ids(5);
        let endpoints = applicants(&ids, |_| true);
        for subset in [Subset::rendezvous(5), Subset::aperture(9)] {
            assert_eq!(subset.choose(&endpoints, Some(&peers(1, 3))), [Some(1.0); 5]);
        }
    }

    #[test]
    fn does_not_depend_on_order_and_changes_little() {
        let (ids, more) = (ids(100), ids(101));
        let endpoints = applicants(&ids, |_| true);
        let mut reversed = endpoints.clone();
        reversed.reverse();
        for subset in [Subset::rendezvous(20).seed(1), Subset::aperture(20)] {
            let peers = peers(7, 30);
            let before = chosen(&subset, &endpoints, Some(&peers));
            assert_eq!(before, chosen(&subset, &reversed, Some(&peers)));
            let after = chosen(&subset, &applicants(&more, |_| true), Some(&peers));
            let lost = before.keys().filter(|id| !after.contains_key(*id)).count();
            assert!(lost <= 1, "{lost} changed for one newcomer");
        }
        let other = chosen(&Subset::rendezvous(20).seed(2), &endpoints, None);
        assert_ne!(chosen(&Subset::rendezvous(20).seed(1), &endpoints, None), other);
    }

    #[test]
    fn rendezvous_subsets_have_their_size_and_the_computed_balance() {
        let ids = ids(100);
        let endpoints = applicants(&ids, |_| true);
        let (callers, size) = (1_000_u64, 20);
        let mut load = HashMap::<&str, f64>::new();
        for seed in 0..callers {
            let chosen = chosen(&Subset::rendezvous(size).seed(seed), &endpoints, None);
            assert_eq!(chosen.len(), size);
            chosen.keys().for_each(|id| *load.entry(id).or_default() += 1.0);
        }
        // Binomial: 200 ± 12.6. Of 100 endpoints, one in 30,000 tests lies further out than 5 deviations.
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
    fn apertures_together_load_every_endpoint_alike() {
        for (servers, callers, size) in
            [(10, 3, 4), (100, 30, 12), (97, 31, 12), (7, 100, 3), (1_000, 7, 12), (13, 1, 5)]
        {
            let ids = ids(servers);
            let endpoints = applicants(&ids, |_| true);
            let mut load = HashMap::<&str, f64>::new();
            for rank in 0..callers {
                let chosen = chosen(&Subset::aperture(size), &endpoints, Some(&peers(rank, callers)));
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
        let mut endpoints = applicants(&ids, |_| true);
        endpoints.iter_mut().enumerate().for_each(|(i, endpoint)| endpoint.weight = 1.0 + (i % 4) as f64);
        let mut load = HashMap::<&str, f64>::new();
        for rank in 0..9 {
            let chosen = chosen(&Subset::aperture(5), &endpoints, Some(&peers(rank, 9)));
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
    fn widths_are_as_computed() {
        // `min(1, ceil(aperture / servers * callers) / callers)`.
        for (size, servers, callers, expected) in
            [(12, 100, 10, 0.2), (12, 100, 100, 0.12), (12, 100, 7, 1.0 / 7.0), (12, 10, 3, 1.0), (3, 9, 3, 1.0 / 3.0)]
        {
            assert!((width(size, servers, callers) - expected).abs() < 1e-12, "{size} of {servers} by {callers}");
        }
    }

    #[test]
    fn a_subset_of_which_most_are_out_is_widened_until_half_of_it_is_left() {
        let ids = ids(50);
        for (subset, peers) in [(Subset::rendezvous(10).seed(3), None), (Subset::aperture(10), Some(peers(2, 5)))] {
            let all = applicants(&ids, |_| true);
            let whole = chosen(&subset, &all, peers.as_ref());
            assert_eq!(whole.len(), 10);
            let first: Vec<_> = {
                let mut ids: Vec<_> = whole.keys().copied().collect();
                ids.sort_unstable();
                ids
            };
            for out in [0, 4, 5] {
                let some = applicants(&ids, |id| !first[..out].contains(&id));
                assert_eq!(chosen(&subset, &some, peers.as_ref()), whole, "{out} out");
            }
            for out in [6, 8, 10] {
                let some = applicants(&ids, |id| !first[..out].contains(&id));
                let wider = chosen(&subset, &some, peers.as_ref());
                assert_eq!(wider.len(), 10 + out - 5);
                assert!(whole.keys().all(|id| wider.contains_key(id)));
            }
            assert_eq!(chosen(&subset, &applicants(&ids, |_| false), peers.as_ref()).len(), 50);
        }
    }

    #[test]
    fn a_caller_that_is_not_among_its_peers_uses_rendezvous() {
        let ids = ids(50);
        let endpoints = applicants(&ids, |_| true);
        let stranger = Peers::new("stranger", [("a", Some("z1")), ("b", None)]);
        let expected = chosen(&Subset::rendezvous(10).seed(8), &endpoints, None);
        assert_eq!(chosen(&Subset::aperture(10).seed(8), &endpoints, Some(&stranger)), expected);
        assert_eq!(chosen(&Subset::aperture(10).seed(8), &endpoints, None), expected);
        assert_eq!(stranger.callers().unwrap().len(), 2);
    }
}
