//! Pool of endpoints and their states, changed under a lock.
//!
//! Discovery inserts and removes endpoints, calls report suspects, timers end ejections. After each
//! change a new picker is built, which the next pick uses. A call that succeeds does not need the
//! pool.

mod build;
mod picker;
mod reconfigure;
mod report;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tracing::{debug, info, warn};

pub use self::snapshot::{EndpointSnapshot, EndpointState, Snapshot, ZoneSnapshot};

pub(crate) use self::picker::{Chosen, Picker};
pub(crate) use self::reconfigure::Reconfiguration;

use super::attributes::Attributes;
use super::endpoint::{EndpointId, MissingResponses, Permit, Stats, Timestamp, elapsed, nanos};
use super::health::Health;
use super::outlier::{Calls, Cause, Ejection, Rules};
use super::slow_start::{Age, SlowStart};
use super::subset::{Siblings, Subset};
use super::zone::ZoneAware;
use crate::metrics::{Event, Metrics};
use crate::time::wall_clock_ms;
use crate::untrusted::Quoted;

/// Minimum and maximum delay between two attempts to reach an unreachable endpoint.
const MIN_RECONNECT_DELAY: Duration = Duration::from_secs(1);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(30);

/// Interval at which the probe permit of a half-open endpoint is issued again, since the call that
/// has it may be a long poll, or never be polled. Doubles with each further call, up to the
/// maximum.
const PERMIT_INTERVAL: Duration = Duration::from_secs(1);
const MAX_PERMIT_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum time between two probes of an available endpoint.
const PROBE_PAUSE: Duration = Duration::from_secs(10);

/// Maximum number of labels that are indexed. Policies use a few; one that takes the key from
/// requests must not fill the memory.
const MAX_LABELS: usize = 16;

pub(crate) struct Settings {
    pub(crate) app: Option<Arc<str>>,
    pub(crate) failure_penalty: Duration,
    pub(crate) default_latency: Duration,
    pub(crate) decay: Duration,
    pub(crate) ejection: Ejection,
    /// Labels that requests choose by.
    pub(crate) labels: Vec<Arc<str>>,
    /// Set if unreachable endpoints are probed in the background, and not by calls.
    pub(crate) probes: bool,
    /// Interval of health checks, if there are any.
    pub(crate) checks: Option<Duration>,
    pub(crate) zones: Option<ZoneAware>,
    pub(crate) slow_start: Option<SlowStart>,
    pub(crate) subset: Option<Subset>,
    /// Origin of the ticks of all loads.
    pub(crate) base: Instant,
    pub(crate) metrics: Metrics,
}

/// Endpoints of a balancer.
pub(crate) struct Pool<S> {
    settings: Settings,
    /// Limits that failing calls check, read by all endpoints.
    rules: Arc<ArcSwap<Rules>>,
    missing_responses: Arc<MissingResponses>,
    /// Endpoints of the subset.
    entries: BTreeMap<EndpointId, Entry<S>>,
    /// Endpoints outside the subset.
    outside: BTreeMap<EndpointId, Entry<S>>,
    siblings: Option<Siblings>,
    next_sweep: Option<Instant>,
    /// Time at which the weight of an endpoint in slow start changes next.
    next_growth: Option<Instant>,
    panic: bool,
    /// Number of pickers that were built.
    version: u64,
}

struct Entry<S> {
    service: Arc<S>,
    stats: Arc<Stats>,
    attributes: Arc<Attributes>,
    age: Option<Age>,
    /// Share of its weight that counts in the subset.
    fraction: f64,
    state: State,
    /// Number of ejections, minus one for each interval without a failure since.
    ejections: u32,
    /// Number of failed connection attempts in a row, and the time until which they count together.
    connect_failures: u32,
    connect_failures_until: Instant,
    /// Number of responses at the last sweep.
    responses_at_sweep: u32,
    /// Set while a background probe is due although the endpoint takes calls.
    wants_probe: bool,
    /// No probe is requested before this time.
    no_probe_before: Instant,
    /// Responses of the other endpoints when its first silent call ended.
    others_responses: u32,
    /// Health checks of the endpoint, if there are any.
    health: Option<Health>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Available,
    /// Ejected until this time, or until a probe succeeds. For a failed health check, until a check
    /// succeeds, whatever the time.
    Ejected {
        cause: Cause,
        until: Instant,
    },
    /// Restored if calls succeed, one at a time. The permit is issued again at `next` at the
    /// latest.
    HalfOpen {
        cause: Cause,
        successes: u32,
        next: Instant,
        /// Time for which a call keeps the permit.
        pause: Duration,
    },
}

/// Work to do without the lock after a deadline.
#[derive(Debug)]
pub(crate) struct Due<S> {
    /// Endpoints to probe.
    pub(crate) probes: Vec<(EndpointId, Arc<S>)>,
    /// Endpoints whose health is to be checked.
    pub(crate) checks: Vec<(EndpointId, Arc<S>)>,
    /// Interval of the health checks, which is also their time limit.
    pub(crate) check_interval: Option<Duration>,
    pub(crate) changed: bool,
}

impl<S> Pool<S> {
    pub(crate) fn new(settings: Settings) -> Self {
        let ejection = &settings.ejection;
        let next_sweep = ejection.enabled.then(|| settings.base + ejection.interval);
        let rules = Arc::new(ArcSwap::from_pointee(ejection.rules()));
        Self {
            settings,
            rules,
            missing_responses: Arc::default(),
            entries: BTreeMap::new(),
            outside: BTreeMap::new(),
            siblings: None,
            next_sweep,
            next_growth: None,
            panic: false,
            version: 0,
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn rules(&self) -> &Arc<ArcSwap<Rules>> {
        &self.rules
    }

    pub(crate) fn missing_responses(&self) -> &Arc<MissingResponses> {
        &self.missing_responses
    }

    /// Cost that is assumed of a new endpoint: the lowest of all, so that it gets its share of
    /// calls at once and not after the default has decayed.
    pub(crate) fn newcomer_cost(&self, now: Timestamp) -> f32 {
        let now = now.tick();
        let costs = self.entries.values().map(|entry| entry.stats.load.cost(now));
        costs.fold(nanos(self.settings.default_latency), f32::min)
    }

    pub(crate) fn insert(&mut self, id: EndpointId, service: S, stats: Arc<Stats>, attributes: Attributes) {
        let entry = Entry {
            service: Arc::new(service),
            responses_at_sweep: stats.load.calls().responses(),
            wants_probe: false,
            no_probe_before: self.settings.base,
            others_responses: 0,
            stats,
            age: age(&attributes),
            fraction: 1.0,
            attributes: Arc::new(attributes),
            state: State::Available,
            ejections: 0,
            connect_failures: 0,
            connect_failures_until: self.settings.base,
            health: self.settings.checks.map(|interval| Health::new(interval, Instant::now())),
        };
        self.entries.insert(id, entry);
    }

    /// Updates the attributes of an endpoint that otherwise stays the same.
    pub(crate) fn update(&mut self, id: EndpointId, attributes: Attributes) {
        if let Some(entry) = self.any_mut(id) {
            if entry.attributes.up_since_ms != attributes.up_since_ms {
                entry.age = age(&attributes);
            }
            entry.attributes = Arc::new(attributes);
        }
    }

    /// Replaces the service of an endpoint at another address, which may well be reachable. Returns
    /// the old service, to be dropped without the lock.
    pub(crate) fn replace_service(&mut self, id: EndpointId, service: S, attributes: Attributes) -> Option<Arc<S>> {
        let now = Instant::now();
        if self.entries.get(&id).is_some_and(Entry::is_unreachable) {
            self.restore(id, now);
        }
        let replaced = self.any_mut(id).map(|entry| {
            if let Some(health) = &mut entry.health {
                health.restart(now);
            }
            std::mem::replace(&mut entry.service, Arc::new(service))
        });
        self.update(id, attributes);
        replaced
    }

    pub(crate) fn attributes(&self, id: EndpointId) -> Option<&Arc<Attributes>> {
        self.entries.get(&id).or_else(|| self.outside.get(&id)).map(|entry| &entry.attributes)
    }

    /// Indexes endpoints by this label from now on. Returns `true` if they were not.
    pub(crate) fn index_label(&mut self, key: &str) -> bool {
        let labels = &mut self.settings.labels;
        let new = labels.len() < MAX_LABELS && !labels.iter().any(|known| **known == *key);
        if new {
            labels.push(key.into());
        }
        new
    }

    /// Removes an endpoint. Returns its service, to be dropped without the lock.
    pub(crate) fn remove(&mut self, id: EndpointId) -> Option<Arc<S>> {
        self.entries.remove(&id).or_else(|| self.outside.remove(&id)).map(|entry| entry.service)
    }

    fn any_mut(&mut self, id: EndpointId) -> Option<&mut Entry<S>> {
        self.entries.get_mut(&id).or_else(|| self.outside.get_mut(&id))
    }

    /// Sets the siblings of this caller. Returns `true` if they changed.
    pub(crate) fn set_siblings(&mut self, siblings: Siblings) -> bool {
        let changed = self.siblings.as_ref() != Some(&siblings);
        self.siblings = Some(siblings);
        changed
    }

    /// Ejects a suspect, unless too many endpoints are ejected or it is not an outlier. Returns
    /// `true` if that changed anything.
    pub(crate) fn eject_suspect(&mut self, id: EndpointId, cause: Cause, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        match entry.state {
            State::Available => {}
            // A failed connection is new evidence about an ejected endpoint. All else may stem from
            // older calls.
            _ if cause.is_certain() && entry.is_outlier() => {}
            State::HalfOpen { .. } if cause == Cause::Silent => {
                self.eject(id, cause, now);
                return true;
            }
            _ => return false,
        }
        if cause == Cause::Silent && !self.others_respond(id, now) {
            return false;
        }
        if cause == Cause::Recent
            && !entry
                .stats
                .details
                .rules
                .load()
                .stands_out(entry.stats.history.failures(), self.mean_failures_of_others(id))
        {
            return false;
        }
        if !cause.is_certain() && self.outliers() >= self.settings.ejection.ceiling(self.entries.len()) {
            debug!(app = self.app(), instance = %Quoted(&entry.stats.details.instance), %cause, "not ejected, since too many endpoints are");
            return false;
        }
        self.eject(id, cause, now);
        true
    }

    /// Requests a background probe after a first silent call. Returns `true` if one is due.
    pub(crate) fn request_probe(&mut self, id: EndpointId, now: Instant) -> bool {
        let others_responses = self.others_responses(id);
        let probes = self.settings.probes;
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.others_responses = others_responses;
        let wanted = probes && entry.state == State::Available && entry.no_probe_before <= now;
        if wanted {
            entry.wants_probe = true;
            entry.no_probe_before = now + PROBE_PAUSE;
        }
        wanted
    }

    /// Returns `true` if another endpoint responded since the first of this one's silent calls
    /// began. If none did, the calls may be of a kind that no endpoint responds to in time.
    fn others_respond(&self, id: EndpointId, now: Instant) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        if self.others_responses(id) != entry.others_responses {
            return true;
        }
        let now = Timestamp::of(now).tick();
        let (_, Some(first)) = entry.stats.silent_calls() else { return false };
        let silence = elapsed(first.tick(), now);
        let responded = |other: &Entry<S>| {
            !other.stats.is_unmeasured() && other.stats.load.since_activity(now).is_some_and(|since| since < silence)
        };
        self.entries.iter().any(|(other, entry)| *other != id && responded(entry))
    }

    /// Number of responses of the other endpoints. Wraps.
    fn others_responses(&self, id: EndpointId) -> u32 {
        let others = self.entries.iter().filter(|(other, _)| **other != id);
        others.fold(0, |sum, (_, entry)| sum.wrapping_add(entry.stats.load.calls().responses()))
    }

    /// Average number of failures among the last 64 calls of the other endpoints.
    fn mean_failures_of_others(&self, id: EndpointId) -> f64 {
        let others = self.entries.iter().filter(|(other, _)| **other != id);
        let failures: u32 = others.map(|(_, entry)| entry.stats.history.failures()).sum();
        f64::from(failures) / self.entries.len().saturating_sub(1).max(1) as f64
    }

    /// Records the result of a call that decides on a half-open endpoint.
    pub(crate) fn half_open_call_ended(
        &mut self,
        id: EndpointId,
        permit: Permit,
        result: Result<(), Cause>,
        now: Instant,
    ) -> bool {
        let needed = self.settings.ejection.probes;
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.stats.half_open.is_current(permit)) else {
            return false;
        };
        match (entry.state, result) {
            (State::Available, _)
            | (State::Ejected { .. }, Err(_))
            | (State::Ejected { cause: Cause::HealthCheck, .. }, _) => false,
            (State::HalfOpen { cause, .. }, Err(newer)) => {
                self.eject(id, if newer.is_certain() { newer } else { cause }, now);
                true
            }
            (State::HalfOpen { cause, successes, .. }, Ok(())) if !cause.is_certain() && successes + 1 < needed => {
                entry.state = State::half_open(cause, successes + 1, now);
                entry.stats.half_open.reissue();
                false
            }
            (State::HalfOpen { .. } | State::Ejected { .. }, Ok(())) => {
                self.restore(id, now);
                true
            }
        }
    }

    /// Records the result of a background probe.
    pub(crate) fn probe_ended(&mut self, id: EndpointId, success: bool, now: Instant) -> bool {
        match self.entries.get(&id) {
            Some(entry) if matches!(entry.state, State::Ejected { cause: Cause::Unreachable, .. }) => {}
            // Probed for a silent call: this is the second sign.
            Some(entry) if entry.state == State::Available && !success => {}
            _ => return false,
        }
        if success {
            self.restore(id, now)
        } else {
            self.eject(id, Cause::Unreachable, now)
        }
        true
    }

    /// Records the result of a health check. Returns `true` if that changed anything.
    pub(crate) fn check_ended(&mut self, id: EndpointId, since: Instant, healthy: bool, now: Instant) -> bool {
        let needed = self.settings.ejection.failed_checks;
        let Some(health) = self.any_mut(id).and_then(|entry| entry.health.as_mut()) else { return false };
        let Some(failed) = health.end(since, healthy, needed, now) else { return false };
        let Some(entry) = self.entries.get(&id) else { return false };
        let is_unhealthy = entry.is_unhealthy();
        match (healthy, is_unhealthy) {
            (true, true) => self.restore(id, now),
            // Whatever else it was ejected for: only a check restores it now.
            (false, _) if failed >= needed => self.eject(id, Cause::HealthCheck, now),
            _ => return false,
        }
        healthy == is_unhealthy
    }

    fn eject(&mut self, id: EndpointId, cause: Cause, now: Instant) {
        let ejection = &self.settings.ejection;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let time = if cause == Cause::HealthCheck {
            entry.health.as_ref().map_or(Duration::ZERO, |health| health.next().saturating_duration_since(now))
        } else if cause.is_certain() {
            entry.connect_failures =
                if now < entry.connect_failures_until { entry.connect_failures.saturating_add(1) } else { 1 };
            ejection.jittered(
                MIN_RECONNECT_DELAY.saturating_mul(1 << (entry.connect_failures - 1).min(8)).min(MAX_RECONNECT_DELAY),
            )
        } else {
            entry.ejections = entry.ejections.saturating_add(1);
            ejection.time(entry.ejections)
        };
        let was_available = entry.state == State::Available;
        entry.state = State::Ejected { cause, until: now + time };
        // An endpoint that could be reached for this long starts over.
        entry.connect_failures_until = now + time + 2 * MAX_RECONNECT_DELAY;
        entry.stats.half_open.stop();
        let instance = Quoted(&entry.stats.details.instance);
        let app = self.settings.app.as_deref();
        if was_available {
            self.settings.metrics.record(Event::Ejected { cause: cause.label() });
            warn!(app, %instance, %cause, ?time, "endpoint ejected");
        } else {
            debug!(app, %instance, %cause, ?time, "endpoint ejected again");
        }
    }

    fn restore(&mut self, id: EndpointId, now: Instant) {
        let now = Timestamp::of(now);
        let newcomer_cost = self.newcomer_cost(now);
        let app = self.settings.app.as_deref();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (State::Ejected { cause, .. } | State::HalfOpen { cause, .. }) = entry.state else { return };
        entry.state = State::Available;
        entry.stats.half_open.stop();
        entry.stats.reset(newcomer_cost, now);
        info!(app, instance = %Quoted(&entry.stats.details.instance), %cause, "endpoint restored");
    }

    fn outliers(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_outlier()).count()
    }

    /// Returns the time of the next timed work, including health checks if another one may start.
    pub(crate) fn next_deadline(&self, may_check: bool) -> Option<Instant> {
        let until = |entry: &Entry<S>| match entry.state {
            // Long past: at once.
            State::Available if entry.wants_probe => Some(self.settings.base),
            State::Available | State::Ejected { cause: Cause::HealthCheck, .. } => None,
            State::Ejected { until: at, .. } | State::HalfOpen { next: at, .. } => Some(at),
        };
        let check =
            self.entries.values().filter_map(|entry| entry.health.as_ref().filter(|_| may_check).map(Health::next));
        self.entries.values().filter_map(until).chain(check).chain(self.next_sweep).chain(self.next_growth).min()
    }

    /// Does the timed work: ends ejections, compares success rates, and starts at most this many
    /// health checks.
    pub(crate) fn advance(&mut self, now: Instant, max_checks: usize) -> Due<S> {
        let checks = self.start_checks(now, max_checks);
        let changed = self.next_growth.is_some_and(|at| at <= now);
        let mut due = Due { probes: Vec::new(), checks, check_interval: self.settings.checks, changed };
        for (id, entry) in &mut self.entries {
            if std::mem::take(&mut entry.wants_probe) && entry.state == State::Available {
                due.probes.push((*id, entry.service.clone()));
            }
            match &mut entry.state {
                State::Ejected { cause: Cause::Unreachable, until } if *until <= now && self.settings.probes => {
                    // The probe reports its result. If it is lost, another one starts then.
                    *until = now + MAX_RECONNECT_DELAY;
                    due.probes.push((*id, entry.service.clone()));
                }
                // Until a check succeeds.
                State::Ejected { cause: Cause::HealthCheck, .. } => {}
                State::Ejected { cause, until } if *until <= now => {
                    entry.state = State::half_open(*cause, 0, now);
                    entry.stats.half_open.start();
                    due.changed = true;
                }
                State::HalfOpen { next, pause, .. } if *next <= now => {
                    *next = now + *pause;
                    if entry.stats.half_open.reissue() {
                        *pause = (2 * *pause).min(MAX_PERMIT_INTERVAL);
                    }
                }
                _ => {}
            }
        }
        due.changed |= self.sweep(now);
        due
    }

    /// Starts the checks that have been due for the longest time, so that slow checks delay all
    /// endpoints alike.
    fn start_checks(&mut self, now: Instant, max: usize) -> Vec<(EndpointId, Arc<S>)> {
        if max == 0 {
            return Vec::new();
        }
        let checked =
            self.entries.iter_mut().filter_map(|(id, entry)| Some((id, entry.health.as_mut()?, &entry.service)));
        let mut due: Vec<_> = checked.filter(|(_, health, _)| health.next() <= now).collect();
        due.sort_by_key(|(_, health, _)| health.next());
        let started = due.into_iter().take(max).map(|(id, health, service)| {
            health.start(now);
            (*id, service.clone())
        });
        started.collect()
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
            let since = counts.responses_since(entry.responses_at_sweep);
            let failed = entry.stats.take_failed();
            entry.responses_at_sweep = counts.responses();
            if entry.state == State::Available {
                if failed == 0 {
                    entry.ejections = entry.ejections.saturating_sub(1);
                }
                calls.push((*id, Calls { responses: since, failed }));
            }
        }
        let outliers = ejection.outliers(&calls);
        outliers.into_iter().fold(false, |changed, (id, cause)| self.eject_suspect(id, cause, now) || changed)
    }

    fn app(&self) -> Option<&str> {
        self.settings.app.as_deref()
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.settings.metrics.record(Event::Closed);
    }
}

/// Time for which the endpoint has been up, if known.
fn age(attributes: &Attributes) -> Option<Age> {
    attributes.up_since_ms.map(|since| Age::new(since, wall_clock_ms(), Instant::now()))
}

impl State {
    fn half_open(cause: Cause, successes: u32, now: Instant) -> Self {
        Self::HalfOpen { cause, successes, next: now + PERMIT_INTERVAL, pause: PERMIT_INTERVAL }
    }
}

impl<S> Entry<S> {
    fn is_unreachable(&self) -> bool {
        let cause = match self.state {
            State::Available => return false,
            State::Ejected { cause, .. } | State::HalfOpen { cause, .. } => cause,
        };
        cause.is_certain()
    }

    fn is_unhealthy(&self) -> bool {
        matches!(self.state, State::Ejected { cause: Cause::HealthCheck, .. })
    }

    fn is_half_open(&self) -> bool {
        matches!(self.state, State::HalfOpen { .. })
    }

    fn is_outlier(&self) -> bool {
        matches!(self.state, State::Ejected { cause, .. } | State::HalfOpen { cause, .. } if !cause.is_certain())
    }
}
