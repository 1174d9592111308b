//! What a pick chooses from: worked out when the endpoints change, immutable until they change again.
//!
//! ```text
//! EndpointSet ─┬─ all ────────────── View ─┬─ whole: Group      for policies that span zones
//!              ├─ labelled[key][value] View └─ zones: Group each, and with what share one is drawn
//!              └─ probing: endpoints in probation that want one call
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::attributes::Attributes;
use super::cells::Ticket;
use super::endpoint::{EndpointId, Stats};
use super::load::{Moment, Tick};
use super::policy::{self, Label, Policy};
use super::weights::Weights;

/// The endpoints of a balancer at one moment.
pub(super) struct EndpointSet<S> {
    /// Greater than those of the sets before.
    pub(super) number: u64,
    /// In the order of their ids. Its own, so that a pick finds them close together.
    services: Box<[S]>,
    all: View,
    labelled: HashMap<Arc<str>, HashMap<Arc<str>, View>>,
    probing: Vec<Member>,
    /// Endpoints that take no calls, for retries that find no other.
    out: Vec<(Resort, Member)>,
}

/// Order in which retries turn to endpoints that take no calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resort {
    /// Ejected for how calls ended, which is a guess.
    Ejected,
    Unhealthy,
    Unreachable,
}

/// One choice: zones first, then the endpoints of one.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) whole: Group,
    /// The whole with those in probation, if there are any: for policies that cannot give them a call out of turn.
    pub(super) every: Option<Group>,
    /// Empty unless calls are split by zone.
    pub(super) zones: Vec<Group>,
    /// With what share each of the zones is drawn; `None` for equal ones.
    pub(super) shares: Option<Weights>,
}

/// Endpoints that a policy chooses among.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: Vec<Member>,
    /// What a pick looks at of the members, close together.
    stats: Box<[Arc<Stats>]>,
    positions: Box<[u32]>,
    weights: Option<Weights>,
    /// Whose turn it is, for policies that go round.
    turn: AtomicU64,
    /// The hash of each member's id, once a policy has asked for them.
    identities: OnceLock<Box<[u64]>>,
}

/// An endpoint in a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: EndpointId,
    /// Where it stands in the set.
    pub(super) position: u32,
    pub(super) stats: Arc<Stats>,
    pub(super) attributes: Arc<Attributes>,
}

/// The choice.
pub(super) struct Chosen<'a, S> {
    pub(super) stats: &'a Arc<Stats>,
    pub(super) service: &'a S,
    /// The call's part in the endpoint's probation.
    pub(super) ticket: Ticket,
}

#[cfg(test)]
impl<S> Chosen<'_, S> {
    fn id(&self) -> EndpointId {
        self.stats.details.id
    }
}

impl Group {
    /// The members with their weights.
    pub(super) fn new(members: impl IntoIterator<Item = (Member, f32)>) -> Self {
        let (members, weights): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        // Callers that start together should not begin with the same endpoint.
        let turn = AtomicU64::new(u64::from(fastrand::u32(..)));
        let stats = members.iter().map(|member: &Member| member.stats.clone()).collect();
        let positions = members.iter().map(|member| member.position).collect();
        Self { members, stats, positions, weights: Weights::new(weights), turn, identities: OnceLock::new() }
    }

    fn identities(&self) -> &[u64] {
        let hash = |member: &Member| policy::hash(member.stats.details.instance.as_bytes());
        self.identities.get_or_init(|| self.members.iter().map(hash).collect())
    }
}

impl View {
    /// The endpoints of all zones, those in probation too.
    fn every(&self) -> &Group {
        self.every.as_ref().unwrap_or(&self.whole)
    }

    /// The group that this call chooses among.
    #[inline]
    fn group(&self) -> &Group {
        match self.zones.len() {
            0 => &self.whole,
            zones => {
                let random = fastrand::u64(..);
                &self.zones[self.shares.as_ref().map_or_else(|| below(zones, random >> 32), |s| s.draw(random))]
            }
        }
    }
}

impl<S> EndpointSet<S> {
    pub(super) fn new(
        number: u64,
        services: impl IntoIterator<Item = S>,
        all: View,
        labelled: HashMap<Arc<str>, HashMap<Arc<str>, View>>,
        probing: Vec<Member>,
        out: Vec<(Resort, Member)>,
    ) -> Self {
        Self { number, services: services.into_iter().collect(), all, labelled, probing, out }
    }

    pub(super) fn empty() -> Self {
        Self::new(0, [], View::default(), HashMap::new(), Vec::new(), Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    /// The same with services that were made of these.
    pub(super) fn map<T>(self, service: impl FnMut(S) -> T) -> EndpointSet<T> {
        let Self { number, services, all, labelled, probing, out } = self;
        EndpointSet { number, services: services.into_iter().map(service).collect(), all, labelled, probing, out }
    }

    #[cfg(test)]
    pub(super) fn stats(&self) -> impl Iterator<Item = &Stats> {
        self.all.whole.members.iter().map(|member| &*member.stats)
    }

    /// Whether endpoints are kept apart by this label, so that requests can choose by it.
    pub(super) fn keeps_apart(&self, key: &str) -> bool {
        self.labelled.contains_key(key)
    }

    /// What `policy` picks for `request`, which asks for `label`, leaving out those that were tried.
    #[inline]
    pub(super) fn choose<Req: ?Sized>(
        &self,
        now: Moment,
        request: &Req,
        policy: &impl Policy<Req>,
        label: Option<Label<'_>>,
        tried: &[EndpointId],
    ) -> Option<Chosen<'_, S>> {
        let view = label.map_or(Some(&self.all), |label| self.labelled(label));
        let now = now.tick();
        if let Some(view) = view
            && let Some(chosen) = self.pick(view.every(), now, tried, |all| policy.affinity(request, all))
        {
            return Some(chosen);
        }
        if !self.probing.is_empty()
            && tried.is_empty()
            && let Some(chosen) = self.on_probation(label)
        {
            return Some(chosen);
        }
        let view = view?;
        let picked = self.pick(view.group(), now, tried, |candidates| policy.pick(request, candidates));
        if picked.is_none() && !tried.is_empty() {
            // Where a retry has tried the whole zone, another zone is as good.
            return self.pick(&view.whole, now, tried, |candidates| policy.pick(request, candidates));
        }
        picked
    }

    /// The endpoint with this id, if it takes calls.
    pub(super) fn find(&self, id: EndpointId) -> Option<Chosen<'_, S>> {
        let member = self.all.every().members.iter().find(|member| member.id == id)?;
        Some(self.chosen(&member.stats, member.position, member.stats.trial.take()))
    }

    /// Endpoint for a retry where [`choose`](Self::choose) finds none: one that takes no calls otherwise. Among
    /// equals it is drawn at random.
    #[cold]
    pub(super) fn last_resort(&self, label: Option<Label<'_>>, tried: &[EndpointId]) -> Option<Chosen<'_, S>> {
        let label = label.filter(|label| label.required || self.has(*label));
        let left = || self.out.iter().filter(|(_, member)| member.suits(label) && !tried.contains(&member.id));
        let first = left().map(|(resort, _)| *resort).min()?;
        let equals = || left().filter(|(resort, _)| *resort == first);
        let (_, member) = equals().nth(fastrand::usize(..equals().count()))?;
        Some(self.chosen(&member.stats, member.position, member.stats.trial.take()))
    }

    /// An endpoint in probation that wants a call, if there is one.
    #[cold]
    fn on_probation(&self, label: Option<Label<'_>>) -> Option<Chosen<'_, S>> {
        // A label that nobody has, and nobody must have, keeps no endpoint on probation.
        let label = label.filter(|label| label.required || self.has(*label));
        let suitable = self.probing.iter().filter(|member| member.suits(label));
        let wanted = suitable.map(|member| (member, member.stats.trial.take())).find(|(_, ticket)| ticket.is_some());
        wanted.map(|(member, ticket)| self.chosen(&member.stats, member.position, ticket))
    }

    #[inline]
    fn pick<'a>(
        &'a self,
        group: &'a Group,
        now: Tick,
        tried: &[EndpointId],
        pick: impl FnOnce(&Candidates<'_>) -> Option<usize>,
    ) -> Option<Chosen<'a, S>> {
        let positions: Vec<usize>;
        let mut excluded: &[usize] = &[];
        if !tried.is_empty() {
            positions = group.positions(tried);
            excluded = &positions;
        }
        let candidates = Candidates { group, excluded, now };
        if candidates.is_empty() {
            return None;
        }
        let picked = pick(&candidates)?;
        debug_assert!(picked < candidates.len(), "a policy picked {picked} of {}", candidates.len());
        let at = candidates.at(picked);
        let stats = group.stats.get(at)?;
        Some(self.chosen(stats, group.positions[at], stats.trial.take()))
    }

    #[inline]
    fn chosen<'a>(&'a self, stats: &'a Arc<Stats>, position: u32, ticket: Ticket) -> Chosen<'a, S> {
        Chosen { stats, service: &self.services[position as usize], ticket }
    }

    /// Whether an endpoint with this label takes calls.
    pub(super) fn has(&self, label: Label<'_>) -> bool {
        self.labelled.get(label.key).is_some_and(|values| values.contains_key(label.value))
    }

    /// The endpoints with this label, or all where none has it and it is not required.
    fn labelled(&self, label: Label<'_>) -> Option<&View> {
        let view = self.labelled.get(label.key).and_then(|values| values.get(label.value));
        view.or((!label.required).then_some(&self.all))
    }
}

/// The endpoints that may take a request, by position.
///
/// Positions hold for this one pick. What is told of an endpoint is as of now and costs no lock.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    group: &'a Group,
    /// Ascending. Positions outside count only the others: each excluded position up to there is stepped over.
    excluded: &'a [usize],
    now: Tick,
}

impl Candidates<'_> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.group.members.len() - self.excluded.len()
    }

    /// Never, in a policy.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The endpoint's id: the instance's, where instances are balanced.
    pub fn id(&self, position: usize) -> &str {
        &self.member(position).stats.details.instance
    }

    /// What is known of the endpoint.
    pub fn attributes(&self, position: usize) -> &Attributes {
        &self.member(position).attributes
    }

    /// The endpoint's share of calls relative to the average one's, which is 1: its weight, less what slow start takes off.
    pub fn weight(&self, position: usize) -> f32 {
        self.group.weights.as_ref().map_or(1.0, |weights| weights.relative(self.at(position)))
    }

    /// Whether all weigh the same.
    #[inline]
    pub fn are_equal(&self) -> bool {
        self.group.weights.is_none()
    }

    /// Calls to the endpoint that are not over: until the end of the answer's body, where there is one.
    #[inline]
    pub fn pending(&self, position: usize) -> usize {
        self.stats(position).load.pending()
    }

    /// The latency to be expected: a moving average that follows peaks at once and counts failures as slow.
    pub fn latency(&self, position: usize) -> Duration {
        Duration::from_nanos(self.latency_nanos(position) as u64)
    }

    /// A position at random, in proportion to the weights.
    pub fn draw(&self) -> usize {
        let random = fastrand::u64(..);
        match &self.group.weights {
            Some(weights) if self.excluded.is_empty() => weights.draw(random),
            Some(_) => self.draw_among_rest(random),
            None => below(self.len(), random >> 32),
        }
    }

    /// Two different positions at random, the same one twice if there is only one. Weights do not matter.
    #[inline]
    pub fn draw_two(&self) -> (usize, usize) {
        two_of(self.len())
    }

    /// The position of the endpoint with this id. Looks at all, for about a nanosecond each.
    pub fn position(&self, id: &str) -> Option<usize> {
        let hash = policy::hash(id.as_bytes());
        let is_it =
            |at: usize| self.group.identities()[at] == hash && *self.group.members[at].stats.details.instance == *id;
        let at = (0..self.group.members.len()).find(|at| is_it(*at))?;
        (!self.excluded.contains(&at)).then(|| at - self.excluded.iter().filter(|gap| **gap < at).count())
    }

    /// A number made of the endpoint's [`id`](Self::id), the same for every caller: what hashing by key goes by.
    pub fn identity(&self, position: usize) -> u64 {
        self.group.identities()[self.at(position)]
    }

    /// A number that goes up by one each time a policy asks for it, for all callers together. Begins anywhere, and anew when the
    /// endpoints change.
    pub fn turn(&self) -> u64 {
        self.group.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the request failed at other endpoints before.
    pub fn is_retry(&self) -> bool {
        !self.excluded.is_empty()
    }

    /// Whether the endpoint was ejected and has yet to show that it is well. Only [`affinity`](Policy::affinity) sees such ones.
    pub fn on_probation(&self, position: usize) -> bool {
        self.member(position).stats.trial.is_on()
    }

    /// Whether it is on probation and has its call.
    pub(super) fn is_busy_in_probation(&self, position: usize) -> bool {
        self.on_probation(position) && self.pending(position) > 0
    }

    /// The greatest of all weights.
    pub(super) fn heaviest(&self) -> f32 {
        self.group.weights.as_ref().map_or(1.0, Weights::heaviest)
    }

    #[inline]
    pub(super) fn latency_nanos(&self, position: usize) -> f32 {
        self.stats(position).load.latency(self.now)
    }

    /// What one more call is expected to cost: latency times calls.
    #[inline]
    pub(super) fn cost(&self, position: usize) -> f32 {
        self.stats(position).metric(self.now)
    }

    /// Pending calls, without those that last far longer than expected.
    #[inline]
    pub(super) fn busy(&self, position: usize) -> u32 {
        self.stats(position).busy(self.now)
    }

    /// Returns `true` while several calls wait there for longer than expected, without a sign of life.
    pub(super) fn is_silent(&self, position: usize) -> bool {
        self.stats(position).is_silent(self.now)
    }

    #[inline]
    fn stats(&self, position: usize) -> &Stats {
        &self.group.stats[self.at(position)]
    }

    fn member(&self, position: usize) -> &Member {
        &self.group.members[self.at(position)]
    }

    /// The position in the group.
    #[inline]
    fn at(&self, position: usize) -> usize {
        self.excluded.iter().fold(position, |at, &gap| at + usize::from(gap <= at))
    }

    /// Only retries come here, so it may cost a look at all.
    fn draw_among_rest(&self, random: u64) -> usize {
        let total: f32 = (0..self.len()).map(|position| self.weight(position)).sum();
        let mut left = total * (random >> 40) as f32 / (1u64 << 24) as f32;
        let reached = |position: &usize| {
            left -= self.weight(*position);
            left < 0.0
        };
        (0..self.len()).find(reached).unwrap_or(self.len() - 1)
    }
}

impl Member {
    /// Whether a call that asks for this label may go there.
    fn suits(&self, label: Option<Label<'_>>) -> bool {
        label.is_none_or(|label| self.attributes.label(label.key) == Some(label.value))
    }
}

impl Group {
    /// Where these stand, ascending.
    #[cold]
    fn positions(&self, ids: &[EndpointId]) -> Vec<usize> {
        (0..self.members.len()).filter(|&at| ids.contains(&self.members[at].id)).collect()
    }
}

/// A number below `n` from 32 random bits. The bias of n / 2^32 does not matter here.
#[inline]
pub(super) fn below(n: usize, bits: u64) -> usize {
    (((bits & 0xffff_ffff) * n as u64) >> 32) as usize
}

/// Two different numbers below `n` from one draw; 0 twice for 1.
#[inline]
fn two_of(n: usize) -> (usize, usize) {
    let random = fastrand::u64(..);
    let first = below(n, random >> 32);
    if n < 2 {
        return (first, first);
    }
    let second = below(n - 1, random);
    (first, if second >= first { second + 1 } else { second })
}

#[cfg(test)]
mod tests;
