//! Endpoints that a policy picks from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::attributes::Attributes;
use super::endpoint::{EndpointId, Stats, Tick};
use super::stable_hash::hash;
use super::weights::{Weights, below};

/// Endpoints that may take a request, by position.
///
/// Positions are valid for one pick only. All values are current and are read without a lock. A
/// method may panic if its position is not below [`len`](Self::len).
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    pub(super) list: &'a EndpointList,
    /// Excluded positions of the list, ascending. Positions of the candidates skip them.
    pub(super) excluded: &'a [usize],
    pub(super) now: Tick,
}

impl Candidates<'_> {
    /// Returns the number of endpoints.
    #[inline]
    pub fn len(&self) -> usize {
        self.list.members.len() - self.excluded.len()
    }

    /// Returns `true` if there is no endpoint, which never happens in a policy.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the endpoint's id, which is the key under which discovery reported it.
    ///
    /// Instances have their own id, or `APPLICATION/id` if the application has another name than
    /// the one that is called; see [`EurekaDiscover`](crate::discover::EurekaDiscover).
    pub fn id(&self, position: usize) -> &str {
        &self.member(position).stats.details.instance
    }

    /// Returns the attributes of the endpoint.
    pub fn attributes(&self, position: usize) -> &Attributes {
        &self.member(position).attributes
    }

    /// Returns the endpoint's weight relative to the average, which is 1, after slow start.
    pub fn weight(&self, position: usize) -> f32 {
        self.list.weights.as_ref().map_or(1.0, |weights| weights.relative(self.at(position)))
    }

    /// Returns `true` if all weights are equal.
    #[inline]
    pub fn are_equal(&self) -> bool {
        self.list.weights.is_none()
    }

    /// Returns the number of pending calls: calls until the end of the response's body, if there is
    /// one.
    #[inline]
    pub fn pending(&self, position: usize) -> usize {
        self.stats(position).load.pending()
    }

    /// Returns the expected latency: a moving average that rises to peaks at once and counts
    /// failures as slow.
    pub fn latency(&self, position: usize) -> Duration {
        Duration::from_nanos(self.latency_nanos(position) as u64)
    }

    /// Returns a random position, in proportion to the weights.
    pub fn draw(&self) -> usize {
        let random = fastrand::u64(..);
        match &self.list.weights {
            Some(weights) if self.excluded.is_empty() => weights.draw(random),
            Some(_) => self.draw_among_rest(random),
            None => below(self.len(), random >> 32),
        }
    }

    /// Returns two different random positions, or the same one twice if there is only one. Ignores
    /// weights.
    #[inline]
    pub fn draw_two(&self) -> (usize, usize) {
        two_of(self.len())
    }

    /// Returns the position of the endpoint with this id, or `None` if it is not a candidate. Takes
    /// about a nanosecond per endpoint.
    pub fn position(&self, id: &str) -> Option<usize> {
        let hash = hash(id.as_bytes());
        let is_it =
            |at: usize| self.list.identities()[at] == hash && *self.list.members[at].stats.details.instance == *id;
        let at = (0..self.list.members.len()).find(|at| is_it(*at))?;
        (!self.excluded.contains(&at)).then(|| at - self.excluded.iter().filter(|gap| **gap < at).count())
    }

    /// Returns a hash of the endpoint's [`id`](Self::id), which is the same for every caller.
    pub fn identity(&self, position: usize) -> u64 {
        self.list.identities()[self.at(position)]
    }

    /// Returns a number that increases by one with each call of this method, for all callers
    /// together. Starts at a random number whenever the endpoints change.
    pub fn turn(&self) -> u64 {
        self.list.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns `true` if the request failed at other endpoints before.
    pub fn is_retry(&self) -> bool {
        !self.excluded.is_empty()
    }

    /// Returns `true` if the endpoint is half-open: it was ejected, and calls probe it one at a
    /// time. Only [`affinity`](crate::balance::Policy::affinity) sees such endpoints.
    pub fn is_half_open(&self, position: usize) -> bool {
        self.member(position).stats.half_open.is_half_open()
    }

    /// Returns `true` if the endpoint is half-open and has a call.
    pub(super) fn is_half_open_and_busy(&self, position: usize) -> bool {
        self.is_half_open(position) && self.pending(position) > 0
    }

    /// Returns the greatest weight.
    pub(super) fn heaviest(&self) -> f32 {
        self.list.weights.as_ref().map_or(1.0, Weights::heaviest)
    }

    #[inline]
    pub(super) fn latency_nanos(&self, position: usize) -> f32 {
        self.stats(position).load.latency(self.now)
    }

    /// Returns the cost that one more call is expected to have: latency times calls.
    #[inline]
    pub(super) fn cost(&self, position: usize) -> f32 {
        self.stats(position).expected_cost(self.now)
    }

    /// Returns the number of pending calls, without those that last far longer than expected.
    #[inline]
    pub(super) fn active_calls(&self, position: usize) -> u32 {
        self.stats(position).active_calls(self.now)
    }

    /// Returns `true` while several calls wait for longer than expected, without activity of the
    /// endpoint.
    pub(super) fn is_silent(&self, position: usize) -> bool {
        self.stats(position).is_silent(self.now)
    }

    #[inline]
    fn stats(&self, position: usize) -> &Stats {
        &self.list.stats[self.at(position)]
    }

    fn member(&self, position: usize) -> &Member {
        &self.list.members[self.at(position)]
    }

    /// Position in the list.
    #[inline]
    pub(super) fn at(&self, position: usize) -> usize {
        self.excluded.iter().fold(position, |at, &gap| at + usize::from(gap <= at))
    }

    /// Reads all endpoints, which is fine for retries.
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

/// Endpoints that are picked from.
#[derive(Debug, Default)]
pub(super) struct EndpointList {
    pub(super) members: Vec<Member>,
    /// Parts of the members that a pick reads, close together.
    pub(super) stats: Box<[Arc<Stats>]>,
    pub(super) positions: Box<[u32]>,
    weights: Option<Weights>,
    /// Next turn, for policies that rotate.
    turn: AtomicU64,
    /// Hash of each member's id. Computed when a policy first asks for it.
    identities: OnceLock<Box<[u64]>>,
}

/// Endpoint in a list.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: EndpointId,
    /// Position in the picker's services.
    pub(super) position: u32,
    pub(super) stats: Arc<Stats>,
    pub(super) attributes: Arc<Attributes>,
}

impl EndpointList {
    /// Creates a list of members with their weights.
    pub(super) fn new(members: impl IntoIterator<Item = (Member, f32)>) -> Self {
        let (members, weights): (Vec<_>, Vec<_>) = members.into_iter().unzip();
        // Random, so that callers that start together do not begin with the same endpoint.
        let turn = AtomicU64::new(u64::from(fastrand::u32(..)));
        let stats = members.iter().map(|member: &Member| member.stats.clone()).collect();
        let positions = members.iter().map(|member| member.position).collect();
        Self { members, stats, positions, weights: Weights::new(weights), turn, identities: OnceLock::new() }
    }

    fn identities(&self) -> &[u64] {
        let hash = |member: &Member| hash(member.stats.details.instance.as_bytes());
        self.identities.get_or_init(|| self.members.iter().map(hash).collect())
    }
}

impl Member {
    /// Returns `true` if its metadata has this value.
    pub(super) fn has_label(&self, key: &str, value: &str) -> bool {
        self.attributes.has_label(key, value)
    }
}

impl EndpointList {
    /// Positions of these endpoints, ascending.
    #[cold]
    pub(super) fn positions(&self, ids: &[EndpointId]) -> Vec<usize> {
        (0..self.members.len()).filter(|&at| ids.contains(&self.members[at].id)).collect()
    }
}

/// Returns two different numbers below `n` from one random number, or 0 twice if `n` is 1.
#[inline]
pub(super) fn two_of(n: usize) -> (usize, usize) {
    let random = fastrand::u64(..);
    let first = below(n, random >> 32);
    if n < 2 {
        return (first, first);
    }
    let second = below(n - 1, random);
    (first, if second >= first { second + 1 } else { second })
}
