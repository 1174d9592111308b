//! Builds the picker: subset, states, weights, labels and zones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::picker::{Fallback, Labelled, Picker, Scope};
use super::{Entry, Pool, State};
use crate::balance::candidates::{EndpointList, Member};
use crate::balance::endpoint::EndpointId;
use crate::balance::label_value::LabelValue;
use crate::balance::outlier::Cause;
use crate::balance::subset::SubsetCandidate;
use crate::balance::weights::Weights;
use crate::balance::zone::{Share, Zone, ZoneRule, ZonedEndpoint, zone};
use crate::metrics::Event;

/// Endpoint, evaluated for a picker.
pub(crate) struct EvaluatedEndpoint {
    member: Member,
    /// Weight as configured.
    pub(crate) weight: f64,
    /// Share of its weight that slow start leaves.
    growth: f64,
    /// Share of its weight that counts in the subset. `None` outside the subset.
    fraction: Option<f64>,
    /// Set if it takes calls.
    is_candidate: bool,
    is_half_open: bool,
}

/// All endpoints, evaluated for a picker.
pub(crate) struct Evaluation {
    pub(crate) endpoints: Vec<EvaluatedEndpoint>,
    /// Set if an endpoint can be reached and ejections count. Otherwise calls go to any endpoint.
    pub(crate) respects_ejections: bool,
    pub(crate) is_panic: bool,
    available: usize,
    reachable: usize,
}

impl EvaluatedEndpoint {
    /// Weight that it is drawn by.
    pub(crate) fn effective(&self) -> f64 {
        self.weight * self.growth * self.fraction.unwrap_or_default()
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.member.attributes.zone.as_deref()
    }

    fn weighted(&self) -> (Member, f32) {
        (self.member.clone(), self.effective() as f32)
    }

    fn zoned(&self) -> ZonedEndpoint<'_> {
        // An endpoint outside the subset takes the calls of other callers.
        let available = self.is_candidate || self.fraction.is_none();
        ZonedEndpoint {
            zone: self.zone(),
            weight: self.weight,
            available: available.then_some(self.weight * self.growth),
        }
    }
}

impl Evaluation {
    pub(crate) fn all(&self) -> Vec<&EvaluatedEndpoint> {
        self.endpoints.iter().collect()
    }
}

impl<S> Pool<S> {
    fn count_states(&self) {
        let (mut ejected, mut half_open) = (0, 0);
        for entry in self.entries.values() {
            match entry.state {
                State::Available => {}
                State::Ejected { .. } => ejected += 1,
                State::HalfOpen { .. } => half_open += 1,
            }
        }
        self.settings.metrics.record(Event::Endpoints {
            available: self.entries.len() - ejected - half_open,
            ejected,
            probation: half_open,
        });
    }

    /// Builds the picker of the current state. Its services are to be cloned from the ones it
    /// holds.
    pub(crate) fn build(&mut self, now: Instant) -> Picker<Arc<S>> {
        self.version += 1;
        self.choose_subset();
        self.next_growth = self.growth_at(now);
        let evaluation = self.evaluation(now);
        self.note_panic(&evaluation);
        self.count_states();
        for entry in self.entries.values().filter(|entry| entry.is_unreachable() && !entry.is_half_open()) {
            // If no endpoint can be reached, all of them get calls, and the first successful call
            // shows that its endpoint can be. It shows nothing about its health.
            entry.stats.half_open.admit_all(evaluation.reachable == 0 && !entry.is_unhealthy());
        }
        let (all, respects_ejections) = (evaluation.all(), evaluation.respects_ejections);
        let half_open = all.iter().filter(|endpoint| endpoint.is_half_open).map(|endpoint| endpoint.member.clone());
        let (scope, labelled) = (self.scope(&all, respects_ejections), self.labelled(&all, respects_ejections));
        let services = self.entries.values().map(|entry| entry.service.clone());
        let entries = self.entries.values().zip(&evaluation.endpoints);
        let fallbacks = entries.filter_map(|(entry, endpoint)| Some((entry.fallback()?, endpoint.member.clone())));
        Picker::new(self.version, services, scope, labelled, half_open.collect(), fallbacks.collect())
    }

    /// Moves endpoints into the subset and out of it.
    fn choose_subset(&mut self) {
        let Some(subset) = &self.settings.subset else { return };
        let ids: Vec<_> = self.entries.keys().chain(self.outside.keys()).copied().collect();
        let candidates: Vec<_> =
            self.entries.values().chain(self.outside.values()).map(Entry::subset_candidate).collect();
        let fractions = subset.choose(&candidates, self.siblings.as_ref());
        for (id, fraction) in ids.into_iter().zip(fractions) {
            match fraction {
                Some(fraction) => {
                    if let Some(entry) = self.outside.remove(&id) {
                        self.entries.insert(id, entry);
                    }
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.fraction = fraction;
                    }
                }
                None => {
                    let Some(mut entry) = self.entries.remove(&id) else { continue };
                    // Nothing will be known of its state when it returns.
                    entry.state = State::Available;
                    entry.stats.half_open.stop();
                    self.outside.insert(id, entry);
                }
            }
        }
    }

    /// Returns the time at which weights change next because of slow start.
    fn growth_at(&self, now: Instant) -> Option<Instant> {
        let slow_start = self.settings.slow_start.as_ref()?;
        let is_growing = |entry: &Entry<S>| entry.age.is_some_and(|age| slow_start.factor(age.at(now)).is_some());
        self.entries.values().any(is_growing).then(|| now + slow_start.step())
    }

    pub(crate) fn evaluation(&self, now: Instant) -> Evaluation {
        let reachable = self.entries.values().filter(|entry| !entry.is_unreachable());
        let (available, reachable) = reachable.fold((0, 0), |(available, reachable), entry| {
            (available + usize::from(entry.state == State::Available), reachable + 1)
        });
        let is_panic = self.settings.ejection.is_panic(available, reachable);
        let is_candidate = |entry: &Entry<S>| match (reachable, is_panic) {
            // The errors of such calls show the cause, and a call that succeeds shows a recovery.
            (0, _) => true,
            (_, true) => !entry.is_unreachable(),
            (_, false) => entry.state == State::Available,
        };
        let endpoint = |id: &EndpointId, position: usize, entry: &Entry<S>| EvaluatedEndpoint {
            member: Member {
                id: *id,
                position: position as u32,
                stats: entry.stats.clone(),
                attributes: entry.attributes.clone(),
            },
            weight: entry.weight(),
            growth: self.growth(entry, now),
            fraction: Some(entry.fraction),
            is_candidate: is_candidate(entry),
            is_half_open: entry.is_half_open(),
        };
        let inside = self.entries.iter().enumerate().map(|(position, (id, entry))| endpoint(id, position, entry));
        let outside = self.outside.iter().map(|(id, entry)| EvaluatedEndpoint {
            fraction: None,
            is_candidate: false,
            is_half_open: false,
            ..endpoint(id, usize::MAX, entry)
        });
        let endpoints = inside.chain(outside).collect();
        Evaluation { endpoints, respects_ejections: reachable > 0 && !is_panic, is_panic, available, reachable }
    }

    fn growth(&self, entry: &Entry<S>, now: Instant) -> f64 {
        let slow_start = self.settings.slow_start.as_ref().zip(entry.age);
        slow_start.and_then(|(slow_start, age)| slow_start.factor(age.at(now))).unwrap_or(1.0)
    }

    fn note_panic(&mut self, evaluation: &Evaluation) {
        let (panic, left, of) = (evaluation.is_panic, evaluation.available, evaluation.reachable);
        if panic == self.panic {
            return;
        }
        self.panic = panic;
        let app = self.settings.app.as_deref();
        match panic {
            true => warn!(app, left, of, "too few endpoints available, ejections are ignored"),
            false => info!(app, left, of, "enough endpoints available, ejections count again"),
        }
    }

    fn labelled(&self, all: &[&EvaluatedEndpoint], respects_ejections: bool) -> Labelled {
        let by_value = |key: &Arc<str>| {
            let mut with = HashMap::<LabelValue<'_>, Vec<&EvaluatedEndpoint>>::new();
            for endpoint in all {
                if let Some(value) = endpoint.member.attributes.label(key) {
                    with.entry(LabelValue::new(key, value)).or_default().push(endpoint);
                }
            }
            with.retain(|_, endpoints| endpoints.iter().any(|endpoint| endpoint.is_candidate));
            with.into_iter().map(|(value, endpoints)| (value, self.scope(&endpoints, respects_ejections))).collect()
        };
        self.settings.labels.iter().map(|key| (key.clone(), by_value(key))).collect()
    }

    fn scope(&self, all: &[&EvaluatedEndpoint], respects_ejections: bool) -> Scope {
        let candidates = || all.iter().filter(|endpoint| endpoint.is_candidate);
        let available = EndpointList::new(candidates().map(|endpoint| endpoint.weighted()));
        let with_half_open = all.iter().any(|endpoint| endpoint.is_half_open).then(|| {
            let members = all.iter().filter(|endpoint| endpoint.is_candidate || endpoint.is_half_open);
            EndpointList::new(members.map(|endpoint| endpoint.weighted()))
        });
        let split = self.split(all, respects_ejections).0;
        let mut members = BTreeMap::<Zone, Vec<_>>::new();
        if !split.is_empty() {
            for endpoint in candidates() {
                members.entry(zone(endpoint.zone())).or_default().push(endpoint.weighted());
            }
        }
        // The subset may have no endpoint in a zone that has a share.
        let groups = split.iter().filter(|(_, zone)| zone.share > 0.0).filter_map(|(name, zone)| {
            let members = members.remove(name)?;
            Some((EndpointList::new(members), zone.share as f32))
        });
        let (zones, shares): (Vec<_>, Vec<_>) = groups.unzip();
        Scope { available, with_half_open, zones, zone_shares: Weights::new(shares) }
    }

    /// Returns the zones with their shares of the calls, and the rule in force. Without a split
    /// there are no zones.
    pub(crate) fn split(
        &self,
        all: &[&EvaluatedEndpoint],
        respects_ejections: bool,
    ) -> (BTreeMap<Zone, Share>, ZoneRule) {
        let Some(aware) = &self.settings.zones else { return (BTreeMap::new(), ZoneRule::Off) };
        if !respects_ejections {
            return (BTreeMap::new(), ZoneRule::TooFewAvailable);
        }
        let callers = self.siblings.as_ref().and_then(|siblings| siblings.callers());
        match aware.split(all.iter().map(|endpoint| endpoint.zoned()), callers) {
            Ok(zones) => {
                let rule = aware.rule(&zones);
                (zones, rule)
            }
            Err(rule) => (BTreeMap::new(), rule),
        }
    }
}

impl<S> Entry<S> {
    /// Tier in which a retry uses the endpoint. `None` if it takes calls.
    fn fallback(&self) -> Option<Fallback> {
        match self.state {
            State::Available => None,
            State::Ejected { cause, .. } | State::HalfOpen { cause, .. } => Some(match cause {
                Cause::Unreachable => Fallback::Unreachable,
                Cause::HealthCheck => Fallback::Unhealthy,
                _ => Fallback::Ejected,
            }),
        }
    }

    fn weight(&self) -> f64 {
        let weight = f64::from(self.attributes.weight.unwrap_or(1.0));
        if weight > 0.0 && weight.is_finite() { weight } else { 1.0 }
    }

    fn subset_candidate(&self) -> SubsetCandidate<'_> {
        let id = &self.stats.details.instance;
        SubsetCandidate { id, weight: self.weight(), available: self.state == State::Available }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tower::discover::Change;

    use crate::balance::{Attributes, Balance, Ejection, SlowStart, ZoneAware};

    #[tokio::test(start_paused = true)]
    async fn weights_change_only_while_an_endpoint_is_in_its_window() {
        let discover = [Ok::<_, Infallible>(Change::Insert(1, u64::MAX)), Ok(Change::Insert(2, 1))];
        let balance = Balance::builder(tokio_stream::iter(discover))
            .attributes(|since| Attributes::new().with_up_since_ms(*since))
            .slow_start(SlowStart::new(Duration::from_secs(10)))
            .ejection(Ejection::off())
            .build();
        assert!(balance.ready(None).await);
        let mut steps = 0;
        loop {
            // In its own statement, so that the lock is released.
            let next = balance.shared.pool().next_deadline(true);
            let Some(next) = next else { break };
            tokio::time::sleep_until(next + Duration::from_millis(1)).await;
            steps += 1;
            assert!(steps < 200, "it never ends");
        }
        assert!((90..=101).contains(&steps), "{steps} steps of a hundredth of the window");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_leaves_the_zone_after_it_has_tried_all_of_it() {
        let discover = [(1, "a"), (2, "a"), (3, "b")].map(|(id, zone)| Ok::<_, Infallible>(Change::Insert(id, zone)));
        let balance = Balance::builder(tokio_stream::iter(discover))
            .attributes(|zone| Attributes::new().with_zone(*zone))
            .zone_aware(ZoneAware::new("a").min_endpoints(1))
            .build();
        assert!(balance.ready(None).await);
        for _ in 0..20 {
            let (mut tried, mut zones) = (Vec::new(), Vec::new());
            while let Some(picked) = balance.pick(&(), &tried) {
                tried.push(picked.id());
                zones.push(*picked.service());
            }
            assert_eq!(zones, ["a", "a", "b"]);
        }
    }
}
