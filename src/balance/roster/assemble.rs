//! How the set is made: subset, then who takes calls, then weights, labels and zones.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Entry, Roster, State};
use crate::balance::eject::Cause;
use crate::balance::endpoint::EndpointId;
use crate::balance::set::{EndpointSet, Group, Member, Resort, View};
use crate::balance::subset::Applicant;
use crate::balance::weights::Weights;
use crate::balance::zone::{Located, Share, Zone, zone};
use crate::metrics::Event;

/// An endpoint at the moment at which a set is made.
pub(super) struct Standing {
    member: Member,
    /// As given.
    pub(super) weight: f64,
    /// What part of its weight slow start leaves.
    growth: f64,
    /// What part of it counts in the subset; `None` outside.
    part: Option<f64>,
    /// Whether it takes calls.
    is_candidate: bool,
    is_probing: bool,
}

/// All endpoints at the moment at which a set is made.
pub(super) struct Standings {
    pub(super) endpoints: Vec<Standing>,
    /// Whether there is an endpoint that can be reached, and ejections count: else calls go to what there is.
    pub(super) is_calm: bool,
    pub(super) is_panic: bool,
    available: usize,
    reachable: usize,
}

type Labelled = HashMap<Arc<str>, HashMap<Arc<str>, View>>;

impl Standing {
    /// The weight with which it is drawn.
    pub(super) fn effective(&self) -> f64 {
        self.weight * self.growth * self.part.unwrap_or_default()
    }

    pub(super) fn zone(&self) -> Option<&str> {
        self.member.attributes.zone.as_deref()
    }

    fn weighted(&self) -> (Member, f32) {
        (self.member.clone(), self.effective() as f32)
    }

    fn located(&self) -> Located<'_> {
        // One that is outside the subset takes the calls of others.
        let available = self.is_candidate || self.part.is_none();
        Located { zone: self.zone(), weight: self.weight, available: available.then_some(self.weight * self.growth) }
    }
}

impl<S> Roster<S> {
    fn count_states(&self) {
        let (mut out, mut probation) = (0, 0);
        for entry in self.entries.values() {
            match entry.state {
                State::Available => {}
                State::Out { .. } => out += 1,
                State::Probation { .. } => probation += 1,
            }
        }
        self.settings.metrics.record(Event::Endpoints {
            available: self.entries.len() - out - probation,
            ejected: out,
            probation,
        });
    }

    /// The set that picks go by from now on, with the services that are its own yet to be made of these.
    pub(in crate::balance) fn set(&mut self, now: Instant) -> EndpointSet<Arc<S>> {
        self.sets += 1;
        self.choose_subset();
        self.next_growth = self.growth_at(now);
        let standings = self.standings(now);
        self.note_panic(&standings);
        self.count_states();
        for entry in self.entries.values().filter(|entry| entry.is_unreachable() && !entry.is_on_probation()) {
            // Where none can be reached all get calls, and the first that comes through shows it; of its health it shows nothing.
            entry.stats.trial.open(standings.reachable == 0 && !entry.is_unhealthy());
        }
        let all: Vec<_> = standings.endpoints.iter().collect();
        let probing =
            all.iter().filter(|standing| standing.is_probing).map(|standing| standing.member.clone()).collect();
        let (view, labelled) = (self.view(&all, standings.is_calm), self.labelled(&all, standings.is_calm));
        let services = self.entries.values().map(|entry| entry.service.clone());
        let out = self.entries.iter().zip(&standings.endpoints);
        let out = out.filter_map(|((_, entry), standing)| Some((entry.resort()?, standing.member.clone())));
        let out = out.collect();
        EndpointSet::new(self.sets, services, view, labelled, probing, out)
    }
}

impl<S> Roster<S> {
    /// Moves in who belongs to the subset, and out who does not.
    fn choose_subset(&mut self) {
        let Some(subset) = &self.settings.subset else { return };
        let ids: Vec<_> = self.entries.keys().chain(self.outside.keys()).copied().collect();
        let applicants: Vec<_> = self.entries.values().chain(self.outside.values()).map(Entry::applicant).collect();
        let parts = subset.choose(&applicants, self.peers.as_ref());
        for (id, part) in ids.into_iter().zip(parts) {
            match part {
                Some(part) => {
                    if let Some(entry) = self.outside.remove(&id) {
                        self.entries.insert(id, entry);
                    }
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.part = part;
                    }
                }
                None => {
                    let Some(mut entry) = self.entries.remove(&id) else { continue };
                    // When it comes back, nobody knows any more.
                    entry.state = State::Available;
                    entry.stats.trial.end();
                    self.outside.insert(id, entry);
                }
            }
        }
    }

    /// When weights have to be worked out again because of slow start.
    fn growth_at(&self, now: Instant) -> Option<Instant> {
        let slow_start = self.settings.slow_start.as_ref()?;
        let is_growing = |entry: &Entry<S>| entry.age.is_some_and(|age| slow_start.factor(age.at(now)).is_some());
        self.entries.values().any(is_growing).then(|| now + slow_start.step())
    }

    pub(super) fn standings(&self, now: Instant) -> Standings {
        let reachable = self.entries.values().filter(|entry| !entry.is_unreachable());
        let (available, reachable) = reachable.fold((0, 0), |(available, reachable), entry| {
            (available + usize::from(entry.state == State::Available), reachable + 1)
        });
        let is_panic = self.settings.ejection.is_panic(available, reachable);
        let is_candidate = |entry: &Entry<S>| match (reachable, is_panic) {
            // Then their errors say what is wrong, and a call that comes through is welcome.
            (0, _) => true,
            (_, true) => !entry.is_unreachable(),
            (_, false) => entry.state == State::Available,
        };
        let standing = |id: &EndpointId, position: usize, entry: &Entry<S>| Standing {
            member: Member {
                id: *id,
                position: position as u32,
                stats: entry.stats.clone(),
                attributes: entry.attributes.clone(),
            },
            weight: entry.weight(),
            growth: self.growth(entry, now),
            part: Some(entry.part),
            is_candidate: is_candidate(entry),
            is_probing: entry.is_on_probation(),
        };
        let inside = self.entries.iter().enumerate().map(|(position, (id, entry))| standing(id, position, entry));
        let outside = self.outside.iter().map(|(id, entry)| Standing {
            part: None,
            is_candidate: false,
            is_probing: false,
            ..standing(id, usize::MAX, entry)
        });
        let endpoints = inside.chain(outside).collect();
        Standings { endpoints, is_calm: reachable > 0 && !is_panic, is_panic, available, reachable }
    }

    fn growth(&self, entry: &Entry<S>, now: Instant) -> f64 {
        let slow_start = self.settings.slow_start.as_ref().zip(entry.age);
        slow_start.and_then(|(slow_start, age)| slow_start.factor(age.at(now))).unwrap_or(1.0)
    }

    fn note_panic(&mut self, standings: &Standings) {
        let (panic, left, of) = (standings.is_panic, standings.available, standings.reachable);
        if panic == self.panic {
            return;
        }
        self.panic = panic;
        let application = self.settings.name.as_deref();
        match panic {
            true => warn!(application, left, of, "too few endpoints left: ejections are disregarded"),
            false => info!(application, left, of, "enough endpoints again: ejections count"),
        }
    }

    fn labelled(&self, all: &[&Standing], is_calm: bool) -> Labelled {
        let by_value = |key: &Arc<str>| {
            let mut with = HashMap::<&str, Vec<&Standing>>::new();
            for standing in all {
                if let Some(value) = standing.member.attributes.label(key) {
                    with.entry(value).or_default().push(standing);
                }
            }
            with.retain(|_, standings| standings.iter().any(|standing| standing.is_candidate));
            with.into_iter().map(|(value, standings)| (value.into(), self.view(&standings, is_calm))).collect()
        };
        self.settings.labels.iter().map(|key| (key.clone(), by_value(key))).collect()
    }

    fn view(&self, all: &[&Standing], is_calm: bool) -> View {
        let candidates = || all.iter().filter(|standing| standing.is_candidate);
        let whole = Group::new(candidates().map(|standing| standing.weighted()));
        let every = all.iter().any(|standing| standing.is_probing).then(|| {
            let every = all.iter().filter(|standing| standing.is_candidate || standing.is_probing);
            Group::new(every.map(|standing| standing.weighted()))
        });
        let split = self.split(all, is_calm).unwrap_or_default();
        let mut members = BTreeMap::<Zone, Vec<_>>::new();
        if !split.is_empty() {
            for standing in candidates() {
                members.entry(zone(standing.zone())).or_default().push(standing.weighted());
            }
        }
        // Of a zone with a share, the subset may have nobody.
        let groups = split.iter().filter(|(_, zone)| zone.share > 0.0).filter_map(|(name, zone)| {
            let members = members.remove(name)?;
            Some((Group::new(members), zone.share as f32))
        });
        let (zones, shares): (Vec<_>, Vec<_>) = groups.unzip();
        View { whole, every, zones, shares: Weights::new(shares) }
    }

    /// The zones and their shares of the calls, where calls are split by zone.
    pub(super) fn split(&self, all: &[&Standing], is_calm: bool) -> Option<BTreeMap<Zone, Share>> {
        let zones = self.settings.zones.as_ref().filter(|_| is_calm)?;
        let callers = self.peers.as_ref().and_then(|peers| peers.callers());
        zones.split(all.iter().map(|standing| standing.located()), callers)
    }
}

impl<S> Entry<S> {
    /// Order in which a retry turns to it, unless it takes calls.
    fn resort(&self) -> Option<Resort> {
        match self.state {
            State::Available => None,
            State::Out { cause, .. } | State::Probation { cause, .. } => Some(match cause {
                Cause::Unreachable => Resort::Unreachable,
                Cause::HealthCheck => Resort::Unhealthy,
                _ => Resort::Ejected,
            }),
        }
    }

    fn weight(&self) -> f64 {
        let weight = f64::from(self.attributes.weight.unwrap_or(1.0));
        if weight > 0.0 && weight.is_finite() { weight } else { 1.0 }
    }

    fn applicant(&self) -> Applicant<'_> {
        let id = &self.stats.details.instance;
        Applicant { id, weight: self.weight(), available: self.state == State::Available }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tower::discover::Change;

    use crate::balance::{Attributes, Balance, Ejection, SlowStart, ZoneAware};

    #[tokio::test(start_paused = true)]
    async fn weights_are_worked_out_again_only_while_an_endpoint_is_in_its_window() {
        let discover = [Ok::<_, Infallible>(Change::Insert(1, u64::MAX)), Ok(Change::Insert(2, 1))];
        let balance = Balance::builder(tokio_stream::iter(discover))
            .attributes(|since| Attributes::new().with_up_since_ms(*since))
            .slow_start(SlowStart::new(Duration::from_secs(10)))
            .ejection(Ejection::off())
            .build();
        assert!(balance.ready(None).await);
        let mut steps = 0;
        loop {
            // On a line of its own: the lock must not be held any longer.
            let next = balance.shared.roster().next_deadline(true);
            let Some(next) = next else { break };
            tokio::time::sleep_until(next + Duration::from_millis(1)).await;
            steps += 1;
            assert!(steps < 200, "it never ends");
        }
        assert!((90..=101).contains(&steps), "{steps} steps of a hundredth of the window");
    }
    #[tokio::test(start_paused = true)]
    async fn a_retry_leaves_the_zone_when_it_has_tried_all_of_it() {
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
