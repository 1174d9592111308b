use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Interests;
use super::cost::{self, Cost, OVERHEAD};
use super::list::{Earlier, List};
use super::merge::Merged;
use super::proof::Proof;
use crate::cache::progress::{DeltaUse, FetchOutcome, InterestUse, Report};
use crate::cache::refresher::{OFFLOAD_INSTANCES, Refresher};
use crate::cache::refusals::{Refusals, is_overload};
use crate::cache::snapshot::Snapshot;
use crate::config::{ClientConfig, Interest, OfflineConfig};
use crate::error::{Error, Kind};
use crate::model::{Applications, Known};
use crate::panics::catch_panic;
use crate::sync::offload;
use crate::time::{Backoff, Moment, jittered, lengthened};
use crate::transport::{Fetched, Full, Part, Resource, Transport};

/// Maximum number of lists that are fetched at the same time.
const MAX_FETCHES: usize = 8;
/// Number of these that only lists of new names may take, since calls wait for them.
const RESERVED_FETCHES: usize = 2;

/// Refreshes the names in use.
///
/// Each refresh brings the list of each resource up to date: by a request with `If-None-Match` if
/// the server sent an `ETag`, otherwise by one delta for all lists that it continues, otherwise by
/// a request for the complete list. While the whole registry is cheaper to fetch, it is fetched
/// instead.
pub(crate) struct UsedRefresher {
    pub(super) transport: Transport,
    pub(super) config: ClientConfig,
    /// Settings of the copies of lists, without static instances.
    pub(super) offline: OfflineConfig,
    pub(super) interests: Arc<Interests>,
    pub(super) lists: BTreeMap<Resource, List>,
    pub(super) merged: Merged,
    /// Set while the whole registry is fetched.
    pub(super) whole: Option<Whole>,
    pub(super) cost: Cost,
    pub(super) refusals: Refusals,
    /// True if the lists of this refresh replace a delta that has been refused for long.
    replaces_delta: bool,
    /// Error of the lists that the latest refresh could not fetch, although it fetched others.
    pub(super) partial: Option<Error>,
    /// True while some lists fail and others do not.
    is_partial: bool,
    /// True if the last refresh of all names began with a delta.
    is_delta_used: bool,
    /// True if the last refresh failed with a status of overload.
    overloaded: bool,
    /// True if the latest delta tells that the registry lists any instance.
    has_others: bool,
    /// Number of servers that were left since they listed nothing.
    left_empty: usize,
    pub(super) proof: Proof,
    /// False if the latest refresh needed no request.
    has_asked: bool,
    backoff: Backoff,
    pub(super) has_responded: bool,
    pub(super) failing_since: Option<Instant>,
    /// Time of the next refresh of all names.
    pub(super) next_at: Instant,
    pub(super) last_refresh: Instant,
    /// Clock that runs only while the registry responds. Held instances expire by it.
    response_clock: Instant,
    /// Lists that were fetched earlier, by this process or by the one that saved them.
    pub(super) restored: Vec<Earlier>,
    pub(super) report: Report,
}

/// Refresh of the whole registry, and its last result.
pub(super) struct Whole {
    pub(super) refresher: Refresher,
    pub(super) snapshot: Snapshot,
    /// Time of the last response.
    pub(super) at: Moment,
}

/// Request for a list that has ended: its resource, beginning and result.
pub(super) type Finished = (Resource, Instant, Result<Part, Error>);

/// Receiver of snapshots in the middle of a refresh.
pub(crate) trait Publish: Fn(Snapshot) + Send + Sync {}

impl<F: Fn(Snapshot) + Send + Sync> Publish for F {}

impl UsedRefresher {
    pub(crate) fn new(transport: Transport, config: &ClientConfig, interests: Arc<Interests>) -> Self {
        let (interval, now) = (config.fetch_interval, Instant::now());
        Self {
            transport: transport.in_background(),
            config: config.clone(),
            offline: OfflineConfig { instances: Vec::new(), ..config.offline.clone() },
            interests,
            lists: BTreeMap::new(),
            merged: Merged::new(config.offline.instances.clone()),
            whole: None,
            cost: Cost::default(),
            refusals: Refusals::default(),
            replaces_delta: false,
            partial: None,
            is_partial: false,
            is_delta_used: false,
            overloaded: false,
            has_others: false,
            left_empty: 0,
            proof: Proof::default(),
            has_asked: false,
            backoff: Backoff::new(Duration::from_secs(1).min(interval), interval),
            has_responded: false,
            failing_since: None,
            next_at: now,
            last_refresh: now,
            response_clock: now,
            restored: Vec::new(),
            report: Report::default(),
        }
    }

    /// Takes over a list that was saved earlier. Names have its instances until they are fetched.
    pub(crate) fn restore(&mut self, list: Applications) -> Snapshot {
        let fetched = Moment::now();
        let earlier = |application| Earlier { application, fetched };
        self.restored = list.applications.into_iter().map(earlier).collect();
        self.plan();
        self.snapshot()
    }

    /// Returns `true` if a list of the server has an instance.
    pub(crate) fn lists_any(&self) -> bool {
        let is_any = |list: &List| list.updated.is_some() && !list.local.is_empty();
        self.whole.as_ref().map_or_else(|| self.lists.values().any(is_any), |whole| whole.refresher.lists_any())
    }

    /// Returns the report on the latest refresh.
    pub(crate) fn report(&self) -> &Report {
        self.whole.as_ref().map_or(&self.report, |whole| whole.refresher.report())
    }

    /// Returns the use of deltas from now on.
    pub(crate) fn deltas(&self) -> DeltaUse {
        match &self.whole {
            Some(whole) => whole.refresher.deltas(),
            None if !self.uses_deltas() => DeltaUse::Off,
            None if !self.has_responded => DeltaUse::Undecided,
            None if self.is_delta_used => DeltaUse::InUse,
            None if self.refusals.are_deltas_off() => DeltaUse::NotOffered,
            None => DeltaUse::NotNeeded,
        }
    }

    /// Returns the number of held instances.
    pub(crate) fn held(&self) -> usize {
        let lists = || self.lists.values().map(|list| list.local.held()).sum();
        self.whole.as_ref().map_or_else(lists, |whole| whole.refresher.held())
    }

    /// Returns the names in use, and the way in which they are fetched.
    pub(crate) fn interest(&self) -> InterestUse {
        InterestUse { names: self.interests.len(), is_whole_fetched: self.whole.is_some() }
    }

    /// Returns `false` if the latest refresh needed no request, so that it tells nothing about the
    /// registry.
    pub(crate) fn has_asked(&self) -> bool {
        self.has_asked
    }

    /// Returns the error of the lists that the latest refresh could not fetch, although it fetched
    /// others.
    pub(crate) fn partial_error(&self) -> Option<&Error> {
        self.partial.as_ref().filter(|_| self.whole.is_none())
    }

    /// Makes the next refresh one of all names, although it is not due.
    pub(crate) fn hurry(&mut self) {
        self.next_at = Instant::now();
    }

    /// Waits until a name comes into use.
    pub(crate) async fn fresh(&self) {
        self.interests.fresh().await;
    }

    /// Fetches the names whose refresh is due, and new ones. Returns the new snapshot or the error,
    /// and the delay before the next fetch. New names are published as soon as they are fetched.
    ///
    /// Not cancel safe, as [`Refresher::next`].
    pub(crate) async fn next(&mut self, publish: &impl Publish) -> (Result<Snapshot, Error>, Duration) {
        self.report = Report::default();
        self.proof.begin();
        let is_due = Instant::now() >= self.next_at;
        if self.whole.is_some() {
            self.has_asked = is_due;
            return self.next_whole(is_due, publish).await;
        }
        let refreshed = match catch_panic(self.refresh(is_due, publish)).await {
            Ok(refreshed) => refreshed,
            Err(panicked) => {
                // A list may be half changed, so all are fetched again. Their instances remain.
                self.lists.values_mut().for_each(|list| *list = list.without_list());
                tracing::error!(error = %panicked, "refresh panicked");
                Err(Error::new(Kind::Call, "fetch registry").cause(panicked.to_string()))
            }
        };
        self.last_refresh = Instant::now();
        // Without any name or delta, nothing is requested once the server has proved to be a
        // registry.
        let requests = is_due && (self.uses_deltas() || !self.lists.is_empty());
        self.has_asked = requests || refreshed.is_err() || !self.report.fetches.is_empty();
        match refreshed {
            Ok(()) => {
                if let Some(error) = &self.partial {
                    let kind = error.kind();
                    if !std::mem::replace(&mut self.is_partial, true) {
                        tracing::warn!(%error, "some lists could not be fetched, keeping their last copies");
                    }
                    let wait = self.delay_after(kind, is_due);
                    return (Ok(self.snapshot()), wait);
                }
                self.is_partial &= !is_due;
                self.backoff.reset();
                if is_due {
                    self.next_at = Instant::now() + jittered(self.config.fetch_interval);
                }
                (Ok(self.snapshot()), self.next_at.saturating_duration_since(Instant::now()))
            }
            Err(error) => {
                if self.failing_since.is_none() {
                    self.failing_since = Some(Instant::now());
                    tracing::warn!(%error, "refresh failed, keeping the last copy");
                }
                // Other names may have changed.
                publish(self.snapshot());
                let wait = self.delay_after(error.kind(), is_due);
                (Err(error), wait)
            }
        }
    }

    /// Returns the delay after a failed refresh, by the rule of [`Refresher`]. New names are
    /// fetched again before the next refresh of all names.
    fn delay_after(&mut self, error: Kind, was_due: bool) -> Duration {
        let (now, interval) = (Instant::now(), self.config.fetch_interval);
        self.overloaded = matches!(error, Kind::Status(420 | 429 | 500..) | Kind::Paused(_));
        if let Some(pause) = self.transport.pause() {
            self.next_at = now + jittered(interval).max(lengthened(pause));
            return self.next_at - now;
        }
        let is_harmless = matches!(error, Kind::Connect | Kind::Call);
        let (retry, regular) = (self.backoff.next(), jittered(interval));
        if was_due {
            self.next_at = now + if is_harmless || !self.has_responded { retry } else { regular };
        }
        let has_new = self.lists.values().any(|list| list.updated.is_none());
        let wait = self.next_at.saturating_duration_since(now);
        if has_new { wait.min(retry) } else { wait }
    }

    async fn refresh(&mut self, is_due: bool, publish: &impl Publish) -> Result<(), Error> {
        self.plan();
        (self.replaces_delta, self.partial) = (false, None);
        let (outdated, delta_failed) = match is_due {
            true => self.outdated().await.map_or_else(|error| (VecDeque::new(), Some(error)), |due| (due, None)),
            false => (VecDeque::new(), None),
        };
        // New names are fetched in any case, since calls may wait for them.
        let mut refreshed = self.fetch(outdated, publish).await;
        if self.replaces_delta {
            match refreshed.as_ref().err().or(self.partial.as_ref()) {
                None => self.refusals.full_fetched(),
                Some(error) => self.refusals.full_failed(error.kind(), self.config.fetch_interval),
            }
        }
        match (delta_failed, &mut refreshed) {
            (Some(error), _) => {
                self.mark_failed(&error);
                refreshed = Err(error);
            }
            // The delta has brought other lists up to date.
            (None, Err(_)) if is_due && self.is_delta_used => {
                self.partial = std::mem::replace(&mut refreshed, Ok(())).err();
            }
            _ => {}
        }
        if is_due && refreshed.is_ok() {
            self.confirm_disappearances().await;
            self.leave_empty_server();
            if self.cost.refreshed() {
                self.consider_whole().await;
            }
        }
        if refreshed.is_err() {
            self.has_others = false;
        }
        refreshed
    }

    /// Brings lists up to date by a delta, if that is cheaper than requests for them. Returns the
    /// others.
    async fn outdated(&mut self) -> Result<VecDeque<Resource>, Error> {
        let fetched = self.lists.iter().filter(|(_, list)| list.updated.is_some());
        let mut outdated: VecDeque<_> = fetched.map(|(resource, _)| resource.clone()).collect();
        self.is_delta_used = false;
        if !self.is_delta_cheaper() || self.refusals.are_deltas_off() {
            // Without any name and delta, nothing else shows that the registry responds.
            if self.lists.is_empty() && (self.uses_deltas() || !self.proof.exists()) {
                self.prove().await?;
            }
            return Ok(outdated);
        }
        let Some(delta) = self.fetch_delta().await? else { return Ok(outdated) };
        self.is_delta_used = true;
        let (clock, version) = (self.response_clock, delta.list.version);
        outdated.retain(|resource| {
            let Some(list) = self.lists.get_mut(resource) else { return true };
            if list.continuity.take_due_verification() || !list.continuity.is_continued_by(&delta.origin, version) {
                return true;
            }
            list.apply_delta(resource, &delta.list, clock);
            list.continuity.continued(delta.origin.clone(), version, delta.requested);
            false
        });
        self.mark_fetched(&BTreeMap::new());
        Ok(outdated)
    }

    /// Returns `true` if a delta of the whole registry should be fetched before the lists.
    ///
    /// Without any name, it is a cheap sign that the registry responds. In a large registry the
    /// changes of all applications may be more than a few lists. Lists with an `ETag` are exact, so
    /// they are preferred unless they change so often that they are mostly sent completely.
    fn is_delta_cheaper(&self) -> bool {
        if self.lists.is_empty() {
            return self.uses_deltas();
        }
        let bodies: u64 = self.lists.values().map(|list| list.mean).sum();
        let delta = self.cost.delta_size().unwrap_or(0);
        let is_cheaper = match self.lists.values().any(List::is_costly) {
            true => delta + OVERHEAD <= bodies + self.lists.len() as u64 * OVERHEAD,
            false => cost::is_cheaper(delta, bodies),
        };
        self.uses_deltas() && is_cheaper
    }

    pub(super) fn uses_deltas(&self) -> bool {
        self.config.delta && self.config.interest == Interest::Used
    }

    /// Fetches a delta of the whole registry. Returns `None` if the server offers none, or if the
    /// lists should be fetched in its place.
    pub(super) async fn fetch_delta(&mut self) -> Result<Option<Fetched>, Error> {
        let began = Instant::now();
        self.set_others(false);
        let delta = match self.transport.changes().await {
            Ok(delta) => delta,
            Err(error) => {
                self.report.failed(began, &error);
                return self.delta_failed(error).await.map(|()| None);
            }
        };
        self.refusals.ended();
        match &delta {
            Some(delta) => {
                self.proof.add(&delta.origin);
                self.responded();
            }
            // A proxy may have responded. The lists show whether the registry responds.
            None if self.lists.is_empty() => self.prove().await?,
            None => {}
        }
        // Without a version nothing tells whether the server was restarted.
        let delta = delta.filter(|delta| delta.list.version.is_some_and(|version| version != -1));
        let Some(delta) = delta else {
            self.cost.add(0);
            self.refusals.pause_deltas();
            return Ok(None);
        };
        self.report.fetched(FetchOutcome::Delta, began, &delta);
        self.cost.add(delta.received);
        self.cost.delta(delta.received, delta.is_compressed, total(delta.list.hash.as_deref().unwrap_or_default()));
        self.set_others(self.cost.total().is_some_and(|total| total > 0));
        Ok(Some(delta))
    }

    /// Handles a delta that failed. Returns `Ok` if the lists should be fetched in its place.
    ///
    /// A status about the delta alone tells nothing about lists. An overloaded server gets requests
    /// for lists only if they are smaller than the delta, or once it has refused deltas for long.
    async fn delta_failed(&mut self, error: Error) -> Result<(), Error> {
        let (kind, was_refused) = (error.kind(), self.refusals.is_refused());
        let is_rejected = self.refusals.failed(kind);
        let is_unreadable = matches!(kind, Kind::InvalidResponse);
        let is_overload = is_overload(kind);
        if !(is_overload || is_unreadable || matches!(kind, Kind::Status(_))) {
            return Err(error);
        }
        if self.lists.is_empty() {
            if is_overload || self.proof.exists() && !is_rejected {
                return Err(error);
            }
            // Nothing but a list tells whether the server is a registry.
            self.prove().await?;
        } else if is_overload && !(was_refused && self.are_lists_smaller()) {
            if !self.refusals.is_full_due() {
                return Err(error);
            }
            self.replaces_delta = true;
        }
        if is_rejected {
            self.refusals.turn_deltas_off();
        } else if is_unreadable && !self.lists.is_empty() {
            self.refusals.pause_deltas();
        }
        Ok(())
    }

    /// Returns `true` if the lists are smaller than the last delta.
    fn are_lists_smaller(&self) -> bool {
        let lists: u64 = self.lists.values().map(|list| list.received + OVERHEAD).sum();
        self.cost.delta_size().is_some_and(|delta| lists <= delta + OVERHEAD)
    }

    /// Sets whether the registry lists any instance by a delta. An empty list then does not mean an
    /// empty registry.
    fn set_others(&mut self, has_others: bool) {
        self.has_others = has_others;
        self.lists.values_mut().for_each(|list| list.local.set_others(has_others));
    }

    /// Returns `true` if a list that was fetched recently has an instance.
    fn lists_any_recent(&self) -> bool {
        let limit = self.config.fetch_interval.saturating_mul(2);
        let is_recent = |list: &List| list.updated.is_some_and(|updated| updated.elapsed() <= limit);
        self.lists.values().any(|list| !list.local.is_empty() && is_recent(list))
    }

    /// Fetches these lists, and those of names that come into use meanwhile. Returns the first
    /// error if no list was fetched.
    pub(super) async fn fetch(&mut self, mut due: VecDeque<Resource>, publish: &impl Publish) -> Result<(), Error> {
        let (mut running, mut asked) = (JoinSet::new(), BTreeSet::new());
        let (mut failed, mut first_error, mut has_fetched) = (BTreeMap::new(), None, false);
        let (mut unproved, mut decided) = (Vec::new(), VecDeque::new());
        loop {
            if self.plan() {
                // Restored instances are used at once.
                publish(self.snapshot());
            }
            let concurrent = self.lists.len().min(MAX_FETCHES);
            // New names first, since calls may wait for them.
            for (resource, _) in self.lists.iter().rev().filter(|(_, list)| list.updated.is_none()) {
                if asked.insert(resource.clone()) {
                    due.push_front(resource.clone());
                }
            }
            while let Some(resource) = due.pop_front() {
                let is_new = self.lists.get(&resource).is_some_and(|list| list.updated.is_none());
                let races = !self.has_responded && failed.is_empty() && !self.overloaded;
                // The other lists wait for the server that is found.
                let most = match (races, is_new) {
                    (true, _) => 1,
                    (false, true) => MAX_FETCHES,
                    (false, false) => MAX_FETCHES - RESERVED_FETCHES,
                };
                if running.len() >= most {
                    due.push_front(resource);
                    break;
                }
                asked.insert(resource.clone());
                if let Some(list) = self.lists.get(&resource) {
                    // Later on, servers are known to respond, or all of them have been tried.
                    let race = races.then_some(self.config.ready_timeout);
                    let (transport, held) = (self.transport.clone(), list.local.known());
                    running.spawn(fetch_list(transport, resource, list.known_etag(), (held, concurrent), race));
                }
            }
            let finished = match decided.pop_front() {
                Some(decided) => Some(Ok(decided)),
                None => tokio::select! {
                    finished = running.join_next() => finished,
                    () = self.interests.fresh(), if !running.is_empty() => continue,
                },
            };
            let (resource, began, fetched) = match finished {
                Some(Ok(finished)) => finished,
                None if unproved.is_empty() => break,
                None => {
                    decided = self.decide(std::mem::take(&mut unproved)).await;
                    continue;
                }
                Some(Err(ended)) => {
                    let error = Error::new(Kind::Call, "fetch registry").cause(ended.to_string());
                    first_error.get_or_insert(error);
                    continue;
                }
            };
            match fetched {
                Ok(Part::NotFound(not_found)) if !self.proof.covers(not_found.server()) => {
                    unproved.push((resource, began, not_found));
                }
                Ok(part) => {
                    has_fetched = true;
                    let is_new = self.apply(&resource, began, part.into_list()).await;
                    self.learn_spellings();
                    if is_new {
                        self.mark_fetched(&failed);
                        publish(self.snapshot());
                    }
                }
                Err(error) => {
                    self.report.failed(began, &error);
                    if let Some(list) = self.lists.get_mut(&resource) {
                        list.use_old();
                    }
                    failed.insert(resource, Arc::new(error.without_source()));
                    first_error.get_or_insert(error);
                }
            }
        }
        self.mark_fetched(&failed);
        if has_fetched {
            self.partial = first_error.take();
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Applies a response. Returns `true` if it is the first one of its list.
    async fn apply(&mut self, resource: &Resource, began: Instant, full: Full) -> bool {
        self.received(began, &full);
        let instances = match &full {
            Full::Unchanged(..) => 0,
            Full::Changed(fetched) => fetched.list.len(),
        };
        let now = self.response_clock;
        let Some(known) = self.lists.get_mut(resource) else { return false };
        // If this panics, the instances remain.
        let rest = known.without_list();
        let mut list = std::mem::replace(known, rest);
        list.local.set_others(self.has_others || self.lists_any_recent());
        let (is_new, held, servers) = (list.updated.is_none(), list.local.held(), self.transport.server_count());
        if instances < OFFLOAD_INSTANCES {
            list.apply(full, servers, now);
        } else {
            list = offload(move || {
                list.apply(full, servers, now);
                list
            })
            .await;
        }
        if list.local.held() > held {
            let held = list.local.held();
            tracing::warn!(
                ?resource,
                listed = instances,
                held,
                "implausibly many instances are missing, holding them for now"
            );
        }
        self.lists.insert(resource.clone(), list);
        is_new
    }

    /// Removes held instances that a delta deletes. Lists do not tell whether an instance was
    /// cancelled or forgotten by the server, and deltas do.
    async fn confirm_disappearances(&mut self) {
        if self.held() == 0 || !self.config.delta || self.refusals.are_deltas_off() {
            return self.set_others(self.lists_any_recent());
        }
        let Ok(Some(delta)) = self.fetch_delta().await else { return };
        for (resource, list) in &mut self.lists {
            if list.local.held() > 0 {
                list.confirm(resource, &delta.list, self.response_clock);
            }
        }
    }

    /// Begins the next refresh at another server if this one lists none of a name's instances, and
    /// some are held or none was ever listed, since another one may have them.
    fn leave_empty_server(&mut self) {
        if self.lists_any_recent() {
            return;
        }
        // One refresh asks one server, unless that fails.
        let Some(origin) = self.lists.values().find_map(|list| list.local.empty_server()) else { return };
        if self.held() == 0 {
            // Nothing was ever listed. Each of the other servers is asked once, for all names.
            if self.left_empty + 1 >= self.transport.server_count() {
                return;
            }
            self.left_empty += 1;
        }
        self.transport.leave_reader(origin.url());
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        let names = self.interests.lookups();
        match &self.whole {
            Some(whole) => self.merged.of_whole(&whole.snapshot, names),
            None => self.merged.lists(self.lists.values().map(|list| &list.snapshot), names),
        }
    }

    /// Advances the response clock by the time since the last refresh, at most by one interval.
    pub(super) fn responded(&mut self) {
        let now = Instant::now();
        self.has_responded = true;
        self.response_clock += now.duration_since(self.last_refresh).min(self.config.fetch_interval);
        self.last_refresh = now;
        if let Some(since) = self.failing_since.take() {
            tracing::info!(elapsed = ?since.elapsed(), "refresh recovered");
        }
    }
}

/// Fetches one list, in a task of its own.
async fn fetch_list(
    transport: Transport,
    resource: Resource,
    known: Option<HeaderValue>,
    (held, concurrent): (Known, usize),
    race: Option<Duration>,
) -> Finished {
    let began = Instant::now();
    let fetched = transport.resource(&resource, known.as_ref(), race, &held, concurrent).await;
    (resource, began, fetched)
}

/// Returns the number of instances that a hash counts: 12 for `DOWN_2_UP_10_`.
fn total(hash: &str) -> u64 {
    hash.split('_').filter_map(|part| part.parse::<u64>().ok()).sum()
}
