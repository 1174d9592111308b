//! Which share of the calls stays in the caller's own zone, and where the rest goes. Envoy's zone aware routing, its formula.
//!
//! ```text
//! callers   a 50 %   b 30 %   c 20 %        a caller in a: its zone has capacity for 30 of its 50 %, so 60 % of its calls stay;
//! capacity  a 30 %   b 40 %   c 30 %        40 % go to what b and c have left over, 10 : 10.
//! ```
//!
//! If every caller does so, every endpoint gets the same number of calls, and no more of them cross a zone than must.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Keeps calls in the caller's own zone as far as its endpoints can take them.
///
/// As long as the own zone has at least the share of the endpoints that it has of the callers, all calls stay in it. Otherwise
/// as many stay as it can take, and the rest goes to the zones that have more endpoints than callers. Endpoints that are out do not
/// count, so calls leave a zone that fails. By weight, where endpoints have weights.
///
/// How the callers are spread over the zones is known from [`Peers`](super::Peers); without them, every zone counts as
/// having equally many. Zones are compared without regard to case and to blanks around them. All endpoints without a zone are one zone.
///
/// Calls are not split where the balancer disregards ejections because too few endpoints are left, where there are fewer endpoints
/// than [`min_endpoints`](Self::min_endpoints), and where a policy knows [where a request belongs](super::Policy::affinity).
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneAware {
    pub(super) own: Arc<str>,
    pub(super) min_endpoints: usize,
    pub(super) overprovisioning: f64,
}

impl ZoneAware {
    /// For a caller in this zone.
    pub fn new(own: impl Into<Arc<str>>) -> Self {
        Self { own: own.into(), min_endpoints: 6, overprovisioning: 1.4 }
    }

    /// From how many endpoints on calls are split. Default 6: below, one endpoint more or less in a zone changes too much.
    #[must_use]
    pub fn min_endpoints(mut self, endpoints: usize) -> Self {
        self.min_endpoints = endpoints;
        self
    }

    /// How many times the calls of its even share an endpoint can take, at least 1. Default 1.4: a zone of which 72 % is available
    /// still counts as whole.
    #[must_use]
    pub fn overprovisioning(mut self, factor: f64) -> Self {
        self.overprovisioning = factor.max(1.0);
        self
    }

    /// The zones of these endpoints in the order of their names, with the share of the calls that each gets. `None` if calls are not to
    /// be split.
    pub(super) fn split<'a>(
        &self,
        endpoints: impl IntoIterator<Item = Located<'a>>,
        callers: Option<&Callers>,
    ) -> Option<BTreeMap<Zone, Share>> {
        let own = zone(Some(&self.own))?;
        let mut zones = BTreeMap::<Zone, Share>::from([(Some(own.clone()), Share::default())]);
        for endpoint in endpoints {
            let share = zones.entry(zone(endpoint.zone)).or_default();
            share.endpoints += 1;
            share.total += endpoint.weight;
            if let Some(weight) = endpoint.available {
                share.available += 1;
                share.left += weight;
            }
        }
        if zones.values().map(|share| share.endpoints).sum::<usize>() < self.min_endpoints {
            return None;
        }
        let callers: Vec<f64> = match callers {
            Some(callers) => zones.keys().map(|zone| callers.get(zone).copied().unwrap_or_default()).collect(),
            None => vec![1.0; zones.len()],
        };
        let capacities: Vec<f64> =
            zones.values().map(|zone| (zone.left * self.overprovisioning).min(zone.total)).collect();
        let own = zones.keys().position(|zone| zone.as_deref() == Some(&own))?;
        for (zone, share) in zones.values_mut().zip(split(own, &callers, &capacities)?) {
            zone.share = share;
        }
        Some(zones)
    }
}

/// A zone's name in lower case.
pub(super) type Zone = Option<Arc<str>>;

/// How many callers there are in each zone.
pub(super) type Callers = BTreeMap<Zone, f64>;

/// What the split needs to know of an endpoint.
pub(super) struct Located<'a> {
    pub(super) zone: Option<&'a str>,
    pub(super) weight: f64,
    /// With what weight it takes calls now; `None` if it takes none.
    pub(super) available: Option<f64>,
}

/// What a zone has and gets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) endpoints: usize,
    pub(super) available: usize,
    total: f64,
    left: f64,
    /// Of the calls, from 0 to 1.
    pub(super) share: f64,
}

pub(super) fn zone(name: Option<&str>) -> Zone {
    name.map(str::trim).filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase().into())
}

/// The share of a caller's calls that each zone gets. `None` if there is no capacity, or the caller is alone in the world.
fn split(own: usize, callers: &[f64], capacities: &[f64]) -> Option<Vec<f64>> {
    let (callers, capacities) = (shares(callers)?, shares(capacities)?);
    let mut split = vec![0.0; capacities.len()];
    if capacities[own] > 0.0 && capacities[own] >= callers[own] {
        split[own] = 1.0;
        return Some(split);
    }
    // The caller's zone has callers, this one: that they are not in the list is a matter of time.
    let local = if callers[own] > 0.0 { capacities[own] / callers[own] } else { 0.0 };
    let residual: Vec<f64> =
        capacities.iter().zip(&callers).map(|(capacity, callers)| (capacity - callers).max(0.0)).collect();
    let residual = shares(&residual)?;
    for (share, residual) in split.iter_mut().zip(residual) {
        *share = (1.0 - local) * residual;
    }
    split[own] = local;
    Some(split)
}

/// Each one's part of the sum.
fn shares(values: &[f64]) -> Option<Vec<f64>> {
    let sum: f64 = values.iter().sum();
    (sum > 0.0).then(|| values.iter().map(|value| value / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn splits(own: usize, callers: &[f64], capacities: &[f64], expected: &[f64]) {
        let split = split(own, callers, capacities).unwrap();
        let near = split.iter().zip(expected).all(|(split, expected)| (split - expected).abs() < 1e-9);
        assert!(near && split.len() == expected.len(), "{split:?} instead of {expected:?}");
    }

    #[test]
    fn splits_by_the_formula() {
        // Enough at home, as much or more than the callers' share.
        splits(0, &[1.0, 1.0], &[2.0, 2.0], &[1.0, 0.0]);
        splits(0, &[1.0, 3.0], &[2.0, 2.0], &[1.0, 0.0]);
        // The example of Envoy's source: 20 % of the callers, 10 % of the endpoints.
        splits(0, &[20.0, 80.0], &[10.0, 90.0], &[0.5, 0.5]);
        // Its other one: the residual capacities of 40 : 40 : 20 callers and 25 : 50 : 25 endpoints are 0 : 10 : 5.
        splits(0, &[40.0, 40.0, 20.0], &[25.0, 50.0, 25.0], &[0.625, 0.375 * 2.0 / 3.0, 0.375 / 3.0]);
        splits(1, &[40.0, 40.0, 20.0], &[25.0, 50.0, 25.0], &[0.0, 1.0, 0.0]);
        splits(0, &[50.0, 30.0, 20.0], &[30.0, 40.0, 30.0], &[0.6, 0.2, 0.2]);
        // Nothing at home: all by what the others have over.
        splits(0, &[1.0, 1.0, 1.0], &[0.0, 1.0, 1.0], &[0.0, 0.5, 0.5]);
        splits(0, &[1.0, 3.0, 0.0], &[0.0, 3.0, 1.0], &[0.0, 0.0, 1.0]);
        // All callers at home.
        splits(0, &[1.0, 0.0], &[1.0, 3.0], &[0.25, 0.75]);
        // This caller is not in the list yet.
        splits(0, &[0.0, 1.0], &[1.0, 3.0], &[1.0, 0.0]);
        splits(0, &[0.0, 1.0, 1.0], &[0.0, 1.0, 3.0], &[0.0, 0.0, 1.0]);
        // One zone.
        splits(0, &[1.0], &[5.0], &[1.0]);
        assert!(split(0, &[1.0, 1.0], &[0.0, 0.0]).is_none());
    }

    #[test]
    fn every_endpoint_gets_as_many_calls_as_every_other() {
        let mut random = fastrand::Rng::with_seed(5);
        for case in 0..1_000 {
            let zones = random.usize(2..6);
            let callers: Vec<f64> = (0..zones).map(|_| f64::from(random.u32(1..20))).collect();
            let capacities: Vec<f64> = (0..zones).map(|_| f64::from(random.u32(1..20))).collect();
            let splits: Vec<_> = (0..zones).map(|own| split(own, &callers, &capacities).unwrap()).collect();
            let all_callers: f64 = callers.iter().sum();
            let all_capacity: f64 = capacities.iter().sum();
            for (zone, capacity) in capacities.iter().enumerate() {
                let calls: f64 = splits.iter().zip(&callers).map(|(split, callers)| split[zone] * callers).sum();
                let fair = all_callers * capacity / all_capacity;
                assert!((calls - fair).abs() < 1e-9, "seed 5, case {case}: {calls} instead of {fair}");
            }
        }
    }

    fn endpoints(zones: &[(Option<&'static str>, usize, usize)]) -> Vec<Located<'static>> {
        let zone = |&(zone, all, available): &(_, usize, usize)| {
            (0..all).map(move |i| Located { zone, weight: 1.0, available: (i < available).then_some(1.0) })
        };
        zones.iter().flat_map(zone).collect()
    }

    #[track_caller]
    fn shares_of(aware: &ZoneAware, zones: &[(Option<&'static str>, usize, usize)]) -> Vec<f64> {
        aware.split(endpoints(zones), None).unwrap().values().map(|zone| (zone.share * 1e3).round() / 1e3).collect()
    }

    #[test]
    fn calls_leave_a_zone_that_fails_once_it_is_short_of_endpoints() {
        let aware = ZoneAware::new(" A ");
        assert_eq!(shares_of(&aware, &[(Some("a"), 5, 5), (Some(" a"), 5, 5), (Some("b"), 10, 10)]), [1.0, 0.0]);
        assert_eq!(shares_of(&aware, &[(Some("a"), 10, 8), (Some("b"), 10, 10)]), [1.0, 0.0], "80 % · 1.4 is all");
        assert_eq!(shares_of(&aware, &[(Some("a"), 10, 5), (Some("b"), 10, 10)]), [0.824, 0.176], "14 : 20 : 2 · 7/17");
        assert_eq!(shares_of(&aware, &[(Some("a"), 10, 0), (Some("b"), 10, 10)]), [0.0, 1.0]);
        let exact = aware.overprovisioning(1.0);
        assert_eq!(shares_of(&exact, &[(Some("a"), 10, 8), (Some("b"), 10, 10)]), [0.889, 0.111]);
        assert_eq!(shares_of(&exact, &[(None, 3, 3), (Some("B"), 3, 3)]), [0.5, 0.0, 0.5], "none at home");
    }

    #[test]
    fn few_endpoints_or_an_unknown_zone_are_not_split() {
        let zones = [(Some("a"), 3, 3), (Some("b"), 2, 2)];
        assert!(ZoneAware::new("a").split(endpoints(&zones), None).is_none());
        assert!(ZoneAware::new("a").min_endpoints(5).split(endpoints(&zones), None).is_some());
        for unknown in ["", " ", "\t"] {
            assert!(ZoneAware::new(unknown).min_endpoints(1).split(endpoints(&zones), None).is_none());
        }
        let none = [(Some("a"), 3, 0), (Some("b"), 3, 0)];
        assert!(ZoneAware::new("a").split(endpoints(&none), None).is_none());
    }

    #[test]
    fn weights_and_callers_count() {
        let callers = Callers::from([(zone(Some("a")), 3.0), (zone(Some("b")), 1.0)]);
        let located = |zone, weight| Located { zone: Some(zone), weight, available: Some(weight) };
        let endpoints = [located("a", 1.0), located("a", 2.0), located("b", 3.0)];
        let shares = ZoneAware::new("a").min_endpoints(1).split(endpoints, Some(&callers)).unwrap();
        let shares: Vec<_> = shares.values().map(|zone| zone.share).collect();
        assert!((shares[0] - 0.5 / 0.75).abs() < 1e-9 && (shares[0] + shares[1] - 1.0).abs() < 1e-9, "{shares:?}");
    }
}
