//! Zone-aware routing: the share of calls that stays in the caller's zone, and the distribution of
//! the rest. Uses Envoy's formula.
//!
//! ```text
//! callers   a 50 %   b 30 %   c 20 %     a caller in a: its zone can take 30 of its 50 %,
//! capacity  a 30 %   b 40 %   c 30 %     60 % of its calls stay, 40 % go to b and c, 10 : 10
//! ```
//!
//! If every caller does so, every endpoint gets the same number of calls, and as few of them as
//! possible leave their zone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::Instance;

/// Keeps calls in the caller's zone as far as that zone has the capacity.
///
/// All calls stay if the zone's share of the endpoints is at least its share of the callers.
/// Otherwise as many stay as the zone can take, and the rest goes to the zones that have more
/// endpoints than callers. Ejected endpoints do not count, so calls leave a zone that fails.
/// Endpoints count by weight.
///
/// The distribution of the callers over the zones comes from [`Siblings`](super::Siblings). Without
/// them, every zone counts as having the same number of callers. Zone names are compared without
/// case and surrounding blanks. All endpoints without a zone form one zone.
///
/// Calls are not split by zone while ejections are ignored because too few endpoints are available,
/// with fewer endpoints than [`min_endpoints`](Self::min_endpoints), or if the policy knows [where
/// a request belongs](super::Policy::affinity). [`Snapshot::zone_rule`](super::Snapshot::zone_rule)
/// returns the rule in force.
///
/// Two endpoints in each of two zones are enough: all calls stay in the caller's zone. If one of
/// the two in its zone fails, 82 % of the calls stay; if both fail, none does.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneAware {
    pub(super) own: Arc<str>,
    pub(super) min_endpoints: usize,
    pub(super) overprovisioning: f64,
}

impl ZoneAware {
    /// Creates the settings of a caller in this zone. Calls are not split by zone if it is empty.
    pub fn new(own: impl Into<Arc<str>>) -> Self {
        Self { own: own.into(), min_endpoints: 2, overprovisioning: 1.4 }
    }

    /// Creates the settings of a caller in the zone of this instance, by its metadata or its data
    /// center. Calls are not split by zone if it has none.
    pub fn of(instance: &Instance) -> Self {
        Self::new(instance.zone().unwrap_or_default())
    }

    /// Returns the name of the caller's zone. `None` if it is unknown.
    pub fn own(&self) -> Option<&str> {
        Some(self.own.trim()).filter(|own| !own.is_empty())
    }

    /// Sets the zone of the caller unless it is known.
    pub(crate) fn or_own(mut self, own: Option<&Arc<str>>) -> Self {
        if self.own().is_none()
            && let Some(own) = own
        {
            self.own = own.clone();
        }
        self
    }

    /// Sets the minimum number of endpoints in all zones together. With fewer, zones are ignored.
    /// Defaults to 2.
    ///
    /// In a small fleet, one endpoint more or less shifts much traffic between the zones. A higher
    /// number, such as Envoy's 6, spreads calls over all endpoints instead.
    #[must_use]
    pub fn min_endpoints(mut self, endpoints: usize) -> Self {
        self.min_endpoints = endpoints;
        self
    }

    /// Sets the number of calls that an endpoint can take, as a multiple of its even share.
    /// Defaults to 1.4. Less than 1 and NaN count as 1.
    ///
    /// With 1.4, a zone of which 72 % of the endpoints are available still has its full capacity.
    #[must_use]
    pub fn overprovisioning(mut self, factor: f64) -> Self {
        // Infinity times a zone without an available endpoint is NaN.
        self.overprovisioning = if factor.is_nan() { 1.0 } else { factor.clamp(1.0, f64::MAX) };
        self
    }

    /// Returns the zones by name, with their shares of the calls. `None` if calls are not split.
    pub(super) fn split<'a>(
        &self,
        endpoints: impl IntoIterator<Item = ZonedEndpoint<'a>>,
        callers: Option<&Callers>,
    ) -> Result<BTreeMap<Zone, Share>, ZoneRule> {
        let own = zone(Some(&self.own)).ok_or(ZoneRule::UnknownZone)?;
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
            return Err(ZoneRule::TooFewEndpoints { min: self.min_endpoints });
        }
        let callers: Vec<f64> = match callers {
            Some(callers) => zones.keys().map(|zone| callers.get(zone).copied().unwrap_or_default()).collect(),
            None => vec![1.0; zones.len()],
        };
        let capacities: Vec<f64> =
            zones.values().map(|zone| (zone.left * self.overprovisioning).min(zone.total)).collect();
        let own = zones.keys().position(|zone| zone.as_deref() == Some(&own)).expect("own zone is inserted above");
        let shares = split(own, &callers, &capacities).ok_or(ZoneRule::NoCapacity)?;
        for (zone, share) in zones.values_mut().zip(shares) {
            zone.share = share;
        }
        Ok(zones)
    }

    /// Returns the rule by which these shares split calls.
    pub(super) fn rule(&self, zones: &BTreeMap<Zone, Share>) -> ZoneRule {
        let own = zone(Some(&self.own));
        match zones.get(&own).map_or(0.0, |zone| zone.share) {
            share if share >= 1.0 => ZoneRule::OwnZone,
            share if share > 0.0 => ZoneRule::Overflow,
            _ => ZoneRule::OtherZones,
        }
    }
}

/// The zone is unknown. Options of calls by name take the zone of the calling instance, else that
/// of the settings.
impl Default for ZoneAware {
    fn default() -> Self {
        Self::new("")
    }
}

/// Rule in force for zones, as [`Snapshot::zone_rule`](super::Snapshot::zone_rule) returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZoneRule {
    /// Zone-aware routing is off.
    Off,
    /// All calls stay in the caller's zone.
    OwnZone,
    /// The caller's zone takes as many calls as it can, and the rest leaves.
    Overflow,
    /// All calls leave the caller's zone, since it has no available endpoint or no capacity to
    /// spare.
    OtherZones,
    /// Zones are ignored, since the caller's zone is unknown.
    UnknownZone,
    /// Zones are ignored, since there are fewer endpoints than
    /// [`min_endpoints`](ZoneAware::min_endpoints).
    TooFewEndpoints {
        /// The minimum.
        min: usize,
    },
    /// Zones are ignored, since no endpoint has capacity.
    NoCapacity,
    /// Zones are ignored together with ejections, since too few endpoints are available.
    TooFewAvailable,
}

impl ZoneRule {
    /// Returns `true` if calls are not split by zone although zone-aware routing is on.
    pub fn ignores_zones(self) -> bool {
        !matches!(self, Self::Off | Self::OwnZone | Self::Overflow | Self::OtherZones)
    }
}

impl fmt::Display for ZoneRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("zones are not used"),
            Self::OwnZone => f.write_str("calls stay in the own zone"),
            Self::Overflow => f.write_str("calls overflow from the own zone"),
            Self::OtherZones => f.write_str("calls leave the own zone"),
            Self::UnknownZone => f.write_str("zones are ignored: the own zone is unknown"),
            Self::TooFewEndpoints { min } => write!(f, "zones are ignored: there are fewer than {min} endpoints"),
            Self::NoCapacity => f.write_str("zones are ignored: no endpoint has capacity"),
            Self::TooFewAvailable => f.write_str("zones are ignored: too few endpoints are available"),
        }
    }
}

/// Name of a zone in lower case.
pub(super) type Zone = Option<Arc<str>>;

/// Number of callers in each zone.
pub(super) type Callers = BTreeMap<Zone, f64>;

/// Endpoint to be counted in its zone.
pub(super) struct ZonedEndpoint<'a> {
    pub(super) zone: Option<&'a str>,
    pub(super) weight: f64,
    /// Weight with which it takes calls. `None` if it takes none.
    pub(super) available: Option<f64>,
}

/// Endpoints of a zone, and its share of the calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) endpoints: usize,
    pub(super) available: usize,
    total: f64,
    left: f64,
    /// Share of the calls, from 0 to 1.
    pub(super) share: f64,
}

pub(super) fn zone(name: Option<&str>) -> Zone {
    name.map(str::trim).filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase().into())
}

/// Returns the share of a caller's calls that each zone gets. `None` without capacity, or without
/// callers.
fn split(own: usize, callers: &[f64], capacities: &[f64]) -> Option<Vec<f64>> {
    let (callers, capacities) = (shares(callers)?, shares(capacities)?);
    let mut split = vec![0.0; capacities.len()];
    if capacities[own] > 0.0 && capacities[own] >= callers[own] {
        split[own] = 1.0;
        return Some(split);
    }
    // The caller's zone has at least this caller, even if it is not listed yet.
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

/// Returns the part of each value in the sum.
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
    fn split_follows_the_formula() {
        // Enough capacity in the own zone, as much as or more than the callers' share.
        splits(0, &[1.0, 1.0], &[2.0, 2.0], &[1.0, 0.0]);
        splits(0, &[1.0, 3.0], &[2.0, 2.0], &[1.0, 0.0]);
        // The example of Envoy's source: 20 % of the callers, 10 % of the endpoints.
        splits(0, &[20.0, 80.0], &[10.0, 90.0], &[0.5, 0.5]);
        // Its other example: the residual capacities of 40 : 40 : 20 callers and 25 : 50 : 25
        // endpoints are 0 : 10 : 5.
        splits(0, &[40.0, 40.0, 20.0], &[25.0, 50.0, 25.0], &[0.625, 0.375 * 2.0 / 3.0, 0.375 / 3.0]);
        splits(1, &[40.0, 40.0, 20.0], &[25.0, 50.0, 25.0], &[0.0, 1.0, 0.0]);
        splits(0, &[50.0, 30.0, 20.0], &[30.0, 40.0, 30.0], &[0.6, 0.2, 0.2]);
        // No capacity in the own zone: split by the residual capacities of the others.
        splits(0, &[1.0, 1.0, 1.0], &[0.0, 1.0, 1.0], &[0.0, 0.5, 0.5]);
        splits(0, &[1.0, 3.0, 0.0], &[0.0, 3.0, 1.0], &[0.0, 0.0, 1.0]);
        // All callers in the own zone.
        splits(0, &[1.0, 0.0], &[1.0, 3.0], &[0.25, 0.75]);
        // This caller is not listed yet.
        splits(0, &[0.0, 1.0], &[1.0, 3.0], &[1.0, 0.0]);
        splits(0, &[0.0, 1.0, 1.0], &[0.0, 1.0, 3.0], &[0.0, 0.0, 1.0]);
        // One zone.
        splits(0, &[1.0], &[5.0], &[1.0]);
        assert!(split(0, &[1.0, 1.0], &[0.0, 0.0]).is_none());
    }

    #[test]
    fn every_endpoint_gets_the_same_number_of_calls() {
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

    fn endpoints(zones: &[(Option<&'static str>, usize, usize)]) -> Vec<ZonedEndpoint<'static>> {
        let zone = |&(zone, all, available): &(_, usize, usize)| {
            (0..all).map(move |i| ZonedEndpoint { zone, weight: 1.0, available: (i < available).then_some(1.0) })
        };
        zones.iter().flat_map(zone).collect()
    }

    #[track_caller]
    fn shares_of(aware: &ZoneAware, zones: &[(Option<&'static str>, usize, usize)]) -> Vec<f64> {
        aware.split(endpoints(zones), None).unwrap().values().map(|zone| (zone.share * 1e3).round() / 1e3).collect()
    }

    #[test]
    fn calls_leave_a_zone_that_is_short_of_endpoints() {
        let aware = ZoneAware::new(" A ");
        assert_eq!(shares_of(&aware, &[(Some("a"), 5, 5), (Some(" a"), 5, 5), (Some("b"), 10, 10)]), [1.0, 0.0]);
        assert_eq!(shares_of(&aware, &[(Some("a"), 10, 8), (Some("b"), 10, 10)]), [1.0, 0.0], "80 % · 1.4 is all");
        assert_eq!(shares_of(&aware, &[(Some("a"), 10, 5), (Some("b"), 10, 10)]), [0.824, 0.176], "14 : 20 : 2 · 7/17");
        assert_eq!(shares_of(&aware, &[(Some("a"), 10, 0), (Some("b"), 10, 10)]), [0.0, 1.0]);
        let infinite = aware.clone().overprovisioning(f64::INFINITY);
        assert_eq!(shares_of(&infinite, &[(Some("a"), 10, 1), (Some("b"), 10, 10)]), [1.0, 0.0]);
        assert_eq!(shares_of(&infinite, &[(Some("a"), 10, 0), (Some("b"), 10, 10)]), [0.0, 1.0]);
        assert_eq!(aware.clone().overprovisioning(f64::NAN), aware.clone().overprovisioning(1.0));
        let exact = aware.overprovisioning(1.0);
        assert_eq!(shares_of(&exact, &[(Some("a"), 10, 8), (Some("b"), 10, 10)]), [0.889, 0.111]);
        assert_eq!(shares_of(&exact, &[(None, 3, 3), (Some("B"), 3, 3)]), [0.5, 0.0, 0.5], "none at home");
    }

    #[test]
    fn calls_are_not_split_for_few_endpoints_or_an_unknown_zone() {
        let zones = [(Some("a"), 3, 3), (Some("b"), 2, 2)];
        let rule = |aware: &ZoneAware, zones: &[_]| aware.split(endpoints(zones), None).map(|zones| aware.rule(&zones));
        let own = ZoneAware::new("a");
        assert_eq!(rule(&own.clone().min_endpoints(6), &zones), Err(ZoneRule::TooFewEndpoints { min: 6 }));
        assert_eq!(rule(&own.clone().min_endpoints(5), &zones), Ok(ZoneRule::OwnZone));
        assert_eq!(rule(&own, &[(Some("a"), 1, 1)]), Err(ZoneRule::TooFewEndpoints { min: 2 }));
        for unknown in ["", " ", "\t"] {
            assert_eq!(rule(&ZoneAware::new(unknown), &zones), Err(ZoneRule::UnknownZone));
        }
        assert_eq!(rule(&own, &[(Some("a"), 3, 0), (Some("b"), 3, 0)]), Err(ZoneRule::NoCapacity));
    }

    #[test]
    fn two_endpoints_per_zone_keep_calls_in_the_own_zone_until_one_fails() {
        let aware = ZoneAware::new("a");
        assert_eq!(shares_of(&aware, &[(Some("a"), 2, 2), (Some("b"), 2, 2)]), [1.0, 0.0]);
        assert_eq!(shares_of(&aware, &[(Some("a"), 2, 2), (Some("b"), 2, 2), (Some("c"), 2, 2)]), [1.0, 0.0, 0.0]);
        assert_eq!(shares_of(&aware, &[(Some("a"), 2, 1), (Some("b"), 2, 2)]), [0.824, 0.176]);
        assert_eq!(shares_of(&aware, &[(Some("a"), 2, 0), (Some("b"), 2, 2)]), [0.0, 1.0]);
        // During a rolling deployment one instance is missing.
        assert_eq!(shares_of(&aware, &[(Some("a"), 1, 1), (Some("b"), 2, 2)]), [0.667, 0.333]);
    }

    #[test]
    fn weights_and_callers_count() {
        let callers = Callers::from([(zone(Some("a")), 3.0), (zone(Some("b")), 1.0)]);
        let zoned = |zone, weight| ZonedEndpoint { zone: Some(zone), weight, available: Some(weight) };
        let endpoints = [zoned("a", 1.0), zoned("a", 2.0), zoned("b", 3.0)];
        let shares = ZoneAware::new("a").min_endpoints(1).split(endpoints, Some(&callers)).unwrap();
        let shares: Vec<_> = shares.values().map(|zone| zone.share).collect();
        assert!((shares[0] - 0.5 / 0.75).abs() < 1e-9 && (shares[0] + shares[1] - 1.0).abs() < 1e-9, "{shares:?}");
    }
}
