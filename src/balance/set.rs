//! What a pick chooses from: worked out when the endpoints change, immutable until they change again.
//!
//! ```text
//! EndpointSet ─┬─ all ────────────── View ─┬─ whole: Group      for policies that span zones
//!              ├─ labelled[key][value] View └─ zones: Group each, and with what share one is drawn
//!              └─ probing: endpoints in probation that want one call
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::attributes::Attributes;
use super::cells::Ticket;
use super::endpoint::{EndpointId, Stats};
use super::load::{Tick, tick};
use super::policy::{Label, Policy};
use super::weights::Weights;

/// The endpoints of a balancer at one moment.
pub(super) struct EndpointSet<S> {
    base: Instant,
    /// In the order of their ids. Shared with the roster, so that a new set clones no service.
    services: Vec<Arc<S>>,
    all: View,
    labelled: HashMap<Arc<str>, HashMap<Arc<str>, View>>,
    probing: Vec<Member>,
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
    weights: Option<Weights>,
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
    pub(super) id: EndpointId,
    pub(super) stats: Arc<Stats>,
    pub(super) service: &'a S,
    /// The call's part in the endpoint's probation.
    pub(super) ticket: Ticket,
}

impl Group {
    /// The members with their weights.
    pub(super) fn new(members: impl IntoIterator<Item = (Member, f32)>) -> Self {
        let (members, weights): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        Self { members, weights: Weights::new(weights) }
    }
}

impl View {
    /// The group that this call chooses among.
    fn group(&self, spans_zones: bool) -> &Group {
        match self.zones.len() {
            _ if spans_zones => self.every.as_ref().unwrap_or(&self.whole),
            0 => &self.whole,
            zones => {
                let random = fastrand::u64(..);
                &self.zones[self.shares.as_ref().map_or_else(|| below(zones, random >> 32), |s| s.draw(random))]
            }
        }
    }
}

impl<S> EndpointSet<S> {
    /// `base` is the one that the endpoints' loads count from.
    pub(super) fn new(
        base: Instant,
        services: Vec<Arc<S>>,
        all: View,
        labelled: HashMap<Arc<str>, HashMap<Arc<str>, View>>,
        probing: Vec<Member>,
    ) -> Self {
        Self { base, services, all, labelled, probing }
    }

    pub(super) fn empty(base: Instant) -> Self {
        Self::new(base, Vec::new(), View::default(), HashMap::new(), Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.services.len()
    }

    #[cfg(test)]
    pub(super) fn stats(&self) -> impl Iterator<Item = &Stats> {
        self.all.whole.members.iter().map(|member| &*member.stats)
    }

    /// What `policy` picks for `request`, leaving out those that were tried.
    pub(super) fn choose<Req: ?Sized>(
        &self,
        now: Instant,
        request: &Req,
        policy: &impl Policy<Req>,
        tried: &[EndpointId],
    ) -> Option<Chosen<'_, S>> {
        let label = policy.label(request);
        let spans_zones = policy.spans_zones();
        let may_probe = !self.probing.is_empty() && tried.is_empty() && !spans_zones;
        if may_probe {
            let suitable = self.probing.iter().filter(|member| member.suits(label));
            let wanted =
                suitable.map(|member| (member, member.stats.trial.take())).find(|(_, ticket)| ticket.is_some());
            if let Some((member, ticket)) = wanted {
                return Some(self.chosen(member, ticket));
            }
        }
        let view = label.map_or(Some(&self.all), |label| self.labelled(label))?;
        let now = tick(self.base, now);
        let group = view.group(spans_zones);
        let picked = self.pick(group, now, request, policy, tried);
        if picked.is_none() && !tried.is_empty() && !spans_zones {
            // Where a retry has tried the whole zone, another zone is as good.
            return self.pick(&view.whole, now, request, policy, tried);
        }
        picked
    }

    fn pick<'a, Req: ?Sized>(
        &'a self,
        group: &'a Group,
        now: Tick,
        request: &Req,
        policy: &impl Policy<Req>,
        tried: &[EndpointId],
    ) -> Option<Chosen<'a, S>> {
        let excluded = group.positions(tried);
        let candidates = Candidates { group, excluded: &excluded, now };
        if candidates.is_empty() {
            return None;
        }
        let picked = policy.pick(request, &candidates)?;
        debug_assert!(picked < candidates.len(), "a policy picked {picked} of {}", candidates.len());
        let member = group.members.get(candidates.at(picked))?;
        Some(self.chosen(member, member.stats.trial.take()))
    }

    fn chosen(&self, member: &Member, ticket: Ticket) -> Chosen<'_, S> {
        let service = &self.services[member.position as usize];
        Chosen { id: member.id, stats: member.stats.clone(), service, ticket }
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
    pub fn are_equal(&self) -> bool {
        self.group.weights.is_none()
    }

    /// Calls to the endpoint that are not over: until the end of the answer's body, where there is one.
    pub fn pending(&self, position: usize) -> usize {
        self.member(position).stats.load.pending()
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
    pub fn draw_two(&self) -> (usize, usize) {
        two_of(self.len())
    }

    pub(super) fn latency_nanos(&self, position: usize) -> f32 {
        self.member(position).stats.load.latency(self.now)
    }

    /// What one more call is expected to cost: latency times calls.
    pub(super) fn cost(&self, position: usize) -> f32 {
        self.member(position).stats.load.metric(self.now)
    }

    fn member(&self, position: usize) -> &Member {
        &self.group.members[self.at(position)]
    }

    /// The position in the group.
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
    /// Where these stand, ascending. Allocates nothing for none.
    fn positions(&self, ids: &[EndpointId]) -> Vec<usize> {
        if ids.is_empty() {
            return Vec::new();
        }
        (0..self.members.len()).filter(|&at| ids.contains(&self.members[at].id)).collect()
    }
}

/// A number below `n` from 32 random bits. The bias of n / 2^32 does not matter here.
pub(super) fn below(n: usize, bits: u64) -> usize {
    (((bits & 0xffff_ffff) * n as u64) >> 32) as usize
}

/// Two different numbers below `n` from one draw; 0 twice for 1.
fn two_of(n: usize) -> (usize, usize) {
    let random = fastrand::u64(..);
    let first = below(n, random >> 32);
    if n < 2 {
        return (first, first);
    }
    let second = below(n - 1, random);
    (first, if second >= first { second + 1 } else { second })
}
