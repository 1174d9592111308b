//! Immutable view that picks read. Rebuilt whenever the endpoints change.
//!
//! ```text
//! Picker ─┬─ all ───────────────── Scope ─┬─ available: EndpointList
//!         ├─ labelled[key][value]  Scope  ├─ with_half_open: EndpointList, for affinity
//!         │                               └─ zones: EndpointList each, drawn by its share
//!         ├─ half_open: endpoints whose probe permit may be free
//!         └─ fallbacks: endpoints that take no calls, for retries
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use crate::balance::candidates::{Candidates, EndpointList, Member};
use crate::balance::endpoint::{EndpointId, Permit, Stats, Tick, Timestamp};
use crate::balance::label_value::{ByLabelValue, LabelValue};
use crate::balance::policy::{Label, Policy};
use crate::balance::weights::{Weights, below};

/// Endpoints by key and value of a label.
pub(super) type Labelled = HashMap<Arc<str>, ByLabelValue<Scope>>;

/// Endpoints of a balancer at one moment.
pub(crate) struct Picker<S> {
    /// Greater than that of all earlier pickers.
    pub(crate) version: u64,
    /// Services in the order of the endpoints' ids. Cloned for the picker, so that picks find them
    /// close together.
    services: Box<[S]>,
    all: Scope,
    labelled: Labelled,
    half_open: Vec<Member>,
    /// Endpoints that take no calls, for retries that find no other.
    fallbacks: Vec<(Fallback, Member)>,
}

/// Order in which retries use endpoints that take no calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fallback {
    /// Ejected for the outcome of calls, which is a guess.
    Ejected,
    Unhealthy,
    Unreachable,
}

/// Endpoints that a request may go to: all of them, or those with its label.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) available: EndpointList,
    /// The available endpoints and those that are half-open, if there are any: for policies with
    /// affinity.
    pub(crate) with_half_open: Option<EndpointList>,
    /// Available endpoints of each zone. Empty unless calls are split by zone.
    pub(crate) zones: Vec<EndpointList>,
    /// Share of the calls of each zone. `None` if all are equal.
    pub(crate) zone_shares: Option<Weights>,
}

/// Endpoint that was picked.
pub(crate) struct Chosen<'a, S> {
    pub(crate) stats: &'a Arc<Stats>,
    pub(crate) service: &'a S,
    /// Probe permit, if the call decides on a half-open endpoint.
    pub(crate) permit: Permit,
}

#[cfg(test)]
impl<S> Chosen<'_, S> {
    fn id(&self) -> EndpointId {
        self.stats.details.id
    }
}

impl Scope {
    /// Returns the endpoints of all zones, including half-open ones.
    fn with_half_open(&self) -> &EndpointList {
        self.with_half_open.as_ref().unwrap_or(&self.available)
    }

    /// Draws the zone that the call goes to.
    #[inline]
    fn draw_zone(&self) -> &EndpointList {
        match self.zones.len() {
            0 => &self.available,
            zones => {
                let random = fastrand::u64(..);
                &self.zones[self.zone_shares.as_ref().map_or_else(|| below(zones, random >> 32), |s| s.draw(random))]
            }
        }
    }
}

impl<S> Picker<S> {
    pub(crate) fn new(
        version: u64,
        services: impl IntoIterator<Item = S>,
        all: Scope,
        labelled: Labelled,
        half_open: Vec<Member>,
        fallbacks: Vec<(Fallback, Member)>,
    ) -> Self {
        Self { version, services: services.into_iter().collect(), all, labelled, half_open, fallbacks }
    }

    pub(crate) fn empty() -> Self {
        Self::new(0, [], Scope::default(), HashMap::new(), Vec::new(), Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    /// Maps the services.
    pub(crate) fn map<T>(self, service: impl FnMut(S) -> T) -> Picker<T> {
        let Self { version, services, all, labelled, half_open, fallbacks } = self;
        Picker { version, services: services.into_iter().map(service).collect(), all, labelled, half_open, fallbacks }
    }

    #[cfg(test)]
    pub(crate) fn stats(&self) -> impl Iterator<Item = &Stats> {
        self.all.available.members.iter().map(|member| &*member.stats)
    }

    /// Returns `true` if endpoints are indexed by this label, so that requests can choose by it.
    pub(crate) fn indexes_label(&self, key: &str) -> bool {
        self.labelled.contains_key(key)
    }

    /// Returns the endpoint that `policy` picks for `request`, except for those that were tried.
    #[inline]
    pub(crate) fn pick<Req: ?Sized>(
        &self,
        now: Timestamp,
        request: &Req,
        policy: &impl Policy<Req>,
        label: Option<Label<'_>>,
        tried: &[EndpointId],
    ) -> Option<Chosen<'_, S>> {
        let scope = label.map_or(Some(&self.all), |label| self.labelled(label));
        let now = now.tick();
        if let Some(scope) = scope
            && let Some(chosen) =
                self.pick_from(scope.with_half_open(), now, tried, |all| policy.affinity(request, all))
        {
            return Some(chosen);
        }
        if !self.half_open.is_empty()
            && tried.is_empty()
            && let Some(chosen) = self.half_open_endpoint(label)
        {
            return Some(chosen);
        }
        let scope = scope?;
        let picked = self.pick_from(scope.draw_zone(), now, tried, |candidates| policy.pick(request, candidates));
        if picked.is_none() && !tried.is_empty() {
            // A retry that has tried the whole zone may leave it.
            return self.pick_from(&scope.available, now, tried, |candidates| policy.pick(request, candidates));
        }
        picked
    }

    /// Returns the endpoint with this id, if it takes calls.
    pub(crate) fn find(&self, id: EndpointId) -> Option<Chosen<'_, S>> {
        let member = self.all.with_half_open().members.iter().find(|member| member.id == id)?;
        Some(self.chosen(&member.stats, member.position, member.stats.half_open.acquire()))
    }

    /// Returns an endpoint that takes no calls, for a retry that [`pick`](Self::pick) finds none
    /// for. Drawn at random within a tier.
    #[cold]
    pub(crate) fn fallback(&self, label: Option<Label<'_>>, tried: &[EndpointId]) -> Option<Chosen<'_, S>> {
        let label = label.filter(|label| label.required || self.has(*label));
        let untried =
            || self.fallbacks.iter().filter(|(_, member)| matches(member, label) && !tried.contains(&member.id));
        let first = untried().map(|(tier, _)| *tier).min()?;
        let equals = || untried().filter(|(tier, _)| *tier == first);
        let (_, member) = equals().nth(fastrand::usize(..equals().count()))?;
        Some(self.chosen(&member.stats, member.position, member.stats.half_open.acquire()))
    }

    /// Returns a half-open endpoint whose probe permit is free.
    #[cold]
    fn half_open_endpoint(&self, label: Option<Label<'_>>) -> Option<Chosen<'_, S>> {
        // A label that no endpoint has, and that is not required, excludes no half-open endpoint.
        let label = label.filter(|label| label.required || self.has(*label));
        let suitable = self.half_open.iter().filter(|member| matches(member, label));
        let wanted =
            suitable.map(|member| (member, member.stats.half_open.acquire())).find(|(_, permit)| permit.is_some());
        wanted.map(|(member, permit)| self.chosen(&member.stats, member.position, permit))
    }

    #[inline]
    fn pick_from<'a>(
        &'a self,
        list: &'a EndpointList,
        now: Tick,
        tried: &[EndpointId],
        pick: impl FnOnce(&Candidates<'_>) -> Option<usize>,
    ) -> Option<Chosen<'a, S>> {
        let positions: Vec<usize>;
        let mut excluded: &[usize] = &[];
        if !tried.is_empty() {
            positions = list.positions(tried);
            excluded = &positions;
        }
        let candidates = Candidates { list, excluded, now };
        if candidates.is_empty() {
            return None;
        }
        let picked = pick(&candidates)?;
        debug_assert!(picked < candidates.len(), "a policy picked {picked} of {}", candidates.len());
        let at = candidates.at(picked);
        let stats = list.stats.get(at)?;
        Some(self.chosen(stats, list.positions[at], stats.half_open.acquire()))
    }

    #[inline]
    fn chosen<'a>(&'a self, stats: &'a Arc<Stats>, position: u32, permit: Permit) -> Chosen<'a, S> {
        Chosen { stats, service: &self.services[position as usize], permit }
    }

    /// Returns `true` if an endpoint with this label takes calls.
    pub(crate) fn has(&self, label: Label<'_>) -> bool {
        self.with_label(label).is_some()
    }

    /// Returns the endpoints with this label, or all if none has it and it is not required.
    fn labelled(&self, label: Label<'_>) -> Option<&Scope> {
        self.with_label(label).or((!label.required).then_some(&self.all))
    }

    fn with_label(&self, label: Label<'_>) -> Option<&Scope> {
        self.labelled.get(label.key)?.get(LabelValue::new(label.key, label.value))
    }
}

/// Returns `true` if a call with this label may go to the endpoint.
fn matches(member: &Member, label: Option<Label<'_>>) -> bool {
    label.is_none_or(|label| member.has_label(label.key, label.value))
}

#[cfg(test)]
mod tests;
