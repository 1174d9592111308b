//! Who is in and who is out: the state behind the endpoint set, changed under a lock, and the set made of it.
//!
//! Discovery inserts and removes endpoints, calls report suspects, timers end ejections. Each change is followed by a new set,
//! so that the very next pick goes by it. Nothing here is on the path of a call that goes well.

mod assemble;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::attributes::Attributes;
use super::cells::Ticket;
use super::eject::{Calls, Cause, Ejection};
use super::endpoint::{EndpointId, Stats};
use super::load::{Moment, elapsed, nanos};
use super::slow_start::{Age, SlowStart};
use super::subset::{Peers, Subset};
use super::zone::ZoneAware;
use crate::metrics::{Event, Metrics};
use crate::shown::Shown;
use crate::time::{jittered, random_part, wall_clock_ms};

/// The first and the longest pause between two attempts to reach an unreachable endpoint.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Time for which a call decides alone on a half-open endpoint. Then another call may as well, since the first may be a long
/// poll, or never be polled. Doubles with each further call, up to the longest time.
const DECIDES_ALONE: Duration = Duration::from_secs(1);
const LONGEST_DECISION: Duration = Duration::from_secs(10);

/// Least time between two probes of an endpoint that is in doubt.
const DOUBT_AGAIN: Duration = Duration::from_secs(10);

/// Part of the interval after which a failed health check is repeated, and the least time.
const CHECK_AGAIN: u32 = 25;
const LEAST_CHECK_AGAIN: Duration = Duration::from_millis(100);

/// By so many labels requests may choose: policies have a few, and one that takes the key from requests should not fill the memory.
const MOST_LABELS: usize = 16;

pub(super) struct Settings {
    pub(super) name: Option<Arc<str>>,
    pub(super) failure_penalty: Duration,
    pub(super) default_latency: Duration,
    pub(super) decay: Duration,
    pub(super) ejection: Ejection,
    /// The labels by which requests choose.
    pub(super) labels: Vec<Arc<str>>,
    /// Whether unreachable endpoints are probed in the background, not by calls.
    pub(super) probes: bool,
    /// How often the health of each endpoint is checked, if it is.
    pub(super) checks: Option<Duration>,
    pub(super) zones: Option<ZoneAware>,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) subset: Option<Subset>,
    /// What the ticks of all loads count from.
    pub(super) base: Instant,
    pub(super) metrics: Metrics,
}

/// The endpoints of a balancer.
pub(super) struct Roster<S> {
    settings: Settings,
    /// Those that calls may go to.
    entries: BTreeMap<EndpointId, Entry<S>>,
    /// Those outside the subset.
    outside: BTreeMap<EndpointId, Entry<S>>,
    peers: Option<Peers>,
    next_sweep: Option<Instant>,
    /// When the weight of an endpoint in slow start grows next.
    next_growth: Option<Instant>,
    panic: bool,
    /// How many sets were made.
    sets: u64,
}

struct Entry<S> {
    service: Arc<S>,
    stats: Arc<Stats>,
    attributes: Arc<Attributes>,
    age: Option<Age>,
    /// What part of its weight counts in the subset.
    part: f64,
    state: State,
    /// How many times it was ejected, less those that were lived down.
    times: u32,
    /// How many times in a row it could not be connected to, and until when they count together.
    attempts: u32,
    attempts_until: Instant,
    /// What its counters showed at the last sweep.
    answered: u32,
    /// Set while a background probe is wanted of an endpoint that takes calls.
    wants_probe: bool,
    /// Until then it is not probed again for a doubt.
    doubted_until: Instant,
    /// Responses of the others when its first silent call ended.
    others_answered: u32,
    /// Number of failed health checks in a row.
    failed_checks: u32,
    /// When its health is checked next, if it is checked; while a check is on its way, when that one is taken for lost.
    next_check: Option<Instant>,
    /// Since when a check is on its way.
    checked_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Available,
    /// Out until then, or until a probe says otherwise. For its health, until a check says otherwise, be it sooner or later.
    Out {
        cause: Cause,
        until: Instant,
    },
    /// Back if calls succeed, one at a time. The next one is asked for then at the latest.
    Probation {
        cause: Cause,
        successes: u32,
        next: Instant,
        /// Time for which a call decides alone.
        pause: Duration,
    },
}

/// What is to be done outside the lock after the clock has moved.
#[derive(Debug)]
pub(super) struct Due<S> {
    /// Endpoints to which a connection is to be tried.
    pub(super) probe: Vec<(EndpointId, Arc<S>)>,
    /// Endpoints whose health is to be checked.
    pub(super) check: Vec<(EndpointId, Arc<S>)>,
    pub(super) changed: bool,
}

impl<S> Roster<S> {
    pub(super) fn new(settings: Settings) -> Self {
        let ejection = &settings.ejection;
        let next_sweep = ejection.enabled.then(|| settings.base + ejection.interval);
        Self {
            settings,
            entries: BTreeMap::new(),
            outside: BTreeMap::new(),
            peers: None,
            next_sweep,
            next_growth: None,
            panic: false,
            sets: 0,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What an endpoint that joins now is assumed to cost: as little as the best there is, so that it gets its calls at once
    /// instead of when the default has decayed to what the others take.
    pub(super) fn newcomer_cost(&self, now: Moment) -> f32 {
        let now = now.tick();
        let costs = self.entries.values().map(|entry| entry.stats.load.cost(now));
        costs.fold(nanos(self.settings.default_latency), f32::min)
    }

    pub(super) fn insert(&mut self, id: EndpointId, service: S, stats: Arc<Stats>, attributes: Attributes) {
        let entry = Entry {
            service: Arc::new(service),
            answered: stats.load.calls().answered(),
            wants_probe: false,
            doubted_until: self.settings.base,
            others_answered: 0,
            failed_checks: 0,
            stats,
            age: age(&attributes),
            part: 1.0,
            attributes: Arc::new(attributes),
            state: State::Available,
            times: 0,
            attempts: 0,
            attempts_until: self.settings.base,
            // At any moment of the first interval, so that neither the endpoints nor their callers keep step.
            next_check: self.settings.checks.map(|interval| Instant::now() + random_part(interval)),
            checked_since: None,
        };
        self.entries.insert(id, entry);
    }

    /// Takes over what changed of an endpoint that otherwise stays as it is.
    pub(super) fn update(&mut self, id: EndpointId, attributes: Attributes) {
        if let Some(entry) = self.any_mut(id) {
            if entry.attributes.up_since_ms != attributes.up_since_ms {
                entry.age = age(&attributes);
            }
            entry.attributes = Arc::new(attributes);
        }
    }

    /// The same endpoint at another address, which may well be reached. Returns the old service, to be dropped outside the lock.
    pub(super) fn replace_service(&mut self, id: EndpointId, service: S, attributes: Attributes) -> Option<Arc<S>> {
        let now = Instant::now();
        if self.entries.get(&id).is_some_and(Entry::is_unreachable) {
            self.let_in(id, now);
        }
        let replaced = self.any_mut(id).map(|entry| {
            // A check that is on its way says nothing of the new one.
            entry.checked_since = None;
            entry.failed_checks = 0;
            entry.next_check = entry.next_check.map(|_| now);
            std::mem::replace(&mut entry.service, Arc::new(service))
        });
        self.update(id, attributes);
        replaced
    }

    pub(super) fn attributes(&self, id: EndpointId) -> Option<&Arc<Attributes>> {
        self.entries.get(&id).or_else(|| self.outside.get(&id)).map(|entry| &entry.attributes)
    }

    /// Lets requests choose by this label from now on. Tells whether they could not before.
    pub(super) fn keep_apart(&mut self, key: &str) -> bool {
        let labels = &mut self.settings.labels;
        let new = labels.len() < MOST_LABELS && !labels.iter().any(|known| **known == *key);
        if new {
            labels.push(key.into());
        }
        new
    }

    /// Returns its service, to be dropped outside the lock.
    pub(super) fn remove(&mut self, id: EndpointId) -> Option<Arc<S>> {
        self.entries.remove(&id).or_else(|| self.outside.remove(&id)).map(|entry| entry.service)
    }

    fn any_mut(&mut self, id: EndpointId) -> Option<&mut Entry<S>> {
        self.entries.get_mut(&id).or_else(|| self.outside.get_mut(&id))
    }

    /// Takes note of the callers that this one is among, and tells whether they changed.
    pub(super) fn set_peers(&mut self, peers: Peers) -> bool {
        let changed = self.peers.as_ref() != Some(&peers);
        self.peers = Some(peers);
        changed
    }

    /// Takes a suspect out, unless that would be too many or it does not stand out. Tells whether anything changed.
    pub(super) fn suspect(&mut self, id: EndpointId, cause: Cause, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        match entry.state {
            State::Available => {}
            // That it cannot even be connected to is news of an endpoint that was ejected. All else may be that of older calls.
            _ if cause.is_certain() && entry.is_ejected() => {}
            State::Probation { .. } if cause == Cause::Silent => {
                self.take_out(id, cause, now);
                return true;
            }
            _ => return false,
        }
        if cause == Cause::Silent && !self.others_respond(id, now) {
            return false;
        }
        if cause == Cause::Recent
            && !entry.stats.details.rules.stands_out(entry.stats.history.failures(), self.others(id))
        {
            return false;
        }
        if !cause.is_certain() && self.ejected() >= self.settings.ejection.ceiling(self.entries.len()) {
            debug!(application = self.name(), endpoint = %Shown(&entry.stats.details.instance), %cause, "not ejected: too many are");
            return false;
        }
        self.take_out(id, cause, now);
        true
    }

    /// Notes that a first call got no sign of life, and asks for a background probe. Tells whether that is to be made.
    pub(super) fn doubt(&mut self, id: EndpointId, now: Instant) -> bool {
        let others_answered = self.others_answered(id);
        let probes = self.settings.probes;
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.others_answered = others_answered;
        let wanted = probes && entry.state == State::Available && entry.doubted_until <= now;
        if wanted {
            entry.wants_probe = true;
            entry.doubted_until = now + DOUBT_AGAIN;
        }
        wanted
    }

    /// Returns `true` if another endpoint responded since the first of this one's silent calls began. If none did, the
    /// calls may be such as nobody responds to in time.
    fn others_respond(&self, id: EndpointId, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        if self.others_answered(id) != entry.others_answered {
            return true;
        }
        let now = Moment::of(now).tick();
        let (_, Some(first)) = entry.stats.silent_calls() else { return false };
        let silence = elapsed(first.tick(), now);
        let responded = |other: &Entry<S>| {
            !other.stats.is_new() && other.stats.load.since_sign_of_life(now).is_some_and(|since| since < silence)
        };
        self.entries.iter().any(|(other, entry)| *other != id && responded(entry))
    }

    /// Number of responses of the other endpoints. Wraps.
    fn others_answered(&self, id: EndpointId) -> u32 {
        let others = self.entries.iter().filter(|(other, _)| **other != id);
        others.fold(0, |sum, (_, entry)| sum.wrapping_add(entry.stats.load.calls().answered()))
    }

    /// How many of their last 64 calls failed at the others on average.
    fn others(&self, id: EndpointId) -> f64 {
        let others = self.entries.iter().filter(|(other, _)| **other != id);
        let failures: u32 = others.map(|(_, entry)| entry.stats.history.failures()).sum();
        f64::from(failures) / self.entries.len().saturating_sub(1).max(1) as f64
    }

    /// What a call showed on which the endpoint's return hangs.
    pub(super) fn tried(&mut self, id: EndpointId, ticket: Ticket, result: Result<(), Cause>, now: Instant) -> bool {
        let needed = self.settings.ejection.probes;
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.stats.trial.is_current(ticket)) else {
            return false;
        };
        match (entry.state, result) {
            (State::Available, _) | (State::Out { .. }, Err(_)) | (State::Out { cause: Cause::HealthCheck, .. }, _) => {
                false
            }
            (State::Probation { cause, .. }, Err(newer)) => {
                self.take_out(id, if newer.is_certain() { newer } else { cause }, now);
                true
            }
            (State::Probation { cause, successes, .. }, Ok(())) if !cause.is_certain() && successes + 1 < needed => {
                entry.state = State::half_open(cause, successes + 1, now);
                entry.stats.trial.ask_again();
                false
            }
            (State::Probation { .. } | State::Out { .. }, Ok(())) => {
                self.let_in(id, now);
                true
            }
        }
    }

    /// Takes note of whether a connection was established in the background.
    pub(super) fn probed(&mut self, id: EndpointId, success: bool, now: Instant) -> bool {
        match self.entries.get(&id) {
            Some(entry) if matches!(entry.state, State::Out { cause: Cause::Unreachable, .. }) => {}
            // It was in doubt, and this is the second sign.
            Some(entry) if entry.state == State::Available && !success => {}
            _ => return false,
        }
        if success {
            self.let_in(id, now)
        } else {
            self.take_out(id, Cause::Unreachable, now)
        }
        true
    }

    /// What a check of its health, begun then, has shown. Tells whether that changed anything.
    pub(super) fn checked(&mut self, id: EndpointId, since: Instant, healthy: bool, now: Instant) -> bool {
        let Some(interval) = self.settings.checks else { return false };
        let needed = self.settings.ejection.failed_checks;
        let Some(entry) = self.any_mut(id).filter(|entry| entry.checked_since == Some(since)) else { return false };
        entry.checked_since = None;
        entry.failed_checks = if healthy { 0 } else { entry.failed_checks.saturating_add(1) };
        let failed = entry.failed_checks;
        let pause = if (1..needed).contains(&failed) {
            (interval / CHECK_AGAIN).max(LEAST_CHECK_AGAIN)
        } else {
            jittered(interval)
        };
        entry.next_check = Some((since + pause).max(now));
        let Some(entry) = self.entries.get(&id) else { return false };
        let is_unhealthy = entry.is_unhealthy();
        match (healthy, is_unhealthy) {
            (true, true) => self.let_in(id, now),
            // Whatever else it is out for: only a check brings it back now.
            (false, _) if failed >= needed => self.take_out(id, Cause::HealthCheck, now),
            _ => return false,
        }
        healthy == is_unhealthy
    }

    fn take_out(&mut self, id: EndpointId, cause: Cause, now: Instant) {
        let ejection = &self.settings.ejection;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let time = if cause == Cause::HealthCheck {
            entry.next_check.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
        } else if cause.is_certain() {
            entry.attempts = if now < entry.attempts_until { entry.attempts.saturating_add(1) } else { 1 };
            ejection.jittered(FIRST_RETRY.saturating_mul(1 << (entry.attempts - 1).min(8)).min(LAST_RETRY))
        } else {
            entry.times = entry.times.saturating_add(1);
            ejection.time(entry.times)
        };
        let was_in = entry.state == State::Available;
        entry.state = State::Out { cause, until: now + time };
        // An endpoint that was reached for so long is a new case.
        entry.attempts_until = now + time + 2 * LAST_RETRY;
        entry.stats.trial.end();
        let endpoint = Shown(&entry.stats.details.instance);
        let name = self.settings.name.as_deref();
        if was_in {
            self.settings.metrics.record(Event::Ejected { cause: cause.label() });
            warn!(application = name, %endpoint, %cause, ?time, "endpoint taken out");
        } else {
            debug!(application = name, %endpoint, %cause, ?time, "endpoint stays out");
        }
    }

    fn let_in(&mut self, id: EndpointId, now: Instant) {
        let now = Moment::of(now);
        let newcomer_cost = self.newcomer_cost(now);
        let name = self.settings.name.as_deref();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (State::Out { cause, .. } | State::Probation { cause, .. }) = entry.state else { return };
        entry.state = State::Available;
        entry.stats.trial.end();
        entry.stats.renew(newcomer_cost, now);
        info!(application = name, endpoint = %Shown(&entry.stats.details.instance), was = %cause, "endpoint is back");
    }

    fn ejected(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_ejected()).count()
    }

    /// When the clock has something to do next, checks included if there is room for another one.
    pub(super) fn next_deadline(&self, may_check: bool) -> Option<Instant> {
        let until = |entry: &Entry<S>| match entry.state {
            // Long past, which is at once.
            State::Available if entry.wants_probe => Some(self.settings.base),
            State::Available | State::Out { cause: Cause::HealthCheck, .. } => None,
            State::Out { until: at, .. } | State::Probation { next: at, .. } => Some(at),
        };
        let check = self.entries.values().filter_map(|entry| entry.next_check.filter(|_| may_check));
        self.entries.values().filter_map(until).chain(check).chain(self.next_sweep).chain(self.next_growth).min()
    }

    /// Ends what is over, compares success rates when it is time to, and begins at most so many checks.
    pub(super) fn advance(&mut self, now: Instant, most_checks: usize) -> Due<S> {
        let check = self.begin_checks(now, most_checks);
        let mut due = Due { probe: Vec::new(), check, changed: self.next_growth.is_some_and(|at| at <= now) };
        for (id, entry) in &mut self.entries {
            if std::mem::take(&mut entry.wants_probe) && entry.state == State::Available {
                due.probe.push((*id, entry.service.clone()));
            }
            match &mut entry.state {
                State::Out { cause: Cause::Unreachable, until } if *until <= now && self.settings.probes => {
                    // The probe reports back; should it be lost, the next one is tried then.
                    *until = now + LAST_RETRY;
                    due.probe.push((*id, entry.service.clone()));
                }
                // Until a check succeeds.
                State::Out { cause: Cause::HealthCheck, .. } => {}
                State::Out { cause, until } if *until <= now => {
                    entry.state = State::half_open(*cause, 0, now);
                    entry.stats.trial.begin();
                    due.changed = true;
                }
                State::Probation { next, pause, .. } if *next <= now => {
                    *next = now + *pause;
                    if entry.stats.trial.ask_again() {
                        *pause = (2 * *pause).min(LONGEST_DECISION);
                    }
                }
                _ => {}
            }
        }
        due.changed |= self.sweep(now);
        due
    }

    /// Those that have waited longest first: where checks take long, all have their turn.
    fn begin_checks(&mut self, now: Instant, most: usize) -> Vec<(EndpointId, Arc<S>)> {
        let Some(interval) = self.settings.checks.filter(|_| most > 0) else { return Vec::new() };
        let mut due: Vec<_> =
            self.entries.iter_mut().filter(|(_, entry)| entry.next_check.is_some_and(|at| at <= now)).collect();
        due.sort_by_key(|(_, entry)| entry.next_check);
        let begun = due.into_iter().take(most).map(|(id, entry)| {
            entry.checked_since = Some(now);
            // It reports back before, unless it panicked.
            entry.next_check = Some(now + 2 * interval);
            (*id, entry.service.clone())
        });
        begun.collect()
    }

    fn sweep(&mut self, now: Instant) -> bool {
        if self.next_sweep.is_none_or(|at| at > now) {
            return false;
        }
        let ejection = &self.settings.ejection;
        self.next_sweep = Some(now + ejection.interval);
        let mut calls = Vec::new();
        for (id, entry) in &mut self.entries {
            let counts = entry.stats.load.calls();
            let since = counts.answered_since(entry.answered);
            let failed = entry.stats.take_failed();
            entry.answered = counts.answered();
            if entry.state == State::Available {
                if failed == 0 {
                    entry.times = entry.times.saturating_sub(1);
                }
                calls.push((*id, Calls { answered: since, failed }));
            }
        }
        let outliers = ejection.outliers(&calls);
        outliers.into_iter().fold(false, |changed, (id, cause)| self.suspect(id, cause, now) || changed)
    }

    fn name(&self) -> Option<&str> {
        self.settings.name.as_deref()
    }
}

impl<S> Drop for Roster<S> {
    fn drop(&mut self) {
        self.settings.metrics.record(Event::Closed);
    }
}

/// How long it has been up, as far as that is told.
fn age(attributes: &Attributes) -> Option<Age> {
    attributes.up_since_ms.map(|since| Age::new(since, wall_clock_ms(), Instant::now()))
}

impl State {
    fn half_open(cause: Cause, successes: u32, now: Instant) -> Self {
        Self::Probation { cause, successes, next: now + DECIDES_ALONE, pause: DECIDES_ALONE }
    }
}

impl<S> Entry<S> {
    fn is_unreachable(&self) -> bool {
        let cause = match self.state {
            State::Available => return false,
            State::Out { cause, .. } | State::Probation { cause, .. } => cause,
        };
        cause.is_certain()
    }

    fn is_unhealthy(&self) -> bool {
        matches!(self.state, State::Out { cause: Cause::HealthCheck, .. })
    }

    fn is_on_probation(&self) -> bool {
        matches!(self.state, State::Probation { .. })
    }

    fn is_ejected(&self) -> bool {
        matches!(self.state, State::Out { cause, .. } | State::Probation { cause, .. } if !cause.is_certain())
    }
}
