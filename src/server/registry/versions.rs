//! Which of two states of an instance counts, where two registries have it differently; and what remains of those that were cancelled.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Refused, Registry, lease_duration_secs};
use crate::model::{Instance, InstanceStatus};

/// Endings that are remembered at most; the oldest is forgotten for one more. Each takes some 200 bytes.
const ENDINGS: usize = 50_000;

/// Where a state stands in the life of an instance: first by the instance's own count, then by when a registry took it in.
///
/// An ending has a version like any other state: that of the data that ended, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) struct Version {
    dirty: Option<i64>,
    updated: Option<i64>,
}

impl Version {
    pub(in crate::server) fn of(instance: &Instance) -> Self {
        Self { dirty: instance.last_dirty_timestamp, updated: instance.last_updated_timestamp }
    }
}

/// Whether two registries agree about an instance. Leases are each one's own affair.
pub(in crate::server) fn agree(ours: &Instance, theirs: &Instance) -> bool {
    weight(ours) == weight(theirs) && ours.metadata == theirs.metadata
}

/// Whether theirs is to replace ours. All who compare the same two states choose the same one.
pub(in crate::server) fn replaces(theirs: &Instance, ours: &Instance) -> bool {
    let settled = Version::of(theirs).cmp(&Version::of(ours)).then_with(|| weight(theirs).cmp(&weight(ours)));
    settled.then_with(|| theirs.metadata.iter().cmp(ours.metadata.iter())) == Ordering::Greater
}

fn weight(instance: &Instance) -> (Option<i64>, InstanceStatus, InstanceStatus) {
    (instance.last_dirty_timestamp, instance.status, instance.overridden_status)
}

impl Registry {
    /// Takes over what another registry has of an instance exactly as it is there: its status and override, or the lack of one, as of
    /// its own time. False if what is known here counts more, be it that the instance was cancelled.
    ///
    /// Its lease counts from `since`, or from later if it does so here already.
    pub(in crate::server) fn adopt(&self, copy: Instance, since: i64, now: i64) -> Result<bool, Refused> {
        self.check_metadata(&copy)?;
        let (app, id) = (copy.app.clone(), Arc::<str>::from(copy.id()));
        let mut leases = self.shards.write(&app, &id);
        let counts = match leases.get(&app, &id) {
            Some(lease) => replaces(&copy, lease.instance()),
            None => self.ended(&app, &id) < Some(Version::of(&copy)),
        };
        if counts {
            let overridden = Some(copy.overridden_status).filter(|&status| status != InstanceStatus::Unknown);
            let duration_secs = lease_duration_secs(&copy);
            let since = leases.get(&app, &id).map_or(since, |lease| lease.since().max(since));
            self.admit(&mut leases, copy, overridden, duration_secs, since, now)?;
        }
        Ok(counts)
    }

    /// Ends a lease as another registry ended it. False if what is known here counts more.
    pub(in crate::server) fn adopt_ending(&self, app: &str, id: &str, ending: Version, now: i64) -> bool {
        let mut leases = self.shards.write(app, id);
        if leases.get(app, id).is_none_or(|lease| Version::of(lease.instance()) > ending) {
            return false;
        }
        self.cancel_in(&mut leases, app, id, now)
    }

    /// The state in which an instance was cancelled lately, by whomever.
    pub(in crate::server) fn ended(&self, app: &str, id: &str) -> Option<Version> {
        self.endings.of(app, id)
    }
}

/// What was cancelled lately. Kept only where there are other registries that may not know it yet.
#[derive(Debug, Default)]
pub(super) struct Endings(Mutex<Remembered>);

/// The endings in one application by id, each with the time since which it is remembered.
type EndingsOf = HashMap<Arc<str>, (Version, i64)>;

#[derive(Debug, Default)]
struct Remembered {
    applications: HashMap<Arc<str>, EndingsOf>,
    /// Oldest first. An instance that ended again has an older entry, too, which says nothing any more.
    order: VecDeque<(i64, Arc<str>, Arc<str>)>,
}

impl Endings {
    pub(super) fn add(&self, instance: &Instance, id: Arc<str>, now: i64) {
        let version = Version { dirty: instance.last_dirty_timestamp, updated: Some(now) };
        let mut remembered = self.lock();
        remembered.applications.entry(instance.app.clone()).or_default().insert(id.clone(), (version, now));
        remembered.order.push_back((now, instance.app.clone(), id));
        if remembered.order.len() > ENDINGS {
            remembered.forget_first();
        }
    }

    fn of(&self, app: &str, id: &str) -> Option<Version> {
        self.lock().applications.get(app)?.get(id).map(|&(version, _)| version)
    }

    /// Forgets what ended before this time.
    pub(super) fn prune(&self, before: i64) {
        let mut remembered = self.lock();
        while remembered.order.front().is_some_and(|&(at, ..)| at < before) {
            remembered.forget_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn forget_first(&mut self) {
        let Some((at, app, id)) = self.order.pop_front() else { return };
        let Some(ids) = self.applications.get_mut(&app) else { return };
        if ids.get(&id).is_some_and(|&(_, ended)| ended == at) {
            ids.remove(&id);
        }
        if ids.is_empty() {
            self.applications.remove(&app);
        }
    }
}
